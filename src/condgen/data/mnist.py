"""`mnist`: 70,000 handwritten digits, 28x28 px. LeCun, Cortes & Burges, 1998; CC BY-SA 3.0.

The four idx files are read from `$CONDGEN_DATA/mnist`, else fetched from a public mirror. Checksums are of the unpacked bytes,
because mirrors differ in how they were compressed.
"""

import gzip
import io
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import torch

from condgen.conditions import Label
from condgen.data.fetch import obtained, with_sum
from condgen.data.store import Content
from condgen.errors import BadInput

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
NAMES = tuple(str(d) for d in range(10))
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
BYTES = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}


def contents(into: Path, size: int | None = None) -> dict[str, Content]:
    """Train (60,000) and test (10,000), shape (1, 28, 28), condition `digit`.

    `size` larger than 28 pads with black on all sides, and does not resize: at 32 the strokes keep their pixels, as in LeNet.
    """
    if size is not None and size < 28:
        raise BadInput(f"mnist is 28 px and is padded, never shrunk; size {size} is too small")
    return {split: _content(_unpacked(images), _unpacked(labels), size or 28) for split, (images, labels) in FILES.items()}


def _content(images: bytes, labels: bytes, size: int) -> Content:
    pixels = np.frombuffer(images, dtype=np.uint8, offset=16).reshape(-1, 28, 28, 1)
    before = (size - 28) // 2
    around = (before, size - 28 - before)
    digit = torch.from_numpy(np.frombuffer(labels, dtype=np.uint8, offset=8).astype(np.int64))
    return Content(np.pad(pixels, ((0, 0), around, around, (0, 0))), {"digit": digit}, {"digit": Label(NAMES)}, _notes(size))


def _notes(size: int) -> list[str]:
    return [f"padded from 28 to {size} px with black, not resized"] if size != 28 else []


def _unpacked(name: str) -> bytes:
    return obtained("mnist", f"{name}.gz", MIRRORS, partial(_verified, name))


def _verified(name: str, packed: bytes) -> bytes:
    """The unpacked bytes. Raises ValueError for others than MNIST's; reads one byte more than expected, so that a bomb stays small."""
    try:
        with gzip.open(io.BytesIO(packed)) as file:
            content = file.read(BYTES[name] + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"it cannot be unpacked ({error})") from None
    return with_sum(content, SHA256[name])
