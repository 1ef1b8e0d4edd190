"""Where data comes from: embedded and known sets by name, a person's own by path."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from condgen.conditions import Schema, schema_to_json
from condgen.data import digits, domains, lfw, mixture1d, mixture2d, mnist, omniglot, photos, scene_pictures, store
from condgen.data.arrays import survey_arrays
from condgen.data.cache import cache_folder, hashes, key_of, publish
from condgen.data.pictures import Wish, survey_pictures
from condgen.data.places import open_place
from condgen.data.splits import bounds, parse_split
from condgen.data.store import Content, Dataset
from condgen.data.survey import Survey
from condgen.data.survey import contents as finished
from condgen.errors import BadInput, unknown

VERSION = 3
"""Raised when the same files are read differently, so that old stores are not used."""


@dataclass(frozen=True)
class Source:
    """A set that is known by name.

    Args:
        about: one line.
        contents: makes every split, given a folder to work in and, where `sized`, the size in px.
        version: raised when the content changes, so that old stores are not used.
        sized: whether `size` means something.
    """

    about: str
    contents: Callable[..., dict[str, Content]]
    version: int = 1
    sized: bool = False


SOURCES: dict[str, Source] = {
    "digits": Source("1,797 real handwritten digits, 8x8 px, embedded", digits.contents),
    "horse2zebra": Source("1,187 horses, 1,474 zebras, 128x128 px or 64; from $CONDGEN_DATA", domains.horse2zebra, sized=True),
    "lfw64": Source("12,887 faces, 64x64 px, 40 named attributes; from $CONDGEN_DATA/lfw64", lfw.large),
    "lfw64-identity": Source("the same, no person in two splits", lfw.large_by_person),
    "lfw64-landmarks": Source("the faces of lfw64 with 68 key points, 64x64 px or smaller", lfw.large_with_landmarks, sized=True),
    "lfwcrop32": Source("12,887 faces, 32x32 px, with 40 named attributes; from $CONDGEN_DATA", lfw.small),
    "lfwcrop32-identity": Source("the same, no person in two splits", lfw.small_by_person),
    "mixture1d": Source("two Gaussians on the line, 22,000 points, embedded", mixture1d.contents),
    "mixture2d": Source("25 Gaussians on a grid, 110,000 points of the plane, embedded", mixture2d.contents),
    "mixture9": Source("9 Gaussians on a grid, 110,000 points of the plane, embedded", mixture2d.nine),
    "mnist": Source("70,000 handwritten digits, 28x28 px; from $CONDGEN_DATA/mnist or downloaded (11 MB)", mnist.contents, sized=True),
    "omniglot": Source("242 characters of eight alphabets, 20 drawings each, 105x105 px or smaller; 3 MB", omniglot.contents, sized=True),
    "photos": Source("60 pieces of two photographs, 96x96 px, embedded", photos.contents),
    "scenes-domains": Source("drawn animals, plain and striped, 64x64 px or 32, 128; hidden pairs", scene_pictures.domains, 2, sized=True),
}


def available() -> dict[str, str]:
    """Every set that `load` knows by name, with one line about it."""
    return {name: source.about for name, source in SOURCES.items()}


def load(source: str, split: str = "train", size: int | None = None, schema: Schema | None = None, skip_bad: bool = False) -> Dataset:
    """Open a set, preparing it first if this was not done before.

    Args:
        source: a name of `available()`, or the path of a folder, a zip or an .npz.
        split: "train", "test" or what else the source has, with an optional slice: "train[:50000]".
        size: side of the pictures in px; None keeps the data's own, which must then be all equal.
        schema: the conditions, instead of those inferred from the data.
        skip_bad: leave out, counted in `notes`, what cannot be used, instead of refusing.

    Raises:
        BadInput: for an unknown name, and for every problem that `condgen data check` reports as such.
    """
    name, start, stop = parse_split(split)
    whole = _named(source, name, size, schema) if source in SOURCES else _from_path(source, name, size, schema, skip_bad)
    if start is None and stop is None:
        return whole
    first, last = bounds(start, stop, len(whole))
    return whole.slice(first, last, split)


def _named(source: str, split: str, size: int | None, schema: Schema | None) -> Dataset:
    found = SOURCES[source]
    if schema is not None:
        raise BadInput(f"{source!r} has its own schema; one can be given only for a folder, a zip or an .npz")
    if size is not None and not found.sized:
        raise BadInput(f"{source!r} comes in one size; leave out size (given: {size})")
    options = {"size": size} if found.sized else {}
    facts = {"source": source, "version": found.version, **options}
    return _prepared(source, split, facts, lambda into: found.contents(into, **options))


def _from_path(source: str, split: str, size: int | None, schema: Schema | None, skip_bad: bool) -> Dataset:
    path = existing(source)
    if size is not None and size < 1:
        raise BadInput(f"size is {size}; expected a number of px, at least 1")
    written = None if schema is None else schema_to_json(schema)
    facts = {"content": content_key(path), "size": size, "schema": written, "skip_bad": skip_bad, "version": VERSION}

    def contents(into: Path) -> dict[str, Content]:
        with tempfile.TemporaryDirectory(dir=into.parent, ignore_cleanup_errors=True) as work:
            return finished(survey(source, size, schema, Path(work)), skip_bad, into)

    return _prepared(source, split, facts, contents)


def existing(source: str) -> Path:
    """The path of a source that has no known name. Raises BadInput, with the nearest name, where there is nothing."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    if os.sep in source or path.suffix:
        raise BadInput(f"there is no file or folder {source!r}")
    raise unknown("data", source, SOURCES)


def content_key(path: Path) -> str:
    """A hash of everything that decides what a folder, zip or .npz holds."""
    if path.suffix.lower() != ".npz":
        return open_place(path).key()
    with hashes(path) as memo:
        beside = path.with_suffix(".schema.json")
        return memo.of(path) + (memo.of(beside) if beside.exists() else "")


def survey(source: str, size: int | None = None, schema: Schema | None = None, into: Path | None = None) -> Survey:
    """All that a folder, zip or .npz holds, with every problem; decoded pixels go to the folder `into`, or nowhere."""
    path = existing(source)
    if path.suffix.lower() == ".npz":
        return survey_arrays(source, path, size, schema)
    return survey_pictures(source, open_place(path), Wish(size, schema), into)


def _prepared(name: str, split: str, facts: dict[str, Any], contents: Callable[[Path], dict[str, Content]]) -> Dataset:
    """The split from the store of these facts, which is made if it is not there whole."""
    folder = cache_folder() / "data" / key_of({"format": store.FORMAT, **facts})
    try:
        publish(folder, lambda into: _write_splits(into, contents(into)), _is_whole)
    except OSError as error:
        remedy = "free some space, or set CONDGEN_CACHE to a folder that can be written"
        raise BadInput(f"cannot prepare {name!r} in {folder.parent}: {error.strerror or error}; {remedy}") from error
    return store.read(folder / _chosen(folder, name, split), name, split)


def _write_splits(into: Path, contents: dict[str, Content]) -> None:
    for split, content in contents.items():
        (into / split).mkdir(exist_ok=True)
        store.write(into / split, content)


def _is_whole(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir()) and all(store.facts_of(part) is not None for part in folder.iterdir())


def _chosen(folder: Path, name: str, split: str) -> str:
    splits = sorted((part.name for part in folder.iterdir()), key=lambda s: (s != "train", s))
    if split == "test" and split not in splits and "validation" in splits:
        return "validation"
    if split not in splits:
        raise unknown(f"split of {name}", split, splits)
    return split
