"""Which volumes a folder holds, which masks belong to them, and what does not fit together."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

from helpers.data.checks import FEW
from helpers.data.image_set import ImageSet
from helpers.data.readers.files import some
from helpers.data.readers.layout import divided, paired
from helpers.data.readers.volumes import SIDELESS


def volumes_in(folder: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], list[dict[str, Path]]]:
    """The volumes, and of each the files of its mask, instances and scribbles, as options of their readers.

    Warns of masks that belong to no volume. Raises ValueError for a volume with several or, if others have one, none.
    """
    volumes, others = divided(folder, folder, suffixes=suffixes)
    if not volumes:
        raise ValueError(f"'{folder.name}' holds masks, but no volumes; expected both")
    options = [{} for _ in volumes]
    for kind, files in others.items():
        files = [file for file in files if file.suffix.lower() in suffixes]
        found = paired(folder, volumes, files)
        for volume, files_of, given in zip(volumes, found, options, strict=True):
            if len(files_of) != 1:
                there = f"are {some(files_of, folder)}" if files_of else f"are missing, there are {some(files, folder)}"
                raise ValueError(f"{kind} of '{volume.name}' {there}; expected one file of its name")
            given["mask" if kind == "masks" else kind] = files_of[0]
        used = {file for files_of in found for file in files_of}
        if strays := [file for file in files if file not in used]:
            warnings.warn(f"left out: {some(strays, folder)}, which belong to no volume", stacklevel=5)
    return volumes, options


def check_together(folder: Path, volumes: list[Path], read: list[ImageSet], levels: list[int]) -> None:
    """Tells of copies, and of volumes that do not say where left is; levels: how many values each has as stored.

    Raises ValueError for a volume that holds labels among others that do not, and for one with moments among such.
    """
    if strays := [file for file, count in zip(volumes, levels, strict=True) if 1 < count < FEW <= max(levels)]:
        raise ValueError(
            f"{some(strays, folder)}: fewer than {FEW} different values, as a mask has, but of no image's name; "
            "expected NAME_mask beside NAME, or a folder masks"
        )
    moving = [file for file, one in zip(volumes, read, strict=True) if one.frames is not None]
    if 0 < len(moving) < len(volumes):
        raise ValueError(
            f"{some(moving, folder)}: four axes, with time, where {some(sorted(set(volumes) - set(moving)), folder)} "
            "have three; expected one kind"
        )
    if sideless := [file for file, one in zip(volumes, read, strict=True) if SIDELESS in one.steps]:
        warnings.warn(f"{some(sideless, folder)}: {SIDELESS}", stacklevel=5)
    first = {}
    for file, one in zip(volumes, read, strict=True):
        twin = first.setdefault(hashlib.sha256(one.images.tobytes()).digest(), file)
        if twin != file:
            warnings.warn(f"{some([twin, file], folder)} are the same; remove one", stacklevel=5)
