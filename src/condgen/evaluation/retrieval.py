"""What features know of classes that nobody named to them: retrieval, one-shot classification, and the whitening before both.

    precision at k = share of the k most similar rows that have the query's label
    average precision = mean, over the ranks of those that have it, of the precision at that rank; mAP is its mean over queries

Every row is a query against all others. One-shot classification is Lake et al. 2015: a drawing has the class of the nearest of 20
others, each of a class of its own.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from condgen.errors import BadInput, unknown
from condgen.evaluation.frechet import as_features
from condgen.evaluation.neighbours import squared_distances

Features = Callable[[Tensor], Tensor]
"""Pictures (n, c, h, w) in [-1, 1] to rows (n, d)."""


class Accuracy(NamedTuple):
    """Mean over runs, in [0, 1], and the standard error of that mean."""

    mean: float
    standard_error: float


class Retrieval(NamedTuple):
    """Means over queries, in [0, 1], and their standard errors in the same order; labels, not rows, are drawn independently."""

    p_at_1: float
    p_at_k: float
    map: float
    standard_errors: tuple[float, float, float]


# --- one-shot classification ----------------------------------------------------------------------------------------------


def cosine_distances(x: Tensor, y: Tensor) -> Tensor:
    """1 - cos of the angle between rows of (n, d) and (m, d): (n, m). A row of zeros is at 1 from all."""
    return 1 - _unit(x) @ _unit(y).T


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine_distances, "l2": squared_distances}
"""Between rows of (n, d) and (m, d): (n, m). "l2" is squared, which has the same order."""


def one_shot_accuracy(features: Features, runs: Sequence[Any], distance: str = "cosine") -> Accuracy:
    """Share of right answers of the nearest neighbour in feature space, computed in float64.

    Args:
        features: of pictures in [-1, 1].
        runs: each with pictures `shown` (m, ...) and `asked` (n, ...), and `answers` int (n,), as `data.omniglot.one_shot_runs` gives.
        distance: "cosine" or "l2".

    Raises:
        BadInput: for another distance, fewer than two runs, and features that are not finite numbers.
    """
    if distance not in DISTANCES:
        raise unknown("distance", distance, DISTANCES)

    def apart(asked: Tensor, shown: Tensor) -> Tensor:
        return DISTANCES[distance](as_features(features(asked)), as_features(features(shown)))

    return one_shot(apart, runs)


def one_shot(distances: Callable[[Tensor, Tensor], Tensor], runs: Sequence[Any]) -> Accuracy:
    """The same by any distances (n, m) of pictures `asked` to pictures `shown`."""
    if len(runs) < 2:
        raise BadInput(f"a standard error needs at least 2 runs, not {len(runs)}")
    right = torch.tensor([_share_right(distances(run.asked, run.shown), run.answers) for run in runs], dtype=torch.float64)
    return Accuracy(float(right.mean()), float(right.std()) / math.sqrt(len(runs)))


def _share_right(distances: Tensor, answers: Tensor) -> float:
    return float((distances.argmin(1) == answers).double().mean())


# --- retrieval ------------------------------------------------------------------------------------------------------------


def retrieval(features: Any, labels: Any, k: int = 19, chunk: int = 256) -> Retrieval:
    """How early rows of the query's label come, by the cosine of features, in float64; memory is chunk * n.

    A row whose label is nobody else's is no query, but is among those that are searched. Equal similarities stand in an order drawn
    once, so that features that are all equal score as chance.

    Args:
        features: (n, d).
        labels: int (n,).
        k: of `p_at_k`. 19 is every other drawing of an Omniglot character.
        chunk: queries at once.

    Raises:
        BadInput: where features and labels do not fit, k is not from 1 to n - 1, or no label has two rows.
    """
    x, y = as_features(features), torch.as_tensor(labels).cpu()
    if y.shape != (len(x),):
        raise BadInput(f"{len(x)} rows of features and labels of shape {tuple(y.shape)}; expected one label a row")
    if not 1 <= k < len(x):
        raise BadInput(f"k is {k}: expected 1 to {len(x) - 1} among {len(x)} rows")
    order = torch.randperm(len(x), generator=Generator().manual_seed(0))
    x, y = _unit(x)[order], y[order]
    queries = _with_company(y)
    each = torch.cat([_precisions(x, y, rows, k) for rows in queries.split(chunk)])  # (q, 3)
    at_1, at_k, average = each.T
    errors = (_clustered_error(at_1, y[queries]), _clustered_error(at_k, y[queries]), _clustered_error(average, y[queries]))
    return Retrieval(float(at_1.mean()), float(at_k.mean()), float(average.mean()), errors)


def _with_company(y: Tensor) -> Tensor:
    """Rows whose label another row has too."""
    _, inverse, counts = y.unique(return_inverse=True, return_counts=True)
    rows = (counts[inverse] > 1).nonzero().flatten()
    if len(rows) == 0:
        raise BadInput("no label has two rows: there is nothing to retrieve")
    return rows


def _precisions(x: Tensor, y: Tensor, rows: Tensor, k: int) -> Tensor:
    """Precision at 1, precision at k and average precision of some queries against all other rows: (len(rows), 3)."""
    similar = x[rows] @ x.T
    similar[torch.arange(len(rows)), rows] = -torch.inf  # itself comes last, and is cut off
    ranked = similar.argsort(dim=1, descending=True, stable=True)[:, :-1]
    hit = (y[ranked] == y[rows, None]).double()
    precision = hit.cumsum(1) / torch.arange(1, len(x), dtype=torch.float64)
    return torch.stack([hit[:, 0], precision[:, k - 1], (precision * hit).sum(1) / hit.sum(1)], dim=1)


def _clustered_error(values: Tensor, labels: Tensor) -> float:
    """Standard error of the mean of values whose labels are drawn, and all values of a label with it; 0 for a single label."""
    found, inverse = labels.unique(return_inverse=True)
    if len(found) < 2:
        return 0.0
    off = torch.zeros(len(found), dtype=torch.float64).index_add_(0, inverse, values - values.mean())
    return float((off.square().sum() * len(found) / (len(found) - 1)).sqrt()) / len(values)


# --- whitening ------------------------------------------------------------------------------------------------------------


class Whitening(NamedTuple):
    """Projection on principal components, each brought to variance 1; `directions` is (d, k)."""

    mean: Tensor
    directions: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """float64 (n, k) of features (n, d)."""
        return (features.double() - self.mean) @ self.directions


def whitening(features: Tensor, dimensions: int = 256, least: float = 1e-10) -> Whitening:
    """Fitted to features (n, d): the largest `dimensions` components, fewer where the data have fewer.

    Exact, from the smaller of the two products of the centred features with themselves: d may be tens of thousands.

    Args:
        features: of at least two rows; float32 is kept so, as it may be large.
        dimensions: at most this many components.
        least: components whose variance is below this share of the largest are rounding, and are left out.

    Raises:
        BadInput: for fewer than two rows, values that are not finite, and rows that are all equal.
    """
    if features.dim() != 2 or len(features) < 2 or not bool(torch.isfinite(features).all()):
        raise BadInput(f"features of shape {tuple(features.shape)} cannot be whitened; expected (n, d), n of at least 2, finite numbers")
    mean = features.mean(0)
    x = features - mean
    wide = x.shape[1] > x.shape[0]
    values, vectors = torch.linalg.eigh(_products(x if wide else x.T))
    kept = (values > least * values[-1]).nonzero().flatten().flip(0)[:dimensions]  # eigh sorts upwards
    if len(kept) == 0 or not float(values[-1]) > 0:
        raise BadInput("the features of all rows are equal: there is nothing to tell them apart by")
    root = values[kept].sqrt()
    components = _times(x.T, vectors[:, kept]) / root if wide else vectors[:, kept]
    return Whitening(mean.double(), components * (math.sqrt(len(x) - 1) / root))


def _products(x: Tensor, chunk: int = 4096) -> Tensor:
    """x x^T in float64, of x (n, long)."""
    total = torch.zeros(len(x), len(x), dtype=torch.float64)
    for part in x.split(chunk, dim=1):
        total += part.double() @ part.double().T
    return total


def _times(long: Tensor, other: Tensor, chunk: int = 4096) -> Tensor:
    """The product in float64, some rows at a time."""
    return torch.cat([part.double() @ other for part in long.split(chunk)])
