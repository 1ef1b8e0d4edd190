"""Where prepared data is kept, and how a folder appears there: whole or not at all."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SETTLED_S = 2.0
"""A file changed less than this many seconds ago is hashed again next time: its time stamp may not tell a second change."""


def cache_folder() -> Path:
    """`$CONDGEN_CACHE`, else `.cache/condgen` in the home folder. It need not exist yet."""
    given = os.environ.get("CONDGEN_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "condgen"


def data_folder() -> Path | None:
    """`$CONDGEN_DATA`, where the known public sets lie or are downloaded to; None where it is not set."""
    given = os.environ.get("CONDGEN_DATA")
    return Path(given) if given else None


def key_of(facts: Any) -> str:
    """A short name for what can be said in JSON: equal facts, equal name."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def publish(target: Path, fill: Callable[[Path], None], is_whole: Callable[[Path], bool]) -> None:
    """Make folder `target` by `fill(temporary folder)` and one rename, unless a whole one is there.

    Two processes may do this at once: each fills a folder of its own, the first rename wins, and the other's is dropped. A
    damaged target is moved aside first. Raises OSError where the disk cannot be written.
    """
    if is_whole(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        fill(made)
        for file in made.rglob("*"):
            _sync(file)
        _swap_in(made, target, is_whole)
        _sync(target.parent)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _swap_in(made: Path, target: Path, is_whole: Callable[[Path], bool], attempts: int = 5) -> None:
    for _ in range(attempts):
        try:
            os.rename(made, target)
        except OSError:
            if is_whole(target):
                return
            if not target.exists():
                raise
            _discard(target)
        else:
            return
    raise OSError(f"{target} keeps being replaced by something damaged")


def _discard(damaged: Path) -> None:
    """Renamed before it is deleted, so that nobody sees it half deleted."""
    aside = Path(tempfile.mkdtemp(prefix=".damaged.", dir=damaged.parent))
    with contextlib.suppress(FileNotFoundError):
        os.rename(damaged, aside / damaged.name)
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, data: Any) -> None:
    """Replace a JSON file in one step."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        json.dump(data, file)
    os.replace(name, path)


class Hashes:
    """SHA-256 of files, remembered in the cache by (path, size, modification time), so that a large set is read once."""

    def __init__(self, about: Path):
        self.memo = cache_folder() / "hashes" / f"{key_of(str(about.resolve()))}.json"
        self.known: dict[str, list[Any]] = _read_json(self.memo)
        self.fresh: dict[str, list[Any]] = {}

    def of(self, path: Path) -> str:
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
        name = str(path.resolve())
        entry = self.known.get(name)
        if not isinstance(entry, list) or entry[:2] != stamp:
            with path.open("rb") as file:
                entry = [*stamp, hashlib.file_digest(file, "sha256").hexdigest()]
        if time.time() - stat.st_mtime > SETTLED_S:
            self.fresh[name] = entry
        return str(entry[2])

    def keep(self) -> None:
        """Remember what was hashed; a cache that cannot be written only costs time."""
        if self.fresh != self.known:
            with contextlib.suppress(OSError):
                self.memo.parent.mkdir(parents=True, exist_ok=True)
                write_json(self.memo, self.fresh)


@contextlib.contextmanager
def hashes(about: Path) -> Iterator[Hashes]:
    """File hashes below one source, remembered at the end."""
    found = Hashes(about)
    yield found
    found.keep()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
