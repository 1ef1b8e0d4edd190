"""Latent constraints against closed forms: the gate, the distance, the penalty, the frozen base; and edits that leave what holds."""

import json
import math

import pytest
import torch

from condgen.api import load, train
from condgen.conditions import Attributes, Label
from condgen.constraints import Ink, holds
from condgen.data.store import Batch
from condgen.errors import BadInput
from condgen.model import Model, Optimizer, Run
from condgen.models import config_of
from condgen.models.ae import AE
from condgen.models.gan import GAN
from condgen.models.latent_constraints import LatentConstraints, latent_dim, opened, posterior
from condgen.models.vae import VAE
from condgen.networks.latent import Actor, Namer, towards
from condgen.objectives.latent import descend, log_distance, scaled_distance
from condgen.pretrained import build as rebuild

DIGIT = {"digit": Label(("zero", "one", "two"))}
FACE = {"face": Attributes(("smile", "age"), (0.0, 20.0), (1.0, 60.0))}
SMALL = {"z_dim": 4, "hidden": (12,), "latent_width": 8, "vae_steps": 0, "actor_every": 1}


def built(schema=None, shape=(1, 8, 8), **options):
    torch.manual_seed(0)
    return LatentConstraints(shape, DIGIT if schema is None else schema, **{**SMALL, **options})


def batch(n=8, schema=None, shape=(1, 8, 8)):
    g = torch.Generator().manual_seed(0)
    return Batch(2 * torch.rand(n, *shape, generator=g) - 1, {k: c.uniform(n, g) for k, c in (schema or DIGIT).items()})


# --- closed forms -------------------------------------------------------------------------------------------------------------


def test_a_shut_gate_leaves_the_latent_and_an_open_one_replaces_it():
    actor, z, c = Actor(4, DIGIT, 8), torch.randn(5, 4), {"digit": torch.tensor([0, 1, 2, 0, 1])}
    last = actor.trunk.layers[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([3.0] * 4 + [-200.0] * 4))
        assert torch.equal(actor(z, c), z)
        last.bias[4:] = 200
        assert torch.equal(actor(z, c), torch.full_like(z, 3.0))
        last.bias[4:] = 0
        assert torch.allclose(actor(z, c), z / 2 + 1.5)


def test_the_distance_is_zero_of_a_latent_that_stays():
    z, sigma = torch.randn(6, 4), torch.tensor([0.5, 1.0, 2.0, 4.0])
    assert log_distance(z, z, sigma).tolist() == [0] * 6 and scaled_distance(z, z, sigma).tolist() == [0] * 6
    one = torch.ones(1, 4)
    assert log_distance(z[:1] + one, z[:1], sigma).item() == pytest.approx(math.log(2) * (4 + 1 + 1 / 4 + 1 / 16) / 4, rel=1e-5)
    assert scaled_distance(z[:1] + 2 * one, z[:1], sigma).item() == pytest.approx(4 * (4 + 1 + 1 / 4 + 1 / 16) / 4, rel=1e-5)


class Slope(torch.nn.Module):
    """D(z, y) = slope * z_0 + offset(y)."""

    def __init__(self, slope):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(float(slope)))

    def forward(self, z, c):
        return (self.slope * z[:, :1]) + c["digit"][:, None].float()


@pytest.mark.parametrize("slope, penalty", [(1.0, 0.0), (-1.0, 0.0), (3.0, 4.0), (0.0, 1.0)])
def test_the_penalty_is_of_the_slope(slope, penalty):
    model = built(gp=7.0)
    model.realism = Slope(slope)
    terms = model.critic_terms(torch.randn(6, 4), torch.randn(6, 4), batch(6).c)
    assert terms["gp"].tolist() == pytest.approx([7 * penalty] * 6, abs=1e-5)


def test_the_critic_pays_for_three_equal_parts():
    """-log D(z, y), -log(1 - D(z', y)), -log(1 - D(z, y')), a third each; y' is the neighbour's."""
    model, c = built(), {"digit": torch.tensor([0, 2, 1])}
    model.realism = Slope(1.0)
    z, moved = torch.randn(3, 4), torch.randn(3, 4)
    own, other = torch.tensor([0.0, 2, 1]), torch.tensor([1.0, 0, 2])
    expected = (
        -torch.sigmoid(z[:, 0] + own).log() - (1 - torch.sigmoid(moved[:, 0] + own)).log() - (1 - torch.sigmoid(z[:, 0] + other)).log()
    )
    assert torch.allclose(model.critic_terms(z, moved, c)["game"], expected / 3, atol=1e-5)


def test_the_actor_pays_for_its_distance_and_learns_from_encodings_too():
    model, b = built(lambda_dist=0.5), batch(4)
    model.sigma.fill_(0.5)
    z, noise = torch.randn(4, 4), torch.randn(4, 4)
    terms = model.actor_terms(z, noise, b.c)
    both = [log_distance(model.actor(s, b.c), s, model.sigma) for s in (noise, z)]
    assert torch.allclose(terms["distance"], 0.5 * (both[0] + both[1]) / 2)
    assert set(built().actor_terms(z, noise, b.c)) == {"game"}


# --- the base -----------------------------------------------------------------------------------------------------------------


def step(model, b, i, lr=0.05):
    model.train()
    model.noise.seed(i)
    for turn in model.turns(b, i):
        for player, terms in turn.items():
            own = [p for net in model.players()[player] for p in net.parameters()]
            gradients = torch.autograd.grad(sum(v.mean() for v in terms.values()), own, allow_unused=True)
            with torch.no_grad():
                for p, g in zip(own, gradients, strict=True):
                    p -= lr * g if g is not None else 0


def weights(net):
    return {k: v.clone() for k, v in net.state_dict().items()}


def test_its_own_vae_learns_first_and_then_never_moves():
    model, b = built(vae_steps=2), batch()
    model.start(b)
    others = [weights(net) for net in (model.realism, model.attribute, model.actor)]
    for i in range(2):
        before = weights(model.base)
        step(model, b, i, lr=1e-4)
        assert not all(torch.equal(v, before[k]) for k, v in model.base.state_dict().items())
        assert model.base.training and not model.sigma.any()
    nets = (model.realism, model.attribute, model.actor)
    assert all(torch.equal(v, o[k]) for net, o in zip(nets, others, strict=True) for k, v in net.state_dict().items())
    frozen = weights(model.base)
    for i in range(2, 6):
        step(model, b, i)
        assert not model.base.training and not any(p.requires_grad for p in model.base.parameters())
        assert all(torch.equal(v, frozen[k]) for k, v in model.base.state_dict().items()), "bit for bit"
    assert all(not torch.equal(v, o[k]) for net, o in zip(nets, others, strict=True) for k, v in net.state_dict().items())
    assert torch.allclose(model.sigma, posterior(model.base, b.x, {})[1].mean(0).clamp(min=1e-3), rtol=1e-4)


def test_a_run_that_goes_back_lets_its_vae_learn_again():
    model, b = built(vae_steps=1), batch()
    model.start(b)
    step(model, b, 1)
    assert model.still
    step(model, b, 0, lr=1e-4)
    assert not model.still and model.base.training and all(p.requires_grad for p in model.base.parameters())


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(1)
    folder = tmp_path / "base"
    VAE((1, 8, 8), {}, z_dim=3, hidden=(10,), likelihood="normal").save_pretrained(folder)
    return folder


def test_a_base_from_a_folder_stays_and_travels_with_the_model(saved, tmp_path):
    base = Model.from_pretrained(saved)
    model, b = built(base=str(saved)), batch()
    assert model.z_dim == 3 and "vae" not in model.players() and model.vae_steps == 0
    assert json.loads(json.dumps(config_of(model)))["options"]["base"]["model"] == "vae.VAE"
    model.start(b)
    for i in range(3):
        step(model, b, i)
    assert all(torch.equal(v, base.state_dict()[k]) for k, v in model.base.state_dict().items())
    model.eval().save_pretrained(tmp_path / "whole")
    for file in saved.iterdir():
        file.unlink()
    again = Model.from_pretrained(tmp_path / "whole")
    assert torch.equal(again.sample(n=4, seed=0), model.sample(n=4, seed=0))
    assert torch.equal(again.decode(again.encode(b.x, b.c), b.c), base.decode(base.encode(b.x, {}), {}))


def test_any_encoder_will_do_and_its_scale_is_that_of_its_codes(tmp_path):
    torch.manual_seed(0)
    AE((1, 8, 8), {}, z_dim=5, hidden=()).save_pretrained(tmp_path)
    model, b = built(base=str(tmp_path)), batch()
    model.start(b)
    step(model, b, 0)
    assert torch.allclose(model.sigma, model.base.encode(b.x, {}).std(0, correction=0))
    assert model.sample(n=2, seed=0).shape == (2, 1, 8, 8) and latent_dim(model.base) == 5


@pytest.mark.parametrize(
    "base, says",
    [
        (lambda: GAN((1, 8, 8), {}, z_dim=4, width=4), "base GAN has no `encode`"),
        (lambda: VAE((1, 4, 4), {}, z_dim=3, hidden=()), r"samples of shape \(1, 4, 4\), the data are \(1, 8, 8\)"),
    ],
)
def test_a_base_that_cannot_serve_is_refused(base, says, tmp_path):
    base().save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=says):
        built(base=str(tmp_path))


def test_what_is_no_base_is_refused():
    with pytest.raises(BadInput, match="expected the folder of a model, or its config"):
        opened({"model": "vae.VAE"})
    with pytest.raises(BadInput, match="nowhere"):
        built(base="./nowhere")


@pytest.mark.parametrize(
    "options, says", [({"vae_steps": -1}, "vae_steps is -1"), ({"gp": -1.0}, "gp is -1"), ({"actor_every": 0}, "actor_every")]
)
def test_options_out_of_range_are_refused(options, says):
    with pytest.raises(BadInput, match=says):
        built(**options)


# --- a rule in the place of labels --------------------------------------------------------------------------------------------


def test_a_rule_reads_no_labels():
    model = built(rule="ink>=0.5")
    assert model.schema == {"rule": Label(("no", "yes"))}
    b = batch(64)
    model.start(b)
    assert torch.equal(model.rows["rule"], (((b.x + 1) / 2).mean((1, 2, 3)) >= 0.5).long())
    with torch.no_grad():
        model.base.G.layers[-1].bias.copy_(torch.randn(64).mul(0.5))
        model.base.G.layers[-1].weight.mul_(20)
    z, y = model.encoded(Batch(b.x, {}))
    assert torch.equal(y["rule"], holds(Ink(0.5), model.decode(z, {}).detach()).long()) and 0 < y["rule"].float().mean() < 1
    step(model, Batch(b.x, {}), 0, lr=1e-3)
    again = rebuild(json.loads(json.dumps(config_of(model))))
    assert again.schema == model.schema and again.rule == Ink(0.5)


def test_a_saved_model_runs_nobodys_file(tmp_path):
    file = tmp_path / "evil.py"
    file.write_text("raise SystemExit(1)\ndef f(x): return x\n")
    with pytest.raises(BadInput, match="would run a file"):
        built(rule=f"{file}:f")


# --- edits --------------------------------------------------------------------------------------------------------------------


def naming(model, weight=4.0):
    """A that names class k where z_k is the largest of the first three, and a D that takes everything."""
    model.attribute.trunk = Picks(weight)
    model.realism = Flat()
    return model.eval().requires_grad_(False)


class Picks(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, z, c):
        return self.weight * z[:, :3]


class Flat(torch.nn.Module):
    def forward(self, z, c):
        return 0 * z[:, :1] + 2


def test_an_edit_stops_where_both_critics_take_it_and_leaves_what_holds():
    model, b = naming(built()), batch(30)
    z = model.encode(b.x, b.c)
    x, changed = model.edit(b.x, b.c, lr=0.05)
    shown = z[:, :3].argmax(1) == b.c["digit"]
    assert 0 < shown.sum() < 30 and torch.equal(changed, ~shown)
    assert torch.equal(x[shown], b.x[shown]), "bit for bit"
    *_, end = model.descent(z[changed], {"digit": b.c["digit"][changed]}, 300, 0.05)
    assert end.reached.all() and torch.allclose(x[changed], model.decode(end.z, {}))
    p = model.attribute(end.z).softmax(1).gather(1, b.c["digit"][changed][:, None])
    assert (p >= 0.99).all() and (p < 0.999).all(), "the first that passes, not the best"


def test_a_critic_that_takes_nothing_is_never_passed():
    model, b = naming(built()), batch(10)
    model.realism = type("No", (Flat,), {"forward": lambda self, z, c: 0 * z[:, :1] - 5})()
    *_, end = model.descent(model.encode(b.x, b.c), b.c, 20, 0.05)
    assert not end.reached.any() and end.step == 20


def test_attributes_that_are_not_asked_stay_open():
    namer = Namer(2, FACE, 8)
    logits = torch.tensor([[3.0, -3.0], [-3.0, 3.0]])
    asked = {"face": torch.tensor([[1.0, math.nan], [1.0, math.nan]])}
    assert namer.shows(logits, asked).tolist() == [True, False] == namer.reached(logits, asked, 0.99).tolist()
    loss = namer.loss(logits, asked)
    assert loss.tolist() == pytest.approx([math.log(1 + math.exp(-3)), math.log(1 + math.exp(3))], rel=1e-5)
    filled = namer.filled(logits, asked)["face"]
    assert filled[:, 0].tolist() == [1, 1] and filled[:, 1].tolist() == pytest.approx([20 + 40 * 0.0474, 20 + 40 * 0.9526], abs=0.1)


def test_a_descent_keeps_the_first_that_holds():
    """On |z|: steps of Adam are near lr at first, so the first iterate below a bound is known to a step."""
    start = torch.tensor([[1.0], [-0.5], [0.1]])
    steps = list(descend(start, lambda z, rows: (z.abs().sum(1), z.detach().abs().sum(1) < 0.2), 100, 0.01))
    end = steps[-1]
    assert end.reached.all() and end.z[2].item() == pytest.approx(0.1) and end.loss[2].item() == pytest.approx(0.1)
    assert end.z[:2].abs().flatten().tolist() == pytest.approx([0.2, 0.2], abs=0.011) and (end.z[:2].abs() < 0.2).all()
    assert len(steps) == end.step + 1 == pytest.approx(81, abs=2)
    assert steps[0].z.equal(start) and steps[40].reached.tolist() == [False, True, True]


def test_edits_may_do_without_realism():
    namer = Namer(3, DIGIT, 8)
    namer.trunk = Picks(4.0)
    objective = towards(namer, {"digit": torch.tensor([2])})
    loss, arrived = objective(torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(math.log(1 + 2 * math.exp(-8)), rel=1e-4) and arrived.tolist() == [True]


# --- the whole ----------------------------------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    """Also where the stop lies before the freezing and the end behind it."""
    run = Run(
        "latent_constraints.LatentConstraints",
        "digits",
        {**SMALL, "vae_steps": 3},
        {"*": Optimizer(lr=1e-3)},
        batch=16,
        steps=6,
        precision="32",
    )
    *_, whole = train(run)
    for name, stop in (("early", 2), ("late", 4)):
        for step in train(run, tmp_path / name):
            if step.step == stop:
                break
        list(train(run, tmp_path / name))
        again = load(tmp_path / name)
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state.model.state_dict().items()), name
    assert whole.state.model.sigma.all()
