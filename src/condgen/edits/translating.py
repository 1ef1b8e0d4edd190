"""Files drawn in another domain, one after the other: what `condgen translate` does once it is known what becomes what."""

import glob
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from condgen.data import video
from condgen.data.images import Unreadable, decode, resized
from condgen.editing.pictures import in_channels, weights_of
from condgen.editing.translation import Translator
from condgen.errors import BadInput
from condgen.training.checkpoint import atomic

log = logging.getLogger("condgen")

NOTE = "condgen-translate"
"""The text chunk of a PNG, and the first word of the note in an .mp4, that says what it was made from."""
LARGE = 4
"""A picture so many times larger than those the model learnt from is translated, and said to be."""


class Job(NamedTuple):
    """A file and what it becomes; `named` where the person named this very file, and not the folder it lies in."""

    source: Path
    out: Path
    named: bool


class Tally:
    """What became of the files."""

    def __init__(self) -> None:
        self.made, self.kept = 0, 0
        self.failed: list[str] = []
        self.stopped = False


class Work:
    """Translates files one after the other.

    Args:
        translator: to the domain.
        size: px of the shorter side, or None.
        tally: counts what was done.
        stopped: asked before each picture and frame.
    """

    def __init__(self, translator: Translator, size: int | None, tally: Tally, stopped: Callable[[], bool] = lambda: False):
        if size is not None and translator.multiple is None:
            shape = translator.model.shape
            raise BadInput(f"--size {size}: this model takes {shape[2]}x{shape[1]} px alone, to which pictures are brought anyway")
        self.translator, self.size, self.tally, self.stopped = translator, size, tally, stopped
        self.told_large = False
        self.made_by = f"v1|{weights_of(translator.model)}|{translator.to}|{size}|"

    def note(self, content: bytes) -> str:
        """Of all that a picture depends on."""
        return hashlib.sha256(self.made_by.encode() + content).hexdigest()[:32]

    def refuse_strangers(self, jobs: Sequence[Job]) -> None:
        """Raises BadInput where a picture or a clip would be replaced that no translation has written."""
        for job in jobs:
            if job.out.exists() and not note_in(job.out):
                raise BadInput(f"{job.out} is there, and no translation has written it; write to another place, by --out")

    def all(self, jobs: Sequence[Job]) -> None:
        for i, job in enumerate(jobs, 1):
            try:
                self.go_on()
                self.one(job)
            except Stopped:
                self.tally.stopped = True
                return
            if len(jobs) > 20 and i % max(1, len(jobs) // 10) == 0:
                log.info("%d of %d", i, len(jobs))

    def go_on(self) -> None:
        """Raises Stopped where somebody asked for an end."""
        if self.stopped():
            raise Stopped

    def one(self, job: Job) -> None:
        try:
            kept = self.clip(job) if job.out.suffix.lower() == ".mp4" else self.picture(job)
        except (Unreadable, BadInput, OSError) as error:
            said = f"{job.source} {error}" if isinstance(error, Unreadable) else str(error)
            if job.named or isinstance(error, NotWritten):
                raise BadInput(said) from None
            log.warning("%s", said)
            self.tally.failed.append(said)
            return
        self.tally.kept += kept
        self.tally.made += not kept

    def picture(self, job: Job) -> bool:
        """Whether it was there already."""
        if video.is_clip(job.source):
            raise Unreadable("is a clip in a folder: name the file itself")
        content = job.source.read_bytes()
        if note_in(job.out) == (note := self.note(content)):
            return True
        write_png(self.drawn(decode(content), job.source), job.out, note)
        return False

    def clip(self, job: Job) -> bool:
        """Whether it was there already; else frame by frame, where those that an earlier start finished are taken from its folder."""
        facts = video.look(job.source)
        with job.source.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").digest()
        if note_in(job.out) == (note := self.note(digest)):
            return True
        parts = job.out.with_name(f".{job.out.name}.{note[:16]}")
        count = 0
        for count, frame in enumerate(video.frames(job.source), 1):
            if not (place := _frame(parts, count)).exists():
                self.go_on()
                write_png(self.drawn(frame, job.source), place, note)
            if count % max(1, facts.frames // 10) == 0:
                log.info("%s: %d of %d frames", job.source.name, count, facts.frames)
        video.write(job.out, _frames(parts, count), facts.fps, note=f"{NOTE} {note}")
        forget_frames(job.out)
        return False

    def drawn(self, pixels: np.ndarray, source: Path) -> np.ndarray:
        """Pixels uint8 (h, w, 1 or 3) of a file, in the domain: uint8 (h', w', channels of the model)."""
        channels, h, w = self.translator.model.shape
        if self.translator.multiple is None and h == w:
            pixels = resized(pixels, h)
        elif self.size is not None:
            pixels = scaled(pixels, self.size)
        elif min(pixels.shape[:2]) >= LARGE * min(h, w):
            self._say_large(source, pixels.shape, (h, w))
        try:
            return self.translator.pixels(in_channels(pixels, channels, source))
        except BadInput as error:
            raise BadInput(f"{source}: {error}") from None

    def _say_large(self, source: Path, shape: tuple[int, ...], learnt: tuple[int, int]) -> None:
        if not self.told_large:
            size = f"{shape[1]}x{shape[0]} px, and the model learnt at {learnt[1]}x{learnt[0]}"
            log.info("%s is %s: it will draw fine grain; --size %d brings pictures nearer", source, size, 2 * min(learnt))
        self.told_large = True


def scaled(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 (h, w, 1 or 3) with its shorter side brought to `size` px, and the other in proportion (Lanczos, antialiased)."""
    from PIL import Image

    h, w = pixels.shape[:2]
    to = (max(size, round(w * size / min(h, w))), max(size, round(h * size / min(h, w))))
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).resize(to, Image.Resampling.LANCZOS)
    return np.asarray(picture).reshape(to[1], to[0], pixels.shape[2])


# --- on disk --------------------------------------------------------------------------------------------------------------


class Stopped(Exception):
    """Before a picture or a frame that is not begun any more."""


class NotWritten(BadInput):
    """A place refuses to be written: no reason to go on with the next picture."""


def note_in(file: Path) -> str | None:
    """What a translated PNG or .mp4 says it was made from; None for any other file, and for none."""
    from PIL import Image

    if file.suffix.lower() == ".mp4":
        by, _, said = (video.note_in(file) or "").partition(" ")
        return said if by == NOTE else None
    try:
        with Image.open(file, formats=("PNG",)) as picture:
            return picture.info.get(NOTE)
    except (OSError, ValueError, SyntaxError):
        return None


def write_png(pixels: np.ndarray, file: Path, note: str) -> None:
    """uint8 (h, w, 1 or 3), whole or not at all. Raises NotWritten."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    said = PngInfo()
    said.add_text(NOTE, note)
    try:
        with atomic(file) as draft:
            Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(draft, "PNG", pnginfo=said)
    except OSError as error:
        raise NotWritten(f"{file} cannot be written: {error}") from None


def forget_frames(out: Path) -> None:
    """Drop the folders of frames beside a clip that is there, also those that another size, domain or model began."""
    for parts in out.parent.glob(f".{glob.escape(out.name)}.{'[0-9a-f]' * 16}"):
        shutil.rmtree(parts, ignore_errors=True)


def _frame(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.png"


def _frames(parts: Path, count: int) -> Iterator[np.ndarray]:
    """The frames of a clip that was made, in colour."""
    from PIL import Image

    for number in range(1, count + 1):
        with Image.open(_frame(parts, number)) as picture:
            yield np.asarray(picture.convert("RGB"))
