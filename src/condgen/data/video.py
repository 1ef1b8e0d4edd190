"""Clips: mp4 in and out, frame by frame, so that memory is bounded however long a clip is.

Decoding and encoding are OpenCV's own copy of FFmpeg (extra `video`). What it gets silently wrong is done here by hand: colours come
as BGR, an odd width or height loses its last line (here the line is repeated instead), a writer that fails says nothing (here what
was written is opened and counted), and a file that is no clip gives no frames and no error.
"""

import os
import struct
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from condgen.data.images import MAX_PIXELS
from condgen.errors import BadInput, require_whole

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
"""What is taken for a clip."""
CODEC = "mp4v"
"""MPEG-4 part 2: the one codec that FFmpeg writes everywhere without a patented or a hardware encoder."""
USUAL_FPS = 25.0
"""Where a file does not say."""
MOST_FPS = 1000.0
MAX_BYTES = 2**31
"""Of frames that `read` will hold at once."""


@dataclass(frozen=True)
class Facts:
    """What a clip's header says: width and height in px as shown, frames a second, and how many frames (0 where it does not say)."""

    width: int
    height: int
    fps: float
    frames: int


@dataclass(frozen=True)
class Video:
    """Frames uint8 (n, h, w, 3), RGB, and how many are shown in a second."""

    frames: np.ndarray
    fps: float


def is_clip(path: str | Path) -> bool:
    """Whether a name ends as a clip's does.

    >>> is_clip("walk.MP4"), is_clip("walk.png")
    (True, False)
    """
    return Path(path).suffix.lower() in SUFFIXES


# --- in -------------------------------------------------------------------------------------------------------------------


def look(path: str | Path) -> Facts:
    """The header. Raises BadInput as `frames` does."""
    capture = _opened(path)
    try:
        return _facts(capture, path)
    finally:
        capture.release()


def frames(path: str | Path, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    """Frames uint8 (h, w, 3), RGB, one at a time: numbers `start` to `stop`, or to the end.

    Args:
        path: a clip, of any kind that FFmpeg reads.
        start, stop: counted from 0. Those before `start` are decoded too, since seeking is not exact; a `stop` behind the end is the end.

    Raises:
        BadInput: where there is no such file, it is no clip, it has no frame at `start`, or OpenCV is missing. The file is opened at the
            call, not at the first frame.
    """
    require_whole("start", start, 0)
    if stop is not None:
        require_whole("stop", stop, start + 1)
    capture = _opened(path)
    _facts(capture, path)
    return _decoded(capture, path, start, stop)


def _decoded(capture: Any, path: str | Path, start: int, stop: int | None) -> Iterator[np.ndarray]:
    try:
        passed = sum(1 for _ in range(start) if capture.grab())
        number = start
        while passed == start and (stop is None or number < stop):
            there, pixels = capture.read()
            if not there:
                break
            yield np.ascontiguousarray(pixels[..., ::-1])  # BGR to RGB
            number += 1
        if number == start:
            raise BadInput(f"{path} has no frame {start}" + (f"; it has {passed}" if start else ": it is cut off, or holds sound alone"))
    finally:
        capture.release()


def read(path: str | Path, start: int = 0, stop: int | None = None) -> Video:
    """The frames all at once. Raises BadInput as `frames` does, and for more than `MAX_BYTES`: take `frames`, or a window."""
    facts, kept = look(path), []
    for frame in frames(path, start, stop):
        kept.append(frame)
        if len(kept) * frame.nbytes > MAX_BYTES:
            window = f"a window of at most {MAX_BYTES // frame.nbytes} frames"
            raise BadInput(f"{path} holds more than {MAX_BYTES / 2**30:g} GiB of frames ({facts.width}x{facts.height} px); read {window}")
    return Video(np.stack(kept), facts.fps)


def _opened(path: str | Path) -> Any:
    """An open capture of a file: never of a camera, an address or a numbered series, which OpenCV would also take a name for."""
    cv2 = opencv()
    file = Path(path)
    if not file.is_file():
        near = sorted(p.name for p in file.parent.iterdir() if is_clip(p))[:4] if file.parent.is_dir() else []
        what = f"{path} is a folder; expected a clip" if file.is_dir() else f"there is no file {path}"
        raise BadInput(what + (f"; beside it are {', '.join(near)}" if near else ""))
    capture = cv2.VideoCapture(str(file.resolve()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        capture.release()
        raise BadInput(f"{path} is no clip that can be read; expected one such as {', '.join(SUFFIXES[:3])}, whole")
    return capture


def _facts(capture: Any, path: str | Path) -> Facts:
    cv2 = opencv()
    keys = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT)
    w, h, fps, n = (capture.get(k) for k in keys)
    if not (0 < w * h <= MAX_PIXELS):
        capture.release()
        bound = f"expected at least one, at most {MAX_PIXELS // 1_000_000} megapixels"
        raise BadInput(f"{path} has frames of {w:g}x{h:g} px; {bound}")
    return Facts(int(w), int(h), float(fps) if 0 < fps <= MOST_FPS else USUAL_FPS, max(0, int(n)) if abs(n) < 2**31 else 0)


# --- out ------------------------------------------------------------------------------------------------------------------


class Writer:
    """Frames into an mp4, which is there once it is whole.

        with Writer("out.mp4", fps=25) as clip:
            for frame in found:
                clip.add(frame)

    What was added goes to a hidden draft beside the file. `close` makes it the file; leaving the block by an error or by Ctrl-C throws it
    away, unless `keeps`: then what was added so far becomes the file, a shorter clip that can be played.

    Args:
        path: ends in .mp4.
        fps: frames a second, above 0 and at most 1,000.
        keeps: whether an interruption leaves the clip as far as it came.
        note: words that players pass over and `note_in` finds: what the clip was made by.

    Raises:
        BadInput: for another suffix or rate, a folder that cannot be written, or where OpenCV is missing.
    """

    def __init__(self, path: str | Path, fps: float, keeps: bool = False, note: str = ""):
        self.path, self.fps, self.keeps, self.note = Path(path), float(fps), keeps, note
        self.count = 0
        self._size: tuple[int, int] | None = None
        self._draft = self.path.with_name(f".{self.path.stem}.{os.getpid()}.mp4")
        self._out: Any = None
        if self.path.suffix.lower() != ".mp4":
            raise BadInput(f"a clip is written as .mp4; {self.path.name!r} ends in {self.path.suffix or 'nothing'!r}")
        if not 0 < self.fps <= MOST_FPS:
            raise BadInput(f"fps is {fps!r}; expected a number above 0 and at most {MOST_FPS:g}")
        opencv()

    def add(self, frame: np.ndarray) -> None:
        """One more frame, uint8 (h, w, 3), RGB. Raises BadInput for another kind, or another size than the first."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise BadInput(f"a frame is {frame.dtype} {frame.shape}; expected uint8 (h, w, 3)")
        if self._out is None:
            self._size = (frame.shape[0], frame.shape[1])
            self._out = self._open(even(frame))
        if frame.shape[:2] != self._size:
            raise BadInput(f"frame {self.count} is of {frame.shape[:2]} px, the first of {self._size}; a clip has one size")
        self._out.write(np.ascontiguousarray(even(frame)[..., ::-1]))
        self.count += 1

    def _open(self, frame: np.ndarray) -> Any:
        cv2 = opencv()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{self.path} cannot be written: {error}") from None
        h, w = frame.shape[:2]
        out = cv2.VideoWriter(str(self._draft.resolve()), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*CODEC), self.fps, (w, h))
        if not out.isOpened():
            self._draft.unlink(missing_ok=True)
            raise BadInput(f"{self.path} cannot be written: the folder refuses it, or {w}x{h} px cannot be encoded as {CODEC}")
        return out

    def close(self) -> None:
        """Makes the file of what was added. Raises BadInput where nothing was, or the disk did not take it all."""
        if self._out is None:
            raise BadInput(f"{self.path} would have no frames")
        self._out.release()
        self._out = None
        try:
            _append(self._draft, self.note)
            if (written := look(self._draft).frames) != self.count:
                raise BadInput(f"only {written} of {self.count} frames of {self.path} could be written: the disk may be full")
            _flush(self._draft)
            self._draft.replace(self.path)
        finally:
            self._draft.unlink(missing_ok=True)

    def discard(self) -> None:
        """Throws away what was added."""
        if self._out is not None:
            self._out.release()
            self._out = None
            self._draft.unlink(missing_ok=True)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None or (self.keeps and self._out is not None):
            self.close()
        else:
            self.discard()


def write(path: str | Path, frames: Iterable[np.ndarray], fps: float, note: str = "") -> int:
    """Frames uint8 (h, w, 3), RGB, into an mp4, whole or not at all; how many they were. Raises BadInput as `Writer` does.

    An odd width or height, which the codec has not, grows by a copy of its last column or row.
    """
    with Writer(path, fps, note=note) as clip:
        for frame in frames:
            clip.add(frame)
    return clip.count


def even(frame: np.ndarray) -> np.ndarray:
    """(h, w, c) with an even h and w: the last row or column twice where it was odd.

    >>> even(np.zeros((3, 4, 3))).shape
    (4, 4, 3)
    """
    h, w = frame.shape[:2]
    return np.pad(frame, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge") if h % 2 or w % 2 else frame


MARK = uuid.uuid5(uuid.NAMESPACE_URL, "https://condgen/note").bytes
"""Of the box that holds a note. An mp4 is a row of boxes, and a reader skips those of a `uuid` that it does not know (ISO 14496-12)."""
MOST_BOXES = 1000


def _append(file: Path, note: str) -> None:
    if not note:
        return
    said = note.encode()
    try:
        with file.open("ab") as out:
            out.write(struct.pack(">I4s", 8 + len(MARK) + len(said), b"uuid") + MARK + said)
    except OSError as error:
        raise BadInput(f"{file} cannot be written: {error}") from None


def note_in(path: str | Path) -> str | None:
    """What the `note` of a clip's `Writer` said; None for any other file, and for none."""
    try:
        with Path(path).open("rb") as file:
            for _ in range(MOST_BOXES):
                head = file.read(8)
                size, kind = struct.unpack(">I4s", head)
                own = 8
                if size == 1:  # too large for four bytes: the size follows in eight
                    (size,), own = struct.unpack(">Q", file.read(8)), 16
                if kind == b"uuid" and file.read(len(MARK)) == MARK:
                    return file.read(max(0, min(size, 1 << 16) - own - len(MARK))).decode()
                if size < own:
                    return None
                file.seek(size - own - (len(MARK) if kind == b"uuid" else 0), os.SEEK_CUR)
    except (OSError, struct.error, ValueError):
        return None
    return None


def _flush(file: Path) -> None:
    """Down to the disk, before the name is given."""
    file.chmod(0o644)
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def opencv() -> Any:
    """The module cv2, quiet. Raises BadInput where it is not installed."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # else a damaged file speaks on standard error, past every handler
    try:
        import cv2
    except ImportError:
        raise BadInput('clips and optical flow need OpenCV, which is missing: pip install "condgen[video]"') from None
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
