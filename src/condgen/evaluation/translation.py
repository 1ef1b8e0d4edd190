"""Translation between domains: is the picture of the asked domain, does it come back, is it the same scene?

Every picture of the test rows is translated to every other domain. Whether it got there is said by a classifier of real training pictures;
whether it comes back, by the mean absolute difference after both ways. Where the test rows hold the same scene in the other domain
(`counterpart`), the translated picture is compared with that; where they hold the object's mask, its shape is. Training sees neither:
Zhu, Park, Isola & Efros 2017, arXiv 1703.10593, learn from unpaired pictures. Differences are those of pixels in [0, 1].
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from condgen.editing.space import at_rest
from condgen.editing.translation import domain_of
from condgen.errors import BadInput
from condgen.evaluation.measuring import Family, Measured, Measuring, some_rows
from condgen.evaluation.segmenter import Segmenter, overlaps, sized, train_segmenter

log = logging.getLogger("condgen")

PICTURES = 1000
"""Test pictures that are translated, at most."""
CONTROLS = 100
"""Test pictures that an untrained model translates."""
UNTRAINED = f"control=untrained model, at most {CONTROLS} pictures"
SURE = 0.95
"""A judge that is right less often on real pictures gives way to a probe on a feature net, where there is one that does better."""
PROBED = 4000
"""Training pictures that the probe learns from, at most."""
PROBED_PX = 128
"""Smaller pictures are enlarged to this shorter side for the feature net: right on 95 % of the horses and zebras of 64 px, not on 93 %."""
STILL = 1 / 255
"""Pixels that differ by no more, in [0, 1], are those that translation should leave alone."""


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
    """The test pictures, each to every other domain; of the untrained model only some."""
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


def _parts(m: Measuring, to: Tensor) -> dict[str, Tensor]:
    """The whole, "", and each direction, "/to:zebra": which translations it is of, bool (n,)."""
    _, label = domain_of(m.model)
    directions = {f"/to:{name}": to == i for i, name in enumerate(label.names)}
    return {"": torch.ones_like(to, dtype=torch.bool), **{part: at for part, at in directions.items() if bool(at.any())}}


# --- the asked domain -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DomainJudge:
    """What tells domains apart: pictures (n, *shape) to the index of the domain (n,); `accuracy` is its own on real test pictures."""

    id: str
    predict: Callable[[Tensor], Tensor]
    accuracy: float


def domain_accuracy(m: Measuring) -> Family:
    """Share of translated test pictures that a judge of real training pictures takes for the asked domain; by direction as well.

    Beside it the judge on real pictures of that domain, and on the pictures before they were translated.
    """
    name, _ = domain_of(m.model)
    judge, found = domain_judge(m, name), ways(m, m.model)
    seen, before = judge.predict(found.y) == found.to, judge.predict(found.x) == found.to
    domains = m.real.c[name]
    known, real = judge.predict(m.real.x) == domains, _parts(m, domains)
    about = f"|{judge.id}|{name}|v1|ceiling=real pictures|control=untranslated"
    return {
        f"domain_accuracy{part}": _share(seen[at], known[real[part]], before[at], f"domain_accuracy{part}{about}")
        for part, at in _parts(m, found.to).items()
        if part in real
    }


def _share(seen: Tensor, real: Tensor, before: Tensor, about: str) -> Measured:
    value, ceiling, control = (float(some.double().mean()) for some in (seen, real, before))
    return Measured(value, ceiling, control, len(seen), about, (value * (1 - value) / len(seen)) ** 0.5)


def domain_judge(m: Measuring, name: str) -> DomainJudge:
    """The data's judge; where that is often wrong on real pictures, a probe on a feature net, if one is found that does better."""
    judge = m.judge
    own = DomainJudge(judge.id, lambda x: judge.predict(x, name), judge.accuracy[name])
    if own.accuracy >= SURE:
        return own
    probe = _probe(m, name)
    return probe if probe is not None and probe.accuracy > own.accuracy else own


def _probe(m: Measuring, name: str, net_name: str = "squeezenet") -> DomainJudge | None:
    """Logistic regression on a feature net's activations, averaged over places, of real training pictures; None where no net is found."""
    from condgen.backbones import feature_net

    try:
        net = feature_net(net_name)
    except BadInput as error:
        log.info("%s is told by the data's own judge, which is not sure: no feature net is found (%s)", name, error)
        return None
    train = m.train.batch(torch.randperm(len(m.train), generator=torch.Generator().manual_seed(0))[:PROBED])
    layers = deepest(net.names)
    predict = _regression(_means(net, layers, train.x), train.c[name])

    def seen(x: Tensor) -> Tensor:
        return predict(_means(net, layers, x))

    right = float((seen(m.real.x) == m.real.c[name]).double().mean())
    return DomainJudge(f"logistic on {net.id} {'+'.join(layers)}, {len(train.x)} real pictures", seen, right)


def deepest(names: tuple[str, ...]) -> list[str]:
    """The last rectified layer of each level but the first.

    >>> deepest(("conv1_1", "relu1_1", "relu2_1", "relu2_2", "relu3_1"))
    ['relu2_2', 'relu3_1']
    """
    levels = {name[4]: name for name in names if name.startswith("relu") and name[4] != "1"}
    return list(levels.values())


@torch.no_grad()
def _means(net: Any, layers: list[str], x: Tensor, chunk: int = 50) -> Tensor:
    """(n, channels of all layers), float64."""
    parts = [net(_enlarged(some), layers) for some in x.split(chunk)]
    return torch.cat([torch.cat([part[layer].mean((2, 3)) for layer in layers], 1) for part in parts]).double()


def _enlarged(x: Tensor) -> Tensor:
    scale = PROBED_PX / min(x.shape[2:])
    return x if scale <= 1 else F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False).clamp(-1, 1)


def _regression(features: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)).fit(features.numpy(), labels.numpy())
    return lambda x: torch.from_numpy(fitted.predict(x.numpy()))


# --- there and back -------------------------------------------------------------------------------------------------------


def cycle_l1(m: Measuring) -> Family:
    """Mean absolute difference of a picture and what comes back of it, pixels in [0, 1]; by direction as well."""
    errors, controls = (_returned(m, model) for model in (m.model, m.untrained))
    about = f"|mean absolute difference in [0,1]|v1|ceiling=the picture itself|{UNTRAINED}"
    return {k: Measured.of((v, 0.0, controls[k][0]), n, f"{k}{about}") for k, (v, n) in errors.items() if k in controls}


def _returned(m: Measuring, model: Any) -> dict[str, tuple[float, int]]:
    """Name of a part -> the mean difference, and of how many pictures."""
    found = ways(m, model)
    error = (translate(model, found.y, found.source) - found.x).abs().flatten(1).double().mean(1) / 2
    parts = {f"cycle_l1{part}": at for part, at in _parts(m, found.to).items()}
    return {part: (float(error[at].mean()), int(at.sum())) for part, at in parts.items()}


# --- the same scene -------------------------------------------------------------------------------------------------------


def paired_gain(m: Measuring) -> Family:
    """How much nearer to the scene's true picture in the other domain translation comes: 1 - L1(y, true) / L1(x, true).

    Its parts: by direction; `inside` and `outside` of the object; `l1`, the distance itself, beside that of the untranslated picture; and
    `tint`, how far the mean colour of those pixels moves that are alike in both domains.

    Raises:
        BadInput: for data whose test rows hold no `counterpart`.
    """
    true = _of_test(m, "counterpart", "the same scene in the other domain")
    found, fresh = ways(m, m.model), ways(m, m.untrained)
    gains, controls = _gains(m, found, true), _gains(m, fresh, true)
    n, about = len(found.rows), "|mean absolute difference in [0,1]|v1|ceiling=the counterpart itself|"
    family = {k: Measured.of((v, 1.0, controls[k][0]), some, f"{k}{about}{UNTRAINED}") for k, (v, some) in gains.items() if k in controls}
    after, before = (float(_apart(some, true[found.rows]).mean()) for some in (found.y, found.x))
    family["paired_gain/l1"] = Measured(after, 0.0, before, n, f"paired_gain/l1{about}control=untranslated")
    value, control = (tint(some.y, some.x, _still(m, some, true)) for some in (found, fresh))
    if value is not None:
        told = f"paired_gain/tint|mean colour of what is alike in both domains, in [0,1]|v1|ceiling=unchanged|{UNTRAINED}"
        family["paired_gain/tint"] = Measured(value, 0.0, control, n, told)
    return family


def _of_test(m: Measuring, name: str, what: str) -> Tensor:
    """A picture that stands beside each test picture. Raises BadInput where the data have none."""
    if name not in m.real.c:
        raise BadInput(f"the test rows have no `{name}` ({what}), to measure against; drawn data such as scenes-domains have it")
    return m.real.c[name]


def _apart(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of channels, pixels in [0, 1]: (n, h, w)."""
    return (x - y).abs().double().mean(1) / 2


def _gains(m: Measuring, found: Ways, true: Tensor) -> dict[str, tuple[float, int]]:
    """Name of a part -> the gain, and of how many pictures; where there is anything to gain."""
    after, before = (_apart(some, true[found.rows]) for some in (found.y, found.x))
    room = {part: (at, float((before * at).sum())) for part, at in _regions(m, found).items()}
    return {
        f"paired_gain{part}": (1 - float((after * at).sum()) / total, int(at.flatten(1).any(1).sum()))
        for part, (at, total) in room.items()
        if total > 0
    }


def _regions(m: Measuring, found: Ways) -> dict[str, Tensor]:
    """Name of a part -> which pixels count, bool, of a shape that fits (n, h, w)."""
    regions = {part: at[:, None, None] for part, at in _parts(m, found.to).items()}
    if "mask" in m.real.c:
        inside = m.real.c["mask"][found.rows, 0] > 0
        regions |= {"/inside": inside, "/outside": ~inside}
    return regions


def _still(m: Measuring, found: Ways, true: Tensor) -> Tensor:
    """Pixels outside of the object that are the same in both domains, bool (n, h, w)."""
    same = (found.x - true[found.rows]).abs().amax(1) / 2 <= STILL
    return same & (m.real.c["mask"][found.rows, 0] <= 0) if "mask" in m.real.c else same


def tint(y: Tensor, x: Tensor, still: Tensor) -> float | None:
    """How far the mean colour of the still pixels (n, h, w) moves from x to y, absolute, in [0, 1], over channels and pictures.

    None where no pixel is still.
    """
    at = still[:, None].double()
    total = at.sum((2, 3))
    moved = ((y - x).double() * at).sum((2, 3)) / total.clamp(min=1) / 2  # (n, c)
    return float(moved.abs()[total[:, 0] > 0].mean()) if bool(still.any()) else None


def mask_iou(m: Measuring) -> Family:
    """Overlap of the object's true mask and the one that a segmenter sees in the translated picture; by direction as well.

    The segmenter learns from real pictures of half of the test scenes, in both domains, and the model is measured on the other half.

    Raises:
        BadInput: for data whose test rows hold no `mask`.
    """
    truth = sized(_of_test(m, "mask", "of the object"))[:, 0] > 0
    learns = learning_half(truth, m.real.c[domain_of(m.model)[0]])
    if bool(learns.all()):
        raise BadInput("all test pictures have one mask; a segmenter cannot learn from some scenes and be tried on others")
    segmenter, found = _segmenter(m, learns), ways(m, m.model)
    held = ~learns[found.rows]
    shown, real, true, to = segmenter(found.y[held]), segmenter(found.x[held]), truth[found.rows[held]], found.to[held]
    three = [overlaps(shown, true), overlaps(real, true), overlaps(shown, true.roll(1, 0))]
    about = f"|{segmenter.id}|v1|ceiling=the segmenter on the untranslated pictures|control=mask of another picture"
    return {
        f"mask_iou{part}": Measured.of((float(some[at].mean()) for some in three), int(at.sum()), f"mask_iou{part}{about}")
        for part, at in _parts(m, to).items()
    }


def learning_half(masks: Tensor, domain: Tensor) -> Tensor:
    """Which pictures the segmenter learns from, bool (n,): of each domain every other mask (n, h, w), so that no scene is on both sides."""
    n = len(masks)
    _, scene = masks.flatten(1).unique(dim=0, return_inverse=True)
    first = torch.full((int(scene.max()) + 1,), n).scatter_reduce(0, scene, torch.arange(n), "amin")  # row in which a scene is met
    place = torch.empty_like(first)
    place[(domain[first] * n + first).argsort()] = torch.arange(len(first))
    half: Tensor = place[scene] % 2 == 0
    return half


def _segmenter(m: Measuring, learns: Tensor) -> Segmenter:
    """Trained on those test pictures and, where the data have them, their counterparts."""
    kinds = [m.real.x, *([m.real.c["counterpart"]] if "counterpart" in m.real.c else [])]
    return train_segmenter(torch.cat([x[learns] for x in kinds]), m.real.c["mask"][learns].repeat(len(kinds), 1, 1, 1))
