"""A prepared split: samples and condition values on disk, mapped into memory, gathered by row.

Pictures are decoded once into uint8 (n, h, w, c); a batch is one `take` and one conversion, so that training needs no worker
processes. Points are float32 (n, d).
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from condgen.conditions import Condition, Schema, Values, schema_from_json, schema_to_json
from condgen.errors import BadInput

FORMAT = 1
IN_MEMORY_BYTES = 256 << 20
"""Samples up to this size are read whole; larger ones stay on disk and are mapped."""

Column = Tensor | np.ndarray
"""All values of one condition: a tensor (n, *shape), or for a `Picture` the decoded uint8 (n, h, w, c)."""


@dataclass(frozen=True)
class Batch:
    """What training consumes: samples x, float32 (b, *shape), pictures in [-1, 1]; conditions c, one row a sample."""

    x: Tensor
    c: Values


@dataclass(frozen=True)
class Content:
    """One split as its source delivers it.

    Args:
        samples: uint8 (n, h, w, c) or float32 (n, d).
        columns: the values of every condition of the schema, n rows each.
        schema: the conditions.
        notes: what was inferred, skipped or changed, for the person to read.
    """

    samples: np.ndarray
    columns: Mapping[str, Column]
    schema: Schema
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in self.schema:
            if len(self.columns[name]) != len(self.samples):
                raise BadInput(f"condition {name!r} has {len(self.columns[name])} values for {len(self.samples)} samples")


def fingerprint(content: Content) -> str:
    """SHA-256 over samples, condition values and schema: equal content, equal fingerprint."""
    total = hashlib.sha256(json.dumps(schema_to_json(content.schema), sort_keys=True).encode())
    for name, array in [("", content.samples), *((k, _array(content.columns[k])) for k in sorted(content.schema))]:
        total.update(json.dumps([name, str(array.dtype), array.shape]).encode())
        for start in range(0, len(array), 4096):
            total.update(np.ascontiguousarray(array[start : start + 4096]).tobytes())
    return total.hexdigest()


def _array(column: Column) -> np.ndarray:
    return column.numpy() if isinstance(column, Tensor) else column


def to_float(pictures: np.ndarray) -> Tensor:
    """uint8 (n, h, w, c) as float32 (n, c, h, w) in [-1, 1]."""
    n, h, w, c = pictures.shape
    return torch.empty(n, c, h, w).copy_(torch.from_numpy(pictures).permute(0, 3, 1, 2)).div_(127.5).sub_(1)


def to_bytes(x: Tensor) -> np.ndarray:
    """float (n, c, h, w) in [-1, 1] as uint8 (n, h, w, c), rounded; what lies outside is clipped."""
    scaled = x.detach().float().add(1).mul(127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


class Dataset:
    """One split of a prepared set, or a slice of one.

    Args:
        name: the source as a person wrote it.
        split: such as "train" or "train[:50000]".
        content: samples, condition values, schema and notes.
        known_fingerprint: where it was computed before.
    """

    def __init__(self, name: str, split: str, content: Content, known_fingerprint: str | None = None):
        self.name, self.split = name, split
        self.content = content
        self.schema: Schema = dict(content.schema)
        self.notes = list(content.notes)
        if known_fingerprint:
            self.__dict__["fingerprint"] = known_fingerprint

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over pixels, condition values and schema: equal content <=> equal fingerprint."""
        return fingerprint(self.content)

    @property
    def shape(self) -> tuple[int, ...]:
        """(c, h, w) of a picture, or (d,) of a point."""
        kept = self.content.samples.shape[1:]
        return (kept[2], kept[0], kept[1]) if len(kept) == 3 else tuple(kept)

    def __len__(self) -> int:
        return len(self.content.samples)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {self.split!r}: {len(self)} samples {self.shape}, conditions: {', '.join(self.schema) or 'none'})"

    def batch(self, rows: ArrayLike | Tensor) -> Batch:
        """The samples and conditions of these rows, gathered into new tensors. Raises IndexError for a row that is not there."""
        taken = np.take(self.content.samples, np.asarray(rows, dtype=np.int64), axis=0)
        x = to_float(taken) if taken.ndim == 4 else torch.from_numpy(taken)
        return Batch(x, self.values(rows))

    def values(self, rows: ArrayLike | Tensor | None = None) -> Values:
        """Condition values of these rows, or of all; new tensors, one row a sample."""
        return {name: _gather(self.content.columns[name], rows) for name in self.schema}

    def pictures(self, rows: ArrayLike | Tensor | None = None) -> np.ndarray:
        """Pictures as uint8 (n, h, w, c). Raises BadInput for a set of points."""
        if self.content.samples.ndim != 4:
            raise BadInput(f"{self.name!r} holds points of shape {self.shape}, not pictures")
        return np.array(self.content.samples if rows is None else np.take(self.content.samples, np.asarray(rows, dtype=np.int64), axis=0))

    def with_column(self, name: str, condition: Condition, values: Tensor) -> "Dataset":
        """The same samples with one condition more (or another of that name), a row a sample; another fingerprint."""
        schema, columns = {**self.content.schema, name: condition}, {**self.content.columns, name: values}
        return Dataset(self.name, self.split, dataclasses.replace(self.content, schema=schema, columns=columns, notes=self.notes))

    def slice(self, start: int, stop: int, split: str = "") -> "Dataset":
        """Rows start to stop (excluded), sharing memory with this one. Raises BadInput where none is left."""
        start, stop, _ = slice(start, stop).indices(len(self))
        if start >= stop:
            raise BadInput(f"split {split!r} is empty: {self.name!r} {self.split!r} has {len(self)} samples")
        content = self.content
        part = dataclasses.replace(
            content, samples=content.samples[start:stop], columns={k: content.columns[k][start:stop] for k in self.schema}, notes=self.notes
        )
        whole = stop - start == len(self)
        return Dataset(self.name, split or f"{self.split}[{start}:{stop}]", part, self.fingerprint if whole else None)


def _gather(column: Column, rows: ArrayLike | Tensor | None) -> Tensor:
    if isinstance(column, Tensor):
        return column.clone() if rows is None else column[torch.as_tensor(np.asarray(rows, dtype=np.int64))]
    return to_float(np.array(column) if rows is None else np.take(column, np.asarray(rows, dtype=np.int64), axis=0))


# --- on disk --------------------------------------------------------------------------------------------------------------


def write(folder: Path, content: Content) -> None:
    """Write one split into an existing folder. Samples that already lie there as `samples.npy` are not written again."""
    from safetensors.torch import save_file

    if not (folder / "samples.npy").exists():
        np.save(folder / "samples.npy", content.samples, allow_pickle=False)
    plain = {k: v.contiguous() for k in content.schema if isinstance(v := content.columns[k], Tensor)}
    save_file(plain, folder / "conditions.safetensors")
    pictured = pictured_names(content.columns)
    for i, name in enumerate(pictured):
        if not (folder / f"picture-{i}.npy").exists():
            np.save(folder / f"picture-{i}.npy", content.columns[name], allow_pickle=False)
    facts = {
        "format": FORMAT,
        "schema": schema_to_json(content.schema),
        "pictured": pictured,
        "notes": content.notes,
        "fingerprint": fingerprint(content),
        "bytes": {f.name: f.stat().st_size for f in sorted(folder.iterdir())},
    }
    (folder / "store.json").write_text(json.dumps(facts))


def pictured_names(columns: Mapping[str, Column]) -> list[str]:
    """Conditions whose values are pictures; the i-th is stored as picture-i.npy."""
    return sorted(name for name, column in columns.items() if not isinstance(column, Tensor))


def facts_of(folder: Path) -> dict[str, Any] | None:
    """What store.json says, or None where the store is absent, damaged or of another format."""
    try:
        facts = json.loads((folder / "store.json").read_text())
        whole = facts["format"] == FORMAT and all((folder / name).stat().st_size == size for name, size in facts["bytes"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return facts if whole else None


def read(folder: Path, name: str, split: str) -> Dataset:
    """Open a split that `write` made. Raises BadInput where it is damaged."""
    from safetensors.torch import load_file

    facts = facts_of(folder)
    if facts is None:
        raise BadInput(f"the prepared data in {folder} is damaged; delete that folder and load again")
    schema = schema_from_json(facts["schema"])
    columns: dict[str, Column] = dict(load_file(folder / "conditions.safetensors"))
    for i, pictured in enumerate(facts["pictured"]):
        columns[pictured] = _open(folder / f"picture-{i}.npy")
    content = Content(_open(folder / "samples.npy"), columns, schema, facts["notes"])
    return Dataset(name, split, content, facts["fingerprint"])


def _open(path: Path) -> np.ndarray:
    mapped = path.stat().st_size > IN_MEMORY_BYTES
    return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
