"""Does a sample show as much of something as was asked? For conditions that are numbers, where `consistency` is for labels.

Pearson's correlation, over samples, of the value asked for and the value that the judge reads from the sample: of each attribute
of an `Attributes`, and of a `Vector` along its first principal axes in the training data (a single entry of such a vector
need not mean anything). What the judge itself cannot read off real pictures is left out: it would say nothing of the model.

Conditions are whole rows of the data, where numbers go together. So a model that obeys one of them may score on its neighbours:
`attribute_effect` moves one alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from condgen.conditions import Attributes, Condition, Values, Vector
from condgen.errors import BadInput
from condgen.evaluation.measuring import Family, Measured, Measuring, some_rows

MOST = 2000
"""Samples that the judge reads."""
AXES = 3
"""Principal axes of a vector."""
READ = 0.3
"""Correlation on real test rows from which the judge is taken to read an attribute."""


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """The correlation of each column of x (n, k) with that of y (n, k): float64 (k,). Rows with a NaN in a column do not count there.

    NaN where x has no variance in a column, or fewer than two rows; 0 where y alone has none, because it then tells nothing of x.
    """
    if x.shape != y.shape or x.dim() != 2:
        raise BadInput(f"columns of shape {tuple(x.shape)} and {tuple(y.shape)}: expected two of (n, k)")
    known = ~(x.isnan() | y.isnan())
    x, y = (_spread(v.double(), known) for v in (x, y))
    sxx, syy = x.square().sum(0), y.square().sum(0)
    found = torch.where(syy > 0, (x * y).sum(0) / (sxx * syy).sqrt(), 0.0)
    return torch.where(sxx > 0, found.clamp(-1, 1), torch.nan)


def _spread(x: Tensor, known: Tensor) -> Tensor:
    """Columns minus their means, in units of their largest deviation; 0 where not known, and where all are equal but for rounding."""
    filled = torch.where(known, x, 0.0)
    centred = torch.where(known, x - filled.sum(0) / known.sum(0).clamp(min=1), 0.0)
    widest, largest = centred.abs().amax(0), filled.abs().amax(0)
    return torch.where(widest > 1e-6 * largest, centred / widest, 0.0)


class Axes(NamedTuple):
    """Where a vector's training values lie: their mean (d,), and their first principal axes (d, k)."""

    mean: Tensor
    directions: Tensor


def principal_axes(values: Tensor, k: int = AXES) -> Axes:
    """Of rows (n, d); fewer than k where there are fewer dimensions. Scale does not matter: a correlation is blind to it."""
    x = values.double()
    mean = x.mean(0)
    _, vectors = torch.linalg.eigh((x - mean).T @ (x - mean))
    return Axes(mean, vectors.flip(1)[:, :k])


# --- the metric -----------------------------------------------------------------------------------------------------------


class Columns(NamedTuple):
    """What can be correlated: names, and values asked for (n, k) of samples and of real rows, beside those that the judge reads."""

    names: list[str]
    asked: Tensor
    seen: Tensor
    real: Tensor
    real_seen: Tensor


def condition_correlation(m: Measuring) -> Family:
    """The mean over all that the judge reads, and each by its name: an attribute's, or `look.1` for the first axis of `look`."""
    columns, n = _columns(m), min(m.n, MOST)
    ceiling = pearson(columns.real, columns.real_seen)
    value = pearson(columns.asked, columns.seen)
    order = torch.randperm(n, generator=Generator().manual_seed(m.seed))
    control = pearson(columns.asked[order], columns.seen)
    constant = value.isnan() | ceiling.isnan()
    read = ~constant & (ceiling >= READ)
    if not bool(read.any()):
        raise BadInput(f"the judge reads none of {', '.join(columns.names[:12])} off real pictures: nothing can be correlated")
    about = f"condition_correlation|{m.judge.id}|n={n}/{len(columns.real)}|f64|v1|conditions as in the test rows"
    # What was read concerns the mean alone: a part is comparable whatever else a model's conditions hold.
    chosen = f"|read {int(read.sum())} of {len(read)}, from {READ} on real rows"
    chosen += f"|constant: {', '.join(columns.names[k] for k in constant.nonzero().flatten().tolist())}" if bool(constant.any()) else ""
    ends = "|ceiling=test rows|control=conditions shuffled"
    three = (value, ceiling, control)
    found = {"condition_correlation": Measured.of((float(v[read].mean()) for v in three), n, about + chosen + ends)}
    for k in read.nonzero().flatten().tolist():
        found[f"condition_correlation/{columns.names[k]}"] = Measured.of((float(v[k]) for v in three), n, about + ends)
    return found


def _columns(m: Measuring) -> Columns:
    few, rows = m.natural[: min(m.n, MOST)], some_rows(len(m.test), MOST)
    real = m.test.batch(rows)
    names: list[str] = []
    parts = []
    for name, condition in m.model.schema.items():
        if isinstance(condition, Attributes | Vector):
            names += [f"{name}.{k}" if k in names else k for k in _plain_names(name, condition)]
            parts.append(_of_condition(m, name, few, real.x, real.c))
    return Columns(names, *(torch.cat(part, 1) for part in zip(*parts, strict=True)))


def _plain_names(name: str, condition: Condition) -> Sequence[str]:
    if isinstance(condition, Attributes):
        return condition.names
    return [f"{name}.{i + 1}" for i in range(min(AXES, *condition.shape))]


def _of_condition(m: Measuring, name: str, x: Tensor, real: Tensor, c: Values) -> tuple[Tensor, ...]:
    """Asked and seen of the samples, then of real rows; a vector's along its axes."""
    four = (m.naturally[name][: len(x)], m.judge.predict(x, name), c[name], m.judge.predict(real, name))
    if isinstance(m.model.schema[name], Attributes):
        return four
    axes = principal_axes(m.train.values()[name])
    return tuple((v.double() - axes.mean) @ axes.directions for v in four)
