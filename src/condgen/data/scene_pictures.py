"""Scenes as pictures: which ink covers each point, the colours of a domain over it, and the set `scenes-domains`.

What covers a point does not depend on the domain, so that a scene's two pictures differ in their colours alone: in "plain" a
stripe has the coat's colour.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from condgen.conditions import Label, Picture, Schema
from condgen.data.scenes import INKS, OF_ANIMAL, Colour, Part, Scene, all_parts, box, mixed, scene
from condgen.data.store import Column, Content
from condgen.errors import BadInput, unknown

DOMAINS = ("plain", "striped")
SIZES = (32, 64, 128)
TRAIN, TEST = 4000, 400
FIRST_TEST = 1_000_000
"""Scenes are numbered; those of the test split begin here."""
SAMPLES = 4
"""Points a pixel is made of, each way: what is drawn has no jagged edges."""
BLACK: Colour = (0.0, 0.0, 0.0)


def shares(scene: Scene, size: int) -> np.ndarray:
    """How much of each pixel shows each of `INKS`, float32 (size, size, inks), summing to 1: the same in both domains."""
    fine = np.zeros((size * SAMPLES, size * SAMPLES), dtype=np.intp)
    for part in all_parts(scene):
        _lay(fine, part)
    # one count over (pixel, ink) instead of one picture an ink
    rows, k = np.arange(size * SAMPLES) // SAMPLES, len(INKS)
    fine += (rows[:, None] * size + rows) * k
    return (np.bincount(fine.ravel(), minlength=size * size * k).reshape(size, size, k) / SAMPLES**2).astype(np.float32)


def _lay(fine: np.ndarray, part: Part) -> None:
    """Write a part's ink over the points (n, n) that it holds."""
    n, shape = len(fine), part.shape
    left, top, right, bottom = box([part])
    x0, x1, y0, y1 = (min(max(math.floor(v * n) + more, 0), n) for v, more in ((left, 0), (right, 1), (top, 0), (bottom, 1)))
    x = ((np.arange(x0, x1, dtype=np.float32) + 0.5) / n - shape.a[0])[None]
    y = ((np.arange(y0, y1, dtype=np.float32) + 0.5) / n - shape.a[1])[:, None]
    dx, dy = shape.b[0] - shape.a[0], shape.b[1] - shape.a[1]
    length = max(math.hypot(dx, dy), 1e-9)
    along, across = (x * dx + y * dy) / length**2, (y * dx - x * dy) / length
    held, under = shape.holds(along, across, length), fine[y0:y1, x0:x1]
    under[held] = INKS.index(part.ink)
    if part.stripes:
        held &= np.sin(2 * math.pi * part.stripes * along) > 0
        under[held] = INKS.index("far stripe" if part.ink == "far" else "stripe")


def drawn(scene: Scene, domain: str, of_ink: np.ndarray) -> np.ndarray:
    """The picture of a scene in a domain, uint8 (size, size, 3).

    Args:
        of_ink: what `shares` gives for the scene at that size.

    Raises:
        BadInput: for an unknown domain.
    """
    if domain not in DOMAINS:
        raise unknown("domain", domain, DOMAINS)
    picture = of_ink[..., :1] * _behind(scene, domain, len(of_ink)) + of_ink[..., 1:] @ _colours(scene, domain)
    return np.round(255 * picture).astype(np.uint8)


def animal_mask(of_ink: np.ndarray) -> np.ndarray:
    """How much of each pixel shows the animal, uint8 (size, size, 1), 255 for all of it; what hides it is not part of it."""
    return np.round(255 * of_ink[..., [INKS.index(ink) for ink in OF_ANIMAL]].sum(-1, keepdims=True)).astype(np.uint8)


def _colours(scene: Scene, domain: str) -> np.ndarray:
    """Of each of `INKS` but the first, float32 (inks - 1, 3) in [0, 1]."""
    if domain == "plain":
        coat = stripe = mixed((0.34, 0.2, 0.1), (0.66, 0.43, 0.25), scene.animal.tone)
    else:
        coat, stripe = mixed((0.76, 0.74, 0.69), (0.98, 0.97, 0.93), scene.animal.tone), (0.1, 0.09, 0.1)
    of = {thing.kind: thing.colour for thing in scene.things}
    known = {
        "sun": of.get("sun", BLACK),
        "trunk": (0.3, 0.2, 0.13),
        "crown": of.get("tree", BLACK),
        "stone": of.get("stone", BLACK),
        "shadow": _shaded(_grass(scene, domain), 0.68),
        "far": _shaded(coat, 0.72),
        "far stripe": _shaded(stripe, 0.72),
        "coat": coat,
        "stripe": stripe,
        "dark": (0.13, 0.1, 0.09),
    }
    return np.array([known[ink] for ink in INKS[1:]], dtype=np.float32)


def _grass(scene: Scene, domain: str) -> Colour:
    if domain == "plain":
        return mixed((0.2, 0.42, 0.12), (0.4, 0.62, 0.26), scene.grass)
    return mixed((0.66, 0.54, 0.18), (0.86, 0.76, 0.4), scene.grass)


def _shaded(colour: Colour, by: float) -> Colour:
    return (colour[0] * by, colour[1] * by, colour[2] * by)


def _behind(scene: Scene, domain: str, size: int) -> np.ndarray:
    """Sky and grass, float32 (size, size, 3) in [0, 1]."""
    down = (np.arange(size) + 0.5) / size
    grass = np.array(_grass(scene, domain)) * (0.8 + 0.3 * down[:, None, None] + _texture(scene, size)[..., None])
    high = np.clip(1 - down / scene.horizon, 0, 1)[:, None, None]
    sky = np.array(scene.sky) * high + np.array((0.86, 0.9, 0.95)) * (1 - high)
    ground = np.clip((down - scene.horizon) * size + 0.5, 0, 1)[:, None, None]
    return np.clip(ground * grass + (1 - ground) * sky, 0, 1).astype(np.float32)


def _texture(scene: Scene, size: int) -> np.ndarray:
    """The sum of the ground's waves, (size, size): cos(a + b) by products, as each wave is one row times one column."""
    across, down, amplitude, phase = np.array(scene.waves).T
    at = 2j * math.pi * (np.arange(size) + 0.5) / size
    return ((np.exp(at[:, None] * down) * amplitude * np.exp(1j * phase)) @ np.exp(at * across[:, None])).real


# --- the set --------------------------------------------------------------------------------------------------------------


def domains(into: Path, size: int | None = None) -> dict[str, Content]:
    """Train: 2,000 pictures of each domain, no scene twice. Test: 200 of each, with the counterpart and the animal's mask.

    Pictures (3, size, size), 64 px unless size says 32 or 128; domains alternate. Raises BadInput for another size.
    """
    side = 64 if size is None else size
    if side not in SIZES:
        raise BadInput(f"scenes-domains is drawn at {', '.join(map(str, SIZES))} px; size is {size}")
    return {"train": _unpaired(range(TRAIN), side), "test": _paired(range(FIRST_TEST, FIRST_TEST + TEST), side)}


def _unpaired(numbers: Sequence[int], side: int) -> Content:
    x = np.empty((len(numbers), side, side, 3), dtype=np.uint8)
    for i, number in enumerate(numbers):
        shown = scene(number)
        x[i] = drawn(shown, DOMAINS[i % 2], shares(shown, side))
    return Content(x, {"domain": torch.arange(len(numbers)) % 2}, {"domain": Label(DOMAINS)})


def _paired(numbers: Sequence[int], side: int) -> Content:
    x, other = (np.empty((len(numbers), side, side, 3), dtype=np.uint8) for _ in range(2))
    mask = np.empty((len(numbers), side, side, 1), dtype=np.uint8)
    for i, number in enumerate(numbers):
        shown = scene(number)
        of_ink = shares(shown, side)
        x[i], other[i] = drawn(shown, DOMAINS[i % 2], of_ink), drawn(shown, DOMAINS[1 - i % 2], of_ink)
        mask[i] = animal_mask(of_ink)
    columns: dict[str, Column] = {"domain": torch.arange(len(numbers)) % 2, "counterpart": other, "mask": mask}
    schema: Schema = {"domain": Label(DOMAINS), "counterpart": Picture((3, side, side)), "mask": Picture((1, side, side))}
    return Content(x, columns, schema)
