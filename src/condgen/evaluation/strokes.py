"""Two drawings as two sets of points: the modified Hausdorff distance.

    d(A, B) = max(h(A, B), h(B, A)),   h(A, B) = 1/|A| sum_a min_b |a - b|

Dubuisson & Jain, "A modified Hausdorff distance for object matching", ICPR 1994. It is the baseline that Lake et al. 2015 give
with their one-shot runs: the nearest of 20 drawings by this distance, no training.
"""

import torch
from torch import Tensor

from condgen.errors import BadInput


def ink_points(x: Tensor) -> Tensor:
    """(row, column) of every pixel of (1, h, w) above 0, relative to their mean, in px: (p, 2). Raises BadInput where there is none."""
    points = (x[0] > 0).nonzero().float()
    if len(points) == 0:
        raise BadInput("a picture without ink has no distance to another: no pixel is above 0")
    return points - points.mean(0)


def modified_hausdorff(first: Tensor, second: Tensor) -> Tensor:
    """Distance of points float32 (p, 2) and (q, 2), in their unit; a scalar."""
    squared = squared_gaps(first, second)
    return torch.maximum(_mean_gap(squared.amin(1)), _mean_gap(squared.amin(0)))


def _mean_gap(squared: Tensor) -> Tensor:
    return squared.clamp(min=0).sqrt().mean()


def squared_gaps(first: Tensor, second: Tensor) -> Tensor:
    """|a - b|^2, (p, q), as one product of (|a|^2, 1, -2a) and (1, |b|^2, b): a drawing has a thousand points, and a run 400 pairs."""
    a, b = (points.square().sum(1, keepdim=True) for points in (first, second))
    left = torch.cat([a, torch.ones_like(a), -2 * first], dim=1)
    return left @ torch.cat([torch.ones_like(b), b, second], dim=1).T


def hausdorff_distances(asked: Tensor, shown: Tensor) -> Tensor:
    """Of every picture (n, 1, h, w) to every one of (m, 1, h, w), both in [-1, 1]: (n, m), in px."""
    drawn, known = ([ink_points(x) for x in pictures] for pictures in (asked, shown))
    return torch.stack([torch.stack([modified_hausdorff(a, b) for b in known]) for a in drawn])
