"""Style mixing of samples: each keeps its layers, but for coarse, middle or fine ones that another gives.

Karras, Laine & Aila 2019, arXiv 1812.04948, figure 3. `condgen edit RUN mix` does it to a person's own pictures.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condgen.conditions import Values
from condgen.editing.space import Space
from condgen.editing.views import bands, crossed, lifted, require_styles, told, truncate_by, view
from condgen.errors import BadInput, require_whole
from condgen.figures.canvas import Tiles, colours, draw_tiles
from condgen.figures.subject import Words, in_words, painter


def draw(out: Path, run: str, asked: Words = (), rows: int = 3, columns: int = 5, psi: float | None = None, seed: int = 0) -> Path:
    """Sources down, styles across, and a block of rows for each band of layers that the styles give.

    Args:
        out: a PNG.
        run: of a model with styles.
        asked: what all samples are asked for; the rest comes from training rows.
        rows: sources.
        columns: styles.
        psi: truncation of both; by default the model's, which is none unless it was set.
        seed: of latents and of what is left open.

    Raises:
        BadInput: for a model without styles, or with a single layer.
    """
    for name, value in (("--rows", rows), ("--columns", columns)):
        require_whole(name, value, 1, 16)
    require_whole("--seed", seed, 0)
    model = styled(run, "styles", psi)
    blocks = bands(model.layer_sides)
    if len(blocks) < 2:
        raise BadInput(f"{run} has layers of one size alone: there are no coarse and fine ones to be mixed")
    w, _ = latents(model, asked, rows + columns, seed)
    door = Space(view(model, "w+"))
    given = lifted(model, w, {}, "w", "w+").cpu()
    z = torch.stack([crossed(given[:rows], given[rows:], layers) for layers in blocks.values()])  # (k, rows, columns, layers, d)
    ends, shown = _decoded(door, given), _decoded(door, z.flatten(0, 2)).reshape(*z.shape[:3], *model.shape)
    cells = framed(ends[:rows], ends[rows:], shown)
    names = ["", *(_named(band, layers) if not i else "" for band, layers in blocks.items() for i in range(rows))]
    apart = frozenset(range(1, len(names), rows))
    title = f"{Path(run).name}: left the sources, above the styles;\neach cell is its source, with the named layers of its style"
    shaded = colours(cells.flatten(0, 1))
    shaped = shaded.reshape(*cells.shape[:2], *shaded.shape[1:])
    return draw_tiles(Tiles(shaped, title, names, apart_rows=apart, apart_columns=frozenset({1})), out)


def _named(band: str, layers: list[int]) -> str:
    return f"{band}\n{told(layers)}"


def framed(sources: Tensor, styles: Tensor, shown: Tensor) -> Tensor:
    """Mixed (k, s, t, *shape) in k blocks of rows, sources (s, *shape) left of each, styles (t, *shape) above: (1 + k s, 1 + t, *shape)."""
    left = sources.repeat(len(shown), *[1] * (sources.dim() - 1))[:, None]
    above = torch.cat([torch.ones_like(styles[:1]), styles])[None]
    return torch.cat([above, torch.cat([left, shown.flatten(0, 1)], 1)])


def _decoded(door: Space, w: Tensor) -> Tensor:
    """Of w+, which no condition is read for."""
    model: Any = door.model
    return door.decode(w, {k: v[:1] for k, v in model.rows.items()})


# --- what the figures of styles share ---------------------------------------------------------------------------------------


def styled(run: str, figure: str, psi: float | None = None) -> Any:
    """The trained model behind a name, truncated where that is asked. Raises BadInput for one without styles."""
    model = painter(run)
    require_styles(model, f"the figure {figure}")
    if psi is not None:
        truncate_by(model, psi)
    return model


@torch.no_grad()
def latents(model: Any, asked: Words, n: int, seed: int) -> tuple[Tensor, Values]:
    """w (n, d) of the samples that `model.sample(asked, n, seed)` draws, truncated as the model is, and their conditions."""
    c = {k: v.to(model.device) for k, v in model.completed(in_words(model, asked), n, seed).items()}
    model.noise.seed(seed)
    return lifted(model, model.z_prior(n), c, "z", "w"), c
