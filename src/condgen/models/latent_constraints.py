"""Latent constraints: what an unconditional model draws is made to obey, by nets on its latents alone.

    L_D = E_q(z|x)[-log D(z, y)] + E[-log(1 - D(z', y))] + E_q(z|x)[-log(1 - D(z, y'))] + 10 (|grad D| - 1)^2
    L_G = E[-log D(z', y)] + lambda mean_d log(1 + (z'_d - z_d)^2) / sigma_d^2,    z' = G(z, y) = (1 - g) z + g dz

Engel, Hoffman & Roberts 2017, arXiv 1711.05772, and the released notebook, which has what the printed loss of D lacks: y, the latents of
other examples' y', one prior draw in ten in the place of G's, and the penalty. The base's weights never move: it is frozen before D, the
critic of attributes A(z) and the actor G see it. A rule (`condgen.constraints`) in the place of labels needs no labelled data (zero-shot).

`edit` is the paper's identity-preserving form (figure 5): Adam on each latent, from its encoding to the first point that both critics take.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from condgen import constraints
from condgen.conditions import Attributes, Label, Schema, Values, schema_from_json
from condgen.data.store import Batch, Dataset
from condgen.errors import BadInput, require_positive, require_range, require_whole
from condgen.model import Model, Optimizer, Run, Sampler, Shape, Turn, capabilities
from condgen.models import config_of, find
from condgen.models.vae import VAE
from condgen.networks.latent import Actor, Namer, towards, trunk
from condgen.objectives.games import task_specific
from condgen.objectives.latent import Descent, descend, log_distance, scaled_distance
from condgen.objectives.penalties import unit_gradient

RULE = "rule"
"""Name of the condition that a rule makes: yes where it holds."""
PRIOR_SHARE = 0.1
"""Of D's fakes: draws of the prior, in the place of G's."""
SEEN = 1000
"""Training samples that the encoder's scale is measured on."""


class LatentConstraints(Sampler):
    """A frozen model with encoder and decoder; critics and an actor on its latents, which read the conditions.

    Args:
        shape: of a sample; pictures in [-1, 1].
        schema: Labels and Attributes, at least one, unless there is a `rule`.
        base: "" for a VAE of its own, trained first; else the folder of any model with `encode` and `decode` and latents (b, z_dim), or
            a run under runs/. Once built, `options["base"]` is that model's config, so that a saved model needs no other folder.
        rule: such as "ink>=0.15": the condition is then whether the decoded sample obeys it, and no labels are read.
        vae_steps: steps of the run that train its own VAE; nothing else moves before.
        z_dim, hidden, likelihood, sigma_x: its own VAE's, as of `vae.VAE`.
        latent_width: of the four hidden layers of D, A and G.
        gp: weight of D's gradient penalty.
        lambda_dist: of the distance in G's loss; above 0, G also learns to leave encodings where they are.
        actor_every: G moves at every so many-th step of D.
        attribute_steps: steps that A is trained for, from the first of D's; 0 for all.
    """

    critics = ()
    unaveraged = ("base", "sigma")
    sigma: Tensor

    def __init__(
        self,
        shape: Shape,
        schema: Schema,
        base: str | dict[str, Any] = "",
        rule: str = "",
        vae_steps: int = 7000,
        z_dim: int = 64,
        hidden: tuple[int, ...] = (512, 512, 512),
        likelihood: str = "normal",
        sigma_x: float = 0.2,
        latent_width: int = 512,
        gp: float = 10.0,
        lambda_dist: float = 0.0,
        actor_every: int = 10,
        attribute_steps: int = 0,
    ):
        super().__init__(shape, {RULE: Label(("no", "yes"))} if rule else schema)
        require_whole("vae_steps", vae_steps, 0)
        require_whole("attribute_steps", attribute_steps, 0)
        require_positive(latent_width=latent_width, actor_every=actor_every)
        require_range(0, float("inf"), gp=gp, lambda_dist=lambda_dist)
        check_schema(self.schema)
        self.rule = constraints.parse(rule) if rule else None
        self.gp, self.lambda_dist, self.actor_every, self.attribute_steps = gp, lambda_dist, actor_every, attribute_steps
        self.game = task_specific(1 / 3, "non_saturating")
        self.own = not base
        self.vae_steps = vae_steps if self.own else 0
        self.base = VAE(shape, {}, z_dim, hidden, likelihood, sigma_x) if self.own else opened(base)
        if not self.own:
            check_base(self.base, self.shape, self.schema)
            self.options["base"] = config_of(self.base)
        self.base.noise = self.noise
        self.z_dim = latent_dim(self.base)
        self.realism = trunk(self.z_dim, self.schema, 1, latent_width)
        self.attribute = Namer(self.z_dim, self.schema, latent_width)
        self.actor = Actor(self.z_dim, self.schema, latent_width)
        self.register_buffer("sigma", torch.zeros(self.z_dim))  # of the encoder, over training data; 0 until the base is frozen
        self.seen: Batch | None = None
        self.hold(not self.own)

    def players(self) -> dict[str, list[nn.Module]]:
        own: dict[str, list[nn.Module]] = {"vae": [self.base]} if self.own else {}
        return own | {"D": [self.realism], "A": [self.attribute], "G": [self.actor]}

    def start(self, batch: Batch) -> None:
        self.seen = Batch(batch.x[:SEEN].clone(), {k: v[:SEEN].clone() for k, v in batch.c.items()})
        if self.rule is not None:
            self.rows = {RULE: constraints.holds(self.rule, batch.x).long()}

    def hold(self, still: bool) -> None:
        """Freeze the base, or let it learn."""
        self.still = still
        self.base.requires_grad_(not still)
        self.base.train(self.training and not still)

    def train(self, mode: bool = True) -> "LatentConstraints":
        super().train(mode)
        self.base.train(mode and not self.still)
        return self

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        learning = step < self.vae_steps
        if learning == self.still:
            self.hold(not learning)
        if learning:
            yield from ({"vae": terms} for turn in self.base.turns(Batch(batch.x, {}), step) for terms in turn.values())
            return
        if not bool(self.sigma.any()):
            self.sigma.copy_(self.scale_of(self.seen or batch))
        at = step - self.vae_steps
        z, y = self.encoded(batch)
        noise = self.draws(len(z), y)
        with torch.no_grad():
            moved = torch.where(self.noise.uniform(len(z), 1).to(z) < PRIOR_SHARE, noise, self.actor(noise, y))

        yield {"D": self.critic_terms(z, moved, y)}

        if not self.attribute_steps or at < self.attribute_steps:
            yield {"A": {"class": self.attribute.loss(self.attribute(z), y)}}

        if at % self.actor_every == 0:
            yield {"G": self.actor_terms(z, noise, y)}

    def critic_terms(self, z: Tensor, moved: Tensor, y: Values) -> dict[str, Tensor]:
        """L_D, three equal parts: own z with own y; moved latents; own z with another's y. And the penalty, halfway in each number."""
        three = {name: torch.cat([v, v, v.roll(1, 0)]) for name, v in y.items()}
        real, fake, other = self.realism(torch.cat([z, moved, z]), three)[:, 0].float().chunk(3)
        u = self.noise.uniform(*z.shape).to(z)
        middle = (u * z + (1 - u) * moved).requires_grad_()
        penalty = unit_gradient(self.realism(middle, y)[:, 0].float(), middle)
        return {"game": (self.game.d(real, fake) + self.game.d(real, other)) / 2, "gp": self.gp * penalty}

    def actor_terms(self, z: Tensor, noise: Tensor, y: Values) -> dict[str, Tensor]:
        """L_G from the prior, and where the distance counts also from encodings, half each."""
        starts = [noise, z] if self.lambda_dist else [noise]
        moved = [self.actor(start, y) for start in starts]
        terms = {"game": torch.stack([self.game.g(self.realism(m, y)[:, 0].float(), None) for m in moved]).mean(0)}
        if self.lambda_dist:
            far = torch.stack([log_distance(m, start, self.sigma) for m, start in zip(moved, starts, strict=True)]).mean(0)
            terms["distance"] = self.lambda_dist * far
        return terms

    @torch.no_grad()
    def encoded(self, batch: Batch) -> tuple[Tensor, Values]:
        """z ~ q(z|x) of a batch and its conditions: as they are given, or as the rule finds them on what z decodes to."""
        given = {name: batch.c[name] for name in self.schema if self.rule is None}
        mean, sd = posterior(self.base, batch.x, batch.c)
        z = mean if sd is None else mean + sd * self.noise.normal(*mean.shape).to(mean)
        return z, self.ruled(z, batch.c) if self.rule is not None else given

    @torch.no_grad()
    def ruled(self, z: Tensor, c: Values) -> Values:
        assert self.rule is not None
        return {RULE: constraints.holds(self.rule, self.base.decode(z, c).float()).long()}  # type: ignore[operator]

    @torch.no_grad()
    def scale_of(self, batch: Batch) -> Tensor:
        """The encoder's standard deviation of each number, averaged over samples; where it has none, that of its codes."""
        c = {k: v.to(self.device) for k, v in batch.c.items()}
        mean, sd = posterior(self.base, batch.x.to(self.device), c)
        found = mean.std(0, correction=0) if sd is None else sd.mean(0)
        return found.clamp(min=1e-3)

    def draws(self, n: int, c: Values) -> Tensor:
        """n latents of the base's own prior, (n, z_dim); N(0, 1) where it has none."""
        if hasattr(self.base, "prior"):
            return self.base.prior(n, c)  # type: ignore[operator]
        return self.noise.normal(n, self.z_dim).to(self.device)

    def prior(self, n: int, c: Values) -> Tensor:
        return self.actor(self.draws(n, c), c)

    def reads(self, data: Dataset) -> Dataset:
        """With a rule: the data and whether each sample obeys."""
        if self.rule is None:
            return data
        found = [constraints.holds(self.rule, data.batch(rows).x).long() for rows in torch.arange(len(data)).split(2000)]
        return data.with_column(RULE, self.schema[RULE], torch.cat(found))

    def decode(self, z: Tensor, c: Values) -> Tensor:
        return self.base.decode(z, c).float()  # type: ignore[operator]

    def encode(self, x: Tensor, c: Values) -> Tensor:
        return self.base.encode(x, c).float()  # type: ignore[operator]

    @torch.no_grad()
    def displacement(self, c: Values, n: int, seed: int) -> Tensor:
        """How far the actor moves n prior draws: (z' - z)^2 / sigma^2, averaged over the numbers, (n,)."""
        self.noise.seed(seed)
        c = {name: v.to(self.device) for name, v in c.items()}
        z = self.draws(n, c)
        return scaled_distance(self.actor(z, c), z, self.sigma)

    @torch.no_grad()
    def edit(self, x: Tensor, c: Values, steps: int = 300, lr: float = 0.03) -> tuple[Tensor, Tensor]:
        """Samples x (b, *shape) changed so that conditions c hold, and whether each was changed, bool (b,).

        Args:
            x: samples.
            c: what to ask; an attribute that is NaN is not asked.
            steps: most moves of each latent.
            lr: about how far a number of the latent moves in each.

        What shows c already, by the critic of attributes, comes back as it was given, bit for bit. What never satisfies both critics
        comes back as far as it came.
        """
        self._check_base()
        z = self.encode(x, c)
        changed = ~self.attribute.shows(self.attribute(z), c)
        out = x.clone()
        if bool(changed.any()):
            asked = {name: v[changed] for name, v in c.items()}
            last = list(self.descent(z[changed], asked, steps, lr))[-1]
            out[changed] = self.decode(last.z, asked).to(x)
        return out, changed

    @torch.no_grad()
    def shows(self, x: Tensor, c: Values) -> Tensor:
        """Whether A sees c in samples x, bool (b,)."""
        self._check_base()
        return self.attribute.shows(self.attribute(self.encode(x, c)), c)

    def _check_base(self) -> None:
        """An edit is told what to become, not what it is: a base that reads conditions cannot encode it."""
        if self.base.schema:
            read = ", ".join(self.base.schema)
            raise BadInput(
                f"the base {type(self.base).__name__} reads {read}, which an edit changes: edit by `condgen.editing.constraints.edit`"
            )

    def descent(
        self, z: Tensor, c: Values, steps: int, lr: float, weight: float = 1.0, least: tuple[float, float] = (0.99, 0.8)
    ) -> Iterator[Descent]:
        """From latents z towards conditions c, by A and D; `weight` and `least` as of `networks.latent.towards`.

        The figure's .1 and the code's threshold of .3 on D let through what only A takes for the target: on MNIST the judge saw it in
        half of the edits, and with these in more than nine of ten.
        """
        whole = self.attribute.filled(self.attribute(z), c)

        def realism(z: Tensor, rows: Tensor) -> Tensor:
            return self.realism(z, {name: v[rows] for name, v in whole.items()})[:, 0].float()

        return descend(z, towards(self.attribute, c, realism, weight=weight, least=least), steps, lr)


# --- the base -------------------------------------------------------------------------------------------------------------


def opened(base: str | Mapping[str, Any]) -> Model:
    """A trained model from a folder, or one with fresh weights from its config. Raises BadInput where it cannot be built."""
    if isinstance(base, str):
        run = Path("runs") / base
        return Model.from_pretrained(run if run.is_dir() and not Path(base).exists() else base)
    if not isinstance(base, Mapping) or not {"model", "shape", "options", "schema"} <= base.keys():
        raise BadInput(f"base is {base!r:.80}; expected the folder of a model, or its config")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in base["options"].items()}
    model = find(str(base["model"]))(tuple(base["shape"]), schema_from_json(base["schema"]), **options)
    for critic in model.critics:  # they did not leave its run
        if hasattr(model, critic):
            delattr(model, critic)
    return model


def check_base(base: Model, shape: Shape, schema: Schema) -> None:
    """Raises BadInput for a base that cannot encode and decode samples of this shape, or reads conditions that are not given."""
    name = type(base).__name__
    if missing := {"encode", "decode"} - set(capabilities(base)):
        raise BadInput(f"base {name} has no {' and no '.join(f'`{m}`' for m in sorted(missing))}: take one with an encoder, such as vae")
    if tuple(base.shape) != tuple(shape):
        raise BadInput(f"base {name} is of samples of shape {tuple(base.shape)}, the data are {tuple(shape)}")
    if other := [k for k, condition in base.schema.items() if schema.get(k) != condition]:
        raise BadInput(f"base {name} reads {', '.join(other)}, which is not among the conditions given: {', '.join(schema)}")


def check_schema(schema: Schema) -> None:
    """Raises BadInput for no condition, or one that A cannot name."""
    if not schema:
        raise BadInput(
            "latent_constraints needs at least one condition; the data has none: give a rule (such as 'ink>=0.15'), or add labels"
        )
    if unnamed := [name for name, c in schema.items() if not isinstance(c, Label | Attributes)]:
        raise BadInput(f"latent constraints are labels and attributes; they cannot name {', '.join(unnamed)}: leave it out (--conditions)")


@torch.no_grad()
def latent_dim(base: Model) -> int:
    """Length of the base's latents. Raises BadInput where they are no vectors."""
    if isinstance(known := getattr(base, "z_dim", None), int):
        return known
    was = base.training
    base.eval()
    c = {name: condition.uniform(1) for name, condition in base.schema.items()}
    z = base.encode(torch.zeros(1, *base.shape), c)  # type: ignore[operator]
    base.train(was)
    if z.dim() != 2:
        raise BadInput(f"the latents of base {type(base).__name__} have shape {tuple(z.shape[1:])}; expected vectors")
    return z.shape[1]


def posterior(base: Any, x: Tensor, c: Values) -> tuple[Tensor, Tensor | None]:
    """Mean and standard deviation of q(z|x), (b, z_dim) each; no standard deviation where the encoder gives a point."""
    if not hasattr(base, "posterior"):
        return base.encode(x, c).float(), None
    reads = len(inspect.signature(base.posterior).parameters) > 1
    mean, log_var = base.posterior(x, c) if reads else base.posterior(x)
    return mean.float(), (log_var.float() / 2).exp()


# D has to lead: with both at one rate, or without momentum, short runs saw G's latents run away and D follow (the paper has 200,000 steps).
_GAME = {
    "D": Optimizer(lr=1e-3, betas=(0.5, 0.9), schedule="late"),
    "A": Optimizer(lr=1e-3, betas=(0.9, 0.999), schedule="late"),
    "G": Optimizer(lr=3e-4, betas=(0.5, 0.9), schedule="late"),
}
_OWN = _GAME | {"vae": Optimizer(lr=5e-4, betas=(0.9, 0.999))}
_GIVEN = _GAME | {"*": _OWN["vae"]}  # who takes another base, or none, trains a VAE
_NETS = {"latent_width": 512, "actor_every": 2, "attribute_steps": 2000}
_MNIST = Run(
    model="latent_constraints.LatentConstraints",
    data="mnist",
    options={"vae_steps": 4000, **_NETS},
    optimizers=_OWN,
    batch=256,
    steps=9000,
    precision="32",
    metrics=("class_consistency", "class_consistency_worst", "diversity_ratio", "frechet", "reconstruction", "edit_success", "z_mse"),
    source="sections 3 and 4.1; sigma_x = .1 of pixels in [0, 1]; nets of 512 features for 1024 and 2048",
)

PRESETS = {
    "latent-constraints-mnist": _MNIST,
    "latent-constraints-mnist-distance": replace(
        _MNIST,
        options={"base": "latent-constraints-mnist", "lambda_dist": 0.1, **_NETS},
        optimizers=_GIVEN,
        steps=3000,
        source="the same with the distance in the actor's loss, on the model of that run",
    ),
    "latent-constraints-mnist-ink": replace(
        _MNIST,
        options={"base": "latent-constraints-mnist", "rule": "ink>=0.15", **_NETS},
        optimizers=_GIVEN,
        steps=3000,
        metrics=("reconstruction",),
        source="section 5, zero-shot: a rule, no labels",
    ),
    "latent-constraints-digits": replace(
        _MNIST,
        data="digits",
        options={"z_dim": 16, "hidden": (256, 256), "vae_steps": 2000, "latent_width": 128, "actor_every": 5},
        batch=64,
        steps=5000,
        source="the paper, at the size of the embedded set",
    ),
    "latent-constraints-lfw64": replace(
        _MNIST,
        data="lfw64",
        conditions=("face",),
        options={"base": "vae-lfw64", **_NETS},
        optimizers=_GIVEN,
        batch=64,
        steps=8000,
        metrics=("condition_correlation", "frechet", "edit_success", "z_mse"),
        source="section 4.2 on LFW: a VAE that was trained before, attributes from 0 to 1",
    ),
}
