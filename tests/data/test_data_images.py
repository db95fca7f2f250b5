import errno
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mae_bench.core.errors import InputError
from tasks import images
from tasks.images import read_rgb


def pixels(path: Path, *, exif: bool = False) -> np.ndarray:
    image = read_rgb(path, exif=exif)
    assert image.mode == "RGB"
    return np.asarray(image)


def noise_jpeg(path: Path) -> bytes:
    values = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="I01_zero_byte"),
        pytest.param(b"<html><body>404</body></html>", id="I02_html_as_jpg"),
        pytest.param(b"junk" * 8 + b"\xff\xd8\xff\xe0", id="I03_junk_prefix"),
    ],
)
def test_not_an_image_is_refused_by_name(tmp_path, content):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.jpg: it is not an image"):
        read_rgb(path, exif=True)


@pytest.mark.parametrize(
    "keep", [pytest.param(lambda n: n // 2, id="I04_cut_at_half"), pytest.param(lambda n: n - 2, id="I05_last_bytes_gone")]
)
def test_cut_jpeg_is_refused(tmp_path, keep):
    path = tmp_path / "cut.jpg"
    content = noise_jpeg(path)
    path.write_bytes(content[: keep(len(content))])
    with pytest.raises(InputError, match=r"cannot decode image .*cut\.jpg"):
        read_rgb(path, exif=False)


def test_I06_png_with_a_wrong_checksum_is_refused(tmp_path, save_image):
    path = save_image(tmp_path / "crc.png")
    content = bytearray(path.read_bytes())
    place = content.index(b"IDAT")
    content[place + 6] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"crc\.png"):
        read_rgb(path, exif=False)


def test_I07_cut_png_is_refused(tmp_path):
    path = tmp_path / "cut.png"
    values = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"cut\.png"):
        read_rgb(path, exif=False)


def test_I09_decompression_bomb_is_refused_before_its_pixels_are_made(tmp_path):
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    with pytest.raises(InputError, match=r"bomb\.png.*exceeds limit"):
        read_rgb(path, exif=False)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("LA", (77, 0), (77, 77, 77)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("P", 3, (9, 10, 11)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
    ],
    ids=lambda value: f"I11_{value}" if isinstance(value, str) else "",
)
def test_modes_become_rgb_by_the_stated_rule(tmp_path, mode, colour, expected):
    image = Image.new(mode, (4, 3), colour)
    if mode == "P":
        image.putpalette(list(range(30)))
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(path)
    assert (pixels(path) == expected).all()


def test_I11_palette_with_transparency_keeps_its_colours(tmp_path):
    image = Image.new("P", (4, 3), 2)
    image.putpalette([0, 0, 0, 1, 1, 1, 40, 50, 60])
    path = tmp_path / "x.png"
    image.save(path, transparency=bytes([255, 255, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (pixels(path) == (40, 50, 60)).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_I12_16_bit_grey_is_scaled_not_clamped(tmp_path, suffix):
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(values).save(path)
    with pytest.warns(UserWarning, match="16-bit"):
        assert pixels(path)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_I12_floating_point_image_is_refused(tmp_path):
    path = tmp_path / "float.tif"
    Image.fromarray(np.ones((3, 4), dtype=np.float32)).save(path)
    with pytest.raises(InputError, match="floating-point"):
        read_rgb(path, exif=False)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_I13_orientation_is_obeyed_or_not_as_asked(tmp_path, orientation):
    upright = np.zeros((16, 24, 3), dtype=np.uint8)
    upright[:8, :12] = 255
    # How a camera stores the upright picture under each value of the tag.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    path = tmp_path / "photo.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    assert np.array_equal(pixels(path, exif=True), upright)
    assert np.array_equal(pixels(path, exif=False), stored)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000)])
def test_I14_extreme_shapes_are_read(tmp_path, size, save_image):
    assert read_rgb(save_image(tmp_path / "x.png", size), exif=True).size == size


def test_I15_animation_gives_its_first_frame_and_suffixes_may_lie(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert (pixels(tmp_path / "x.gif") == (255, 0, 0)).all()
    frames[1].save(tmp_path / "x.webp", lossless=True)
    (tmp_path / "x.webp").rename(tmp_path / "liar.jpg")
    assert (pixels(tmp_path / "liar.jpg") == (0, 0, 255)).all()


def test_I16_vanished_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png: there is no such file"):
        read_rgb(tmp_path / "gone.png", exif=False)


@pytest.mark.parametrize(("failures", "code"), [(3, errno.EIO), (3, errno.ESTALE), (4, errno.EIO), (1, errno.EACCES)])
def test_I16_a_file_system_that_fails_for_a_moment_is_asked_again(tmp_path, save_image, monkeypatch, failures, code):
    path = save_image(tmp_path / "x.png")
    opened, whole = [], Image.open

    def fail(file):
        opened.append(file)
        if len(opened) <= failures:
            raise OSError(code, "failed")
        return whole(file)

    monkeypatch.setattr(images, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(Image, "open", fail)
    if code != errno.EACCES and failures == 3:
        assert read_rgb(path, exif=False).size == (40, 30)
        return
    with pytest.raises(InputError, match=r"x\.png"):
        read_rgb(path, exif=False)
    assert len(opened) == (1 if code == errno.EACCES else 4)
