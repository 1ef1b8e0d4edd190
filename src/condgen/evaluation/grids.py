"""Many pictures in one: grids of samples, one row a class, the same latents in every row."""

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgen.asking import complete
from condgen.conditions import Label, Values
from condgen.data.store import to_bytes
from condgen.errors import BadInput

LARGEST_PX = 8192
"""A grid keeps within this; more pictures than fit are refused rather than shrunk."""


def grid(x: Tensor, columns: int | None = None, gap_px: int = 1) -> np.ndarray:
    """Pictures float (n, c, h, w) in [-1, 1] as one uint8 (H, W, c), c being 1 or 3, row by row with white gaps.

    Args:
        x: the pictures; 2 channels or more than 3 are shown by the first or the first three.
        columns: pictures a row; about a square where not given.
        gap_px: between pictures.

    Raises:
        BadInput: for what is no picture, or more than fits.
    """
    if x.dim() != 4 or not len(x):
        raise BadInput(f"a grid is drawn of pictures (n, c, h, w), not of shape {tuple(x.shape)}")
    columns = max(1, min(columns or math.ceil(math.sqrt(len(x))), len(x)))
    rows, (h, w) = math.ceil(len(x) / columns), x.shape[2:]
    if max(rows * (h + gap_px), columns * (w + gap_px)) > LARGEST_PX:
        raise BadInput(f"a grid of {rows} x {columns} pictures of {h} x {w} px is larger than {LARGEST_PX} px: draw fewer")
    pictures = to_bytes(torch.nan_to_num(x[:, : 3 if x.shape[1] >= 3 else 1]))
    canvas = np.full((rows * (h + gap_px) - gap_px, columns * (w + gap_px) - gap_px, pictures.shape[3]), 255, dtype=np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * (h + gap_px), i % columns * (w + gap_px)
        canvas[top : top + h, left : left + w] = picture
    return canvas


def class_values(model: Any, columns: int = 10, label: str | None = None, most: int = 20) -> Values:
    """Conditions of a grid, one row a class (the first `most`): row-major, `columns` each; all else equal down a column.

    `label` is the condition that changes, by default the model's first; a model without labels gets rows of `model.rows`.
    """
    name = label or next((k for k, c in model.schema.items() if isinstance(c, Label)), None)
    if name is None:
        return complete(model.schema, {}, model.rows, columns * columns) if model.schema else {}
    rows = min(len(model.schema[name].names), most)
    across = {k: v[torch.arange(columns) % len(v)].repeat(rows, *(1,) * (v.dim() - 1)) for k, v in model.rows.items()}
    return complete(model.schema, {name: torch.arange(rows).repeat_interleave(columns)}, across, rows * columns)


@torch.no_grad()
def class_grid(model: Any, columns: int = 10, seed: int = 0, label: str | None = None, most: int = 20) -> Tensor:
    """Samples (rows * columns, *shape) on the CPU: a row a class, the same draw of z down a column.

    Where the prior itself depends on the conditions, the same noise is drawn for every row.
    """
    values = class_values(model, columns, label, most)
    n = len(next(iter(values.values()))) if values else columns * columns
    if not any(isinstance(c, Label) for c in model.schema.values()):
        return model.sample(values, n=n, seed=seed).cpu()
    rows = [{k: v[i : i + columns] for k, v in values.items()} for i in range(0, n, columns)]
    return torch.cat([model.sample(row, n=columns, seed=seed).cpu() for row in rows])


def png(picture: np.ndarray, scale: int = 1) -> bytes:
    """uint8 (H, W, 1 or 3) as a PNG, every pixel drawn scale x scale large."""
    from PIL import Image

    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    if scale > 1:
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def scale_for(side_px: int, wanted_px: int = 48) -> int:
    """How many times a small picture is enlarged to be seen."""
    return max(1, round(wanted_px / side_px))


def save_png(x: Tensor, file: str | Path, columns: int | None = None) -> None:
    """Pictures (n, c, h, w) in [-1, 1] as a grid in a PNG file, small ones enlarged; written whole or not at all."""
    content = png(grid(x, columns), scale_for(max(x.shape[2:])))
    file = Path(file)
    draft = file.with_name(f".{file.name}.part")
    draft.write_bytes(content)
    draft.replace(file)


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """Bytes as an address that needs no request."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
