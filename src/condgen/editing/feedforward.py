"""Style transfer in one pass: activations get the statistics of the style's, and a decoder draws the picture that has them.

    f' = T f + t,    t = m_s - T m_c                  m, C: mean and covariance of the activations over all places, c content, s style

    adain    T = diag(sqrt(C_s / C_c)), from the variances alone            Huang, Belongie 2017, arXiv 1703.06868
    wct      T = C_s^(1/2) C_c^(-1/2), whitening and colouring              Li et al. 2017, arXiv 1705.08086

Both are one affine map for each level, so that a strength below 1 and the blend of several styles are means of maps. The levels are gone
through from the deepest to the first, each with a decoder of its own (`networks.pairs`, Wang et al. 2020, arXiv 2003.08436).

Statistics are of the whole picture, gathered tile by tile; each tile is then drawn with a margin as wide as the nets see. A large picture
comes out as if it had been drawn at once, in memory that does not grow with it (but for the picture itself).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.backbones import distilled_pairs
from condgen.editing.tiles import TILE_PX, Tile, tiles
from condgen.editing.transfer import shares_of
from condgen.errors import BadInput, require_range, unknown
from condgen.networks.pairs import Pair

LEVELS = {"adain": (4, 3, 2, 1), "wct": (4, 3, 2, 1)}
"""Levels that each method goes through by default."""
SMALLEST_PX = 32
"""A side below this leaves the deepest level a single place."""
GRID_PX = 16
RIDGE = 1e-6
"""Share of the largest variance below which a direction counts as empty: it is not whitened."""


class Statistics(NamedTuple):
    """Mean (n,) and covariance (n, n) of activations over all places, float64."""

    mean: Tensor
    cov: Tensor


class Affine(NamedTuple):
    """f -> matrix f + shift, (n, n) and (n,)."""

    matrix: Tensor
    shift: Tensor

    def __call__(self, f: Tensor) -> Tensor:
        """Of activations (b, n, h, w)."""
        matrix, shift = self.matrix.to(f), self.shift.to(f)
        return torch.einsum("mn,bnhw->bmhw", matrix, f) + shift[:, None, None]


def stylize_fast(
    content: Tensor,
    style: Tensor | Sequence[Tensor],
    strength: float = 1.0,
    method: str = "wct",
    levels: Sequence[int] | None = None,
    shares: Sequence[float] | None = None,
    pairs: Mapping[int, Pair] | None = None,
    tile_px: int = TILE_PX,
) -> Tensor:
    """The content drawn in the style, in about a second a megapixel and level.

    Args:
        content: (1, 3, h, w) in [-1, 1], both sides at least 32 px.
        style: a picture (1, 3, h', w') in [-1, 1], or several.
        strength: 0 for the content as the decoders draw it, 1 for the full transfer.
        method: "wct", which comes nearer to the style, or "adain", which stays nearer to the content.
        levels: of the five, the deepest first; by default those of `LEVELS`.
        shares: of each style; equal by default, scaled to a sum of 1.
        pairs: encoders and decoders by level; by default those of the distilled weights on this machine.
        tile_px: side of the tiles, without their margins.

    Returns:
        (1, 3, h, w) in [-1, 1], on the content's device.

    Raises:
        BadInput: for a method, a level, a share, a strength or a picture that cannot be used, and where the weights are not here.
    """
    if method not in MAPS:
        raise unknown("method", method, MAPS)
    require_range(0, 1, strength=strength)
    chosen = _levels(LEVELS[method] if levels is None else levels)
    styles = [style] if isinstance(style, Tensor) else list(style)
    weights = shares_of(shares, len(styles))
    for name, picture in [("content", content), *(("style", s) for s in styles)]:
        _require_picture(name, picture)
    nets = distilled_pairs(chosen) if pairs is None else pairs
    x = content
    for level in chosen:
        net = nets[level].to(content.device)
        x = _drawn(net, x, styles, weights, method, strength, tile_px)
    return x


@torch.no_grad()
def _drawn(pair: Pair, x: Tensor, styles: Sequence[Tensor], shares: Sequence[float], method: str, strength: float, tile_px: int) -> Tensor:
    """x with one level's statistics of the styles."""
    padded = _padded(x)
    own = statistics(pair, padded, tile_px)
    maps = [MAPS[method](own, statistics(pair, _padded(style.to(x)), tile_px)) for style in styles]
    change = blended(own, maps, shares, strength)
    out = torch.empty_like(padded)
    for down, across in windows(padded, pair.reach, tile_px):
        seen = padded[..., down.first : down.last, across.first : across.last]
        drawn = pair.decode(change(pair.encode(seen))).clamp(-1, 1)
        top, left = down.start - down.first, across.start - across.first
        h, w = down.end - down.start, across.end - across.start
        out[..., down.start : down.end, across.start : across.end] = drawn[..., top : top + h, left : left + w]
    return out[..., : x.shape[2], : x.shape[3]]


def windows(x: Tensor, reach: int, tile_px: int) -> Iterator[tuple[Tile, Tile]]:
    """The tiles of a picture, with margins of `reach` px at least."""
    for down in tiles(x.shape[2], tile_px, reach):
        for across in tiles(x.shape[3], tile_px, reach):
            yield down, across


@torch.no_grad()
def statistics(pair: Pair, x: Tensor, tile_px: int = TILE_PX) -> Statistics:
    """Of the level's activations of a picture (1, 3, h, w) whose sides are multiples of 16 px."""
    n, total, products = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for down, across in windows(x, pair.reach, tile_px):
        code = pair.encode(x[..., down.first : down.last, across.first : across.last])
        own = [slice((t.start - t.first) // pair.stride, (t.end - t.first) // pair.stride) for t in (down, across)]
        rows = code[0, :, own[0], own[1]].flatten(1).double()
        n, total, products = n + rows.shape[1], total.to(rows) + rows.sum(1), products.to(rows) + rows @ rows.T
    mean = total / n
    return Statistics(mean, products / n - torch.outer(mean, mean))


# --- maps -----------------------------------------------------------------------------------------------------------------


def adain(content: Statistics, style: Statistics) -> Affine:
    """Each channel to the style's mean and variance. A channel that the content leaves empty stays at the style's mean."""
    ours, theirs = content.cov.diagonal().clamp(min=0), style.cov.diagonal().clamp(min=0)
    scale = torch.where(ours > RIDGE * ours.max(), (theirs / ours).sqrt(), 0.0)
    return _centred(torch.diag(scale), content, style)


def wct(content: Statistics, style: Statistics) -> Affine:
    """All channels together to the style's mean and covariance, as far as the content's own covariance is of full rank."""
    return _centred(power(style.cov, 0.5) @ power(content.cov, -0.5), content, style)


MAPS = {"adain": adain, "wct": wct}


def _centred(matrix: Tensor, content: Statistics, style: Statistics) -> Affine:
    return Affine(matrix, style.mean - matrix @ content.mean)


def power(cov: Tensor, exponent: float) -> Tensor:
    """The symmetric power of a covariance, directions without variance left out."""
    values, vectors = torch.linalg.eigh(cov)
    there = values > RIDGE * values.max()
    return (vectors * torch.where(there, values.clamp(min=1e-30) ** exponent, 0.0)) @ vectors.T


def blended(content: Statistics, maps: Sequence[Affine], shares: Sequence[float], strength: float) -> Affine:
    """The mean of the maps with these shares, and of the map that changes nothing with what is left of the strength."""
    matrix = (1 - strength) * torch.eye(len(content.mean)).to(content.mean)
    shift = torch.zeros_like(content.mean)
    for share, one in zip(shares, maps, strict=True):
        matrix, shift = matrix + strength * share * one.matrix, shift + strength * share * one.shift
    return Affine(matrix, shift)


# --- what is given --------------------------------------------------------------------------------------------------------


def _levels(levels: Sequence[int]) -> tuple[int, ...]:
    if not levels or any(level not in range(1, 6) for level in levels) or len(set(levels)) < len(levels):
        raise BadInput(f"levels are {tuple(levels)!r}; expected different ones from 1 to 5, such as {LEVELS['wct']}")
    return tuple(sorted(levels, reverse=True))


def _require_picture(name: str, x: Tensor) -> None:
    if x.dim() != 4 or x.shape[:2] != (1, 3) or min(x.shape[2:]) < SMALLEST_PX:
        raise BadInput(f"the {name} is of shape {tuple(x.shape)}; expected (1, 3, h, w) with sides of at least {SMALLEST_PX} px")


def _padded(x: Tensor) -> Tensor:
    """Mirrored at the right and at the bottom to sides that all five levels can halve."""
    down, across = (-n % GRID_PX for n in x.shape[2:])
    return F.pad(x, (0, across, 0, down), mode="reflect") if down or across else x
