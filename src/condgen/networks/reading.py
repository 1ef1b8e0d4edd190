"""Nets that read pictures from the largest resolution down: the discriminator of style-based models, and their encoder.

The discriminator is that of progressive growing (arXiv 1710.10196) as StyleGAN has it: two convolutions a resolution, of which the
second halves the sides behind a blur, a channel of minibatch deviation at the smallest one, and no normalisation. The encoder is that
of StyleALAE (arXiv 2004.04467, section 4): what the synthesis writes into each layer, mean and deviation of its channels, is read there
before it is removed.

Halving is cheaper here than published: one convolution of 3x3 with stride 2, where there four neighbours' answers are averaged.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from condgen.conditions import Schema, Values
from condgen.networks.embed import SchemaEmbedding
from condgen.networks.equalised import Bias, Blur, EqualConv, EqualLinear, leaky, minibatch_stddev, pixel_norm
from condgen.networks.style import stages


class Colours(nn.Module):
    """Colours to channels."""

    def __init__(self, colours: int, channels: int):
        super().__init__()
        self.conv, self.bias = EqualConv(colours, channels, 1), Bias(channels)

    def forward(self, x: Tensor) -> Tensor:
        return leaky(self.bias(self.conv(x)))


class Halving(nn.Module):
    """A convolution, and one that halves the sides: behind a blur with stride 2, or by averaging four pixels."""

    def __init__(self, n_in: int, n_out: int, blur: bool):
        super().__init__()
        self.first, self.bias1 = EqualConv(n_in, n_in), Bias(n_in)
        self.second, self.bias2 = EqualConv(n_in, n_out, down=blur), Bias(n_out)
        self.blur = Blur(n_in) if blur else None

    def forward(self, x: Tensor) -> Tensor:
        x = leaky(self.bias1(self.first(x)))
        if self.blur is not None:
            return leaky(self.bias2(self.second(self.blur(x))))
        return F.avg_pool2d(leaky(self.bias2(self.second(x))), 2)


class StyleCritic(nn.Module):
    """Pictures and conditions -> logits (b, 1).

    Args:
        shape: (c, h, w) of the picture.
        schema: conditions, which add to the last hidden layer as much as the picture does; {} for none.
        width, widest: channels at full size, and at most.
        blur: before halving; else pixels are averaged behind it.
        group: samples over which the minibatch deviation is taken; 1 for none.
        growing: every resolution reads pictures of its own.
        embed_dim: features of each condition.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        schema: Schema,
        width: int,
        widest: int,
        blur: bool = True,
        group: int = 4,
        growing: bool = False,
        embed_dim: int = 64,
    ):
        super().__init__()
        self.sides, channels = stages(shape, width, widest)
        self.group, top = group, channels[0]
        self.embed = SchemaEmbedding(schema, embed_dim)
        seen = range(len(channels)) if growing else [len(channels) - 1]
        self.colours = nn.ModuleDict({str(i): Colours(shape[0], channels[i]) for i in seen})
        self.halvings = nn.ModuleList(Halving(b, a, blur) for a, b in pairwise(channels))  # [i]: from stage i + 1 to i
        self.conv, self.bias = EqualConv(top + (group > 1), top), Bias(top)
        self.joint = EqualLinear(top * math.prod(self.sides[0]), top)
        self.told = EqualLinear(self.embed.out, top) if schema else None
        self.last = EqualLinear(top, 1, gain=1.0)

    def forward(self, x: Float[Tensor, "b ch h w"], c: Values, stage: float | None = None) -> Float[Tensor, "b 1"]:
        """Of pictures at the size of `stage`, as `Synthesis.forward` gives them."""
        last = len(self.sides) - 1 if stage is None else math.ceil(stage)
        share = 1.0 if stage is None else stage - (last - 1)
        h = self.colours[str(last)](x)
        for i in range(last - 1, -1, -1):
            h = self.halvings[i](h)
            if i == last - 1 and share < 1.0:
                h = torch.lerp(self.colours[str(i)](F.avg_pool2d(x, 2)), h, share)
        h = minibatch_stddev(h, self.group) if self.group > 1 else h
        h = leaky(self.bias(self.conv(h)))
        hidden = self.joint(h.flatten(1))
        if self.told is not None:  # by weights of their own: among thousands of features, conditions would hardly be heard
            hidden = hidden + self.told(pixel_norm(self.embed(c, hidden[:, :0])))
        return self.last(leaky(hidden)).float()


class StyleEncoder(nn.Module):
    """Pictures -> w (b, w_dim): the sum of what every block reads.

    Args:
        shape: (c, h, w) of the picture.
        w_dim: of w.
        width, widest: channels at full size, and at most.
    """

    def __init__(self, shape: tuple[int, ...], w_dim: int, width: int, widest: int):
        super().__init__()
        sides, channels = stages(shape, width, widest)
        self.colours = Colours(shape[0], channels[-1])
        self.blocks = nn.ModuleList(ReadingBlock(b, a, w_dim) for a, b in reversed(list(pairwise(channels))))
        top = channels[0]
        self.conv, self.bias = EqualConv(top, top), Bias(top)
        self.style, self.last = EqualLinear(2 * top, w_dim, gain=1.0), EqualLinear(top * math.prod(sides[0]), w_dim, gain=1.0)

    def first(self, x: Float[Tensor, "b ch h w"]) -> Float[Tensor, "b n"]:
        """What the first block's style is read from."""
        block = self.blocks[0]
        return statistics(leaky(block.bias1(block.first(self.colours(x)))))  # type: ignore[operator]

    def forward(self, x: Float[Tensor, "b ch h w"]) -> Float[Tensor, "b wd"]:
        h, w = self.colours(x), torch.zeros((), device=x.device)
        for block in self.blocks:
            h, style = block(h)
            w = w + style
        h = leaky(self.bias(self.conv(h)))
        return w + (self.style(statistics(h)) + self.last(F.instance_norm(h, eps=1e-8).flatten(1))).float()


class ReadingBlock(nn.Module):
    """One resolution of the encoder: convolution, style, normalisation, halving, style, normalisation."""

    def __init__(self, n_in: int, n_out: int, w_dim: int):
        super().__init__()
        self.first, self.bias1 = EqualConv(n_in, n_in), Bias(n_in)
        self.blur, self.second, self.bias2 = Blur(n_in), EqualConv(n_in, n_out, down=True), Bias(n_out)
        self.style1, self.style2 = EqualLinear(2 * n_in, w_dim, gain=1.0), EqualLinear(2 * n_out, w_dim, gain=1.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The halved channels, and what was read, float32 (b, w_dim)."""
        x = leaky(self.bias1(self.first(x)))
        read = self.style1(statistics(x))
        x = leaky(self.bias2(self.second(self.blur(F.instance_norm(x, eps=1e-8)))))
        return F.instance_norm(x, eps=1e-8), (read + self.style2(statistics(x))).float()


def statistics(x: Float[Tensor, "b ch h w"]) -> Float[Tensor, "b ch2"]:
    """Mean and standard deviation of each channel, side by side."""
    variance, mean = torch.var_mean(x.float(), (2, 3), correction=0)
    return torch.cat([mean, (variance + 1e-8).sqrt()], 1)
