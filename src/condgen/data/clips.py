"""Drawn clips whose motion is known exactly: a textured background that pans, and three textured sprites that move before it.

Each layer moves rigidly, so where a pixel came from, and what hides it, follows from the layers' paths, between any two frames. Textures
are sums of waves, read off at the very point that a pixel shows: nothing is interpolated, and a pixel keeps its colour along its flow. Only
the one-pixel rim of a sprite mixes it with what is behind.

For warps and flows in video style transfer (Ruder, Dosovitskiy & Brox 2016, arXiv 1604.08610), which measure on rendered film.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from condgen.errors import require_whole

WAVES = 28
LONGEST, SHORTEST = 40.0, 8.0
"""Waves of a texture, px: none is so short that a pixel, or a bilinear warp, would miss it."""
CONTRAST = 0.13
"""Standard deviation of a texture in each channel, of values in [0, 1]."""
HIDDEN_FOR = 2.8
"""How many frames the sprite of a `passing` clip hides what it passes over: less than the offset 4 of long-term losses."""

Coordinates = tuple[np.ndarray, np.ndarray]
"""x and y in px, the middle of the upper left pixel being 0, 0."""


@dataclass(frozen=True)
class Layer:
    """The background or a sprite.

    Args:
        waves: (k, 2) radians a px, in the layer's own frame.
        tint: (k, 3) complex amplitude of each wave in each channel.
        colour: (3,) in [0, 1], about which the waves go.
        at: x, y in px of its middle in frame 0; a background's is the point that it turns around.
        velocity: px a frame.
        angle, turn: radians in frame 0, and a frame.
        radius: px; infinite for a background.
        lobes, depth: a sprite's outline is a circle with so many bumps, so deep relative to the radius.
    """

    waves: np.ndarray
    tint: np.ndarray
    colour: np.ndarray
    at: tuple[float, float]
    velocity: tuple[float, float]
    angle: float = 0.0
    turn: float = 0.0
    radius: float = math.inf
    lobes: int = 3
    depth: float = 0.0

    def to_own(self, frame: int, x: np.ndarray, y: np.ndarray) -> Coordinates:
        """Points of the picture as points of the layer."""
        cos, sin, cx, cy = self._pose(frame)
        return cos * (x - cx) + sin * (y - cy), cos * (y - cy) - sin * (x - cx)

    def to_picture(self, frame: int, u: np.ndarray, v: np.ndarray) -> Coordinates:
        cos, sin, cx, cy = self._pose(frame)
        return cos * u - sin * v + cx, sin * u + cos * v + cy

    def _pose(self, frame: int) -> tuple[float, float, float, float]:
        angle = self.angle + self.turn * frame
        return math.cos(angle), math.sin(angle), self.at[0] + self.velocity[0] * frame, self.at[1] + self.velocity[1] * frame

    def cover(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """How much of a pixel at a point of the layer it covers, in [0, 1]."""
        if math.isinf(self.radius):
            return np.ones(np.broadcast(u, v).shape)
        rim = self.radius * (1 + self.depth * np.cos(self.lobes * np.arctan2(v, u)))
        return np.clip(rim - np.hypot(u, v) + 0.5, 0, 1)

    def texture(self, frame: int, side: int) -> np.ndarray:
        """What it would show in every pixel, (side, side, 3) in [0, 1].

        A wave is the same all along its crests however the layer lies, so over the picture it is one row times one column.
        """
        cos, sin, cx, cy = self._pose(frame)
        across, down = self.waves @ np.array([cos, -sin]), self.waves @ np.array([sin, cos])  # radians a px of the picture
        px = np.arange(side)
        rows, columns = np.exp(1j * np.outer(px - cy, down)), np.exp(1j * np.outer(across, px - cx))
        shown = np.stack([((rows * tint) @ columns).real for tint in self.tint.T], -1)
        return np.clip(self.colour + shown, 0, 1)


@dataclass(frozen=True)
class Clip:
    """Frames and their exact motion.

    Args:
        frames: uint8 (n, h, w, 3).
        layers: the background, then the sprites from the farthest to the nearest.
    """

    frames: np.ndarray
    layers: tuple[Layer, ...] = field(repr=False)

    @cached_property
    def backward(self) -> np.ndarray:
        """float32 (n - 1, 2, h, w) px: [i] at pixel p of frame i + 1 is where p was in frame i, minus p."""
        return np.stack([self.flow_between(i, i + 1) for i in range(len(self.frames) - 1)])

    @cached_property
    def forward(self) -> np.ndarray:
        """float32 (n - 1, 2, h, w) px: [i] at pixel p of frame i is where p will be in frame i + 1, minus p."""
        return np.stack([self.flow_between(i + 1, i) for i in range(len(self.frames) - 1)])

    @cached_property
    def occluded(self) -> np.ndarray:
        """bool (n - 1, h, w): [i] is True where frame i does not show the pixel of frame i + 1: hidden there, or out of the picture."""
        return np.stack([self.occluded_between(i, i + 1) for i in range(len(self.frames) - 1)])

    @cached_property
    def occluded_forward(self) -> np.ndarray:
        """bool (n - 1, h, w): [i] is True where frame i + 1 does not show the pixel of frame i."""
        return np.stack([self.occluded_between(i + 1, i) for i in range(len(self.frames) - 1)])

    def flow_between(self, i: int, j: int) -> np.ndarray:
        """float32 (2, h, w) px: at pixel p of frame j, where it is in frame i, minus p; it warps frame i to frame j.

        Raises BadInput for frames that are not there.
        """
        (x, y), (at_x, at_y) = self._grid(), self._traced(i, j)
        return np.stack([at_x - x, at_y - y]).astype(np.float32)

    def occluded_between(self, i: int, j: int) -> np.ndarray:
        """bool (h, w): True where frame i does not show the pixel of frame j; what happens between the two does not matter."""
        x, y = self._traced(i, j)
        h, w = self.frames.shape[1:3]
        inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
        return ~inside | (self._top(i, x, y) != self.top(j))

    def reappeared(self, i: int, j: int) -> np.ndarray:
        """bool (h, w): pixels of frame j that the frame before it does not show, but frame i does."""
        return self.occluded_between(j - 1, j) & ~self.occluded_between(i, j)

    def top(self, frame: int) -> np.ndarray:
        """Which layer each pixel shows, int64 (h, w): 0 for the background. Raises BadInput for a frame that is not there."""
        require_whole("frame", frame, 0, len(self.frames) - 1)
        return self._top(frame, *self._grid())

    def _top(self, frame: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        covered = np.stack([layer.cover(*layer.to_own(frame, x, y)) >= 0.5 for layer in self.layers])
        return len(self.layers) - 1 - covered[::-1].argmax(0)

    def _traced(self, i: int, j: int) -> Coordinates:
        """Where each pixel of frame j is in frame i."""
        require_whole("frame", i, 0, len(self.frames) - 1)
        top, (x, y) = self.top(j), self._grid()
        seen = [layer.to_picture(i, *layer.to_own(j, x, y)) for layer in self.layers]
        return np.choose(top, [x for x, _ in seen]), np.choose(top, [y for _, y in seen])

    def _grid(self) -> Coordinates:
        h, w = self.frames.shape[1:3]
        y, x = np.mgrid[:h, :w].astype(np.float64)
        return x, y


def clip(seed: int, frames: int = 16, size: int = 128, passing: bool = False) -> Clip:
    """A clip of so many frames of size x size px: the same for the same seed.

    Args:
        seed: at least 0.
        frames: at least 2.
        size: px, at least 32.
        passing: the nearest sprite crosses the picture, and what it hid comes back; else all three go their ways.

    Raises:
        BadInput: for numbers below these.
    """
    for what, value, least in (("seed", seed, 0), ("frames", frames, 2), ("size of a clip, in px,", size, 32)):
        require_whole(what, value, least)
    draw = np.random.Generator(np.random.PCG64([0xC11B, seed]))
    layers = [_background(draw, size, 0.3 if passing else 1.2), *(_sprite(draw, size, frames, 0.6 if passing else 2.5) for _ in range(3))]
    if passing:
        layers[-1] = _passer(draw, size, frames)
    shown = [_frame(layers, k, size) for k in range(frames)]
    return Clip(np.stack(shown), tuple(layers))


def _frame(layers: list[Layer], frame: int, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side].astype(np.float64)
    picture = layers[0].texture(frame, side)
    for layer in layers[1:]:
        cover = layer.cover(*layer.to_own(frame, x, y))[..., None]
        picture = cover * layer.texture(frame, side) + (1 - cover) * picture
    return np.round(255 * picture).astype(np.uint8)


def _background(draw: np.random.Generator, size: int, speed: float) -> Layer:
    return Layer(*_surface(draw), at=(size / 2, size / 2), velocity=_velocity(draw, speed * size / 128))


def _sprite(draw: np.random.Generator, size: int, frames: int, speed: float) -> Layer:
    """One that is somewhere about the middle when half of the clip is over; two in three turn."""
    velocity, middle = _velocity(draw, speed * size / 128), draw.uniform(0.25, 0.75, 2) * size
    at = (middle[0] - velocity[0] * frames / 2, middle[1] - velocity[1] * frames / 2)
    turn = draw.uniform(-0.05, 0.05) if draw.random() < 2 / 3 else 0.0
    radius, lobes, depth = draw.uniform(0.1, 0.18) * size, int(draw.integers(2, 6)), draw.uniform(0.05, 0.2)
    return Layer(*_surface(draw), at, velocity, draw.uniform(0, 2 * math.pi), turn, radius, lobes, depth)


def _passer(draw: np.random.Generator, size: int, frames: int) -> Layer:
    """One that goes from rim to rim in the time of the clip."""
    speed = 0.96 * size / (frames - 1)
    radius = min(max(speed * HIDDEN_FOR / 2, 0.06 * size), 0.2 * size)
    y, rise = draw.uniform(0.35, 0.65) * size, draw.uniform(-0.05, 0.05) * speed
    return Layer(*_surface(draw), at=(0.02 * size, y), velocity=(speed, rise), radius=radius, depth=0.05)


def _velocity(draw: np.random.Generator, speed: float) -> tuple[float, float]:
    """Of a speed from half of this to all of it, px a frame, in any direction."""
    angle, speed = draw.uniform(0, 2 * math.pi), speed * draw.uniform(0.5, 1)
    return speed * math.cos(angle), speed * math.sin(angle)


def _surface(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Waves, tint and colour of a layer; short waves are as strong as long ones."""
    length, angle = LONGEST * (SHORTEST / LONGEST) ** draw.random(WAVES), draw.uniform(0, 2 * math.pi, WAVES)
    waves = (2 * math.pi / length)[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    grey, own = draw.normal(size=(WAVES, 1)), draw.normal(size=(WAVES, 3))
    tint = (grey + 0.7 * own) * np.exp(2j * math.pi * draw.random((WAVES, 1)))
    tint *= CONTRAST / np.sqrt((np.abs(tint) ** 2).sum(0) / 2)
    return waves, tint, draw.uniform(0.3, 0.7, 3)
