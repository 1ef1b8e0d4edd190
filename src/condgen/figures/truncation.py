"""What truncation does: w' = mean + psi (w - mean), from each sample to the mean face and past it.

Karras, Laine & Aila 2019, arXiv 1812.04948, figure 8: opposites in psi differ in what one would call opposite.
"""

from pathlib import Path

import torch

from condgen.errors import require_whole
from condgen.figures.canvas import Tiles, colours, draw_tiles
from condgen.figures.styles import latents, styled
from condgen.figures.subject import Words

PSI = (1.0, 0.7, 0.5, 0.0, -0.5, -1.0)


@torch.no_grad()
def draw(out: Path, run: str, asked: Words = (), rows: int = 6, seed: int = 0) -> Path:
    """A row a latent, a column a psi. At 0 all rows are one picture; of a model that reads conditions, one for each of these.

    Args:
        out: a PNG.
        run: of a model with styles.
        asked: what all samples are asked for; the rest comes from training rows.
        rows: how many latents.
        seed: of latents and of what is left open.

    Raises:
        BadInput: for a model without styles.
    """
    require_whole("--rows", rows, 1, 64)
    require_whole("--seed", seed, 0)
    model = styled(run, "truncation", 1.0)
    w, c = latents(model, asked, rows, seed)
    x = torch.stack([model.synthesis(model.truncate(w, c, psi)).clamp(-1, 1) for psi in PSI], 1).cpu()
    shaded = colours(x.flatten(0, 1))
    cells = shaded.reshape(rows, len(PSI), *shaded.shape[1:])
    columns = [f"psi {psi:g}" for psi in PSI]
    return draw_tiles(Tiles(cells, f"{Path(run).name}: w drawn to its mean, and to the other side of it", (), columns), out)
