"""Encoder, decoder and discriminator of pairs (x, z), for models that learn inference in the game itself.

The house's nets are convolutional for pictures and dense for points. The tables are those of ALI (Dumoulin et al. 2016, arXiv
1606.00704, appendix A, with the released code where it differs): convolutions without padding, so that sides shrink to one and grow from
one. Conditions are joined to the encoder's features before its last layer, to the decoder's z, and to the discriminator's joint layers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen.conditions import Schema, Values
from condgen.errors import BadInput, unknown
from condgen.networks.conv import ConvEncoder, ConvGenerator
from condgen.networks.embed import SchemaEmbedding
from condgen.networks.layers import SLOPE, linear
from condgen.networks.mlp import MLP

Rows = tuple[tuple[int, int, int], ...]
"""(kernel, stride, channels) of each convolution."""


class Nets(NamedTuple):
    """E(x, c) -> (b, z_dim or 2 z_dim), G(z, c) -> x, D(x, z, c) -> (b, judged). E has `hidden(x, c)`, its hidden layers in order."""

    E: nn.Module
    G: nn.Module
    D: nn.Module


@dataclass(frozen=True)
class Table:
    """The layers of one experiment.

    Args:
        side: of the pictures, px.
        encoder, decoder, picture: convolutions of E, transposed ones of G, convolutions of D(x).
        code, joint: widths of D(z) and of D(x, z), 1x1 convolutions there and dense layers here.
        slope: of leaky rectifiers.
        dropout: in D, on the inputs x and z, and on every other layer's.
        maxout: D's layers are the larger of two maps and have no batch norm.
    """

    side: int
    encoder: Rows
    decoder: Rows
    picture: Rows
    code: tuple[int, ...]
    joint: tuple[int, ...]
    slope: float
    dropout: tuple[float, float]
    maxout: bool = False


_PICTURE32: Rows = ((5, 1, 32), (4, 2, 64), (4, 1, 128), (4, 2, 256), (4, 1, 512))
_DECODER32: Rows = ((4, 1, 256), (4, 2, 128), (4, 1, 64), (4, 2, 32), (5, 1, 32), (1, 1, 32))
_PICTURE64: Rows = ((2, 1, 64), (7, 2, 128), (5, 2, 256), (7, 2, 256), (4, 1, 512))
_DECODER64: Rows = ((4, 1, 512), (7, 2, 256), (5, 2, 256), (7, 2, 128), (2, 1, 64))
TABLES = {
    "svhn": Table(32, (*_PICTURE32, (1, 1, 512)), _DECODER32, _PICTURE32, (512, 512), (1024, 1024), 0.01, (0.2, 0.2)),
    "cifar": Table(32, (*_PICTURE32, (1, 1, 512)), _DECODER32, _PICTURE32, (512, 512), (1024, 1024), 0.1, (0.2, 0.5), maxout=True),
    "celeba": Table(64, _PICTURE64, _DECODER64, _PICTURE64, (1024, 1024), (2048, 2048), 0.02, (0.2, 0.2)),
}
EMBEDDED = 256
"""Features of all conditions together in a table's nets."""


def inference_nets(kind: str, shape: tuple[int, ...], schema: Schema, z_dim: int, width: int, maps: float, noise: int, judged: int) -> Nets:
    """The three nets.

    Args:
        kind: "house", or a key of TABLES.
        shape: of a sample.
        schema: conditions; {} for none.
        z_dim: of the code.
        width: of the house's nets.
        maps: a table's channels are multiplied by it.
        noise: numbers joined to x at the encoder's input, whose output is then the code; 0 for mean and log sigma, (b, 2 z_dim).
        judged: numbers that D gives.

    Raises:
        BadInput: for a kind that does not exist, or samples that it does not fit.
    """
    if kind == "house":
        return (_convolutional if len(shape) == 3 and not noise else _dense)(shape, schema, z_dim, width, noise, judged)
    if kind not in TABLES:
        raise unknown("nets", kind, ["house", *TABLES])
    table = scaled(TABLES[kind], maps)
    if len(shape) != 3 or shape[1:] != (table.side, table.side):
        raise BadInput(f"nets {kind!r} are for pictures of {table.side} x {table.side} px, not samples of shape {tuple(shape)}")
    if noise:
        raise BadInput(f"the encoder of nets {kind!r} is Gaussian: leave out posterior")
    return Nets(
        TableEncoder(table, shape, schema, z_dim),
        TableDecoder(table, shape, schema, z_dim),
        TableCritic(table, shape, schema, z_dim, judged),
    )


def scaled(table: Table, maps: float) -> Table:
    def rows(of: Rows) -> Rows:
        return tuple((k, s, max(1, round(n * maps))) for k, s, n in of)

    def widths(of: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(max(1, round(n * maps)) for n in of)

    return Table(
        table.side, rows(table.encoder), rows(table.decoder), rows(table.picture), widths(table.code), widths(table.joint),
        table.slope, table.dropout, table.maxout,
    )  # fmt: skip


# --- the house's ----------------------------------------------------------------------------------------------------------


def _convolutional(shape: tuple[int, ...], schema: Schema, z_dim: int, width: int, noise: int, judged: int) -> Nets:
    return Nets(
        ConvEncoder(shape, schema, 2 * z_dim, width),
        ConvGenerator(z_dim, schema, shape, width),
        PairCritic(shape, schema, z_dim, width, judged),
    )


def _dense(shape: tuple[int, ...], schema: Schema, z_dim: int, width: int, noise: int, judged: int) -> Nets:
    """As in the measured toy: batch norm in E and G, none in D."""
    n, hidden = math.prod(shape), (2 * width,) * 3
    out = z_dim if noise else 2 * z_dim
    e = MLP(n + noise, hidden, (out,), schema, norm=True)
    return Nets(e, MLP(z_dim, hidden, shape, schema, norm=True), DensePairCritic(n, schema, z_dim, hidden, judged))


class DensePairCritic(nn.Module):
    """(x, z) and conditions, joined, through dense layers."""

    def __init__(self, n: int, schema: Schema, z_dim: int, hidden: tuple[int, ...], judged: int):
        super().__init__()
        self.embed = SchemaEmbedding(schema, 32)
        widths = [n + z_dim + self.embed.out, *hidden]
        self.layers = nn.Sequential(*(nn.Sequential(linear(a, b), nn.LeakyReLU(SLOPE)) for a, b in pairwise(widths)))
        self.last = nn.Linear(widths[-1], judged)

    def forward(self, x: Tensor, z: Tensor, c: Values) -> Tensor:
        return self.last(self.layers(self.embed(c, torch.cat([x.flatten(1), z], 1)))).float()


class PairCritic(nn.Module):
    """Features of the picture and of z, joined with the conditions, then two joint layers: a pair is judged as a whole."""

    def __init__(self, shape: tuple[int, ...], schema: Schema, z_dim: int, width: int, judged: int, dim: int = 256):
        super().__init__()
        self.picture = ConvEncoder(shape, {}, dim, width)
        self.code = nn.Sequential(linear(z_dim, dim), nn.LeakyReLU(SLOPE), linear(dim, dim), nn.LeakyReLU(SLOPE))
        self.embed = SchemaEmbedding(schema, 64)
        self.joint = nn.Sequential(
            linear(2 * dim + self.embed.out, 2 * dim), nn.LeakyReLU(SLOPE), linear(2 * dim, 2 * dim), nn.LeakyReLU(SLOPE)
        )
        self.last = nn.Linear(2 * dim, judged)

    def forward(self, x: Tensor, z: Tensor, c: Values) -> Tensor:
        h = torch.cat([F.leaky_relu(self.picture(x, {}), SLOPE), self.code(z).float()], 1)
        return self.last(self.joint(self.embed(c, h))).float()


# --- the tables' ----------------------------------------------------------------------------------------------------------


class Conditions(nn.Module):
    """All conditions as one linear embedding, joined behind features (b, n)."""

    def __init__(self, schema: Schema):
        super().__init__()
        self.embed = SchemaEmbedding(schema, EMBEDDED // max(1, len(schema)))
        self.out = self.embed.out

    def forward(self, h: Tensor, c: Values) -> Tensor:
        return self.embed(c, h)


class TableEncoder(nn.Module):
    """Convolutions down to 1 px, each with batch norm and leaky rectifier; conditions are joined before the last, linear layer."""

    def __init__(self, table: Table, shape: tuple[int, ...], schema: Schema, z_dim: int):
        super().__init__()
        widths = [shape[0], *(n for *_, n in table.encoder)]
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, k, s, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(table.slope))
            for a, (b, (k, s, _)) in zip(widths, zip(widths[1:], table.encoder, strict=True), strict=False)
        )
        self.conditions = Conditions(schema)
        self.last = nn.Linear(widths[-1] + self.conditions.out, 2 * z_dim)
        small_weights(self)

    def hidden(self, x: Tensor, c: Values) -> list[Tensor]:
        found = []
        for layer in self.convs:
            found.append(x := layer(x))
        return found

    def forward(self, x: Tensor, c: Values) -> Tensor:
        return self.last(self.conditions(self.hidden(x, c)[-1].flatten(1), c))


class TableDecoder(nn.Module):
    """z and the conditions at 1 px -> transposed convolutions -> a 1x1 convolution with a bias for each pixel -> sigmoid, in [-1, 1]."""

    def __init__(self, table: Table, shape: tuple[int, ...], schema: Schema, z_dim: int):
        super().__init__()
        self.conditions = Conditions(schema)
        widths = [z_dim + self.conditions.out, *(n for *_, n in table.decoder)]
        self.convs = nn.Sequential(
            *(
                nn.Sequential(nn.ConvTranspose2d(a, b, k, s, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(table.slope))
                for (a, b), (k, s, _) in zip(pairwise(widths), table.decoder, strict=True)
            )
        )
        self.last = nn.Conv2d(widths[-1], shape[0], 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(shape))
        small_weights(self)

    def forward(self, z: Tensor, c: Values) -> Tensor:
        h = self.convs(self.conditions(z, c)[:, :, None, None])
        return torch.tanh((self.last(h).float() + self.bias) / 2)  # 2 sigmoid(a) - 1


class TableCritic(nn.Module):
    """D(x) and D(z) apart, then joint layers; dropout on every layer's input."""

    def __init__(self, table: Table, shape: tuple[int, ...], schema: Schema, z_dim: int, judged: int):
        super().__init__()
        first, later = table.dropout
        widths = [shape[0], *(n for *_, n in table.picture)]
        norms = [False, *[not table.maxout] * (len(table.picture) - 1)]
        self.picture = nn.Sequential(
            *(
                critic_layer(table, partial(nn.Conv2d, a, kernel_size=k, stride=s, bias=not i), b, later if i else first, norms[i], 2)
                for i, ((a, b), (k, s, _)) in enumerate(zip(pairwise(widths), table.picture, strict=True))
            )
        )
        self.code = self._dense(table, (z_dim, *table.code), first, later)
        self.conditions = Conditions(schema)
        self.joint = self._dense(table, (widths[-1] + table.code[-1] + self.conditions.out, *table.joint), later, later)
        self.last = nn.Sequential(nn.Dropout(later), nn.Linear(table.joint[-1], judged, bias=False))
        small_weights(self)

    @staticmethod
    def _dense(table: Table, widths: tuple[int, ...], first: float, later: float) -> nn.Module:
        return nn.Sequential(
            *(
                critic_layer(table, partial(nn.Linear, a, bias=False), b, later if i else first, False, 1)
                for i, (a, b) in enumerate(pairwise(widths))
            )
        )

    def forward(self, x: Tensor, z: Tensor, c: Values) -> Tensor:
        h = torch.cat([self.picture(x).flatten(1), self.code(z)], 1)
        return self.last(self.joint(self.conditions(h, c))).float()


class LargerOfTwo(nn.Module):
    """Of maps (b, 2n, ...), in pairs, the larger: (b, n, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, 2)).amax(2)


def critic_layer(table: Table, affine: Callable[[int], nn.Module], out: int, dropout: float, norm: bool, dims: int) -> nn.Module:
    """Dropout, an affine map to `out` features, and what follows it in this table."""
    if table.maxout:
        return nn.Sequential(nn.Dropout(dropout), affine(2 * out), LargerOfTwo())
    norms = [(nn.BatchNorm2d if dims == 2 else nn.BatchNorm1d)(out)] if norm else []
    return nn.Sequential(nn.Dropout(dropout), affine(out), *norms, nn.LeakyReLU(table.slope))


@torch.no_grad()
def small_weights(net: nn.Module, sd: float = 0.01) -> None:
    """Weights N(0, sd^2), biases 0, as released."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, sd)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
