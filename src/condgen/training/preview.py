"""A grid of samples at conditions that stay the same over a run, drawn with the averaged weights."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from condgen.conditions import Label, Values, say
from condgen.data.store import Dataset
from condgen.training.health import log_sameness
from condgen.training.state import State
from condgen.training.turns import out_of_memory

log = logging.getLogger("condgen")
COLUMNS = 8


def preview(state: State, data: Dataset, file: Path) -> None:
    """Draw the grid to `file` (PNG); a warning is logged if one condition's samples are nearly the same."""
    values, groups = asked(state, data)
    if state.ema:
        state.ema.swap()
    try:
        x = state.model.sample(values, n=len(groups), seed=0)  # type: ignore[operator]
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        log.warning("no samples were drawn at step %d: out of memory; the training goes on", state.step)
        return
    finally:
        if state.ema:
            state.ema.swap()
    log_sameness(x, data.batch(torch.arange(min(256, len(data)))).x, groups)
    if x.dim() == 4:
        from condgen.evaluation.grids import save_png

        save_png(x, file, columns=COLUMNS)


def asked(state: State, data: Dataset) -> tuple[Values, list[str]]:
    """Conditions of the grid and a name for each row: the first label's names in turn, else rows of the data."""
    model = state.model
    name = next((k for k, c in model.schema.items() if isinstance(c, Label)), None)
    if not model.schema:
        return {}, ["no condition"] * 8 * COLUMNS
    if name is None:
        first = {k: v[:8].repeat_interleave(COLUMNS, 0) for k, v in model.rows.items()}
        key = next(iter(first))
        return first, [say(model.schema[key], v) for v in first[key]]
    names = model.schema[name].names[:16]  # type: ignore[attr-defined]
    label: Tensor = torch.arange(len(names)).repeat_interleave(COLUMNS)
    return {name: label}, [names[int(i)] for i in label]
