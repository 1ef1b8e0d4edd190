"""Translation between domains: is the picture of the asked domain, and does it come back? `same_scene` asks whether it is the same scene.

Every picture of the test rows is translated to every other domain, once for all metrics. Whether it got there is said by a classifier of
real training pictures, and of the object alone by another; whether it comes back, by the mean absolute difference after both ways. Each is
met by a map that does nothing to the object, so none means much without the others. Training sees neither masks nor counterparts:
Zhu, Park, Isola & Efros 2017, arXiv 1703.10593, learn from unpaired pictures. Differences are those of pixels in [0, 1].
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from condgen.editing.space import at_rest
from condgen.evaluation.domains import DomainJudge, alone, domain_judge, object_judge
from condgen.evaluation.measuring import Family, Measured, Measuring, some_rows
from condgen.evaluation.segmenter import learning_half
from condgen.model import domain_of

PICTURES = 1000
"""Test pictures that are translated, at most."""
CONTROLS = 100
"""Test pictures that an untrained model translates."""
UNTRAINED = f"control=untrained model, at most {CONTROLS} pictures"


@dataclass(frozen=True)
class Ways:
    """Pictures and what became of them, a translation a row.

    Args:
        rows: which test picture, (n,).
        source, to: the domains it comes from and was asked for, (n,).
        x, y: before and after, (n, *shape) on the CPU.
    """

    rows: Tensor
    source: Tensor
    to: Tensor
    x: Tensor
    y: Tensor


def ways(m: Measuring, model: Any) -> Ways:
    """The test pictures, each to every other domain; of the untrained model only some. Kept for the metrics that follow."""
    if ("ways", model) not in m.kept:
        m.kept["ways", model] = _ways(m, model)
    found: Ways = m.kept["ways", model]
    return found


def _ways(m: Measuring, model: Any) -> Ways:
    name, label = domain_of(model)
    k, chosen = len(label.names), some_rows(len(m.real.x), PICTURES if model is m.model else CONTROLS)
    rows, to = chosen.repeat_interleave(k), torch.arange(k).repeat(len(chosen))
    away = m.real.c[name][rows] != to
    rows, to = rows[away], to[away]
    x = m.real.x[rows]
    return Ways(rows, m.real.c[name][rows], to, x, translate(model, x, to))


def translate(model: Any, x: Tensor, to: Tensor, chunk: int = 50) -> Tensor:
    """Pictures (n, *shape) drawn in the domains (n,), float32 on the CPU."""
    name, _ = domain_of(model)
    with at_rest(model):
        parts = [
            model.translate(some.to(model.device), {name: k.to(model.device)}).float().cpu()
            for some, k in zip(x.split(chunk), to.split(chunk), strict=True)
        ]
    return torch.cat(parts)


def directions(m: Measuring, to: Tensor) -> dict[str, Tensor]:
    """The whole, "", and each direction, "/to:zebra": which translations it is of, bool (n,)."""
    _, label = domain_of(m.model)
    parts = {f"/to:{name}": to == i for i, name in enumerate(label.names)}
    return {"": torch.ones_like(to, dtype=torch.bool), **{part: at for part, at in parts.items() if bool(at.any())}}


# --- the asked domain -----------------------------------------------------------------------------------------------------


def domain_accuracy(m: Measuring) -> Family:
    """Share of translated test pictures that a judge of real training pictures takes for the asked domain; by direction as well.

    Beside it the judge on real pictures of that domain, and on the pictures before they were translated. Where the test rows hold masks,
    the parts `object` ask the same of the object alone: the judge above may hear nothing but the ground.
    """
    name, _ = domain_of(m.model)
    judge, found, domains = domain_judge(m, name), ways(m, m.model), m.real.c[name]
    seen, before, known = (judge.predict(x) for x in (found.y, found.x, m.real.x))
    real = {part: known[at] == domains[at] for part, at in directions(m, domains).items()}
    about = f"|{judge.id}|{name}|v1|ceiling=real pictures|control=untranslated"
    family = {
        f"domain_accuracy{part}": _share(seen[at] == found.to[at], real[part], before[at] == found.to[at], f"domain_accuracy{part}{about}")
        for part, at in directions(m, found.to).items()
        if part in real
    }
    return family | (_of_objects(m, found) if "mask" in m.real.c else {})


def _share(seen: Tensor, real: Tensor, before: Tensor, about: str) -> Measured:
    value, ceiling, control = (float(some.double().mean()) for some in (seen, real, before))
    return Measured(value, ceiling, control, len(seen), about, (value * (1 - value) / len(seen)) ** 0.5)


def _of_objects(m: Measuring, found: Ways) -> Family:
    """The parts `object`: the judge learns from one half of the scenes, the translated pictures of the other half are shown to it."""
    name, _ = domain_of(m.model)
    mask, domains = m.real.c["mask"], m.real.c[name]
    learns = learning_half(mask[:, 0] > 0, domains)
    held = ~learns[found.rows]
    if not bool(held.any()) or bool(held.all()):
        return {}
    judge = _object_judge(m, learns)
    to, masks = found.to[held], mask[found.rows[held]]
    true = m.real.c["counterpart"][found.rows[held]] if "counterpart" in m.real.c else None
    seen, before = (judge.predict(alone(x[held], masks)) == to for x in (found.y, found.x))
    real = judge.predict(alone(true, masks)) == to if true is not None else ~before
    about = f"|{judge.id}|{name}|v1|ceiling={'the counterpart' if true is not None else 'real pictures'}|control=untranslated"
    return {
        f"domain_accuracy/object{part}": _share(seen[at], real[at], before[at], f"domain_accuracy/object{part}{about}")
        for part, at in directions(m, to).items()
    }


def _object_judge(m: Measuring, learns: Tensor) -> DomainJudge:
    """Learnt from those test pictures and, where the data have them, their counterparts: then shapes tell nothing."""
    name, label = domain_of(m.model)
    x, domain, mask = m.real.x[learns], m.real.c[name][learns], m.real.c["mask"][learns]
    if "counterpart" in m.real.c:
        x, domain, mask = torch.cat([x, m.real.c["counterpart"][learns]]), torch.cat([domain, 1 - domain]), mask.repeat(2, 1, 1, 1)
    return object_judge(x, domain, mask, name, label)


# --- there and back -------------------------------------------------------------------------------------------------------


def cycle_l1(m: Measuring) -> Family:
    """Mean absolute difference of a picture and what comes back of it, pixels in [0, 1]; by direction as well.

    Its part `blurred`: the same where the picture between the two ways is averaged over 3x3 px, as people hardly see. By so much as this is
    larger, the way back does not read the picture but a grain that was hidden in it.
    """
    errors, controls = (_returned(m, model) for model in (m.model, m.untrained))
    about = f"|mean absolute difference in [0,1]|v1|ceiling=the picture itself|{UNTRAINED}"
    return {k: Measured.of((v, 0.0, controls[k][0]), n, f"{k}{about}") for k, (v, n) in errors.items() if k in controls}


def _returned(m: Measuring, model: Any) -> dict[str, tuple[float, int]]:
    """Name of a part -> the mean difference, and of how many pictures."""
    found = ways(m, model)
    error, hazy = (apart(translate(model, y, found.source), found.x).flatten(1).mean(1) for y in (found.y, blurred(found.y)))
    parts = {f"cycle_l1{part}": (float(error[at].mean()), int(at.sum())) for part, at in directions(m, found.to).items()}
    return parts | {"cycle_l1/blurred": (float(hazy.mean()), len(hazy))}


def apart(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of channels, pixels in [0, 1]: (n, h, w)."""
    return (x - y).abs().double().mean(1) / 2


def blurred(x: Tensor) -> Tensor:
    """Means over 3x3 px, the border repeated.

    >>> blurred(torch.tensor([[[[0.0, 0.0, 9.0, 0.0]]]]))
    tensor([[[[0., 3., 3., 3.]]]])
    """
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), "replicate"), 3, 1)
