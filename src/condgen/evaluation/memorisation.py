"""Does a model draw, or does it remember? How far its samples lie from the nearest training picture.

    ratio = median_i min_j |s_i - x_j|  /  median_k min_j |t_k - x_j|          s samples, x training, t test pictures

1 is as far from the training data as pictures that were never seen; a copy is at 0. Distances are L2 over the pixels of
[-1, 1]. A ratio near 1 does not acquit a model that copies and shifts by a pixel: look at `beside_nearest` as well.
"""

from collections.abc import Iterator
from typing import Any

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


def beside_nearest(samples: Tensor, train: Any, most: int = 10) -> Tensor:
    """For a grid of two rows, `grid(x, columns=most)`: the samples that lie nearest to a training picture, and below each that picture.

    (2k, *shape), k being at most `most`; the most suspicious sample comes first.
    """
    distance, row = nearest(samples, train)
    order = distance.argsort(stable=True)[:most]
    return torch.cat([samples[order].cpu(), _rows(train, row[order])])


def memorisation_ratio(m: Measuring) -> Measured:
    """The ratio of the module's head; the control are training pictures with a little noise."""
    real = m.test.batch(some_rows(len(m.test), MOST)).x
    unit = float(nearest(real, m.train)[0].median())
    if unit == 0:
        raise BadInput("half of the test pictures are training pictures as well: nothing can be said about memory")
    samples = m.natural[some_rows(len(m.natural), MOST)]
    value, control = (float(nearest(x, m.train)[0].median()) / unit for x in (samples, _noisy(m, len(samples))))
    about = f"memorisation_ratio|pixels L2|medians|n={len(samples)}/{len(real)}|train={len(m.train)}|f64|v1"
    return Measured(value, 1.0, control, len(samples), f"{about}|ceiling=test rows, by definition|control=training rows with noise {NOISE}")


def _noisy(m: Measuring, n: int) -> Tensor:
    x = m.train.batch(some_rows(len(m.train), n)).x
    return x + NOISE * torch.randn(x.shape, generator=Generator().manual_seed(m.seed))
