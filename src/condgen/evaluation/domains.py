"""Who tells of pictures, which domain they are of: the data's judge, a probe on a feature net, and one that sees the object alone."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from condgen.conditions import Label
from condgen.data.store import Content, Dataset, to_bytes
from condgen.errors import BadInput
from condgen.evaluation.judge import judge_for, train_judge

log = logging.getLogger("condgen")

SURE = 0.95
"""A judge that is right less often on real pictures is tried against a probe on a feature net."""
PROBED = 4000
"""Training pictures that the probe learns from, at most."""
PROBED_PX = 128
"""Smaller pictures are enlarged to this shorter side for the feature net: right on 95 % of the horses and zebras of 64 px, not on 93 %."""
GRAY = 1 / 255
"""What is left out of a picture gets this value: byte 128."""
WHOLLY = 0.99
"""Of a mask in [-1, 1]: pixels above belong to the object wholly. Those of its rim would give away the ground."""
OBJECT_EPOCHS = 30
"""Of the judge of objects: on 400 pictures it is then right on all of the others."""


@dataclass(frozen=True)
class DomainJudge:
    """What tells domains apart: pictures (n, *shape) to the index of the domain (n,)."""

    id: str
    predict: Callable[[Tensor], Tensor]


def domain_judge(m: Any, name: str) -> DomainJudge:
    """The data's judge; where that is often wrong, a probe on a feature net, if one is found and does better.

    Which does better is tried on the last sixth of the training rows, from which neither learnt: the test rows choose nothing.
    """
    judge = m.judge
    own = DomainJudge(judge.id, lambda x: judge.predict(x, name))
    if judge.accuracy[name] >= SURE:
        return own
    cut = len(m.train) * 5 // 6
    learnt, held = _rows(m.train, slice(0, cut)), _rows(m.train, slice(cut, None))
    probe = _probe(learnt, name)
    if probe is None:
        return own
    tried = held.batch(torch.arange(len(held)))
    right = float((probe.predict(tried.x) == tried.c[name]).double().mean())
    return probe if right > judge_for(learnt, held).accuracy[name] else own


def _rows(data: Dataset, at: slice) -> Dataset:
    """A part of a set."""
    content = data.content
    columns = {name: content.columns[name][at] for name in data.schema}
    return Dataset(data.name, f"{data.split}[{at.start}:{at.stop}]", Content(content.samples[at], columns, data.schema))


def _probe(learnt: Dataset, name: str, net_name: str = "squeezenet") -> DomainJudge | None:
    """Logistic regression on a feature net's activations, averaged over places, of real training pictures; None where no net is found."""
    from condgen.backbones import feature_net

    try:
        net = feature_net(net_name)
    except BadInput as error:
        log.info("%s is told by the data's own judge, which is not sure: no feature net is found (%s)", name, error)
        return None
    train = learnt.batch(torch.randperm(len(learnt), generator=torch.Generator().manual_seed(0))[:PROBED])
    layers = deepest(net.names)
    predict = _regression(_means(net, layers, train.x), train.c[name])
    about = f"logistic on {net.id} {'+'.join(layers)}, {len(train.x)} real pictures"
    return DomainJudge(about, lambda x: predict(_means(net, layers, x)))


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


# --- the object alone -----------------------------------------------------------------------------------------------------


def alone(x: Tensor, mask: Tensor) -> Tensor:
    """Pictures (n, c, h, w) with all but the inside of their object, by masks (n, 1, h, w) in [-1, 1], mid-gray."""
    return torch.where(mask > WHOLLY, x, GRAY)


def object_judge(x: Tensor, domain: Tensor, mask: Tensor, name: str, label: Label) -> DomainJudge:
    """The data's judge's net, learnt from objects alone: no ground, however it is painted, can please it.

    Args:
        x: real pictures (n, c, h, w). Best the same scenes in each domain: then the masks' shapes tell nothing.
        domain: of each, (n,).
        mask: (n, 1, h, w) in [-1, 1].
        name, label: of the domains.
    """
    seen = Dataset("objects", "train", Content(to_bytes(alone(x, mask)), {name: domain}, {name: label}))
    judge = train_judge(seen, seen, {name: label}, epochs=OBJECT_EPOCHS)
    return DomainJudge(f"{judge.id} of objects, {len(x)} real pictures", lambda some: judge.predict(some, name))
