"""Many pictures, read and decoded by threads (decoders release the interpreter), into one array on disk or into none."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from condgen.data.images import Look, Unreadable, decode, is_gray, look_at, with_channels
from condgen.data.places import Place

AT_ONCE = 256
"""Pictures decoded before the array is written: bounds memory."""


A = TypeVar("A")
R = TypeVar("R")


def each(work: Callable[[A], R], items: Sequence[A]) -> Iterator[R]:
    """work(item) in order, several at once."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(items), AT_ONCE):
            yield from pool.map(work, items[start : start + AT_ONCE])


def looks(place: Place, files: Sequence[str]) -> list[Look | Unreadable]:
    """The header of each picture, or why it cannot be used."""

    def look(name: str) -> Look | Unreadable:
        try:
            return look_at(_read(place, name))
        except Unreadable as error:
            return error

    return list(each(look, files))


def _read(place: Place, name: str) -> bytes:
    try:
        return place.read(name)
    except (OSError, KeyError) as error:
        raise Unreadable(f"cannot be read ({error})") from None


@dataclass(frozen=True)
class Decoded:
    """One picture: pixels uint8 (h, w, 1 or 3), and the hash of its file."""

    pixels: np.ndarray
    digest: bytes


def decoded(place: Place, files: Sequence[str], size: int | None) -> Iterator[Decoded | Unreadable]:
    """Each picture in order, brought to `size`, or why it cannot be used."""

    def one(name: str) -> Decoded | Unreadable:
        try:
            content = _read(place, name)
            return Decoded(decode(content, size), hashlib.sha256(content).digest())
        except Unreadable as error:
            return error

    return each(one, files)


class Sheet:
    """Room for n pictures (n, h, w, channels), on disk, where gray ones and coloured ones meet.

    Args:
        path: the file, or None to keep no pixels and only find out what can be read.
        n: how many.
        channels: 1 where it is known that none has colour, else 3.
    """

    def __init__(self, path: Path | None, n: int, height: int, width: int, channels: int):
        self.path, self.channels, self.all_gray = path, channels, True
        shape = (n, height, width, channels)
        self.array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape) if path else None

    def put(self, i: int, pixels: np.ndarray) -> None:
        self.all_gray = self.all_gray and is_gray(pixels)
        if self.array is not None:
            self.array[i] = with_channels(pixels, self.channels)

    def kept(self) -> np.ndarray | None:
        """The pictures (n, h, w, c): one channel where none has colour."""
        gray = self.channels == 3 and self.all_gray
        return self.array if self.array is None or not gray else self.array[..., :1]
