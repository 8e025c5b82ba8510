"""Small folders as readers bring them, of each kind that `helpers.data.takes` knows, made of phantoms."""

from pathlib import Path

import nibabel
import numpy as np
from dicom_files import dicom
from PIL import Image

from helpers.data import PHANTOMS


def grey(images) -> np.ndarray:
    return (images.tensor().numpy()[:, 0] * 255).round().astype(np.uint8)


def save(pixels: np.ndarray, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def classes(root: Path, abnormal: int = 30) -> Path:
    """Sixty forearms in two folders, so many of them abnormal."""
    films = PHANTOMS["xray"](images=120, patients=120, size=96, seed=3)
    for label, count in enumerate((60 - abnormal, abnormal)):
        for i in np.flatnonzero(films.labels == label)[:count]:
            save(grey(films[int(i)])[0], root / ("normal", "abnormal")[label] / f"{i}.png")
    return root


def more_classes(root: Path) -> Path:
    """Sixty breast images in three folders, as one of the field's sets has them."""
    breasts = PHANTOMS["ultrasound"](images=60, patients=60, size=96, seed=3)
    for i, (pixels, label) in enumerate(zip(grey(breasts), breasts.labels, strict=True)):
        save(pixels, root / breasts.class_names[label] / f"{breasts.class_names[label]} ({i}).png")
    return root


def masks(root: Path) -> Path:
    """Thirty breast images, each with the outline of its lesion; some have none."""
    breasts = PHANTOMS["ultrasound"](images=30, patients=30, size=96, seed=3)
    for i, pixels in enumerate(grey(breasts)):
        save(pixels, root / "images" / f"{i}.png")
        save((breasts.masks[i] > 0).astype(np.uint8) * 255, root / "masks" / f"{i}.png")
    return root


def series(root: Path) -> Path:
    """Twelve CT slices, 3 mm apart."""
    rng = np.random.default_rng(0)
    for i in range(12):
        place = dict(ImagePositionPatient=[0, 0, 3 * i], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
        voxels = rng.integers(0, 2000, (64, 64)).astype(np.uint16)
        dicom(root / f"{i}.dcm", voxels, InstanceNumber=i + 1, RescaleSlope=1, RescaleIntercept=-1024, **place)
    return root


def volumes(root: Path, *, with_masks: bool = True) -> Path:
    """Eight hearts with three structures as NIfTI, `patient0.nii.gz` and `patient0_gt.nii.gz`."""
    root.mkdir(parents=True, exist_ok=True)
    hearts = PHANTOMS["mr"](images=80, patients=8, size=96, seed=3)
    for i in range(8):
        own = hearts[hearts.patients == i]
        files = {f"patient{i}.nii.gz": grey(own).astype(np.int16), f"patient{i}_gt.nii.gz": own.masks.astype(np.uint8)}
        for name, voxels in list(files.items())[: 1 + with_masks]:
            nibabel.save(nibabel.Nifti1Image(voxels.transpose(2, 1, 0), np.diag([1.4, 1.4, 8, 1])), root / name)
    return root


def pictures(root: Path) -> Path:
    """Four forearms, and nothing said of them."""
    for i, pixels in enumerate(grey(PHANTOMS["xray"](images=4, size=96, seed=3))):
        save(pixels, root / f"{i}.png")
    return root


MAKE = {
    "classes": classes,
    "more classes": more_classes,
    "masks": masks,
    "series": series,
    "volumes": volumes,
    "pictures": pictures,
}
MAKE |= {"volume": lambda root: volumes(root, with_masks=False)}
NEEDED = {"more classes": {"classes": "normal, benign, malignant"}}  # parameters that go with a kind
