"""What is wrong with a person's data, each with its place and its remedy. Loading refuses by them; checking lists them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from condgen.errors import BadInput

SHOWN = 5


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        kind: such as "unreadable", "mixed_sizes", "nan"; stable, for programs.
        where: the file, row or class.
        what: what was found there.
        remedy: what to do about it.
        stops: whether loading refuses; else it is only worth knowing.
        sample: the index of the only sample concerned, which `skip_bad` leaves out; None where it is a matter of the whole set.
    """

    kind: str
    where: str
    what: str
    remedy: str
    stops: bool = True
    sample: int | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.remedy}"

    def to_json(self) -> dict[str, object]:
        return {"kind": self.kind, "where": self.where, "what": self.what, "remedy": self.remedy, "stops": self.stops}


def refusal(source: str, problems: Sequence[Problem]) -> BadInput:
    """The error that names the first few and says where all are listed."""
    lines = [f"{source} has {len(problems)} problem{'s' if len(problems) != 1 else ''}:", *(f"  {p}" for p in problems[:SHOWN])]
    if len(problems) > SHOWN:
        lines.append(f"  and {len(problems) - SHOWN} more; `condgen data check {source}` lists all")
    if all(p.sample is not None for p in problems):
        lines.append("  or leave these samples out with --skip-bad (skip_bad=True)")
    return BadInput("\n".join(lines))


def counted(problems: Iterable[Problem]) -> str:
    """Kinds with their counts, most frequent first.

    >>> counted([Problem("nan", "row 3", "", ""), Problem("nan", "row 5", "", ""), Problem("bomb", "a.png", "", "")])
    '2 nan, 1 bomb'
    """
    return ", ".join(f"{count} {kind}" for kind, count in Counter(p.kind for p in problems).most_common())
