"""ALAE and StyleALAE: who moves in each turn, what reciprocity asks, and one pass backwards for players of one loss."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric

from condgen.conditions import Label
from condgen.data.store import Batch
from condgen.errors import BadInput
from condgen.model import Optimizer, Run
from condgen.models.alae import ALAE, PRESETS, StyleALAE
from condgen.training.state import begin
from condgen.training.turns import descend
from styled import styled

DIGIT = {"digit": Label(tuple("0123456789"))}
FABRIC = Fabric(accelerator="cpu", devices=1, precision="32-true")


def small(cls=ALAE, schema=None, **options):
    torch.manual_seed(0)
    given = {"hidden": (16,)} if cls is ALAE else {"width": 4, "widest": 8}
    model = cls((1, 8, 8), schema or {}, **{"z_dim": 5, "depth": 2, **given, **options})
    model.noise.seed(0)
    return model


def batch(n=4, c=None):
    return Batch(2 * torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1)) - 1, c or {})


def game_of(model, data=None, step=0):
    return list(model.turns(data or batch(), step))


def reached(terms, model):
    """The nets that this loss has a gradient in."""
    loss, names = sum(v.sum() for v in terms.values()), []
    for name in "FGED":
        found = torch.autograd.grad(loss, list(getattr(model, name).parameters()), retain_graph=True, allow_unused=True)
        names += [name] if any(g is not None and g.abs().sum() > 0 for g in found) else []
    return "".join(names)


both = pytest.mark.parametrize("cls", [ALAE, StyleALAE])


# --- turns --------------------------------------------------------------------------------------------------------------------


@both
def test_who_moves_in_each_turn_of_algorithm_1(cls):
    discriminate, generate, reciprocate = game_of(small(cls))
    assert [set(turn) for turn in (discriminate, generate, reciprocate)] == [{"E", "D"}, {"F", "G"}, {"E", "G"}]
    assert set(discriminate["E"]) == {"game", "r1"} and set(generate["F"]) == {"game"} and set(reciprocate["E"]) == {"reciprocity"}


@both
def test_where_the_losses_reach(cls):
    """(1) never the generator; (2) all, of which F and G move; (3) neither D nor, in the paper, F."""
    model = small(cls, mixing=0.0) if cls is StyleALAE else small()
    discriminate, generate, reciprocate = game_of(model)
    assert reached(discriminate["E"], model) == "ED"
    assert reached(generate["F"], model) == "FGED"
    assert reached(reciprocate["E"], model) == "GE"


@both
def test_as_released_reciprocity_moves_f_too(cls):
    model = small(cls, reciprocity_moves_f=True)
    *_, reciprocate = game_of(model)
    assert set(reciprocate) == {"E", "G", "F"} and reached(reciprocate["F"], model) == "FGE"


def test_the_target_is_detached():
    """As released F is reached through G's input alone: with a G that is cut off w, nothing arrives."""
    model = small(reciprocity_moves_f=True)
    with torch.no_grad():
        model.G.layers[0].weight.zero_()
    *_, reciprocate = game_of(model)
    assert "F" not in reached(reciprocate["F"], model)


def test_the_losses_are_the_papers():
    model, data = small(r1=0.8, lazy=2, reciprocity=3.0), batch()
    discriminate, generate, reciprocate = game_of(model, data)
    model.noise.seed(0)
    z = []
    for _ in range(2):  # each of (1) and (2) draws latents, and whether to mix
        z.append(model.noise.normal(4, 5))
        model.noise.uniform(1)
    z.append(model.noise.normal(4, 5))
    pictures = [model.G(model.mapping(latent, {})[:, None], []) for latent in z]
    logit = lambda x: model.D(model.E(x), {})
    x = data.x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(logit(x).sum(), x)
    assert torch.allclose(discriminate["E"]["game"], F.softplus(logit(pictures[0])) + F.softplus(-logit(data.x)), atol=1e-5)
    assert torch.allclose(discriminate["E"]["r1"], 2 * 0.4 * slope.square().sum((1, 2, 3)), rtol=1e-4)
    assert torch.allclose(generate["F"]["game"], F.softplus(-logit(pictures[1])), atol=1e-5)
    off = model.mapping(z[2], {}) - model.E(pictures[2])
    assert torch.allclose(reciprocate["E"]["reciprocity"], 3.0 * off.square().mean(1), rtol=1e-4)
    assert set(game_of(model, data, 1)[0]["E"]) == {"game"}, "R1 is lazy"


def test_reciprocity_is_never_of_mixed_styles():
    model, drawn = small(StyleALAE, mixing=1.0), []
    model.G.register_forward_pre_hook(lambda _, given: drawn.append(given[0]))
    game_of(model)
    mixed = [not torch.equal(w, w[:, :1].expand_as(w)) for w in drawn]
    assert mixed == [True, True, False]


@pytest.mark.parametrize("stretch", [1.0, 1.1])
def test_reciprocity_is_zero_where_the_encoder_reads_w_and_else_the_error_in_w(stretch):
    """E is the inverse of G, both of one layer, but for a factor: then E(G(w)) - w is that factor less one, times w."""
    model, drawn = small(hidden=(), z_dim=64, depth=1), []
    model.G.register_forward_pre_hook(lambda _, given: drawn.append(given[0]))
    with torch.no_grad():
        g = torch.linalg.qr(torch.randn(64, 64))[0]
        model.G.last.weight.copy_(g / model.G.last.scale)
        model.E.layers[0].weight.copy_(stretch * g.T / model.E.layers[0].scale)
        model.F.layers[0].bias.fill_(100.0)  # w is above zero, which the rectifier behind E leaves as it is
    *_, reciprocate = game_of(model)
    w = drawn[-1][:, 0]
    assert w.min() > 1 and w.std() > 0.1
    found = reciprocate["E"]["reciprocity"]
    assert torch.allclose(found, (stretch - 1) ** 2 * w.square().mean(1), rtol=1e-3, atol=1e-8) and (found > 1e-3).all() == (stretch > 1)


# --- nets ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linear", [True, False])
def test_the_critic_is_linear_in_w_when_told(linear):
    critic = small(linear_critic=linear).D
    a, b = torch.randn(2, 16, 5).unbind(0)
    middle = (critic(a, {}) + critic(b, {})) / 2
    assert torch.allclose(critic((a + b) / 2, {}), middle, atol=1e-5) == linear


def test_the_dense_nets_do_not_know_where_a_pixel_stands():
    """The columns of E's first layer and the rows of G's last, reordered, are the same model of reordered pixels."""
    model, order = small(), torch.randperm(64)
    x, w = torch.randn(3, 64), torch.randn(3, 5)
    code, drawn = model.E(x), model.G(w[:, None], []).flatten(1)
    with torch.no_grad():
        model.E.layers[0].weight.copy_(model.E.layers[0].weight[:, order])
        model.G.last.weight.copy_(model.G.last.weight[order])
    assert torch.allclose(model.E(x[:, order]), code, atol=1e-5)
    assert torch.allclose(model.G(w[:, None], []).flatten(1), drawn[:, order], atol=1e-5)


@both
def test_f_and_d_read_conditions_and_e_and_g_do_not(cls):
    model = small(cls, DIGIT)
    c, w = {"digit": torch.tensor([1, 7])}, torch.randn(1, 5).expand(2, 5)
    assert not torch.allclose(*model.mapping(w, c)) and not torch.allclose(*model.D(w, c))
    x = batch(2).x
    other = {"digit": torch.tensor([0, 0])}
    assert torch.equal(model.encode(x, c), model.encode(x, other)) and torch.equal(model.decode(w, c), model.decode(w, other))


@both
def test_the_latent_is_w_and_psi_acts_on_the_prior(cls):
    model = small(cls)
    model.w_mean.copy_(torch.arange(5.0))
    model.psi = 0.0
    assert torch.allclose(model.prior(3, {}), torch.arange(5.0).expand(3, 5))
    w = torch.randn(3, 5)
    assert torch.equal(model.decode(w, {}), model.synthesis(w).clamp(-1, 1)), "what is decoded is never truncated"
    assert model.walk == "lerp" and model.encode(batch().x, {}).shape == (4, 5)


def test_layers():
    assert small().layer_sides == (1,) and small().draw_noise(2) == []
    assert small(StyleALAE).layer_sides == (4, 4, 8, 8) and styled(StyleALAE).layer_sides == (4, 4, 8, 8, 16, 16)
    assert small(StyleALAE, pixel_noise=False).draw_noise(2) == []


def test_the_first_features_are_those_of_the_first_layer():
    model, x = small(), batch().x
    assert torch.allclose(model.features(x), F.leaky_relu(model.E.layers[0](x.flatten(1)), 0.2)) and model.features(x).shape == (4, 16)
    assert small(StyleALAE).features(x).dim() == 2


@pytest.mark.parametrize("options, message", [({"critic_depth": -1}, "critic_depth"), ({"r1": -1.0}, "r1"), ({"game": "hing"}, "hing")])
@both
def test_options_out_of_range_are_refused(cls, options, message):
    with pytest.raises(BadInput, match=message):
        small(cls, **options)


def test_the_released_preset_differs_by_its_two_switches():
    paper, released = PRESETS["alae-mnist"], PRESETS["alae-mnist-released"]
    assert dict(released.options) == dict(paper.options) | {"linear_critic": True, "reciprocity_moves_f": True}
    assert replace(released, name=paper.name, options=paper.options, source=paper.source) == paper


# --- one pass backwards for players of one loss -------------------------------------------------------------------------------


def gradients(model, turn):
    """Of each player in its own parameters, by the loop's own function."""
    state = begin(model, Run("alae.ALAE", "digits", optimizers={"*": Optimizer("SGD", lr=0.1)}))
    model.zero_grad(set_to_none=True)
    means = descend(turn, state, FABRIC, 1.0)
    return means, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@both
@pytest.mark.parametrize("which", [0, 1, 2])
def test_shared_terms_have_the_gradients_of_separate_passes(cls, which):
    found = []
    for apart in (False, True):
        model = small(cls, r1=0.5)
        turns = model.turns(batch(), 0)
        turn = [next(turns) for _ in range(which + 1)][which]
        found.append(gradients(model, {player: dict(terms) for player, terms in turn.items()} if apart else turn))
    (means, together), (means_apart, each) = found
    assert means.keys() == means_apart.keys() and together.keys() == each.keys() and together
    assert all(torch.allclose(means[k], means_apart[k]) for k in means)
    assert all(torch.allclose(together[k], each[k], atol=1e-6) for k in together)
    moving = {name.split(".")[0] for name in together}
    assert moving == [{"E", "D"}, {"F", "G"}, {"E", "G"}][which]


def test_shared_terms_are_passed_back_once(monkeypatch):
    passes = []
    monkeypatch.setattr(FABRIC, "backward", lambda loss, **options: passes.append(len(options["inputs"])))
    model = small()
    turn = next(model.turns(batch(), 0))
    gradients(model, turn)
    gradients(model, {player: dict(terms) for player, terms in turn.items()})
    e, d = (len(list(net.parameters())) for net in (model.E, model.D))
    assert passes == [e + d, e, d]
