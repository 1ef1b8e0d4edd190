"""Adaptive discriminator augmentation: D sees real and generated pictures through random changes only, each made with probability p.

Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", arXiv 2006.06676: blits, geometry and colour ("bgc").
While p is below about .8 the generator cannot profit from drawing changed pictures, because the changes can be undone on average. p follows
how sure D is of real pictures. Here all geometry is one bilinear resampling with mirrored borders, exact where it is a blit; the paper's is
low-passed by wavelets, and shifts after it turned and scaled, not before.

A penalty on D's gradient must be taken of the changed pictures: PyTorch cannot differentiate a resampling twice.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SPEED_IMAGES = 500_000
"""Pictures in which p can go from 0 to 1."""
DRAWS = 21
"""Numbers of U(0, 1) and of N(0, 1) that decide one picture's changes."""


class Augment(nn.Module):
    """Random changes (b, c, h, w) -> (b, c, h, w), differentiable once.

    Args:
        target: of mean sign(D(x)) on real pictures, which p is moved to hold.
    """

    p: Tensor

    def __init__(self, target: float):
        super().__init__()
        self.target = target
        self.register_buffer("p", torch.zeros(()))

    def forward(self, x: Float[Tensor, "b ch h w"], u: Float[Tensor, "b 21"], g: Float[Tensor, "b 21"]) -> Float[Tensor, "b ch h w"]:
        """With draws u of U(0, 1) and g of N(0, 1), `DRAWS` a picture. Without any probability, x itself."""
        p = float(self.p)
        if p == 0.0:
            return x
        moved = resampled(x, geometry(u, g, p, x.shape[3], x.shape[2]))
        return recoloured(moved, *colours(u, g, p, x.shape[1]))

    @torch.no_grad()
    def adapt(self, real_logit: Float[Tensor, " b"]) -> None:
        """Up where D is surer of real pictures than the target, else down."""
        surer = (real_logit.sign().mean() - self.target).sign()
        self.p.add_(surer * len(real_logit) / SPEED_IMAGES).clamp_(0, 1)


def geometry(u: Tensor, g: Tensor, p: float, width: int, height: int) -> Float[Tensor, "b 2 3"]:
    """Where each place of the result is taken from, in coordinates from -1 to 1: mirror, quarter turns, shift, scales, rotation.

    Quarter turns are of square pictures alone. The first shift is by whole pixels, as many as are in an eighth of the side at most.
    """
    one, aspect = torch.ones(len(u), device=u.device), width / height

    def happens(i: int, probability: float = p) -> Tensor:
        return u[:, i] < probability

    def chosen(i: int, values: Tensor, otherwise: Tensor, probability: float = p) -> Tensor:
        return torch.where(happens(i, probability), values, otherwise)

    mirror = chosen(0, torch.where(u[:, 1] < 0.5, -one, one), one)
    quarters = chosen(2, (u[:, 3] * 4).floor(), 0 * one) if aspect == 1.0 else 0 * one
    blit = [chosen(4, 2 / side * ((2 * u[:, i] - 1) * side / 8).round(), 0 * one) for i, side in ((5, width), (6, height))]
    scale = chosen(7, torch.exp2(0.2 * g[:, 0]), one)
    p_turn = 1 - math.sqrt(1 - p)
    before = chosen(8, math.pi * (2 * u[:, 9] - 1), 0 * one, p_turn)
    stretch = chosen(10, torch.exp2(0.2 * g[:, 1]), one)
    after = chosen(11, math.pi * (2 * u[:, 12] - 1), 0 * one, p_turn)
    shift = (blit[0] + chosen(13, 0.25 * g[:, 2], 0 * one), blit[1] + chosen(13, 0.25 * g[:, 3], 0 * one))
    m = diagonal(mirror, one) @ turn(quarters * math.pi / 2) @ diagonal(scale, scale)
    m = m @ turn(before) @ diagonal(stretch, 1 / stretch) @ turn(after)
    m[:, 0, 1], m[:, 1, 0] = m[:, 0, 1] / aspect, m[:, 1, 0] * aspect
    return torch.cat([m, torch.stack(shift, 1)[:, :, None]], 2)


def turn(angle: Float[Tensor, " b"]) -> Float[Tensor, "b 2 2"]:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)


def diagonal(x: Float[Tensor, " b"], y: Float[Tensor, " b"]) -> Float[Tensor, "b 2 2"]:
    return torch.diag_embed(torch.stack([x, y], 1))


def resampled(x: Float[Tensor, "b ch h w"], theta: Float[Tensor, "b 2 3"]) -> Float[Tensor, "b ch h w"]:
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x.float(), grid, padding_mode="reflection", align_corners=False)


def colours(u: Tensor, g: Tensor, p: float, channels: int) -> tuple[Float[Tensor, "b ch ch"], Float[Tensor, " b"]]:
    """A matrix for each picture, and a brightness that is added before it.

    Contrast and the inversion of luma; for three channels hue and saturation.
    """
    one = torch.ones(len(u), device=u.device)
    brightness = torch.where(u[:, 14] < p, 0.2 * g[:, 4], 0 * one)
    contrast = torch.where(u[:, 15] < p, torch.exp2(0.5 * g[:, 5]), one)[:, None, None]
    eye, luma = torch.eye(channels, device=u.device), torch.full((channels, channels), 1 / channels, device=u.device)  # onto the grey axis
    inverted = torch.where((u[:, 16] < p) & (u[:, 17] < 0.5), one, 0 * one)[:, None, None]
    m = contrast * (eye - 2 * luma * inverted)
    if channels != 3:
        return m, brightness
    hue = torch.where(u[:, 18] < p, math.pi * (2 * u[:, 20] - 1), 0 * one)
    saturation = torch.where(u[:, 19] < p, torch.exp2(g[:, 6]), one)[:, None, None]
    return (luma + (eye - luma) * saturation) @ about_grey(hue) @ m, brightness


def about_grey(angle: Float[Tensor, " b"]) -> Float[Tensor, "b 3 3"]:
    """Rotations of colours about the grey axis."""
    axis = torch.full((3,), 1 / math.sqrt(3), device=angle.device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=angle.device) / math.sqrt(3)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return cos * torch.eye(3, device=angle.device) + sin * cross + (1 - cos) * axis[:, None] * axis


def recoloured(x: Float[Tensor, "b ch h w"], m: Float[Tensor, "b ch ch"], brightness: Float[Tensor, " b"]) -> Float[Tensor, "b ch h w"]:
    return torch.einsum("bij,bjhw->bihw", m, x + brightness[:, None, None, None])
