"""`photos`: 96 px pieces of scikit-learn's two sample photographs, a temple and a flower (427x640 px each), no download.

Real pictures that every install has: to train a feature net on, and to try a thing that needs photographs. Pieces do not overlap, but
for those of the photographs at half the size, which show the same at another scale; every sixth is held out.

The photographs are by Jordi Ferrer ("china.jpg") and dany13 ("flower.jpg"), CC BY 2.0, and come with scikit-learn.
"""

from pathlib import Path

import numpy as np
import torch

from condgen.conditions import Label
from condgen.data.store import Content

SIDE = 96
NAMES = ("china", "flower")
HELD_OUT = 6
"""One of so many pieces is a test row."""


def contents(into: Path) -> dict[str, Content]:
    """50 pieces to train on and 10 to test, (3, 96, 96), condition `photo`."""
    pieces, photo = [], []
    for k, name in enumerate(NAMES):
        whole = photograph(name)
        found = [*pieces_of(whole), *pieces_of(halved(whole))]
        pieces += found
        photo += [k] * len(found)
    pixels, photos, test = np.stack(pieces), np.array(photo), np.arange(len(pieces)) % HELD_OUT == HELD_OUT - 1
    return {name: _content(pixels[rows], photos[rows]) for name, rows in (("train", ~test), ("test", test))}


def photograph(name: str) -> np.ndarray:
    """One of NAMES, uint8 (427, 640, 3)."""
    from sklearn.datasets import load_sample_image

    return np.array(load_sample_image(f"{name}.jpg"))


def pieces_of(photo: np.ndarray, side: int = SIDE) -> list[np.ndarray]:
    """Squares side by side, row by row, around the middle; what is left at the borders belongs to none."""
    rows, columns = (n // side for n in photo.shape[:2])
    top, left = ((n - count * side) // 2 for n, count in zip(photo.shape[:2], (rows, columns), strict=True))
    corners = [(top + side * r, left + side * c) for r in range(rows) for c in range(columns)]
    return [photo[y : y + side, x : x + side] for y, x in corners]


def halved(photo: np.ndarray) -> np.ndarray:
    """Each pixel the mean of four; an odd last row or column is left out."""
    h, w = (n // 2 for n in photo.shape[:2])
    return photo[: 2 * h, : 2 * w].reshape(h, 2, w, 2, -1).mean((1, 3)).round().astype(np.uint8)


def _content(pixels: np.ndarray, photo: np.ndarray) -> Content:
    return Content(pixels, {"photo": torch.from_numpy(photo.astype(np.int64))}, {"photo": Label(NAMES)})
