"""`mixture2d` and `mixture9`: Gaussians on a grid of the plane, the toys of ALI (Dumoulin et al. 2016, arXiv 1606.00704).

The 25 modes are those of its released experiment `ali_mixture`. The nine are an earlier form, which figure 7 of lecture 001 shows without
saying where they lie: here they are the middle nine of the 25, as wide as those.

What a generator should do is known exactly here: `MIXTURES`, `STD`, equal weights.
"""

from pathlib import Path

import numpy as np
import torch

from condgen.conditions import Label
from condgen.data.store import Content


def lattice(axis: tuple[float, ...]) -> np.ndarray:
    """The points of a square grid, float32 (n * n, 2), row by row."""
    return np.array([(x, y) for y in axis for x in axis], dtype=np.float32)


GRID = (-4.0, -2.0, 0.0, 2.0, 4.0)
CENTRES = lattice(GRID)
"""Means (25, 2) of the modes of `mixture2d`, in the order of the condition's names."""
NINE = lattice(GRID[1:4])
"""Those (9, 2) of `mixture9`."""
MIXTURES = {"mixture2d": CENTRES, "mixture9": NINE}
STD = 0.05
POINTS = {"train": 100_000, "test": 10_000}


def contents(into: Path) -> dict[str, Content]:
    """Points float32 (n, 2), condition `mode`: the same points each time."""
    return _splits(CENTRES)


def nine(into: Path) -> dict[str, Content]:
    """The same of nine modes."""
    return _splits(NINE)


def _splits(centres: np.ndarray) -> dict[str, Content]:
    return {split: _content(centres, n, seed) for seed, (split, n) in enumerate(POINTS.items())}


def _content(centres: np.ndarray, n: int, seed: int) -> Content:
    generator = np.random.Generator(np.random.PCG64(seed))
    mode = generator.integers(len(centres), size=n)
    points = centres[mode] + STD * generator.standard_normal((n, 2), dtype=np.float32)
    names = tuple(f"{x:g},{y:g}" for x, y in centres)
    return Content(points.astype(np.float32), {"mode": torch.from_numpy(mode)}, {"mode": Label(names)})
