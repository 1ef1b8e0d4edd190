"""Edits that keep the identity: originals down, what is asked across, black where it holds already. Engel et al. 2017, figure 5.

A model with `edit` edits by itself; any other with an encoder and a decoder is edited by critics that are trained on its encodings of
labelled training samples (`editing.constraints`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condgen import api
from condgen.conditions import Attributes, Label, Schema, Values
from condgen.data.store import Dataset
from condgen.editing.constraints import attribute_critic, edit, realism_critic
from condgen.editing.space import Space, require
from condgen.errors import BadInput, require_whole
from condgen.figures.canvas import Tiles, colours, draw_tiles
from condgen.figures.named import READABLE
from condgen.figures.subject import known, preferred, run_of
from condgen.model import Model, capabilities

MOST_CLASSES, MOST_ATTRIBUTES = 12, 8
LEARNT_FROM = 10_000
"""Training samples that critics see, where the model has none of its own."""
Editor = Callable[[Tensor, Values], tuple[Tensor, Tensor]]
"""(samples (b, *shape), conditions) -> (edited, whether each was changed)."""


def draw(out: Path, run: str, attributes: Sequence[str] = (), n: int = 6, seed: int = 0) -> Path:
    """A row a test picture: itself, its reconstruction, and its edit to each class, or to have each attribute.

    Args:
        out: a PNG.
        run: of a model with `edit`, or with `encode` and `decode`; its data must still be there.
        attributes: which, by default up to eight that a reader can see; for a model of labels there is nothing to choose.
        n: pictures.
        seed: of their choice.

    Raises:
        BadInput: for a model without encoder, or data without labels and attributes.
    """
    require_whole("-n", n, 1, 32)
    require_whole("--seed", seed, 0)
    model = api.load(run)
    require(model, "encode", "decode")
    if len(model.shape) != 3:
        raise BadInput(f"{run} is of points of shape {tuple(model.shape)}; this figure is made of pictures")
    told = run_of(model, run)
    test = api.dataset(told, "test")
    schema = model.schema if "edit" in capabilities(model) else test.schema
    name = nameable(schema, run)
    batch = test.batch(torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))[:n])
    columns, asked = targets(schema, name, attributes, n)  # before critics are trained: what cannot be asked is refused at once
    editor = by_model(model) if "edit" in capabilities(model) else by_critics(model, name, api.dataset(told))
    x, black = batch.x, -torch.ones(())
    back = Space(model).reconstruct(x, {k: batch.c[k] for k in model.schema if k in batch.c})
    c = {k: v.repeat(len(asked), *[1] * (v.dim() - 1)) for k, v in batch.c.items() if k in {*model.schema, name}}
    edited, changed = editor(x.repeat(len(asked), 1, 1, 1), c | {name: torch.cat(asked)})
    shown = [x, back, *torch.where(changed[:, None, None, None], edited, black).chunk(len(asked))]
    cells = colours(torch.stack(shown, 1).flatten(0, 1))
    title = f"{Path(run).name}: test pictures, edited until {name} is as asked; black where it was so before"
    shaped = cells.reshape(len(x), len(shown), *cells.shape[1:])
    return draw_tiles(Tiles(shaped, title, columns=["picture", "reconstr.", *columns], apart_columns=frozenset({2})), out)


def targets(schema: Schema, name: str, attributes: Sequence[str], n: int) -> tuple[list[str], list[Tensor]]:
    """Titles of the columns, and what each asks of n pictures."""
    condition = schema[name]
    if isinstance(condition, Label):
        if attributes:
            raise BadInput(f"{name} is a label: the figure asks for each of {', '.join(condition.names[:MOST_CLASSES])}")
        names = list(condition.names[:MOST_CLASSES])
        return names, [torch.full((n,), k) for k in range(len(names))]
    assert isinstance(condition, Attributes)
    chosen = known(attributes, condition.names) or preferred(condition.names, READABLE, MOST_ATTRIBUTES)
    asked = []
    for attribute in chosen:
        k, value = condition.names.index(attribute), torch.full((n, len(condition.names)), float("nan"))
        value[:, k] = condition.high[k]
        asked.append(value)
    return [a.replace("_", "\n") for a in chosen], asked


def nameable(schema: Schema, run: str) -> str:
    """The first label or attributes of a schema."""
    for name, condition in schema.items():
        if isinstance(condition, Label | Attributes):
            return name
    raise BadInput(f"{run}: there are no labels and no attributes that a picture could be edited to")


def by_model(model: Any) -> Editor:
    """The model's own edits."""

    def editor(x: Tensor, c: Values) -> tuple[Tensor, Tensor]:
        edited, changed = model.edit(x.to(model.device), {k: v.to(model.device) for k, v in c.items()})
        return edited.cpu(), changed.cpu()

    return editor


def by_critics(model: Model, name: str, train: Dataset) -> Editor:
    """Edits by critics on the model's latents, trained here."""
    rows = train.batch(torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:LEARNT_FROM])
    read = {k: rows.c[k] for k in model.schema}
    attributes = attribute_critic(model, rows.x, rows.c, {name: train.schema[name]}, read)
    realism = realism_critic(model, rows.x, read)

    def editor(x: Tensor, c: Values) -> tuple[Tensor, Tensor]:
        found = edit(model, x, {name: c[name]}, attributes, realism, {k: c[k] for k in model.schema})
        return found.x, found.changed

    return editor
