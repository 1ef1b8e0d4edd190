"""`scenes-domains`: drawn scenes of an animal in a meadow, in two domains with hidden pairs, no download.

A scene is data: a sky, the ground, an animal and one or two things, with their places, sizes and colours, in units of the picture's
side (x to the right, y down, both from 0 to 1). It can be drawn in either domain and at any size: "plain" has a brown animal on green
grass, "striped" the same animal with dark stripes on a light coat, on yellow grass. All else is the same to the pixel, and how light the
coat and the grass are is kept, so that each picture has one true counterpart. The training split hides it: no scene is in it twice.

Stripes lie in the frame of the part that they are on: they turn and grow with it, and the plain animal tells where they would be.
Modelled on the horse and zebra pictures of Zhu et al. 2017 (CycleGAN, arXiv 1703.10593), whose pairs nobody knows.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

INKS = ("ground", "sun", "trunk", "crown", "stone", "shadow", "far", "far stripe", "coat", "stripe", "dark")
"""What a point of a picture can show; "ground" stands for all that is behind: sky and grass."""
PERIOD = 0.2
"""From one stripe to the next, in lengths of the body."""
OF_ANIMAL = ("far", "far stripe", "coat", "stripe", "dark")

Point = tuple[float, float]
Colour = tuple[float, float, float]
Lots = np.random.Generator


# --- what is in a scene ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Animal:
    """An animal that stands or walks.

    Args:
        x, y: the middle of its body.
        length: of its body; all other parts are relative to it.
        facing: 1 to the right, -1 to the left.
        tilt: the body's slope, radians; above 0 it goes downhill.
        neck: direction of the neck, radians from straight ahead, below 0 upwards.
        head: how far the head is turned down from the neck, radians.
        tail: direction of the tail, radians from straight back, above 0 downwards.
        legs: swing of the near hind, near fore, far hind and far fore leg, radians, above 0 forwards.
        tone: 0 for the darkest coat of its domain, 1 for the lightest.
    """

    x: float
    y: float
    length: float
    facing: int
    tilt: float
    neck: float
    head: float
    tail: float
    legs: tuple[float, float, float, float]
    tone: float

    @property
    def foot(self) -> float:
        """How far down it stands."""
        return max(max(part.shape.a[1], part.shape.b[1]) for part in parts(self))


@dataclass(frozen=True)
class Thing:
    """A tree or a stone, of which (x, foot) is where it stands, or the sun, of which that is the middle."""

    kind: str
    x: float
    foot: float
    size: float
    colour: Colour


@dataclass(frozen=True)
class Scene:
    """All that a picture shows, whatever its domain.

    Args:
        number: which scene it is, and the seed of it all.
        horizon: where the ground begins.
        sky: its colour at the top; it is lighter at the horizon.
        grass: 0 for the darkest grass of its domain, 1 for the lightest.
        waves: of the ground's texture, (k, 4): cycles a picture across and down, amplitude, phase in radians.
        animal, things: what stands there.
    """

    number: int
    horizon: float
    sky: Colour
    grass: float
    waves: tuple[tuple[float, float, float, float], ...]
    animal: Animal
    things: tuple[Thing, ...]

    @property
    def far_to_near(self) -> tuple["Animal | Thing", ...]:
        """In the order of drawing: the sun, then by where they stand."""
        return tuple(sorted((self.animal, *self.things), key=lambda o: -1.0 if isinstance(o, Thing) and o.kind == "sun" else o.foot))


# --- parts ----------------------------------------------------------------------------------------------------------------


class Limb(NamedTuple):
    """From a to b, as thick as a circle of radius `ra` there and `rb` here."""

    a: Point
    b: Point
    ra: float
    rb: float

    @property
    def reach(self) -> float:
        return max(self.ra, self.rb)

    def holds(self, along: np.ndarray, across: np.ndarray, length: float) -> np.ndarray:
        t = np.clip(along, 0, 1)
        return np.square((along - t) * length) + np.square(across) <= np.square(self.ra + t * (self.rb - self.ra))


class Oval(NamedTuple):
    """An ellipse with one axis from a to b, the half of the other being `r`."""

    a: Point
    b: Point
    r: float

    @property
    def reach(self) -> float:
        return self.r

    def holds(self, along: np.ndarray, across: np.ndarray, length: float) -> np.ndarray:
        return np.square(2 * along - 1) + np.square(across / self.r) <= 1


class Part(NamedTuple):
    """A shape in the picture, what it shows, and, for what is striped, how many stripes lie from a to b."""

    name: str
    shape: Limb | Oval
    ink: str
    stripes: float = 0.0


def parts(animal: Animal) -> list[Part]:
    """The parts of an animal from the farthest to the nearest, each with its name."""
    withers, skull = (0.36, -0.06), _towards((0.36, -0.06), animal.neck, 0.38)
    nose = _towards(skull, animal.neck + animal.head, 0.2)
    near_hind, near_fore, far_hind, far_fore = animal.legs
    dock, behind = (-0.47, -0.07), math.pi - animal.tail
    nape = _towards((0.33, -0.12), animal.neck, 0.4)
    return [
        *_leg(animal, "far hind leg", -0.3, far_hind, "far"),
        *_leg(animal, "far fore leg", 0.27, far_fore, "far"),
        _limb(animal, "tail", dock, _towards(dock, behind, 0.3), 0.025, 0.035, "dark"),
        _limb(animal, "mane", (0.24, -0.15), nape, 0.05, 0.05, "dark"),
        *_leg(animal, "near hind leg", -0.36, near_hind, "coat"),
        *_leg(animal, "near fore leg", 0.34, near_fore, "coat"),
        _limb(animal, "ear", skull, _towards(skull, animal.neck - 0.5, 0.15), 0.045, 0.02, "coat"),
        _limb(animal, "neck", withers, skull, 0.15, 0.085, "coat", striped=True),
        _oval(animal, "body", (-0.52, 0.0), (0.5, 0.0), 0.21, "coat", striped=True),
        _limb(animal, "head", skull, nose, 0.09, 0.06, "coat", striped=True),
        _limb(animal, "muzzle", _between(skull, nose, 0.9), nose, 0.06, 0.062, "dark"),
    ]


def _leg(animal: Animal, name: str, x: float, swing: float, ink: str) -> list[Part]:
    hip = (x, 0.08)
    sole = _towards(hip, math.pi / 2 - swing, 0.5)
    leg = _limb(animal, name, hip, sole, 0.075, 0.042, ink, striped=True)
    return [leg, _limb(animal, f"{name}'s hoof", _between(hip, sole, 0.95), sole, 0.045, 0.047, "dark")]


def _limb(animal: Animal, name: str, a: Point, b: Point, ra: float, rb: float, ink: str, striped: bool = False) -> Part:
    shape = Limb(_placed(animal, a), _placed(animal, b), ra * animal.length, rb * animal.length)
    return Part(name, shape, ink, math.dist(a, b) / PERIOD if striped else 0.0)


def _oval(animal: Animal, name: str, a: Point, b: Point, r: float, ink: str, striped: bool = False) -> Part:
    shape = Oval(_placed(animal, a), _placed(animal, b), r * animal.length)
    return Part(name, shape, ink, math.dist(a, b) / PERIOD if striped else 0.0)


def _placed(animal: Animal, at: Point) -> Point:
    """Where a point of the animal's frame (lengths of the body ahead, and down) is in the picture."""
    ahead, down = at[0] * animal.facing * animal.length, at[1] * animal.length
    cos, sin = math.cos(animal.tilt), math.sin(animal.tilt) * animal.facing
    return animal.x + cos * ahead - sin * down, animal.y + sin * ahead + cos * down


def _towards(start: Point, angle: float, length: float) -> Point:
    return start[0] + length * math.cos(angle), start[1] + length * math.sin(angle)


def _between(a: Point, b: Point, share: float) -> Point:
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])


def _shadow(animal: Animal) -> Part:
    half, down = 0.55 * animal.length, animal.foot + 0.01 * animal.length
    return Part("shadow", Oval((animal.x - half, down), (animal.x + half, down), 0.09 * animal.length), "shadow")


def _parts_of_thing(thing: Thing) -> list[Part]:
    x, foot, size = thing.x, thing.foot, thing.size
    if thing.kind == "sun":
        return [Part("sun", _disc(x, foot, size), "sun")]
    if thing.kind == "stone":
        return [Part("stone", Oval((x - size, foot - 0.35 * size), (x + size, foot - 0.35 * size), 0.6 * size), "stone")]
    top = foot - size
    trunk = Part("trunk", Limb((x, foot), (x, top), 0.07 * size, 0.04 * size), "trunk")
    leaves = [(0.0, 0.1, 0.32), (-0.2, -0.16, 0.27), (0.2, -0.16, 0.27)]
    crown = [_disc(x + dx * size, top - dy * size, r * size) for dx, dy, r in leaves]
    return [trunk, *(Part("crown", leaf, "crown") for leaf in crown)]


def _disc(x: float, y: float, radius: float) -> Oval:
    return Oval((x - radius, y), (x + radius, y), radius)


def all_parts(scene: Scene) -> Iterator[Part]:
    """Of everything that stands in a scene, in the order of drawing; an animal's shadow comes before it."""
    for stands in scene.far_to_near:
        if isinstance(stands, Animal):
            yield _shadow(stands)
            yield from parts(stands)
        else:
            yield from _parts_of_thing(stands)


# --- drawing of lots ------------------------------------------------------------------------------------------------------


def scene(number: int) -> Scene:
    """The scene of this number, a whole number of at least 0: the same one each time."""
    draw = np.random.Generator(np.random.PCG64([0x5CE4E5, number]))
    horizon = _from(draw, 0.3, 0.52)
    sky = mixed((0.35, 0.55, 0.85), (0.66, 0.74, 0.82), draw.random())
    waves = [(_from(draw, 2, 9), _from(draw, -11, 11), _from(draw, 0.01, 0.035), _from(draw, 0, 2 * math.pi)) for _ in range(7)]
    animal = _animal(draw, horizon)
    kinds = draw.permutation(["tree", "stone", "sun"])[: draw.integers(1, 3)]
    return Scene(number, horizon, sky, draw.random(), tuple(waves), animal, tuple(_thing(draw, str(k), horizon, animal) for k in kinds))


def _animal(draw: Lots, horizon: float) -> Animal:
    """Posed first, then put where all of it is in the picture and its feet are on the ground."""
    grazes = draw.random() < 0.25
    neck = _from(draw, 0.35, 0.6) if grazes else _from(draw, -1.15, -0.45)
    head = _from(draw, 0.3, 0.6) if grazes else _from(draw, 0.9, 1.4)
    legs = (_from(draw, -0.35, 0.25), _from(draw, -0.25, 0.35), _from(draw, -0.35, 0.25), _from(draw, -0.25, 0.35))
    pose = {"facing": 1 if draw.random() < 0.5 else -1, "tilt": _from(draw, -0.12, 0.12), "neck": neck, "head": head, "legs": legs}
    posed = Animal(0.0, 0.0, _from(draw, 0.28, 0.46), tail=_from(draw, 0.7, 1.4), tone=draw.random(), **pose)  # type: ignore[arg-type]
    left, top, right, bottom = box(parts(posed))
    x = _from(draw, 0.02 - left, 0.98 - right)
    foot = _from(draw, max(horizon + 0.1, bottom - top + 0.02), 0.97)
    return Animal(**{**posed.__dict__, "x": x, "y": foot - bottom})


def _thing(draw: Lots, kind: str, horizon: float, animal: Animal) -> Thing:
    if kind == "sun":
        colour = mixed((1.0, 0.85, 0.3), (1.0, 0.95, 0.7), draw.random())
        return Thing(kind, _from(draw, 0.08, 0.92), _from(draw, 0.08, horizon - 0.12), _from(draw, 0.04, 0.08), colour)
    if kind == "stone":
        grey = _from(draw, 0.4, 0.65)
        return Thing(kind, _from(draw, 0.05, 0.95), _from(draw, horizon + 0.06, 0.97), _from(draw, 0.04, 0.09), (grey, grey, grey * 1.03))
    colour = mixed((0.08, 0.25, 0.12), (0.2, 0.42, 0.2), draw.random())
    foot = _from(draw, horizon + 0.01, min(animal.foot - 0.02, horizon + 0.2))  # a tree stands behind the animal: it would hide it
    return Thing(kind, _from(draw, 0.05, 0.95), foot, _from(draw, 0.2, 0.4), colour)


def _from(draw: Lots, low: float, high: float) -> float:
    return low + (high - low) * float(draw.random())


def mixed(a: Colour, b: Colour, share: float) -> Colour:
    return (a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]), a[2] + share * (b[2] - a[2]))


def box(of: Sequence[Part]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what holds these parts, a little generously."""
    ends = [(end, part.shape.reach) for part in of for end in (part.shape.a, part.shape.b)]
    return (
        min(x - r for (x, _), r in ends),
        min(y - r for (_, y), r in ends),
        max(x + r for (x, _), r in ends),
        max(y + r for (_, y), r in ends),
    )
