"""What a folder or zip says about its pictures: a metadata file, StyleGAN's dataset.json, two domains, or class folders, as one table."""

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeVar

from condgen.data.images import NOT_READ, READ
from condgen.data.places import Place
from condgen.data.problems import Problem
from condgen.errors import BadInput

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
CANONICAL = {word: split for split, words in SPLIT_FOLDERS.items() for word in words}
DOMAINS = ("A", "B")
DOMAIN_FOLDER = re.compile(rf"({'|'.join(CANONICAL)})[_-]?([AB])", re.IGNORECASE)
"""trainA, testB and the like, as CycleGAN's sets have them."""

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """One sample: its picture's name in the place, what is said about it, where that is said, and its split if it has one."""

    file: str
    words: dict[str, Any]
    where: str
    split: str | None = None


@dataclass
class Table:
    """All records, the classes that have a folder, the condition that these are, and what is wrong or worth saying."""

    records: list[Record] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    classes_are: str = "label"
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lacks_row(self, name: str, what: str, remedy: str) -> None:
        """Nothing is said about the picture that is the next record."""
        self.problems.append(Problem("picture_without_row", name, what, remedy, sample=len(self.records)))

    def add_lost(self, record: Record, what: str) -> None:
        """A record without its picture."""
        remedy = "Add the picture, or remove the row"
        self.problems.append(Problem("row_without_picture", record.where, what, remedy, sample=len(self.records)))
        self.records.append(record)


def read_table(place: Place) -> Table:
    """Raises BadInput where there is no picture, or a metadata file cannot be read at all."""
    pictures = [name for name in place.files if name.lower().endswith(READ + NOT_READ)]
    table = Table()
    if not pictures:
        raise BadInput(f"no pictures found; expected files ending in {', '.join(READ)}, in class folders or with a metadata.csv")
    metadata = [name for name in place.files if PurePosixPath(name).name in METADATA]
    if metadata:
        _from_metadata(place, metadata, pictures, table)
    elif "dataset.json" in place.files:
        _from_stylegan(place, pictures, table)
    elif any(_domain(name) for name in place.folders):
        _from_domains(pictures, table)
    else:
        _from_folders(place, pictures, table)
    _note_others(place, {*pictures, *metadata}, table)
    return table


def _note_others(place: Place, used: set[str], table: Table) -> None:
    others = [name for name in place.files if name not in used and PurePosixPath(name).name not in ("dataset.json", "schema.json")]
    if near := [name for name in others if PurePosixPath(name).stem.lower() == "metadata"]:
        table.problems.append(Problem("metadata_name", near[0], "is not read", f"Name it one of {', '.join(METADATA)}"))
    if others:
        listed = ", ".join(others[:3]) + (" ..." if len(others) > 3 else "")
        table.notes.append(f"{len(others)} files are not pictures and were not read: {listed}")


def in_split_folders(pictures: list[str]) -> bool:
    """Whether every picture lies in a folder such as train/ or test/."""
    return {name.split("/")[0].lower() if "/" in name else "" for name in pictures} <= set(CANONICAL)


def _folder_split(name: str) -> str:
    return CANONICAL[name.split("/")[0].lower()]


# --- class folders --------------------------------------------------------------------------------------------------------


def _from_folders(place: Place, pictures: list[str], table: Table) -> None:
    in_splits = in_split_folders(pictures)
    depth = 1 if in_splits else 0
    filled = {name.split("/")[depth] for name in pictures if name.count("/") > depth}
    table.classes = tuple(sorted(_class_folders(place.folders, depth))) if filled else ()
    for name in pictures:
        parts = name.split("/")
        words = {"label": parts[depth]} if len(parts) > depth + 1 else {}
        if filled and not words:
            table.lacks_row(name, "lies in no class folder", "Move it into the folder of its class")
        table.records.append(Record(name, words, name, _folder_split(name) if in_splits else None))


def _class_folders(folders: list[str], depth: int) -> set[str]:
    """First folders, or with depth 1 those below train/ and test/."""
    return {parts[depth] for name in folders if len(parts := name.split("/")) > depth and (not depth or parts[0].lower() in CANONICAL)}


# --- two domains ----------------------------------------------------------------------------------------------------------


def _domain(name: str) -> tuple[str, str] | None:
    """The split and the domain that the first folder of a name says.

    >>> _domain("trainB/n02391049_1.jpg")
    ('train', 'B')
    """
    found = DOMAIN_FOLDER.fullmatch(name.split("/")[0])
    return (CANONICAL[found[1].lower()], found[2].upper()) if found else None


def _from_domains(pictures: list[str], table: Table) -> None:
    """trainA and trainB, and testA and testB where they are: a picture a record. Raises BadInput where a domain has none to train on."""
    of: dict[tuple[str, str] | None, list[str]] = defaultdict(list)
    for name in pictures:
        of[_domain(name)].append(name)
    _require_both({domain: len(of["train", domain]) for domain in DOMAINS})
    for split in SPLIT_FOLDERS:
        both = [[Record(name, {"domain": domain}, name, split) for name in of[split, domain]] for domain in DOMAINS]
        table.records += in_turn(both)
        if sum(map(bool, both)) == 1:
            table.notes.append(f"{split} has pictures of one domain only")
    for name in of[None]:
        table.lacks_row(name, "lies in none of trainA, trainB, testA, testB", "Move it into the folder of its domain")
        table.records.append(Record(name, {}, name))
    table.classes, table.classes_are = DOMAINS, "domain"


def _require_both(counts: dict[str, int]) -> None:
    if empty := [f"train{domain}" for domain, n in counts.items() if not n]:
        have = ", ".join(f"train{domain} has {n}" for domain, n in counts.items() if n) or "there are only others"
        raise BadInput(
            f"no pictures in {' and '.join(empty)} ({have}); translation learns from two folders, trainA and trainB, with pictures of one "
            "domain in each, which need not be equally many"
        )


def in_turn(groups: Sequence[Sequence[T]]) -> list[T]:
    """All items of all groups, each group in its order and spread evenly, so that every slice holds of each its share.

    >>> "".join(in_turn(["aaaa", "bb"]))
    'abaaba'
    """
    places = [((i + 0.5) / len(group), k, i) for k, group in enumerate(groups) for i in range(len(group))]
    return [groups[k][i] for _, k, i in sorted(places)]


# --- StyleGAN's -----------------------------------------------------------------------------------------------------------


def _from_stylegan(place: Place, pictures: list[str], table: Table) -> None:
    labels = parsed_json(place, "dataset.json").get("labels") or []
    if not (isinstance(labels, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in labels)):
        raise BadInput('dataset.json: "labels" is not a list of [file name, label]')
    said = {str(name): label for name, label in labels}
    in_splits = in_split_folders(pictures)
    for name in pictures:
        words = {"label": said[name]} if name in said else {}
        if said and not words:
            table.lacks_row(name, "has no label in dataset.json", "Add it to the labels, or remove it")
        table.records.append(Record(name, words, name, _folder_split(name) if in_splits else None))
    for name in sorted(set(said) - set(pictures)):
        table.add_lost(Record(name, {}, f"dataset.json {name!r}"), "there is no such picture")


# --- metadata files -------------------------------------------------------------------------------------------------------


def _from_metadata(place: Place, files: list[str], pictures: list[str], table: Table) -> None:
    known = set(pictures)
    in_splits = in_split_folders(pictures)
    for file in files:
        folder = PurePosixPath(file).parent
        for where, row in _rows(place, file):
            record = _record(folder, row, where, in_splits)
            if record.file in known:
                table.records.append(record)
            else:
                table.add_lost(record, f"there is no picture {record.file!r}" if record.file else "file_name is empty")
    told = {record.file for record in table.records} | _referred(table.records)
    for name in pictures:
        if name not in told:
            table.lacks_row(name, "no metadata row names it", "Add a row for it, or remove it")
            table.records.append(Record(name, {}, name))
    if any(name.count("/") > int(in_splits) for name in pictures):
        table.notes.append("folders are not read as classes, because there is a metadata file")


def _record(folder: PurePosixPath, row: dict[str, Any], where: str, in_splits: bool) -> Record:
    words = {k: _inside(folder, v) if k.endswith("_file_name") else v for k, v in row.items() if k not in ("file_name", "split")}
    name, said = _inside(folder, row.get("file_name")), str(row.get("split") or "").strip()
    split = CANONICAL.get(said.lower(), said) or (_folder_split(name) if in_splits and in_split_folders([name]) else None)
    return Record(name, words, where, split)


def _inside(folder: PurePosixPath, name: Any) -> str:
    """The name in the place of what a metadata file in `folder` calls `name`."""
    return (folder / str(name).replace("\\", "/")).as_posix() if name else ""


def _referred(records: list[Record]) -> set[str]:
    return {str(v) for record in records for k, v in record.words.items() if k.endswith("_file_name")}


def _rows(place: Place, file: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, columns) of each row. Raises BadInput where the file has no column file_name or cannot be parsed."""
    reader = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}[file.rsplit(".", 1)[1]]
    checked = False
    for where, row in reader(file, _content(place, file)):
        if not checked and "file_name" not in row:
            raise BadInput(f"{file} has no column 'file_name' (columns: {', '.join(map(str, row))}); name the one with the pictures so")
        checked = True
        yield where, row


def _content(place: Place, file: str) -> bytes:
    try:
        return place.read(file)
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error}") from None


def _text(file: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not UTF-8 (byte {error.start}); save it as UTF-8") from None


def _csv(file: str, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(_text(file, content), newline=""), strict=True)
    try:
        for row in reader:
            if None in row:
                raise BadInput(f"{file} line {reader.line_num} has more cells than the header; quote cells that hold a comma")
            yield f"{file} line {reader.line_num}", {str(k): v for k, v in row.items()}
    except csv.Error as error:
        raise BadInput(f"{file} line {reader.line_num}: {error}") from None


def _jsonl(file: str, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_text(file, content).split("\n"), 1):
        if line.strip():
            yield f"{file} line {number}", _parsed(line, f"{file} line {number}")


def _parquet(file: str, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise BadInput(f"reading {file} needs pyarrow: pip install 'condgen[parquet]', or save it as metadata.csv") from None
    try:
        rows = parquet.read_table(io.BytesIO(content)).to_pylist()
    except (ArrowException, OSError) as error:
        raise BadInput(f"{file} cannot be read: {error}") from None
    for number, row in enumerate(rows, 1):
        yield f"{file} row {number}", row


def parsed_json(place: Place, file: str) -> dict[str, Any]:
    """The JSON object in a file of the place. Raises BadInput."""
    return _parsed(_text(file, _content(place, file)), file)


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{where} is not a JSON object {{...}}")
    return found
