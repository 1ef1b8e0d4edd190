"""`mixture1d`: .7 N(-2, .5^2) + .3 N(2, .5^2) on the line, on which divergences can be seen to cover or to choose.

A normal fitted to it covers both modes by KL[P||Q] and sits on the larger one by KL[Q||P]; Huszar's JS_pi goes over from the one
to the other between pi = .1 and .2.
"""

from pathlib import Path

import numpy as np
import torch

from condgen.conditions import Label
from condgen.data.store import Content

MEANS, STD, WEIGHTS = (-2.0, 2.0), 0.5, (0.7, 0.3)
COUNTS = {"train": 20_000, "test": 2_000}
SEEDS = {"train": 0, "test": 1}


def contents(into: Path) -> dict[str, Content]:
    """Train and test, shape (1,), condition `mode`; the same points each time."""
    return {split: _content(count, SEEDS[split]) for split, count in COUNTS.items()}


def _content(count: int, seed: int) -> Content:
    draw = np.random.Generator(np.random.PCG64(seed))
    mode = draw.choice(len(MEANS), count, p=WEIGHTS)
    points = np.array(MEANS)[mode] + STD * draw.standard_normal(count)
    return Content(points[:, None].astype(np.float32), {"mode": torch.from_numpy(mode)}, {"mode": Label(("left", "right"))})
