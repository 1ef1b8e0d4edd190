"""What a person gets when something they gave cannot be used: the value, what was expected, the nearest valid name."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import NoReturn


class BadInput(ValueError):
    """Something from outside (an option, a file, a value) cannot be used. The command line prints it and exits with 2."""


WHERE = {
    "preset": "`condgen list presets`",
    "model": "`condgen list models`",
    "data": "`condgen list data`",
    "metric": "`condgen list metrics`",
    "condition": "`condgen describe RUN`",
    "attribute": "`condgen describe RUN`",
    "label": "`condgen describe RUN`",
    "option": "`condgen describe MODEL`, or --help,",
}
"""By the first word of what is unknown: what names all, where an error shows only the first."""


def unknown(what: str, name: object, valid: Iterable[object], shown: int = 12) -> BadInput:
    """The error for a name that is not among the valid ones. Of many it shows the first, and says what names all.

    >>> print(unknown("digit", "sevn", ["six", "seven", "eight"]))
    unknown digit 'sevn': did you mean 'seven'? Valid: six, seven, eight
    """
    names = [str(v) for v in valid]
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" did you mean {near[0]!r}?" if near else ""
    where = WHERE.get(what.split()[0], "`condgen list` or `condgen describe`")
    listed = ", ".join(names[:shown]) + (f" ... ({len(names)} in all): {where} names them" if len(names) > shown else "")
    return BadInput(f"unknown {what} {str(name)!r}:{hint} Valid: {listed or 'none'}")


def require_whole(what: str, value: object, least: int, most: int = 2**63 - 1) -> None:
    """Raises BadInput for what is no whole number from `least` to `most`.

    >>> require_whole("batch", 2.0, 1)
    Traceback (most recent call last):
    condgen.errors.BadInput: batch is 2.0; expected a whole number of at least 1
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        bound = f"of at least {least}" if not isinstance(value, int) or value < least else f"of at most {most}"
        raise BadInput(f"{what} is {value!r}; expected a whole number {bound}")


def require_positive(**options: float | Iterable[float]) -> None:
    """Raises BadInput for the first option that is not above 0, or holds such a number.

    >>> require_positive(z_dim=16, hidden=(128, 0))
    Traceback (most recent call last):
    condgen.errors.BadInput: hidden is (128, 0); expected numbers above 0
    """
    for name, value in options.items():
        numbers = list(value) if isinstance(value, Iterable) else [value]
        if not all(v > 0 for v in numbers):
            raise BadInput(f"{name} is {value!r}; expected {'numbers' if isinstance(value, Iterable) else 'a number'} above 0")


def refuse_option(word: str, valid: Iterable[str]) -> NoReturn:
    """Raises BadInput for a word of a command line that is no valid option, naming the nearest."""
    if word.startswith("-"):
        raise unknown("option", word.split("=")[0], [o for o in valid if o.startswith("--")])
    raise BadInput(f"unexpected argument {word!r}")


def require_range(low: float, high: float, **options: float | Iterable[float]) -> None:
    """Raises BadInput for the first option that is not from low to high, or holds such a number.

    >>> require_range(0, 1, dropout=(0.2, 1.5))
    Traceback (most recent call last):
    condgen.errors.BadInput: dropout is (0.2, 1.5); expected numbers from 0 to 1
    """
    for name, value in options.items():
        many = isinstance(value, Iterable)
        if not all(low <= v <= high for v in (value if isinstance(value, Iterable) else [value])):
            limit = f"from {low:g} to {high:g}" if high != float("inf") else f"of at least {low:g}"
            raise BadInput(f"{name} is {value!r}; expected {'numbers' if many else 'a number'} {limit}")
