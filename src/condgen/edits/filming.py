"""A clip painted frame by frame, so that it holds together: `condgen stylize clip.mp4`.

Finished frames wait in a hidden folder beside the output until all are there, and the same command goes on from them. Then the folder goes,
with what other commands that were stopped had kept for the same output.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from condgen.data import video
from condgen.data.store import to_bytes
from condgen.editing.colours import finished, gray, prepared
from condgen.editing.descent import Moment
from condgen.editing.shelf import clear
from condgen.editing.video import LONGEST_PX, VARIANTS, Settings, read_frames, stylize_clip
from condgen.edits import Done
from condgen.edits.artwork import device, net_of, recipe_of, size_of, styles_of
from condgen.edits.progress import Progress
from condgen.edits.stylize import NOTE, Asked
from condgen.errors import BadInput, unknown


class Stopped(Exception):
    """The person wants it to end."""


def film(asked: Asked, stopped: Callable[[], bool]) -> Done:
    """See `stylize.stylize`."""
    began = time.monotonic()
    facts, settings = video.look(asked.content), settings_of(asked)
    require_room(asked, facts)
    net, recipe = net_of(asked), recipe_of(asked)
    first = next(frames_of(asked))
    _, styles = prepared(first, styles_of(asked, first), asked.colours)
    work = asked.out.with_name(f".{asked.out.name}.frames")
    done = 0

    def watch(number: int, frame: int, moment: Moment) -> None:
        progress.show(done, {**moment.terms, "frame": frame, "step": moment.step})
        if stopped():
            raise Stopped

    seen = (gray(f) for f in frames_of(asked)) if asked.colours == "keep" else frames_of(asked)
    try:
        with Progress(f"{asked.content.name} in the style of {', '.join(s.name for s in asked.styles)}", max(1, facts.frames)) as progress:
            painted = stylize_clip(net, recipe, seen, styles, settings, work, watch=watch, shares=asked.shares)
            with video.Writer(asked.out, facts.fps, note=NOTE) as clip:
                for x, frame in zip(painted, frames_of(asked), strict=True):
                    clip.add(pixels_of(finished(x, frame, asked.colours)))
                    done += 1
    except Stopped:
        told = {"out": None, "stopped": True, "kept": str(work), "frames": done}
        return Done(told, f"stopped after {done} frames; the same command goes on from there")
    clear(work)
    h, w = first.shape[-2:]
    seconds = round(time.monotonic() - began, 1)
    about: dict[str, Any] = {"out": str(asked.out), "net": net.id, "recipe": asked.recipe, "size": [w, h], "frames": done}
    about |= {"seconds": seconds, "variant": asked.variant, "stopped": False}
    return Done(about, f"{asked.out}: {done} frames of {w}x{h} px in {seconds} s with {net.id}")


def settings_of(asked: Asked) -> Settings:
    """How the frames hold together. Raises BadInput for an unknown variant."""
    name = asked.variant.replace("-", " ") if asked.variant == "same-seed" else asked.variant
    if name not in VARIANTS:
        raise unknown("variant", asked.variant, VARIANTS)
    if asked.start is not None:
        raise BadInput(f"--start {asked.start} is of a picture; a clip's frames start from the one before: --variant says how")
    later = {} if asked.steps is None else {"steps": max(1, round(asked.steps * LATER))}
    return replace(VARIANTS[name], seed=asked.seed, **later)  # type: ignore[arg-type]


def require_room(asked: Asked, facts: video.Facts) -> None:
    """Raises BadInput for frames of more pixels than are painted."""
    longest = max(facts.height, facts.width)
    size_of(facts.height, facts.width, min(asked.size or LONGEST_PX, longest), LONGEST_PX)


LATER = 0.4
"""Evaluations of a later frame, beside those of the first: 80 beside 200."""


def frames_of(asked: Asked) -> Iterator[Tensor]:
    """The clip's frames (1, 3, h, w) in [-1, 1], at the size they are painted."""
    for frame in read_frames(asked.content, asked.size or LONGEST_PX):
        yield frame.to(device())


def pixels_of(x: Tensor) -> np.ndarray:
    """(1, 3, h, w) as uint8 (h, w, 3)."""
    return to_bytes(x.cpu())[0]
