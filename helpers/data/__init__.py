"""Images of all sources as one type: `load(name, source=…)` gives an `ImageSet`."""

from helpers.data.folders import from_folder
from helpers.data.image_set import ImageSet
from helpers.data.phantoms.xray import xray
from helpers.data.samples import chest_views, radiograph
from helpers.data.splits import Split, split

__all__ = ["SOURCES", "ImageSet", "Split", "from_folder", "load", "radiograph", "split", "xray"]

SOURCES = ("phantom", "sample", "folder")


def load(name: str, *, source: str, images: int, size: int, seed: int = 0, data_dir: str = "") -> ImageSet:
    """The images called `name`: generated, projected from real anatomy, or of the reader's own folder.

    name: "xray". source: "phantom" (generated forearms, four images a patient), "sample" (views of one real chest),
    "folder" (all images below data_dir, whatever `images` says). size: pixels of a side.

    Raises ValueError for an unknown name or source, and where `data_dir` is missing or superfluous.
    """
    if name != "xray":
        raise ValueError(f"no images are called {name!r}; known are 'xray'")
    if source not in SOURCES:
        raise ValueError(f"source is {source!r}; expected one of {', '.join(SOURCES)}")
    if (source == "folder") != bool(data_dir):
        raise ValueError(f"source is {source!r} and data_dir {data_dir!r}; expected data_dir with source 'folder' only")
    if source == "phantom":
        return xray(images=images, size=size, seed=seed)
    if source == "sample":
        return chest_views(images=images, size=size, seed=seed)
    return from_folder(data_dir, size=size)
