"""What style-based models share: an intermediate latent w, its mean, truncation, noise, and a w for each layer.

    x = g(w, noise),   w = f(z),   truncated: w_mean + psi (w - w_mean)

Karras, Laine & Aila 2019, arXiv 1812.04948, sections 2 and 3, appendix B. While a model is trained the noise is drawn anew each time; a
trained one draws with noise that is always the same, so that a latent is a picture. `draw_noise` gives others.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.conditions import Values
from condgen.errors import BadInput, require_whole
from condgen.model import APART, Sampler
from condgen.networks.style import Noises

REMEMBERED = 0.995
"""Of the mean of w, at each step."""
AVERAGED = 256
"""Draws whose w are averaged for the mean under a row's own conditions."""


class Styled(Sampler):
    """Subclasses have F, the mapping (z, c) -> w; G, a `Synthesis` or what is called as one; z_dim; `mixing` and `cut_each`."""

    F: Any
    G: Any
    z_dim: int
    mixing: float
    cut_each: bool
    w_mean: Tensor
    psi: float
    """Of the truncation that samples are drawn with; 1.0 is none."""
    psi_layers: int | None
    """How many layers, from the first, it is of; None for all."""

    def begin(self) -> None:
        """Called by the constructor, once F and G are there."""
        self.psi, self.psi_layers = 1.0, None
        self.register_buffer("w_mean", torch.zeros(self.F.out))
        seeded = torch.Generator().manual_seed(0)
        for i, side in enumerate(self.G.noise_sides):
            self.register_buffer(f"noise{i}", torch.randn(1, 1, *side, generator=seeded))

    def z_prior(self, n: int) -> Tensor:
        """N(0, I), (n, z_dim)."""
        return self.noise.normal(n, self.z_dim).to(self.device)

    def mapping(self, z: Tensor, c: Values) -> Tensor:
        """w (b, w_dim) of z (b, z_dim), not truncated."""
        return self.F(z, c)

    def synthesis(self, w: Tensor, noise: Noises | None = None) -> Tensor:
        """Samples (b, *shape) of w (b, w_dim), or of a w for each layer (b, layers, w_dim), "w+"; without bounds.

        Args:
            w: what is drawn.
            noise: a picture (b or 1, 1, h, w) for each layer, such as `draw_noise` gives; None for the model's own, always the same.
        """
        noise = [getattr(self, f"noise{i}") for i in range(len(self.G.noise_sides))] if noise is None else noise
        x = self.G(self.by_layer(w), noise, self.shown)
        return x if x.shape[1:] == self.shape else F.interpolate(x, self.shape[1:])

    @property
    def shown(self) -> float | None:
        """The stage that pictures are drawn at: None for the full size."""
        return None

    def by_layer(self, w: Tensor) -> Tensor:
        """(b, w_dim) or (b, layers, w_dim) as the latter. Raises BadInput for what is neither."""
        layers, d = len(self.layer_sides), self.F.out
        if w.shape[1:] not in ((d,), (layers, d)):
            raise BadInput(f"w of shape {tuple(w.shape)}; expected (b, {d}), or (b, {layers}, {d}): one for each layer")
        return w[:, None].expand(-1, layers, -1) if w.dim() == 2 else w

    @property
    def layer_sides(self) -> tuple[int, ...]:
        """Height in px at each layer."""
        return tuple(h for h, _ in self.G.layer_sides)

    def draw_noise(self, n: int) -> list[Tensor]:
        """Fresh noise of n samples, a picture (n, 1, h, w) for each layer; [] where there is none."""
        return [self.noise.normal(n, 1, *side).to(self.device) for side in self.G.noise_sides]

    def truncate(self, w: Tensor, c: Values, psi: float, layers: int | None = None) -> Tensor:
        """mean + psi (w - mean), for w (b, ...): psi 1 changes nothing, 0 is the mean, -1 its mirror image.

        Args:
            w: (b, w_dim) or (b, layers, w_dim).
            c: conditions of each row. The mean is that of training; where conditions are read, that of their own w.
            psi: see above.
            layers: only so many, from the first, are drawn to the mean: coarse ones, so that colours keep their variety (the paper: .7 for
                8 of 18). None for all of them.

        Returns:
            as w; where `layers` says some, a w for each layer, (b, layers, w_dim).

        Raises:
            BadInput: for more layers than there are.
        """
        if layers is not None:
            require_whole("layers", layers, 0, len(self.layer_sides))
            w = self.by_layer(w)
        if psi == 1.0:
            return w
        mean = self.mean_under(c, len(w)).view(-1, *[1] * (w.dim() - 2), self.F.out)
        near = mean + psi * (w - mean)
        return near if layers is None else swapped(w, near, range(layers))

    @torch.no_grad()
    def mean_under(self, c: Values, n: int) -> Tensor:
        """The mean of w, (1, w_dim), or (n, w_dim) under each row's conditions."""
        if not self.schema:
            return self.w_mean[None]
        z = torch.randn(AVERAGED, self.z_dim, generator=torch.Generator().manual_seed(APART)).to(self.device)
        chosen, place = distinct({k: c[k][:n] for k in self.schema})
        rows = ({k: c[k][i : i + 1].expand(AVERAGED, *c[k].shape[1:]) for k in self.schema} for i in chosen)
        return torch.stack([self.F(z, row).mean(0) for row in rows])[place.to(self.device)]

    @torch.no_grad()
    def remember(self, w: Tensor) -> None:
        """Move the mean of w by this batch's."""
        self.w_mean.lerp_(w.detach().float().mean(0), 1 - REMEMBERED)

    def mixed(self, w: Tensor, other: Tensor, u: Tensor, used: int | None = None) -> Tensor:
        """w (b, w_dim) up to a layer, `other` from there on: (b, layers, w_dim).

        u in [0, 1), (b,) or one for all, says which of 1 to used - 1: while a model grows not all of its layers are `used`.
        """
        layers = len(self.layer_sides)
        cut = 1 + (u * ((used or layers) - 1)).floor()
        return swapped(self.by_layer(w), self.by_layer(other), torch.arange(layers) >= cut.cpu()[:, None])

    def drawn_styles(self, n: int, c: Values, stage: float | None = None) -> Tensor:
        """w of new latents for each layer, (n, layers, w_dim): in a share `mixing` of the batches of two, crossed within the layers of
        this stage. For training."""
        w = self.mapping(self.z_prior(n), c)
        self.remember(w)
        if float(self.noise.shared()) >= self.mixing:
            return self.by_layer(w)
        u = self.noise.uniform(n) if self.cut_each else self.noise.shared()
        return self.mixed(w, self.mapping(self.z_prior(n), c), u, None if stage is None else 2 * math.ceil(stage) + 2)

    def drawn(self, w: Tensor, stage: float | None = None) -> Tensor:
        """As `synthesis` of w (b, layers, w_dim), with fresh noise, at the size of this stage. For training."""
        return self.G(w, self.draw_noise(len(w)), stage)


# --- latents and pictures -------------------------------------------------------------------------------------------------


def swapped(w: Tensor, other: Tensor, layers: Sequence[int] | Tensor) -> Tensor:
    """w with some layers of `other`: style mixing.

    Args:
        w, other: (..., layers, d), of shapes that broadcast.
        layers: indices; or bool (..., layers), where rows differ in them.

    >>> swapped(torch.zeros(4, 1), torch.ones(4, 1), [0, 3])[:, 0].tolist()
    [1.0, 0.0, 0.0, 1.0]
    """
    if not isinstance(layers, Tensor):
        chosen = set(layers)
        layers = torch.tensor([i in chosen for i in range(w.shape[-2])])
    return torch.where(layers.to(w.device)[..., None], other, w)


def distinct(c: Values) -> tuple[list[int], Tensor]:
    """Rows of conditions (n, ...) no two of which are equal, and of each of the n its place among them, int64 (n,).

    >>> distinct({"digit": torch.tensor([3, 8, 3, 3])})
    ([0, 1], tensor([0, 1, 0, 0]))
    """
    flat = torch.cat([v.reshape(len(v), -1).cpu().double() for v in c.values()], 1)
    place = torch.unique(flat, dim=0, return_inverse=True)[1]
    first: dict[int, int] = {}
    for row, kind in enumerate(place.tolist()):
        first.setdefault(kind, row)
    return [first[kind] for kind in sorted(first)], place


def bounded(x: Tensor) -> Tensor:
    """Pictures (b, c, h, w) cut to [-1, 1], in float32; points (b, d) stay as they are."""
    return x.float().clamp(-1, 1) if x.dim() == 4 else x.float()
