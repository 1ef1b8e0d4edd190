"""Rows of one condition under noise, each ending in the training picture that is nearest to its first sample.

Gauthier 2014, "Conditional generative adversarial nets for convolutional face generation", figure of condition jitter.
"""

from pathlib import Path

import torch
from torch import Generator, Tensor

from condgen.asking import complete
from condgen.conditions import Attributes, Schema, Values, Vector
from condgen.errors import BadInput, require_whole
from condgen.evaluation.memorisation import nearest
from condgen.figures.canvas import Tiles, colours, draw_tiles
from condgen.figures.subject import Words, in_words, painter, pictures_of, run_of


def draw(out: Path, run: str, asked: Words = (), sd: float = 0.5, n: int = 8, rows: int = 6, seed: int = 0) -> Path:
    """A row a condition vector of the test data, n samples of one latent under that vector with noise.

    Args:
        out: a PNG.
        run: of a model that reads attributes or a vector.
        asked: what every row is asked for; the rest comes from the test data.
        sd: of the noise, in standard deviations of each entry over the training data. Labels stay.
        n: samples a row.
        rows: how many.
        seed: of latents, noise and the choice of rows.

    Raises:
        BadInput: where nothing that the model reads can be jittered, or the data are gone.
    """
    for name, value, most in (("-n", n, 64), ("--rows", rows, 64), ("--seed", seed, 2**63 - 1)):
        require_whole(name, value, 0 if name == "--seed" else 1, most)
    if not 0 <= sd < float("inf"):
        raise BadInput(f"--sd is {sd}; expected a number of at least 0")
    model = painter(run)
    if not any(isinstance(c, Attributes | Vector) for c in model.schema.values()):
        has = ", ".join(f"{k} ({type(c).__name__})" for k, c in model.schema.items()) or "no conditions"
        raise BadInput(f"noise is added to attributes and vectors; {run} reads {has}: try the figure `named`")
    told = run_of(model, run)
    test, train = pictures_of(model, told, "test"), pictures_of(model, told)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(test), generator=generator)[:rows]
    base = complete(model.schema, in_words(model, asked), test.values(chosen), len(chosen))
    # The same seed, so one latent runs along a row.
    drawn = [model.sample(jittered(model.schema, base, model.rows, sd, generator), n=len(chosen), seed=seed).cpu() for _ in range(n)]
    neighbour = train.batch(nearest(drawn[0], train)[1]).x
    title = f"{Path(run).name}: one latent a row, its condition under noise of {sd:g} standard deviations"
    cells = colours(torch.stack([*drawn, neighbour], 1).flatten(0, 1))
    columns = [*[""] * n, "training\npicture\nnearest to\nthe first"]
    names = [f"test row {int(i)}" for i in chosen]
    shaped = cells.reshape(len(chosen), n + 1, *cells.shape[1:])
    return draw_tiles(Tiles(shaped, title, names, columns, apart_columns=frozenset({n})), out)


def jittered(schema: Schema, base: Values, rows: Values, sd: float, generator: Generator) -> Values:
    """`base` with N(0, (sd * s)^2) added to every entry of attributes and vectors, s being its standard deviation over `rows`.

    Attributes stay within the range of the data.
    """
    return {k: _noisy(schema[k], v, rows[k], sd, generator) if isinstance(schema[k], Attributes | Vector) else v for k, v in base.items()}


def _noisy(condition: object, value: Tensor, rows: Tensor, sd: float, generator: Generator) -> Tensor:
    spread = rows.float().cpu().std(0, correction=0)
    moved = value + sd * spread * torch.randn(value.shape, generator=generator)
    if isinstance(condition, Attributes):
        moved = moved.clamp(moved.new_tensor(condition.low), moved.new_tensor(condition.high))
    return moved
