"""Is the named number itself obeyed, where everything else stays? Each attribute in turn is asked low and high, nothing else moved.

    effect = mean_i [judge(G(z_i, c_i with a = high)) - judge(G(z_i, c_i with a = low))] / (high - low)

c_i are the conditions of test rows, low and high the ends of the attribute in the data. 1: the model does all that is asked by this
number alone; 0: it does not listen to it, however well `condition_correlation` speaks of it, because in whole rows of the data its
neighbours tell the same. Above 1 it exaggerates. A judge that is not sure answers towards the mean, so even a perfect model stays
below 1; how much may be seen from the slope of the judge's readings over the values of real rows, which stands beside the ceiling.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from condgen.conditions import Attributes, Values
from condgen.errors import BadInput
from condgen.evaluation.correlation import MOST, READ, pearson
from condgen.evaluation.measuring import Family, Measured, Measuring, some_rows
from condgen.model import Model

ROWS = 200
"""Test rows whose conditions are asked."""


class Moved(NamedTuple):
    """An attribute: its condition, its column there, and the slope of the judge's readings over its values in real rows."""

    condition: str
    k: int
    slope: float


def attribute_effect(m: Measuring) -> Family:
    """The mean over all attributes that the judge reads, and each by its name."""
    moved = _moved(m)
    value, control = (
        torch.stack([effect_of(m, model, at.condition, at.k) for at in moved.values()], 1) for model in (m.model, m.untrained)
    )
    n, k = value.shape
    total = sum(len(c.names) for c in m.model.schema.values() if isinstance(c, Attributes))
    about = f"attribute_effect|{m.judge.id}|n={n} test rows|f64|v1|low to high of the data|all else as it is|same latents"
    ends, slope = "|control=untrained model", sum(at.slope for at in moved.values()) / k
    chosen = f"|read {k} of {total}, from {READ} on real rows"
    real = f"|ceiling=1 by definition, the judge's slope on real rows {slope:.2f}"
    found = {"attribute_effect": _measured(value.mean(1), control.mean(1), about + chosen + real + ends)}
    for i, name in enumerate(moved):
        found[f"attribute_effect/{name}"] = _measured(value[:, i], control[:, i], f"{about}|ceiling=1 by definition{ends}")
    return found


def _measured(value: Tensor, control: Tensor, about: str) -> Measured:
    return Measured(float(value.mean()), 1.0, float(control.mean()), len(value), about, float(value.std()) / len(value) ** 0.5)


def _moved(m: Measuring) -> dict[str, Moved]:
    """By name, the attributes that the judge reads off real rows and that the data vary."""
    real = m.test.batch(some_rows(len(m.test), MOST))
    found: dict[str, Moved] = {}
    for condition, kind in m.model.schema.items():
        if isinstance(kind, Attributes):
            asked, seen = real.c[condition], m.judge.predict(real.x, condition)
            read = pearson(asked, seen) >= READ  # False for NaN: constant in the rows
            for k in read.nonzero().flatten().tolist():
                name = kind.names[k]
                if kind.high[k] > kind.low[k]:
                    found[f"{condition}.{name}" if name in found else name] = Moved(condition, k, slope_of(asked[:, k], seen[:, k]))
    if not found:
        names = [name for kind in m.model.schema.values() if isinstance(kind, Attributes) for name in kind.names]
        raise BadInput(f"the judge reads none of {', '.join(names[:12])} off real pictures: no effect can be measured")
    return found


def slope_of(x: Tensor, y: Tensor) -> float:
    """Of the line through y (n,) over x (n,), by least squares; NaNs of x left out.

    >>> slope_of(torch.tensor([0.0, 1.0, float("nan"), 2.0]), torch.tensor([1.0, 1.5, 9.0, 2.0]))
    0.5
    """
    known = ~x.isnan()
    x, y = x[known].double() - x[known].double().mean(), y[known].double()
    return float((x * y).sum() / x.square().sum())


def effect_of(m: Measuring, model: Model, condition: str, k: int) -> Tensor:
    """Of one attribute, the k-th of a condition: float64 (rows,), one value a test row."""
    kind = m.model.schema[condition]
    assert isinstance(kind, Attributes)
    rows, values = some_rows(len(m.test), ROWS), m.test.values()
    c = {name: values[name][rows] for name in m.model.schema}
    low, high = (m.judge.predict(m.drawn(model, _with(c, condition, k, to)), condition)[:, k] for to in (kind.low[k], kind.high[k]))
    return (high.double() - low.double()) / (kind.high[k] - kind.low[k])


def _with(c: Values, condition: str, k: int, to: float) -> Values:
    moved = c[condition].clone()
    moved[:, k] = to
    return {**c, condition: moved}
