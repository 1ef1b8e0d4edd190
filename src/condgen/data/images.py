"""Picture files to uint8 pixels: the same picture that a viewer shows, whatever its mode, and no surprise in memory.

What decoders get silently wrong is done here by hand: 16-bit is rescaled (a plain conversion clips it), alpha is composited on
white (else hidden colours appear), the EXIF orientation is applied, palettes and CMYK become RGB, animations give their first frame.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from condgen.errors import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 64_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
READ = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff")
NOT_READ = (".avif", ".heic", ".heif", ".jxl", ".jp2", ".ppm", ".pgm", ".svg", ".psd", ".exr")
"""Pictures too, so they are not passed over in silence."""
GRAY_MODES = ("1", "L", "LA", "La", "I", "F")
ORIENTATION = 0x0112
TRANSPOSED = (5, 6, 7, 8)


class Unreadable(Exception):
    """This picture cannot be used; `kind` is "unreadable" or "bomb"."""

    def __init__(self, message: str, kind: str = "unreadable"):
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Look:
    """What the header says: width and height in px as shown (after orientation), and whether the mode has no colour."""

    width: int
    height: int
    gray: bool


@dataclass(frozen=True)
class View:
    """The part of a picture that is kept, in px as shown, and the size it is brought to."""

    left: float
    top: float
    width: float
    height: float
    to: tuple[int, int]

    def relative(self, xy: np.ndarray) -> np.ndarray:
        """Points (..., 2) in px of the whole picture, relative to this part."""
        return (xy - (self.left, self.top)) / (self.width, self.height)


def view_of(look: Look, size: int | None) -> View:
    """The central square brought to `size`, or all of it where size is None."""
    if size is None:
        return View(0, 0, look.width, look.height, (look.width, look.height))
    side = min(look.width, look.height)
    return View((look.width - side) // 2, (look.height - side) // 2, side, side, (size, size))


def look_at(content: bytes) -> Look:
    """Read the header only. Raises Unreadable for no picture, and for one of more than `MAX_PIXELS`."""
    image = _open(content)
    width, height = image.size
    if _orientation(image) in TRANSPOSED:
        width, height = height, width
    return Look(width, height, image.mode in GRAY_MODES or image.mode.startswith("I;16"))


def decode(content: bytes, size: int | None = None) -> np.ndarray:
    """Pixels uint8 (h, w, 1) where the picture has no colour mode, else (h, w, 3).

    With a size, the central square is resized to it (Lanczos, antialiased). Raises Unreadable.
    """
    return _pixels(_shown(content), size)


def read_rgb(file: Path) -> np.ndarray:
    """The picture of a file, upright, uint8 (h, w, 3). Raises BadInput naming the file."""
    try:
        return with_channels(decode(file.read_bytes()), 3)
    except (Unreadable, OSError) as error:
        raise BadInput(f"{file} {error}" if isinstance(error, Unreadable) else f"{file} cannot be read: {error}") from None


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    """The central square of uint8 (h, w, 1 or 3), brought to (size, size, 1 or 3)."""
    from PIL import Image

    return _pixels(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), size)


def _pixels(shown: "Image", size: int | None) -> np.ndarray:
    from PIL.Image import Resampling

    view = view_of(Look(*shown.size, True), size)
    if view.to != shown.size:
        box = (view.left, view.top, view.left + view.width, view.top + view.height)
        shown = shown.resize(view.to, Resampling.LANCZOS, box=box)
    pixels = np.asarray(shown)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """(h, w, 1) or (h, w, 3) as (h, w, channels); colour is only dropped where there is none."""
    if channels == pixels.shape[-1]:
        return pixels
    return pixels[..., :1] if channels == 1 else np.repeat(pixels, channels, -1)


def is_gray(pixels: np.ndarray) -> bool:
    """Whether (h, w, 3) holds no colour."""
    return pixels.shape[-1] == 1 or bool((pixels == pixels[..., :1]).all())


def _open(content: bytes) -> "Image":
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable(f"is too large: {error}", "bomb") from None
    except Image.UnidentifiedImageError:
        raise Unreadable(f"is none of {', '.join(FORMATS)}" if content else "is empty") from None
    except _DAMAGE as error:
        raise Unreadable(f"cannot be opened ({error})") from None
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable(f"has {image.width}x{image.height} pixels, more than {MAX_PIXELS // 1_000_000} megapixels", "bomb")
    return image


_DAMAGE: tuple[type[Exception], ...] = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, IndexError, KeyError, OverflowError),
    *(AssertionError, NotImplementedError, MemoryError, struct.error, zlib.error),
)
"""What decoders raise on damaged files."""


def _orientation(image: "Image") -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except _DAMAGE:
        return 1


def _shown(content: bytes) -> "Image":
    """The picture in mode L or RGB, upright."""
    from PIL import ImageOps

    image = _open(content)
    try:
        if image.format == "PNG":
            # a PNG cut near its end loads without complaint; its checksums tell
            image.verify()
            image = _open(content)
        orientation = _orientation(image)
        image.load()
        plain = _plain(image)
        if orientation in range(2, 9):
            plain.getexif()[ORIENTATION] = orientation
            plain = ImageOps.exif_transpose(plain)
    except _DAMAGE as error:
        raise Unreadable(f"is damaged or cut off ({error})") from None
    return plain


def _plain(image: "Image") -> "Image":
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _from_numbers(image)
    if image.has_transparency_data:
        return _on_white(image)
    return image.convert("L" if image.mode in GRAY_MODES else "RGB")


def _from_numbers(image: "Image") -> "Image":
    """16-bit integers over 257, floats in [0, 1] times 255; another range is refused, because guessing it would differ by picture."""
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    top = 1.0 if image.mode == "F" else 65535.0
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= top):
        raise Unreadable(f"has values from {values.min():g} to {values.max():g}; expected 0 to {top:g} in mode {image.mode}")
    return Image.fromarray(np.round(values * (255 / top)).astype(np.uint8))


def _on_white(image: "Image") -> "Image":
    from PIL import Image

    gray = image.mode in GRAY_MODES
    full = image.convert("RGBA")
    white = Image.new("RGBA", full.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, full).convert("L" if gray else "RGB")
