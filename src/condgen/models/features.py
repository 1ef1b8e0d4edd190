"""A feature net of one's own pictures, from a task whose labels are free: which picture does this crop come from?

    min  mean_i  -log exp(u_i . v_i / t) / sum_j exp(u_i . v_j / t)                 and the same with u and v exchanged

where u_i and v_i are two crops of picture i of the batch as the net sees them: the Gram matrices of its five levels, each brought to length
1 (`networks.textures`), so that u . v is their mean cosine. The loss has the form of Chen et al. 2020, arXiv 2002.05709; which picture a
crop is of as a free label, after Wu et al. 2018, arXiv 1805.01978.

Crops are mirrored, turned and enlarged at random. Their colours may be changed as well (`jitter`); left as they are, the net told textures
of other pictures apart better, whose colours belong to them (`texture_auc` .90 against .88, by which this was chosen). Style transfer,
Fréchet distances and a perceptual distance can look through the net: `condgen.backbones.feature_net("runs/features-photos")`.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen.conditions import Schema
from condgen.data.store import Batch
from condgen.errors import BadInput, require_positive, require_range, require_whole
from condgen.model import Model, Optimizer, Run, Shape, Turn
from condgen.networks.features import FeatureNet, in_house
from condgen.networks.textures import SMALLEST_PX, TextureNet


class Features(Model):
    """Eight convolutions under VGG-19's names; reads no conditions.

    Args:
        shape: (1 or 3, h, w) of a picture in [-1, 1].
        schema: ignored: every picture is its own label.
        width: channels of the first level; the second has twice as many, the others four times.
        crop: side of a crop in px, at least 32; smaller pictures are enlarged to it.
        zoom: least and largest side of the cut-out, as a share of the picture's.
        temperature: t.
        jitter: how far contrast and brightness of each colour are changed: by up to this share, and by up to this much.
        turn: largest angle that a crop is turned by, in degrees.
    """

    def __init__(
        self,
        shape: Shape,
        schema: Schema | None = None,
        width: int = 16,
        crop: int = 48,
        zoom: tuple[float, float] = (0.4, 0.7),
        temperature: float = 0.1,
        jitter: float = 0.0,
        turn: float = 15.0,
    ):
        super().__init__(shape, {})
        if len(self.shape) != 3 or self.shape[0] not in (1, 3):
            raise BadInput(f"a feature net needs pictures (c, h, w) of one or three channels, not samples of shape {self.shape}")
        require_positive(width=width, temperature=temperature, zoom=zoom)
        require_whole("crop", crop, SMALLEST_PX)
        require_range(0, 1, jitter=jitter, zoom=zoom)
        require_range(0, 180, turn=turn)
        self.crop, self.zoom, self.temperature, self.jitter, self.turn = crop, zoom, temperature, jitter, math.radians(turn)
        self.net = TextureNet(width)

    def players(self) -> dict[str, list[nn.Module]]:
        return {"net": [self.net]}

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        u, v = (self.net(self.view(batch.x)).float() for _ in range(2))
        logits, own = u @ v.T / self.temperature, torch.arange(len(u), device=u.device)
        there, back = (F.cross_entropy(rows, own, reduction="none") for rows in (logits, logits.T))
        yield {"net": {"which": (there + back) / 2}}

    def view(self, x: Tensor) -> Tensor:
        """A crop of each picture (b, c, h, w), in other colours: (b, c, crop, crop)."""
        places = F.affine_grid(self._places(len(x), *x.shape[2:]).to(x), [len(x), x.shape[1], self.crop, self.crop], align_corners=False)
        cut = F.grid_sample(x, places, padding_mode="reflection", align_corners=False)
        gain, shift = (self.jitter * (2 * self.noise.uniform(len(x), x.shape[1], 1, 1).to(x) - 1) for _ in range(2))
        return (cut * (1 + gain) + shift).clamp(-1, 1)

    def _places(self, n: int, h: int, w: int) -> Tensor:
        """Where the crops lie, (n, 2, 3) in `affine_grid`'s units: sides within `zoom`, anywhere, turned, half of them mirrored."""
        side, down, across, angle, mirror = self.noise.uniform(n, 5).T
        side = self.zoom[0] + side * (self.zoom[1] - self.zoom[0])
        ways = torch.tensor([min(h, w) / w, min(h, w) / h])[:, None] * side  # half of the cut-out's width and height
        angle, mirror = self.turn * (2 * angle - 1), (mirror < 0.5).float() * 2 - 1
        cos, sin = angle.cos(), angle.sin()
        x = torch.stack([ways[0] * cos * mirror, -ways[0] * sin, (2 * across - 1) * (1 - ways[0])], 1)
        y = torch.stack([ways[1] * sin * mirror, ways[1] * cos, (2 * down - 1) * (1 - ways[1])], 1)
        return torch.stack([x, y], 1)

    def features(self, x: Tensor) -> Tensor:
        """Means and standard deviations of the activations at the first layer of each level: (b, 30 width)."""
        seen = [a.float() for a in self.net.activations(enlarged(x))]
        return torch.cat([part for a in seen for part in (a.mean((2, 3)), a.std((2, 3), correction=0))], 1)

    def feature_net(self) -> FeatureNet:
        """The convolutions as every tool of the house reads them."""
        return in_house(self.net.weights())


def enlarged(x: Tensor, least: int = SMALLEST_PX) -> Tensor:
    """Pictures whose shorter side is below `least` px brought to it, bilinearly."""
    short = min(x.shape[-2:])
    return x if short >= least else F.interpolate(x, scale_factor=least / short, mode="bilinear")


_OPTIMIZER = {"*": Optimizer("AdamW", lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4, schedule="cosine")}

_PHOTOS = Run(
    model="features.Features",
    data="photos",
    optimizers=_OPTIMIZER,
    batch=25,
    steps=500,
    precision="32",
    metrics=("texture_auc",),
    source="the house's recipe, on two photographs that every install has",
)

PRESETS = {
    "features-photos": _PHOTOS,
    "features-horse2zebra": replace(_PHOTOS, data="horse2zebra", batch=32, source="the house's recipe, on 2,401 real pictures"),
}
