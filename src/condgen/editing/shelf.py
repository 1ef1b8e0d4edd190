"""Finished pictures on disk, each under the sum of all that it depends on, so that a long work goes on where it was stopped."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from condgen.errors import BadInput

log = logging.getLogger(__name__)


class Shelf:
    """A folder of finished frames. Another clip, style or setting has other sums, and finds none of them.

    Args:
        root: the folder; None keeps nothing.
        identity: of the call, as JSON knows it.
    """

    def __init__(self, root: Path | None, identity: object):
        self.root = root
        self.key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def follow(self, frame: Tensor) -> None:
        """What is kept from here on depends on this frame too."""
        self.key = hashlib.sha256((self.key + sum_of(frame)).encode()).hexdigest()

    def kept(self, stage: str, i: int, make: Callable[[], Tensor]) -> Tensor:
        """The finished frame i, made where it is not there."""
        if self.root is None:
            return make()
        if (found := load(file := self._file(self.root, stage, i))) is None:
            found = make()
            _save(file, found)
        return found

    def whole(self, stage: str, n: int) -> list[Tensor] | None:
        """Frames 0 to n - 1 of a stage, where none is missing."""
        found: list[Tensor] = []
        while self.root is not None and len(found) < n:
            if (x := load(self._file(self.root, stage, len(found)))) is None:
                return None
            found.append(x)
        return found or None

    def drop(self, stage: str, n: int) -> None:
        """Takes frames 0 to n - 1 of a stage away."""
        for i in range(n if self.root is not None else 0):
            self._file(self.root, stage, i).unlink(missing_ok=True)  # type: ignore[arg-type]

    def _file(self, root: Path, stage: str, i: int) -> Path:
        return root / f"{stage}-{i:06d}-{self.key[:16]}.safetensors"


def clear(root: Path) -> None:
    """Takes away what shelves keep in a folder, whatever call it is of, and the folder unless it holds other things."""
    if not root.is_dir():
        return
    for file in root.glob("*-*.safetensors*"):  # drafts that a killed process left are hidden, and matched too
        file.unlink(missing_ok=True)
    with suppress(OSError):
        root.rmdir()


def load(file: Path) -> Tensor | None:
    """What was kept in this file; None where it is not there, or damaged, which is said."""
    if not file.exists():
        return None
    try:
        with safe_open(file, "pt") as held:
            return held.get_tensor("x")
    except (SafetensorError, OSError) as error:
        log.warning("%s cannot be read (%s); the frame is made again", file, error)
        return None


def _save(file: Path, x: Tensor) -> None:
    """Whole or not at all. Raises BadInput where the disk refuses."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file({"x": x.contiguous()}, draft)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"the finished frame cannot be kept in {file.parent}: {error}") from None


def sum_of(x: Tensor) -> str:
    """SHA-256 of a picture's shape and numbers."""
    return hashlib.sha256(repr(tuple(x.shape)).encode() + x.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
