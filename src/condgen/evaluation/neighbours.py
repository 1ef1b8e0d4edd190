"""Nearest-neighbour measures of two sets of features: fidelity and variety apart.

A set's manifold is the union of balls around its points that reach to the k-th neighbour within the set (the point itself
not counted); a point is inside where its distance is strictly (`<`) below the radius.

    precision: share of fakes inside the real manifold.     recall: share of real points inside the fakes' manifold.
        Kynkäänniemi et al. 2019, arXiv 1904.06991
    density: mean number of real balls around a fake, over k (it may pass 1).   coverage: share of real balls that hold a fake.
        Naeem et al. 2020, arXiv 2002.09797
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from condgen.errors import BadInput
from condgen.evaluation.frechet import as_features, as_pair


class Neighbours(NamedTuple):
    precision: float
    recall: float
    density: float
    coverage: float


def neighbours(real: Any, fake: Any, k: int = 5, chunk: int = 256, real_radius: Tensor | None = None) -> Neighbours:
    """All four, of features (n, d) and (m, d) in float64; memory is chunk * max(n, m).

    Args:
        real, fake: features.
        k: which neighbour the balls reach to.
        chunk: rows at once.
        real_radius: `squared_radii(real, k)`, where several sets are compared with one.

    Raises:
        BadInput: where a set has no k-th neighbour.
    """
    x, y = as_pair(real, fake)
    centre = x.mean(0)
    radius = squared_radii(x, k, chunk) if real_radius is None else real_radius
    return _measured(x - centre, y - centre, radius, squared_radii(y, k, chunk), k, chunk)


def _measured(x: Tensor, y: Tensor, x_radius: Tensor, y_radius: Tensor, k: int, chunk: int) -> Neighbours:
    around = torch.zeros(len(y), dtype=torch.float64)  # real balls around each fake
    recalled, covered = [], []
    for part, radius in zip(x.split(chunk), x_radius.split(chunk), strict=True):
        distance = squared_distances(part, y)
        around += (distance < radius[:, None]).sum(0)
        recalled.append((distance < y_radius).any(1))
        covered.append(distance.min(1).values < radius)
    return Neighbours(_share(around > 0), _share(torch.cat(recalled)), float(around.mean()) / k, _share(torch.cat(covered)))


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2, (n, m). What rounding leaves of the distance of equal rows is set to exactly 0."""
    scale = x.square().sum(1)[:, None] + y.square().sum(1)
    squared = torch.addmm(scale, x, y.T, alpha=-2)
    return squared.masked_fill_(squared < 8 * torch.finfo(x.dtype).eps * scale, 0.0)


def squared_radii(features: Any, k: int, chunk: int = 256) -> Tensor:
    """Squared distance of each row of (n, d) to the k-th other row, float64 (n,). Raises BadInput where there are too few."""
    x = as_features(features)
    if not 1 <= k < len(x):
        raise BadInput(f"k is {k}: expected 1 to {len(x) - 1} among {len(x)} rows")
    x = x - x.mean(0)
    return torch.cat([squared_distances(part, x).topk(k + 1, dim=1, largest=False).values[:, k] for part in x.split(chunk)])


def _share(inside: Tensor) -> float:
    return float(inside.double().mean())
