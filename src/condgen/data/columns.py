"""From what is written about each sample to the values of a condition.

Every value goes through `condgen.conditions.parse`, so a kind of condition that is defined elsewhere works here as it is. What a
kind needs beforehand (pixels made relative, several columns gathered) is attached to it by `spelled`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgen.conditions import Attributes, Box, Condition, Keypoints, Label, Text, parse
from condgen.data.images import Look, View
from condgen.data.infer import PICTURE_SUFFIX, is_missing, label_word, number, word
from condgen.data.problems import Problem
from condgen.errors import BadInput

SLACK_PX = 0.5
"""A box may stand out of its picture by this much (rounding of annotation tools); it is clipped."""
REMEDIES = {
    "nan": "Fill in the number, or remove the row",
    "box_outside": "Correct the box (x, y, width, height in px of the picture as shown)",
    "value": "Correct the value, or the schema",
}


@dataclass(frozen=True)
class Framing:
    """How one picture is shown: its size, the part of it that is kept, and whether positions are relative already."""

    look: Look
    view: View
    relative: bool = False

    def to_view(self, xy: np.ndarray) -> np.ndarray:
        """Points (..., 2) as written, relative to the part that is kept."""
        return self.view.relative(xy * (self.look.width, self.look.height) if self.relative else xy)


class Wrong(BadInput):
    """A value that cannot be used; `kind` is that of the problem."""

    def __init__(self, message: str, kind: str = "value"):
        super().__init__(message)
        self.kind = kind


def read_column(
    name: str, condition: Condition, rows: Sequence[Mapping[str, Any]], framings: Sequence[Framing | None], where: Sequence[str]
) -> tuple[Tensor, list[Problem]]:
    """Values (n, *shape) of one condition, and a problem for each row that has none; such a row is zeros.

    Args:
        name: of the condition: its column, or for Attributes optionally a column for each attribute.
        rows: what is written, one mapping a sample.
        framings: how each picture is shown; None where there is no picture.
        where: the name of each row for messages.
    """
    values = torch.zeros(len(rows), *condition.shape, dtype=condition.dtype)
    problems = []
    for i, row in enumerate(rows):
        try:
            values[i] = _value(name, condition, row, framings[i])
        except BadInput as error:
            kind = getattr(error, "kind", "value")
            problems.append(Problem(kind, where[i], f"{name}: {error}", REMEDIES[kind], sample=i))
    return values, problems


def _value(name: str, condition: Condition, row: Mapping[str, Any], framing: Framing | None) -> Tensor:
    value = parse(condition, spelled(condition, name, row, framing)).to(condition.dtype)
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise Wrong("a value is missing or not a finite number", "nan")
    if problem := condition.problem(value[None]):
        raise Wrong(problem.removeprefix("row 0 ").removeprefix("row 0: "))
    return value


def _cell(name: str, row: Mapping[str, Any]) -> Any:
    """The cell of a condition, under its own name or the one its column goes by."""
    found = next((row[k] for k in (name, f"{name}{PICTURE_SUFFIX}", *(("bbox",) if name == "box" else ())) if k in row), None)
    cell = word(found)
    if is_missing(cell):
        raise Wrong("the cell is empty" if found is not None else f"there is no column {name!r}", "nan")
    if _has_nan(cell):
        raise Wrong(f"{cell!r} is not a finite number", "nan")
    return cell


def _has_nan(cell: Any) -> bool:
    if isinstance(cell, Mapping):
        return any(map(_has_nan, cell.values()))
    if isinstance(cell, (list, tuple)):
        return any(map(_has_nan, cell))
    found = number(cell) if isinstance(cell, (int, float)) or str(cell).strip().lower().lstrip("+-") in ("nan", "inf", "infinity") else None
    return found is not None and not math.isfinite(found)


@singledispatch
def spelled(condition: Condition, name: str, row: Mapping[str, Any], framing: Framing | None) -> Any:
    """The word for `parse`: what the row says about this condition. Raises Wrong where it says nothing."""
    return _cell(name, row)


@spelled.register
def _(condition: Label, name: str, row: Mapping[str, Any], framing: Framing | None) -> Any:
    return label_word(_cell(name, row))


@spelled.register
def _(condition: Text, name: str, row: Mapping[str, Any], framing: Framing | None) -> Any:
    """Cut to the length of the condition, at the border of a letter; an empty text is a text."""
    text = str(row.get(name) if row.get(name) is not None else "").strip()
    return text.encode()[: condition.length].decode(errors="ignore")


@spelled.register
def _(condition: Attributes, name: str, row: Mapping[str, Any], framing: Framing | None) -> Any:
    if name in row and not set(condition.names) <= set(row):
        cell = _cell(name, row)
        return {k: v for k, v in cell.items() if k in condition.names and number(v) is not None} if isinstance(cell, Mapping) else cell
    gathered = {}
    for attribute in condition.names:
        found = number(word(row.get(attribute)))
        if found is None or not math.isfinite(found):
            raise Wrong(f"{attribute} is {row.get(attribute)!r}, expected a number", "nan")
        gathered[attribute] = found
    return gathered


@spelled.register
def _(condition: Box, name: str, row: Mapping[str, Any], framing: Framing | None) -> Any:
    """Relative to the part of the picture that is kept, and clipped to it."""
    cell = _as_numbers(_cell(name, row), 4)
    if framing is None:
        return cell.tolist()
    corners = np.array([cell[:2], cell[:2] + cell[2:]])
    if not framing.relative:
        _check_box(cell, corners, framing.look)
    kept = framing.to_view(corners).clip(0, 1)
    if (kept[1] <= kept[0]).any():
        raise Wrong(f"{_said(cell)} lies outside the part of the picture that is kept", "box_outside")
    return [*kept[0], *(kept[1] - kept[0])]


def _check_box(cell: np.ndarray, corners: np.ndarray, look: Look) -> None:
    outside = (corners < -SLACK_PX).any() or (corners > np.array([look.width, look.height]) + SLACK_PX).any()
    if outside or (cell[2:] <= 0).any():
        raise Wrong(f"box {_said(cell)} leaves the picture of {look.width}x{look.height} px", "box_outside")


def _said(cell: np.ndarray) -> str:
    return ",".join(f"{v:g}" for v in cell)


@spelled.register
def _(condition: Keypoints, name: str, row: Mapping[str, Any], framing: Framing | None) -> Any:
    """x, y relative to the part that is kept; a point that is not visible or not in it is 0, 0, 0."""
    cell = _cell(name, row)
    if isinstance(cell, Mapping):
        if missing := [k for k in condition.names if k not in cell]:
            raise Wrong(f"point {missing[0]!r} is missing; names: {', '.join(condition.names)}")
        cell = [cell[k] for k in condition.names]
    points = _triples(cell, len(condition.names))
    xy = framing.to_view(points[:, :2]) if framing else points[:, :2]
    seen = (points[:, 2] > 0) & ((xy >= 0) & (xy <= 1)).all(1)
    return np.concatenate([xy, seen[:, None]], 1) * seen[:, None]


def _triples(cell: Any, k: int) -> np.ndarray:
    """(k, 3): x, y, visible; pairs are visible."""
    if isinstance(cell, (list, tuple)) and cell and all(isinstance(p, (list, tuple)) and len(p) == 2 for p in cell):
        cell = [[*p, 1] for p in cell]
    return _as_numbers(cell, 3 * k).reshape(k, 3)


def _as_numbers(cell: Any, n: int) -> np.ndarray:
    try:
        found = np.asarray(cell, dtype=np.float64).reshape(-1)
    except (ValueError, TypeError):
        found = np.zeros(0)
    if len(found) != n:
        raise Wrong(f"{str(cell)[:60]} is not {n} numbers")
    return found


def has_column(condition: Condition, name: str, columns: Iterable[str]) -> bool:
    """Whether a table with these columns says anything about the condition."""
    given = set(columns)
    by_part = isinstance(condition, Attributes) and set(condition.names) <= given
    return by_part or bool(given & {name, f"{name}{PICTURE_SUFFIX}", *(("bbox",) if name == "box" else ())})


def cut_short(condition: Condition, name: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """How many texts are longer than the condition reads."""
    if not isinstance(condition, Text):
        return 0
    return sum(len(str(row.get(name) or "").strip().encode()) > condition.length for row in rows)


def positions_are_relative(condition: Condition, name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a Box or Keypoints column lies in [0, 1] in every row: then it is relative, not in px."""
    if not isinstance(condition, (Box, Keypoints)):
        return False
    largest = 0.0
    for row in rows:
        try:
            largest = max(largest, _largest(_cell(name, row)))
        except Wrong:
            continue
    return 0 < largest <= 1


def _largest(cell: Any) -> float:
    if isinstance(cell, Mapping):
        return max(map(_largest, cell.values()), default=0.0)
    if isinstance(cell, (list, tuple)):
        return max(map(_largest, cell), default=0.0)
    return abs(found) if (found := number(cell)) is not None else 0.0
