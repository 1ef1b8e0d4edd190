"""Conditions: frozen descriptions of what can be asked of a sample.

A *schema* is `dict[str, Condition]`; its *values* are `dict[str, Tensor]`, one row a sample. Descriptions are data: they
know the shape and the range of their values, and nothing of networks, files or commands. What a higher layer knows about a
kind (its embedding, its place in a metadata table) is attached there with `functools.singledispatch`; the words a person
uses for a value are attached here, by `parse` and `say`.
"""

import dataclasses
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from condgen.errors import BadInput, unknown


@dataclass(frozen=True)
class Condition(ABC):
    """One thing that can be asked of a sample. Subclasses are found by name: a new kind needs no registration."""

    dtype: ClassVar[torch.dtype] = torch.float32

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one value, without the batch."""

    @abstractmethod
    def uniform(self, n: int, generator: Generator | None = None) -> Tensor:
        """n values drawn evenly from all that are valid."""

    def problem(self, values: Tensor) -> str | None:
        """What is wrong with values (n, *shape), in words, or None. Kinds add their ranges in `range_problem`."""
        if tuple(values.shape[1:]) != self.shape:
            return f"expected values of shape (n, {', '.join(map(str, self.shape))}), got {tuple(values.shape)}"
        if values.dtype != self.dtype:
            return f"expected values of {self.dtype}, got {values.dtype}"
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            row = int((~torch.isfinite(values)).reshape(len(values), -1).any(1).nonzero()[0])
            return f"row {row} holds a value that is not a finite number"
        return self.range_problem(values)

    def range_problem(self, values: Tensor) -> str | None:
        return None


Schema = dict[str, Condition]
Values = dict[str, Tensor]


@dataclass(frozen=True)
class Label(Condition):
    """One of several names. Values: int64 (b,), the index of the name."""

    names: tuple[str, ...]
    dtype = torch.int64

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    def uniform(self, n: int, generator: Generator | None = None) -> Tensor:
        return torch.randint(len(self.names), (n,), generator=generator)

    def range_problem(self, values: Tensor) -> str | None:
        bad = ((values < 0) | (values >= len(self.names))).nonzero()
        return f"row {int(bad[0])} holds index {int(values[bad[0, 0]])}, valid are 0 to {len(self.names) - 1}" if len(bad) else None


@dataclass(frozen=True)
class Attributes(Condition):
    """Several named numbers. Values: float32 (b, k); `binary` ones are 0 or 1, the others lie in [low, high]."""

    names: tuple[str, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    binary: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        k = len(self.names)
        for field, value in (("low", 0.0), ("high", 1.0), ("binary", False)):
            given = getattr(self, field) or (value,) * k
            if len(given) != k:
                raise BadInput(f"Attributes.{field} has {len(given)} entries for {k} names")
            object.__setattr__(self, field, tuple(type(value)(v) for v in given))

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.names),)

    def uniform(self, n: int, generator: Generator | None = None) -> Tensor:
        low, high = torch.tensor(self.low), torch.tensor(self.high)
        u = torch.rand(n, len(self.names), generator=generator)
        return torch.where(torch.tensor(self.binary), (u > 0.5).float(), low + u * (high - low))

    def range_problem(self, values: Tensor) -> str | None:
        """Values may go beyond the data by half their range; NaN ("not asked") is no problem of range."""
        low, high = values.new_tensor(self.low), values.new_tensor(self.high)
        slack = 1e-6 + 0.5 * (high - low)
        for row, k in ((values < low - slack) | (values > high + slack)).nonzero()[:1].tolist():
            said = f"attribute {self.names[k]!r} is {float(values[row, k]):g}"
            return f"row {row}: {said}; the data ranges from {self.low[k]:g} to {self.high[k]:g}"
        return None


@dataclass(frozen=True)
class Vector(Condition):
    """A vector of unnamed numbers. Values: float32 (b, dim)."""

    dim: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.dim,)

    def uniform(self, n: int, generator: Generator | None = None) -> Tensor:
        return 2 * torch.rand(n, self.dim, generator=generator) - 1


@dataclass(frozen=True)
class Text(Condition):
    """A sentence as UTF-8 bytes, zero-padded to `length`. Values: uint8 (b, length)."""

    length: int = 128
    dtype = torch.uint8

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    def uniform(self, n: int, generator: Generator | None = None) -> Tensor:
        return torch.randint(ord("a"), ord("z") + 1, (n, self.length), generator=generator).to(torch.uint8)


@dataclass(frozen=True)
class Box(Condition):
    """Where the subject is. Values: float32 (b, 4): x, y of the upper left corner, width, height, relative to the picture."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (4,)

    def uniform(self, n: int, generator: Generator | None = None) -> Tensor:
        size = 0.1 + 0.9 * torch.rand(n, 2, generator=generator)
        return torch.cat([(1 - size) * torch.rand(n, 2, generator=generator), size], 1)

    def range_problem(self, values: Tensor) -> str | None:
        x, y, w, h = values.unbind(1)
        bad = ((x < 0) | (y < 0) | (w <= 0) | (h <= 0) | (x + w > 1 + 1e-4) | (y + h > 1 + 1e-4)).nonzero()
        return f"row {int(bad[0])}: box {say(self, values[bad[0, 0]])} leaves the picture (x, y, w, h in [0, 1])" if len(bad) else None


@dataclass(frozen=True)
class Keypoints(Condition):
    """Named points. Values: float32 (b, k, 3): x, y relative to the picture, and 1 where visible, else 0."""

    names: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.names), 3)

    def uniform(self, n: int, generator: Generator | None = None) -> Tensor:
        xy = torch.rand(n, len(self.names), 2, generator=generator)
        return torch.cat([xy, torch.ones(n, len(self.names), 1)], 2)

    def range_problem(self, values: Tensor) -> str | None:
        xy, seen = values[..., :2], values[..., 2]
        for row, k in (((xy < -0.5) | (xy > 1.5)).any(2) | (seen < 0) | (seen > 1)).nonzero()[:1].tolist():
            said = ",".join(f"{v:g}" for v in values[row, k].tolist())
            return f"row {row}: point {self.names[k]!r} is {said}; expected x, y in [-0.5, 1.5] and visible in [0, 1]"
        return None


@dataclass(frozen=True)
class Picture(Condition):
    """Another picture. Values: float32 (b, c, h, w) in [-1, 1]."""

    size: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    def uniform(self, n: int, generator: Generator | None = None) -> Tensor:
        return 2 * torch.rand(n, *self.size, generator=generator) - 1


def kinds() -> dict[str, type[Condition]]:
    """Every kind of condition that is defined, by name."""
    found: dict[str, type[Condition]] = {}
    todo = list(Condition.__subclasses__())
    while todo:
        kind = todo.pop()
        found[kind.__name__] = kind
        todo += kind.__subclasses__()
    return found


def schema_to_json(schema: Schema) -> dict[str, Any]:
    """The schema as JSON data; `schema_from_json` reads it back to an equal one."""
    written = {name: {"kind": type(c).__name__, **dataclasses.asdict(c)} for name, c in schema.items()}
    return json.loads(json.dumps(written))


def schema_from_json(data: Mapping[str, Any]) -> Schema:
    """Raises BadInput for a kind or field that does not exist."""
    if not isinstance(data, Mapping):
        raise BadInput(f"a schema is a mapping from names to conditions, not {data!r}")
    schema: Schema = {}
    for name, described in data.items():
        if not isinstance(described, Mapping):
            raise BadInput(f"condition {name!r} is described by {described!r}; expected a mapping with its kind")
        fields = {k: _frozen(v) for k, v in described.items() if k != "kind"}
        kind = kinds().get(str(described.get("kind")))
        if kind is None:
            raise unknown(f"kind of condition {name!r}", described.get("kind"), sorted(kinds()))
        try:
            schema[name] = kind(**fields)
        except (TypeError, ValueError) as error:
            raise BadInput(f"condition {name!r}: {error}") from None
    return schema


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def check_values(schema: Schema, values: Values) -> None:
    """Raises BadInput with the name and the row of the first value that its condition does not allow."""
    for name, condition in schema.items():
        if name not in values:
            raise BadInput(f"condition {name!r} is missing; given: {', '.join(values) or 'none'}")
        if problem := condition.problem(values[name]):
            raise BadInput(f"condition {name!r}: {problem}")


# --- words: what a person writes for a value ----------------------------------------------------------------------------


@singledispatch
def parse(condition: Condition, word: Any) -> Tensor:
    """One value (*shape) from what a person wrote: a string, a number, a sequence, or a mapping of attribute names.

    NaN in the answer means "not asked" (an attribute left open). Raises BadInput naming the valid values.
    """
    return _in_range(condition, _numbers(word, condition.shape))


def _in_range(condition: Condition, value: Tensor) -> Tensor:
    if problem := condition.range_problem(value[None]):
        raise BadInput(problem.removeprefix("row 0: "))
    return value


@parse.register
def _(condition: Label, word: Any) -> Tensor:
    text = str(word)
    if text not in condition.names:
        raise unknown("label", text, condition.names)
    return torch.tensor(condition.names.index(text))


@parse.register
def _(condition: Attributes, word: Any) -> Tensor:
    if isinstance(word, str) and "=" in word:
        word = dict(re.findall(r"([^\s,=][^=]*?)\s*=\s*([^\s,=]*)", word))
    if not isinstance(word, Mapping):
        return _in_range(condition, _numbers(word, condition.shape))
    value = torch.full(condition.shape, math.nan)
    for name, given in word.items():
        if name not in condition.names:
            raise unknown("attribute", name, condition.names)
        value[condition.names.index(name)] = _numbers(given, ())
    return _in_range(condition, value)


@parse.register
def _(condition: Text, word: Any) -> Tensor:
    code = str(word).encode()
    if len(code) > condition.length:
        raise BadInput(f"the text has {len(code)} bytes; this condition reads at most {condition.length}")
    return torch.tensor(list(code.ljust(condition.length, b"\0")), dtype=torch.uint8)


def _numbers(word: Any, shape: tuple[int, ...]) -> Tensor:
    try:
        parts = word.replace(",", " ").split() if isinstance(word, str) else word
        value = torch.as_tensor([float(p) for p in parts] if isinstance(parts, list) else parts, dtype=torch.float32)
        value = value.reshape(shape)
    except (ValueError, TypeError, RuntimeError):
        raise BadInput(f"{word!r} is not {math.prod(shape)} number(s)" + (f" of shape {shape}" if len(shape) > 1 else "")) from None
    if not bool(torch.isfinite(value).all()):
        raise BadInput(f"{word!r} holds a value that is not a finite number")
    return value


@singledispatch
def say(condition: Condition, value: Tensor) -> str:
    """The words for one value (*shape): the inverse of `parse`."""
    return ",".join(f"{v:.3g}" for v in value.reshape(-1).tolist())


@say.register
def _(condition: Label, value: Tensor) -> str:
    return condition.names[int(value)]


@say.register
def _(condition: Attributes, value: Tensor) -> str:
    return " ".join(f"{n}={v:.3g}" for n, v in zip(condition.names, value.tolist(), strict=True))


@say.register
def _(condition: Text, value: Tensor) -> str:
    return bytes(value.tolist()).rstrip(b"\0").decode(errors="replace")
