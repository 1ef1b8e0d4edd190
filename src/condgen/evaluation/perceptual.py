"""How different two pictures look to the judge: a distance of float pictures, fine enough for steps that no eye sees.

    d(x, y) = sum over layers of the mean over places of |u(x) - u(y)|^2,    u = a / sqrt(|a|^2 + FLOOR^2)

where a are the activations of one place, over all channels, behind a rectifier. The form is that of Zhang et al. 2018, arXiv 1801.03924,
without its weights for channels, and on the convolutions of the judge of the data instead of a net of ImageNet's. So it is no LPIPS, and
its values compare with those of the same judge only: it is named after it.

A path length divides by the square of a step of 1e-4, so nothing is rounded to 256 levels here, and all is computed in float64.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from condgen.errors import BadInput
from condgen.evaluation.judge import Judge

FLOOR = 1e-2
"""Activations of a place that are all smaller have no direction to speak of. On MNIST and LFW norms are above .3, and d moves by 5e-5."""


@dataclass(frozen=True)
class Perceptual:
    """The distance of the module's head; made by `perceptual`.

    Args:
        body: convolutions, norms and rectifiers in their order, in eval mode.
        id: names it in every provenance.
    """

    body: nn.Sequential
    id: str

    @torch.no_grad()
    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Of each of x (b, c, h, w) to its own of y, on the scale of [-1, 1]: (b,), at least 0. Raises BadInput where shapes differ."""
        if x.shape != y.shape or x.dim() != 4:
            raise BadInput(f"pictures of shape {tuple(x.shape)} and {tuple(y.shape)}; expected two of (b, c, h, w), the same")
        first = next(self.body.parameters())
        both, total = torch.cat([x, y]).to(first.device, first.dtype), first.new_zeros(len(x))
        for layer in self.body:
            both = layer(both)
            if isinstance(layer, nn.ReLU):
                total = total + _apart(*_directions(both).chunk(2))
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
    return Perceptual(body.requires_grad_(False), f"perceptual on {judge.id}")


def _directions(a: Tensor) -> Tensor:
    """(b, ch, h, w), brought to length 1 over channels."""
    return a * torch.rsqrt(a.square().sum(1, keepdim=True) + FLOOR**2)


def _apart(u: Tensor, v: Tensor) -> Tensor:
    return (u - v).square().sum(1).mean((1, 2))
