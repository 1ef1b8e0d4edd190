"""A folder or a zip, seen as named files. A zip is never unpacked to disk; its members are checked before any is read."""

import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Protocol
from zipfile import ZipFile, ZipInfo

from condgen.data.cache import hashes
from condgen.errors import BadInput

MAX_MEMBERS = 1_000_000
MAX_MEMBER_BYTES = 1 << 30
MAX_RATIO = 200
"""Largest unpacked over packed size, of a member and of the whole archive. Pictures hardly shrink; bombs do by 1000."""
SPLITS = ("train", "training", "test", "testing", "traina", "trainb", "testa", "testb")
"""A folder of such a name is a part of a set, not the set."""
RATIO_FROM_BYTES = 1 << 20
TOTAL_RATIO_FROM_BYTES = 64 << 20


class Place(Protocol):
    """Named files (posix paths relative to the place, sorted) and folders."""

    files: list[str]
    folders: list[str]

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises OSError where they cannot be had."""

    def key(self) -> str:
        """A hash of all names and bytes."""


def open_place(path: Path) -> Place:
    """Raises BadInput for a file that is no zip, and for an archive that is not safe to read."""
    if path.is_dir():
        return Folder(path)
    if not zipfile.is_zipfile(path):
        raise BadInput(f"{path} is neither a folder, a zip nor an .npz")
    return Zip(path)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


class Folder:
    """A folder on disk. Links are followed, each real folder once."""

    def __init__(self, path: Path):
        self.path = path
        self.files: list[str] = []
        self.folders: list[str] = []
        try:
            self._walk(path, set())
        except OSError as error:
            raise BadInput(f"folder {error.filename} cannot be read: {error.strerror}") from None
        self.files.sort()
        self.folders.sort()

    def _walk(self, folder: Path, seen: set[Path]) -> None:
        real = folder.resolve()
        if real in seen:
            return
        seen.add(real)
        for entry in os.scandir(folder):
            name = Path(entry.path).relative_to(self.path).as_posix()
            if _hidden(name):
                continue
            if entry.is_dir():
                self.folders.append(name)
                self._walk(Path(entry.path), seen)
            else:
                self.files.append(name)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def key(self) -> str:
        total = hashlib.sha256("\0".join(self.folders).encode("utf-8", "surrogateescape"))
        with hashes(self.path) as memo:
            for name in self.files:
                total.update(f"{name}\0{_hash_or_error(memo.of, self.path / name)}\n".encode("utf-8", "surrogateescape"))
        return total.hexdigest()


def _hash_or_error(of: Callable[[Path], str], path: Path) -> str:
    try:
        return of(path)
    except OSError as error:
        return f"unreadable {error.errno}"


class Zip:
    """A zip archive, read member by member."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.archive = ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise BadInput(f"{path} cannot be opened as a zip: {error}") from None
        check_members(path, self.archive.infolist())
        top = _single_top(self.archive.namelist())
        self.members = {name.removeprefix(top).rstrip("/"): name for name in self.archive.namelist() if name != top and not _hidden(name)}
        self.files = sorted(short for short, name in self.members.items() if not name.endswith("/"))
        named = {parent.as_posix() for short in self.files for parent in PurePosixPath(short).parents if parent.name}
        self.folders = sorted(named | {short for short, name in self.members.items() if name.endswith("/")})

    def read(self, name: str) -> bytes:
        try:
            return self.archive.read(self.members[name])
        except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
            raise OSError(str(error)) from None

    def key(self) -> str:
        with hashes(self.path) as memo:
            return memo.of(self.path)


def _single_top(names: list[str]) -> str:
    """The folder that was zipped, such as "birds/", where everything lies in it; a split or nothing is no such folder."""
    tops = {name.split("/")[0] + "/" for name in names if not _hidden(name)}
    nested = all("/" in name for name in names if not _hidden(name))
    only = tops.pop() if len(tops) == 1 and nested else ""
    return "" if only.rstrip("/").lower() in SPLITS else only


def check_members(path: Path, members: list[ZipInfo], max_member_bytes: int = MAX_MEMBER_BYTES, max_ratio: float = MAX_RATIO) -> None:
    """Raises BadInput for names that leave the archive, links, devices, encryption, doubles, and sizes that only a bomb has."""
    if len(members) > MAX_MEMBERS:
        raise BadInput(f"{path} has {len(members)} members; at most {MAX_MEMBERS} are read")
    names: set[str] = set()
    for member in members:
        if trouble := _unsafe(member, max_member_bytes, max_ratio) or ("appears twice" if member.filename in names else None):
            raise BadInput(f"{path}: member {member.filename[:200]!r} {trouble}; the archive is refused")
        names.add(member.filename)
    total = sum(member.file_size for member in members)
    if total > TOTAL_RATIO_FROM_BYTES and total > max_ratio * path.stat().st_size:
        raise BadInput(f"{path} of {path.stat().st_size} bytes would unpack to {total}; the archive is refused as a bomb")


def _unsafe(member: ZipInfo, max_bytes: int, max_ratio: float) -> str | None:
    name = member.filename.replace("\\", "/")
    if name.startswith("/") or ":" in name.split("/")[0] or ".." in name.split("/") or not name:
        return "has a name that leaves the archive"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.file_size > max_bytes:
        return f"unpacks to {member.file_size} bytes, more than {max_bytes}"
    if member.file_size > RATIO_FROM_BYTES and member.file_size > max_ratio * max(member.compress_size, 1):
        return f"unpacks from {member.compress_size} to {member.file_size} bytes, as a bomb does"
    return None
