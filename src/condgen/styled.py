"""What style-based models share: an intermediate latent w, its mean, truncation, noise, and a w for each layer.

    x = g(w, noise),   w = f(z),   truncated: w_mean + psi (w - w_mean)

Karras, Laine & Aila 2019, arXiv 1812.04948, sections 2 and 3, appendix B. While a model is trained the noise is drawn anew each time; a
trained one draws with noise that is always the same, so that a latent is a picture. `draw_noise` gives others.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.conditions import Values
from condgen.errors import BadInput
from condgen.model import Sampler
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

    def begin(self) -> None:
        """Called by the constructor, once F and G are there."""
        self.psi = 1.0
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

    def truncate(self, w: Tensor, c: Values, psi: float) -> Tensor:
        """mean + psi (w - mean), for w (b, ...): psi 1 changes nothing, 0 is the mean, -1 its mirror image.

        The mean is that of training; where conditions are read, that of their own w.
        """
        if psi == 1.0:
            return w
        mean = self.mean_under(c, len(w)).view(-1, *[1] * (w.dim() - 2), self.F.out)
        return mean + psi * (w - mean)

    @torch.no_grad()
    def mean_under(self, c: Values, n: int) -> Tensor:
        """The mean of w, (1, w_dim), or (n, w_dim) under each row's conditions."""
        if not self.schema:
            return self.w_mean[None]
        z = torch.randn(AVERAGED, self.z_dim, generator=torch.Generator().manual_seed(0)).to(self.device)
        rows = ({k: v[i : i + 1].expand(AVERAGED, *v.shape[1:]) for k, v in c.items()} for i in range(n))
        return torch.stack([self.F(z, row).mean(0) for row in rows])

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
        first = torch.arange(layers, device=w.device) < cut.to(w.device)[:, None]
        return torch.where(first[:, :, None], self.by_layer(w), self.by_layer(other))

    def drawn_styles(self, n: int, c: Values, stage: float | None = None) -> Tensor:
        """w of new latents for each layer, (n, layers, w_dim): in a share `mixing` of the batches of two, crossed within the layers of
        this stage. For training."""
        w = self.mapping(self.z_prior(n), c)
        self.remember(w)
        if float(self.noise.uniform(1)) >= self.mixing:
            return self.by_layer(w)
        u = self.noise.uniform(n if self.cut_each else 1)
        return self.mixed(w, self.mapping(self.z_prior(n), c), u, None if stage is None else 2 * math.ceil(stage) + 2)

    def drawn(self, w: Tensor, stage: float | None = None) -> Tensor:
        """As `synthesis` of w (b, layers, w_dim), with fresh noise, at the size of this stage. For training."""
        return self.G(w, self.draw_noise(len(w)), stage)
