"""What a person asks, completed: words and tensors for some conditions, rows of the data for what is left open."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgen.conditions import Attributes, Condition, Label, Schema, Values, check_values, parse
from condgen.errors import BadInput, unknown

FEW = (16, 20)
"""Rows that count as agreeing with what is asked: at least so many, else one in so many."""
CHUNK = 128


def complete(schema: Schema, asked: Mapping[str, Any], rows: Values, n: int | None = None) -> Values:
    """Values for n samples: what was asked, and `rows` (any number of valid rows, used in turn) for what was left open.

    A name in `asked` is a condition's, or an attribute's of an `Attributes` condition. Its value is a word for `parse`, a
    tensor of one value (*shape) or of n values (n, *shape), or a *list* (for a Label any sequence): one word a sample. n is
    taken from tensors and lists where it is not given, else 1. Where only some attributes are asked, a sample's row is one that
    agrees with them (`agreeing`). Raises BadInput for unknown names, naming the nearest valid one.
    """
    given = {name: _asked(name, schema[name], word) for name, word in _by_condition(schema, asked).items()}
    counts = {name: len(v) for name, v in given.items() if v.dim() > len(schema[name].shape)}
    n = n if n is not None else max(counts.values(), default=1)
    if n < 1:
        raise BadInput(f"cannot make {n} samples; ask for at least 1")
    if wrong := {name: k for name, k in counts.items() if k != n}:
        raise BadInput(f"asked for {n} samples, but {', '.join(f'{name} has {k} values' for name, k in wrong.items())}")
    values: Values = {}
    rows = agreeing(schema, given, rows, n)
    for name in schema:
        base = rows[name][torch.arange(n) % len(rows[name])]
        if name in given:
            full = given[name].to(base).expand(base.shape)
            base = torch.where(full.isnan(), base, full) if full.is_floating_point() else full.clone()
        values[name] = base
    check_values(schema, values)
    return values


def _by_condition(schema: Schema, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Single attributes gathered under their condition's name."""
    gathered = {name: word for name, word in asked.items() if name in schema}
    attribute_of = {a: name for name, c in schema.items() if isinstance(c, Attributes) for a in c.names}
    for name in (k for k in asked if k not in schema):
        if name not in attribute_of:
            raise unknown("condition", name, [*schema, *attribute_of])
        whole = gathered.get(attribute_of[name], {})
        if not isinstance(whole, Mapping) or name in whole:
            raise BadInput(f"attribute {name!r} is asked twice: by its own name and under {attribute_of[name]!r}")
        gathered[attribute_of[name]] = {**whole, name: asked[name]}
    return gathered


def _asked(name: str, condition: Condition, word: Any) -> Tensor:
    """One value (*shape), or one a sample (n, *shape)."""
    if isinstance(word, Tensor):
        if word.dim() < (k := len(condition.shape)) or word.dim() > k + 1 or tuple(word.shape[word.dim() - k :]) != condition.shape:
            raise BadInput(f"condition {name!r}: expected one value of shape {condition.shape} or one a sample, got {tuple(word.shape)}")
        if not condition.dtype.is_floating_point and (word.is_floating_point() or word.dtype == torch.bool):
            raise BadInput(f"condition {name!r}: expected whole numbers, such as {condition.dtype}, got {word.dtype}")
        return word
    if isinstance(condition, Label) and isinstance(word, (np.ndarray, tuple, range)):
        word = word.tolist() if isinstance(word, np.ndarray) else list(word)
    if isinstance(word, Mapping):
        word = _one_each(word)
    if isinstance(word, list) and not _is_plain(word, condition):
        if not word:
            raise BadInput(f"condition {name!r}: the list holds no value")
        return torch.stack([parse(condition, w) for w in word])
    return parse(condition, word)


def _one_each(word: Mapping[str, Any]) -> Mapping[str, Any] | list[Mapping[str, Any]]:
    """A mapping whose values differ from sample to sample (lists, tensors (n,)) as one mapping a sample."""
    many = {k: list(v) for k, v in word.items() if isinstance(v, list) or (isinstance(v, Tensor) and v.dim())}
    if not many:
        return word
    if len({len(v) for v in many.values()}) > 1:
        raise BadInput("one value a sample, but " + ", ".join(f"{k} has {len(v)} values" for k, v in many.items()))
    return [{**word, **dict(zip(many, values, strict=True))} for values in zip(*many.values(), strict=True)]


def _is_plain(word: Sequence[Any], condition: Condition) -> bool:
    """A list of numbers as long as one vector is that vector; any other list holds one word a sample."""
    return len(condition.shape) == 1 and len(word) == condition.shape[0] and all(isinstance(w, (int, float)) for w in word)


def agreeing(schema: Schema, given: Values, rows: Values, n: int) -> Values:
    """For each of n samples, the row most like its own in turn among those that agree with the attributes asked of it.

    A smile goes with raised cheeks: with cheeks from a row that does not smile, the model would be asked for a face that nobody
    has. Of the rows nearest in what is asked, the one is taken that differs least in all other attributes, and with it all that
    is left open. Where a label is asked too, only rows that bear it are looked at, if there are any: a large dog's row, not a
    large horse's. Where no attribute is asked, or all of them, rows are as they were.
    """
    partial = {k: v for k, v in given.items() if isinstance(schema[k], Attributes) and bool(v.isnan().any()) and not bool(v.isnan().all())}
    if not partial:
        return rows
    count = len(next(iter(rows.values())))
    at = torch.arange(n) % count
    chosen = []
    for start in range(0, n, CHUNK):
        own = at[start : start + CHUNK]
        far, unlike = torch.zeros(len(own), count), torch.zeros(len(own), count)
        for name, asked in partial.items():
            a, r = _scaled(schema[name], asked.expand(n, -1)[start : start + CHUNK]), _scaled(schema[name], rows[name])
            known = ~a.isnan()
            far += torch.where(known[:, None], (r - a[:, None]).abs(), 0.0).sum(2)
            unlike += torch.where(known[:, None], 0.0, (r - r[own][:, None]).square()).sum(2)
        bears = _bears(schema, given, rows, torch.arange(start, start + len(own)), n)
        candidates = bears.sum(1, keepdim=True)
        keep = torch.minimum(candidates, (candidates // FEW[1]).clamp(min=FEW[0]))
        far = far.masked_fill(~bears, torch.inf)
        agrees = bears & (far <= far.sort(1).values.gather(1, keep - 1) + 1e-6)
        chosen.append(unlike.masked_fill(~agrees, torch.inf).argmin(1))
    return {name: v[torch.cat(chosen)] for name, v in rows.items()}


def _bears(schema: Schema, given: Values, rows: Values, which: Tensor, n: int) -> Tensor:
    """Which rows bear the labels asked of these of the n samples, bool (len(which), rows); all, where no row does."""
    bears = torch.ones(len(which), len(next(iter(rows.values()))), dtype=torch.bool)
    for name, asked in given.items():
        if isinstance(schema[name], Label):
            bears &= asked.cpu().expand(n)[which, None] == rows[name].cpu()
    return bears | ~bears.any(1, keepdim=True)


def _scaled(condition: Condition, value: Tensor) -> Tensor:
    assert isinstance(condition, Attributes)
    low, high = torch.tensor(condition.low), torch.tensor(condition.high)
    return (value.cpu() - low) / (high - low).clamp(min=1e-8)
