"""Split expressions: "train", "test", and slices such as "train[:50000]", "train[50000:]", "train[-10%:]"."""

import re

from condgen.errors import BadInput

PATTERN = re.compile(r"(?P<name>[\w.-]+)(?:\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


def parse_split(text: str) -> tuple[str, str | None, str | None]:
    """Name, start and stop of a split expression, the convention of Hugging Face's `datasets`.

    >>> parse_split("train[:80%]")
    ('train', None, '80%')
    """
    match = PATTERN.fullmatch(text.replace(" ", ""))
    if not match:
        raise BadInput(f"split {text!r} is not understood; expected such as 'train', 'test', 'train[:50000]' or 'train[90%:]'")
    return match["name"], match["start"], match["stop"]


def bounds(start: str | None, stop: str | None, n: int) -> tuple[int, int]:
    """Start and stop in rows of n: percentages are rounded to the nearest row.

    >>> bounds("-10%", None, 50)
    (45, 50)
    """
    first, last, _ = slice(_rows(start, n), _rows(stop, n)).indices(n)
    return first, last


def _rows(bound: str | None, n: int) -> int | None:
    if bound is None:
        return None
    return round(int(bound[:-1]) * n / 100) if bound.endswith("%") else int(bound)
