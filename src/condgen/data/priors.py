"""Condition priors: where a model's conditions come from when it draws without being asked for anything.

- `empirical`: rows of the data, all conditions of a row together, as they occur.
- `uniform`: evenly over all that is valid, each condition by itself.
- `KDE`: a Gaussian Parzen window over rows of real-valued conditions; new rows, never exactly those of the data.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor

from condgen.conditions import Schema, Values
from condgen.errors import BadInput

BANDWIDTHS = tuple(float(s) for s in np.geomspace(0.01, 2, 61))
"""Tried by cross-validation, relative to the standard deviation of the rows (each 9 % above the last)."""
COARSE = 5
"""Every so many-th is tried first, then those around the best: the log-likelihood has one peak in the bandwidth."""
CHUNK_NUMBERS = 1 << 22
"""Distances held at once: 32 MB."""
FOLD_ROWS = 200


def empirical(values: Values, n: int, generator: Generator | None = None) -> Values:
    """n rows of `values`, drawn with replacement; the conditions of a row stay together."""
    if not values:
        return {}
    rows = torch.randint(len(next(iter(values.values()))), (n,), generator=generator)
    return {name: v[rows] for name, v in values.items()}


def uniform(schema: Schema, n: int, generator: Generator | None = None) -> Values:
    """n values of each condition, drawn evenly and independently from all that are valid."""
    return {name: condition.uniform(n, generator) for name, condition in schema.items()}


class KDE:
    """A Gaussian Parzen window: pick a row evenly, add N(0, bandwidth^2 I).

    Gauthier, "Conditional generative adversarial nets for convolutional face generation", 2014, section 3.1, draws the conditions
    of generated faces so. The bandwidth is chosen by held-out log-likelihood.

    Args:
        values: float rows (n, d); or one row a sample of several real-valued conditions, joined in the order of their names.
        bandwidth: the standard deviation; None chooses it from `candidates`.
        held_out: rows (m, d) that choose it; None uses `folds`-fold cross-validation of the rows themselves.
        candidates: bandwidths to choose from; by default `BANDWIDTHS` times the root mean variance of the rows.
        folds: of the cross-validation.

    Raises:
        BadInput: for values that are not real numbers, such as labels or text.
    """

    def __init__(
        self,
        values: Tensor | Values,
        bandwidth: float | None = None,
        held_out: Tensor | Values | None = None,
        candidates: Sequence[float] | None = None,
        folds: int = 5,
    ):
        self.parts = {k: tuple(v.shape[1:]) for k, v in sorted(values.items())} if isinstance(values, dict) else None
        self.rows = _joined(values)
        if len(self.rows) < 2:
            raise BadInput(f"a Parzen window needs at least 2 rows, got {len(self.rows)}")
        if bandwidth is None:
            tests = [(self.rows, _joined(held_out))] if held_out is not None else _folds(self.rows, folds)
            bandwidth = _best(tests, candidates or [s * _scale(self.rows) for s in BANDWIDTHS])
        self.bandwidth = float(bandwidth)

    def sample(self, n: int, generator: Generator | None = None) -> Tensor | Values:
        """n new rows, float32, in the form that was given: (n, d), or one tensor for each condition."""
        rows = self.rows[torch.randint(len(self.rows), (n,), generator=generator)]
        noise = torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
        drawn = (rows + self.bandwidth * noise).float()
        return drawn if self.parts is None else _split(drawn, self.parts)

    def log_prob(self, v: Tensor | Values) -> Tensor:
        """log p(v) in nats, float64 (m,)."""
        points = _joined(v).split(max(1, CHUNK_NUMBERS // len(self.rows)))
        return torch.cat([_log_density(_squared(self.rows, part), self.rows.shape[1], self.bandwidth) for part in points])


def _joined(values: Tensor | Values) -> Tensor:
    """float64 (n, d)."""
    parts = [values] if isinstance(values, Tensor) else [values[k] for k in sorted(values)]
    if not parts or not all(p.is_floating_point() for p in parts):
        raise BadInput("a Parzen window is over real-valued conditions (Attributes, Vector, Box, ...), not labels or text")
    return torch.cat([p.reshape(len(p), -1).double() for p in parts], 1)


def _split(joined: Tensor, parts: dict[str, tuple[int, ...]]) -> Values:
    pieces = joined.split([math.prod(shape) for shape in parts.values()], 1)
    return {name: piece.reshape(-1, *shape) for (name, shape), piece in zip(parts.items(), pieces, strict=True)}


def _squared(rows: Tensor, v: Tensor) -> Tensor:
    """Squared distances (m, n) of v to all rows."""
    return ((v**2).sum(1, keepdim=True) - 2 * v @ rows.T + (rows**2).sum(1)).clamp_(min=0)


def _log_density(squared: Tensor, d: int, bandwidth: float) -> Tensor:
    """log 1/n sum_i N(v; row i, bandwidth^2 I) from squared distances (m, n)."""
    normaliser = math.log(squared.shape[1]) + d * (math.log(bandwidth) + 0.5 * math.log(2 * math.pi))
    return torch.logsumexp(squared / (-2 * bandwidth**2), 1) - normaliser


def _folds(rows: Tensor, folds: int) -> list[tuple[Tensor, Tensor]]:
    """(kept, held out) for each fold, of a fixed permutation; of what is held out, at most `FOLD_ROWS`."""
    order = torch.randperm(len(rows), generator=Generator().manual_seed(0))
    parts = order.tensor_split(min(folds, len(rows)))
    return [(rows[torch.cat([p for p in parts if p is not part])], rows[part[:FOLD_ROWS]]) for part in parts]


def _scale(rows: Tensor) -> float:
    return max(float(rows.var(0).mean().sqrt()), 1e-6)


def _best(tests: Sequence[tuple[Tensor, Tensor]], candidates: Sequence[float]) -> float:
    """The bandwidth of the largest log-likelihood of what was held out."""
    coarse = list(range(0, len(candidates), COARSE))
    peak = coarse[int(_totals(tests, [candidates[i] for i in coarse]).argmax())]
    near = list(candidates[max(0, peak - COARSE + 1) : peak + COARSE])
    return float(near[int(_totals(tests, near).argmax())])


def _totals(tests: Sequence[tuple[Tensor, Tensor]], candidates: Sequence[float]) -> np.ndarray:
    totals = np.zeros(len(candidates))
    for kept, held_out in tests:
        for part in held_out.split(max(1, CHUNK_NUMBERS // len(kept))):
            squared = _squared(kept, part)
            totals += [float(_log_density(squared, kept.shape[1], s).sum()) for s in candidates]
    return totals
