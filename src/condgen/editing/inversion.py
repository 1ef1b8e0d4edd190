"""Latents of pictures by descent, for generators that have no encoder (and as a polish for those that have one).

    z* = argmin_z  mean (decode(z, c) - x)^2  +  w mean ((z - m) / s)^2          m, s: mean and deviation of the prior, per number

The weights are only read. The descent runs in u = (z - m) / s, so that its learning rate means the same for every prior: a
standard deviation. Each row has its own loss and its own optimiser state: what is found for a picture does not depend on its
neighbours in the batch. What is told at each step is the best so far.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from condgen.conditions import Values
from condgen.editing.space import Space, require
from condgen.errors import BadInput, require_positive, require_range, require_whole
from condgen.model import Model, capabilities

DRAWS = 256
"""Draws of the prior that its mean and deviation are measured on."""
TRIED = 64
"""So many of them are drawn as pictures, and a descent starts at those nearest to the sample."""


class Found(NamedTuple):
    """The best so far: after how many steps, latents z (b, ...) on the CPU, and what they cost, float32 (b,)."""

    step: int
    z: Tensor
    loss: Tensor


def invert(
    model: Model,
    x: Tensor,
    c: Values | None = None,
    steps: int = 300,
    restarts: int = 1,
    lr: float = 0.1,
    start: Tensor | None = None,
    prior_weight: float = 1e-3,
    seed: int = 0,
) -> Iterator[Found]:
    """Descend to the latents whose pictures are nearest to x.

    Args:
        model: anything with `decode`; its weights and its mode stay as they are.
        x: samples (b, *shape), pictures in [-1, 1].
        c: the conditions that the model reads, a row a sample; one row serves all.
        steps: of Adam, whose rate falls to 0 along half a cosine.
        restarts: descents for each sample, of which the best is told. The first starts at the encoding where there is an encoder,
            the others at the draws of the prior whose pictures are nearest.
        lr: in standard deviations of the prior.
        start: latents (b, ...) to start from instead; `restarts` is then 1.
        prior_weight: what a latent costs that lies one deviation from the prior's mean, in units of squared pixels. Without effect
            where the model has no prior.
        seed: of the prior's draws.

    Yields:
        what stands before the first step, and after each: `steps` + 1 times. The loss of a row never rises.

    Raises:
        BadInput: where the model has no decoder, nothing to start from, or a decoder without gradient; for numbers out of range.
    """
    require(model, "decode")
    require_whole("steps", steps, 0)
    require_whole("restarts", restarts, 1, TRIED)
    require_whole("seed", seed, 0)
    require_positive(lr=lr)
    require_range(0, math.inf, prior_weight=prior_weight)
    if tuple(x.shape[1:]) != tuple(model.shape) or not len(x):
        raise BadInput(
            f"samples of shape {tuple(x.shape)} for a model of {tuple(model.shape)}; expected (n, {', '.join(map(str, model.shape))})"
        )
    if start is not None and (len(start) != len(x) or restarts > 1):
        raise BadInput(
            f"{len(start)} latents to start from and {restarts} restarts for {len(x)} samples; expected one latent each, and one start"
        )
    space = Space(model)
    given = space.conditions(c, len(x))
    return _descend(_Task(space, x, given, restarts, lr, start, prior_weight if "sample" in capabilities(model) else 0.0, seed), steps)


class _Task:
    """A descent before its first step: the rows of x repeated for each restart, where they start, and the unit of each number."""

    def __init__(
        self, space: Space, x: Tensor, given: Values, restarts: int, lr: float, start: Tensor | None, prior_weight: float, seed: int
    ):
        self.model: Any = space.model
        self.lr, self.prior_weight, self.samples = lr, prior_weight, len(x)
        pools = _pools(self.model, given, len(x), seed) if "sample" in capabilities(self.model) else None
        starts = start[:, None] if start is not None else _starts(space, x, given, pools, restarts)  # (b, r, ...)
        self.restarts = starts.shape[1]
        self.mean, self.scale = (v.repeat_interleave(self.restarts, 0).to(self.model.device) for v in _units(pools, starts))
        self.u = ((starts.flatten(0, 1).to(self.model.device) - self.mean) / self.scale).requires_grad_()
        self.x = x.repeat_interleave(self.restarts, 0).to(self.model.device)
        self.c = {k: v.repeat_interleave(self.restarts, 0).to(self.model.device) for k, v in given.items()}

    @torch.enable_grad()
    def loss(self) -> tuple[Tensor, Tensor]:
        """(b r,), and its gradient in u. The mode is put back at once: between two steps the caller may do as he likes."""
        was = self.model.training
        self.model.eval()
        try:
            drawn = self.model.decode(self.mean + self.scale * self.u, self.c).float()
            loss = (drawn - self.x).square().flatten(1).mean(1) + self.prior_weight * self.u.square().flatten(1).mean(1)
            if not drawn.requires_grad:
                raise BadInput(f"{type(self.model).__name__} decodes without gradient: its latents cannot be found by descent")
            return loss.detach(), torch.autograd.grad(loss.sum(), self.u)[0]
        finally:
            self.model.train(was)


def _descend(task: _Task, steps: int) -> Iterator[Found]:
    adam = torch.optim.Adam([task.u], lr=task.lr)
    best = torch.full((len(task.u),), torch.inf, device=task.u.device)
    kept = task.u.detach().clone()
    for step in range(steps + 1):
        loss, gradient = task.loss()
        better = loss < best
        best[better], kept[better] = loss[better], task.u.detach()[better]
        yield _best_of(task, step, kept, best)
        adam.param_groups[0]["lr"] = task.lr * (1 + math.cos(math.pi * step / max(1, steps))) / 2
        task.u.grad = gradient
        adam.step()


def _best_of(task: _Task, step: int, kept: Tensor, best: Tensor) -> Found:
    """Of each sample's restarts the one that costs least."""
    losses = best.view(task.samples, task.restarts)
    winner = losses.argmin(1) + torch.arange(task.samples, device=losses.device) * task.restarts
    z = (task.mean + task.scale * kept)[winner]
    return Found(step, z.cpu(), best[winner].cpu())


# --- where it starts ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _pools(model: Any, given: Values, n: int, seed: int) -> Tensor:
    """Draws of the prior under each sample's own conditions, (n, DRAWS, ...): the same noise for every sample."""

    def draws(row: Values) -> Tensor:
        model.noise.seed(seed)
        return model.prior(DRAWS, {k: v.expand(DRAWS, *v.shape[1:]).to(model.device) for k, v in row.items()}).float().cpu()

    if not given:
        pool = draws({})
        return pool.expand(n, *pool.shape)
    return torch.stack([draws({k: v[i : i + 1] for k, v in given.items()}) for i in range(n)])


def _starts(space: Space, x: Tensor, given: Values, pools: Tensor | None, restarts: int) -> Tensor:
    """(b, restarts, ...): the encoding first, where there is one, then the draws whose pictures are nearest to x."""
    parts = [space.encode(x, given)[:, None]] if "encode" in capabilities(space.model) else []
    if len(parts) < restarts and pools is not None:
        parts.append(_nearest(space, x, given, pools, restarts - len(parts)))
    if not parts:
        raise BadInput(f"{type(space.model).__name__} has neither an encoder nor a prior: say where the descent starts (start=...)")
    return torch.cat(parts, 1)


def _nearest(space: Space, x: Tensor, given: Values, pools: Tensor, most: int) -> Tensor:
    """Of each sample's pool the draws (b, most, ...) whose pictures are nearest to it."""
    shown = space.decode(pools[0, :TRIED]) if not given else None
    chosen = []
    for i, pool in enumerate(pools[:, :TRIED]):
        drawn = space.decode(pool, {k: v[i : i + 1] for k, v in given.items()}) if shown is None else shown
        near = (drawn - x[i].cpu()).square().flatten(1).mean(1).argsort()[:most]
        chosen.append(pool[near])
    return torch.stack(chosen)


def _units(pools: Tensor | None, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (b, ...) of each number under the prior; without one, 0 and the spread of the sample's own latent."""
    if pools is not None:
        return pools.mean(1), pools.std(1).clamp(min=1e-3)
    first = starts[:, 0]
    spread = first.flatten(1).std(1, correction=0).clamp(min=1e-3)
    return torch.zeros_like(first), spread.view(-1, *(1,) * (first.dim() - 1)).expand_as(first)


# --- a door for models without an encoder ---------------------------------------------------------------------------------


def last(found: Iterable[Found]) -> Found:
    """Where a descent ends."""
    for step in found:
        end = step
    return end


class Inverse:
    """A `Space` whose `encode` is a descent: what takes a space takes this as well.

    Args:
        model: anything with `decode`.
        steps, restarts, lr, prior_weight, seed: as for `invert`.
        chunk: samples at once, to bound memory.
    """

    def __init__(
        self,
        model: Model,
        steps: int = 300,
        restarts: int = 1,
        lr: float = 0.1,
        prior_weight: float = 1e-3,
        seed: int = 0,
        chunk: int = 250,
    ):
        self.model, self.chunk = model, chunk
        self.options: dict[str, Any] = {"steps": steps, "restarts": restarts, "lr": lr, "prior_weight": prior_weight, "seed": seed}
        self._space = Space(model, chunk)

    def encode(self, x: Tensor, c: Values | None = None) -> Tensor:
        """The latents (n, ...) that the descent finds for samples (n, *shape)."""
        given = self._space.conditions(c, len(x))
        parts = []
        for i in range(0, len(x), self.chunk):
            some = slice(i, i + self.chunk)
            parts.append(last(invert(self.model, x[some], {k: v[some] for k, v in given.items()}, **self.options)).z)
        return torch.cat(parts)

    def decode(self, z: Tensor, c: Values | None = None) -> Tensor:
        return self._space.decode(z, c)

    def reconstruct(self, x: Tensor, c: Values | None = None) -> Tensor:
        return self.decode(self.encode(x, c), c)


# --- conditions that nobody named -----------------------------------------------------------------------------------------


@torch.no_grad()
def nearest_conditions(model: Any, x: Tensor, candidates: Values, seed: int = 0) -> Tensor:
    """For each sample the row of conditions under which the model comes nearest to it, int64 (n,).

    A model with an encoder reconstructs the sample under every row; one without is asked for one sample under each, and the
    nearest counts. What a person leaves open about his own picture is taken from there.

    Args:
        model: with `decode`, and `encode` or `prior`.
        x: samples (n, *shape).
        candidates: m rows, such as `model.completed(asked, m, seed)`.
        seed: of the prior's draws.
    """
    space, m = Space(model), len(next(iter(candidates.values())))
    if "encode" in capabilities(model):
        shown = (space.reconstruct(one.expand(m, *one.shape), candidates) for one in x.cpu())
    else:
        require(model, "sample")
        model.noise.seed(seed)
        z = model.prior(m, {k: v.to(model.device) for k, v in candidates.items()})
        drawn = space.decode(z, candidates)
        shown = (drawn for _ in x)
    return torch.stack([(s - one).square().flatten(1).mean(1).argmin() for s, one in zip(shown, x.cpu(), strict=True)])
