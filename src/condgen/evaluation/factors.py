"""Factors of a picture that can be read off any sample: its pose and shape as key points tell them, and its colours.

    shape_pc1, shape_pc2 ...: principal components of the key points' places, the middle of the points taken away, each of deviation 1
        over the training rows. A small net, the judge's, trained on real training pictures alone, reads them off a sample
    whole_brightness, whole_warmth, whole_saturation; centre_...: of all pixels, and of the middle half each way, where a face is
        brightness: mean of the channels; warmth: red minus blue; saturation: sum of (largest - smallest channel) over sum of the largest

What the net cannot read off real test pictures (R^2 below `READ`) is left out. On the faces of `lfw64-landmarks` the components have
meanings: the first is the turn of the head (its correlation with the nose's place between the eyes is .95), the second its nod (-.83
with the nose's place between eyes and mouth), the third the face's width (.87), the fourth its tilt (.78 with the eyes' angle); so the
first two are called the pose. Data without key points have colours alone.
"""

from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from condgen.conditions import Keypoints, Schema, Values, Vector
from condgen.data.store import Batch
from condgen.evaluation.judge import Judge, judge_for

READ = 0.6
"""R^2 on real test pictures from which on a factor counts as readable."""
COMPONENTS = 6
"""Of the key points. On faces they hold 95 % of the variance."""
POSE = 2
"""So many of the first components are the pose."""
FEWEST = 20
"""Rows with all points visible that a split must have."""
GRAIN = 0.15
"""Largest deviation of the noise on the training pictures, of the range from -1 to 1."""
COLOURS = ("brightness", "warmth", "saturation")
SHAPE = "shape"


class Axes(NamedTuple):
    """Principal axes of centred key points: their mean float64 (2 k,), the axes (2 k, d), the deviation along each (d,)."""

    mean: Tensor
    axes: Tensor
    sd: Tensor

    def components(self, points: Tensor) -> Tensor:
        """float32 (n, d) of points (n, k, 3)."""
        return ((_centred(points) - self.mean) @ self.axes / self.sd).float()


class Factors:
    """Reads the same numbers off every picture.

    Args:
        channels: of the pictures.
        judge: that reads the components, or None where there are no key points.
        accuracy: R^2 of each component on test pictures.
    """

    def __init__(self, channels: int, judge: Judge | None = None, accuracy: tuple[float, ...] = ()):
        self.judge, self.accuracy = judge, accuracy
        self.kept = [i for i, r2 in enumerate(accuracy) if r2 >= READ]
        self.shapes = [f"{SHAPE}_pc{i + 1}" for i in self.kept]
        self.colours = colour_names(channels)
        self.names = (*self.shapes, *self.colours)

    @property
    def groups(self) -> dict[str, list[int]]:
        """Columns of "pose", "shape" and "colour", as far as there are any."""
        shapes = list(range(len(self.shapes)))
        found = {"pose": [at for at in shapes if self.kept[at] < POSE], "shape": shapes}
        found["colour"] = list(range(len(shapes), len(self.names)))
        return {name: columns for name, columns in found.items() if columns}

    def read(self, x: Tensor) -> Tensor:
        """float64 (n, len(names)) of pictures (n, c, h, w) in [-1, 1]."""
        seen = [] if self.judge is None else [self.judge.predict(x, SHAPE)[:, self.kept].double()]
        return torch.cat([*seen, colours_of(x)], 1)

    @property
    def id(self) -> str:
        """For a provenance: by which net, how well it reads, and what it does not. Nothing in it depends on a model."""
        if self.judge is None:
            return "colours alone, no key points"
        read = " ".join(f"{r2:.2f}" for r2 in self.accuracy)
        return f"{SHAPE} by {self.judge.id}, R^2 on test rows {read}, kept from {READ}"


def factors_for(train: Any, test: Any) -> Factors:
    """What can be read off pictures of these data; the net comes from the cache, or is trained now (10 s of one core for LFW at 32 px)."""
    channels, name = train.shape[0], points_of(train.schema)
    if name is None:
        return Factors(channels)
    kept = [_all_seen(data.values()[name]) for data in (train, test)]
    if min(len(rows) for rows in kept) < FEWEST:
        return Factors(channels)
    axes = axes_of(train.values()[name][kept[0]])
    known = [axes.components(data.values()[name][rows]) for data, rows in zip((train, test), kept, strict=True)]
    ours, theirs = Shown(train, kept[0], known[0], GRAIN), Shown(test, kept[1], known[1])
    judge = judge_for(ours, theirs)
    accuracy = r_squared(judge.predict(theirs.batch(torch.arange(len(theirs))).x, SHAPE), theirs.values()[SHAPE])
    return Factors(channels, judge, tuple(accuracy.tolist()))


def points_of(schema: Schema) -> str | None:
    """The first condition of key points."""
    return next((name for name, c in schema.items() if isinstance(c, Keypoints)), None)


# --- shape ----------------------------------------------------------------------------------------------------------------


class Shown:
    """Rows of a data set with their components as the only condition: what the regressor is trained on, as a judge is.

    Args:
        data: the pictures.
        rows: int64 (n,), those taken.
        components: float32 (n, d).
        grain: white noise added to each picture, up to this deviation: so that a net learns to read through it.
    """

    def __init__(self, data: Any, rows: Tensor, components: Tensor, grain: float = 0.0):
        self.data, self.rows, self.components, self.grain = data, rows, components, grain
        self.generator = Generator().manual_seed(0)
        self.shape, self.schema = data.shape, {SHAPE: Vector(components.shape[1])}
        self.fingerprint = f"{data.fingerprint}|{COMPONENTS} components of key points, grain {grain}, v1"

    def __len__(self) -> int:
        return len(self.rows)

    def values(self, rows: Tensor | None = None) -> Values:
        return {SHAPE: self.components if rows is None else self.components[rows]}

    def batch(self, rows: Tensor) -> Batch:
        x = self.data.batch(self.rows[rows]).x
        if self.grain:
            strength = self.grain * torch.rand(len(x), *[1] * (x.dim() - 1), generator=self.generator)
            x = x + strength * torch.randn(x.shape, generator=self.generator)
        return Batch(x, self.values(rows))


def _all_seen(points: Tensor) -> Tensor:
    """Rows of points (n, k, 3) in which every point is visible."""
    return (points[..., 2] > 0.5).all(1).nonzero().flatten()


def _centred(points: Tensor) -> Tensor:
    """Places (n, 2 k) relative to their own mean: where in the picture the thing is does not count, for the net sees it moved."""
    xy = points[..., :2].double()
    return (xy - xy.mean(1, keepdim=True)).flatten(1)


def axes_of(points: Tensor) -> Axes:
    """Of the first `COMPONENTS` that vary, from points (n, k, 3), all visible. The largest entry of an axis is positive."""
    xy = _centred(points)
    mean = xy.mean(0)
    variances, vectors = torch.linalg.eigh((xy - mean).T @ (xy - mean) / len(xy))
    variances, vectors = variances.flip(0)[:COMPONENTS], vectors.flip(1)[:, :COMPONENTS]
    vary = variances > 1e-8 * variances[0]
    variances, vectors = variances[vary], vectors[:, vary]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return Axes(mean, vectors * largest.sign(), variances.sqrt())


def r_squared(said: Tensor, true: Tensor) -> Tensor:
    """1 - squared error over variance, of each column of (n, d): float64 (d,). Below 0 for what says less than the mean.

    >>> r_squared(torch.tensor([[1.0, 1.0], [3.0, 1.0]]), torch.tensor([[1.0, 0.0], [3.0, 2.0]]))
    tensor([1., 0.], dtype=torch.float64)
    """
    said, true = said.double(), true.double()
    return 1 - (said - true).square().sum(0) / (true - true.mean(0)).square().sum(0)


# --- colour ---------------------------------------------------------------------------------------------------------------


def colour_names(channels: int) -> tuple[str, ...]:
    """In the order of `colours_of`: of pictures that are not red, green and blue, brightness alone."""
    return tuple(f"{part}_{colour}" for part in ("whole", "centre") for colour in COLOURS[: 3 if channels == 3 else 1])


def colours_of(x: Tensor) -> Tensor:
    """float64 (n, 6) of pictures (n, 3, h, w) in [-1, 1], what lies outside clipped; (n, 2) of other pictures. See the module's head.

    >>> red = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None].expand(1, 3, 4, 4)
    >>> colours_of(red)[0, :3]  # a third as bright as white, all warmth, all saturated
    tensor([0.3333, 1.0000, 1.0000], dtype=torch.float64)
    """
    top, left = x.shape[2] // 4, x.shape[3] // 4
    centre = x[:, :, top : x.shape[2] - top, left : x.shape[3] - left]
    return torch.cat([_colours(part) for part in (x, centre)], 1)


def _colours(x: Tensor) -> Tensor:
    x = (x.detach().cpu().double().clamp(-1, 1) + 1) / 2
    brightness = x.mean((1, 2, 3))
    if x.shape[1] != 3:
        return brightness[:, None]
    warmth = (x[:, 0] - x[:, 2]).mean((1, 2))
    largest = x.amax(1)
    saturation = (largest - x.amin(1)).sum((1, 2)) / largest.sum((1, 2)).clamp(min=1e-12)
    return torch.stack([brightness, warmth, saturation], 1)
