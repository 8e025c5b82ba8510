"""The ultrasound phantom: frozen pixels, speckle, point spread function, attenuation, and lesions as in a textbook."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops
from sklearn.metrics import roc_auc_score

from helpers.data.phantoms.ultrasound import FIELD, SCANNERS, TGC, _breast, _patient, _scan, _spread, ultrasound

SIZE = 128
DEPTH = (np.arange(SIZE) + 0.5) * FIELD / SIZE


@pytest.fixture(scope="module")
def breasts():
    return ultrasound(images=90, patients=90, size=64, seed=1)


def echoes(scatterers, *, attenuation=TGC, scanner="premium", seed=0):
    """Complex echoes (SIZE, SIZE) of one tissue."""
    return _scan(np.random.default_rng(seed), scatterers, np.full((SIZE, SIZE), attenuation), scanner)


def white(seed, size=SIZE):
    return np.random.default_rng([9, seed]).standard_normal((2, size, size)).T @ (1, 1j) / np.sqrt(2)


def decibels_by_depth(**options):
    """Mean power of each row over twelve scans, in dB."""
    power = [np.abs(echoes(white(seed), seed=seed, **options)) ** 2 for seed in range(12)]
    return 10 * np.log10(np.mean(power, axis=(0, 2)))


def slope(values, start=16, stop=112):
    """Change per mm over the middle of the depth."""
    return np.polyfit(DEPTH[start:stop], values[start:stop], 1)[0]


@pytest.mark.parametrize(
    ("scanner", "difficulty", "digest"), [("premium", 0, "cc7ba7345d276fd1"), ("portable", 0.7, "5c47f619e33f281b")]
)
def test_phantom_is_frozen(scanner, difficulty, digest):
    data = ultrasound(images=6, patients=3, size=48, scanner=scanner, difficulty=difficulty, seed=7)
    assert data.content_hash() == digest


def test_seed_and_scanner():
    both = ultrasound(images=6, size=40, patients=6, scanner=("premium", "portable"), seed=2)
    premium, portable, other = (
        ultrasound(images=6, size=40, patients=6, scanner=scanner, seed=seed)
        for scanner, seed in (("premium", 2), ("portable", 2), ("premium", 3))
    )
    assert (premium.masks == portable.masks).all() and (premium.masks != other.masks).any()
    assert (both.images[:3] == premium.images[:3]).all() and (both.images[3:] == portable.images[3:]).all()
    assert all((premium.images[i] != portable.images[i]).mean() > 0.5 for i in range(6))


def test_labels_agree_with_masks(breasts):
    assert breasts.labels.tolist() == [0, 1, 2] * 30
    assert (breasts.masks.any((1, 2)) == (breasts.labels > 0)).all()
    areas = breasts.masks.sum((1, 2))[breasts.labels > 0] * (FIELD / 64) ** 2
    assert 20 < areas.min() < 40 and 120 < areas.max() < 220  # mm²
    assert all(ndimage.label(mask, np.ones((3, 3)))[1] == 1 for mask in breasts.masks[breasts.labels > 0])


def test_outline_does_not_depend_on_the_number_of_pixels():
    small, large = (ultrasound(images=12, patients=12, size=size).masks for size in (64, 192))
    assert (np.abs(large[:, 1::3, 1::3].astype(int) - small) == 0).all()  # pixels with the same centre


def test_speckle_is_fully_developed():
    """Amplitudes of many random scatterers in one tissue follow Rayleigh: mean over deviation is 1.91."""
    amplitude = np.abs([echoes(white(seed)) for seed in range(60)])
    ratio = amplitude.mean(0) / amplitude.std(0, ddof=1)
    assert ratio[16:80].mean() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), abs=0.03)


def test_blur_keeps_the_power_of_speckle():
    power = np.abs(_spread(white(0, 256), np.linspace(0.1, 3, 256))) ** 2
    assert power[:128, 20:-20].mean() == pytest.approx(1, abs=0.03)
    assert power[128:, 20:-20].mean() == pytest.approx(1, abs=0.05)  # fewer independent values


def test_scatterers_have_no_common_phase():
    rng = np.random.default_rng(0)
    scatterers = _breast(rng, _patient(rng, 0), 0, 96)[0]
    assert abs((scatterers / np.abs(scatterers)).mean()) < 0.1


@pytest.mark.parametrize("scanner", SCANNERS)
def test_point_spread_function_is_widest_across_and_away_from_the_focus(scanner):
    """The image of one point: sigmas as the scanner states them, in amplitude."""
    machine = SCANNERS[scanner]
    for row in (20, round(machine["focus"] / FIELD * SIZE), 110):
        point = np.zeros((SIZE, SIZE), complex)
        point[row, SIZE // 2] = 1e6
        around = slice(row - 6, row + 7)
        image = np.abs(echoes(point, attenuation=0, scanner=scanner))[around, SIZE // 2 - 10 : SIZE // 2 + 11]
        sigma = [
            np.sqrt(profile @ (np.arange(len(profile)) - len(profile) // 2) ** 2 / profile.sum()) * FIELD / SIZE
            for profile in (image.sum(1), image.sum(0))
        ]
        beam = np.hypot(machine["beam"], machine["spread"] * (DEPTH[row] - machine["focus"]))
        assert sigma[1] == pytest.approx(beam, rel=0.05)
        assert sigma[0] < 0.8 * sigma[1]


def test_speckle_is_wider_than_deep():
    speckle = np.abs(echoes(white(0), scanner="portable"))[30:100]
    speckle = speckle - speckle.mean(1, keepdims=True)
    across, down = (speckle[:, 1:] * speckle[:, :-1]).mean(), (speckle[1:] * speckle[:-1]).mean()
    assert across > 2 * down > 0


@pytest.mark.parametrize("scanner", SCANNERS)
def test_attenuation_beyond_the_compensated_darkens_with_depth(scanner):
    """0.1 dB/cm/MHz more costs 0.02 dB per mm and MHz, there and back; what is compensated for costs nothing."""
    level, less = (decibels_by_depth(attenuation=a, scanner=scanner) for a in (0.5, 0.4))
    assert slope(less - level) == pytest.approx(0.02 * SCANNERS[scanner]["mhz"], rel=0.05)
    compensated = decibels_by_depth(attenuation=0.7, scanner="premium")
    assert abs(slope(compensated)) < 0.1


@pytest.mark.parametrize("scanner", SCANNERS)
def test_noise_is_amplified_with_depth(scanner):
    """Without any echo, noise of the stated level remains, raised by the gain for its depth."""
    machine = SCANNERS[scanner]
    power = [np.abs(echoes(np.zeros((SIZE, SIZE)), scanner=scanner, seed=seed)) ** 2 for seed in range(40)]
    level = np.mean(10 * np.log10(np.mean(power, axis=2)), axis=0)
    expected = machine["noise_db"] + 2 * machine["mhz"] * TGC * DEPTH / 10
    assert np.abs(level - expected).mean() < 1.5
    assert slope(level) == pytest.approx(slope(expected), rel=0.1)


def beneath(image, mask):
    """Mean grey of the 6 mm under a lesion less that of the columns beside it at the same depth."""
    rows, columns = np.nonzero(mask)
    under = slice(rows.max() + 1, rows.max() + 11)
    left, right = columns.min(), columns.max() + 1
    quarter = (right - left) // 4
    beside = np.r_[max(0, left - 8) : max(0, left - 2), right + 2 : min(64, right + 8)]
    return image[under, left + quarter : right - quarter].mean() - image[under, beside].mean()


def test_enhancement_beneath_cysts_and_shadow_beneath_cancers(breasts):
    """Cysts are here the benign lesions that are black inside."""
    found = {1: [], 2: []}
    for image, mask, label in zip(breasts.images[:, 0].astype(float), breasts.masks, breasts.labels, strict=True):
        if label == 2 or (label == 1 and np.median(image[ndimage.binary_erosion(mask)]) < 25):
            found[label].append(beneath(image, mask))
    assert len(found[1]) >= 8
    assert min(found[1]) > 0 and np.mean(found[1]) > 25
    assert max(found[2]) < 0 and np.mean(found[2]) < -40


def test_shapes_of_lesions(breasts):
    """Benign lesions are wider than tall with a smooth outline; cancers are about as tall, and jagged."""
    lesions = [regionprops(mask)[0] for mask in breasts.masks[breasts.labels > 0]]
    boxes = np.array([lesion.bbox for lesion in lesions])
    tall = (boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1])
    solid = np.array([lesion.solidity for lesion in lesions])
    benign = breasts.labels[breasts.labels > 0] == 1
    assert tall[benign].max() < 1 and 0.9 < np.median(tall[~benign]) < 1.3
    assert solid[benign].min() > 0.9 and np.median(solid[~benign]) < 0.88


def test_difficulty_fades_lesions_only(breasts):
    hard = ultrasound(images=90, patients=90, size=64, seed=1, difficulty=1)
    assert (hard.masks == breasts.masks).all()
    assert (hard.images[hard.labels == 0] == breasts.images[hard.labels == 0]).all()
    for label in (1, 2):
        contrast = []
        for data in (breasts, hard):
            which = data.labels == label
            rings = np.stack(
                [ndimage.binary_dilation(m, iterations=4) & ~ndimage.binary_dilation(m) for m in data.masks[which]]
            )
            contrast.append(data.images[which, 0][rings].mean() - data.images[which, 0][data.masks[which] > 0].mean())
        assert 0 < contrast[1] < 0.75 * contrast[0]


def test_brightness_hardly_gives_the_label_away():
    breasts = ultrasound(images=300, patients=300, size=32, seed=1)
    grey = breasts.images.mean((1, 2, 3))
    for low, high in ((0, 1), (0, 2), (1, 2)):
        pair = np.isin(breasts.labels, (low, high))
        assert 0.37 < roc_auc_score(breasts.labels[pair] == high, grey[pair]) < 0.63
