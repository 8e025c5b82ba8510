"""What is suspicious about a folder: pictures that look the same, and classes too small for a split."""

import warnings

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from helpers.data import PHANTOMS, from_folder
from helpers.data.checks import alike, fingerprint


def save(image, file, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, **options)


def scans(count):
    """Ultrasound images of so many patients, as pictures."""
    made = PHANTOMS["ultrasound"](images=count, patients=count, size=96, seed=1)
    return [Image.fromarray((pixels * 255).astype(np.uint8)) for pixels in made.tensor().numpy()[:, 0]]


def warned(root, **options):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        from_folder(root, **options)
    return [str(one.message) for one in told]


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: image,
        lambda image: image.resize((48, 48), Image.BILINEAR),
        lambda image: ImageEnhance.Brightness(image).enhance(0.7),
        lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    ],
)
def test_copies_on_two_sides_of_a_split_are_told(tmp_path, copy):
    made = scans(6)
    for i, image in enumerate(made):
        save(image, tmp_path / f"normal/{i}.png")
    assert warned(tmp_path, size=64) == []
    save(copy(made[2]), tmp_path / "abnormal/copy.jpg", quality=70)
    sentence, small = warned(tmp_path, size=64)
    assert sentence.startswith("'abnormal/copy.jpg', 'normal/2.png' look the same: a split may put one into train")
    assert small.startswith("class 'abnormal' has 1 image:")


def test_copies_of_one_patient_are_on_one_side(tmp_path):
    made = scans(3)
    for name, image in (("patient1_a", made[0]), ("patient1_b", made[0]), ("patient2", made[1]), ("patient3", made[2])):
        save(image, tmp_path / f"{name}.png")
    assert warned(tmp_path) == []
    save(made[0], tmp_path / "patient4.png")
    (sentence,) = warned(tmp_path)
    assert "'patient1_a.png', 'patient4.png' look the same, and 1 more such" in sentence


def test_images_without_contrast_have_nothing_in_common():
    flat = [fingerprint(np.full((1, 20, 20), value, np.float32)) for value in (0.2, 0.2, 0.7)]
    assert alike(flat) == []


def test_all_pairs_of_many_images_are_compared():
    rng = np.random.default_rng(0)
    prints = [fingerprint(rng.normal(size=(1, 40, 40))) for _ in range(600)]
    assert alike([*prints, prints[3], prints[598]]) == [(3, 600), (598, 601)]
    assert alike([*prints, prints[3]], np.array([*range(600), 3])) == []


def test_a_class_too_small_for_a_split_is_told(tmp_path):
    for i, image in enumerate(scans(12)):
        save(image, tmp_path / ("normal" if i < 10 else "abnormal") / f"{i}.png")
    assert warned(tmp_path) == [
        "class 'abnormal' has 2 images: a split would leave it out of a part; expected at least 3"
    ]


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (lambda pixels: pixels, "'a.png' have 8 bits, others 16: they may differ in brightness for that alone"),
        (lambda pixels: pixels.astype(np.uint16) * 16, "of the 16 bits 'a.png' use 12, others 16: all are read on one"),
    ],
)
def test_several_bit_depths_are_told(tmp_path, first, message):
    pixels = np.random.default_rng(0).integers(1, 256, (2, 16, 16)).astype(np.uint8)
    Image.fromarray(first(pixels[0])).save(tmp_path / "a.png")
    Image.fromarray(pixels[1].astype(np.uint16) * 257).save(tmp_path / "b.png")
    assert any(message in sentence for sentence in warned(tmp_path))


def test_a_turn_of_the_image_alone_is_told(tmp_path):
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16), dtype=np.uint8))
    mask, exif = Image.fromarray(np.eye(16, dtype=np.uint8) * 255), Image.Exif()
    exif[274] = 3
    pixels.save(tmp_path / "a.png", exif=exif)
    mask.save(tmp_path / "a_mask.png")
    sentence = "EXIF turns 'a.png' or its mask, not both: look whether they lie on each other"
    assert sentence in warned(tmp_path)
    mask.save(tmp_path / "a_mask.png", exif=exif)
    assert sentence not in warned(tmp_path)
