"""Does a model draw, or does it remember? How far its samples lie from the nearest training picture.

    ratio = median_i min_j |s_i - x_j|  /  median_k min_j |t_k - x_j|          s samples, x training, t test pictures

1 is as far from the training data as pictures that were never seen; a copy is at 0. Distances are L2 over the pixels of
[-1, 1]. The samples are drawn under conditions as in training: what was learnt by heart shows there. Where D was shown mirrored
pictures too (the model's option `flip`), the mirror images of training pictures count as training pictures.

A ratio near 1 does not acquit a model that copies and shifts by a pixel: look at `beside_nearest`, `condgen figure neighbours`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from condgen.errors import BadInput
from condgen.evaluation.measuring import Measured, Measuring, some_rows
from condgen.evaluation.neighbours import squared_distances

MOST = 1000
"""Samples, and test pictures, whose neighbours are looked for."""
NOISE = 0.05
"""Standard deviation of what is added to training pictures for the control, on the scale of [-1, 1]."""


def nearest(samples: Tensor, train: Any, chunk: int = 2000) -> tuple[Tensor, Tensor]:
    """The nearest training picture of each sample: its distance, float64 (n,), and its row, int64 (n,).

    Args:
        samples: (n, *shape).
        train: (m, *shape), or a data set, which is read `chunk` rows at a time. Memory is chunk * (n + numbers in a sample).
        chunk: training rows at once.

    Raises:
        BadInput: where there is nothing to compare, or shapes differ.
    """
    if not len(samples) or not len(train):
        raise BadInput(f"{len(samples)} samples and {len(train)} training rows: expected at least one of each")
    flat = samples.detach().cpu().flatten(1).float()
    best, row = torch.full((len(flat),), torch.inf), torch.zeros(len(flat), dtype=torch.int64)
    for start, part in _parts(train, chunk):
        if part.shape[1] != flat.shape[1]:
            raise BadInput(f"samples of {flat.shape[1]} numbers and training rows of {part.shape[1]} cannot be compared")
        found, at = squared_distances(flat, part).min(1)
        row = torch.where(found < best, at + start, row)
        best = torch.minimum(found, best)
    # The search rounds at 1e-7 of |x|^2, which a near copy does not survive: its distance is taken again, exactly.
    return (flat.double() - _rows(train, row).flatten(1).double()).norm(dim=1), row


def _parts(train: Any, chunk: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(train), chunk):
        yield start, _rows(train, torch.arange(start, min(start + chunk, len(train)))).flatten(1).float()


def _rows(train: Any, rows: Tensor) -> Tensor:
    return train[rows].cpu() if isinstance(train, Tensor) else train.batch(rows).x


def mirrors(model: Any) -> bool:
    """Whether the model was trained on mirror images too."""
    return bool(model.options.get("flip"))


def nearest_pictures(samples: Tensor, train: Any, mirrored: bool = False) -> tuple[Tensor, Tensor]:
    """The same with pictures in place of rows: distances float64 (n,), and the nearest training pictures (n, *shape).

    Args:
        samples: (n, *shape).
        train: as in `nearest`.
        mirrored: whether the mirror images of training pictures are searched too.
    """
    distance, row = nearest(samples, train)
    found = _rows(train, row)
    if not mirrored:
        return distance, found
    turned, at = nearest(samples.flip(-1), train)  # |s - mirror x| = |mirror s - x|
    nearer = (turned < distance).reshape(-1, *[1] * (samples.dim() - 1))
    return torch.minimum(distance, turned), torch.where(nearer, _rows(train, at).flip(-1), found)


def unit_distance(test: Any, train: Any, mirrored: bool = False) -> float:
    """Median distance of `MOST` test pictures, or all, from the training data. Raises BadInput where it is 0.

    Both are data sets, or pictures (n, *shape).
    """
    pictures = _rows(test, some_rows(len(test), MOST))
    unit = float(nearest_pictures(pictures, train, mirrored)[0].median())
    if unit == 0:
        raise BadInput("half of the test pictures are training pictures as well: nothing can be said about memory")
    return unit


class Beside(NamedTuple):
    """Of each sample the nearest training picture (n, *shape), and its distance over that of test pictures, float64 (n,)."""

    pictures: Tensor
    ratios: Tensor


def beside_nearest(samples: Tensor, train: Any, test: Any, mirrored: bool = False) -> Beside:
    """What to look at beside samples, in their order; `memorisation_ratio` is the median of the ratios.

    Args:
        samples: (n, *shape).
        train, test: data sets, or pictures (m, *shape).
        mirrored: whether mirror images of training pictures count as training pictures; `mirrors` tells it of a model.

    Raises:
        BadInput: where there is nothing to compare, shapes differ, or half of the test pictures are training pictures.
    """
    distance, pictures = nearest_pictures(samples, train, mirrored)
    return Beside(pictures, distance / unit_distance(test, train, mirrored))


def memorisation_ratio(m: Measuring) -> Measured:
    """The ratio of the module's head; the control are training pictures with a little noise."""
    flip = mirrors(m.model)
    unit, samples = unit_distance(m.test, m.train, flip), m.recalled[some_rows(m.n, MOST)]
    sets = (samples, _noisy(m, len(samples)))
    value, control = (float(nearest_pictures(x, m.train, flip)[0].median()) / unit for x in sets)
    turned = "|mirror images of training rows too" if flip else ""
    about = f"memorisation_ratio|pixels L2|medians|n={len(samples)}/{min(len(m.test), MOST)}|train={len(m.train)}{turned}|f64|v1{m.under}"
    return Measured(value, 1.0, control, len(samples), f"{about}|ceiling=test rows, by definition|control=training rows with noise {NOISE}")


def _noisy(m: Measuring, n: int) -> Tensor:
    x = m.train.batch(some_rows(len(m.train), n)).x
    return x + NOISE * torch.randn(x.shape, generator=Generator().manual_seed(m.seed))
