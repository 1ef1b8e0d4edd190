"""Pictures come out as a viewer shows them, whatever their mode; what cannot be read is refused before it costs memory."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from condgen.data.images import MAX_PIXELS, Unreadable, decode, look_at, resized


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def ramp(dtype, top: int) -> np.ndarray:
    return np.linspace(0, top, 16 * 16).round().astype(dtype).reshape(16, 16)


def png_16_bit_rgb(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write: colour type 2, one unfiltered scanline a row."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    h, w, _ = values.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", w, h, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def test_16_bit_gray_is_rescaled_and_not_clipped():
    values = ramp(np.uint16, 65535)
    got = decode(encoded(Image.fromarray(values)))
    assert got.shape == (16, 16, 1)
    assert np.abs(got[..., 0].astype(float) - values / 257).max() <= 0.5
    tiff = decode(encoded(Image.fromarray(values), "TIFF"))
    assert np.array_equal(tiff, got)


def test_16_bit_rgb_is_rescaled():
    values = np.stack([ramp(np.uint16, 65535), ramp(np.uint16, 4096), np.full((16, 16), 65535)], -1)
    got = decode(png_16_bit_rgb(values))
    assert got.shape == (16, 16, 3)
    assert np.abs(got.astype(float) - values / 257).max() <= 1


def test_32_bit_integers_and_floats():
    values = ramp(np.int32, 65535)
    assert np.abs(decode(encoded(Image.fromarray(values), "TIFF"))[..., 0] - values / 257).max() <= 0.5
    unit = ramp(np.uint8, 255).astype(np.float32) / 255
    assert np.array_equal(decode(encoded(Image.fromarray(unit), "TIFF"))[..., 0], ramp(np.uint8, 255))
    with pytest.raises(Unreadable, match="values from 0 to 1000"):
        decode(encoded(Image.fromarray(unit * 1000), "TIFF"))


def test_alpha_is_composited_on_white():
    pixels = np.zeros((4, 4, 4), dtype=np.uint8)
    pixels[..., 0] = 255
    pixels[:2, :, 3] = 255
    pixels[3, :, 3] = 128
    got = decode(encoded(Image.fromarray(pixels)))
    assert (got[0, 0] == (255, 0, 0)).all()
    assert (got[2, 0] == 255).all(), "hidden red became visible"
    assert np.abs(got[3, 0].astype(int) - (255, 127, 127)).max() <= 1


def test_gray_with_alpha_stays_gray():
    pixels = np.dstack([np.full((4, 4), 10, np.uint8), np.repeat(np.array([[0], [255], [0], [255]], np.uint8), 4, 1)])
    got = decode(encoded(Image.fromarray(pixels)))
    assert got.shape == (4, 4, 1)
    assert got[:, 0, 0].tolist() == [255, 10, 255, 10]


def test_palette_with_and_without_transparency():
    colours = np.array([(200, 10, 30), (0, 90, 250)], dtype=np.uint8)
    which = np.indices((6, 6)).sum(0) % 2
    palette = Image.fromarray(which.astype(np.uint8), "L").convert("P")
    palette.putpalette(colours.tobytes())
    assert np.array_equal(decode(encoded(palette)), colours[which])
    clear = decode(encoded(palette, transparency=1))
    assert (clear[which == 1] == 255).all() and (clear[which == 0] == colours[0]).all()
    gif = decode(encoded(palette, "GIF"))
    assert np.array_equal(gif, colours[which])


def test_cmyk_becomes_the_colour_that_is_seen():
    inks = np.zeros((16, 16, 4), dtype=np.uint8)
    inks[:, :8, 0] = 255
    inks[:, 8:, 3] = 255
    for kind in ("TIFF", "JPEG"):
        got = decode(encoded(Image.fromarray(inks, "CMYK"), kind)).astype(int)
        assert np.abs(got[8, 3] - (0, 255, 255)).max() <= 6, kind
        assert np.abs(got[8, 13] - (0, 0, 0)).max() <= 6, kind


def test_one_bit_is_black_and_white():
    got = decode(encoded(Image.fromarray(np.eye(8) > 0)))
    assert np.array_equal(got[..., 0], np.eye(8) * 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = np.zeros((4, 6, 3), dtype=np.uint8)
    upright[0, 0], upright[0, 5], upright[3, 0] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif.tobytes())
    assert np.array_equal(decode(content), upright)
    assert (look_at(content).width, look_at(content).height) == (6, 4)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (5, 5), c) for c in ("red", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        lossless = {"lossless": True} if kind == "WEBP" else {}
        got = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **lossless))
        assert (got == (255, 0, 0)).all(), kind


def test_crop_is_central_and_resize_is_antialiased():
    wide = np.zeros((8, 16, 3), dtype=np.uint8)
    wide[:, 4:12] = 200
    assert (decode(encoded(Image.fromarray(wide)), 8) == 200).all()
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 255
    small = decode(encoded(Image.fromarray(stripes)), 16)[4:-4, 4:-4]
    assert np.abs(small.astype(int) - 127).max() <= 3, "a resize without antialiasing gives 0 or 255"
    assert np.array_equal(resized(wide, 8), decode(encoded(Image.fromarray(wide)), 8))


def bomb(width: int, height: int) -> bytes:
    """A valid PNG of zeros, a thousandth of its pixels in size."""
    out = io.BytesIO()
    Image.new("1", (width, height)).save(out, "PNG")
    return out.getvalue()


def test_a_bomb_is_refused_before_decoding(monkeypatch):
    content = bomb(8001, 8000)
    assert len(content) < 100_000 and 8001 * 8000 > MAX_PIXELS
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    for look in (look_at, decode):
        with pytest.raises(Unreadable, match="8001x8000") as caught:
            look(content)
        assert caught.value.kind == "bomb"


@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
def test_a_bomb_beyond_the_decoder_limit_is_a_bomb_too():
    header = bomb(8, 8)
    huge = header[:16] + struct.pack(">II", 60000, 60000)
    huge += header[24:29] + struct.pack(">I", zlib.crc32(b"IHDR" + huge[16:24] + header[24:29])) + header[33:]
    with pytest.raises(Unreadable) as caught:
        look_at(huge)
    assert caught.value.kind == "bomb"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_cut_picture_is_named_damaged(kind):
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    assert decode(content).shape == (40, 40, 3)
    for part in (0.5, 0.9):
        with pytest.raises(Unreadable):
            decode(content[: int(len(content) * part)])


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\0" * 4000])
def test_what_is_no_picture_is_unreadable(content):
    with pytest.raises(Unreadable):
        look_at(content)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_flipped_bytes_never_raise_anything_else():
    random = np.random.Generator(np.random.PCG64(1))
    image = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        content = encoded(image, kind)
        for _ in range(60):
            damaged = bytearray(content)
            for at in random.integers(0, len(content), 4):
                damaged[at] = random.integers(256)
            try:
                decode(bytes(damaged))
            except Unreadable:
                continue
