"""`mixture2d`: 25 Gaussians on a 5x5 grid, the toy of ALI (Dumoulin et al. 2016, arXiv 1606.00704; its `ali_mixture` experiment).

What a generator should do is known exactly here: `CENTRES`, `STD`, equal weights.
"""

from pathlib import Path

import numpy as np
import torch

from condgen.conditions import Label
from condgen.data.store import Content

GRID = (-4.0, -2.0, 0.0, 2.0, 4.0)
CENTRES = np.array([(x, y) for y in GRID for x in GRID], dtype=np.float32)
"""Means (25, 2) of the modes, in the order of the condition's names."""
STD = 0.05
NAMES = tuple(f"{x:g},{y:g}" for x, y in CENTRES)
POINTS = {"train": 100_000, "test": 10_000}


def contents(into: Path) -> dict[str, Content]:
    """Points float32 (n, 2), condition `mode`: the same points each time."""
    return {split: _content(n, seed) for seed, (split, n) in enumerate(POINTS.items())}


def _content(n: int, seed: int) -> Content:
    generator = np.random.Generator(np.random.PCG64(seed))
    mode = generator.integers(len(CENTRES), size=n)
    points = CENTRES[mode] + STD * generator.standard_normal((n, 2), dtype=np.float32)
    return Content(points.astype(np.float32), {"mode": torch.from_numpy(mode)}, {"mode": Label(NAMES)})
