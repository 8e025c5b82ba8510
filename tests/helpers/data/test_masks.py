"""What the stored values of a mask mean: greys, palettes, alpha, colours, noise."""

import io

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from helpers.data import from_folder
from helpers.data.readers.masks import legend

DRAWN = np.zeros((16, 16), bool)
DRAWN[2:6, 3:9] = True
CLASSES = DRAWN.astype(np.uint8)
CLASSES[10:12, 3:9] = 2
NAMES = ("background", "wall", "lumen")
RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def read(root, mask, suffix="png", **options):
    """One image with this mask (an array or a picture), as the folder is read."""
    (root / "masks").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16), dtype=np.uint8)).save(root / "a.png")
    image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    image.save(root / f"masks/a.{suffix}")
    return from_folder(root, **options)


def several(root, *masks, **options):
    """As many images, each with its mask."""
    for i, mask in enumerate(masks):
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (16, 16), dtype=np.uint8)).save(root / f"{i}.png")
        (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(root / f"masks/{i}.png")
    return from_folder(root, **options)


def painted(*colours):
    """The three classes in three colours, or two."""
    return np.array(colours, np.uint8)[np.minimum(CLASSES, len(colours) - 1) if len(colours) > 2 else DRAWN.astype(int)]


def palette(indices, colours):
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette(np.array(colours, np.uint8).ravel().tolist())
    return image


def layer(colour, opaque, background=WHITE):
    """What is drawn in a colour; elsewhere it is transparent, and of a colour that nobody sees."""
    return np.dstack([np.where(opaque[..., None], colour, background), opaque * 255]).astype(np.uint8)


@pytest.mark.parametrize(
    "mask",
    [
        DRAWN,
        DRAWN.astype(np.uint8),
        DRAWN.astype(np.uint8) * 255,
        DRAWN.astype(np.uint16) * 65535,
        painted((0, 0, 0), WHITE),
        palette(DRAWN, [(0, 0, 0), WHITE]),
        palette(~DRAWN, [WHITE, (0, 0, 0)]),
        palette(DRAWN + 1, [RED, (0, 0, 0), WHITE]),
        palette(DRAWN, [(0, 0, 0), RED]),
        layer(WHITE, DRAWN),
        layer((0, 0, 0), DRAWN),
        layer(RED, DRAWN, (0, 0, 0)),
        np.dstack([DRAWN * 255, np.full(DRAWN.shape, 255)]).astype(np.uint8),
    ],
)
@pytest.mark.parametrize("names", [(), ("background", "tumour")])
def test_two_classes_in_any_form(tmp_path, mask, names):
    data = read(tmp_path, mask, mask_names=names)
    assert (data.masks[0] == DRAWN).all() and data.mask_names == (names or ("background", "lesion"))
    assert any("all but 0 is " + (names or ("", "lesion"))[1] in step for step in data.steps)


@pytest.mark.parametrize("mask", [DRAWN.astype(np.float32), DRAWN.astype(np.int32), DRAWN.astype(np.uint16)])
def test_a_tiff_for_a_png(tmp_path, mask):
    assert (read(tmp_path, mask, "TIFF").masks[0] == DRAWN).all()


def test_a_tiff_in_which_0_is_white(tmp_path):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[262] = 0
    image = Image.fromarray(np.where(DRAWN, 255, 0).astype(np.uint8))
    (tmp_path / "masks").mkdir()
    Image.fromarray(CLASSES).save(tmp_path / "a.png")
    image.save(tmp_path / "masks" / "a.tif", tiffinfo=info)
    seen = np.asarray(Image.open(tmp_path / "masks" / "a.tif"))
    assert (from_folder(tmp_path).masks[0] == (seen > 0)).all()


@pytest.mark.parametrize("soft", ["jpeg", "resize"])
def test_blurred_values_are_parted_at_half_and_told(tmp_path, soft):
    image = Image.fromarray(np.kron(DRAWN, np.ones((4, 4))).astype(np.uint8) * 255)
    if soft == "jpeg":
        image.save(tmp_path / "soft.jpg", quality=60)
        image = Image.open(tmp_path / "soft.jpg").convert("L")
    else:
        image = image.resize((30, 30), Image.BILINEAR).resize((64, 64), Image.BILINEAR)
    (tmp_path / "own" / "masks").mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(tmp_path / "own/a.png")
    image.save(tmp_path / "own/masks/a.png")
    with pytest.warns(UserWarning, match="masks of 'a.png' hold more than two grey values, as JPEG or a resize"):
        data = from_folder(tmp_path / "own")
    assert abs(int(data.masks.sum()) - 24 * 16) < 40


@pytest.mark.parametrize(
    ("mask", "values"),
    [
        (CLASSES, None),
        (palette(CLASSES, [(0, 0, 0), RED, GREEN]), None),
        (palette(CLASSES, [(0, 0, 0), (128,) * 3, WHITE]), None),
        (np.array([0, 128, 255], np.uint8)[CLASSES], {0: 0, 128: 1, 255: "lumen"}),
        (palette(2 - CLASSES, [WHITE, (128,) * 3, (0, 0, 0)]), {0: 0, 128: 1, 255: 2}),
        (painted((0, 0, 0), RED, GREEN), {(0, 0, 0): 0, "#FF0000": "wall", GREEN: "lumen"}),
        (painted((0, 0, 0), RED, GREEN), {0: 0, RED: 1, GREEN: 2}),
        (palette(2 - CLASSES, [GREEN, RED, (0, 0, 0)]), {0: 0, RED: 1, GREEN: 2}),
        (layer(np.array([WHITE, RED, GREEN])[CLASSES], CLASSES > 0), {RED: 1, GREEN: 2}),
    ],
)
def test_three_classes(tmp_path, mask, values):
    data = read(tmp_path, mask, mask_names=NAMES, values=values)
    assert (data.masks[0] == CLASSES).all() and "masks hold the classes background, wall, lumen" in data.steps


ONE, TWO = (CLASSES == 1).astype(np.uint8), (CLASSES == 2).astype(np.uint8)
VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]


@pytest.mark.parametrize(
    "make",
    [
        lambda labels: layer((0, 0, 0), labels > 0) | np.dstack([labels] * 3 + [labels * 0]),  # transparent background
        lambda labels: np.dstack([labels, (labels > 0) * np.uint8(255)]),
        lambda labels: palette(labels, VOC),
        lambda labels: palette(labels, [(0, 0, 0), (128,) * 3, WHITE]),
        lambda labels: labels,
    ],
)
def test_what_a_file_stores_does_not_hang_on_what_else_is_in_it(tmp_path, make):
    """Of three classes one file has all, one the last, one none: 2 is 2 in each."""
    masks = [make(labels) for labels in (CLASSES, 2 * TWO, 0 * CLASSES)]
    data = several(tmp_path, *masks, mask_names=NAMES)
    assert [np.unique(mask).tolist() for mask in data.masks] == [[0, 1, 2], [0, 2], [0]]
    assert (data.masks[0] == CLASSES).all() and (data.masks[1] == 2 * TWO).all()
    kept = from_folder(tmp_path, structure=2)
    assert (kept.masks[:2] == TWO).all() and not kept.masks[2].any() and kept.mask_names == ("background", "number 2")
    named = from_folder(tmp_path, structure=1, mask_names=NAMES)
    assert (named.masks[0] == ONE).all() and not named.masks[1:].any() and named.mask_names == ("background", "wall")


def test_the_transparent_index_of_a_palette_is_background(tmp_path):
    image = palette(2 * TWO + 1, [*VOC, (0, 0, 192)])
    image.info["transparency"] = 1
    assert (read(tmp_path, image, mask_names=("background", "a", "b", "c")).masks[0] == 3 * TWO).all()


def test_an_opaque_field_without_a_drawing_is_empty(tmp_path):
    field = np.zeros((16, 16), bool)
    field[1:15, 1:15] = True
    drawn = np.dstack([DRAWN * np.uint8(255)] * 3 + [field * np.uint8(255)])
    empty = layer((0, 0, 0), field)
    assert several(tmp_path, drawn, empty, empty).masks.sum((1, 2)).tolist() == [24, 0, 0]


def test_shapes_in_which_one_file_is_transparent_everywhere(tmp_path):
    assert several(tmp_path, layer(RED, DRAWN), layer(WHITE, DRAWN & False)).masks.sum((1, 2)).tolist() == [24, 0]


@pytest.mark.parametrize("options", [dict(mask_names=NAMES), dict(structure=2)])
def test_palettes_that_contradict_each_other_are_refused(tmp_path, options):
    masks = palette(CLASSES, VOC), palette(CLASSES, [VOC[0], VOC[2], VOC[1]])
    with pytest.raises(
        ValueError, match=r"^number 1 is #008000 in the palette of '.*1.png' and #800000 in that of '.*0"
    ):
        several(tmp_path, *masks, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(structure=2, values={1: 1}), "structure is 2 beside values; expected one of them"),
        (
            dict(structure=3, mask_names=NAMES),
            "structure is 3; expected 1 to 2, as mask_names has background, wall, lumen",
        ),
        (dict(structure=9), "structure is 9, but no mask of '.*' holds it"),
    ],
)
def test_a_structure_that_is_not_there_is_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, CLASSES, **options)


def test_scribbles_keep_what_is_undrawn(tmp_path):
    drawn = np.full((16, 16), 255, np.uint8)
    drawn[0, :3] = 0, 1, 2
    (tmp_path / "scribbles").mkdir()
    Image.fromarray(drawn).save(tmp_path / "scribbles/a.png")
    data = read(tmp_path, CLASSES, structure=2)
    assert data.scribbles[0, 0, :4].tolist() == [0, 0, 1, 255] and (data.scribbles[0, 1:] == 255).all()
    Image.fromarray(drawn.astype(np.uint16) + 100).save(tmp_path / "scribbles/a.png")
    with pytest.raises(ValueError, match="scribbles '.*a.png' hold 355; expected 0 to 255, which is unlabelled"):
        from_folder(tmp_path)


def soft(grey):
    """A drawing in one grey, as JPEG blurs it."""
    stream = io.BytesIO()
    Image.fromarray(DRAWN * np.uint8(grey)).save(stream, "JPEG", quality=50)
    return Image.open(stream).convert("L")


def test_one_structure_is_not_told_from_blurred_masks(tmp_path):
    with pytest.raises(ValueError, match=r"a.png' holds \d+ values, as JPEG .* structure is 255, expected masks that"):
        read(tmp_path, soft(255), structure=255)
    soft(60).save(tmp_path / "masks/a.png")
    with pytest.warns(UserWarning, match="masks of 'a.png' hold more than 16 values, of which 60 is kept: are they"):
        from_folder(tmp_path, structure=60)
    with pytest.warns(UserWarning, match="masks of 'a.png' hold several grey values, all but 0 taken as lesion"):
        from_folder(tmp_path)


def test_a_mark_of_255_beside_class_1_is_no_blur(tmp_path):
    with pytest.warns(UserWarning, match="hold several grey values"):
        data = read(tmp_path, ONE + 255 * TWO)
    assert (data.masks[0] == (CLASSES > 0)).all()
    assert (from_folder(tmp_path, structure=1).masks[0] == ONE).all()


def test_jpeg_by_another_name_is_refused(tmp_path):
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16), dtype=np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(DRAWN * np.uint8(100)).save(tmp_path / "masks/a.png", "JPEG")
    with pytest.raises(ValueError, match="mask '.*a.png' is JPEG inside; expected PNG or TIFF without it"):
        from_folder(tmp_path)
    (tmp_path / "masks/a.png").unlink()
    Image.fromarray(DRAWN * np.uint8(100)).save(tmp_path / "masks/a.tif", compression="jpeg")
    with pytest.raises(ValueError, match="mask '.*a.tif' is JPEG inside"):
        from_folder(tmp_path)


def test_grey_classes_without_names_are_told(tmp_path):
    with pytest.warns(UserWarning, match="'a.png' hold several grey values, all but 0 taken as lesion; if they are"):
        data = read(tmp_path, np.array([0, 128, 255], np.uint8)[CLASSES])
    assert (data.masks[0] == (CLASSES > 0)).all() and "masks hold 0, 128, 255: all but 0 is lesion" in data.steps


@pytest.mark.parametrize(
    ("mask", "options", "message"),
    [
        (painted((0, 0, 0), RED), {}, r"is coloured \(#000000, #ff0000\); expected grey values, or values="),
        (
            painted((0, 0, 0), RED, GREEN),
            dict(values={0: 0, RED: 1}),
            "holds the colour #00ff00; expected only #000000, ",
        ),
        (palette(~DRAWN, [RED, (0, 0, 0)]), {}, "palette in which black is number 1, not 0"),
        (CLASSES * 3, dict(mask_names=NAMES), "holds 3; expected only 0, 1, 2"),
        (DRAWN * np.uint8(7), dict(mask_names=NAMES[:2]), "holds 7; expected only 0, 1"),
        (np.array([0, 128, 255], np.uint8)[CLASSES], dict(mask_names=NAMES[:2]), "holds 128; expected only 0, 1"),
    ],
)
def test_a_mask_of_unknown_meaning_is_named(tmp_path, mask, options, message):
    with pytest.raises(ValueError, match=rf"^mask '{tmp_path}/masks/a.png' .*{message}"):
        read(tmp_path, mask, **options)


def test_a_probability_map_is_no_mask(tmp_path):
    with pytest.raises(ValueError, match="masks/a.tif' holds 0.5; expected integers"):
        read(tmp_path, DRAWN.astype(np.float32) / 2, "tif")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"red": 1}, r"values has the key 'red'; expected a grey value, \(red, green, blue\) or '#rrggbb'"),
        ({1.5: 1}, "values has the key 1.5"),
        ({1: "tumour"}, "values has the class 'tumour'; expected a number or one of background, wall, lumen"),
        ({1: 3}, "values has the class 3"),
    ],
)
def test_a_legend_that_does_not_fit_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        legend(values, NAMES)


def test_masks_that_look_inverted_or_full_are_told(tmp_path):
    with pytest.warns(UserWarning, match="masks of 'a.png' hold all four corners: is background marked"):
        read(tmp_path, ~DRAWN)
    Image.fromarray(np.ones((16, 16), np.uint8)).save(tmp_path / "masks/a.png")
    with pytest.warns(UserWarning, match="masks of 'a.png' cover the whole image"):
        from_folder(tmp_path)
