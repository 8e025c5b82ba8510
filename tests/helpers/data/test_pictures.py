"""Pictures as cameras, scanners and ImageJ write them: upright, all pages, all bits, bright is bright, or refused."""

import re
import struct
import zlib
from dataclasses import replace

import numpy as np
import psutil
import pytest
from PIL import Image, TiffImagePlugin

from helpers.data import from_folder, split
from helpers.data.readers.pictures import read_image

RAMP = np.linspace(0, 65535, 16 * 24).astype(np.uint16).reshape(16, 24)
BAND = np.zeros((24, 16), np.uint8)
BAND[:6, :4] = 200


def tagged(**tags):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for number, value in tags.items():
        info[int(number[1:])] = value
    return info


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [(1, BAND), (3, np.rot90(BAND, 2)), (6, np.rot90(BAND)), (8, np.rot90(BAND, -1)), (2, BAND[:, ::-1])],
)
def test_a_picture_is_upright(tmp_path, suffix, orientation, stored):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a.{suffix}", exif=exif, quality=100)
    seen = read_image(tmp_path / f"a.{suffix}")[0] * 255
    assert seen.shape == BAND.shape and np.abs(seen - BAND).max() < 3


@pytest.mark.parametrize(("photometric", "expected"), [(0, 65535 - RAMP), (1, RAMP)])
def test_16_bits_in_which_0_is_white_are_inverted(tmp_path, photometric, expected):
    Image.fromarray(RAMP).save(tmp_path / "a.tif", tiffinfo=tagged(_262=photometric))
    assert Image.open(tmp_path / "a.tif").tag_v2[262] == photometric
    assert (read_image(tmp_path / "a.tif", scaled=False)[0] == expected).all()


def test_12_of_16_bits_in_which_0_is_white(tmp_path):
    pixels = (RAMP // 16).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.tif", tiffinfo=tagged(_262=0))
    for size in (None, 24):
        data = from_folder(tmp_path, size=size)
        assert "of 16 bits 12 are used" in data.steps and data.images.min() == 0 and data.images.max() == 1
    assert np.allclose(from_folder(tmp_path).images[0, 0], 1 - pixels / 4095, atol=1e-5)
    stored = from_folder(tmp_path, scaled=False)
    assert stored.value_range == (61440, 65535) and np.allclose(stored.tensor()[0, 0], 1 - pixels / 4095, atol=1e-5)


def test_0_is_white_of_floats_is_refused(tmp_path):
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "a.tif", tiffinfo=tagged(_262=0))
    with pytest.raises(ValueError, match=r"a.tif' says that 0 is white, of values of mode F; expected 8 or 16 bits"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(("top", "bits"), [(255, 8), (1000, 10), (4095, 12), (4096, 14), (60000, 16)])
def test_of_16_bits_those_are_taken_that_are_used(tmp_path, top, bits):
    pixels = (RAMP.astype(float) / 65535 * top).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels // 2).save(tmp_path / "b.tif")
    data = from_folder(tmp_path)
    assert np.allclose(data.images[0, 0], pixels / (2**bits - 1), atol=1e-6) and data.value_range == (0, 1)
    assert (f"of 16 bits {bits} are used" in data.steps) == (bits < 16)
    stored = from_folder(tmp_path, scaled=False)
    assert (stored.images[0, 0] == pixels).all() and stored.value_range == (0, 2**bits - 1)
    assert np.allclose(stored.tensor(), data.tensor(), atol=1e-6)


def test_floats_outside_0_to_1_keep_their_values_and_give_the_range(tmp_path):
    values = np.linspace(-1000, 3000, 16 * 24, dtype=np.float32).reshape(16, 24)
    Image.fromarray(values).save(tmp_path / "a.tif")
    data = from_folder(tmp_path)
    assert (data.images[0, 0] == values).all() and np.allclose(data.value_range, (-980, 2980))
    assert data.steps == ("floats as stored; the range is their 0.5th to 99.5th percentile",)
    assert (from_folder(tmp_path, size=32).images[0, 0, 0] == -1000).all()  # the padding
    Image.fromarray(BAND).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match="a.tif' holds floats outside 0…1, '.*b.png' integers; expected one kind"):
        from_folder(tmp_path, size=16)
    Image.fromarray(values / 3000).save(tmp_path / "a.tif")
    values[2, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="a.tif' holds NaN or infinite values"):
        from_folder(tmp_path, size=16)


def stack(file, count, shape=(16, 16), values=256):
    rng, scale = np.random.default_rng(0), 255 // (values - 1)
    pages = [Image.fromarray(rng.integers(0, values, shape).astype(np.uint8) * scale) for _ in range(count)]
    file.parent.mkdir(parents=True, exist_ok=True)
    pages[0].save(file, **(dict(save_all=True, append_images=pages[1:]) if count > 1 else {}))
    return np.stack([np.asarray(page) for page in pages])


def test_all_pages_are_slices_of_one_patient(tmp_path):
    pages = stack(tmp_path / "normal/stack.tif", 5)
    for i in range(5):
        stack(tmp_path / f"abnormal/{i}.png", 1, values=i + 3)
    drawn = stack(tmp_path / "masks/normal/stack.tif", 5, values=2) > 0
    with pytest.warns(UserWarning, match="no masks for 'abnormal/0.png'"):
        data = from_folder(tmp_path)
    assert len(data) == 10 and np.allclose(data.images[5:, 0] * 255, pages, atol=1e-4)
    assert data.slices.tolist() == [0] * 5 + [0, 1, 2, 3, 4] and data.volumes.tolist() == [0, 1, 2, 3, 4, 5, 5, 5, 5, 5]
    assert data.patients.tolist() == data.volumes.tolist() and (data.masks[5:] == drawn).all()
    assert split(replace(data, labels=None), seed=0).level == "patient"
    stack(tmp_path / "masks/normal/stack.tif", 2, values=2)
    with pytest.raises(ValueError, match="masks/normal/stack.tif' has 2 pages; expected more than 2"):
        from_folder(tmp_path)
    stack(tmp_path / "masks/normal/stack.tif", 1, values=2)
    with pytest.raises(ValueError, match="masks/normal/stack.tif' has 1 page; expected more than 1"):
        from_folder(tmp_path)


def test_a_moving_picture_is_refused(tmp_path):
    stack(tmp_path / "a.png", 3)
    with pytest.raises(ValueError, match="a.png' has 3 pages; expected one"):
        from_folder(tmp_path)


def test_the_smaller_levels_of_a_pyramid_are_no_pages(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    whole = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(whole, tile=(16, 16))
        file.write(whole[::2, ::2], tile=(16, 16), subfiletype=1)
    assert (from_folder(tmp_path, scaled=False).images[0, 0] == whole).all()


def test_cmyk_and_transparent_pictures(tmp_path):
    colour = np.full((16, 16, 3), (30, 90, 240), np.uint8)
    Image.fromarray(colour).convert("CMYK").save(tmp_path / "a.tif")
    assert np.abs(read_image(tmp_path / "a.tif", colour=True)[:, 0, 0] * 255 - [30, 90, 240]).max() < 2
    alpha = np.zeros((16, 16, 1), np.uint8)
    alpha[4:8] = 255
    Image.fromarray(np.dstack([np.full_like(colour, 255), alpha])).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png")[0] == alpha[..., 0] / 255).all()  # what nobody sees is black


def huge_png(file, side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_very_large_picture_is_refused_before_it_is_decoded(tmp_path, side):
    huge_png(tmp_path / "a.png", side)
    with pytest.raises(ValueError) as error:
        from_folder(tmp_path, size=64)
    assert str(error.value) == (
        f"'{tmp_path}/a.png' has {side**2 / 1e6:.0f} million pixels; expected at most 89: cut it or make it smaller"
    )


def test_more_images_than_the_memory_holds_are_refused(tmp_path, monkeypatch):
    for i in range(40):
        stack(tmp_path / f"{i}.png", 1, (64, 64), values=i + 2)
    free = type("Free", (), dict(available=70 * 64 * 64 * 4))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(
        ValueError, match=r"the 40 images of '.*' need 0.0 GB more memory, 0.0 are free; give a smaller"
    ):
        from_folder(tmp_path)
    assert len(from_folder(tmp_path, size=32)) == 40


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "bmp"])
@pytest.mark.parametrize("where", ["a", "masks/a"])
def test_a_damaged_file_ends_in_one_sentence_with_its_path(tmp_path, kind, where):
    if where == "masks/a" and kind == "jpg":
        kind = "png"
    rng = np.random.default_rng(0)
    for name in ("masks/a", "a"):
        stack(tmp_path / f"{name}.{kind if name == where else 'png'}", 1, (32, 32), values=2)
    file = tmp_path / f"{where}.{kind}"
    whole, refused = file.read_bytes(), 0
    for _ in range(60):
        damaged = bytearray(whole)
        at = int(rng.integers(0, min(len(whole), 400)))
        damaged[at : at + int(rng.integers(1, 8))] = rng.bytes(int(rng.integers(0, 8)))
        file.write_bytes(damaged if rng.random() < 0.6 else damaged[: rng.integers(0, len(whole))])
        try:
            from_folder(tmp_path)
        except ValueError as error:
            refused += 1
            assert re.search(rf"'(?:{tmp_path}/)?{where}\.{kind}'", str(error)) and "\n" not in str(error)
    assert refused > 20


def colours_of_16_bits(file, channels):
    """A PNG of 16 bits a channel: grey and alpha, or colour."""
    samples = np.full((4, 4, channels), 4095, ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", 4, 4, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body))


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("name", ["a.png", "masks/b.png"])
def test_16_bits_in_each_of_several_channels_are_refused(tmp_path, channels, name):
    (tmp_path / "masks").mkdir()
    Image.fromarray(RAMP[:4, :4]).save(tmp_path / "b.png")
    colours_of_16_bits(tmp_path / name, channels)
    with pytest.raises(ValueError, match=f"{name}' has several channels of 16 bits; expected 8 bits a channel, or one"):
        from_folder(tmp_path)


def test_a_picture_that_is_transparent_everywhere_is_refused(tmp_path):
    Image.fromarray(np.dstack([BAND] * 3 + [BAND * 0])).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png' is transparent everywhere; expected a picture that can be seen"):
        from_folder(tmp_path)


def test_bits_with_a_sign_are_refused(tmp_path):
    Image.new("L", (4, 4), 200).save(tmp_path / "a.tif", tiffinfo=tagged(_339=2))
    with pytest.raises(ValueError, match="a.tif' has 8 bits with a sign; expected them without, or 16 bits"):
        read_image(tmp_path / "a.tif")


def test_a_second_channel_that_is_no_alpha_is_refused(tmp_path):
    Image.new("LA", (4, 4), (200, 100)).save(tmp_path / "a.tif")
    extra = [struct.pack("<HHLHH", 338, 3, 1, meaning, 0) for meaning in (2, 0)]  # alpha, or whatever
    assert (tmp_path / "a.tif").read_bytes().count(extra[0]) == 1 and read_image(tmp_path / "a.tif").max() < 0.8
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes().replace(*extra))
    with pytest.raises(ValueError, match="a.tif' has two channels, none of them alpha; expected one or three"):
        read_image(tmp_path / "a.tif")


def test_a_stack_is_looked_through_once(tmp_path, monkeypatch):
    pages = [Image.fromarray(np.full((4, 4), i, np.uint8)) for i in range(9)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    sought, seek = [], TiffImagePlugin.TiffImageFile.seek
    monkeypatch.setattr(
        TiffImagePlugin.TiffImageFile, "seek", lambda image, page: (sought.append(page), seek(image, page))[1]
    )
    data = from_folder(tmp_path, scaled=False)
    assert data.images[:, 0, 0, 0].tolist() == list(range(9)) and len(sought) <= 9 * 3
