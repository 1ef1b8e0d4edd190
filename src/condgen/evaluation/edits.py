"""Edits of real pictures: does the judge see what was asked for, and is the rest as it was?

A picture of the test rows is edited to every class. It succeeds where the judge names the target; what shows the target already must come
back bit for bit. Whether the rest stayed is told by the structural similarity of edit and reconstruction, beside that of a random real
picture of the target: an edit that draws any picture of the class would be no nearer. Engel, Hoffman & Roberts 2017, arXiv 1711.05772.

Where the model reads attributes and no label, each attribute is asked to cross its middle, and it succeeds where the judge sees it do so.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from condgen.conditions import Attributes, Condition, Label
from condgen.editing.space import Space
from condgen.errors import BadInput
from condgen.evaluation.measuring import Family, Measured, Measuring
from condgen.evaluation.ssim import convention, ssim

PICTURES = 500
"""Test pictures that are edited, each to all classes or over all attributes."""
ATTRIBUTE_EDITS = 2000
"""Edits in all, where attributes are asked: fewer pictures then."""


@dataclass(frozen=True)
class Edited:
    """Pictures beside what became of them, an edit a row.

    Args:
        rows: which test picture, (n,).
        target: the class or attribute that was asked, (n,).
        x, back, edited: the picture, its reconstruction, the edit, (n, *shape).
        changed: what the model says it changed, bool (n,).
        held: where the target was shown before, by the data's own label, bool (n,).
        success: where the judge sees the target in the edit, bool (n,).
        before: the same of the reconstruction.
    """

    rows: Tensor
    target: Tensor
    x: Tensor
    back: Tensor
    edited: Tensor
    changed: Tensor
    held: Tensor
    success: Tensor
    before: Tensor


def edit_success(m: Measuring) -> Family:
    """Share of edits in which the judge sees the target, of those that had to change; with `unchanged` and `ssim` as parts.

    Raises:
        BadInput: where the model reads neither a label nor attributes that the judge can name.
    """
    name = m.label or next((k for k, c in m.model.schema.items() if isinstance(c, Attributes)), "")
    if not name:
        raise BadInput("edits are measured by labels or attributes; the model reads neither")
    found = class_edits(m, name, PICTURES) if m.label else attribute_edits(m, name, ATTRIBUTE_EDITS)
    asked, held = ~found.held, found.held & ~found.changed
    n = int(asked.sum())
    about = f"edit_success|{m.judge.id}|{name}|pictures={int(found.rows.max()) + 1}|n={n}|v1"
    value, before = (float(share[asked].double().mean()) for share in (found.success, found.before))
    family = {
        "edit_success": Measured(value, _ceiling(m, name), before, n, f"{about}|ceiling=real pictures|control=unedited", _error(value, n))
    }
    if bool(found.held.any()):
        same = (found.edited == found.x).flatten(1).all(1)
        share = float((same & held)[found.held].double().mean())
        family["edit_success/unchanged"] = Measured(
            share, 1.0, None, int(found.held.sum()), f"{about}|bit for bit|ceiling=all|control=none"
        )
    if len(m.model.shape) == 3:
        family["edit_success/ssim"] = _likeness(m, name, found, asked, about)
    return family


def _ceiling(m: Measuring, name: str) -> float | None:
    """The judge's share of right answers on real pictures of the test rows."""
    return m.judge.accuracy.get(name)


def _error(share: float, n: int) -> float:
    return (share * (1 - share) / max(n, 1)) ** 0.5


def _likeness(m: Measuring, name: str, found: Edited, asked: Tensor, about: str) -> Measured:
    """Median SSIM of edit and reconstruction; the control is a real picture that shows the target."""
    beside = m.real.x[_shown(m, name, found.target[asked], m.seed)]
    value = float(ssim(found.edited[asked], found.back[asked]).median())
    control = float(ssim(beside, found.back[asked]).median())
    how = convention(*m.model.shape[1:]).replace("ms_ssim|", "ssim|first of ")
    return Measured(value, 1.0, control, int(asked.sum()), f"{about}|median|{how}|ceiling=itself|control=random of the target")


def _shown(m: Measuring, name: str, target: Tensor, seed: int) -> Tensor:
    """For each edit the row of a random test picture that shows its target."""
    generator, condition = Generator().manual_seed(seed), m.model.schema[name]
    rows = torch.zeros_like(target)
    for k in target.unique():
        own = shows(condition, m.real.c[name], k.expand(len(m.real.x))).nonzero().flatten()
        at = (target == k).nonzero().flatten()
        if len(own):
            rows[at] = own[torch.randint(len(own), (len(at),), generator=generator)]
    return rows


def shows(condition: Condition, values: Tensor, target: Tensor) -> Tensor:
    """Whether values (n, ...) show the targets (n,): a class; or attribute k above (k >= 0) or below (-1 - k) its middle."""
    if isinstance(condition, Label):
        return values == target
    assert isinstance(condition, Attributes)
    k, middle = torch.where(target >= 0, target, -1 - target), middles(condition)
    above = values.gather(1, k[:, None])[:, 0] >= middle[k]
    return above == (target >= 0)


def middles(condition: Attributes) -> Tensor:
    return (torch.tensor(condition.low) + torch.tensor(condition.high)) / 2


def class_edits(m: Measuring, name: str, most: int) -> Edited:
    """The first test rows, each edited to every class."""
    x, k = m.real.x[:most], m.classes
    rows, target = torch.arange(len(x)).repeat_interleave(k), torch.arange(k).repeat(len(x))
    values = {key: v[:most][rows] for key, v in m.real_conditions.items()} | {name: target}
    return _edited(m, name, x, rows, target, values)


def attribute_edits(m: Measuring, name: str, most: int) -> Edited:
    """The first test rows, each attribute asked to go to the other end of its range; the other attributes are left open."""
    condition = m.model.schema[name]
    assert isinstance(condition, Attributes)
    k = len(condition.names)
    pictures = max(1, min(PICTURES, most // k, len(m.real.x)))
    rows, each = torch.arange(pictures).repeat_interleave(k), torch.arange(k).repeat(pictures)
    shown = shows(condition, m.real.c[name][rows], each)
    target = torch.where(shown, -1 - each, each)
    asked = torch.full((len(rows), k), float("nan"))
    asked[torch.arange(len(rows)), each] = torch.where(shown, torch.tensor(condition.low)[each], torch.tensor(condition.high)[each])
    values = {key: v[:pictures][rows] for key, v in m.real_conditions.items()} | {name: asked}
    return _edited(m, name, m.real.x[:pictures], rows, target, values)


def _edited(m: Measuring, name: str, x: Tensor, rows: Tensor, target: Tensor, values: dict[str, Tensor], chunk: int = 1000) -> Edited:
    """The model's own edits and reconstructions, on the CPU, and what the judge sees in them."""
    model: Any = m.model
    parts = []
    for i in range(0, len(rows), chunk):
        c = {k: v[i : i + chunk].to(model.device) for k, v in values.items()}
        parts.append(tuple(v.detach().cpu() for v in model.edit(x[rows[i : i + chunk]].to(model.device), c)))
    edited, changed = (torch.cat(some) for some in zip(*parts, strict=True))
    back = Space(model).reconstruct(x, {k: v[: len(x)] for k, v in m.real_conditions.items()})[rows]
    condition = m.model.schema[name]
    success, before = (shows(condition, m.judge.predict(some, name), target) for some in (edited, back))
    return Edited(rows, target, x[rows], back, edited.float(), changed, shows(condition, m.real.c[name][rows], target), success, before)


def z_mse(m: Measuring) -> Measured:
    """How far the actor moves draws of the prior: (z' - z)^2 in squared deviations of the encoder; beside another draw of the prior.

    Raises:
        BadInput: where the model has no actor.
    """
    model: Any = m.model
    if not hasattr(model, "displacement"):
        raise BadInput(f"{type(model).__name__} moves no latents by an actor; z_mse is of latent_constraints")
    c = {k: v[m.evenly] for k, v in m.asked.items()}
    moved = model.displacement(c, m.n, m.seed).double()
    with torch.no_grad():
        model.noise.seed(m.seed)
        one, two = (model.draws(m.n, {k: v.to(model.device) for k, v in c.items()}) for _ in range(2))
        apart = ((one - two).square() / model.sigma.square()).mean().item()
    about = f"z_mse|in squared deviations of the encoder|n={m.n}|f32|v1|ceiling=0, the latent itself|control=another draw of the prior"
    return Measured(float(moved.mean()), 0.0, apart, m.n, about, float(moved.std() / m.n**0.5))
