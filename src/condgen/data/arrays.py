"""The survey of an .npz: `x` and one array per condition, which no pickle can enter."""

import hashlib
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch

from condgen.conditions import Attributes, Box, Condition, Keypoints, Label, Picture, Schema, Text, Vector, schema_from_json
from condgen.data.columns import Framing, read_column
from condgen.data.images import Look, resized, view_of
from condgen.data.infer import MAX_FEW, described, is_class, label_names
from condgen.data.places import check_members
from condgen.data.problems import Problem
from condgen.data.store import Column
from condgen.data.survey import Survey, finish
from condgen.errors import BadInput, unknown

SPLIT = "split"
MAX_BYTES = 64 << 30
NUMBERS = "biuf"


def survey_arrays(source: str, path: Path, size: int | None = None, schema: Schema | None = None) -> Survey:
    """Read an .npz; with `size`, the central square of each picture is resized to it.

    `x` is uint8 (n, h, w) or (n, h, w, c), c of 1 or 3, or float in [-1, 1] or [0, 1] of that shape, or float points (n, d). Each other
    array has n rows; `split` says each row's split. NAME.schema.json beside NAME.npz says the schema, else it is inferred.
    """
    arrays = read_npz(path)
    x = arrays.pop("x", None)
    if x is None:
        raise unknown(f"array in {path}: 'x' is missing; near", "x", arrays)
    notes: list[str] = []
    samples = _samples(x, path, notes)
    n = len(samples)
    if not n:
        raise BadInput(f"{path}: x has no rows")
    if wrong := {k: len(v) if v.ndim else "no" for k, v in arrays.items() if not v.ndim or len(v) != n}:
        raise BadInput(f"{path}: x has {n} rows, but " + ", ".join(f"{k} has {count}" for k, count in wrong.items()))
    splits: list[str | None] = [_word(s) for s in arrays.pop(SPLIT)] if SPLIT in arrays else [None] * n
    rows = [f"row {i}" for i in range(n)]
    survey = Survey(source, rows, rows, splits, samples=samples, notes=notes)
    given = schema if schema is not None else _schema_beside(path)
    survey.schema = given if given is not None else _inferred(arrays, notes)
    _read_columns(survey, arrays, _framing(samples, size))
    _check_points(survey)
    survey.digests = [hashlib.sha256(row.tobytes()).digest() for row in samples]
    survey.about["sizes"] = Counter({"x".join(map(str, samples.shape[1:-1] or samples.shape[1:])): n})
    if size:
        survey.samples = _resized(samples, size, notes)
    finish(survey, stops_if_empty=schema is None)
    return survey


# --- the file -------------------------------------------------------------------------------------------------------------


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Every array. Raises BadInput for what is no .npz, for objects (they would need pickle), and for headers that lie."""
    try:
        with ZipFile(path) as archive:
            check_members(path, archive.infolist(), MAX_BYTES, max_ratio=1100)
            names = [m.filename for m in archive.infolist()]
            return {name.removesuffix(".npy"): _read_array(archive, name, path) for name in names}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as error:
        raise BadInput(f"{path} cannot be read as .npz: {error}") from None


def _read_array(archive: ZipFile, name: str, path: Path) -> np.ndarray:
    with archive.open(name) as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, fortran, dtype = read_header(file)
        except (ValueError, KeyError) as error:
            raise BadInput(f"{path}: {name} is not an array ({error})") from None
        if dtype.hasobject or dtype.kind not in NUMBERS + "US":
            raise BadInput(f"{path}: array {name.removesuffix('.npy')!r} is of dtype {dtype}; expected numbers or text (str), not objects")
        wanted = int(np.prod(shape, dtype=object)) * dtype.itemsize
        left = archive.getinfo(name).file_size - file.tell()
        if wanted != left:
            raise BadInput(f"{path}: {name} says {shape} {dtype}, which is {wanted} bytes, but holds {left}")
        flat = np.frombuffer(file.read(), dtype=dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _samples(x: np.ndarray, path: Path, notes: list[str]) -> np.ndarray:
    if x.ndim == 2 and x.dtype.kind == "f":
        notes.append(f"{len(x)} points of {x.shape[1]} dimensions")
        return x.astype(np.float32)
    pictures = x[..., None] if x.ndim == 3 else x
    if pictures.ndim != 4 or pictures.shape[-1] not in (1, 3) or x.dtype.kind not in "uf" or (x.dtype.kind == "u" and x.dtype != np.uint8):
        hint = "; transpose it by x.transpose(0, 2, 3, 1)" if x.ndim == 4 and x.shape[1] in (1, 3) else ""
        expected = "uint8 or float (n, h, w) or (n, h, w, 1 or 3), or float (n, d)"
        raise BadInput(f"{path}: x is {x.dtype} {x.shape}; expected {expected}{hint}")
    notes.append(f"{len(x)} pictures of {pictures.shape[2]}x{pictures.shape[1]} px, {'gray' if pictures.shape[-1] == 1 else 'RGB'}")
    return pictures if x.dtype == np.uint8 else _from_floats(pictures, path, notes)


def _from_floats(pictures: np.ndarray, path: Path, notes: list[str]) -> np.ndarray:
    low, high = float(pictures.min()), float(pictures.max())
    if not (low >= -1 and high <= 1):
        raise BadInput(f"{path}: x has values from {low:g} to {high:g}; expected [0, 1] or [-1, 1] (or uint8)")
    notes.append(f"x is read as floats in {'[-1, 1]' if low < 0 else '[0, 1]'} and kept as 8 bits")
    unit = (pictures.astype(np.float64) + 1) / 2 if low < 0 else pictures.astype(np.float64)
    return np.round(unit * 255).astype(np.uint8)


def _resized(samples: np.ndarray, size: int, notes: list[str]) -> np.ndarray:
    if samples.ndim != 4:
        raise BadInput(f"points have no size in px; leave out size (given: {size})")
    if samples.shape[1:3] == (size, size):
        return samples
    notes.append(f"cropped to the central square and resized to {size} px")
    return np.stack([resized(picture, size) for picture in samples])


def _framing(samples: np.ndarray, size: int | None) -> Framing | None:
    """Positions in an .npz are relative; a crop moves them."""
    if size is None or samples.ndim != 4:
        return None
    look = Look(samples.shape[2], samples.shape[1], True)
    return Framing(look, view_of(look, size), relative=True)


# --- conditions -----------------------------------------------------------------------------------------------------------


def _schema_beside(path: Path) -> Schema | None:
    beside = path.with_suffix(".schema.json")
    try:
        return schema_from_json(json.loads(beside.read_text())) if beside.exists() else None
    except ValueError as error:
        raise BadInput(f"{beside}: {error}") from None


def _inferred(arrays: dict[str, np.ndarray], notes: list[str]) -> Schema:
    schema: Schema = {}
    for name, array in arrays.items():
        found = _condition(name, array)
        if isinstance(found, Condition):
            schema[name] = found
            notes.append(f"array {name!r} -> {described(found)}")
        else:
            notes.append(f"array {name!r} is left out: {found}")
    return schema


def _condition(name: str, array: np.ndarray) -> Condition | str:
    """By name and shape: whole numbers and words are labels where few, floats are attributes or a vector."""
    n, shape = len(array), array.shape[1:]
    if array.dtype.kind in "US":
        return _of_words(name, array) if not shape else "it holds several texts a row"
    if not shape:
        return _of_numbers(name, array)
    if name in ("box", "bbox") and shape == (4,):
        return Box()
    if name == "keypoints" and len(shape) == 2 and shape[1] == 3:
        return Keypoints(tuple(str(i) for i in range(shape[0])))
    if len(shape) == 1:
        return _of_rows(name, array)
    if len(shape) == 3 and shape[2] in (1, 3) and array.dtype == np.uint8:
        return Picture((shape[2], shape[0], shape[1]))
    return f"shape {(n, *shape)} of {array.dtype} is no known condition"


def _of_words(name: str, array: np.ndarray) -> Condition:
    words = [_word(v) for v in array]
    distinct = len(set(words))
    if is_class(name) or (distinct <= len(words) / 2 and distinct <= max(MAX_FEW, len(words) / 20)):
        return Label(label_names(words))
    return Text(min(256, max(8, 8 * -(-max(len(w.encode()) for w in words) // 8))))


def _of_numbers(name: str, array: np.ndarray) -> Condition | str:
    whole = array.dtype.kind in "iub"
    distinct = len(np.unique(array))
    if is_class(name) or (whole and array.dtype.kind != "b" and distinct <= max(MAX_FEW, len(array) / 20) and distinct <= len(array) / 2):
        return Label(label_names(array.tolist()))
    return _attributes((name,), array[:, None])


def _of_rows(name: str, array: np.ndarray) -> Condition:
    if array.dtype == np.uint8 and array.max() > 1:
        return Text(array.shape[1])
    if name == "attributes" or set(np.unique(array[: 1 << 16]).tolist()) <= {0, 1}:
        return _attributes(tuple(f"{name}_{i}" for i in range(array.shape[1])), array)
    return Vector(array.shape[1])


def _attributes(names: tuple[str, ...], array: np.ndarray) -> Attributes:
    finite = [column[np.isfinite(column)] for column in array.astype(np.float64).T]
    binary = tuple(set(np.unique(v).tolist()) <= {0.0, 1.0} for v in finite)
    low = tuple(0.0 if b else float(v.min()) for b, v in zip(binary, finite, strict=True))
    high = tuple(1.0 if b else float(v.max()) for b, v in zip(binary, finite, strict=True))
    return Attributes(names, low, high, binary)


def _word(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _read_columns(survey: Survey, arrays: dict[str, np.ndarray], framing: Framing | None) -> None:
    for name, condition in survey.schema.items():
        if name not in arrays:
            raise unknown(f"array for condition {name!r}; near", name, arrays)
        survey.columns[name] = _column(survey, name, condition, arrays[name], framing)


def _column(survey: Survey, name: str, condition: Condition, array: np.ndarray, framing: Framing | None) -> Column:
    if isinstance(condition, (Picture, Text)) and array.dtype == np.uint8:
        return _as_it_is(name, condition, array)
    words: Sequence[Any] = [_word(v) for v in array] if array.dtype.kind in "SU" else array.tolist()
    values, problems = read_column(name, condition, [{name: w} for w in words], [framing] * len(words), survey.where)
    survey.problems += problems
    return values


def _as_it_is(name: str, condition: Condition, array: np.ndarray) -> Column:
    """Pixels and bytes of text, as they are stored."""
    shape = condition.shape if isinstance(condition, Text) else (*condition.shape[1:], condition.shape[0])
    if array.shape[1:] != shape:
        raise BadInput(f"array {name!r} has shape {array.shape}; its condition expects (n, {', '.join(map(str, shape))})")
    return torch.from_numpy(array.copy()) if isinstance(condition, Text) else array


def _check_points(survey: Survey) -> None:
    samples = survey.samples
    assert samples is not None
    if samples.dtype == np.uint8:
        return
    for i in np.flatnonzero(~np.isfinite(samples).all(1)):
        what = "x holds a value that is not a finite number"
        survey.problems.append(Problem("nan", f"row {i}", what, "Correct or remove it", sample=int(i)))
