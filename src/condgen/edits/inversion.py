"""What a model makes of a picture: the latent that draws it, found by descent from the encoding, or from the prior's nearest draws."""

import torch
from torch import Tensor

from condgen.editing.inversion import Found, invert
from condgen.edits.sheet import Sheet
from condgen.edits.subject import Subject
from condgen.errors import require_whole
from condgen.model import capabilities

FRAMES = 48
"""Of a film of the descent."""


def draw(subject: Subject, restarts: int = 1) -> Sheet:
    """Each picture, its reconstruction and their difference; where there is an encoder, what that alone gives stands before them.

    Args:
        subject: samples. Latents that came with the files are where the descent starts.
        restarts: descents for each sample, of which the best counts.
    """
    require_whole("--restarts", restarts, 1, 64)
    x, start = subject.x, _start(subject, restarts)
    steps = subject.manner.descent
    every = max(1, steps // FRAMES)
    found: list[Found] = []
    for at in invert(subject.model, x, subject.c, steps, restarts, start=start, seed=subject.manner.seed):
        if at.step % every == 0 or at.step == steps:
            found.append(at)
    wanted = found if subject.manner.film else [found[0], found[-1]]
    drawn = [subject.decode(at.z, subject.c) for at in wanted]
    first, last = drawn[0], drawn[-1]
    encoded = "the encoder's" if "encode" in capabilities(subject.model) else "where it starts"
    before, after = rmse(first, x), rmse(last, x)
    lines = [f"{n}: error {a:.3f} ({encoded}), {b:.3f} after {steps} steps" for n, a, b in zip(subject.names, before, after, strict=True)]
    return Sheet(
        x=last,
        z=found[-1].z,
        c=subject.c,
        cells=torch.stack([x, first, last, (last - x).abs() - 1], 1),
        frames=torch.stack([torch.stack([x, one], 1).flatten(0, 1) for one in drawn]),
        title=f"{subject.name}: latents found by descent, {steps} steps",
        said="\n".join([*lines, "error: root of the mean squared difference of pixels in [-1, 1]"]),
        rows=[f"{n}\n{a:.3f} to {b:.3f}" for n, a, b in zip(subject.names, before, after, strict=True)],
        columns=["given", encoded.replace(" ", "\n", 1), "after\ndescent", "difference"],
        apart_columns=frozenset({1, 3}),
        told={"error_before": before, "error": after, "loss": found[-1].loss.tolist(), "steps": steps, "restarts": restarts},
    )


def _start(subject: Subject, restarts: int) -> Tensor | None:
    """Latents that came with all of the files; None leaves it to `invert`. Raises BadInput for --invert, which is what the verb does."""
    if subject.manner.invert:
        raise BadInput("the verb invert descends in any case, from the encoder's latents where there is an encoder: leave out --invert")
    if restarts == 1 and all(g.z is not None for g in subject.given):
        return subject.z
    return None


def rmse(a: Tensor, b: Tensor) -> list[float]:
    """Root of the mean squared difference of each pair of samples (n, *shape)."""
    return (a - b).square().flatten(1).mean(1).sqrt().tolist()
