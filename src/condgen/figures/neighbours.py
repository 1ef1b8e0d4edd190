"""Each sample beside its nearest training picture: what a model remembers, and what it draws."""

from pathlib import Path

import torch

from condgen.errors import require_whole
from condgen.evaluation.memorisation import nearest
from condgen.figures.canvas import Tiles, colours, draw_tiles
from condgen.figures.subject import painter, pictures_of, run_of

PAIRS = 4
"""Of pictures a row."""
TEST_ROWS = 200
"""Of test pictures, whose distance from the training pictures is the unit."""


def draw(out: Path, run: str, n: int = 16, seed: int = 0) -> Path:
    """Pairs of a sample and its nearest training picture (L2, pixels), with the ratio of distances above.

    The ratio is the sample's distance over the median distance of 200 test pictures from their nearest training pictures:
    about 1 for a model as far from its training data as new pictures are, near 0 for one that copies.

    Args:
        out: a PNG.
        run: whose data are still there, with a test split.
        n: pairs.
        seed: of the samples.

    Raises:
        BadInput: where the data are gone.
    """
    require_whole("-n", n, 1, 128)
    require_whole("--seed", seed, 0)
    model = painter(run)
    told = run_of(model, run)
    train, test = pictures_of(model, told), pictures_of(model, told, "test")
    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))[:TEST_ROWS]
    x = model.sample(None, n=n, seed=seed).cpu()
    distance, row = nearest(torch.cat([x, test.batch(chosen).x]), train)
    unit = distance[n:].median().clamp_min(1e-12)
    ratios = (distance[:n] / unit).tolist()
    spare = -n % PAIRS if n > PAIRS else 0
    pairs = torch.stack([x, train.batch(row[:n]).x], 1).flatten(0, 1)
    pairs = torch.cat([pairs, torch.ones(2 * spare, *x.shape[1:])])  # white
    cells = colours(pairs)
    columns = 2 * min(n, PAIRS)
    over = {(2 * i // columns, 2 * i % columns): f"ratio {r:.2f}" for i, r in enumerate(ratios)}
    title = f"{Path(run).name}: samples (left), nearest training pictures (right)\nratio: distance over the median of test pictures"
    apart = frozenset(range(2, columns, 2))
    return draw_tiles(Tiles(cells.reshape(-1, columns, *cells.shape[1:]), title, over=over, apart_columns=apart), out)
