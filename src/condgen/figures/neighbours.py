"""Each sample beside its nearest training picture: what a model remembers, and what it draws."""

from pathlib import Path

import torch

from condgen.errors import require_whole
from condgen.evaluation.memorisation import MOST, beside_nearest, mirrors
from condgen.figures.canvas import Tiles, colours, draw_tiles
from condgen.figures.subject import painter, pictures_of, run_of

PAIRS = 4
"""Of pictures a row."""


def draw(out: Path, run: str, n: int = 16, seed: int = 0) -> Path:
    """Pairs of a sample and its nearest training picture (L2, pixels), with the ratio of distances above.

    The ratio is the sample's distance over the median distance of 1,000 test pictures from their nearest training pictures, as in
    the metric `memorisation_ratio`: about 1 for a model as far from its training data as new pictures are, near 0 for one that copies.

    Args:
        out: a PNG.
        run: whose data are still there, with a test split.
        n: pairs.
        seed: of the samples.

    Raises:
        BadInput: where the data are gone, or half of the test pictures are training pictures.
    """
    require_whole("-n", n, 1, 128)
    require_whole("--seed", seed, 0)
    model = painter(run)
    told = run_of(model, run)
    train, test = pictures_of(model, told), pictures_of(model, told, "test")
    x = model.sample(None, n=n, seed=seed).cpu()
    found = beside_nearest(x, train, test, mirrors(model))
    ratios = found.ratios.tolist()
    spare = -n % PAIRS if n > PAIRS else 0
    pairs = torch.stack([x, found.pictures], 1).flatten(0, 1)
    pairs = torch.cat([pairs, torch.ones(2 * spare, *x.shape[1:])])  # white
    cells = colours(pairs)
    columns = 2 * min(n, PAIRS)
    over = {(2 * i // columns, 2 * i % columns): f"ratio {r:.2f}" for i, r in enumerate(ratios)}
    title = f"{Path(run).name}: samples (left), nearest training pictures (right)\n"
    title += f"ratio: distance over the median of {min(MOST, len(test)):,} test pictures"
    apart = frozenset(range(2, columns, 2))
    return draw_tiles(Tiles(cells.reshape(-1, columns, *cells.shape[1:]), title, over=over, apart_columns=apart), out)
