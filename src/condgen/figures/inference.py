"""What an encoder and its decoder make of each other, in one picture: of points six panels, of pictures rows.

The panels are those of figure 7 of lecture 001 (Dumoulin et al. 2016, arXiv 1606.00704): above, data, their reconstructions, samples, and
samples of another model; below, encodings of the data and the prior. Colours are modes: a point and what is made of it have the colour
of the mode that the point belongs to, a sample and its latent that of the mode which the sample fell to.

The rows are test pictures over their reconstructions, samples, and the straight lines between the codes of two test pictures, decoded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from condgen import api
from condgen.conditions import Values
from condgen.data.store import Batch
from condgen.editing.space import Space, require
from condgen.errors import BadInput, require_whole
from condgen.evaluation.modes import centres_of, nearest_mode
from condgen.figures.canvas import Tiles, colours, draw_tiles, plain, write
from condgen.figures.subject import pictures_of, run_of

POINTS, PICTURES = 5000, 10
"""How many by default."""
PANEL = 3.4
"""Inches."""
MARGIN = 1.0
"""Of the plane that is shown around the modes."""


def draw(out: Path, *runs: str, n: int | None = None, rows: int = 4, seed: int = 0) -> Path:
    """Six panels of points, or rows of pictures.

    Args:
        out: a PNG.
        runs: a model with encode, decode and sample; and perhaps one more that samples the same data, such as a GAN.
        n: points in a panel, by default 5,000, or pictures in a row, by default 10.
        rows: pairs of pictures whose codes are joined, at most n / 2.
        seed: of the samples and the choice of test rows.

    Raises:
        BadInput: where a model lacks one of these, the data are gone, or the data are points whose modes are not known.
    """
    for name, value, least in (("-n", n, 3), ("--rows", rows, 1), ("--seed", seed, 0)):
        if value is not None:
            require_whole(name, value, least)
    model, others = api.load(runs[0]), [(Path(run).name, _sampler(run)) for run in runs[1:]]
    require(model, "encode", "decode", "sample")
    test = pictures_of(model, run_of(model, runs[0]), "test")
    for name, other in others:
        if other.shape != model.shape:
            raise BadInput(f"{name} draws samples of shape {other.shape}, {runs[0]} of {model.shape}: they cannot stand side by side")
    name, points = Path(runs[0]).name, len(model.shape) == 1
    centres = centres_of(test) if points else None
    n = n or min(POINTS if points else PICTURES, len(test))
    drawn, beside = Drawn.of(model, test, n, seed), _drawn(others, n, seed)
    return _rows(out, name, drawn, rows, beside) if centres is None else _panels(out, name, drawn, centres, beside)


def _sampler(run: str) -> Any:
    model = api.load(run)
    require(model, "sample")
    return model


def _drawn(others: Sequence[tuple[str, Any]], n: int, seed: int) -> dict[str, Tensor]:
    return {name: other.sample(None, n=n, seed=seed).cpu() for name, other in others}


class Drawn(NamedTuple):
    """n of everything, on the CPU: test rows, their codes and reconstructions; latents of the prior and the samples made of them."""

    model: Any
    data: Batch
    codes: Tensor
    back: Tensor
    latents: Tensor
    samples: Tensor

    @classmethod
    def of(cls, model: Any, test: Any, n: int, seed: int) -> "Drawn":
        """Raises BadInput for fewer test rows than n."""
        if len(test) < n:
            raise BadInput(f"-n is {n}; the test split has {len(test)} rows")
        data, space = test.batch(torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))[:n]), Space(model)
        codes = space.encode(data.x, data.c)
        model.noise.seed(seed)
        with torch.no_grad():
            latents = model.prior(n, {k: data.c[k].to(model.device) for k in model.schema}).float().cpu()
        return cls(model, data, codes, space.decode(codes, data.c), latents, space.decode(latents, data.c))


# --- points ---------------------------------------------------------------------------------------------------------------


def _panels(out: Path, name: str, drawn: Drawn, centres: Tensor, others: dict[str, Tensor]) -> Path:
    own, fell = nearest_mode(drawn.data.x, centres)[0], nearest_mode(drawn.samples, centres)[0]
    above = [("data", drawn.data.x, own), (f"{name}: reconstructions", drawn.back, own), (f"{name}: samples", drawn.samples, fell)]
    above += [(f"{other}: samples", x, nearest_mode(x, centres)[0]) for other, x in others.items()]
    below = latent_panels(drawn.codes, drawn.latents, own, fell)
    palette = torch.from_numpy(mode_colours(len(centres)))
    with plain(PANEL * len(above), 2 * PANEL, layout="constrained") as figure:
        axes = figure.subplots(2, len(above))
        for axis, (title, x, mode) in zip(axes[0], above, strict=True):
            _scatter(axis, title, x, palette[mode].numpy(), _around(centres))
        reach = float(below[1][1].abs().max())  # all of the prior: a code that lies outside should be seen to
        for axis, (title, z, mode) in zip(axes[1], below, strict=False):
            _scatter(axis, title, z, palette[mode].numpy(), (-1.05 * reach, 1.05 * reach))
        for axis in axes[1][len(below) :]:
            axis.axis("off")
        return write(figure, out)


def latent_panels(codes: Tensor, latents: Tensor, own: Tensor, fell: Tensor) -> list[tuple[str, Tensor, Tensor]]:
    """Title, points (n, 2) and modes of the two lower panels; of more dimensions than two, the first principal axes of the codes."""
    z, prior = (torch.nn.functional.pad(v.flatten(1), (0, max(0, 2 - v[0].numel()))) for v in (codes, latents))
    if z.shape[1] == 2:
        return [("encodings", z, own), ("prior", prior, fell)]
    mean, along = z.mean(0), f"first 2 axes of {z.shape[1]}"
    axes = torch.linalg.svd(z - mean, full_matrices=False)[2][:2]
    return [(f"encodings, {along}", (z - mean) @ axes.T, own), (f"prior, {along}", (prior - mean) @ axes.T, fell)]


def mode_colours(k: int) -> np.ndarray:
    """RGB (k, 3) in [0, 1]: hues around the circle, three shades of each run of neighbours, so that no two modes are alike."""
    from matplotlib.colors import hsv_to_rgb

    i = np.arange(k)
    shades = np.array([[0.95, 0.85], [0.55, 0.95], [0.9, 0.5]])[i % 3]
    return hsv_to_rgb(np.column_stack([i / k, shades]))


def _around(centres: Tensor) -> tuple[float, float]:
    return float(centres.min()) - MARGIN, float(centres.max()) + MARGIN


def _scatter(axis: Any, title: str, x: Tensor, colour: np.ndarray, limits: tuple[float, float]) -> None:
    axis.scatter(*x.numpy().T, s=3, c=colour, linewidths=0)
    outside = int(((x < limits[0]) | (x > limits[1])).any(1).sum())
    axis.set(title=title + (f" ({outside} outside)" if outside else ""), xlim=limits, ylim=limits, aspect="equal")


# --- pictures -------------------------------------------------------------------------------------------------------------


def _rows(out: Path, name: str, drawn: Drawn, pairs: int, others: dict[str, Tensor]) -> Path:
    n = len(drawn.data.x)
    shown = {"test pictures": drawn.data.x, "reconstructions": drawn.back, "samples": drawn.samples}
    shown |= {f"{other}:\nsamples": x for other, x in others.items()}
    plain_rows = len(shown)
    shown |= {f"between\ncodes {i + 1}": between(drawn, 2 * i, 2 * i + 1, n) for i in range(min(pairs, n // 2))}
    cells = np.stack([colours(x) for x in shown.values()])
    title = f"{name}: reconstructions, samples, and lines between two codes\nbetween: first and last are test pictures, the rest is decoded"
    return draw_tiles(Tiles(cells, title, list(shown), apart_rows=frozenset({2, plain_rows})), out)


def between(drawn: Drawn, i: int, j: int, n: int) -> Tensor:
    """Two test pictures, and between them n - 2 pictures decoded from the straight line of their codes, whose ends are reconstructions.

    Conditions, where the model reads some, are those of the nearer end.
    """
    t = torch.linspace(0, 1, n - 2).reshape(-1, *[1] * (drawn.codes.dim() - 1))
    z = torch.lerp(drawn.codes[i], drawn.codes[j], t)
    ends = torch.where(t.flatten() < 0.5, i, j)
    c: Values = {k: drawn.data.c[k][ends] for k in drawn.model.schema}
    decoded = Space(drawn.model).decode(z, c)
    return torch.cat([drawn.data.x[i : i + 1], decoded, drawn.data.x[j : j + 1]])
