"""What a model's latents know of attributes that it was not told: the metric `attribute_auc`.

For each attribute a vector by mean difference from encodings of training rows, and the area under the ROC curve of its products with
encodings of test rows (White 2016, arXiv 1609.04468: AtDot). It is the conditions of the *data* that are read, whether or not the
model reads them. An attribute is taken to be there in the upper half of its range; of a label, each class is told from all others.

Beside each value stand the judge's own reading of the same pictures (the ceiling: what may be seen in them at all) and a random
direction, its sign chosen on the training rows as the vector's is (the control: a wide direction reads something of everything). In the
provenance stands what the mean difference of raw *pixels* reaches: an encoder that cannot beat it has made nothing easier to read.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from condgen.conditions import Attributes, Label, Schema, Values
from condgen.data.store import Batch
from condgen.editing.attributes import AttributeVector, Roc, atdot, cuts_of, mean_difference, roc, vector_of
from condgen.editing.space import Space
from condgen.errors import BadInput
from condgen.evaluation.judge import Judge
from condgen.evaluation.measuring import SAMPLES, Family, Measured, Measuring, some_rows
from condgen.model import Model

FITTED = 4000
"""Training rows, at most, that the vectors are made of."""
FEWEST = 20
"""Rows with an attribute, and without it, that a split must have for it to be measured."""
DIRECTIONS = 20
"""Random directions that the control is the mean of."""
VECTORS = "mean difference, upper half of the range, classes against all others"


class Flag(NamedTuple):
    """A yes or no that the data hold: the condition, its column or its class, and which rows are known and have it, bool (n,)."""

    condition: str
    k: int
    known: Tensor
    has: Tensor

    def enough(self) -> bool:
        """Whether `FEWEST` rows have it and as many lack it."""
        return min(int((self.known & self.has).sum()), int((self.known & ~self.has).sum())) >= FEWEST


class Reading(NamedTuple):
    """One attribute as the latents tell it.

    Args:
        vector: from training rows, with the threshold that reads those best.
        flag: of the test rows.
        scores: float64, of the test rows that are known.
        roc: of the scores.
        control: area of random directions.
        pixels: area of the same made of pixels.
    """

    vector: AttributeVector
    flag: Flag
    scores: Tensor
    roc: Roc
    control: float
    pixels: float

    @property
    def has(self) -> Tensor:
        """Of the known test rows."""
        return self.flag.has[self.flag.known]

    @property
    def accuracy(self) -> float:
        """Share of the test rows on the right side of the threshold."""
        return float(((self.scores > self.vector.threshold) == self.has).double().mean())


class Readings(NamedTuple):
    """By name; the test rows; and the names of what too few rows have or lack."""

    found: dict[str, Reading]
    test: Batch
    left_out: list[str]


def attribute_auc(m: Measuring) -> Family:
    """The mean over all attributes and classes of the data, and each by its name."""
    found, test, left_out = readings_of(m.model, m.train, m.test)
    ceilings = judged(m.judge, test.x, {name: r.flag for name, r in found.items()})
    n, k = len(test.x), len(found)
    about = f"attribute_auc|{m.judge.id}|{VECTORS}|n={min(FITTED, len(m.train))} train, {n} test|f64|v1"
    worst = min(found, key=lambda name: found[name].roc.auc)
    rare = f"|worst is {worst!r}, left out {len(left_out)} of {k + len(left_out)} that fewer than {FEWEST} rows have or lack"
    three = [sum(some) / k for some in zip(*((r.roc.auc, ceilings[name], r.control) for name, r in found.items()), strict=True)]
    family = {"attribute_auc": Measured.of(three, n, about + rare + _ends(sum(r.pixels for r in found.values()) / k))}
    for name, r in found.items():
        ends = about + _ends(r.pixels)
        family[f"attribute_auc/{name}"] = Measured(r.roc.auc, ceilings[name], r.control, len(r.scores), ends, r.roc.standard_error)
    return family


def _ends(pixels: float) -> str:
    random = f"a random direction, its sign by the training rows, mean of {DIRECTIONS}"
    return f"|ceiling=the judge on the same rows|control={random}; the mean difference of pixels reaches {pixels:.4f}"


def readings_of(model: Model, train: Any, test: Any) -> Readings:
    """Each attribute and class of the data, read from encodings under the rows' own conditions.

    Args:
        model: that encodes.
        train, test: data sets of the same schema.

    Raises:
        BadInput: for a model without an encoder, data without attributes and labels, or with all of them too rare.
    """
    space, ours, theirs = Space(model), _some(train, FITTED), _some(test, SAMPLES[1])
    flags = {
        name: (a, b) for (name, a), b in zip(flags_in(train.schema, ours.c).items(), flags_in(test.schema, theirs.c).values(), strict=True)
    }
    kept = {name: pair for name, pair in flags.items() if all(flag.enough() for flag in pair)}
    if not kept:
        rare = f"fewer than {FEWEST} rows have or lack each of {', '.join(list(flags)[:12])}"
        raise BadInput(f"no attribute can be read: {rare if flags else 'the data have no attributes and no label, such as named columns'}")
    z, z_test = space.encode(ours.x, ours.c), space.encode(theirs.x, theirs.c)
    pixels = _pixel_scores(ours.x, theirs.x, [a for a, _ in kept.values()])
    wild, wild_test = (part.flatten(1).double() @ _directions(z[0].numel()) for part in (z, z_test))
    found = {}
    for (name, (flag, held_out)), seen in zip(kept.items(), pixels.T, strict=True):
        control = _control(wild, wild_test, flag, held_out)
        found[name] = _reading(name, z, z_test, flag, held_out, control, roc(seen[held_out.known], held_out.has[held_out.known]).auc)
    return Readings(found, theirs, [name for name in flags if name not in kept])


def _reading(name: str, z: Tensor, z_test: Tensor, flag: Flag, held_out: Flag, control: float, pixels: float) -> Reading:
    known, has = z[flag.known], flag.has[flag.known]
    vector = vector_of(name, mean_difference(known, has), known, has, "mean")
    scores = atdot(z_test[held_out.known], vector)
    return Reading(vector, held_out, scores, roc(scores, held_out.has[held_out.known]), control, pixels)


def _some(data: Any, most: int) -> Batch:
    return data.batch(some_rows(len(data), most))


def flags_in(schema: Schema, values: Values) -> dict[str, Flag]:
    """By name, every attribute and every class of every label; a name that occurs twice, the second time behind its condition's."""
    found: dict[str, Flag] = {}
    for condition, kind in schema.items():
        if isinstance(kind, Attributes | Label):
            known, has = _known_and_has(kind, values[condition])
            for k, name in enumerate(kind.names):
                found[f"{condition}.{name}" if name in found else name] = Flag(condition, k, known[:, k], has[:, k])
    return found


def _known_and_has(kind: Attributes | Label, values: Tensor) -> tuple[Tensor, Tensor]:
    """bool (n, k) each."""
    if isinstance(kind, Label):
        has = values[:, None] == torch.arange(len(kind.names))
        return torch.ones_like(has), has
    return ~values.isnan(), values > cuts_of(values, kind)


# --- what stands beside it ------------------------------------------------------------------------------------------------


def _directions(d: int) -> Tensor:
    return torch.randn(d, DIRECTIONS, generator=Generator().manual_seed(0), dtype=torch.float64)


def _control(wild: Tensor, wild_test: Tensor, flag: Flag, held_out: Flag) -> float:
    """Mean area of scores along random directions, (n, DIRECTIONS) of training and of test rows."""
    gap = mean_difference(wild[flag.known], flag.has[flag.known])
    has = held_out.has[held_out.known]
    areas = [roc(scores, has).auc for scores in (wild_test[held_out.known] * gap.sign()).T]
    return sum(areas) / len(areas)


def _pixel_scores(x: Tensor, x_test: Tensor, flags: Sequence[Flag]) -> Tensor:
    """float32 (n_test, k): test samples times the mean difference of training samples, all attributes at once."""
    weights = torch.stack([_signed(flag.known & flag.has) - _signed(flag.known & ~flag.has) for flag in flags])
    return x_test.flatten(1) @ (weights @ x.flatten(1)).T


def _signed(some: Tensor) -> Tensor:
    return some.float() / some.sum()


def judged(judge: Judge, x: Tensor, flags: dict[str, Flag]) -> dict[str, float]:
    """By name, the area of the judge's own readings of samples x (n, *shape), whose flags these are."""
    seen = {condition: _judge_scores(judge, x, condition) for condition in {flag.condition for flag in flags.values()}}
    return {name: roc(seen[f.condition][f.known, f.k], f.has[f.known]).auc for name, f in flags.items()}


@torch.no_grad()
def _judge_scores(judge: Judge, x: Tensor, condition: str, chunk: int = 1000) -> Tensor:
    """float64 (n, k): how much of each attribute the judge sees, or the logarithm of each class's probability."""
    device = next(judge.net.parameters()).device
    out = torch.cat([judge.net(part.float().to(device))[condition].cpu() for part in x.split(chunk)]).double()
    return out.log_softmax(1) if isinstance(judge.schema[condition], Label) else out
