"""From each picture to the next, through the latent space. White 2016, arXiv 1609.04468: along the arc, where the prior is round."""

import torch
from torch import Tensor

from condgen.conditions import Values
from condgen.editing.latent import path, uniform_path
from condgen.edits.sheet import Sheet
from condgen.edits.subject import Subject, mixed
from condgen.errors import require_whole


def draw(subject: Subject, steps: int | None = None, how: str | None = None) -> Sheet:
    """A row for each pair of neighbours, with the two originals at its ends.

    Args:
        subject: two samples or more.
        steps: samples from one to the next, both reconstructions included; by default 9, in a film 48.
        how: "slerp", "lerp", or "uniform" for a prior U(-1, 1); by default what suits the model's prior.

    Raises:
        BadInput: for fewer than 2 steps, or another way.
    """
    steps = subject.steps(steps, 9, 48)
    require_whole("--steps", steps, 2, 1000)
    z, x = subject.z, subject.x
    how = how or subject.model.walk
    walked = uniform_path(z[:-1], z[1:], steps) if how == "uniform" else path(z[:-1], z[1:], steps, how)
    ways = walked.transpose(0, 1)  # (pairs, steps, ...)
    c = [between(subject, i, steps) for i in range(len(ways))]
    shown = torch.stack([subject.decode(way, one) for way, one in zip(ways, c, strict=True)])
    cells = torch.cat([x[:-1, None], shown, x[1:, None]], 1)
    whole = {k: torch.cat([_joined(one[k], i) for i, one in enumerate(c)]) for k in subject.model.schema}
    flat = torch.cat([_joined(s, i) for i, s in enumerate(shown)])
    return Sheet(
        x=flat,
        z=torch.cat([_joined(way, i) for i, way in enumerate(ways)]),
        c=whole,
        cells=cells,
        frames=flat[:, None],
        title=f"{subject.name}: from picture to picture, {how}",
        said=f"{len(flat)} samples between {len(subject)} files by {how}",
        rows=[f"{a}\nto {b}" for a, b in zip(subject.names, subject.names[1:], strict=False)],
        columns=["given", *[""] * steps, "given"],
        apart_columns=frozenset({1, steps + 1}),
        bare_columns=len(flat) if len(ways) == 1 else None,
        told={"steps": steps, "how": how},
    )


def _joined(way: Tensor, i: int) -> Tensor:
    """Without its first, which is the last of the way before."""
    return way if i == 0 else way[1:]


def between(subject: Subject, i: int, steps: int) -> Values:
    """Conditions on the way from sample i to the next: numbers in even steps, names of the nearer end."""
    t = torch.linspace(0, 1, steps)
    return mixed(subject.model.schema, subject.conditions(slice(i, i + 2)), torch.stack([1 - t, t], 1))
