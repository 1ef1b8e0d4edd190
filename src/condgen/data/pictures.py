"""The survey of a folder or zip of pictures."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from condgen.conditions import Label, Picture, Schema, schema_from_json
from condgen.data.columns import Framing, cut_short, has_column, positions_are_relative, read_column
from condgen.data.images import Look, Unreadable, view_of
from condgen.data.infer import PICTURE_SUFFIX, infer
from condgen.data.pixels import Decoded, Sheet, decoded, looks
from condgen.data.places import Place
from condgen.data.problems import Problem
from condgen.data.survey import Survey, finish
from condgen.data.table import Record, Table, parsed_json, read_table
from condgen.errors import BadInput

SCHEMA_FILE = "schema.json"
REMEDIES = {"unreadable": "Replace or remove the file", "bomb": "Make it smaller, or remove it"}


@dataclass(frozen=True)
class Wish:
    """How a person wants the pictures: their size in px, and the conditions; None for the data's own."""

    size: int | None = None
    schema: Schema | None = None


def survey_pictures(source: str, place: Place, wish: Wish, into: Path | None = None) -> Survey:
    """Read everything that training would read. Boxes and points are in px of the picture as shown, after its EXIF orientation.

    Args:
        source: as a person wrote it.
        place: the folder or zip.
        wish: size and schema.
        into: where decoded pixels go; None decodes and drops them.
    """
    table = read_table(place)
    records = table.records
    survey = Survey(source, [r.where for r in records], [r.file or r.where for r in records], [r.split for r in records])
    survey.problems, survey.notes = table.problems, table.notes
    seen = _look(place, survey, [r.file for r in records])
    given = wish.schema if wish.schema is not None else _schema_file(place)
    survey.schema = given if given is not None else _inferred(place, survey, table, wish)
    _read_columns(place, survey, records, seen, wish, into)
    _decode(place, survey, [r.file for r in records], seen, wish.size, into)
    finish(survey, stops_if_empty=wish.schema is None)
    return survey


def _schema_file(place: Place) -> Schema | None:
    return schema_from_json(parsed_json(place, SCHEMA_FILE)) if SCHEMA_FILE in place.files else None


# --- looking --------------------------------------------------------------------------------------------------------------


def _look(place: Place, survey: Survey, files: list[str]) -> list[Look | None]:
    """The header of each picture, None where the sample is lost; says sizes, and complains where they are mixed."""
    lost = {p.sample for p in survey.problems if p.kind == "row_without_picture"}
    here = [i for i in range(len(files)) if i not in lost]
    seen: list[Look | None] = [None] * len(files)
    for i, look in zip(here, looks(place, [files[i] for i in here]), strict=True):
        if isinstance(look, Unreadable):
            survey.problems.append(_unreadable(files[i], look, i))
        else:
            seen[i] = look
    survey.about["sizes"] = Counter(f"{look.width}x{look.height}" for look in seen if look)
    survey.about["modes"] = Counter("gray" if look.gray else "colour" for look in seen if look)
    return seen


def _unreadable(file: str, error: Unreadable, sample: int) -> Problem:
    return Problem(error.kind, file, str(error), REMEDIES[error.kind], sample=sample)


def _mixed(files: Sequence[str], seen: Sequence[Look | None]) -> Problem | None:
    """Names the first picture of the most frequent size and the first that differs."""
    sizes = [(look.width, look.height) if look else None for look in seen]
    counts = Counter(size for size in sizes if size)
    if len(counts) < 2:
        return None
    usual = counts.most_common(1)[0][0]
    other = next(size for size in sizes if size and size != usual)
    a, b = files[sizes.index(usual)], files[sizes.index(other)]
    what = f"{a} has {usual[0]}x{usual[1]} px, {b} has {other[0]}x{other[1]} ({len(counts)} sizes in all)"
    side = 2 ** (min(min(size) for size in counts).bit_length() - 1)
    return Problem("mixed_sizes", b, what, f"Give one: --size {max(side, 8)} takes the central square of each and resizes it")


# --- conditions -----------------------------------------------------------------------------------------------------------


def _inferred(place: Place, survey: Survey, table: Table, wish: Wish) -> Schema:
    unsaid = {p.sample for p in survey.problems if p.kind == "picture_without_row"}
    rows = [r.words for i, r in enumerate(table.records) if i not in unsaid]
    found = infer(rows, _picture_size(place, rows, wish.size))
    survey.notes += found.notes
    return _with_empty_classes(found.schema, table)


def _with_empty_classes(schema: Schema, table: Table) -> Schema:
    """Class folders name the classes, also those that hold no picture."""
    return {**schema, table.classes_are: Label(table.classes)} if table.classes else schema


def _picture_size(place: Place, rows: Sequence[dict[str, Any]], size: int | None) -> Callable[[str], tuple[int, int, int]]:
    """(c, h, w) of the pictures that a column names; the first decides where `size` is not given."""

    def of(column: str) -> tuple[int, int, int]:
        files = sorted({str(row[column]) for row in rows if row.get(column)} & set(place.files))
        seen = [look for look in looks(place, files) if isinstance(look, Look)]
        if not seen:
            raise BadInput(f"column {column!r} names no picture that can be read")
        channels = 1 if all(look.gray for look in seen) else 3
        return (channels, size or seen[0].height, size or seen[0].width)

    return of


def _read_columns(place: Place, survey: Survey, records: Sequence[Record], seen: list[Look | None], wish: Wish, into: Path | None) -> None:
    unsaid = {p.sample for p in survey.problems if p.kind in ("picture_without_row", "row_without_picture")}
    rows = [r.words for r in records]
    columns = list(dict.fromkeys(k for row in rows for k in row))
    for number, (name, condition) in enumerate(survey.schema.items()):
        if not has_column(condition, name, columns):
            raise BadInput(f"condition {name!r} has no column; columns: {', '.join(columns) or 'none'}")
        if isinstance(condition, Picture):
            path = into / f"condition-{number}.npy" if into else None
            survey.columns[name] = _read_pictures(place, survey, name, condition, records, path)
            continue
        framings = _framings(seen, wish.size, positions_are_relative(condition, name, rows))
        values, problems = read_column(name, condition, rows, framings, survey.where)
        survey.columns[name] = values
        survey.problems += [p for p in problems if p.sample not in unsaid]
        if cut := cut_short(condition, name, rows):
            survey.notes.append(f"{cut} texts of {name!r} are cut to {condition.shape[0]} bytes")


def _framings(seen: Sequence[Look | None], size: int | None, relative: bool) -> list[Framing | None]:
    return [Framing(look, view_of(look, size), relative) if look else None for look in seen]


def _read_pictures(place: Place, survey: Survey, name: str, condition: Picture, records: Sequence[Record], path: Path | None) -> np.ndarray:
    """A Picture condition, decoded as uint8 (n, h, w, c)."""
    c, h, w = condition.size
    files = [str(r.words.get(f"{name}{PICTURE_SUFFIX}") or r.words.get(name) or "") for r in records]
    sheet = Sheet(path, len(files), h, w, c)
    lost = {p.sample for p in survey.problems if p.kind == "picture_without_row"}
    for i, got in zip(range(len(files)), decoded(place, files, h if h == w else None), strict=True):
        if i in lost:
            continue
        if isinstance(got, Unreadable):
            what = f"{name}: {files[i]!r} {got}"
            survey.problems.append(Problem(got.kind, records[i].where, what, "Correct or remove the row", sample=i))
        elif got.pixels.shape[:2] != (h, w):
            what = f"{name}: {files[i]!r} has {got.pixels.shape[1]}x{got.pixels.shape[0]} px, expected {w}x{h}"
            survey.problems.append(Problem("mixed_sizes", records[i].where, what, "Give one size: --size 64", sample=i))
        else:
            sheet.put(i, got.pixels)
    return np.broadcast_to(np.uint8(0), (len(files), h, w, c)) if sheet.array is None else sheet.array


# --- decoding -------------------------------------------------------------------------------------------------------------


def _decode(place: Place, survey: Survey, files: list[str], seen: list[Look | None], size: int | None, into: Path | None) -> None:
    readable = [i for i, look in enumerate(seen) if look]
    survey.digests = [b""] * len(files)
    mixed = None if size else _mixed(files, seen)
    if mixed:
        survey.problems.append(mixed)
    sheet = _sheet(seen, size, None if mixed else into)
    for i, got in zip(readable, decoded(place, [files[i] for i in readable], size), strict=True):
        if isinstance(got, Decoded):
            survey.digests[i] = got.digest
            sheet.put(i, got.pixels)
        else:
            survey.problems.append(_unreadable(files[i], got, i))
    survey.samples = sheet.kept()
    if survey.samples is not None:
        survey.notes.insert(0, _shape_note(survey, size))


def _sheet(seen: Sequence[Look | None], size: int | None, into: Path | None) -> Sheet:
    first = next((look for look in seen if look), Look(1, 1, True))
    width, height = view_of(first, size).to
    channels = 1 if all(look.gray for look in seen if look) else 3
    return Sheet(into / "all.npy" if into else None, len(seen), height, width, channels)


def _shape_note(survey: Survey, size: int | None) -> str:
    assert survey.samples is not None
    n, h, w, c = survey.samples.shape
    resized = sum(count for found, count in survey.about["sizes"].items() if found != f"{w}x{h}")
    how = f"; {resized} were cropped to their central square and resized" if resized else ""
    return f"{n} pictures of {w}x{h} px, {'gray' if c == 1 else 'RGB'}{how}"
