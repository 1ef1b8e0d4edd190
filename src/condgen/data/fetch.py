"""Files of the known public sets: read from `$CONDGEN_DATA` or the cache, else fetched once from their address, checked and kept."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.request import urlopen

from condgen.data.cache import cache_folder, data_folder
from condgen.errors import BadInput

MAX_DOWNLOAD_BYTES = 64 << 20

Verified = Callable[[bytes], bytes]
"""Gives what the bytes of a file hold. Raises ValueError, with the reason, where they are not the expected file's."""


def obtained(folder: str, file: str, mirrors: Sequence[str], verified: Verified) -> bytes:
    """What a file of a public set holds.

    Args:
        folder: below `$CONDGEN_DATA` and below the cache, such as "mnist".
        file: its name there and at the mirrors.
        mirrors: addresses that end in a slash, tried in turn.
        verified: checks the file's bytes, and unpacks them where they are packed.

    Raises:
        BadInput: where the file that is there is another, or where there is none and no mirror has it.
    """
    path = _found(folder, file) or _fetched(folder, file, mirrors, verified)
    try:
        return verified(path.read_bytes())
    except ValueError as error:
        raise BadInput(f"{path} is not the {file} of {folder}: {error}. Delete it and load again") from None


def fetched_file(folder: str, file: str, address: str, sum_starts: str, most_bytes: int) -> Path:
    """A large file, downloaded piece by piece into the cache and kept there once its SHA-256 begins as expected.

    Args:
        folder, file: where it goes below the cache; `address + file` is where it comes from.
        sum_starts: the first hexadecimal digits of its SHA-256.
        most_bytes: a longer answer is given up.

    Raises:
        OSError: where it cannot be reached, or the cache not be written.
        ValueError: where what came is not the file.
    """
    into = cache_folder() / folder
    into.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{file}.", dir=into)
    try:
        with os.fdopen(handle, "wb") as out, urlopen(address + file, timeout=30) as answer:
            total = _copied(answer, out, most_bytes)
        if not total.startswith(sum_starts):
            raise ValueError(f"what came has the SHA-256 {total[:16]}..., which does not begin with {sum_starts}")
        os.replace(temporary, into / file)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return into / file


def _copied(answer: BinaryIO, out: BinaryIO, most_bytes: int) -> str:
    """Copy to the end; the SHA-256 of what was copied."""
    total, size = hashlib.sha256(), 0
    while piece := answer.read(1 << 20):
        size += len(piece)
        if size > most_bytes:
            raise ValueError(f"what came has more than {most_bytes} bytes")
        total.update(piece)
        out.write(piece)
    return total.hexdigest()


def with_sum(content: bytes, sha256: str) -> bytes:
    """The content itself. Raises ValueError where its sum is another."""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError("its SHA-256 differs")
    return content


def _found(folder: str, file: str) -> Path | None:
    places = [root / folder / file for root in (data_folder(), cache_folder()) if root]
    return next((path for path in places if path.is_file()), None)


def _fetched(folder: str, file: str, mirrors: Sequence[str], verified: Verified) -> Path:
    """Download into `$CONDGEN_DATA` where that can be written, else into the cache."""
    refusals = []
    for mirror in mirrors:
        try:
            packed = _downloaded(mirror + file)
            verified(packed)
            return _kept(folder, file, packed)
        except (OSError, ValueError) as error:
            refusals.append(f"{mirror}: {getattr(error, 'reason', error)}")
    wanted = (data_folder() or Path("$CONDGEN_DATA")) / folder
    raise BadInput(f"{folder} is not on this machine and cannot be downloaded ({'; '.join(refusals)}). Put {file} into {wanted}")


def _downloaded(address: str) -> bytes:
    with urlopen(address, timeout=30) as answer:
        return bytes(answer.read(MAX_DOWNLOAD_BYTES))


def _kept(folder: str, file: str, content: bytes) -> Path:
    for root in (data_folder(), cache_folder()):
        if root and (path := _write(root / folder / file, content)):
            return path
    raise OSError(f"neither $CONDGEN_DATA nor {cache_folder()} can be written; set CONDGEN_CACHE to a folder that can")


def _write(path: Path, content: bytes) -> Path | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as out:
            out.write(content)
        os.replace(temporary, path)
    except OSError:
        return None
    return path
