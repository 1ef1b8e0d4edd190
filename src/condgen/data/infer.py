"""From the columns of a table to a schema, by stated rules; what was inferred is said, and a schema.json overrides it.

- `bbox` or `box`: four numbers -> Box "box". `keypoints`: triples -> Keypoints. `<name>_file_name` -> Picture.
- Lists of numbers of one length -> Vector.
- A column with a class's name (`CLASS_WORDS`, or ending in one) -> Label.
- A column with a caption's name (`TEXT_WORDS`) -> Text.
- Other numbers, all of them together -> Attributes "attributes"; those that are only 0 and 1 are binary.
- Other text: Label where the names repeat (at most half as many as rows, and at most 50 or a twentieth of the rows), else Text.
- Left out, and said: columns that are empty, the same in every row, or row numbers.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from condgen.conditions import Attributes, Box, Condition, Keypoints, Label, Picture, Schema, Text, Vector

CLASS_WORDS = ("label", "class", "category", "digit", "species", "target", "mode", "kind", "character", "letter", "domain")
TEXT_WORDS = ("text", "caption", "captions", "prompt", "description", "sentence", "title")
ROW_NUMBERS = ("id", "index", "row", "image_id")
ATTRIBUTES = "attributes"
PICTURE_SUFFIX = "_file_name"
MAX_TEXT_BYTES = 256
MAX_FEW = 50

Rows = Sequence[dict[str, Any]]
PictureSize = Callable[[str], tuple[int, int, int]]
"""(c, h, w) of the pictures that a column names."""


@dataclass(frozen=True)
class Inferred:
    """A schema and the sentences that tell how it was found."""

    schema: Schema
    notes: list[str]


def infer(rows: Rows, picture_size: PictureSize | None = None) -> Inferred:
    """The schema of a table.

    Args:
        rows: one mapping a sample: column name -> what is written there (text, number, list, mapping or None).
        picture_size: (c, h, w) of the pictures that a `<name>_file_name` column names, for those columns.
    """
    schema: Schema = {}
    notes: list[str] = []
    attributes: dict[str, list[float]] = {}
    for name in _names(rows):
        values = [v for row in rows if not is_missing(v := word(row.get(name)))]
        found = _condition(name, values, len(rows), picture_size)
        if isinstance(found, str):
            notes.append(f"column {name!r} is left out: {found}")
        elif isinstance(found, list):
            attributes[name] = found
        elif found is not None:
            schema[condition_name(name)] = found
            notes.append(f"column {name!r} -> {described(found)}")
    if attributes:
        schema[ATTRIBUTES] = _attributes(attributes)
        notes.append(f"columns {', '.join(map(repr, attributes))} -> {described(schema[ATTRIBUTES])}")
    return Inferred(schema, notes)


def condition_name(column: str) -> str:
    """The condition that a column of this name becomes."""
    return "box" if column == "bbox" else column.removesuffix(PICTURE_SUFFIX)


def described(condition: Condition) -> str:
    """One line for a person.

    >>> described(Label(("cat", "dog")))
    'Label of 2: cat, dog'
    """
    names = getattr(condition, "names", None)
    if names is not None:
        binary = getattr(condition, "binary", ())
        shown = [f"{n} (0 or 1)" if binary and binary[i] else str(n) for i, n in enumerate(names[:10])]
        return f"{type(condition).__name__} of {len(names)}: {', '.join(shown)}{', ...' if len(names) > 10 else ''}"
    return f"{type(condition).__name__} {'x'.join(map(str, condition.shape))}"


def _names(rows: Rows) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


# --- one column -----------------------------------------------------------------------------------------------------------


def _condition(name: str, values: list[Any], n: int, picture_size: PictureSize | None) -> Condition | list[float] | str | None:
    """A condition, the numbers of an attribute, or why the column is left out."""
    if not values:
        return "it is empty"
    if name.endswith(PICTURE_SUFFIX):
        return Picture(picture_size(name)) if picture_size else "pictures beside the sample are not read here"
    if is_class(name):
        return Label(label_names(values)) if all(isinstance(v, (str, int, float)) for v in values) else _numbers(name, values)
    if any(isinstance(v, (list, tuple, dict)) for v in values):
        return _numbers(name, values)
    numbers = [number(v) for v in values]
    if name.lower() in TEXT_WORDS:
        return _text(values)
    if all(v is not None for v in numbers):
        return _number_column(name, [float(v) for v in numbers if v is not None])
    return _text_column([str(v) for v in values], n)


def _number_column(name: str, numbers: list[float]) -> list[float] | str:
    if len(set(numbers)) == 1 and len(numbers) > 1:
        return "it is the same in every row"
    if name.lower() in ROW_NUMBERS and len(set(numbers)) == len(numbers):
        return "it numbers the rows"
    return numbers


def _text_column(values: list[str], n: int) -> Condition | str:
    distinct = len(set(values))
    if distinct == 1 and n > 1:
        return "it is the same in every row"
    return Label(label_names(values)) if distinct <= n / 2 and distinct <= max(MAX_FEW, n / 20) else _text(values)


def _numbers(name: str, values: list[Any]) -> Condition | str:
    """Lists and mappings of numbers."""
    if name == "keypoints":
        return _keypoints(values[0])
    if all(isinstance(v, dict) for v in values):
        return _mapping(values)
    lengths = {len(v) if isinstance(v, (list, tuple)) else 0 for v in values}
    flat = all(number(part) is not None for v in values if isinstance(v, (list, tuple)) for part in v)
    if len(lengths) > 1 or not flat:
        return f"it holds lists that are not numbers of one length (lengths {sorted(lengths)[:4]})"
    return Box() if condition_name(name) == "box" and lengths == {4} else Vector(lengths.pop())


def _mapping(values: list[dict[str, Any]]) -> Condition | str:
    columns = {k: [v for row in values if (v := number(row.get(k))) is not None] for k in _names(values)}
    if not all(columns.values()):
        return "it holds mappings whose values are not all numbers"
    return _attributes(columns)


def _keypoints(first: Any) -> Condition:
    if isinstance(first, dict):
        return Keypoints(tuple(first))
    nested = bool(first) and isinstance(first[0], (list, tuple))
    return Keypoints(tuple(str(i) for i in range(len(first) if nested else len(first) // 3)))


def _attributes(columns: dict[str, list[float]]) -> Attributes:
    finite = {k: [v for v in values if math.isfinite(v)] or [0.0] for k, values in columns.items()}
    binary = tuple(set(v) <= {0.0, 1.0} for v in finite.values())
    low = tuple(0.0 if b else min(v) for b, v in zip(binary, finite.values(), strict=True))
    high = tuple(1.0 if b else max(v) for b, v in zip(binary, finite.values(), strict=True))
    return Attributes(tuple(columns), low, high, binary)


def _text(values: Iterable[Any]) -> Text:
    longest = max(len(str(v).encode()) for v in values)
    return Text(min(MAX_TEXT_BYTES, max(8, 8 * math.ceil(longest / 8))))


# --- words ----------------------------------------------------------------------------------------------------------------


def word(value: Any) -> Any:
    """What a cell means: a CSV cell that spells a list or a mapping is that list or mapping; other text is stripped."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    if re.fullmatch(r"[-+\d.eE]+([\s,;]+[-+\d.eE]+)+", text):
        parts = [number(part) for part in re.split(r"[\s,;]+", text)]
        return text if None in parts else parts
    return text


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value)


def number(value: Any) -> float | None:
    """The number that a cell holds, NaN included, or None.

    >>> number("0.5"), number(True), number("high")
    (0.5, 1.0, None)
    """
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return float(value.lower() == "true")
    if not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def is_class(name: str) -> bool:
    return re.split(r"[_\s.-]", name.lower())[-1] in CLASS_WORDS


def label_word(value: Any) -> str:
    """The name of a class as a label: whole numbers without a decimal point.

    >>> label_word(3.0), label_word(" cat ")
    ('3', 'cat')
    """
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def label_names(values: Iterable[Any]) -> tuple[str, ...]:
    """Distinct names, numbers by value and before words."""
    return tuple(sorted({label_word(v) for v in values}, key=lambda s: (0, float(s), s) if _is_plain_number(s) else (1, 0.0, s)))


def _is_plain_number(text: str) -> bool:
    return re.fullmatch(r"-?\d{1,15}(\.\d{1,15})?", text) is not None
