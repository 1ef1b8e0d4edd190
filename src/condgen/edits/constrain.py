"""Changed until what is asked for holds: a condition, a rule such as the amount of ink, or a function of the person's own.

Engel, Hoffman & Roberts 2017, arXiv 1711.05772. What obeys already comes back as it was given. A rule is descended through the decoder,
or through a critic of latents where it has no gradient. A condition is left to the model's own `edit`, where it has that; to its decoder,
where it reads that condition; else to critics that learn from encodings of the run's training data.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condgen.conditions import Attributes, Schema, Values, parse
from condgen.constraints import All, Constraint, holds
from condgen.constraints import parse as parse_rule
from condgen.data.store import Batch
from condgen.drawing import read_words
from condgen.editing.constraints import LatentCritic, attribute_critic, constrain, edit, latent_critic, realism_critic
from condgen.editing.space import require
from condgen.edits.sheet import Sheet
from condgen.edits.subject import Subject, mixed
from condgen.errors import BadInput, require_range, require_whole, unknown
from condgen.model import capabilities

log = logging.getLogger("condgen")
BOUND = re.compile(r"[<>]=")
"""In a rule. Conditions have a plain "="."""
FRAMES = 36
"""Of a film, from what the model sees to what it was changed to."""


@dataclass(frozen=True)
class Moved:
    """Samples after the search (n, *shape), their latents and conditions, what held before it and what holds after it, bool (n,)."""

    x: Tensor
    z: Tensor
    c: Values
    before: Tensor
    after: Tensor


def draw(
    subject: Subject,
    wants: Sequence[str] = (),
    reward: str | None = None,
    steps: int = 300,
    distance: float = 0.0,
    realism: float = 0.1,
    rows: int = 4000,
) -> Sheet:
    """Each sample, as the model sees it, and changed.

    Args:
        subject: samples.
        wants: rules ("ink>=0.3"), or conditions of the model or of its data (NAME=VALUE); several must all hold.
        reward: "FILE.py:FUNCTION", which is run: samples (b, *shape) -> (b,) numbers or truths; "FILE.py:FUNCTION>=2" says from where on.
        steps: most steps of the search.
        distance: weight of staying near the latent that it starts at, of rules.
        realism: weight of staying where encodings of training data lie; 0 for none, as where there is no encoder.
        rows: training samples that critics learn from.

    Raises:
        BadInput: for what cannot be read, a condition that neither model nor data know, or a model without what the search needs.
    """
    require_whole("--steps", steps, 1, 100_000)
    require_whole("--rows", rows, 20)
    require_range(0, 1e6, **{"--distance": distance, "--realism": realism})
    rules, words = [w for w in wants if BOUND.search(w)], [w for w in wants if not BOUND.search(w)]
    if not wants and not reward:
        raise BadInput("nothing is wanted: give --want NAME=VALUE, --want 'ink>=0.3', or --reward FILE.py:FUNCTION")
    if words and (rules or reward):
        raise BadInput(f"--want {words[0]} is a condition and {[*rules, reward][0]} a rule: ask for one kind at a time")
    moved = _condition(subject, words, steps, realism, rows) if words else _rule(subject, rules, reward, steps, distance, realism, rows)
    return _sheet(subject, moved, ", ".join([*wants, *([Path(reward).name] if reward else [])]))


# --- rules ----------------------------------------------------------------------------------------------------------------


def _rule(subject: Subject, rules: Sequence[str], reward: str | None, steps: int, distance: float, realism: float, rows: int) -> Moved:
    constraint = _constraint(rules, reward)
    before = holds(constraint, subject.x)
    todo = (~before).nonzero()[:, 0]
    x, z, after = subject.x.clone(), subject.z.clone(), before.clone()
    if len(todo):
        batch = _training_rows(subject, rows) if subject.encodes and subject.has_data else None
        near = _realism(subject, batch) if batch and realism else None
        critic = None if _has_gradient(constraint, subject.x) else _critic(subject, constraint, batch, rows)
        descent = constrain(
            subject.model, z[todo], subject.conditions(todo.tolist()), constraint, steps, 0.03, critic, near, realism, distance
        )
        *_, end = descent
        x[todo], z[todo] = subject.decode(end.z, subject.conditions(todo.tolist())), end.z
        after[todo] = holds(constraint, x[todo])
    return Moved(x, z, subject.c, before, after)


def _constraint(rules: Sequence[str], reward: str | None) -> Constraint:
    parts = [parse_rule(rule) for rule in rules]
    if reward:
        if ".py:" not in reward:
            raise BadInput(f"--reward {reward!r} names no function; write FILE.py:FUNCTION")
        parts.append(parse_rule(reward, files=True))
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _has_gradient(constraint: Constraint, x: Tensor) -> bool:
    with torch.enable_grad():
        try:
            return bool(constraint.energy(x[:1].clone().requires_grad_()).requires_grad)
        except (RuntimeError, TypeError):  # what leaves torch, such as x.numpy(), refuses tensors that ask for a gradient
            return False


def _training_rows(subject: Subject, rows: int) -> Batch:
    data = subject.data()
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(subject.manner.seed))[:rows]
    return data.batch(chosen)


def _read_by(subject: Subject, batch: Batch) -> Values:
    return {k: batch.c[k] for k in subject.model.schema}


def _realism(subject: Subject, batch: Batch) -> LatentCritic:
    return realism_critic(subject.model, batch.x, _read_by(subject, batch), seed=subject.manner.seed)


def _critic(subject: Subject, constraint: Constraint, batch: Batch | None, rows: int) -> LatentCritic:
    """For a rule without gradient: it learns from draws of the prior, or of a model without one, from encodings of training data."""
    seed = subject.manner.seed
    if batch is not None and "sample" not in capabilities(subject.model):
        critic = latent_critic(subject.model, constraint, x=batch.x, c=_read_by(subject, batch), seed=seed)
    else:
        critic = latent_critic(subject.model, constraint, rows, seed=seed)
    log.info("what is wanted has no gradient: a critic of latents learns it, right for %.1f %% of held-out ones", 100 * critic.accuracy)
    return critic


# --- conditions -----------------------------------------------------------------------------------------------------------


def _condition(subject: Subject, words: Sequence[str], steps: int, realism: float, rows: int) -> Moved:
    model = subject.model
    known: Schema = {**(subject.data().schema if subject.has_data else {}), **model.schema}
    asked = read_words(words, known)
    if not all(_where(name, model.schema) for name in asked):
        return _by_critics(subject, _values(asked, known), known, steps, realism, rows)
    c = _asked_of(subject, asked)
    return _by_itself(subject, c) if "edit" in capabilities(model) else _redrawn(subject, c)


def _where(name: str, schema: Schema) -> str | None:
    """The condition of this name, or the one that has an attribute of this name."""
    return name if name in schema else next((k for k, c in schema.items() if isinstance(c, Attributes) and name in c.names), None)


def _values(asked: Mapping[str, str], schema: Schema) -> Values:
    """One value of each condition that is asked, NaN for attributes that are left open. Raises BadInput naming the nearest name."""
    words: dict[str, Any] = {}
    for name, word in asked.items():
        place = _where(name, schema)
        if place is None:
            attributes = [a for c in schema.values() if isinstance(c, Attributes) for a in c.names]
            raise unknown("condition", name, [*schema, *attributes])
        words[place] = word if place == name else {**words.get(place, {}), name: word}
    return {place: parse(schema[place], word) for place, word in words.items()}


def _asked_of(subject: Subject, asked: Mapping[str, str]) -> Values:
    """The samples' own conditions, changed as asked."""
    rows = [subject.model.completed({**{k: v[0] for k, v in subject.conditions(i).items()}, **asked}, 1, 0) for i in range(len(subject))]
    return {k: torch.cat([row[k] for row in rows]) for k in subject.model.schema}


def _redrawn(subject: Subject, c: Values) -> Moved:
    """By a decoder that reads the condition: the same latents under another."""
    same = torch.stack([(c[k] == v).reshape(len(v), -1).all(1) for k, v in subject.c.items()]).all(0)
    x = torch.where(_down(same, subject.x), subject.x, subject.decode(subject.z, c))
    return Moved(x, subject.z, c, same, torch.ones_like(same))


def _by_itself(subject: Subject, c: Values) -> Moved:
    """By the model's own edit, which tells samples alone: their latents are encoded anew."""
    model: Any = subject.model
    x, changed = model.edit(subject.x.to(model.device), {k: v.to(model.device) for k, v in c.items()})
    x, changed = x.cpu().float(), changed.cpu()
    z = torch.where(_down(changed, subject.z), subject.latents(x, c), subject.z)
    after = model.shows(x.to(model.device), {k: v.to(model.device) for k, v in c.items()}).cpu()
    return Moved(x, z, c, ~changed, after | ~changed)


def _by_critics(subject: Subject, wanted: Values, known: Schema, steps: int, realism: float, rows: int) -> Moved:
    """By critics of latents that learn the condition from encodings of training data."""
    require(subject.model, "encode")
    batch, schema = _training_rows(subject, rows), {k: known[k] for k in wanted}
    read = _read_by(subject, batch)
    namer = attribute_critic(subject.model, batch.x, {k: batch.c[k] for k in schema}, schema, read, seed=subject.manner.seed)
    log.info("%s: a critic of latents learns it, right for %.1f %% of held-out ones", ", ".join(schema), 100 * namer.accuracy)
    asked = {k: v.expand(len(subject), *v.shape).clone() for k, v in wanted.items()}
    near = _realism(subject, batch) if realism else None
    done = edit(subject.model, subject.x, asked, namer, near, subject.c, steps, weight=realism)
    return Moved(done.x, done.z, subject.c, ~done.changed, done.reached)


def _down(rows: Tensor, like: Tensor) -> Tensor:
    """bool (n,) in the dimensions of (n, ...)."""
    return rows.view(-1, *[1] * (like.dim() - 1))


# --- the picture ----------------------------------------------------------------------------------------------------------


def _sheet(subject: Subject, moved: Moved, what: str) -> Sheet:
    own = subject.decode(subject.z, subject.c)
    words = ["held already" if b else "holds" if a else "not reached" for b, a in zip(moved.before, moved.after, strict=True)]
    return Sheet(
        x=moved.x,
        z=moved.z,
        c=moved.c,
        cells=torch.stack([subject.x, own, moved.x], 1),
        frames=_film(subject, moved) if subject.manner.film else moved.x[None],
        title=f"{subject.name}: {what}",
        said="\n".join(f"{name}: {word}" for name, word in zip(subject.names, words, strict=True)),
        rows=[f"{name}\n{word}" for name, word in zip(subject.names, words, strict=True)],
        columns=["given", "as the\nmodel sees it", "changed"],
        apart_columns=frozenset({1}),
        told={"held_before": moved.before.tolist(), "holds": moved.after.tolist()},
    )


def _film(subject: Subject, moved: Moved) -> Tensor:
    """From what the model sees to what it was changed to, latents and conditions in even steps: (FRAMES, n, *shape)."""
    frames = []
    for t in torch.linspace(0, 1, FRAMES).tolist():
        weights = torch.tensor([[1 - t, t]])
        pairs = [{k: torch.stack([subject.c[k][i], moved.c[k][i]]) for k in subject.model.schema} for i in range(len(subject))]
        rows = [mixed(subject.model.schema, pair, weights) for pair in pairs]
        c = {k: torch.cat([row[k] for row in rows]) for k in subject.model.schema}
        frames.append(subject.decode((1 - t) * subject.z + t * moved.z, c))
    return torch.stack(frames)
