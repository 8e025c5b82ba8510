"""Images of all sources as one type: `load(name, source=…)` gives an `ImageSet`, `catalogue()` says what there is."""

from helpers.data.image_set import UNLABELLED, ImageSet, ImageSets
from helpers.data.own import from_folder
from helpers.data.phantoms import PHANTOMS, SCANNERS
from helpers.data.phantoms.xray import xray
from helpers.data.readers.dicom import from_dicom
from helpers.data.readers.volumes import from_analyze, from_metaimage, from_nifti
from helpers.data.samples import radiograph
from helpers.data.sources import READERS, SOURCES, catalogue, load
from helpers.data.splits import Split, split
from helpers.data.words import in_words

__all__ = [
    "PHANTOMS",
    "READERS",
    "SCANNERS",
    "SOURCES",
    "UNLABELLED",
    "ImageSet",
    "ImageSets",
    "Split",
    "catalogue",
    "from_analyze",
    "from_dicom",
    "from_folder",
    "from_metaimage",
    "from_nifti",
    "in_words",
    "load",
    "radiograph",
    "split",
    "xray",
]
