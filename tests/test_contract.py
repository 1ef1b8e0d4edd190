"""The contract, held by every model there is: a new file below `condgen.models` is tested here without a word being added.

Every model meets every kind of data below, at a small size: options of a known name (`SMALL`) are shrunk where its constructor has
them. `VARIANTS` adds what a model can be besides its defaults.
"""

import inspect
import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from condgen import models
from condgen.api import build, chosen
from condgen.conditions import Attributes, Box, Keypoints, Label, Picture, Schema, Text, Vector, say
from condgen.data.store import Batch, Content, Dataset, to_bytes
from condgen.errors import BadInput
from condgen.model import Model, Noise, Optimizer, Run, capabilities
from condgen.models import config_of, presets
from condgen.objectives.games import GAMES
from condgen.pretrained import WEIGHTS
from condgen.pretrained import build as rebuild
from condgen.training import loop

LABEL: Schema = {"digit": Label(("zero", "one", "two"))}
EVERYTHING: Schema = {
    **LABEL,
    "face": Attributes(("smile", "age"), (0.0, 18.0), (1.0, 90.0), (True, False)),
    "look": Vector(3),
    "caption": Text(12),
    "box": Box(),
    "pose": Keypoints(("hand", "foot")),
    "map": Picture((1, 8, 8)),
}
DATA: dict[str, tuple[tuple[int, ...], Schema]] = {
    "8px": ((1, 8, 8), LABEL),
    "8px-everything": ((3, 8, 8), EVERYTHING),
    "28px": ((1, 28, 28), LABEL),
    "points": ((2,), LABEL),
    "points-text": ((2,), {"caption": Text(12)}),
    "8px-domains": ((3, 8, 8), {"domain": Label(("plain", "striped"))}),
}
OWN = {"cyclegan.CycleGAN": "8px-domains"}
"""Models of one kind of data, that no other model is tried on."""
SMALL = {"z_dim": 4, "width": 8, "hidden": (16, 12), "prior_hidden": 6, "code_dim": 4, "ae_hidden": (16,), "channels": 4, "dense": 8}
SMALL |= {"widest": 16, "depth": 2}
SMALL_OF = {
    "gauthier.Gauthier": {"hidden": 16, "filters": (4, 4, 6)},
    "bigan.BiGAN": {"hidden": 16},
    "bigan.LatentRegressor": {"hidden": 16},
    "semiali.SemiALI": {"labelled": 3},
    "latent_constraints.LatentConstraints": {"likelihood": "normal", "vae_steps": 1, "latent_width": 8, "actor_every": 1},
    "cyclegan.CycleGAN": {"width": 4, "blocks": 1, "layers": 1, "pool": 4},
    "features.Features": {"zoom": (0.9, 1.0), "turn": 0.0, "temperature": 0.02},
}
POINTS = {"likelihood": "normal", "sigma_x": 0.5}
"""What a model of points needs, where its constructor has it: a Bernoulli likelihood is for pictures."""
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "ae.AE": {"linear": {"hidden": ()}, "l1": {"error": "absolute"}},
    "vae.VAE": {
        "normal": {"likelihood": "normal"},
        "grey": {"binarise": False},
        "warm": {"warm_up": 2, "free_bits": 0.01},
        "conv": {"nets": "conv", "likelihood": "normal"},
        "conv-bernoulli": {"nets": "conv"},
    },
    "cvae.CVAE": {"gsnn": {"gsnn_alpha": 0.5}, "fixed-prior": {"prior_hidden": 0}, "normal": {"likelihood": "normal"}},
    "gan.GAN": {"r3gan": {"game": "relativistic", "r1": 0.1, "r2": 0.1}, "wgan-gp": {"game": "wasserstein", "gp": 10.0, "lazy": 2}},
    "cgan.CGAN": {
        "mirza": {"nets": "mirza", "z_prior": "uniform", "r1": 0.0},
        "r3gan": {"game": "relativistic", "r1": 0.1, "r2": 0.1},
        "wgan-gp": {"game": "wasserstein", "gp": 10.0, "lazy": 2},
    },
    "gauthier.Gauthier": {
        "paper": {"head": "additive", "update": "simultaneous", "dropout": (0.2, 0.5), "gcn": 55.0, "uniform": True, "standardise": False},
        "conv": {"nets": "conv", "flip": True, "r1": 1.0, "lazy": 2},
        "projection": {"head": "projection", "bandwidth": 0.0},
    },
    "acgan.ACGAN": {"paper": {"nets": "paper", "g_widths": (8,), "d_widths": (4, 8), "noise": 0.1}, "real-only": {"aux_on_fake": False}},
    "ali.ALI": {
        "r3gan": {"game": "relativistic", "r1": 0.1, "r2": 0.1, "lazy": 2},
        "alice": {"cycle": 1.0},
        "noise": {"posterior": "noise"},
        "minimax": {"game": "minimax"},
    },
    "bigan.BiGAN": {"released": {"joint_batch": False}, "penalised": {"norm": False, "r1": 0.1, "r2": 0.1, "dropout": 0.2}},
    "bigan.LatentRegressor": {"joint": {"generator_weight": 0.25}},
    "posthoc.PostHoc": {"adversarial": {"inference": "adversarial", "r1": 0.1, "r2": 0.1}, "noise": {"posterior": "noise"}},
    "semiali.SemiALI": {"shifted": {"shift": 1, "cycle": 1.0}},
    "latent_constraints.LatentConstraints": {"distance": {"lambda_dist": 0.1, "attribute_steps": 2}},
    "stylegan.StyleGAN": {
        "stylegan2": {"style": "demodulated", "path_length": 2.0, "path_lazy": 1, "cut_each": True},
        "progan": {
            "style": "plain",
            "depth": 0,
            "constant": False,
            "pixel_noise": False,
            "mixing": 0.0,
            "blur": False,
            "game": "wasserstein",
            "gp": 10.0,
            "r1": 0.0,
            "drift": 1e-3,
        },
        "augmented": {"ada": 0.6, "mirror": True, "r2": 0.1},
    },
    "alae.ALAE": {"released": {"linear_critic": True, "reciprocity_moves_f": True, "lazy": 2, "r1": 1.0}},
    "alae.StyleALAE": {"released": {"linear_critic": True, "reciprocity_moves_f": True, "mixing": 0.0, "pixel_noise": False}},
    "pigan.PiGAN": {
        "paper": {"nets": "paper", "g_loss": "non_saturating", "joint_batch": False},
        "uniform": {"z_prior": "uniform", "r1": 1.0},
    },
    "cyclegan.CycleGAN": {
        "cycle-only": {"gan": 0.0},
        "gan-only": {"cycle": 0.0},
        "forward": {"backward": False},
        "moved": {"mirror": True, "enlarge": 1.5, "up": "resize", "pool": 0},
    },
}
PICTURES = {"stylegan.StyleGAN", "alae.StyleALAE", "features.Features"}
"""Models of pictures alone, which say so."""
REFUSED = {("acgan.ACGAN", "8px-everything"), ("acgan.ACGAN", "points-text"), ("semiali.SemiALI", "points-text")}
REFUSED |= {("latent_constraints.LatentConstraints", "8px-everything"), ("latent_constraints.LatentConstraints", "points-text")}
"""Models with data whose conditions they cannot serve, and say so."""


@dataclass(frozen=True)
class Case:
    """A model on one kind of data."""

    path: str
    data: str
    options: dict[str, Any] = field(default_factory=dict)
    variant: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, [self.path.partition(".")[0], self.data, self.variant]))

    @property
    def shape(self) -> tuple[int, ...]:
        return DATA[self.data][0]

    @property
    def schema(self) -> Schema:
        """All that the data knows; the model may read none of it."""
        return DATA[self.data][1]

    def build(self, schema: Schema | None = None, **options: Any) -> Model:
        """The same weights each time."""
        torch.manual_seed(0)
        return models.find(self.path)(self.shape, self.schema if schema is None else schema, **{**self.small(), **self.options, **options})

    def small(self) -> dict[str, Any]:
        small = {**SMALL, **SMALL_OF.get(self.path, {}), **(POINTS if len(self.shape) == 1 else {})}
        return {k: v for k, v in small.items() if k in options_of(self.path)}

    def trained(self) -> Model:
        """After two steps: past the zeros that some layers start with."""
        model = self.build()
        model.rows = {k: self.batch(16).c[k] for k in model.schema}
        model.start(self.batch(16))
        for step in range(2):
            play(model, self.batch(8), step, sgd(model, 1e-4))
        return model.eval()

    def batch(self, n: int, seed: int = 0) -> Batch:
        g = torch.Generator().manual_seed(seed)
        return Batch(2 * torch.rand(n, *self.shape, generator=g) - 1, {k: c.uniform(n, g) for k, c in self.schema.items()})

    def dataset(self, n: int) -> Dataset:
        """Samples with something in common that can be learnt: near 0.9 or -0.9, at the same places in each."""
        batch = self.batch(n)
        batch.x.mul_(0.1).add_(0.9 * batch.x[:1].sign())
        columns = {k: to_bytes(v) if isinstance(self.schema[k], Picture) else v for k, v in batch.c.items()}
        samples = to_bytes(batch.x) if len(self.shape) == 3 else batch.x.numpy().astype(np.float32)
        return Dataset("toy", "train", Content(samples, columns, self.schema))


def classes() -> list[str]:
    """Every model of every file, as "file.Class"."""
    found = []
    for file in models.names():
        module = import_module(f"condgen.models.{file}")
        found += [
            models.path(v) for v in vars(module).values() if inspect.isclass(v) and v.__module__ == module.__name__ and issubclass(v, Model)
        ]
    return found


def options_of(path: str) -> set[str]:
    """What the constructor accepts."""
    return set(inspect.signature(models.find(path).__init__).parameters)


def usual(path: str) -> str:
    """The data of tests that need one kind."""
    return OWN.get(path, "8px")


def cases() -> Iterator[Case]:
    for path in classes():
        common = [data for data in DATA if data not in OWN.values() and (len(DATA[data][0]) == 3 or path not in PICTURES)]
        drawable = [OWN[path]] if path in OWN else common
        yield from (Case(path, data) for data in drawable if (path, data) not in REFUSED)
        yield from (Case(path, usual(path), options, variant) for variant, options in VARIANTS.get(path, {}).items())


CASES = list(cases())
SAMPLERS = [c for c in CASES if "sample" in capabilities(models.find(c.path))]
ENCODERS = [c for c in CASES if {"encode", "decode"} <= set(capabilities(models.find(c.path)))]
WEIGHERS = [c for c in CASES if "log_weights" in capabilities(models.find(c.path))]
SEEING = [c for c in CASES if capabilities(models.find(c.path)) == ["features"]]
TRANSLATORS = [c for c in CASES if "translate" in capabilities(models.find(c.path))]
CONDITIONAL = [c for c in CASES if c.build().schema]
BLIND = [c for c in CASES if not c.build().schema]
ADVERSARIAL = [c for c in CASES if "D" in c.build().players()]
PLAYING = [p for p in classes() if "game" in options_of(p)]
PENALISED = [(p, penalty) for p in PLAYING for penalty in ("r1", "r2", "gp") if penalty in options_of(p)]
NEEDED = {"bigan.BiGAN": {"norm": False}}
"""What a penalty on the gradient needs besides."""
NAMING = {"acgan.ACGAN", "cyclegan.CycleGAN"}
"""Models whose critic does not read the conditions, but names them, or of which each has its own: what is asked is in its loss."""
UNTOLD = {"latent_constraints.LatentConstraints", "alae.ALAE", "alae.StyleALAE"}
"""Models whose encoder is that of a base without conditions."""
UNASKED = {"gauthier.Gauthier", "ali.ALI", "stylegan.StyleGAN", "alae.ALAE", "alae.StyleALAE"}
"""Models that read conditions and can do without any."""


def every(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=str)


def own(model: Model, player: str) -> list[torch.nn.Parameter]:
    return [p for net in model.players()[player] for p in net.parameters()]


def sgd(model: Model, lr: float) -> dict[str, torch.optim.Optimizer]:
    """Plain SGD raises where a graph is descended after its parameters moved; a fused Adam would pass over it."""
    return {player: torch.optim.SGD(own(model, player), lr=lr) for player in model.players()}


def play(model: Model, batch: Batch, step: int, optimizers: dict[str, torch.optim.Optimizer], look: Any = None) -> dict[str, float]:
    """One step as the loop does it; `look(player)` is called after each player's gradient, before anyone moves."""
    model.train()
    torch.manual_seed(step)  # of dropout
    model.noise.seed(step)
    losses: dict[str, float] = {}
    for turn in model.turns(batch, step):
        gradients = {}
        for player, terms in turn.items():
            for term, values in terms.items():
                assert values.shape == (len(batch.x),), f"{player}/{term} is no value per sample: {tuple(values.shape)}"
            model.zero_grad(set_to_none=True)
            loss = sum(values.mean() for values in terms.values())
            loss.backward(inputs=own(model, player), retain_graph=len(turn) > 1)
            losses |= {f"{player}/{term}": values.mean().item() for term, values in terms.items()}
            if look:
                look(player)
            gradients |= {p: p.grad for p in own(model, player)}
        for p, gradient in gradients.items():
            p.grad = gradient
        for player in turn:
            optimizers[player].step()
    return losses


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).detach().norm() / a.detach().norm())


def latents(model: Model, batch: Batch) -> torch.Tensor:
    """Latents to decode: of the prior, or where there is none, of these samples."""
    model.noise.seed(0)
    return model.prior(len(batch.x), batch.c) if hasattr(model, "prior") else model.encode(batch.x, batch.c)


def made(model: Model, batch: Batch, c: dict[str, torch.Tensor]) -> torch.Tensor:
    """What is drawn under conditions c: samples of one seed, or these samples translated."""
    return model.translate(batch.x, c) if hasattr(model, "translate") else model.sample(c, seed=0)


# --- what it is ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path, data", sorted(REFUSED))
def test_conditions_that_a_model_cannot_serve_are_refused_by_name(path, data):
    with pytest.raises(BadInput, match=r"caption.*leave it out"):
        Case(path, data).build()


@pytest.mark.parametrize("path", sorted(PICTURES))
def test_a_model_of_pictures_refuses_points(path):
    with pytest.raises(BadInput, match=r"needs pictures \(c, h, w\)"):
        Case(path, "points").build()


def test_every_file_holds_a_model_with_presets():
    assert {p.partition(".")[0] for p in classes()} == set(models.names())
    assert {run.model for run in presets().values()} == set(classes())


@every(CASES)
def test_a_model_is_built_again_from_its_config(case):
    model = case.build()
    config = json.loads(json.dumps(config_of(model)))
    again = rebuild(config)
    assert type(again) is type(model) and config_of(again) == config and again.schema == model.schema
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


@every(CASES)
def test_the_same_seed_builds_the_same_weights(case):
    one, two = case.build(), case.build()
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@every(CASES)
def test_every_parameter_has_one_player(case):
    model = case.build()
    played = [id(p) for player in model.players() for p in own(model, player)]
    assert len(played) == len(set(played)) and set(played) == {id(p) for p in model.parameters()}


@every(CASES)
def test_it_can_do_something_that_tools_find(case):
    assert capabilities(case.build())


@every([c for c in CASES if c.data == usual(c.path)])
@torch.no_grad()
def test_a_copy_is_the_same_and_shares_nothing(case):
    model = case.build()
    copy = deepcopy(model)
    assert config_of(copy) == config_of(model) and all(torch.equal(v, copy.state_dict()[k]) for k, v in model.state_dict().items())
    for p in copy.parameters():
        p.add_(1)
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), copy.parameters(), strict=True))


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_noise_is_not_made_of_the_numbers_that_weights_are_made_of(seed):
    """`torch.manual_seed(0)` and weights of N(0, 1), then a sample of seed 0: its latents would be rows of the weights."""
    torch.manual_seed(seed)
    weights, noise = torch.randn(64, 16), Noise()
    noise.seed(seed)
    assert torch.isclose(noise.normal(64, 16), weights).double().mean() < 0.01


# --- saving -------------------------------------------------------------------------------------------------------------------


@every(CASES)
def test_what_was_saved_is_what_is_loaded(case, tmp_path):
    model, batch = case.trained().requires_grad_(False), case.batch(3)  # frozen as what is loaded: PyTorch picks a GRU's kernel by it
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert type(again) is type(model) and not again.training and config_of(again) == config_of(model)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in again.state_dict().items())
    assert {k: v.tolist() for k, v in again.rows.items()} == {k: v.tolist() for k, v in model.rows.items()}
    with torch.no_grad():
        if hasattr(model, "sample"):
            assert torch.equal(again.sample(n=5, seed=1), model.sample(n=5, seed=1))
        if hasattr(model, "encode"):
            assert torch.equal(again.encode(batch.x, batch.c), model.encode(batch.x, batch.c))
        if hasattr(model, "features") and not model.schema:  # an encoder that reads conditions has none of a picture alone
            assert torch.equal(again.features(batch.x), model.features(batch.x))
        if hasattr(model, "translate"):
            assert torch.equal(again.translate(batch.x, batch.c), model.translate(batch.x, batch.c))
        elif hasattr(model, "decode"):
            z = latents(model, batch)
            assert torch.equal(again.decode(z, batch.c), model.decode(z, batch.c))


@every(CASES)
def test_critics_do_not_leave_a_run(case, tmp_path):
    model = case.build()
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / WEIGHTS, framework="pt") as saved:
        kept = {name.partition(".")[0] for name in saved.keys()}  # noqa: SIM118 (not a mapping)
    assert kept and kept.isdisjoint(model.critics)
    again = Model.from_pretrained(tmp_path)
    assert not any(hasattr(again, critic) for critic in model.critics)
    assert {n.partition(".")[0] for n, _ in model.named_parameters()} - kept <= set(model.critics)


# --- drawing ------------------------------------------------------------------------------------------------------------------


@every(SAMPLERS)
def test_a_seed_decides_the_samples(case):
    model = case.trained()
    x = model.sample(n=6, seed=3)
    assert x.shape == (6, *case.shape) and x.dtype == torch.float32 and x.isfinite().all() and not x.requires_grad
    assert len(case.shape) == 1 or "normal" in model.options.values() or x.abs().max() <= 1
    assert torch.equal(x, model.sample(n=6, seed=3))
    model.train()
    assert torch.equal(x, model.sample(n=6, seed=3)) and model.training, "drawing is in eval mode, and leaves the mode as it was"
    assert not torch.equal(x, model.sample(n=6, seed=4)) and not torch.equal(model.sample(n=6), model.sample(n=6))
    assert relative(x[:1].expand_as(x[1:]), x[1:]) > 1e-6, "the samples differ"


@every(SAMPLERS)
def test_samples_do_not_depend_on_the_chunk(case):
    model = case.trained()
    whole = model.sample(n=7, seed=3)
    for chunk in (1, 3, 7):
        assert torch.allclose(model.sample(n=7, seed=3, chunk=chunk), whole, atol=1e-5)


@every(SAMPLERS)
def test_drawing_does_not_move_the_noise_of_several_processes(case):
    model = case.trained()
    whole = model.sample(n=4, seed=3)
    model.noise.rank, model.noise.world = 1, 2
    assert torch.equal(model.sample(n=4, seed=3), whole) and (model.noise.rank, model.noise.world) == (1, 2)


@every(SEEING)
def test_features_of_a_batch_are_those_of_its_singles(case):
    model, batch = case.trained().requires_grad_(False), case.batch(5)
    assert torch.allclose(model.features(batch.x), torch.cat([model.features(x[None]) for x in batch.x]), atol=1e-5)


@every([c for c in CASES if "decode" in capabilities(models.find(c.path))])
def test_a_batch_is_its_singles(case):
    model, batch = case.trained(), case.batch(5)
    rows = [(batch.x[i : i + 1], {k: v[i : i + 1] for k, v in batch.c.items()}) for i in range(5)]
    with torch.no_grad():
        z = latents(model, batch)
        whole = model.decode(z, batch.c)
        # Instance norms of untrained nets enlarge rounding by as much as they enlarge a faint channel.
        within = 3e-5 if "synthesis" in capabilities(model) else 1e-5
        assert torch.allclose(whole, torch.cat([model.decode(z[i : i + 1], c) for i, (_, c) in enumerate(rows)]), atol=within)
        if hasattr(model, "encode"):
            assert torch.allclose(model.encode(batch.x, batch.c), torch.cat([model.encode(x, c) for x, c in rows]), atol=1e-5)


@every(TRANSLATORS)
def test_a_batch_is_translated_as_its_singles(case):
    model, batch = case.trained(), case.batch(5)
    whole = model.translate(batch.x, batch.c)
    singles = [model.translate(batch.x[i : i + 1], {k: v[i : i + 1] for k, v in batch.c.items()}) for i in range(5)]
    assert torch.allclose(whole, torch.cat(singles), atol=1e-5)
    assert whole.dtype == torch.float32 and not whole.requires_grad and whole.abs().max() <= 1


@every(WEIGHERS)
def test_weights_are_one_number_a_draw_and_a_sample(case):
    model, batch = case.trained(), case.batch(5)
    x = batch.x.sign() if getattr(model.likelihood, "kind", "") == "bernoulli" else batch.x
    model.noise.seed(0)
    with torch.no_grad():
        w = model.log_weights(x, batch.c, 3)
    assert w.shape == (3, 5) and w.isfinite().all() and not torch.equal(w[0], w[1])


@pytest.mark.parametrize("n", [0, -1])
@every(SAMPLERS)
def test_nothing_is_not_drawn(case, n):
    with pytest.raises(BadInput, match=f"{n}.*at least 1"):
        case.build().sample(n=n)


# --- conditions ---------------------------------------------------------------------------------------------------------------


@every(CONDITIONAL)
def test_each_condition_changes_the_output(case):
    model, batch, other = case.trained(), case.batch(6, seed=1), case.batch(6, seed=2)
    assert set(model.schema) == set(case.schema)
    before = made(model, batch, batch.c)
    for name, c in case.schema.items():
        changed = (batch.c[name] + 1) % len(c.names) if isinstance(c, Label) else other.c[name]
        assert relative(before, made(model, batch, {**batch.c, name: changed})) > 1e-3, f"{name} is not read by what draws"


@every(CONDITIONAL)
@torch.no_grad()
def test_a_sample_knows_nothing_of_what_else_is_asked(case):
    """Row 0 stays as it is when every other row's conditions change; weights are shaken, so that no path to the output rests at zero."""
    model, batch, other = case.build().eval(), case.batch(6, seed=1), case.batch(6, seed=2)
    for p in model.parameters():
        p.add_(0.1 * torch.randn(p.shape))
    mixed = {k: torch.cat([v[:1], other.c[k][1:]]) for k, v in batch.c.items()}
    one, two = (made(model, batch, c) for c in (batch.c, mixed))
    assert torch.allclose(one[0], two[0], atol=1e-5) and not torch.allclose(one[1:], two[1:], atol=1e-4)
    swapped = {k: torch.cat([other.c[k][:1], v[1:]]) for k, v in batch.c.items()}
    assert torch.allclose(one[1:], made(model, batch, swapped)[1:], atol=1e-5)


@every([c for c in CONDITIONAL if c in ENCODERS and c.path not in UNTOLD])
def test_each_condition_changes_the_latent(case):
    model, batch, other = case.trained(), case.batch(6, seed=1), case.batch(6, seed=2)
    before = model.encode(batch.x, batch.c)
    for name, c in case.schema.items():
        changed = (batch.c[name] + 1) % 3 if isinstance(c, Label) else other.c[name]
        assert relative(before, model.encode(batch.x, {**batch.c, name: changed})) > 1e-3, f"{name} is not read by the encoder"


def judged(model: Model, critic: Any, x: torch.Tensor, c: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a critic says of samples, of their pairs with zero latents, or of their codes."""
    reads = inspect.signature(critic.forward).parameters
    if "w" in reads:
        return critic(model.encode(x, c), c)
    return critic(x, torch.zeros(len(x), model.z_dim), c) if "z" in reads else critic(x, c)


@every([c for c in CONDITIONAL if c in ADVERSARIAL and c.path not in NAMING])
def test_each_condition_changes_the_critics(case):
    """Else the game would be about pictures alone, and the condition could be forgotten."""
    model, batch, other = case.build(), case.batch(6, seed=1), case.batch(6, seed=2)
    model.eval()
    for critic in (getattr(model, name) for name in model.critics):
        before = judged(model, critic, batch.x, batch.c)
        for name, c in case.schema.items():
            changed = (batch.c[name] + 1) % 3 if isinstance(c, Label) else other.c[name]
            assert relative(before, judged(model, critic, batch.x, {**batch.c, name: changed})) > 1e-4, f"{name} is not read by the critic"


@every(BLIND)
def test_a_model_without_conditions_does_not_see_them(case):
    batch = case.batch(6)
    with_c, without = (case.build() for _ in range(2))
    one, two = (play(m, b, 0, sgd(m, 1e-3)) for m, b in ((with_c, batch), (without, Batch(batch.x, {}))))
    assert one == two and all(torch.equal(a, b) for a, b in zip(with_c.parameters(), without.parameters(), strict=True))
    if hasattr(with_c, "sample"):
        with pytest.raises(BadInput, match=r"unknown condition .* Valid: none"):
            with_c.sample({next(iter(case.schema)): 0})


@every([c for c in CONDITIONAL if len(c.schema) > 2])
def test_a_condition_that_a_run_leaves_out_is_not_read(case):
    run = Run(case.path, "toy", options=case.small(), conditions=("look", "digit"))
    model = build(run, case.dataset(8))
    assert list(model.schema) == ["look", "digit"]
    batch, other = case.batch(6), case.batch(6, seed=9)
    z = latents(model, batch)
    read = {k: batch.c[k] for k in run.conditions}
    assert torch.equal(model.decode(z, {**other.c, **read}), model.decode(z, batch.c))
    with pytest.raises(BadInput, match="unknown condition 'caption'"):
        model.sample({"caption": "hello"})
    with pytest.raises(BadInput, match="unknown condition of the data 'loook': did you mean 'look'"):
        chosen(case.schema, ("loook",))


@every([c for c in CONDITIONAL if "digit" in c.schema])
def test_unknown_names_and_values_are_refused_with_the_valid_ones(case):
    model = case.build()
    with pytest.raises(BadInput, match=r"unknown condition 'digt': did you mean 'digit'\?"):
        model.sample({"digt": "one"})
    with pytest.raises(BadInput, match=r"unknown label 'oen': did you mean 'one'\? Valid: zero, one, two"):
        model.sample({"digit": "oen"})
    with pytest.raises(BadInput, match="row 0 holds index 3, valid are 0 to 2"):
        model.sample({"digit": torch.tensor([3])})
    if "face" in case.schema:
        with pytest.raises(BadInput, match=r"unknown attribute 'smil': did you mean 'smile'\? Valid: smile, age"):
            model.sample({"face": {"smil": 1}})
        with pytest.raises(BadInput, match="'age' is 900; the data ranges from 18 to 90"):
            model.sample({"age": 900})


@every([c for c in CONDITIONAL if c.data == "8px-everything"])
def test_words_and_tensors_ask_for_the_same(case):
    model, c = case.trained(), case.batch(1).c
    words = {name: say(condition, c[name][0]) for name, condition in case.schema.items()}
    assert relative(model.sample(c, seed=0), model.sample(words, seed=0)) < 0.05  # `say` writes three digits
    assert model.sample({"digit": ["one", "two"], "smile": 1}, seed=0).shape == (2, *case.shape)


@pytest.mark.parametrize("path", sorted({c.path for c in CONDITIONAL} - UNASKED - {*OWN}))
def test_a_model_that_needs_a_condition_says_so(path):
    with pytest.raises(BadInput, match="needs at least one condition"):
        Case(path, "8px").build(schema={})


# --- training -----------------------------------------------------------------------------------------------------------------


@every(CASES)
def test_gradients_reach_the_turns_player_and_no_other(case):
    """Every parameter of the player gets a finite gradient in every turn, no other parameter gets any. Over three steps each is
    different from zero at least once: at the first step a prior's hidden layer may rest, whose last layer starts at zero."""
    model = case.build()
    model.start(case.batch(16))
    optimizers = sgd(model, 1e-4)
    moved: dict[str, float] = {name: 0.0 for name, _ in model.named_parameters()}
    turns: list[str] = []

    def look(player: str) -> None:
        turns.append(player)
        mine = {id(p) for p in own(model, player)}
        for name, p in model.named_parameters():
            if id(p) in mine:
                assert p.grad is not None, f"{name} of {player} gets no gradient"
                assert p.grad.isfinite().all(), f"the gradient of {name} of {player} is not finite"
                moved[name] += p.grad.abs().sum().item()
            else:
                assert p.grad is None, f"the turn of {player} reached {name}"

    for step in range(3):
        play(model, case.batch(12, seed=step), step, optimizers, look)
    assert set(turns) == set(model.players())
    resting = {name for name, total in moved.items() if total == 0}
    assert {n for n in resting if not is_free_offset(case, n)} == set()


def is_free_offset(case: Case, name: str) -> bool:
    """A game of differences D(x) - D(G(z)) does not see the offset of D: its last bias has no gradient."""
    return case.options.get("game") in ("wasserstein", "relativistic") and name in ("D.last.bias", "D.layers.6.bias")


@every(CASES)
def test_a_turn_moves_its_player_alone(case):
    model = case.build()
    optimizers = sgd(model, 1e-3)
    batch, before = case.batch(8), {k: v.clone() for k, v in model.state_dict().items()}
    model.noise.seed(0)
    turn = next(iter(model.turns(batch, 0)))
    for player, terms in turn.items():
        sum(v.mean() for v in terms.values()).backward(inputs=own(model, player), retain_graph=True)
    for player in turn:
        optimizers[player].step()
    moved = {k.partition(".")[0] for k, v in model.named_parameters() if not torch.equal(v, before[k])}
    expected = {n.partition(".")[0] for n, p in model.named_parameters() if any(p is q for player in turn for q in own(model, player))}
    assert moved and moved <= expected


@every(CASES)
def test_noise_decides_the_turns(case):
    losses = [play(m, case.batch(8), 5, sgd(m, 1e-3)) for m in (case.build(), case.build())]
    assert losses[0] == losses[1]


@every(CASES)
def test_half_precision_stays_finite(case):
    run = Run(case.path, "toy", {}, {"*": Optimizer(lr=1e-3)}, batch=8, steps=3, precision="bf16", log_every=0, half_life_images=16.0)
    for last in loop.train(run, case.build(), case.dataset(16)):
        assert all(v.isfinite() for v in last.losses.values())
    state = last.state
    assert all(v.isfinite().all() for v in [*state.model.state_dict().values(), *state.ema.tensors.values()])
    assert all(p.dtype == torch.float32 for p in state.model.parameters()), "weights stay in full precision"


@every([c for c in CASES if c not in ADVERSARIAL and c.variant != "warm"])
def test_training_lowers_the_loss(case):
    run = Run(case.path, "toy", batch=16, steps=30, precision="32", log_every=0, optimizers={"*": Optimizer(lr=1e-2, betas=(0.9, 0.999))})
    totals = [sum(v.item() for v in step.losses.values()) for step in loop.train(run, case.build(), case.dataset(16))]
    before, after = np.mean(totals[:3]), np.mean(totals[-3:])
    assert after < before - 0.05 * abs(before), f"from {before:.3f} to {after:.3f}"


@every([c for c in ADVERSARIAL if not c.options.get("uniform")])  # weights of +-.005 stall for epochs, as the paper says
def test_training_moves_the_critic(case):
    """D learns: against a G that stands still, on the same draws, its own loss falls (an encoder in front learns for it alone)."""
    model, batch = case.build(**({"reciprocity": 0.0} if "reciprocity" in options_of(case.path) else {})), case.dataset(16).batch(range(16))
    optimizers = {player: torch.optim.Adam(own(model, player), lr=0.0 if player in ("G", "F") else 5e-3) for player in model.players()}
    model.start(batch)
    losses = [sum(v for k, v in play(model, batch, 1, optimizers).items() if k.startswith("D/")) for _ in range(12)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 1e-3


# --- games --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("data", ["8px", "points"])
@pytest.mark.parametrize("path", PLAYING)
def test_every_game_can_be_played(path, data, game):
    if data == "points" and path in PICTURES:
        pytest.skip(f"{path} draws pictures alone")
    case = Case(path, data)
    model = case.build(game=game)
    for step in range(2):
        losses = play(model, case.batch(8), step, sgd(model, 1e-3))
        assert all(np.isfinite(v) for v in losses.values()) and {"D/game", "G/game"} <= losses.keys()


@pytest.mark.parametrize("path, penalty", PENALISED)
def test_penalties_are_added_to_the_critics_loss_alone(path, penalty):
    case = Case(path, "8px")
    off = {p: 0.0 for of, p in PENALISED if of == path} | NEEDED.get(path, {})
    model = case.build(**{**off, penalty: 2.0})
    losses = play(model, case.batch(8), 0, sgd(model, 1e-3))
    without = case.build(**off)
    plain = set(play(without, case.batch(8), 0, sgd(without, 1e-3)))
    added = set(losses) - plain
    assert plain < set(losses) and {name.partition("/")[2] for name in added} == {penalty} and losses[f"D/{penalty}"] > 0
    assert not {name for name in added if name.startswith(("G/", "F/"))}
    double = case.build(**{**off, penalty: 4.0})
    assert play(double, case.batch(8), 0, sgd(double, 1e-3))[f"D/{penalty}"] == pytest.approx(2 * losses[f"D/{penalty}"], rel=1e-4)
    assert {"D/game", "G/game"} <= plain


@pytest.mark.parametrize("path", [p for p, penalty in PENALISED if penalty == "r1"])
def test_lazy_penalties_come_seldom_and_strong(path):
    case, off = Case(path, "8px"), {p: 0.0 for of, p in PENALISED if of == path} | NEEDED.get(path, {})
    model, eager = (case.build(**{**off, "r1": 1.0}, lazy=lazy) for lazy in (4, 1))
    seldom = [play(model, case.batch(8), step, sgd(model, 0.0)) for step in range(5)]
    assert ["D/r1" in losses for losses in seldom] == [True, False, False, False, True]
    assert seldom[0]["D/r1"] == pytest.approx(4 * play(eager, case.batch(8), 0, sgd(eager, 0.0))["D/r1"], rel=1e-5)


@pytest.mark.parametrize("path", sorted({p for p, penalty in PENALISED if penalty == "gp"} - PICTURES))
def test_each_penalty_is_of_its_own_samples(path):
    """On D(x) = |x|^2, whose gradient is 2 x: R1 is 2 gamma |x|^2 on real samples, R2 on fake ones, gp (2 |x| - 1)^2 between them."""
    case = Case(path, "points")
    model, batch = case.build(r1=3.0, r2=5.0, gp=7.0), case.batch(8)
    optimizers = sgd(model, 0.0)
    model.D = Squares()
    losses = play(model, batch, 0, {**optimizers, "D": torch.optim.SGD(own(model, "D"), lr=0.0)})
    model.noise.seed(0)
    fake = model.G(model.prior(8, batch.c), batch.c).detach()
    u = model.noise.uniform(8)[:, None]
    line = u * batch.x + (1 - u) * fake
    assert losses["D/r1"] == pytest.approx(3 * 2 * batch.x.square().sum(1).mean().item(), rel=1e-5)
    assert losses["D/r2"] == pytest.approx(5 * 2 * fake.square().sum(1).mean().item(), rel=1e-5)
    assert losses["D/gp"] == pytest.approx(7 * (2 * line.norm(dim=1) - 1).square().mean().item(), rel=1e-5)


class Squares(torch.nn.Module):
    """D(x) = |x|^2, with a weight that could be trained."""

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, c):
        return self.one * x.square().sum(1, keepdim=True)


@pytest.mark.parametrize("path", PLAYING)
@pytest.mark.parametrize("options, says", [({"game": "minmax"}, "did you mean 'minimax'"), ({"lazy": 0}, "lazy"), ({"lazy": -2}, "lazy")])
def test_a_game_that_cannot_be_is_refused(path, options, says):
    if not options.keys() <= options_of(path):
        pytest.skip(f"{path} has no {says}")
    with pytest.raises(BadInput, match=says):
        Case(path, "8px").build(**options)


NONSENSE = {
    "crop": 31,
    "zoom": (0.5, 1.5),
    "temperature": 0.0,
    "jitter": -0.1,
    "turn": 181.0,
    "z_dim": 0,
    "width": -1,
    "hidden": (16, 0),
    "sigma_x": 0.0,
    "r1": -1.0,
    "r2": -1.0,
    "gp": -10.0,
    "likelihood": "nosuch",
    "nets": "nosuch",
    "z_prior": "nosuch",
    "error": "nosuch",
    "posterior": "nosuch",
    "inference": "nosuch",
}


@pytest.mark.parametrize("path, option", [(p, o) for p in classes() for o in NONSENSE if o in options_of(p)])
def test_an_option_that_cannot_be_is_refused(path, option):
    with pytest.raises(BadInput, match=option.replace("z_prior", "prior of z")):
        Case(path, usual(path)).build(**{option: NONSENSE[option]})
