"""Constraints on any model with a latent space: latents are moved until their samples obey. The model's weights are only read.

    z* = argmin_z  E(decode(z, c)) + w (-log D(z)) + v mean_d log(1 + (z_d - z0_d)^2) / s_d^2

`constrain` descends a constraint's energy through the decoder; where it has no gradient (a user's own function), or to be cheaper, it
descends a critic of latents that `latent_critic` trains on what the constraint says of decoded samples: no labels. `realism_critic`
tells encodings of data from draws of the prior, and `edit` is the identity-preserving form for attributes, with critics that
`attribute_critic` trains on labelled encodings. Engel, Hoffman & Roberts 2017, arXiv 1711.05772, whose own amortised form is the
model `latent_constraints`.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen.conditions import Attributes, Label, Schema, Values
from condgen.constraints import Constraint, checked
from condgen.editing.space import Space, require
from condgen.errors import BadInput, require_positive, require_range, require_whole
from condgen.model import Model, capabilities
from condgen.models.latent_constraints import posterior
from condgen.networks.latent import Namer, towards
from condgen.objectives.latent import Descent, descend, log_distance

HELD_OUT = 0.1
"""Of the latents, for a critic's accuracy."""
JITTER = 0.2
"""Noise on encodings of an encoder without any, in standard deviations of the codes."""
RAREST = 0.002
"""A rule that holds, or fails, for fewer of the samples than this cannot be learnt from them."""


class LatentCritic(nn.Module):
    """A small net on latents (b, ...), which it reads flat and standardised.

    Args:
        z: latents that the scale is taken from, (n, ...).
        net: (b, d) -> (b, k).
    """

    mean: Tensor
    sd: Tensor
    accuracy: float = math.nan
    """On latents that were held out."""

    def __init__(self, z: Tensor, net: nn.Module):
        super().__init__()
        flat = z.flatten(1)
        self.register_buffer("mean", flat.mean(0))
        self.register_buffer("sd", flat.std(0, correction=0).clamp(min=1e-3))
        self.net = net

    def forward(self, z: Tensor) -> Tensor:
        return self.net((z.flatten(1) - self.mean) / self.sd).float()

    def logit(self, z: Tensor) -> Tensor:
        """The first output, (b,): above 0 where the constraint is likelier to hold than not."""
        return self(z)[:, 0]


# --- the descent ----------------------------------------------------------------------------------------------------------


def constrain(
    model: Model,
    z: Tensor,
    c: Values | None,
    constraint: Constraint,
    steps: int = 300,
    lr: float = 0.03,
    critic: LatentCritic | None = None,
    realism: LatentCritic | None = None,
    realism_weight: float = 0.1,
    distance: float = 0.0,
) -> Iterator[Descent]:
    """Move latents until their samples obey; each stays at the first latent that does, and one that obeys already does not move.

    Args:
        model: anything with `decode`; its weights and its mode stay as they are.
        z: latents (b, ...), such as `Space(model).encode(x, c)`.
        c: the conditions that the model reads, a row a latent; one row serves all.
        constraint: on the decoded samples. It alone decides who has arrived.
        steps: most moves of each latent.
        lr: about how far each number moves in a step, in units of z.
        critic: to descend in the place of the constraint's energy. Needed where that has no gradient.
        realism: to stay where encodings of data lie; then D must also be at least 0.3.
        realism_weight: of -log D.
        distance: weight of the distance from where a latent started, on the scale of z's own spread.

    Yields:
        a `Descent` before the first move and after each, on the CPU.

    Raises:
        BadInput: where the model has no decoder, the energy has no gradient and no critic is given, or a number is out of range.
    """
    require(model, "decode")
    require_whole("steps", steps, 0)
    require_positive(lr=lr)
    require_range(0, math.inf, realism_weight=realism_weight, distance=distance)
    task = _Task(model, z, c, constraint, critic, realism, realism_weight, distance)
    return (Descent(d.step, d.z.cpu(), d.reached.cpu(), d.loss.cpu()) for d in descend(task.z, task, steps, lr))


class _Task:
    """The objective of `constrain`: (latents, rows) -> (loss, whether the sample obeys)."""

    def __init__(
        self,
        model: Any,
        z: Tensor,
        c: Values | None,
        constraint: Constraint,
        critic: LatentCritic | None,
        realism: LatentCritic | None,
        realism_weight: float,
        distance: float,
    ):
        if not len(z):
            raise BadInput("no latents to move")
        self.model, self.constraint = model, constraint
        self.critic, self.realism = (None if k is None else k.to(model.device) for k in (critic, realism))
        self.realism_weight, self.distance = realism_weight, distance
        self.z = z.detach().float().to(model.device)
        self.c = {k: v.to(model.device) for k, v in Space(model).conditions(c, len(z)).items()}
        self.scale = prior_scale(model, self.z, self.c)
        if critic is None and not self._has_gradient():
            raise BadInput(f"{constraint} has no gradient through {type(model).__name__}: train a `latent_critic` on it and give it here")

    def __call__(self, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        c = {k: v[rows] for k, v in self.c.items()}
        with quiet(self.model):
            x = self.model.decode(z, c).float()
        if self.critic is None:
            energy = checked(self.constraint, x)
            loss, arrived = energy, energy.detach() <= 0
        else:
            loss, arrived = F.softplus(-self.critic.logit(z)), checked(self.constraint, x.detach()) <= 0
        if self.realism is not None:
            real = self.realism.logit(z)
            loss, arrived = loss + self.realism_weight * F.softplus(-real), arrived & (torch.sigmoid(real) >= 0.3)
        if self.distance:
            loss = loss + self.distance * log_distance(z.flatten(1), self.z[rows].flatten(1), self.scale)
        return loss, arrived

    def _has_gradient(self) -> bool:
        z = self.z[:1].clone().requires_grad_()
        with quiet(self.model), torch.enable_grad():
            x = self.model.decode(z, {k: v[:1] for k, v in self.c.items()}).float()
            try:
                return x.requires_grad and self.constraint.energy(x).requires_grad
            except (RuntimeError, TypeError):  # what leaves torch, such as x.numpy(), refuses tensors that ask for a gradient
                return False


@torch.no_grad()
def prior_scale(model: Any, z: Tensor, c: Values, draws: int = 256) -> Tensor:
    """The standard deviation of each number of the prior, (d,), whatever is being moved; 1 where there is no prior."""
    if "sample" not in capabilities(model):
        return torch.ones_like(z[0].flatten())
    model.noise.seed(0)
    same = {k: v[:1].expand(draws, *v.shape[1:]) for k, v in c.items()}
    return model.prior(draws, same).flatten(1).std(0, correction=0).clamp(min=1e-3)


@contextlib.contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Eval mode; afterwards the mode is what it was."""
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


# --- critics --------------------------------------------------------------------------------------------------------------


def latent_critic(
    model: Model,
    constraint: Constraint,
    n: int = 4000,
    steps: int = 600,
    x: Tensor | None = None,
    c: Values | None = None,
    width: int = 128,
    seed: int = 0,
) -> LatentCritic:
    """A critic that tells from a latent whether its sample will obey; it learns from what the constraint says of samples. No labels.

    Args:
        model: with `decode`, and `prior` where no x is given.
        constraint: a rule, or a function of the user's own.
        n: latents it learns from.
        steps: of 128 latents each.
        x: samples (m, *shape) whose encodings are learnt from, instead of draws of the prior.
        c: conditions of x.
        width: of its hidden layers.
        seed: of draws and weights.

    Raises:
        BadInput: where the model lacks what is needed, or (nearly) all samples obey, or none.
    """
    require(model, "decode")
    require_whole("n", n, 20)
    z, given = _latents(model, n, x, c, seed)
    shown = Space(model).decode(z, given)
    obeys = checked(constraint, shown) <= 0
    share = float(obeys.double().mean())
    if not RAREST <= share <= 1 - RAREST:
        raise BadInput(
            f"of {len(z)} samples {int(obeys.sum())} obey {constraint}: a critic needs both kinds; choose another bound, or give x"
        )
    return _two_kinds(z, obeys, steps, width, seed)


def realism_critic(model: Model, x: Tensor, c: Values | None = None, steps: int = 600, width: int = 128, seed: int = 0) -> LatentCritic:
    """D(z): tells encodings of data from draws of the prior; without a prior, from encodings whose numbers were shuffled among samples.

    Args:
        model: with `encode`.
        x: samples (n, *shape).
        c: the conditions that the model reads.
        steps, width, seed: as of `latent_critic`.
    """
    z, sd = _encodings(model, x, c)
    real = _noisy(z, sd, seed)
    if hasattr(model, "prior"):
        fake, _ = _latents(model, len(x), None, c, seed)
    else:
        flat, generator = real.flatten(1), torch.Generator().manual_seed(seed)
        fake = torch.stack([column[torch.randperm(len(column), generator=generator)] for column in flat.T], 1).view_as(real)
    kinds = torch.arange(len(real) + len(fake)) < len(real)
    return _two_kinds(torch.cat([real, fake]), kinds, steps, width, seed)


def attribute_critic(
    model: Model, x: Tensor, labels: Values, schema: Schema, c: Values | None = None, steps: int = 1000, width: int = 128, seed: int = 0
) -> LatentCritic:
    """A(z): names Labels and Attributes of encodings of labelled samples; its `net` is a `Namer`.

    Args:
        model: with `encode`.
        x: samples (n, *shape).
        labels: their values, by name.
        schema: what these mean; other kinds than Label and Attributes are refused.
        c: the conditions that the model itself reads.
        steps, width, seed: as of `latent_critic`.
    """
    if unnamed := [k for k, v in schema.items() if not isinstance(v, Label | Attributes)] or (not schema and ["nothing"]):
        raise BadInput(f"a critic names labels and attributes, not {', '.join(unnamed)}")
    z, sd = _encodings(model, x, c)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        namer = Namer(z[0].numel(), schema, width)
    critic, values = LatentCritic(_noisy(z, sd, seed), namer), {k: labels[k].cpu() for k in schema}

    def loss(rows: Tensor, draw: int) -> Tensor:
        return namer.loss(critic(_noisy(z[rows], sd[rows], draw)), {k: v[rows] for k, v in values.items()})

    seen = _fit(critic, len(z), loss, steps, seed)
    with torch.no_grad():
        critic.accuracy = float(namer.shows(critic(z[~seen]), {k: v[~seen] for k, v in values.items()}).double().mean())
    return critic


def _latents(model: Any, n: int, x: Tensor | None, c: Values | None, seed: int) -> tuple[Tensor, Values]:
    """Encodings of x, or n draws of the prior under rows of the training data; with the conditions to decode them under."""
    space = Space(model)
    if x is not None:
        return space.encode(x, c), space.conditions(c, len(x))
    require(model, "sample")
    given = model.completed(None, n, seed) if c is None else {k: v[torch.arange(n) % len(v)] for k, v in space.conditions(c, n).items()}
    with quiet(model), torch.no_grad():
        model.noise.seed(seed)
        z = model.prior(n, {k: v.to(model.device) for k, v in given.items()}).float().cpu()
    return z, given


def _encodings(model: Any, x: Tensor, c: Values | None) -> tuple[Tensor, Tensor]:
    """Encodings of samples and the standard deviation of their noise, (n, ...) each: the encoder's own, or `JITTER` of the spread."""
    space = Space(model)
    z = space.encode(x, c)
    if not hasattr(model, "posterior"):
        return z, (JITTER * z.std(0, correction=0)).expand_as(z)
    given = space.conditions(c, len(x))
    with quiet(model), torch.no_grad():
        parts = []
        for i in range(0, len(x), space.chunk):
            some = {k: v[i : i + space.chunk].to(model.device) for k, v in given.items()}
            parts.append(posterior(model, x[i : i + space.chunk].to(model.device), some)[1])
    return z, torch.cat([p for p in parts if p is not None]).cpu()


def _noisy(z: Tensor, sd: Tensor, seed: int) -> Tensor:
    """Draws of q(z|x). On means alone a critic reads numbers that the decoder ignores, and an edit would move these."""
    return z + sd * torch.randn(z.shape, generator=torch.Generator().manual_seed(seed))


def _two_kinds(z: Tensor, kinds: Tensor, steps: int, width: int, seed: int) -> LatentCritic:
    """A critic of latents z (n, ...) that are of the one kind (True) or the other; both count alike, however rare."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        critic = LatentCritic(z, Namer(z[0].numel(), {"obeys": Attributes(("obeys",))}, width))
    share = kinds.double().mean().item()
    weight = torch.where(kinds, 0.5 / share, 0.5 / (1 - share))
    target = kinds.float()

    def loss(rows: Tensor, draw: int) -> Tensor:
        return weight[rows] * F.binary_cross_entropy_with_logits(critic.logit(z[rows]), target[rows], reduction="none")

    seen = _fit(critic, len(z), loss, steps, seed)
    with torch.no_grad():
        critic.accuracy = float(((critic.logit(z[~seen]) > 0) == kinds[~seen]).double().mean())
    return critic


def _fit(critic: LatentCritic, n: int, loss: Callable[[Tensor, int], Tensor], steps: int, seed: int, batch: int = 128) -> Tensor:
    """Train on most of n latents by loss(rows, number of the step); returns which of them, bool (n,)."""
    require_whole("steps", steps, 1)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(n, generator=generator)
    train = order[max(1, int(HELD_OUT * n)) :]
    adam = torch.optim.Adam(critic.parameters(), lr=1e-3)
    with torch.enable_grad():
        for step in range(steps):
            rows = train[torch.randint(len(train), (batch,), generator=generator)]
            adam.zero_grad()
            loss(rows, step).mean().backward()
            adam.step()
    critic.eval().requires_grad_(False)
    seen = torch.zeros(n, dtype=torch.bool)
    seen[train] = True
    return seen


# --- identity-preserving edits --------------------------------------------------------------------------------------------


class Edited(NamedTuple):
    """Samples after the edit (b, *shape), whether each was changed and whether both critics took it, bool (b,), and its latent."""

    x: Tensor
    changed: Tensor
    reached: Tensor
    z: Tensor


def edit(
    model: Model,
    x: Tensor,
    asked: Values,
    attributes: LatentCritic,
    realism: LatentCritic | None = None,
    c: Values | None = None,
    steps: int = 300,
    lr: float = 0.03,
    weight: float = 0.1,
    least: tuple[float, float] = (0.99, 0.3),
) -> Edited:
    """Change samples until they show what is asked, and no further; what shows it already comes back as it was given, bit for bit.

    Args:
        model: with `encode` and `decode`; its weights and its mode stay as they are.
        x: samples (b, *shape).
        asked: values by name, a row a sample; attributes that are NaN are not asked.
        attributes: of `attribute_critic`.
        realism: of `realism_critic`, or None.
        c: the conditions that the model itself reads.
        steps, lr: as of `constrain`.
        weight, least: of the realism, and the thresholds on the attributes' probability and on D.
    """
    namer = attributes.net
    if not isinstance(namer, Namer):
        raise BadInput("edits need a critic that names attributes: train one by `attribute_critic`")
    if missing := [k for k in namer.schema if k not in asked]:
        raise BadInput(f"{missing[0]!r} is not asked; the critic names {', '.join(namer.schema)} (an attribute left open is NaN)")
    space = Space(model)
    z = space.encode(x, c)
    critic, real = attributes.cpu(), None if realism is None else realism.cpu()
    changed = ~namer.shows(critic(z), asked)
    out, moved, reached = x.clone(), z.clone(), ~changed
    if bool(changed.any()):
        d = None if real is None else lambda latents, rows: real.logit(latents)
        *_, last = descend(z[changed], towards(namer, {k: v[changed] for k, v in asked.items()}, d, critic, weight, least), steps, lr)
        moved[changed], reached[changed] = last.z, last.reached
        out[changed] = space.decode(last.z, {k: v[changed] for k, v in space.conditions(c, len(x)).items()}).to(x)
    return Edited(out, changed, reached, moved)
