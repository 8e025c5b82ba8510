"""What holds for every generator: one contract, seven modalities."""

import numpy as np
import pytest

from helpers.data.phantoms import PHANTOMS, SCANNERS
from helpers.data.phantoms.common import patients_of, quantise

MODALITIES = ("fundus", "oct", "ultrasound", "histology", "mr", "xray", "ct")
COLOUR = {"fundus", "histology"}

each = pytest.mark.parametrize("name", MODALITIES)


def test_there_are_seven():
    assert tuple(PHANTOMS) == MODALITIES
    assert all(len(scanners) >= 2 for scanners in SCANNERS.values())


@each
def test_fields(name):
    made = PHANTOMS[name](images=6, patients=3, size=48, seed=1)
    assert made.name == f"phantom-{name}-48"
    assert made.images.shape == (6, 3 if name in COLOUR else 1, 48, 48) and made.images.dtype.kind in "iu"
    assert made.masks.shape == (6, 48, 48) and made.patients.tolist() == [0, 1, 2, 0, 1, 2]
    assert set(made.scanners) == {SCANNERS[name][0]}
    assert made.labels.shape == (6,) and len(made.class_names) >= 2 and len(made.mask_names) >= 2
    assert (made.spacing > 0).all() and made.licence.startswith("Apache-2.0") and made.steps == ("generated",)
    pixels = made.tensor()
    assert pixels.min() >= 0 and pixels.max() <= 1 and pixels.std() > 0.05  # the window holds something


@each
def test_more_images_do_not_change_the_first(name):
    few, many = (PHANTOMS[name](images=n, patients=2, size=32, seed=5) for n in (4, 6))
    assert np.array_equal(few.images, many.images[:4]) and np.array_equal(few.masks, many.masks[:4])


@each
def test_the_seed_decides_and_nothing_else(name):
    np.random.seed(0)
    first = PHANTOMS[name](images=3, size=32, seed=1).content_hash()
    np.random.seed(1)
    assert PHANTOMS[name](images=3, size=32, seed=1).content_hash() == first
    assert PHANTOMS[name](images=3, size=32, seed=2).content_hash() != first


@each
def test_all_scanners_see_the_same_anatomy(name):
    seen = [PHANTOMS[name](images=4, patients=2, size=48, scanner=scanner, seed=3) for scanner in SCANNERS[name]]
    assert all(np.array_equal(seen[0].masks, other.masks) for other in seen[1:])
    assert all(not np.array_equal(seen[0].images, other.images) for other in seen[1:])


@each
def test_dealt_scanners_do_not_tell_the_class(name):
    dealt = PHANTOMS[name](images=24, size=32, patients=24, scanner=SCANNERS[name][:2], seed=3)
    alone = PHANTOMS[name](images=24, size=32, patients=24, scanner=SCANNERS[name][1], seed=3)
    second = dealt.scanners == SCANNERS[name][1]
    assert np.array_equal(dealt.images[second], alone.images[second])
    assert second.sum() == 12
    patient_class = np.arange(24) % (3 if name in ("oct", "ultrasound", "mr") else 2)
    assert all((second & (patient_class == k)).sum() == 12 / (patient_class.max() + 1) for k in set(patient_class))


@each
def test_labels_are_balanced_enough_and_brightness_does_not_tell(name):
    made = PHANTOMS[name](images=120, patients=60, size=48, seed=2)
    share = np.bincount(made.labels, minlength=len(made.class_names)) / len(made)
    assert share.min() >= 0.1, share
    brightness = made.tensor().mean((1, 2, 3)).numpy()
    low, high = (np.median(brightness[made.labels == k]) for k in (0, made.labels.max()))
    assert abs(high - low) < 1.5 * brightness.std()


@each
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(images=0, patients=2), "patients is 2, images 0; expected 1 <= patients <= images"),
        (dict(patients=5, images=4), "patients is 5, images 4; expected 1 <= patients <= images"),
        (dict(size=31), "size is 31; expected at least 32 pixels"),
        (dict(difficulty=1.1), "difficulty is 1.1; expected a number in 0…1"),
        (dict(difficulty=float("nan")), "difficulty is nan; expected a number in 0…1"),
    ],
)
def test_bad_arguments_are_named(name, changes, message):
    with pytest.raises(ValueError) as error:
        PHANTOMS[name](**dict(images=2, size=32) | changes)
    assert str(error.value) == message


@each
@pytest.mark.parametrize("scanner", ["toaster", (), ("toaster",)])
def test_an_unknown_scanner_lists_the_known(name, scanner):
    with pytest.raises(ValueError) as error:
        PHANTOMS[name](images=2, size=32, scanner=scanner)
    assert str(error.value) == f"scanner is {scanner!r}; expected one or several of {', '.join(SCANNERS[name])}"


def test_patients_and_scanners_are_dealt_in_turn():
    arguments = dict(images=5, size=32, difficulty=0, scanners=("a", "b", "c"))
    patients, scanners = patients_of(patients=3, scanner=("c", "a"), turn=1, **arguments)
    assert patients.tolist() == [0, 1, 2, 0, 1] and scanners.tolist() == ["c", "a", "c", "c", "a"]
    assert patients_of(patients=5, scanner=("c", "a"), **arguments)[1].tolist() == ["c", "c", "a", "a", "c"]
    assert patients_of(patients=None, scanner="b", **arguments)[0].tolist() == [0] * 5


def test_quantise_rounds_and_clips():
    assert quantise(np.array([-3.2, 0.4, 0.6, 254.6, 300.0])).tolist() == [0, 0, 1, 255, 255]
    assert quantise(np.array([-40000.0, -1.6, 40000.0]), np.int16).tolist() == [-32768, -2, 32767]
