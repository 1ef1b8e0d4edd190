"""What a person gets when something they gave cannot be used: the value, what was expected, the nearest valid name."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import NoReturn


class BadInput(ValueError):
    """Something from outside (an option, a file, a value) cannot be used. The command line prints it and exits with 2."""


def unknown(what: str, name: object, valid: Iterable[object], shown: int = 12) -> BadInput:
    """The error for a name that is not among the valid ones.

    >>> print(unknown("digit", "sevn", ["six", "seven", "eight"]))
    unknown digit 'sevn': did you mean 'seven'? Valid: six, seven, eight
    """
    names = [str(v) for v in valid]
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(names[:shown]) + (f" ... ({len(names)} in all)" if len(names) > shown else "")
    return BadInput(f"unknown {what} {str(name)!r}:{hint} Valid: {listed or 'none'}")


def refuse_option(word: str, valid: Iterable[str]) -> NoReturn:
    """Raises BadInput for a word of a command line that is no valid option, naming the nearest."""
    if word.startswith("-"):
        raise unknown("option", word.split("=")[0], [o for o in valid if o.startswith("--")])
    raise BadInput(f"unexpected argument {word!r}")
