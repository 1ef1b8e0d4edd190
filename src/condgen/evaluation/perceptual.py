"""How different two pictures look to a net: a distance of float pictures, fine enough for steps that no eye sees.

    d(x, y) = sum over layers of the mean over places of |u(x) - u(y)|^2,    u = a / sqrt(|a|^2 + FLOOR^2)

where a are the activations of one place, over all channels, behind a rectifier. The form is that of Zhang et al. 2018, arXiv 1801.03924,
without its weights for channels, and on the convolutions of the judge of the data, or on whatever feature net is at hand. So it is no
LPIPS, and its values compare with those of the same net only: it is named after it.

A path length divides by the square of a step of 1e-4, so nothing is rounded to 256 levels here, and all is computed in float64.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from condgen.errors import BadInput
from condgen.evaluation.judge import Judge
from condgen.networks.features import FeatureNet

FLOOR = 1e-2
"""Activations of a place that are all smaller have no direction to speak of. On MNIST and LFW norms are above .3, and d moves by 5e-5."""


@dataclass(frozen=True)
class Perceptual:
    """The distance of the module's head; made by `perceptual` and `perceptual_on`.

    Args:
        net: in eval mode; where it lies and how fine it computes is where and how distances are computed.
        layers: of it and of pictures (b, c, h, w): the activations behind its rectifiers, in order.
        id: names it in every provenance.
    """

    net: nn.Module
    layers: Callable[[nn.Module, Tensor], Iterable[Tensor]]
    id: str

    @torch.no_grad()
    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Of each of x (b, c, h, w) to its own of y, on the scale of [-1, 1]: (b,), at least 0. Raises BadInput where shapes differ."""
        if x.shape != y.shape or x.dim() != 4:
            raise BadInput(f"pictures of shape {tuple(x.shape)} and {tuple(y.shape)}; expected two of (b, c, h, w), the same")
        first = next(self.net.parameters())
        both, total = torch.cat([x, y]).to(first.device, first.dtype), first.new_zeros(len(x))
        for seen in self.layers(self.net, both):
            total = total + _apart(*_directions(seen).chunk(2))
        return total


def perceptual(judge: Judge, dtype: torch.dtype = torch.float64) -> Perceptual:
    """The distance as this judge sees, on its device.

    Args:
        judge: of pictures.
        dtype: float64 where small steps are measured; float32 is twice as fast and rounds squares below 1e-12.

    Raises:
        BadInput: for a judge of points, which has no convolutions.
    """
    layers = list(judge.net.body)
    ends = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Flatten)]
    if not any(isinstance(layer, nn.Conv2d) for layer in layers):
        raise BadInput(f"the judge {judge.id} has no convolutions; a perceptual distance is of pictures")
    body = copy.deepcopy(nn.Sequential(*layers[: ends[0]])).to(dtype).eval()
    return Perceptual(body.requires_grad_(False), _rectified, f"perceptual on {judge.id}")


def perceptual_on(net: FeatureNet, layers: Iterable[str] | None = None, dtype: torch.dtype = torch.float64) -> Perceptual:
    """The distance as this feature net sees, on its device.

    Args:
        net: such as `backbones.feature_net()`; it is copied.
        layers: by default the first rectified one of each level.
        dtype: as for `perceptual`.
    """
    names = tuple(layers) if layers is not None else tuple(n for n in net.names if n.startswith("relu") and n.endswith("_1"))
    ours = copy.deepcopy(net).to(dtype).eval().requires_grad_(False)
    return Perceptual(ours, lambda seeing, x: seeing(x, names).values(), f"perceptual on {net.id} ({', '.join(names)})")


def _rectified(body: nn.Module, x: Tensor) -> Iterator[Tensor]:
    for layer in body.children():
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            yield x


def _directions(a: Tensor) -> Tensor:
    """(b, ch, h, w), brought to length 1 over channels."""
    return a * torch.rsqrt(a.square().sum(1, keepdim=True) + FLOOR**2)


def _apart(u: Tensor, v: Tensor) -> Tensor:
    return (u - v).square().sum(1).mean((1, 2))
