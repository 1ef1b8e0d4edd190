"""`mnist`: 70,000 handwritten digits, 28x28 px. LeCun, Cortes & Burges, 1998; CC BY-SA 3.0.

The four idx files are read from `$CONDGEN_DATA/mnist`, else fetched from a public mirror. Checksums are of the unpacked bytes,
because mirrors differ in how they were compressed.
"""

import gzip
import hashlib
import io
import os
import tempfile
import zlib
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import torch

from condgen.conditions import Label
from condgen.data.cache import cache_folder, data_folder
from condgen.data.store import Content
from condgen.errors import BadInput

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
MAX_DOWNLOAD_BYTES = 64 << 20
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
    path = _found(f"{name}.gz") or _fetched(f"{name}.gz")
    try:
        return _verified(name, path.read_bytes())
    except ValueError as error:
        raise BadInput(f"{path} is not the {name} of MNIST: {error}. Delete it and load again") from None


def _verified(name: str, packed: bytes) -> bytes:
    """The unpacked bytes. Raises ValueError for others than MNIST's; reads one byte more than expected, so that a bomb stays small."""
    try:
        with gzip.open(io.BytesIO(packed)) as file:
            content = file.read(BYTES[name] + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"it cannot be unpacked ({error})") from None
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise ValueError("its SHA-256 differs")
    return content


def _found(file: str) -> Path | None:
    places = [folder / "mnist" / file for folder in (data_folder(), cache_folder()) if folder]
    return next((path for path in places if path.is_file()), None)


def _fetched(file: str) -> Path:
    """Download into `$CONDGEN_DATA/mnist` where that can be written, else into the cache."""
    refusals = []
    for mirror in MIRRORS:
        try:
            return _kept(file, _downloaded(mirror + file))
        except (OSError, ValueError) as error:
            refusals.append(f"{mirror}: {getattr(error, 'reason', error)}")
    wanted = data_folder() or Path("$CONDGEN_DATA")
    raise BadInput(f"mnist is not on this machine and cannot be downloaded ({'; '.join(refusals)}). Put {file} into {wanted / 'mnist'}")


def _downloaded(address: str) -> bytes:
    with urlopen(address, timeout=30) as answer:
        return bytes(answer.read(MAX_DOWNLOAD_BYTES))


def _kept(file: str, packed: bytes) -> Path:
    """Raises ValueError where the answer is not the expected file, OSError where it cannot be kept."""
    _verified(file.removesuffix(".gz"), packed)
    for root in (data_folder(), cache_folder()):
        if root and (path := _write(root / "mnist" / file, packed)):
            return path
    raise OSError(f"neither $CONDGEN_DATA nor {cache_folder()} can be written; set CONDGEN_CACHE to a folder that can")


def _write(path: Path, content: bytes) -> Path | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as out:
            out.write(content)
        os.replace(temporary, path)
    except OSError:
        return None
    return path
