"""Which images of a DICOM series belong together, and in which order: volumes, slices and moments.

Each image is a dict as `helpers.data.readers.dicom` makes them; what a reader should know is added to `notes`.
"""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np

from helpers.data.readers.files import listed
from helpers.data.readers.pictures import numbered

SAME = 0.0101  # mm: positions that differ by less are one place
PLANES = ("sagittal", "coronal", "axial")


def of_one_kind(images: list[dict], notes: list[str]) -> list[dict]:
    """The images without localisers and secondary captures, if there are others, and of the commonest orientation.

    What is left out is told. Raises ValueError if no orientation has more than half of them.
    """
    kinds, turns = defaultdict(list), []
    for image in images:
        kinds[_kind(image, turns)].append(image)
    ranked = sorted(kinds, key=lambda kind: (kind[0] in ("localiser", "secondary capture"), -len(kinds[kind])))
    first, *others = ranked
    rivals = [kind for kind in others if kind[0] not in ("localiser", "secondary capture") or kind[0] == first[0]]
    if sum(len(kinds[kind]) for kind in rivals) >= len(kinds[first]):
        found = "; ".join(f"{kind[0]}: {listed(_files(kinds[kind]))}" for kind in (first, *rivals[:3]))
        raise ValueError(f"the series holds images of {len(rivals) + 1} orientations; expected one; {found}")
    if others:
        left = [f"{listed(_files(kinds[kind]))} ({kind[0]})" for kind in others]
        notes.append(f"left out of {len(kinds[first])} images ({first[0]}): {', '.join(left)}")
    return kinds[first]


def without_copies(images: list[dict], notes: list[str]) -> list[dict]:
    """The images without those that are there twice, which is told.

    A copy has the place, number and pixels of another image. Raises ValueError where it has its SOP instance UID, but
    other pixels.
    """
    kept, copies = defaultdict(list), []
    for image in images:
        who = tuple(image[key] for key in ("instance", "acquisition", "moment", "frame", "place", "patient"))
        for other in kept[who]:
            named = bool(image["uid"]) and image["uid"] == other["uid"]
            equal = np.array_equal(image["pixels"], other["pixels"])
            if named and not equal:
                raise ValueError(
                    f"'{other['file']}' and '{image['file']}' have one SOP instance UID, but other pixels; "
                    "expected one of them"
                )
            if equal and (named or image["instance"] and image["place"]):
                copies.append(image)
                break
        else:
            kept[who].append(image)
    if copies:
        notes.append(f"copies of other files were left out: {listed(_files(copies))}")
    dropped = {id(copy) for copy in copies}
    return [image for image in images if id(image) not in dropped]


def placed(images: list[dict], notes: list[str]) -> tuple[list[dict], dict]:
    """Images in their order, and volumes, slices, frames and slice spacing as far as known.

    Acquisitions, or passes, that lie between one another and make no even grid together are volumes of their own.
    Several images at one place are moments, in the order of acquisition, moment, number; raises ValueError where they
    are of several echoes or b-values.
    """
    if images[0]["orientation"] is None:
        return _by_number(images, notes)
    parts = [_in_order(part) for part in _volumes(images, notes)]
    stacks = [_stack(part, notes) for part in parts]
    slices, frames, gaps = (np.concatenate(values) for values in zip(*stacks, strict=True))
    return list(itertools.chain(*parts)), dict(
        volumes=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
        slices=slices,
        frames=frames if frames.any() else None,
        slice_spacing=None if np.isnan(gaps).all() else gaps,
    )


def _kind(image: dict, turns: list[np.ndarray]) -> tuple[str, int]:
    """Localiser, capture, or the plane, with a number for each orientation."""
    turned = image["orientation"]
    if turned is None:
        return image["special"] or "without position or orientation", -1
    same = (i for i, other in enumerate(turns) if np.allclose(turned, other, atol=1e-3))
    if (number := next(same, None)) is None:
        turns.append(turned)
        number = len(turns) - 1
    return image["special"] or PLANES[int(np.abs(np.cross(turned[:3], turned[3:])).argmax())], number


def _by_number(images: list[dict], notes: list[str]) -> tuple[list[dict], dict]:
    """Images without places: in the order of their numbers, a file of several frames as a volume."""
    ordered = sorted(images, key=lambda f: (f["instance"], f["file"], f["frame"]))
    numbers = {(f["instance"], f["frame"]) for f in images}
    if len(numbers) < len(images) and len({f["file"] for f in images}) > 1:
        notes.append(f"without position and number, in the order of their names: {listed(_files(ordered))}")
    moments = dict(volumes=numbered([f["file"] for f in ordered]), frames=np.array([f["frame"] for f in ordered]))
    return ordered, moments if any(f["count"] > 1 for f in images) else {}


def _volumes(images: list[dict], notes: list[str]) -> list[list[dict]]:
    """The images as one volume, or as one of each acquisition or pass."""
    groups = _groups(images)
    grids = [_levels(group)[0] for group in groups]
    apart = all(a[-1] < b[0] - SAME for a, b in itertools.pairwise(sorted(grids, key=lambda grid: grid[0])))
    if apart or _alike(grids):
        return [images]
    grid, level = _levels(images)
    even = _regular(grid) and len(grid) == len(level)
    alone = all(len(own) > 2 and _regular(own) for own in grids)
    thick = images[0]["gap"] or images[0]["thickness"]
    own_gap, joint_gap = np.median(np.diff(grids[0])) if len(grids[0]) > 1 else np.inf, np.median(np.diff(grid))
    if alone and (not even or (thick and abs(thick - own_gap) < abs(thick - joint_gap))):
        notes.append(
            f"{len(groups)} acquisitions lie between one another, {own_gap:g} mm apart each, and are read as volumes: "
            + ", ".join(f"'{group[0]['file']}' …" for group in groups[:3])
        )
        return groups
    if even and len({f["acquisition"] for f in images}) > 1:
        notes.append(f"{len(groups)} acquisitions that lie between one another are read as one volume, "
                     f"{joint_gap:g} mm apart")  # fmt: skip
    return [images]


def _groups(images: list[dict]) -> list[list[dict]]:
    """The images of each acquisition number or, where there is one only, of each pass along the body."""
    groups = defaultdict(list)
    for image in images:
        groups[image["acquisition"]].append(image)
    if len(groups) > 1 or len({(f["instance"], f["frame"]) for f in images}) < len(images):
        return [groups[key] for key in sorted(groups)]
    ordered = sorted(images, key=lambda f: (f["instance"], f["frame"]))
    passes, way = [ordered[:1]], 0
    for before, image in itertools.pairwise(ordered):
        step = image["position"] - before["position"]
        turn = 0 if abs(step) < SAME else np.sign(step)
        if turn and turn == -way:  # it goes back: a new pass starts
            passes.append([])
            turn, way = 0, 0
        way = turn or way
        passes[-1].append(image)
    return passes


def _in_order(images: list[dict]) -> list[dict]:
    by = ("acquisition", "moment", "instance", "file", "frame")
    keys = [(level, *(f[key] for key in by)) for f, level in zip(images, _levels(images)[1].tolist(), strict=True)]
    return [images[i] for i in sorted(range(len(images)), key=keys.__getitem__)]


def _levels(images: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """The places (mm along the normal, in their order), and the place of each image."""
    positions = np.array([image["position"] for image in images])
    order = np.argsort(positions, kind="stable")
    first = np.concatenate([[True], np.diff(positions[order]) > SAME])
    level = np.empty(len(images), int)
    level[order] = np.cumsum(first) - 1
    return positions[order][first], level


def _regular(grid: np.ndarray) -> bool:
    gaps = np.diff(grid)
    return not len(gaps) or np.allclose(gaps, np.median(gaps), rtol=0.05, atol=0.02)


def _alike(grids: list[np.ndarray]) -> bool:
    return all(len(grid) == len(grids[0]) and np.allclose(grid, grids[0], atol=0.1) for grid in grids)


def _stack(images: list[dict], notes: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slice, moment and gap (mm, NaN if unknown) of each image of a volume that is in its order."""
    grid, slices = _levels(images)
    gaps, repeats = np.diff(grid), np.bincount(slices)
    if not _regular(grid):
        wide = int(gaps.argmax())
        ends = [next(f["file"] for f, at in zip(images, slices, strict=True) if at == wide + i) for i in (0, 1)]
        notes.append(
            f"slices lie {gaps.min():g} to {gaps.max():g} mm apart; is one missing between '{ends[0]}' and '{ends[1]}'?"
        )
    if repeats.min() < repeats.max():
        fewer = [f["file"] for f, at in zip(images, slices, strict=True) if repeats[at] == repeats.min()]
        notes.append(f"{repeats.max()} images lie at most places, {repeats.min()} at those of {listed(fewer)}")
    if repeats.max() > 1:
        notes += _moments(images, slices)
    gap = np.median(gaps) if len(gaps) else images[0]["gap"]
    moments = np.concatenate([np.arange(count) for count in repeats])
    return slices, moments, np.full(len(images), np.nan if gap is None else float(gap))


def _moments(images: list[dict], slices: np.ndarray) -> list[str]:
    """What differs between images at one place and is more than time; ValueError where it is another contrast."""
    notes = []
    for word in images[0]["contrast"]:
        at, of = defaultdict(set), defaultdict(dict)
        for image, level in zip(images, slices.tolist(), strict=True):
            value = " ".join(f"{number:g}" for number in image["contrast"][word]) or "none"
            at[level].add(value)
            of[value][image["file"]] = None
        if any(len(values) > 1 for values in at.values()):
            each = "; ".join(f"{value}: {len(files)} files, {listed(files)}" for value, files in of.items())
            raise ValueError(f"images at one place have {len(of)} {word}, {each}; expected one: sort the files by it")
    for key, word in (("acquisition", "acquisition numbers"), ("type", "image types")):
        at = defaultdict(dict)
        for image, level in zip(images, slices.tolist(), strict=True):
            at[level].setdefault(image[key], image["file"])
        if several := next((found for found in at.values() if len(found) > 1), None):
            notes.append(f"{len(several)} {word} at one place are read as frames: {listed(several.values())}")
    return notes


def _files(images: list[dict]) -> list[str]:
    return list(dict.fromkeys(image["file"] for image in images))
