"""`digits`: scikit-learn's 1,797 real handwritten digits, 8x8 px, no download.

From the Optical Recognition of Handwritten Digits set, Alpaydin & Kaynak, UCI, 1998 (its test half).
"""

from pathlib import Path

import numpy as np
import torch

from condgen.conditions import Label
from condgen.data.store import Content

TEST_FRACTION = 0.2
NAMES = tuple(str(d) for d in range(10))


def contents(into: Path) -> dict[str, Content]:
    """Train and test, shape (1, 8, 8), condition `digit`; the same 80/20 split of every class each time."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)[..., None]
    test = stratified(found.target, TEST_FRACTION)
    return {name: _content(pixels[rows], found.target[rows]) for name, rows in (("train", ~test), ("test", test))}


def _content(pixels: np.ndarray, target: np.ndarray) -> Content:
    return Content(pixels, {"digit": torch.from_numpy(target.astype(np.int64))}, {"digit": Label(NAMES)})


def stratified(target: np.ndarray, fraction: float, seed: int = 0) -> np.ndarray:
    """A mask (n,) that holds out this fraction of every class, rounded."""
    held_out = np.zeros(len(target), dtype=bool)
    generator = np.random.Generator(np.random.PCG64(seed))
    for value in np.unique(target):
        rows = generator.permutation(np.flatnonzero(target == value))
        held_out[rows[: round(fraction * len(rows))]] = True
    return held_out
