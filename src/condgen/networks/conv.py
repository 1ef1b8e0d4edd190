"""Convolutional nets for pictures of 8 to 64 px. No statistics of the batch anywhere: a sample stands alone."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from condgen.conditions import Schema, Values
from condgen.errors import BadInput
from condgen.networks.embed import SchemaEmbedding
from condgen.networks.layers import SLOPE, ScaleShift, conv, linear


def pyramid(shape: tuple[int, ...], width: int) -> tuple[tuple[int, int], list[int]]:
    """The smallest sides, and the channels from there up to the full picture: sides double, channels halve down to `width`.

    >>> pyramid((1, 28, 28), 32)
    ((7, 7), [128, 64, 32])

    Raises:
        BadInput: if the picture is no (c, h, w) with both sides of at least 4 px.
    """
    if len(shape) != 3 or min(shape[1:]) < 4:
        raise BadInput(f"a convolutional net needs pictures (c, h, w) of at least 4 px, not samples of shape {tuple(shape)}")
    h, w, halvings = shape[1], shape[2], 0
    while h % 2 == 0 and w % 2 == 0 and min(h, w) >= 8:
        h, w, halvings = h // 2, w // 2, halvings + 1
    return (h, w), [width * 2 ** min(i, 3) for i in range(halvings, -1, -1)]


class ConvGenerator(nn.Module):
    """Latent and conditions -> picture: a dense layer, then doublings, each modulated by latent and conditions.

    Args:
        z_dim: length of the latent.
        schema: conditions; {} for none.
        shape: (c, h, w) of the picture.
        width: channels at full size; every halving doubles them, up to eightfold.
        embed_dim: features of each condition.
        bounded: the picture ends in [-1, 1]; else it is what a likelihood reads.
    """

    def __init__(self, z_dim: int, schema: Schema, shape: tuple[int, ...], width: int = 32, embed_dim: int = 64, bounded: bool = True):
        super().__init__()
        self.bounded = bounded
        self.start, channels = pyramid(shape, width)
        self.embed = SchemaEmbedding(schema, embed_dim)
        dim = z_dim + self.embed.out
        self.dense = linear(dim, channels[0] * self.start[0] * self.start[1])
        self.first = ScaleShift(channels[0], dim)
        self.convs = nn.ModuleList(conv(a, b, 3) for a, b in zip(channels, channels[1:], strict=False))
        self.mods = nn.ModuleList(ScaleShift(b, dim) for b in channels[1:])
        self.picture = nn.Conv2d(channels[-1], shape[0], 3, padding=1)

    def forward(self, z: Float[Tensor, "b z"], c: Values) -> Float[Tensor, "b ch h w"]:
        w = self.embed(c, z)
        x = F.leaky_relu(self.first(self.dense(w).unflatten(1, (-1, *self.start)), w), SLOPE)
        for layer, mod in zip(self.convs, self.mods, strict=True):
            x = F.leaky_relu(mod(layer(F.interpolate(x, scale_factor=2.0)), w), SLOPE)
        x = self.picture(x).float()
        return torch.tanh(x) if self.bounded else x


class ConvEncoder(nn.Module):
    """Picture and conditions -> (b, out): halvings, then one hidden layer over picture features *and* conditions together.

    The joint hidden layer is what lets the answer depend on whether picture and condition fit each other: conditions that
    only add to the last layer cannot (Gauthier's released discriminator; measured at chance on a toy).
    """

    def __init__(self, shape: tuple[int, ...], schema: Schema, out: int, width: int = 32, embed_dim: int = 64):
        super().__init__()
        (h, w), channels = pyramid(shape, width)
        channels = channels[::-1]
        self.embed = SchemaEmbedding(schema, embed_dim)
        self.picture = conv(shape[0], channels[0], 3)
        self.convs = nn.ModuleList(conv(a, b, 4, stride=2) for a, b in zip(channels, channels[1:], strict=False))
        self.joint = linear(channels[-1] * h * w + self.embed.out, channels[-1])
        self.last = nn.Linear(channels[-1], out)

    def hidden(self, x: Float[Tensor, "b ch h w"], c: Values) -> list[Tensor]:
        """The hidden layers' activations, in order; the last is the joint one, (b, n)."""
        found = [F.leaky_relu(self.picture(x), SLOPE)]
        for layer in self.convs:
            found.append(F.leaky_relu(layer(found[-1]), SLOPE))
        return [*found, F.leaky_relu(self.joint(self.embed(c, found[-1].flatten(1))), SLOPE)]

    def forward(self, x: Float[Tensor, "b ch h w"], c: Values) -> Float[Tensor, "b out"]:
        return self.last(self.hidden(x, c)[-1]).float()
