"""Where the object is: a small net that learns masks from real pictures, and says of other pictures which pixels belong to the object.

It stands to masks as the judge stands to labels: it never sees a picture that a model made, and its own overlap with the truth on real
pictures that it did not learn from is the ceiling beside every number. Pixels are folded 2x2 into channels first, which quarters the work
and keeps edges; then a U of three levels with batch norm. On one core it learns in half a minute.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

RECIPE = "segmenter-v1"
SIDE_PX = 64
"""Larger pictures are averaged down to at most this."""
WIDTHS = (24, 32, 48)
STEPS, BATCH = 240, 32


class SegmenterNet(nn.Module):
    """Pictures (b, c, h, w) in [-1, 1], sides multiples of 8, to logits (b, 1, h, w) of belonging to the object."""

    def __init__(self, channels: int):
        super().__init__()
        a, b, c = WIDTHS
        self.first, self.second, self.third = _pair(4 * channels, a), _pair(a, b), _pair(b, c)
        self.up, self.top = _pair(c + b, b), _pair(b + a, a)
        self.last = nn.Conv2d(a, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.first(F.pixel_unshuffle(x, 2))
        two = self.second(F.max_pool2d(one, 2))
        three = self.third(F.max_pool2d(two, 2))
        two = self.up(torch.cat([F.interpolate(three, scale_factor=2.0), two], 1))
        one = self.top(torch.cat([F.interpolate(two, scale_factor=2.0), one], 1))
        return F.pixel_shuffle(self.last(one), 2)


def _pair(channels: int, out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (channels, out):
        layers += [nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class Segmenter:
    """A trained net, in eval mode, made by `train_segmenter`; `id` names it in provenances."""

    net: SegmenterNet
    id: str

    @torch.no_grad()
    def __call__(self, x: Tensor, chunk: int = 200) -> Tensor:
        """Pictures (n, c, h, w) in [-1, 1] to masks, bool (n, h', w') of the sides that `sized` gives."""
        return torch.cat([self.net(sized(part.float()))[:, 0] > 0 for part in x.split(chunk)])


def train_segmenter(x: Tensor, mask: Tensor, seed: int = 0, steps: int = STEPS) -> Segmenter:
    """Learn masks of real pictures, by Adam under a one-cycle rate on the cross-entropy of pixels, pictures mirrored at random.

    Args:
        x: (n, c, h, w) in [-1, 1].
        mask: (n, 1, h, w), above 0 inside of the object.
        seed: of weights, order and mirroring.
    """
    x, target = sized(x), (sized(mask) > 0).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SegmenterNet(x.shape[1])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps, cycle_momentum=False)
    generator = Generator().manual_seed(seed)
    for rows in _rows(len(x), steps, generator):
        mirror = torch.rand(len(rows), generator=generator) < 0.5
        loss = F.binary_cross_entropy_with_logits(net(mirrored(x[rows], mirror)), mirrored(target[rows], mirror))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return Segmenter(net.eval(), f"{RECIPE}, {len(x)} real pictures")


def _rows(n: int, steps: int, generator: Generator) -> list[Tensor]:
    """Batches of rows: every epoch in a new order, its last batch full from the next."""
    epochs = math.ceil(steps * BATCH / n)
    order = torch.cat([torch.randperm(n, generator=generator) for _ in range(epochs)])
    return list(order[: steps * BATCH].split(BATCH))


def mirrored(x: Tensor, which: Tensor) -> Tensor:
    """(b, c, h, w), left and right exchanged where `which` (b,) is true."""
    return torch.where(which[:, None, None, None], x.flip(3), x)


def sized(x: Tensor) -> Tensor:
    """(n, c, h, w) averaged down to sides of at most `SIDE_PX` that are multiples of 8."""
    h, w = (max(8, min(side, SIDE_PX) // 8 * 8) for side in x.shape[2:])
    return x if (h, w) == tuple(x.shape[2:]) else F.interpolate(x, (h, w), mode="bilinear", antialias=True, align_corners=False)


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of masks, bool (n, h, w) each: (n,), 1 where both are empty.

    >>> overlaps(torch.tensor([[[True, True, False]]]), torch.tensor([[[False, True, True]]]))
    tensor([0.3333])
    """
    both, any_ = (one & other).flatten(1).sum(1), (one | other).flatten(1).sum(1)
    return torch.where(any_ > 0, both / any_.clamp(min=1), 1.0)


def learning_half(masks: Tensor, domain: Tensor) -> Tensor:
    """Which pictures to learn from, so that the others can be tried: bool (n,), no scene on both sides.

    Every other mask, bool (n, h, w), of each domain (n,); pictures with one mask are of one scene.
    """
    n = len(masks)
    _, scene = masks.flatten(1).unique(dim=0, return_inverse=True)
    first = torch.full((int(scene.max()) + 1,), n).scatter_reduce(0, scene, torch.arange(n), "amin")  # row in which a scene is met
    place = torch.empty_like(first)
    place[(domain[first] * n + first).argsort()] = torch.arange(len(first))
    half: Tensor = place[scene] % 2 == 0
    return half
