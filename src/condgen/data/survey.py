"""What a source holds, found out in one way for training and for `condgen data check`.

A `Survey` has every sample, usable or not, and every problem. Training refuses by the problems (or leaves the samples out);
the check reports them.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from condgen.conditions import Label, Schema
from condgen.data.problems import Problem, counted, refusal
from condgen.data.store import Column, Content, pictured_names
from condgen.errors import BadInput

HELD_OUT = 0.1
"""Part of a set without splits that becomes "test"."""
FLOOR = 10
"""Names that a set of 100 or more holds out at least; the hash alone gives a set of 300 more than that."""


@dataclass
class Survey:
    """Everything that is known about a source.

    Args:
        source: as a person wrote it.
        where: the name of each sample for messages, such as a file or a line.
        keys: what decides whether a sample is held out: its file name.
        splits: each sample's split, or None where the source says nothing.
        samples: the array that holds them, uint8 (n, h, w, c) or float32 (n, d); None where only checked.
        columns: values of each condition, n rows.
        digests: a hash of each sample's content; b"" for one that cannot be used.
        about: counts for the report: "sizes", "modes".
    """

    source: str
    where: list[str]
    keys: list[str]
    splits: list[str | None]
    schema: Schema = field(default_factory=dict)
    samples: np.ndarray | None = None
    columns: dict[str, Column] = field(default_factory=dict)
    digests: list[bytes] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    about: dict[str, Counter[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.where)

    def bad(self) -> set[int]:
        """Samples that cannot be used."""
        return {p.sample for p in self.problems if p.stops and p.sample is not None}

    def good(self) -> np.ndarray:
        """Rows of the samples that can be used."""
        bad = self.bad()
        return np.array([i for i in range(len(self)) if i not in bad], dtype=np.int64)

    def labels(self) -> dict[str, tuple[Label, Tensor]]:
        """The Label conditions with their values."""
        return {k: (c, v) for k, c in self.schema.items() if isinstance(c, Label) and isinstance(v := self.columns.get(k), Tensor)}


def finish(survey: Survey, stops_if_empty: bool = True) -> None:
    """Decide the splits, and look at what can only be seen in the whole: classes without pictures, doubles.

    `stops_if_empty`: whether a class without any picture is a reason to refuse; not where the schema was given from outside.
    """
    _complete_splits(survey)
    _check_classes(survey, stops_if_empty)
    _check_doubles(survey)


# --- splits ---------------------------------------------------------------------------------------------------------------


def _complete_splits(survey: Survey) -> None:
    good = survey.good()
    said = [i for i in good if survey.splits[i]]
    if said and len(said) < len(good):
        for i in sorted(set(good) - set(said)):
            what = "says no split, others do"
            survey.problems.append(Problem("no_split", survey.where[i], what, "Fill in the split column", sample=int(i)))
    elif {survey.splits[i] for i in good} <= {None, "train"}:
        _hold_out(survey, good)


def _hold_out(survey: Survey, good: np.ndarray) -> None:
    held_out = held_out_by_name([survey.keys[i] for i in good], _groups(survey, good))
    for i, out in zip(good, held_out, strict=True):
        survey.splits[i] = "test" if out else "train"
    if any(held_out):
        survey.notes.append(f"{sum(held_out)} of {len(good)} samples are held out as 'test', chosen by a hash of their names")


def _groups(survey: Survey, good: np.ndarray) -> list[int]:
    first = next(iter(survey.labels().values()), None)
    return [int(first[1][i]) for i in good] if first else [0] * len(good)


def held_out_by_name(keys: Sequence[str], groups: Sequence[int], fraction: float = HELD_OUT) -> list[bool]:
    """Which samples are held out: those whose name has a low hash, so that adding pictures moves no other.

    Samples of one name stay together, and every group keeps a name. In a small set chance alone might leave next to none: it
    gives its `fraction`, up to `FLOOR` names, of lowest hash, where groups can spare them; adding pictures then moves few.
    """
    score = {key: int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64 for key in keys}
    of_group: dict[int, set[str]] = defaultdict(set)
    for key, group in zip(keys, groups, strict=True):
        of_group[group].add(key)
    kept = {max(names, key=score.__getitem__) for names in of_group.values()}
    out = {key for key in score if score[key] < fraction and key not in kept}
    floor = min(max(1, round(fraction * len(score))), FLOOR)
    if len(out) < floor:
        out = set(sorted(set(score) - kept, key=score.__getitem__)[:floor])
    return [key in out for key in keys]


# --- what only the whole shows --------------------------------------------------------------------------------------------


def _check_classes(survey: Survey, stops_if_empty: bool) -> None:
    good = survey.good()
    in_train = [i for i in good if survey.splits[i] == "train"]
    for name, (condition, values) in survey.labels().items():
        total, train = (np.bincount(values.numpy()[rows].astype(np.int64), minlength=len(condition.names)) for rows in (good, in_train))
        for label, count, trained in zip(condition.names, total, train, strict=True):
            where = f"{name} {label!r}"
            if count == 0:
                remedy = "Add pictures of it, or remove the class"
                survey.problems.append(Problem("empty_class", where, "this class has no usable picture", remedy, stops_if_empty))
            elif count == 1:
                remedy = "Add more, or remove the class"
                survey.problems.append(Problem("class_of_one", where, "this class has a single picture", remedy, stops=False))
            elif trained == 0 and in_train:
                remedy = "Move some of its pictures to train, if it is to be learned"
                survey.problems.append(Problem("class_not_in_train", where, "no picture of this class is in train", remedy, stops=False))


def _check_doubles(survey: Survey) -> None:
    first: dict[bytes, int] = {}
    for i in survey.good():
        digest = survey.digests[i]
        before = first.setdefault(digest, int(i))
        if before != i and survey.keys[before] != survey.keys[i]:
            across = {survey.splits[before], survey.splits[i]}
            leak = f", across {' and '.join(sorted(map(str, across)))}" if len(across) > 1 else ""
            what = f"is the same, byte for byte, as {survey.keys[before]}{leak}"
            survey.problems.append(Problem("duplicate", survey.keys[i], what, "Remove one of the two", stops=False))


# --- for training ---------------------------------------------------------------------------------------------------------


def contents(survey: Survey, skip_bad: bool, into: Path | None = None) -> dict[str, Content]:
    """Every split, ready to be stored. With `into`, samples that lie on disk are written to `into/SPLIT/samples.npy`.

    Raises BadInput naming the problems, unless `skip_bad` leaves out the samples concerned and says how many.
    """
    stopping = [p for p in survey.problems if p.stops]
    skippable = [p for p in stopping if p.sample is not None or p.kind == "empty_class"]
    if stopping and not (skip_bad and len(skippable) == len(stopping)):
        raise refusal(survey.source, [p for p in stopping if not skip_bad or p not in skippable])
    good = survey.good()
    if not len(good):
        raise BadInput(f"{survey.source} has no usable sample")
    notes = list(survey.notes)
    if stopping:
        notes.append(f"skipped {len(survey) - len(good)} of {len(survey)} samples: {counted(stopping)}")
    notes += [str(p) for p in survey.problems if not p.stops][:5]
    assert survey.samples is not None
    names = np.array([str(survey.splits[i]) for i in good])
    splits = dict.fromkeys(names.tolist())
    return {split: _split(survey, good[names == split], notes, into / split if into else None) for split in splits}


def _split(survey: Survey, rows: np.ndarray, notes: list[str], into: Path | None) -> Content:
    assert survey.samples is not None
    columns: dict[str, Column] = {k: v[torch.from_numpy(rows)] for k, v in survey.columns.items() if isinstance(v, Tensor)}
    for i, name in enumerate(pictured_names(survey.columns)):
        columns[name] = _rows_of(np.asarray(survey.columns[name]), rows, into / f"picture-{i}.npy" if into else None)
    return Content(_rows_of(survey.samples, rows, into / "samples.npy" if into else None), columns, survey.schema, notes)


def _rows_of(array: np.ndarray, rows: np.ndarray, path: Path | None) -> np.ndarray:
    return array[rows] if path is None else copied(array, rows, path)


def copied(array: np.ndarray, rows: np.ndarray, path: Path) -> np.ndarray:
    """These rows of an array as a new array on disk, a part at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=array.dtype, shape=(len(rows), *array.shape[1:]))
    for start in range(0, len(rows), 4096):
        out[start : start + 4096] = array[rows[start : start + 4096]]
    out.flush()
    return out
