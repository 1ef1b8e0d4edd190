"""An attribute added or taken away: along a vector made of the run's own training data. Two of them: a sheet that moves each apart.

White 2016, arXiv 1609.04468: seven steps from -1 to 2 times the vector.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from condgen.conditions import Attributes, Label, Values
from condgen.data.store import Dataset
from condgen.editing.attributes import AttributeVector, attribute_vectors, flags_of, shift
from condgen.editing.grids import decoupled
from condgen.editing.synthetic import DISTORTIONS, synthetic_vector
from condgen.edits.sheet import Sheet, rows_by_columns, there_and_back
from condgen.edits.subject import Subject
from condgen.errors import BadInput, require_range, require_whole, unknown

log = logging.getLogger("condgen")
SEARCHED = 200
"""Training samples that a vector is made of where each latent takes a descent."""


def draw(
    subject: Subject,
    names: Sequence[str] = (),
    amount: float | None = None,
    low: float | None = None,
    high: float | None = None,
    steps: int | None = None,
    svm: bool = False,
    balance: Sequence[str] = (),
    rows: int = 4000,
    grid: str | None = None,
    renorm: bool = False,
) -> Sheet:
    """A row for each sample, moved along the attribute.

    Args:
        subject: samples; with two names, one.
        names: one or two: an attribute of the data, LABEL=VALUE, or a distortion ("blur", "motion").
        amount: how much to add, instead of a strip from low to high. 1 is the way from the mean without it to the mean with it.
        low, high: ends of the strip, or of the sheet; by default -1 and 2.
        steps: samples from low to high: by default 7, in a film 48.
        svm: the normal of a support vector machine instead of the mean difference.
        balance: attributes, every combination of which with the first is to count the same.
        rows: training samples that the vector is made of, as many with the attribute as without where there are enough. At most
            `SEARCHED` where each takes a descent, which is said.
        grid: of two names, "ROWSxCOLUMNS": the first to the right, the second downwards; by default 7x7.
        renorm: keep the norm of each latent.

    Raises:
        BadInput: for an unknown name, an attribute that no training sample has, or an empty combination.
    """
    _check_apart(names, {"--amount": amount, "--steps": steps, "--renorm": renorm or None}, {"--low": low, "--high": high})
    low, high = -1.0 if low is None else low, 2.0 if high is None else high
    _check(names, low, high, rows)
    vectors = [vector(subject, name, balance, svm, rows) for name in names]
    if len(vectors) == 2:
        return _apart(subject, vectors, *rows_by_columns(grid or "7x7"), low, high)
    if grid:
        raise BadInput("--grid is for two attributes; give a second --name, or leave it out")
    steps = subject.steps(steps, 7, 48)
    require_whole("--steps", steps, 1, 1000)
    if amount is not None:
        require_range(-100, 100, **{"--amount": amount})
        return _by(subject, vectors[0], amount, steps, renorm)
    return _strip(subject, vectors[0], torch.linspace(low, high, steps).tolist(), renorm)


def _check_apart(names: Sequence[str], of_one: Mapping[str, Any], of_strip: Mapping[str, Any]) -> None:
    """Raises BadInput for an option that the kind of edit would pass over."""
    if len(names) == 2 and (given := [k for k, v in of_one.items() if v is not None]):
        raise BadInput(f"{given[0]} is for one attribute; two --name make a sheet from --low to --high")
    if of_one["--amount"] is not None and (given := [k for k, v in of_strip.items() if v is not None]):
        raise BadInput(f"{given[0]} is for a strip of several amounts; leave it out, or --amount")


def _check(names: Sequence[str], low: float, high: float, rows: int) -> None:
    if len(names) not in (1, 2):
        raise BadInput(f"{len(names)} attributes named; expected --name once, or twice for a sheet of two")
    require_range(-100, 100, **{"--low": low, "--high": high})
    require_whole("--rows", rows, 2)


# --- the vector -----------------------------------------------------------------------------------------------------------


def vector(subject: Subject, name: str, balance: Sequence[str], svm: bool, rows: int) -> AttributeVector:
    """Of the run's training data, by its name."""
    if not subject.encodes and rows > SEARCHED:
        log.info("the vector of %s is made of at most %d training samples, not %d: each takes a descent", name, SEARCHED, rows)
        rows = SEARCHED
    data = subject.data()
    if name in DISTORTIONS and not _columns(data, name):
        if svm or balance:
            raise BadInput(f"{name} is made by spoiling pictures: it has no rows to balance or to separate")
        x, c = _encoded(subject, data, _some(len(data), rows, subject.manner.seed))
        return synthetic_vector(subject.space, x, c, DISTORTIONS[name], name)
    wanted = list(dict.fromkeys([name, *balance]))
    flags, known = torch.stack([flag(data, n) for n in wanted], 1), torch.stack([has_value(data, n) for n in wanted], 1).all(1)
    chosen = even_rows(flags, known, rows, subject.manner.seed)
    x, c = _encoded(subject, data, chosen)
    return attribute_vectors(subject.latents(x, c), flags[chosen], wanted, tuple(balance), "svm" if svm else "mean")[name]


def _encoded(subject: Subject, data: Dataset, rows: Tensor) -> tuple[Tensor, Values]:
    """The samples of these rows, and of their conditions those that the model reads."""
    batch = data.batch(rows)
    return batch.x, {k: batch.c[k] for k in subject.model.schema}


def _some(n: int, most: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:most]


def _columns(data: Dataset, name: str) -> list[tuple[str, int]]:
    """(condition, number) of every attribute of this name, and of every label value written LABEL=VALUE."""
    found = [(k, c.names.index(name)) for k, c in data.schema.items() if isinstance(c, Attributes) and name in c.names]
    for k, c in data.schema.items():
        if isinstance(c, Label) and name.startswith(f"{k}=") and name.removeprefix(f"{k}=") in c.names:
            found.append((k, c.names.index(name.removeprefix(f"{k}="))))
    return found


def _column(data: Dataset, name: str) -> tuple[str, int]:
    found = _columns(data, name)
    if not found:
        labels = [f"{k}={n}" for k, c in data.schema.items() if isinstance(c, Label) for n in c.names]
        attributes = [n for c in data.schema.values() if isinstance(c, Attributes) for n in c.names]
        raise unknown("attribute", name, [*attributes, *labels, *DISTORTIONS])
    return found[0]


def flag(data: Dataset, name: str) -> Tensor:
    """Which rows of the data have it, bool (n,); False where it is not known. Raises BadInput naming the nearest attribute."""
    condition, at = _column(data, name)
    values, kind = _values(data, condition), data.schema[condition]
    return flags_of(values.nan_to_num(-math.inf), kind)[:, at] if isinstance(kind, Attributes) else values == at


def has_value(data: Dataset, name: str) -> Tensor:
    """Of which rows it is known, bool (n,)."""
    condition, at = _column(data, name)
    values = _values(data, condition)
    return ~values[:, at].isnan() if values.is_floating_point() else torch.ones(len(values), dtype=torch.bool)


def _values(data: Dataset, condition: str) -> Tensor:
    return torch.as_tensor(data.content.columns[condition])


def even_rows(flags: Tensor, known: Tensor, most: int, seed: int) -> Tensor:
    """Rows (at most `most`) of which each combination of flags (n, k) has as many, as far as it has so many.

    What is rare is then seen as well as what is common. Within a combination rows are drawn evenly, so that its mean is the data's.
    """
    generator = torch.Generator().manual_seed(seed)
    code = (flags * 2 ** torch.arange(flags.shape[1])).sum(1)
    cells = [((code == k) & known).nonzero()[:, 0] for k in range(2 ** flags.shape[1])]
    shuffled = [cell[torch.randperm(len(cell), generator=generator)] for cell in cells if len(cell)]
    share = level([len(cell) for cell in shuffled], most)
    return torch.cat([cell[:share] for cell in shuffled]).sort().values


def level(counts: Sequence[int], most: int) -> int:
    """How many of each may be taken, so that together they are at most `most`.

    >>> level([10, 100, 100], 90), level([1, 2], 90)
    (40, 2)
    """
    left, todo = most, sorted(counts)
    while todo and todo[0] <= left // len(todo):
        left -= todo.pop(0)
    return left // len(todo) if todo else max(counts)


# --- the pictures ---------------------------------------------------------------------------------------------------------


def _strip(subject: Subject, v: AttributeVector, amounts: Sequence[float], renorm: bool) -> Sheet:
    n, k = len(subject), len(amounts)
    z = torch.stack([shift(subject.z, v, a, renorm) for a in amounts], 1)  # (n, k, ...)
    c = {name: values.repeat_interleave(k, 0) for name, values in subject.c.items()}
    x = subject.decode(z.flatten(0, 1), c)
    shown = x.reshape(n, k, *x.shape[1:])
    return Sheet(
        x=x,
        z=z.flatten(0, 1),
        c=c,
        cells=torch.cat([subject.x[:, None], shown], 1),
        frames=shown.transpose(0, 1),
        title=f"{subject.name}: {v.name}, {v.method}, of {v.n} training samples",
        said=_said(v, amounts),
        rows=subject.names,
        columns=["given", *(_signed(a) for a in amounts)],
        apart_columns=frozenset({1}),
        bare_columns=k,
        told=_told(v) | {"amounts": list(amounts)},
    )


def _by(subject: Subject, v: AttributeVector, amount: float, steps: int, renorm: bool) -> Sheet:
    z = shift(subject.z, v, amount, renorm)
    x, own = subject.decode(z, subject.c), subject.decode(subject.z, subject.c)
    ways = [shift(subject.z, v, a, renorm) for a in torch.linspace(0, amount, steps).tolist()] if subject.manner.film else []
    return Sheet(
        x=x,
        z=z,
        c=subject.c,
        cells=torch.stack([subject.x, own, x], 1),
        frames=torch.stack([subject.decode(way, subject.c) for way in ways]) if ways else x[None],
        title=f"{subject.name}: {v.name}, {v.method}",
        said=_said(v, [amount]),
        rows=subject.names,
        columns=["given", "0", _signed(amount)],
        apart_columns=frozenset({1}),
        told=_told(v) | {"amounts": [amount]},
    )


def _apart(subject: Subject, vectors: Sequence[AttributeVector], rows: int, columns: int, low: float, high: float) -> Sheet:
    if len(subject) != 1:
        raise BadInput(f"a sheet of two attributes is drawn of one picture; {len(subject)} files given")
    v, w = vectors
    z = decoupled(subject.z[0], v.direction, w.direction, rows, columns, low, high)
    c = {name: values.expand(rows * columns, *values.shape[1:]).clone() for name, values in subject.c.items()}
    x = subject.decode(z.flatten(0, 1), c)
    cells = x.reshape(rows, columns, *x.shape[1:])
    cosine = float(torch.cosine_similarity(v.direction.flatten().double(), w.direction.flatten().double(), 0))
    titles = [[_signed(a) for a in torch.linspace(low, high, k).tolist()] for k in (rows, columns)]
    return Sheet(
        x=x,
        z=z.flatten(0, 1),
        c=c,
        cells=cells,
        frames=there_and_back(cells)[:, None],
        title=f"{subject.name}: {v.name} to the right, {w.name} downwards",
        said=f"{v.name} by {w.name}, {rows} x {columns}; the cosine of the two vectors is {cosine:.2f}",
        rows=titles[0],
        columns=titles[1],
        bare_columns=columns,
        told={"rows": rows, "columns": columns, "cosine": cosine, "vectors": [_told(one) for one in vectors]},
    )


def _said(v: AttributeVector, amounts: Sequence[float]) -> str:
    several = f"from {_signed(min(amounts))} to {_signed(max(amounts))}" if len(amounts) > 1 else _signed(amounts[0])
    return f"{v.name} {several} ({v.method}, {v.n} training samples)"


def _signed(amount: float) -> str:
    return f"{amount:+.2g}" if abs(amount) > 1e-6 else "0"


def _told(v: AttributeVector) -> dict[str, object]:
    return {"name": v.name, "method": v.method, "samples": v.n, "length": float(v.direction.norm())}
