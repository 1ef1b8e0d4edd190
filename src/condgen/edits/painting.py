"""A photograph painted by descent: under a progress bar, to a file, and, where it is stopped, on from there.

What a stopped command had done lies beside the output, in a hidden file named after all that its numbers depend on: the files' content,
the net's weights, every option. So only the same command finds it.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from condgen import __version__
from condgen.editing.descent import Moment
from condgen.editing.masks import clustered, read_masks
from condgen.editing.photo import photo_style
from condgen.editing.stylize import Plan
from condgen.editing.stylize import stylize as free_style
from condgen.editing.transfer import Masks, Recipe
from condgen.edits import Done
from condgen.edits.artwork import device, net_of, pictures_of, recipe_of, write_picture
from condgen.edits.progress import Progress
from condgen.edits.stylize import Asked
from condgen.errors import BadInput
from condgen.networks.features import FeatureNet
from condgen.training.checkpoint import atomic

log = logging.getLogger("condgen")


class Painting(Protocol):
    """A descent under way: a `Stylization`, or a photograph that stays one."""

    @property
    def step(self) -> int: ...
    @property
    def steps(self) -> int: ...
    def __iter__(self) -> Iterator[Moment]: ...
    def state(self) -> dict[str, Tensor]: ...
    def restore(self, state: dict[str, Tensor]) -> None: ...
    def picture(self) -> Tensor: ...
    def measures(self) -> dict[str, float]: ...


def paint(asked: Asked, stopped: Callable[[], bool]) -> Done:
    """See `stylize.stylize`."""
    began = time.monotonic()
    net, recipe = net_of(asked), recipe_of(asked)
    content, styles = pictures_of(asked)
    job, notes = painting_of(asked, net, recipe, content, styles)
    for note in notes:
        log.info("%s", note)
    everything = fingerprint(asked, net)
    kept = asked.out.with_name(f".{asked.out.name}.{everything[:16]}.safetensors")
    go_on(job, kept)
    if not descend(job, kept, stopped, f"{asked.content.name} in the style of {', '.join(s.name for s in asked.styles)}"):
        return Done(
            {"out": None, "stopped": True, "kept": str(kept), "step": job.step, "steps": job.steps},
            f"stopped after {job.step} of {job.steps} evaluations; the same command goes on from there",
        )
    write_picture(job.picture(), asked.out, everything)
    kept.unlink(missing_ok=True)
    h, w = content.shape[-2:]
    told: dict[str, Any] = {"out": str(asked.out), "net": net.id, "recipe": asked.recipe, "size": [w, h], "steps": job.steps}
    told |= {"seconds": round(time.monotonic() - began, 1), **job.measures(), "seed": asked.seed, "stopped": False}
    return Done(told, said(told))


def said(told: dict[str, Any]) -> str:
    """The result for a person."""
    w, h = told["size"]
    losses = f"content {told['content']:.3f}, style {told['style']:.4f}: 0 where equal, about 1 of a blank picture"
    return f"{told['out']}: {w}x{h} px, {told['steps']} evaluations in {told['seconds']} s with {told['net']}\n{losses}"


def painting_of(asked: Asked, net: FeatureNet, recipe: Recipe, content: Tensor, styles: Sequence[Tensor]) -> tuple[Painting, list[str]]:
    """The descent before its first step, and notes for the person."""
    plan = Plan(
        recipe, asked.start or ("noise" if asked.photo else "content"), asked.colours, style_scale=asked.style_scale, seed=asked.seed
    )
    if not asked.photo:
        masks, notes = classes_of(asked, content, styles)
        return free_style(net, content, styles, plan, asked.shares, masks), notes
    extra = {"shares": asked.shares, "weight": asked.photo_weight}
    return photo_style(net, content, styles, asked.masks, asked.style_masks, asked.clusters, plan, **extra)


def classes_of(asked: Asked, content: Tensor, styles: Sequence[Tensor]) -> tuple[Masks | None, list[str]]:
    """Which part takes its style from which, and notes for the person; None where the style is taken from everywhere."""
    if asked.masks is not None:
        return read_masks(content, styles, asked.masks, asked.style_masks)
    return clustered(content, styles, asked.clusters, asked.seed) if asked.clusters is not None else (None, [])


# --- stopping and going on ------------------------------------------------------------------------------------------------


def fingerprint(asked: Asked, net: FeatureNet) -> str:
    """Of all that the painting depends on: the files' content, a folder's with its names, which are those of classes; the net and its
    weights, every option, and the version. Not the device, nor PyTorch's version or threads, from which bits may differ."""
    elsewhere = ("content", "styles", "out", "masks", "style_masks", "net")
    options = {k: v for k, v in asdict(asked).items() if k not in elsewhere}
    total = hashlib.sha256(json.dumps([__version__, net.id, options], sort_keys=True).encode())
    masks = [("masks", asked.masks)] if asked.masks else []
    for field, file in [
        ("content", asked.content),
        *(("style", s) for s in asked.styles),
        *masks,
        *(("of style", m) for m in asked.style_masks),
    ]:
        for part in sorted(p for p in file.rglob("*") if p.is_file()) if file.is_dir() else [file]:
            name = part.relative_to(file).as_posix() if file.is_dir() else ""
            total.update(json.dumps([field, name, hashlib.sha256(part.read_bytes()).hexdigest()]).encode())
    for name, value in sorted(net.state_dict().items()):
        total.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:32]


def go_on(job: Painting, kept: Path) -> None:
    """From where a stopped one left off, if there is one. Raises BadInput where that is damaged."""
    if not kept.exists():
        return
    try:
        job.restore(load_file(kept, device=device()))
    except (SafetensorError, OSError, BadInput) as error:
        raise BadInput(f"{kept} holds a stopped painting and is damaged ({error}); remove it to begin anew") from None
    log.info("goes on after %d of %d evaluations", job.step, job.steps)


def keep(job: Painting, kept: Path) -> None:
    try:
        with atomic(kept) as draft:
            save_file({k: v.contiguous().cpu() for k, v in job.state().items()}, draft)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"the stopped painting could not be kept in {kept}: {error}") from None


def descend(job: Painting, kept: Path, stopped: Callable[[], bool], title: str) -> bool:
    """Whether it came to its end; else it is kept."""
    with Progress(title, job.steps, job.step) as progress:
        for moment in job:
            progress.show(moment.step, {**moment.terms, "px": f"{moment.x.shape[-1]}x{moment.x.shape[-2]}"})
            if stopped() and moment.step < job.steps:
                keep(job, kept)
                return False
    return True
