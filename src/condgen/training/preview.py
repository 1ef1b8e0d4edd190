"""A grid of samples at conditions that stay the same over a run, or of translations of the same pictures, by the averaged weights."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condgen.conditions import Label, Values, say
from condgen.data.store import Dataset
from condgen.model import Translates, domain_of
from condgen.training.health import log_sameness
from condgen.training.state import State
from condgen.training.turns import out_of_memory

log = logging.getLogger("condgen")
COLUMNS = 8


def preview(state: State, data: Dataset, file: Path) -> None:
    """Draw the grid to `file` (PNG); a warning is logged if one condition's samples are nearly the same."""
    model = state.model
    if state.ema:
        state.ema.swap()
    try:
        x = translations(model, data) if isinstance(model, Translates) else samples(state, data)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        log.warning("no samples were drawn at step %d: out of memory; the training goes on", state.step)
        return
    finally:
        if state.ema:
            state.ema.swap()
    if x.dim() == 4:
        from condgen.evaluation.grids import save_png

        save_png(x, file, columns=COLUMNS)


def samples(state: State, data: Dataset) -> Tensor:
    """Samples (n, *shape), and a warning where those of one condition are nearly the same."""
    values, groups = asked(state, data)
    x = state.model.sample(values, n=len(groups), seed=0)  # type: ignore[operator]
    log_sameness(x, data.batch(torch.arange(min(256, len(data)))).x, groups)
    return x


@torch.no_grad()
def translations(model: Any, data: Dataset) -> Tensor:
    """Three rows of pictures for each domain that the data hold, (3 * COLUMNS a domain, *shape).

    They are the data's first ones, translated to the next domain, and translated back.
    """
    name, label = domain_of(model)
    domain, rows = torch.as_tensor(data.content.columns[name]), []
    model.eval()
    for value in domain.unique().tolist():
        x = data.batch(torch.nonzero(domain == value)[:COLUMNS, 0]).x.to(model.device)
        x = x[torch.arange(COLUMNS, device=x.device) % len(x)]
        here, there = ({name: torch.full((COLUMNS,), v, device=x.device)} for v in (value, (value + 1) % len(label.names)))
        moved = model.translate(x, there)
        rows += [x, moved, model.translate(moved, here)]
    model.train()
    return torch.cat(rows)


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
