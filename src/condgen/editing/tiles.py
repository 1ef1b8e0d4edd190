"""Activations of a large picture in bounded memory: what the net keeps for the way back is kept for one tile at a time.

Forwards, each tile is seen with a margin as wide as the net's sight, and the margin's activations are cut away; backwards, each tile
is seen again. What comes out is what the whole picture gives, gradient included, to rounding. It costs one more pass forwards and the
margins: of a megapixel about 1.6 times the time of a picture that is seen at once.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from condgen.errors import require_whole

Net = Callable[[Tensor, Sequence[str]], dict[str, Tensor]]
"""Pictures (b, 3, h, w) in [-1, 1] and names of layers to activations: a `FeatureNet`, or one behind tiles."""
GRID_PX = 16
"""Tiles begin at its multiples, where the windows of all poolings begin: VGG-19's deepest layer has a cell every 16 px."""
MARGIN_PX = 128
"""VGG-19's conv5_4 sees 118 px beyond its own cell."""
TILE_PX = 512


class Tile(NamedTuple):
    """One side of a tile in px: what is kept, from `start` to `end`, and what is looked at, from `first` to `last`."""

    start: int
    end: int
    first: int
    last: int


def tiles(length: int, tile_px: int = TILE_PX, margin_px: int = MARGIN_PX) -> list[Tile]:
    """A side of `length` px in tiles of about the same size, none larger than `tile_px` to the next multiple of 16.

    >>> tiles(100, 64, 16)
    [Tile(start=0, end=64, first=0, last=80), Tile(start=64, end=100, first=48, last=100)]
    """
    n = math.ceil(length / tile_px)
    step = math.ceil(length / n / GRID_PX) * GRID_PX
    starts = range(0, length, step)
    margin = math.ceil(margin_px / GRID_PX) * GRID_PX
    return [Tile(s, min(s + step, length), max(0, s - margin), min(s + step + margin, length)) for s in starts]


class Tiled:
    """A net that is asked tile by tile; otherwise it answers as the net does.

    Args:
        net: whose cells lie on a grid of 16 px and which sees no farther than the margin, as all of ours do.
        tile_px: side of a tile, without its margin.
        margin_px: beyond it.
    """

    def __init__(self, net: Net, tile_px: int = TILE_PX, margin_px: int = MARGIN_PX):
        require_whole("tile_px", tile_px, GRID_PX)
        self.net, self.tile_px, self.margin_px = net, tile_px, margin_px

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Activations of these layers, (b, channels, h', w') each."""
        if max(x.shape[-2:]) <= self.tile_px:
            return self.net(x, layers)
        names = tuple(dict.fromkeys(layers))
        return dict(zip(names, _Seen.apply(x, self, names), strict=True))

    def windows(self, x: Tensor) -> Iterator[tuple[Tile, Tile]]:
        h, w = x.shape[-2:]
        for down in tiles(h, self.tile_px, self.margin_px):
            for across in tiles(w, self.tile_px, self.margin_px):
                yield down, across


class _Seen(torch.autograd.Function):
    """The activations, kept; all that led to them is computed again for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tiled: Tiled, names: tuple[str, ...]) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x)
        ctx.tiled, ctx.names = tiled, names
        rows: list[list[dict[str, Tensor]]] = []
        for down, across in tiled.windows(x):
            seen = tiled.net(_looked_at(x, down, across), names)
            rows += [[]] if across.start == 0 else []
            rows[-1].append({name: _kept(a, x, down, across).clone() for name, a in seen.items()})  # the margin's memory goes
        return tuple(torch.cat([torch.cat([tile.pop(name) for tile in row], 3) for row in rows], 2) for name in names)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        back = torch.zeros_like(x)
        for down, across in ctx.tiled.windows(x):
            piece = _looked_at(x, down, across).detach().requires_grad_()
            with torch.enable_grad():
                seen = ctx.tiled.net(piece, ctx.names)
                kept = [_kept(seen[name], x, down, across) for name in ctx.names]
            wanted = [_own(g, k, x, down, across) for g, k in zip(gradients, kept, strict=True)]
            _looked_at(back, down, across).add_(torch.autograd.grad(kept, piece, wanted)[0])
        return back, None, None


def _looked_at(x: Tensor, down: Tile, across: Tile) -> Tensor:
    return x[..., down.first : down.last, across.first : across.last]


def _kept(a: Tensor, x: Tensor, down: Tile, across: Tile) -> Tensor:
    """Of the activations a of a tile with its margin, those of the tile; the last tile has what there is up to the rim of x."""
    places = []
    for tile, cells, length in zip((down, across), a.shape[-2:], x.shape[-2:], strict=True):
        stride = _stride(tile.last - tile.first, cells)
        end = cells if tile.end == length else (tile.end - tile.first) // stride
        places.append(slice((tile.start - tile.first) // stride, end))
    return a[..., places[0], places[1]]


def _own(whole: Tensor, kept: Tensor, x: Tensor, down: Tile, across: Tile) -> Tensor:
    """A tile's part, as large as `kept`, of something as large as the activations of all of x."""
    places = []
    for tile, n, cells, length in zip((down, across), kept.shape[-2:], whole.shape[-2:], x.shape[-2:], strict=True):
        start = tile.start // _stride(length, cells)
        places.append(slice(start, start + n))
    return whole[..., places[0], places[1]]


def _stride(px: int, cells: int) -> int:
    """px of the picture for one cell: a power of two, but for a cell or two that are missing where a net does not pad."""
    return 2 ** round(math.log2(px / cells))


# --- what there is room for -------------------------------------------------------------------------------------------------


def bytes_kept(net: Net, layers: Sequence[str], side_px: int = 128) -> float:
    """What the net keeps for the way back of a picture seen at once, in bytes a pixel: measured, on a small picture."""
    found: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        found[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    weights = list(getattr(net, "parameters", tuple)())
    own = {p.untyped_storage().data_ptr() for p in weights}
    like = weights[0] if weights else torch.zeros(())  # the net may be on another device, or in float64
    x = torch.zeros(1, 3, side_px, side_px, device=like.device, dtype=like.dtype, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        seen = net(x, layers)
    assert seen
    return sum(n for at, n in found.items() if at not in own) / side_px**2
