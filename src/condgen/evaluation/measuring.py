"""One evaluation at work: the samples, the real data and the judge that the metrics share, each made when first asked for."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor

from condgen.card import values_of
from condgen.conditions import Condition, Label, Schema, Values
from condgen.data import Batch, Dataset, load
from condgen.data.splits import parse_split
from condgen.errors import BadInput
from condgen.evaluation.consistency import Consistency, consistency
from condgen.evaluation.diversity import one_group
from condgen.evaluation.judge import Judge, judge_for
from condgen.evaluation.neighbours import Neighbours, neighbours, squared_radii
from condgen.model import Model, Run

K = 5
"""Neighbours of precision, recall, density and coverage."""
SAMPLES = (1000, 10000)
"""Fewest and most samples by default; between them, as many as there are test rows."""
VALID = 2000
"""Validation rows, of the training data's last sixth, that choose the width of a Parzen window."""
KEPT = 20000
"""Training pictures that are held at once, at most."""
OUTCOMES = ("s.e.=", "sigma=", "clamped=", "worst is ", "ceiling=", "control=")
"""Fields of a provenance that begin so tell what was found, or concern the ceiling or the control alone: two values whose
provenances differ in nothing else were measured alike. Whatever depends on the *model* must begin with one of these."""
MORE_TEST = "add samples, or say in the data which are 'test'"


@dataclass(frozen=True)
class Measured:
    """A metric's value with what stands beside it; `ceiling` is None where real data cannot take the samples' place."""

    value: float
    ceiling: float | None
    control: float | None
    n: int
    provenance: str
    standard_error: float | None = None

    @classmethod
    def of(cls, three: Iterable[float], n: int, provenance: str) -> "Measured":
        """Of value, ceiling and control, in this order."""
        value, ceiling, control = three
        return cls(value, ceiling, control, n, provenance)

    def to_json(self, reported: Any = None) -> dict[str, Any]:
        error = f"|s.e.={self.standard_error:.3g}" if self.standard_error is not None else ""
        reported = list(reported) if isinstance(reported, tuple) else reported
        three = {"value": self.value, "reported": reported, "ceiling": self.ceiling, "control": self.control}
        return {**three, "n": self.n, "provenance": self.provenance + error}


Family = dict[str, Measured]
"""A metric with parts, `ms_ssim` and `ms_ssim/7`: the whole comes first, under the metric's own name."""


class Measuring:
    """What `METRICS` measure from. Arguments as in `protocols.evaluate`.

    The training split is taken whole, whatever slice the run trained on: all runs on a set share one judge.

    What is said class by class (consistency, diversity, the Parzen window) is measured on `balanced` samples, distances of whole
    distributions on the `natural` ones, whose classes are as frequent as in the test rows: one draw has both. What a model may know
    by heart is looked for among the `recalled` ones, under conditions that it was trained with.
    """

    def __init__(self, model: Model, run: Run, n: int | None = None, seed: int = 0, train: Any = None, test: Any = None):
        _require_whole_variety(model)

        def split(name: str) -> Dataset:
            return load(run.data, split=name, size=run.size, skip_bad=run.skip_bad)

        self.model, self.seed = model, seed
        self._other = split if train is None and test is None else None
        self.kept: dict[tuple[str, Any], Any] = {}  # what several metrics share, by what it is and of which model
        self.train = model.reads(train if train is not None else split(parse_split(run.split)[0]))
        self.test = model.reads(test if test is not None else _test_of(run.data, split))
        if tuple(self.test.shape) != tuple(model.shape):
            raise BadInput(f"the model draws samples of shape {tuple(model.shape)}, the data are {tuple(self.test.shape)}")
        if other := [_difference(name, c, self.test.schema) for name, c in model.schema.items() if self.test.schema.get(name) != c]:
            raise BadInput(f"the model's conditions and the data's differ: {'; '.join(other)}")
        if len(self.test) < 2:
            raise BadInput(f"the test split of {run.data} has {len(self.test)} row; measuring needs at least 2: {MORE_TEST}")
        self.n = self._round(n) if n is not None else self._round(min(len(self.train), max(SAMPLES[0], min(SAMPLES[1], len(self.test)))))

    # --- conditions ---

    @staticmethod
    def labels_of(schema: Schema) -> list[str]:
        return [name for name, c in schema.items() if isinstance(c, Label)]

    @cached_property
    def label(self) -> str:
        """The first label that the model reads, "" if none."""
        return next(iter(self.labels_of(self.model.schema)), "")

    @property
    def classes(self) -> int:
        condition = self.model.schema.get(self.label)
        return len(condition.names) if isinstance(condition, Label) else 1

    def name_of(self, k: int) -> str:
        condition = self.model.schema[self.label]
        return condition.names[k] if isinstance(condition, Label) else str(k)

    def _round(self, n: int) -> int:
        """Down to a multiple of the classes, at least two of each."""
        if n < 2:
            raise BadInput(f"cannot measure on {n} samples; ask for at least 2")
        return max(n - n % self.classes, 2 * self.classes)

    @cached_property
    def asked(self) -> Values:
        """Conditions of all samples: n of test rows, then more of the classes that are rare there, from test rows of that class."""
        values = self.test.values()
        rows = _in_turn(torch.arange(len(self.test)), self.n)
        if not self.label:
            return {name: values[name][rows] for name in self.model.schema}
        k = values[self.label][rows]
        short = (self.n // self.classes - k.bincount(minlength=self.classes)).clamp(min=0)
        rare = torch.arange(self.classes).repeat_interleave(short)
        k, rows = torch.cat([k, rare]), torch.cat([rows, _rows_of_class(values[self.label], rare)])
        return {name: k if name == self.label else values[name][rows] for name in self.model.schema}

    @property
    def naturally(self) -> Values:
        """Conditions of the `natural` samples."""
        return {name: v[: self.n] for name, v in self.asked.items()}

    @cached_property
    def evenly(self) -> Tensor:
        """Which of all samples are the `balanced` ones: n, the first n / classes of each class."""
        if not self.label:
            return torch.arange(self.n)
        k = self.asked[self.label]
        return torch.cat([(k == value).nonzero().flatten()[: self.n // self.classes] for value in range(self.classes)])

    @property
    def groups_asked(self) -> Tensor:
        """Of the `balanced` samples: the class, or 0 where there is none."""
        return self.asked[self.label][self.evenly] if self.label else one_group(self.evenly)

    # --- samples ---

    @cached_property
    def samples(self) -> Tensor:
        """All of the model's, (at least n, *shape) on the CPU. Raises BadInput where one is not finite."""
        return _finite(self.drawn(self.model, self.asked))

    @property
    def natural(self) -> Tensor:
        return self.samples[: self.n]

    @property
    def balanced(self) -> Tensor:
        return self.samples[self.evenly]

    @cached_property
    def recalled(self) -> Tensor:
        """n samples under conditions as in training: of training rows, with `near` of the model where it has one (Gauthier's window p_y).

        Under other conditions a model that learnt pairs by heart would not show it. Without conditions these are the `natural` samples.
        """
        if not self.model.schema:
            return self.natural
        order = torch.randperm(len(self.train), generator=Generator().manual_seed(self.seed))
        rows, values = order[torch.arange(self.n) % len(order)], self.train.values()
        c = {name: values[name][rows].to(self.model.device) for name in self.model.schema}
        return _finite(self.drawn(self.model, self._near(c)))

    @torch.no_grad()
    def _near(self, c: Values) -> Values:
        near = getattr(self.model, "near", None)
        if near is None:
            return c
        self.model.noise.seed(self.seed + 1)  # the latents are drawn by `seed`: they would be the numbers of the window's noise again
        return near(c)

    @property
    def under(self) -> str:
        """The field of a provenance that says under which conditions the `recalled` samples were drawn; "" without conditions."""
        if not self.model.schema:
            return ""
        return "|conditions=window around training rows" if hasattr(self.model, "near") else "|conditions=training rows"

    @cached_property
    def untrained(self) -> Model:
        """The same model with fresh weights: the control of most metrics."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return type(self.model)(shape=self.model.shape, schema=self.model.schema, **self.model.options).to(self.model.device).eval()

    def drawn(self, model: Any, c: Values) -> Tensor:
        """Samples under conditions (n, ...), on the CPU: the same latents for the same n, whatever the conditions are."""
        n = len(next(iter(c.values()))) if c else self.n
        return model.sample(c, n=n, seed=self.seed).detach().float().cpu()

    def one_each(self, groups: Tensor) -> Tensor:
        """The first real picture of each group, repeated, (n, *shape)."""
        own = self.groups(self.real.c, self.real.x)
        first = {int(k): int((own == k).nonzero()[0]) for k in own.unique()}
        return self.real.x[torch.tensor([first.get(int(k), 0) for k in groups])]

    def groups(self, c: Values, x: Tensor) -> Tensor:
        return c[self.label] if self.label else one_group(x)

    # --- real data ---

    @cached_property
    def real(self) -> Batch:
        """Test rows, at most SAMPLES[1]."""
        return self.test.batch(some_rows(len(self.test), SAMPLES[1]))

    @property
    def real_conditions(self) -> Values:
        return {name: self.real.c[name] for name in self.model.schema}

    @cached_property
    def stand_in(self) -> Batch:
        """Real training rows in the place of the `natural` samples: as many, each of the class that was asked for."""
        if not self.label:
            return self.train.batch(some_rows(len(self.train), self.n))
        return self.train.batch(_rows_of_class(self.train.values()[self.label], self.naturally[self.label]))

    def parzen_parts(self) -> tuple[Tensor, Tensor]:
        """Pictures in the `balanced` samples' place, and validation pictures: the first five and the last sixth of the training data."""
        cut = len(self.train) * 5 // 6
        valid = cut + some_rows(len(self.train) - cut, VALID)
        rows = _rows_of_class(self.train.values()[self.label][:cut], self.groups_asked) if self.label else some_rows(cut, self.n)
        return self.train.batch(rows).x, self.train.batch(valid).x

    @cached_property
    def validation(self) -> Dataset | None:
        """The data's validation split; None where they have none, or where it had to serve as the test split."""
        try:
            found = self._other("validation") if self._other else None
        except BadInput:
            return None
        return None if found is None or found.fingerprint == self.test.fingerprint else found

    def width_parts(self) -> tuple[Tensor, Tensor, str]:
        """Validation pictures, the training pictures that are none of them, and in words where the former come from."""
        if self.validation is not None:
            rows = some_rows(len(self.validation), VALID)
            return self.validation.batch(rows).x, self.train.batch(some_rows(len(self.train), KEPT)).x, f"valid={len(rows)}"
        cut = len(self.train) * 5 // 6
        valid = cut + some_rows(len(self.train) - cut, VALID)
        return self.train.batch(valid).x, self.train.batch(some_rows(cut, KEPT)).x, f"valid={len(valid)} of the train tail"

    @staticmethod
    def unit(x: Tensor) -> Tensor:
        """[-1, 1] to rows in [0, 1]."""
        return ((x + 1) / 2).flatten(1)

    # --- the judge ---

    @cached_property
    def judge(self) -> Judge:
        return judge_for(self.train, self.test)

    @property
    def judge_accuracy(self) -> float:
        return self.judge.accuracy[self.label]

    @cached_property
    def three_consistencies(self) -> list[Consistency]:
        """Of `balanced` samples with what was asked, of real data with their labels, and of the samples with labels shuffled."""
        seen, real = self.judge.predict(self.balanced, self.label), self.judge.predict(self.real.x, self.label)
        asked = self.groups_asked
        order = torch.randperm(self.n, generator=Generator().manual_seed(self.seed))
        return [consistency(seen, asked), consistency(real, self.real.c[self.label]), consistency(seen, asked[order])]

    @cached_property
    def three_neighbours(self) -> list[Neighbours]:
        radius = squared_radii(self.real_features, K)
        return [neighbours(self.real_features, f, K, real_radius=radius) for f in self.three_features]

    @cached_property
    def real_features(self) -> Tensor:
        return self.judge.features(self.real.x)

    @cached_property
    def three_features(self) -> list[Tensor]:
        """Of the `natural` samples, of real ones in their place, and of an untrained model's."""
        return [self.judge.features(x) for x in (self.natural, self.stand_in.x, self.drawn(self.untrained, self.naturally))]

    def on_judge(self, name: str, against: Tensor | None = None) -> str:
        """The head of a provenance: metric, features, numbers, precision, version."""
        features = "coordinates" if len(self.model.shape) == 1 and against is not None else self.judge.id
        beside = f"/{len(against)}" if against is not None else ""
        return f"{name}|{features}|n={self.n}{beside}|f64|v1"


def _finite(x: Tensor) -> Tensor:
    if not bool(torch.isfinite(x).all()):
        raise BadInput("the model draws values that are not finite numbers; train it again, or choose an earlier checkpoint")
    return x


def some_rows(n: int, most: int) -> Tensor:
    """Rows of n, at most `most`, drawn evenly, the same each time. Every so many-th would not do: MNIST has a period."""
    return torch.arange(n) if n <= most else torch.randperm(n, generator=Generator().manual_seed(0))[:most].sort().values


def _in_turn(rows: Tensor, n: int) -> Tensor:
    """n of these rows, each as often as any other, in a random order that is always the same."""
    order = rows[torch.randperm(len(rows), generator=Generator().manual_seed(0))]
    return order[torch.arange(n) % len(order)]


def _rows_of_class(labels: Tensor, k: Tensor) -> Tensor:
    """A row of class k for each, in turn; of any class where there is none."""
    rows = _in_turn(torch.arange(len(labels)), len(k))
    for value in k.unique():
        own, at = (labels == value).nonzero().flatten(), (k == value).nonzero().flatten()
        if len(own):
            rows[at] = _in_turn(own, len(at))
    return rows


# --- refusals -------------------------------------------------------------------------------------------------------------


def _require_whole_variety(model: Model) -> None:
    """Truncation trades variety for quality, and its control, an untrained model, would not share it."""
    psi = getattr(model, "psi", 1.0)
    if psi != 1.0:
        raise BadInput(f"the model's psi is {psi!r}; metrics are taken at 1, without truncation: set model.psi = 1.0")


def _test_of(data: str, split: Callable[[str], Dataset]) -> Dataset:
    """The test split of data whose training split could be opened."""
    try:
        return split("test")
    except BadInput as error:
        raise BadInput(f"{data} has no test split, so there is nothing to measure against: {MORE_TEST}") from error


def _difference(name: str, ours: Condition, schema: Schema) -> str:
    """In words: what the model knows of a condition, and what the data have of it."""
    theirs = schema.get(name)
    if theirs is None:
        return f"the model reads {name!r}, the data have {', '.join(schema) or 'no conditions'}"
    if not (isinstance(ours, Label) and isinstance(theirs, Label)):
        mine, other = (f"{type(c).__name__}, {values_of(c)}" for c in (ours, theirs))
        return f"{name!r} is {mine} to the model and {other} in the data"
    mine, other = (_beside(a.names, b.names) for a, b in ((ours, theirs), (theirs, ours)))
    return f"of {name!r} the model knows {mine}, the data have {other}"


def _beside(names: Sequence[str], others: Sequence[str]) -> str:
    """How many labels, and those that the others lack; or all in their order."""
    own = [name for name in names if name not in others]
    if not own:
        return f"{len(names)} labels" + (f" in the order {_few(names)}" if len(names) == len(others) else "")
    return f"{len(names)} labels with {_few(own)}"


def _few(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")
