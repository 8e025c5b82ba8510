"""Image sets, splits by patient, and the X-ray phantom."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from helpers.data import ImageSet, ImageSets, split, xray
from helpers.data.image_set import UNLABELLED
from helpers.data.phantoms.xray import FIELD


def tiny(n: int = 6, **changes) -> ImageSet:
    """n images of 4×5 in which everything that belongs to image i holds the number i."""
    number = np.arange(n)
    arrays = dict(
        images=np.tile(number[:, None, None, None], (1, 1, 4, 5)).astype(np.float32),
        labels=number.copy(),
        masks=np.tile(number[:, None, None], (1, 4, 5)),
        instances=1000 * np.tile(number[:, None, None], (1, 4, 5)),
        scribbles=np.full((n, 4, 5), UNLABELLED, np.uint8),
        patients=number.copy(),
        scanners=number.astype(str),
        volumes=number.copy(),
        slices=number.copy(),
        frames=number.copy(),
        spacing=np.tile(number[:, None].astype(float), (1, 2)),
        slice_spacing=number.astype(float),
    )
    return ImageSet(**dict(name="tiny", modality="X-ray", value_range=(0, 10)) | arrays | changes)


def bare(images: np.ndarray, **changes) -> ImageSet:
    """Images of which nothing is known but what is given."""
    return ImageSet(**dict(name="tiny", modality="X-ray", value_range=(0, 10), images=images) | changes)


# --- image sets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(images=np.zeros((6, 4, 5))), "images of 'tiny' have shape (6, 4, 5); expected (N, C, H, W)"),
        (dict(images=np.zeros((0, 1, 4, 5))), "'tiny' has no images; expected at least one"),
        (dict(labels=np.zeros(5, int)), "labels of 'tiny' have shape (5,); expected (6,)"),
        (dict(patients=np.zeros((6, 1), int)), "patients of 'tiny' have shape (6, 1); expected (6,)"),
        (dict(masks=np.zeros((6, 5, 4), int)), "masks of 'tiny' have shape (6, 5, 4); expected (6, 4, 5)"),
        (dict(instances=np.zeros((6, 5, 4), int)), "instances of 'tiny' have shape (6, 5, 4); expected (6, 4, 5)"),
        (dict(slice_spacing=np.zeros(1)), "slice_spacing of 'tiny' have shape (1,); expected (6,)"),
        (dict(spacing=(1.0, 1.0, 1.0)), "spacing of 'tiny' have shape (3,); expected (6, 2)"),
        (dict(mask_names=("a", "b")), "masks of 'tiny' hold 2; expected 0 to 1 (a, b)"),
        (dict(class_names=tuple("abcde")), "labels of 'tiny' hold 5; expected 0 to 4 (a, b, c, d, e)"),
        (
            dict(masks=None, mask_names=("a", "b"), scribbles=np.full((6, 4, 5), 254, np.uint8)),
            "scribbles of 'tiny' hold 254; expected 0 to 1 (a, b)",
        ),
        (dict(value_range=(1, 1)), "value_range of 'tiny' is (1, 1); expected (low, high) with low < high"),
        (dict(value_range=(0, np.nan)), "value_range of 'tiny' is (0, nan); expected (low, high) with low < high"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ValueError) as error:
        tiny(**changes)
    assert str(error.value) == message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_that_is_not_finite_is_named(value):
    images = tiny().images
    images[3, 0, 1, 2] = value
    with pytest.raises(ValueError, match="image 3 of 'tiny' has NaN or infinite values; expected finite numbers"):
        tiny(images=images)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(1, 5, 2), [1, 3]),
        (np.array([4, 0, 4]), [4, 0, 4]),
        ([2, 1], [2, 1]),
        (np.arange(6) > 3, [4, 5]),
        (2, [2]),
        (np.int64(-1), [5]),
    ],
)
def test_an_index_takes_everything_along(index, expected):
    part = tiny()[index]
    assert part.images[:, 0, 0, 0].tolist() == expected
    assert part.labels.tolist() == part.patients.tolist() == part.masks[:, 3, 4].tolist() == expected
    assert part.scanners.tolist() == list(map(str, expected))
    assert part.volumes.tolist() == part.slices.tolist() == part.frames.tolist() == expected
    assert part.spacing[:, 1].tolist() == part.slice_spacing.tolist() == expected
    assert part.instances[:, 3, 4].tolist() == [1000 * i for i in expected]
    assert (part.scribbles == UNLABELLED).all() and len(part.scribbles) == len(expected)
    assert len(part) == len(expected)
    assert (part.name, part.value_range) == ("tiny", (0, 10))


def test_a_pair_of_spacings_stands_for_all_images():
    assert tiny(spacing=(0.5, 0.7)).spacing.tolist() == [[0.5, 0.7]] * 6
    assert tiny(spacing=None).spacing is None


def test_index_without_labels_masks_and_patients():
    part = tiny(labels=None, masks=None, patients=None)[1:3]
    assert part.labels is part.masks is part.patients is None


def test_tensor_maps_the_range_and_clips():
    pixels = np.array([-1000, -500, 0, 500, 3000, -2000], np.int16).reshape(6, 1, 1, 1)
    tensor = bare(pixels, value_range=(-1000, 1000)).tensor()
    assert str(tensor.dtype) == "torch.float32"
    assert tensor.flatten().tolist() == [0, 0.25, 0.5, 0.75, 1, 0]


def test_content_hash_is_of_the_content():
    same, other = tiny(), tiny()
    assert same.content_hash() == other.content_hash() == replace(same, citation="else").content_hash()
    assert len(same.content_hash()) == 16
    seen = {same.content_hash()}
    for field in ("images", "labels", "masks", "patients"):
        array = getattr(tiny(), field).copy()
        array.flat[-1] += 1
        seen |= {tiny(**{field: array}).content_hash(), tiny(**{field: array.astype(np.float64)}).content_hash()}
    seen |= {tiny(labels=None).content_hash(), tiny(value_range=(0, 11)).content_hash(), tiny()[::-1].content_hash()}
    assert len(seen) == 12


def test_several_sets_have_all_names_and_one_hash():
    one, other = tiny(), tiny(value_range=(0, 11), name="other")
    both = ImageSets((one, other))
    assert both.name == f"{one.name} + other" and ImageSets((one, one)).name == one.name
    hashes = {sets.content_hash() for sets in (both, one, other, ImageSets((other, one)), ImageSets((one, one)))}
    assert len(hashes) == 5 and all(len(digest) == 16 for digest in hashes)
    assert both.content_hash() == ImageSets((tiny(), other)).content_hash()


def test_content_hash_sees_every_name_of_a_patient():
    names = np.array([f"patient {i}" for i in range(2000)], dtype=object)
    images = np.zeros((2000, 1, 1, 1), np.uint8)
    changed = names.copy()
    changed[1000] = "another"
    hashes = {bare(images, patients=p).content_hash() for p in (names, changed)}
    assert len(hashes) == 2


# --- splits --------------------------------------------------------------------------------------------------------


def cohort(patients: int = 40, each: int = 3) -> ImageSet:
    """Every fourth patient has one abnormal image, the last one; images of a patient are not in a row."""
    patient = np.tile(np.arange(patients), each)
    labels = ((patient % 4 == 0) & (np.arange(patients * each) >= patients * (each - 1))).astype(int)
    images = np.zeros((len(patient), 1, 2, 2), np.uint8)
    return bare(images, labels=labels, patients=patient)


def parts_of(division) -> list[list[int]]:
    return [part.tolist() for part in (division.train, division.val, division.test)]


def test_no_patient_is_in_two_parts_and_every_image_in_one():
    images = cohort()
    division = split(images, seed=3)
    assert division.level == "patient"
    parts = parts_of(division)
    assert sorted(sum(parts, [])) == list(range(len(images)))
    patients = [set(images.patients[part].tolist()) for part in parts]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])


def test_parts_have_their_share_of_abnormal_patients():
    images = cohort()
    for part, total, abnormal in zip(parts_of(split(images, seed=0)), (24, 8, 8), (6, 2, 2), strict=True):
        assert len(set(images.patients[part].tolist())) == total
        assert images.labels[part].sum() == abnormal  # one abnormal image each


@pytest.mark.parametrize("patients", [None, np.zeros(120, int)])
def test_image_level_is_said(patients):
    images = replace(cohort(), patients=patients)
    division = split(images, seed=0)
    assert division.level == "image"
    assert [len(part) for part in parts_of(division)] == [72, 24, 24]
    assert [images.labels[part].sum() for part in parts_of(division)] == [6, 2, 2]


def test_split_depends_on_the_seed_only():
    assert parts_of(split(cohort(), seed=1)) == parts_of(split(cohort(), seed=1))
    assert parts_of(split(cohort(), seed=1)) != parts_of(split(cohort(), seed=2))
    assert sorted(sum(parts_of(split(replace(cohort(), labels=None), seed=0)), [])) == list(range(120))


@pytest.mark.parametrize("fractions", [(0.6, 0.2), (0.5, 0.2, 0.2), (1.0, 0.2, -0.2), (0.8, 0.2, 0.0)])
def test_bad_fractions_are_named(fractions):
    with pytest.raises(ValueError) as error:
        split(cohort(), fractions=fractions, seed=0)
    assert str(error.value) == f"fractions are {fractions}; expected three positive numbers that sum to 1"


def test_an_empty_part_is_refused():
    with pytest.raises(ValueError, match="a split of 2 patients into .* leaves a part empty; expected more patients"):
        split(cohort(2), seed=0)


@pytest.mark.parametrize("fractions", [(0.6, 0.2, 0.2), (0.5, 0.1, 0.4)])
@pytest.mark.parametrize("few", [3, 4, 7])
def test_every_part_holds_a_class_of_three_patients(few, fractions):
    patient = np.arange(40)
    images = bare(np.zeros((40, 1, 2, 2), np.uint8), labels=(patient < few).astype(int), patients=patient)
    division = split(images, fractions=fractions, seed=0)
    assert [set(images.labels[part]) for part in (division.train, division.val, division.test)] == [{0, 1}] * 3
    assert sorted(sum(parts_of(division), [])) == patient.tolist()


def test_a_class_too_small_for_three_parts_is_named():
    patient = np.arange(40)
    images = bare(
        np.zeros((40, 1, 2, 2), np.uint8),
        labels=(patient > 37).astype(int),
        patients=patient,
        class_names=("normal", "abnormal"),
    )
    with pytest.raises(ValueError, match="class 'abnormal' is in 2 patients, .*; expected at least 3 patients"):
        split(images, seed=0)


# --- phantom -------------------------------------------------------------------------------------------------------


def test_phantom_is_frozen():
    small = xray(images=6, patients=3, size=48, marker=(0.5, 1), difficulty=0.3, seed=7)
    assert small.content_hash() == "a58b34297a1d5897"
    assert (
        xray(images=6, patients=3, size=48, marker=(0.5, 1), difficulty=0.3, seed=8).content_hash()
        != "a58b34297a1d5897"
    )


def test_phantom_fields():
    arms = xray(images=12, patients=4, size=64)
    assert arms.images.shape == (12, 1, 64, 64) and arms.images.dtype == np.uint8
    assert arms.patients.tolist() == [0, 1, 2, 3] * 3
    assert arms.labels.tolist() == [0, 1] * 6
    assert arms.masks.any((1, 2)).tolist() == [False, True] * 6
    assert set(np.unique(arms.masks)) == {0, 1}
    assert (arms.spacing == FIELD / 64).all() and arms.spacing.shape == (12, 2)
    assert (xray(images=12, patients=4, size=64).images == arms.images).all()
    assert len({image.tobytes() for image in arms.images}) == 12


def test_lesion_changes_the_image_where_the_mask_says():
    """An image that is faint and one that is plain differ at the lesion, and hardly elsewhere but for photon noise."""
    plain, faint = (xray(images=40, patients=2, size=96, difficulty=d) for d in (0, 1))
    sick = plain.labels == 1
    change = np.abs(plain.images[sick, 0].astype(float) - faint.images[sick, 0])
    lesion = plain.masks[sick] == 1
    assert (plain.masks == faint.masks).all()
    near = np.stack([ndimage.binary_dilation(mask, iterations=8) for mask in lesion])
    assert change[lesion].mean() > 10 * change[~near].mean()
    assert change[~near].mean() < 2
    assert (plain.images[~sick] == faint.images[~sick]).all()


def test_marker_is_a_letter_on_abnormal_images_only():
    with_letter, without = (xray(images=40, patients=10, size=64, marker=m, seed=2) for m in ((0, 1), (0, 0)))
    has = (with_letter.masks == 2).any((1, 2))
    assert (has == (with_letter.labels == 1)).all()
    assert (without.masks < 2).all()
    assert (with_letter.images[~has] == without.images[~has]).all()
    brighter = with_letter.images[:, 0].astype(int) - without.images[:, 0]
    letter = with_letter.masks == 2
    assert (brighter[letter] > 0).mean() > 0.99 and brighter[letter].mean() > 50


def test_letter_leaves_the_anatomy_as_it_is():
    """The lesion stays, and away from the letter images differ by no more than two draws of photon noise."""
    with_letter, without = (xray(images=40, patients=10, size=64, marker=m, seed=2) for m in ((1, 1), (0, 0)))
    letter = with_letter.masks == 2
    assert letter.any((1, 2)).all()
    assert (with_letter.masks[~letter] == without.masks[~letter]).all()
    away = ~np.stack([ndimage.binary_dilation(mask, iterations=6) for mask in letter])
    change = with_letter.images[:, 0].astype(float) - without.images[:, 0]
    assert abs(change[away].mean()) < 0.1 and change[away].std() < 4
    above = np.cumsum(ndimage.binary_dilation(letter, np.ones((1, 9, 1))).any(2), axis=1) == 0  # no photon drawn yet
    assert above.any() and (change[above] == 0).all()


@pytest.mark.parametrize("size", [32, 37, 40, 97])
def test_letter_fits_into_every_size(size):
    arms = xray(images=30, patients=10, size=size, marker=(1, 1))
    pixels = 16 * max(1, size // 48) ** 2
    assert ((arms.masks == 2).sum((1, 2)) == pixels).all()


def test_images_of_a_patient_share_the_anatomy():
    """Bones are about as dense in all images of a patient, and less alike between patients."""
    arms = xray(images=120, patients=12, size=64, seed=1)
    brightness = np.sort(arms.images.reshape(120, -1).astype(float), axis=1)[:, 2400:].mean(1)
    of_patient = np.array([brightness[arms.patients == p].mean() for p in range(12)])
    within = np.mean([brightness[arms.patients == p].std() for p in range(12)])
    assert of_patient.std() > 2 * within / np.sqrt(10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(images=0), "patients is 2, images 0; expected 1 <= patients <= images"),
        (dict(patients=0), "patients is 0, images 4; expected 1 <= patients <= images"),
        (dict(patients=5), "patients is 5, images 4; expected 1 <= patients <= images"),
        (dict(difficulty=1.5), "difficulty is 1.5; expected a number in 0…1"),
        (dict(marker=(-0.1, 0)), "marker is -0.1; expected a number in 0…1"),
        (dict(marker=(0, 2)), "marker is 2; expected a number in 0…1"),
        (dict(size=31), "size is 31; expected at least 32 pixels"),
    ],
)
def test_wrong_phantom_argument_is_named(changes, message):
    with pytest.raises(ValueError) as error:
        xray(**dict(images=4, patients=2, size=32) | changes)
    assert str(error.value) == message
