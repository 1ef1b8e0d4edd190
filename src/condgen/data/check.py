"""`condgen data check`: what a source holds and what is wrong with it, read exactly as training reads it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from condgen.conditions import Label, Schema, schema_to_json
from condgen.data.infer import described
from condgen.data.problems import Problem
from condgen.data.sources import SOURCES, existing, load, survey
from condgen.data.survey import Survey
from condgen.errors import BadInput

SHOWN_EACH = 10


@dataclass
class Report:
    """What `check` found.

    Args:
        source: as a person wrote it.
        samples: how many there are, `usable` of them without a problem.
        splits: samples by split.
        sizes: pictures by size in px, such as "640x480".
        modes: pictures by "gray" and "colour".
        schema: the conditions.
        classes: for each Label, usable samples by name.
        problems: everything that is wrong, with remedies.
        notes: what was inferred or changed.
    """

    source: str
    samples: int = 0
    usable: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    schema: Schema = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether training would start: nothing here makes it refuse."""
        return not any(p.stops for p in self.problems)

    def to_json(self) -> dict[str, Any]:
        written = {k: v for k, v in self.__dict__.items() if k not in ("schema", "problems")}
        return {"ok": self.ok, **written, "schema": schema_to_json(self.schema), "problems": [p.to_json() for p in self.problems]}

    def to_text(self) -> str:
        """For a person: counts, then problems by kind, each with its remedy."""
        lines = [f"{self.source}: {self.usable} of {self.samples} samples can be used"]
        for title, counts in (("splits", self.splits), ("sizes", self.sizes), ("modes", self.modes)):
            if counts:
                lines.append(f"  {title}: {_counts(counts)}")
        lines += [f"  condition {name}: {described(condition)}" for name, condition in self.schema.items()]
        lines += [f"  {name}: {_counts(counts, 24)}" for name, counts in self.classes.items()]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines + _told(self.problems) + [_verdict(self)])


def _counts(counts: dict[str, int], shown: int = 8) -> str:
    listed = ", ".join(f"{name} {count}" for name, count in list(counts.items())[:shown])
    return listed + (f" ... ({len(counts)} in all)" if len(counts) > shown else "")


def _told(problems: list[Problem]) -> list[str]:
    lines = []
    for kind, count in Counter(p.kind for p in problems).items():
        own = [p for p in problems if p.kind == kind]
        lines.append(f"{'problem' if own[0].stops else 'worth knowing'}: {kind.replace('_', ' ')} ({count})")
        lines += [f"  {p}" for p in own[:SHOWN_EACH]]
        if count > SHOWN_EACH:
            lines.append(f"  and {count - SHOWN_EACH} more (--json lists all)")
    return lines


def _verdict(report: Report) -> str:
    stopping = sum(p.stops for p in report.problems)
    return f"{stopping} problems: training refuses until they are mended" if stopping else "ready for training"


def check(source: str, size: int | None = None) -> Report:
    """Read a source as training does and report on it; all problems, not only the first.

    Args:
        source: a known name, or the path of a folder, zip or .npz.
        size: side of the pictures in px, as training would be given.

    Raises:
        BadInput: where there is nothing of that name.
    """
    if source in SOURCES:
        return _of_known(source, size)
    existing(source)
    try:
        return _report(survey(source, size))
    except BadInput as error:
        problem = Problem("unusable", source, str(error), "Nothing else could be read before this is mended")
        return Report(source, problems=[problem])


def _of_known(source: str, size: int | None) -> Report:
    parts = {split: load(source, split, size) for split in ("train", "test")}
    n, train = sum(map(len, parts.values())), parts["train"]
    values = {k: torch.cat([part.values()[k] for part in parts.values()]).numpy() for k in train.schema}
    classes = {k: _histogram(c.names, values[k]) for k, c in train.schema.items() if isinstance(c, Label)}
    return Report(source, n, n, {k: len(v) for k, v in parts.items()}, schema=train.schema, classes=classes, notes=train.notes)


def _report(found: Survey) -> Report:
    good = found.good()
    return Report(
        found.source,
        samples=len(found),
        usable=len(good),
        splits=dict(Counter(str(found.splits[i]) for i in good)),
        sizes=dict(found.about.get("sizes", Counter()).most_common()),
        modes=dict(found.about.get("modes", Counter()).most_common()),
        schema=found.schema,
        classes={name: _histogram(condition.names, values.numpy()[good]) for name, (condition, values) in found.labels().items()},
        problems=found.problems,
        notes=found.notes,
    )


def _histogram(names: tuple[str, ...], values: np.ndarray) -> dict[str, int]:
    return dict(zip(names, np.bincount(values.astype(np.int64), minlength=len(names)).tolist(), strict=True))
