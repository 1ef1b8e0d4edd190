"""Fréchet and kernel distance in the eyes of a feature net instead of the judge's: the metrics `frechet_features` and `kernel_features`.

A picture's features are the means over all places of the net's deepest first-of-level layer, relu5_1. The net is what "auto" means on
this machine (`backbones.feature_net`; $CONDGEN_FEATURES says another), and every provenance names it: values of different nets do not
compare, and none is an FID, which is of Inception's features.
"""

import torch
from torch import Tensor

from condgen.backbones import feature_net
from condgen.evaluation.frechet import frechet_of_features, kernel
from condgen.evaluation.measuring import Measured, Measuring
from condgen.models.features import enlarged
from condgen.networks.features import FeatureNet

LAYER = "relu5_1"
LEAST_PX = 32
"""Shorter side to which smaller pictures are enlarged: at relu5_1 two places are left of it."""
ENDS = "|ceiling=training rows|control=untrained model"


@torch.no_grad()
def pooled(net: FeatureNet, x: Tensor, layer: str = LAYER, chunk: int = 100) -> Tensor:
    """Mean activations (n, channels) of pictures (n, c, h, w) in [-1, 1], float64 on the CPU."""
    where = next(net.parameters()).device
    seen = (net(enlarged(some, LEAST_PX).to(where).float(), (layer,))[layer] for some in x.split(chunk))
    return torch.cat([activations.mean((2, 3)).double().cpu() for activations in seen])


def frechet_on_net(m: Measuring) -> Measured:
    """Of the `natural` samples to real test rows. Raises BadInput where no feature net is found."""
    net, real, three = _seen(m)
    values = (frechet_of_features(real, features).value for features in three)
    return Measured.of(values, m.n, _about(m, "frechet_features", net, len(real)))


def kernel_on_net(m: Measuring) -> Measured:
    """The unbiased kernel distance, likewise."""
    net, real, three = _seen(m)
    about = _about(m, "kernel_features", net, len(real)).replace("|v1", "|v1|cubic, unbiased, full set", 1)
    return Measured.of((kernel(real, features) for features in three), m.n, about)


Seen = tuple[FeatureNet, Tensor, list[Tensor]]


def _seen(m: Measuring) -> Seen:
    """The net, the features of real rows, and those of samples, of training rows in their place and of an untrained model's samples.

    Kept for the other distance.
    """
    if ("features", LAYER) not in m.kept:
        net = feature_net().to(m.model.device)
        sets = (m.natural, m.stand_in.x, m.drawn(m.untrained, m.naturally))
        m.kept["features", LAYER] = net, pooled(net, m.real.x), [pooled(net, x) for x in sets]
    seen: Seen = m.kept["features", LAYER]
    return seen


def _about(m: Measuring, name: str, net: FeatureNet, real: int) -> str:
    enlarged = f", enlarged to {LEAST_PX} px" if min(m.model.shape[1:]) < LEAST_PX else ""
    classes = "|classes as in the test rows" if m.label else ""
    return f"{name}|{net.id}, mean of {LAYER}{enlarged}|n={m.n}/{real}|f64|v1{classes}{ENDS}"
