"""StyleGAN: its two turns, lazy penalties, growing, augmentation, and a run that stops in the middle of growing."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tiny
from condgen import api
from condgen.conditions import Label
from condgen.data.store import Batch
from condgen.errors import BadInput
from condgen.model import Optimizer, Run
from condgen.models import stylegan
from condgen.models.stylegan import StyleGAN
from condgen.networks.augment import SPEED_IMAGES
from condgen.training import loop

TINY = {"z_dim": 6, "width": 4, "widest": 8, "depth": 2}
RUN = Run(
    "stylegan.StyleGAN",
    "",  # `run_on` names the file
    options=TINY | {"lazy": 4, "mirror": True},
    optimizers={"*": Optimizer(lr=2e-3, betas=(0.0, 0.99))},
    split="train",
    batch=8,
    steps=10,
    half_life_images=100.0,
    precision="32",
    save_every=0,
    sample_every=0,
    log_every=1,
)


def small(schema=None, side=16, **options):
    torch.manual_seed(0)
    model = StyleGAN((1, side, side), schema or {}, **TINY | options)
    model.noise.seed(0)
    return model


def batch(n=4, side=16):
    return Batch(2 * torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(1)) - 1, {})


def turns(model, step=0, data=None):
    """The terms of D's turn and of G's, of one step that moves nobody."""
    d, g = model.turns(data or batch(), step)
    return d["D"], g["G"]


def moved(loss, net):
    found = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True, allow_unused=True)
    return sum(float(g.abs().sum()) for g in found if g is not None)


# --- turns --------------------------------------------------------------------------------------------------------------------


def test_the_losses_are_the_logistic_ones():
    model = small(r1=0.0, mixing=0.0, pixel_noise=False)
    d, g = turns(model)
    model.noise.seed(0)
    fake = model.G(model.by_layer(model.mapping(model.noise.normal(4, 6), {})), [])
    real_logit, fake_logit = model.D(batch().x, {})[:, 0], model.D(fake, {})[:, 0]
    assert torch.allclose(d["game"], F.softplus(-real_logit) + F.softplus(fake_logit), atol=1e-6) and set(d) == {"game"}
    assert torch.allclose(g["game"], F.softplus(-fake_logit), atol=1e-6)


def test_g_moves_mapping_and_synthesis_and_d_neither():
    model = small()
    d, g = turns(model)
    assert model.players() == {"D": [model.D], "G": [model.F, model.G]}
    assert moved(d["game"].sum(), model.D) > 0
    assert moved(d["game"].sum(), model.G) == moved(d["game"].sum(), model.F) == 0
    assert moved(g["game"].sum(), model.G) > 0 and moved(g["game"].sum(), model.F) > 0


@pytest.mark.parametrize("penalty", ["r1", "r2", "gp"])
def test_lazy_penalties_have_the_mean_of_those_of_every_step(penalty):
    """With the same data and noise at every step: what `lazy` steps descend together is the same."""
    sums = {}
    for lazy in (1, 4):
        model = small(**{"r1": 0.0, penalty: 0.7, "lazy": lazy})
        total, count = torch.zeros(()), 0
        for step in range(8):
            model.noise.seed(5)
            d, _ = turns(model, step)
            total, count = total + d.get(penalty, torch.zeros(1)).mean(), count + (penalty in d)
        sums[lazy] = total.item()
        assert count == 8 // lazy
    assert sums[1] > 0 and sums[4] == pytest.approx(sums[1], rel=1e-4)


def sums_of_r1(lazy, offset=0):
    """R1 and its gradient in D, summed over 24 batches; the first is that of step `offset`. Batches and noise are by their number."""
    model, value, gradient = small(r1=1.0, lazy=lazy, mixing=0.0, pixel_noise=False), 0.0, torch.zeros(())
    parameters = list(model.D.parameters())
    for i in range(24):
        model.noise.seed(i)
        data = Batch(torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(i)), {})
        term = next(model.turns(data, offset + i))["D"].get("r1")
        if term is not None:
            found = torch.autograd.grad(term.mean(), parameters, allow_unused=True, materialize_grads=True)
            value, gradient = value + term.mean().item(), gradient + torch.cat([g.flatten() for g in found])
    return value, gradient


def test_lazy_and_every_step_agree_in_expectation():
    """Over which of the steps are the lazy ones: the means of the four sums, and of their gradients, are those of every step. The four
    themselves differ, but by no more than other batches would make them."""
    value, gradient = sums_of_r1(1)
    values, gradients = zip(*(sums_of_r1(4, offset) for offset in range(4)), strict=True)
    assert sum(values) / 4 == pytest.approx(value, rel=1e-5)
    assert torch.allclose(sum(gradients) / 4, gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))
    assert len(set(values)) == 4 and list(values) == pytest.approx([value] * 4, rel=0.25)


def test_r1_is_half_gamma_times_the_squared_gradient():
    model, data = small(r1=0.8, lazy=3, group=1), batch()
    d, _ = turns(model, 3)
    x = data.x.clone().requires_grad_()
    (g,) = torch.autograd.grad(model.D(x, {}).sum(), x)
    assert torch.allclose(d["r1"], 3 * 0.4 * g.square().sum((1, 2, 3)), rtol=1e-4)
    assert "r1" not in turns(model, 4)[0]


def test_drift_keeps_ds_logits_small():
    model = small(drift=0.5, r1=0.0)
    d, _ = turns(model)
    assert torch.allclose(d["drift"], 0.5 * model.D(batch().x, {})[:, 0].square(), atol=1e-6)


def test_path_length_is_asked_at_its_own_steps_and_from_a_running_mean():
    model = small(path_length=2.0, path_lazy=3, r1=0.0, mixing=0.0)
    assert "path_length" not in turns(model, 1)[1] and model.path_mean == 0
    _, g = turns(model, 3)
    a = model.path_mean.item()
    lengths = (g["path_length"].detach() / (3 * 2.0)).sqrt() + a  # it is (length - a)^2, and a is .01 of the first lengths' mean
    assert a > 0 and lengths.mean().item() == pytest.approx(100 * a, rel=1e-3)
    assert moved(g["path_length"].sum(), model.G) > 0


def test_mirroring_is_of_half_the_training_pictures():
    model, x = small(mirror=True), torch.arange(16.0).view(1, 1, 1, 16).expand(4000, 1, 4, 16)
    found = model.mirrored(x)
    flipped = (found[:, 0, 0, 0] == 15).float().mean().item()
    assert flipped == pytest.approx(0.5, abs=0.05)
    assert torch.equal(found.sort(3)[0], x) and small().mirrored(x) is x


# --- augmentation -------------------------------------------------------------------------------------------------------------


def test_augmentation_sees_both_kinds_and_g_descends_through_it():
    model, seen = small(ada=0.6, r1=1.0), []
    model.augment.p.fill_(0.9)
    plain = model.augment.forward
    model.augment.forward = lambda x, u, g: seen.append(len(x)) or plain(x, u, g)
    d, g = turns(model)
    assert seen == [4, 4, 4], "real and fake for D, fake for G"
    assert moved(g["game"].sum(), model.G) > 0 and moved((d["game"] + d["r1"]).sum(), model.D) > 0
    assert abs(float(model.augment.p) - 0.9) == pytest.approx(4 / SPEED_IMAGES, rel=0.05)


def test_at_probability_zero_augmentation_changes_no_loss():
    one, other = (turns(small(ada=ada, mixing=0.0, pixel_noise=False))[0]["game"] for ada in (0.0, 0.6))
    assert torch.equal(one, other)


def test_without_a_target_nothing_is_augmented():
    model, x = small(), batch().x
    assert model.augment is None and model.augmented(x) is x


# --- growing ------------------------------------------------------------------------------------------------------------------


def test_each_resolution_is_trained_and_then_the_next_fades_in():
    model = small(side=32, grow_steps=4)  # 4, 8, 16, 32 px: begins at 8
    stages = [model.grow(step) for step in range(20)]
    assert stages[:4] == [1.0] * 4 and stages[4:8] == [1.0, 1.25, 1.5, 1.75]
    assert stages[8:12] == [2.0] * 4 and stages[12:16] == [2.0, 2.25, 2.5, 2.75]
    assert stages[16:] == [None] * 4 and model.stage == 3 and model.shown is None
    assert small(side=32).grow(0) is None


def test_real_pictures_have_the_detail_that_generated_ones_have():
    model, x = small(side=32, grow_steps=4), batch(side=32).x
    assert torch.equal(model.at_stage(x, None), x)
    assert torch.allclose(model.at_stage(x, 1.0), F.avg_pool2d(x, 4)) and torch.allclose(model.at_stage(x, 2.0), F.avg_pool2d(x, 2))
    large, small_ = F.avg_pool2d(x, 2), F.avg_pool2d(x, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(model.at_stage(x, 1.25), 0.75 * small_ + 0.25 * large, atol=1e-6)


@pytest.mark.parametrize("step, side", [(0, 8), (5, 16), (9, 16), (13, 32), (16, 32)])
def test_nets_see_the_size_of_their_stage_and_samples_have_the_full_one(step, side):
    model, seen = small(side=32, grow_steps=4), []
    model.D.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[2]))
    turns(model, step, batch(side=32))
    assert set(seen) == {side} and len(seen) == 3
    x = model.sample(n=2, seed=0)
    assert x.shape == (2, 1, 32, 32)
    blocks = x.unflatten(2, (side, -1)).unflatten(4, (side, -1))
    assert torch.allclose(blocks, blocks[:, :, :, :1, :, :1].expand_as(blocks)), "what was not learnt yet is not drawn"


def test_crossovers_fall_among_the_layers_of_the_stage():
    """A crossover behind the last layer in use would mix nothing."""
    model, drawn = small(side=32, grow_steps=4, mixing=1.0), []
    model.G.register_forward_pre_hook(lambda _, given: drawn.append(given[0]))
    for _ in range(40):
        turns(model, 0, batch(side=32))  # 8 px: four layers
    cuts = {int((w[0] == w[0, 0]).all(1).sum()) for w in drawn}
    assert cuts == {1, 2, 3}


def test_growing_off_and_on_end_in_the_same_nets_but_for_the_smaller_pictures():
    plain, growing = (set(dict(small(grow_steps=n).named_parameters())) for n in (0, 4))
    extra = growing - plain
    assert plain < growing and {name.rsplit(".", 2)[0].rsplit(".", 1)[0] for name in extra} <= {"G.pictures", "D.colours", "G.pictures.0"}


# --- runs ---------------------------------------------------------------------------------------------------------------------

GROWING = replace(RUN, options=RUN.options | {"grow_steps": 3, "ada": 0.6, "path_length": 2.0, "path_lazy": 2})


@pytest.fixture(scope="module")
def run_on(tmp_path_factory):
    """The run, on 40 pictures of 16 px: of 4, 8 and 16 px, so that it grows once."""
    file = tmp_path_factory.mktemp("data") / "set.npz"
    np.savez(file, x=np.random.default_rng(0).integers(0, 256, (50, 16, 16, 1), dtype=np.uint8))
    return lambda run: replace(run, data=str(file))


@pytest.mark.parametrize("stop", [2, 4, 7])
def test_stopping_while_it_grows_changes_nothing(stop, run_on, tmp_path):
    run = run_on(GROWING)
    whole = tiny.trained(run)
    assert tiny.trained(run, tmp_path, stop=stop).step == stop
    assert float(tiny.saved(tmp_path).tensors["model"]["stage"]) == pytest.approx({2: 1.0, 4: 1.0, 7: 2.0}[stop])
    tiny.assert_same(tiny.trained(run, tmp_path), whole)


def test_the_average_is_of_weights_and_not_of_what_the_run_has_reached(run_on):
    """An averaged stage would lag behind for ever: the model that leaves a run draws at the stage it was trained at."""
    state = tiny.trained(run_on(replace(GROWING, steps=8, half_life_images=10_000.0)))
    assert float(state.model.stage) == 2.0
    assert float(state.ema.tensors["stage"]) == 2.0
    assert float(state.ema.tensors["path_mean"]) == float(state.model.path_mean)
    assert float(state.ema.tensors["augment.p"]) == float(state.model.augment.p)


def test_the_mean_of_w_is_followed_through_a_run(run_on):
    """What the batches' own means leave in it is known: .005 of each, times .995 for every later one."""
    run, means = run_on(replace(RUN, steps=6)), []
    loaded = api.dataset(run)
    model = api.build(run, loaded)
    plain = model.remember
    model.remember = lambda w: means.append(w.detach().mean(0)) or plain(w)
    *_, last = loop.train(run, model, loaded)
    expected = sum(0.005 * 0.995 ** (6 - i) * mean for i, mean in enumerate(means, 1))
    assert len(means) == 6 and torch.allclose(last.state.model.w_mean, expected, atol=1e-6)


def test_the_game_is_conditional():
    """D's logits and w depend on the label; psi draws to the mean of each label."""
    model = small(schema={"digit": Label(tuple("0123456789"))})
    x, z = batch(2).x[:1].expand(2, 1, 16, 16), torch.randn(1, 6).expand(2, 6)
    c = {"digit": torch.tensor([1, 7])}
    assert not torch.allclose(*model.D(x, c)) and not torch.allclose(*model.mapping(z, c))
    model.psi = 0.0
    found = model.decode(torch.randn(4, 6), {"digit": torch.tensor([1, 7, 1, 7])})
    assert torch.allclose(found[:2], found[2:], atol=1e-5) and not torch.allclose(found[0], found[1], atol=1e-3)


# --- presets ------------------------------------------------------------------------------------------------------------------


def test_the_rows_of_table_1_differ_by_what_they_add():
    rows = [stylegan.PRESETS[f"stylegan-lfw32-{letter}"] for letter in "abcdef"]
    options = [StyleGAN((3, 16, 16), **{**row.options, "z_dim": 8, "width": 4, "widest": 8}) for row in rows]
    assert [m.F.layers.__len__() for m in options] == [0, 0, 8, 8, 8, 8]
    assert [m.G.layers[1].kind for m in options] == ["plain"] * 2 + ["adain"] * 4
    assert [isinstance(m.G.first, torch.nn.Parameter) for m in options] == [False] * 3 + [True] * 3
    assert [m.G.noisy for m in options] == [False] * 4 + [True] * 2
    assert [m.mixing for m in options] == [0.0] * 5 + [0.9]
    assert [m.D.halvings[0].blur is not None for m in options] == [False] + [True] * 5
    assert [bool(m.penalties["gp"]) for m in options] == [True] + [False] * 5
    assert len({row.steps for row in rows}) == len({row.batch for row in rows}) == 1, "an equal budget"


@pytest.mark.parametrize("letter", "ab")
def test_without_styles_the_first_layer_tells_samples_apart_at_its_corner_too(letter):
    model = StyleGAN((3, 16, 16), **stylegan.PRESETS[f"stylegan-lfw32-{letter}"].options | {"z_dim": 8, "width": 4, "widest": 8})
    w = model.mapping(torch.randn(100, 8), {})
    first = model.G.layers[0](model.G.begin(w), w, None)
    apart = first.std(0).mean(0)
    assert first.shape == (100, 8, 4, 4) and apart[0, 0] > 0.5 * apart.mean() > 0.1


PENALTIES = ("r1", "r2", "gp", "drift", "path_length")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"style": "adian"}, "unknown style 'adian': did you mean 'adain'"),
        ({"style": "plain", "mixing": 0.0}, "'plain' reads w at its input alone: set constant to false and mixing to 0"),
        ({"style": "plain", "constant": False}, "set constant to false and mixing to 0"),
        ({"style": "plain", "constant": False, "mixing": 0.1}, "set constant to false and mixing to 0"),
        ({"mixing": 1.5}, "mixing"),
        ({"ada": -0.1}, "ada"),
        ({"grow_steps": 1.5}, "grow_steps"),
        ({"depth": -1}, "depth"),
        ({"lazy": 0}, "lazy"),
        *(
            ({name: 2.5}, f"{name} is 2.5; expected a whole")
            for name in ("z_dim", "width", "widest", "lazy", "path_lazy", "group", "depth")
        ),
        *(({name: bad}, f"{name} is {bad}; expected a number of at least 0") for name in PENALTIES for bad in (-0.5, math.nan)),
        ({"mixing": math.nan}, "mixing is nan"),
        ({"game": "hing"}, "unknown game 'hing'"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options, message):
    with pytest.raises(BadInput, match=message):
        small(**options)


def test_w_of_a_wrong_shape_is_refused():
    with pytest.raises(BadInput, match=r"w of shape \(2, 5\); expected \(b, 6\), or \(b, 6, 6\): one for each layer"):
        small().synthesis(torch.zeros(2, 5))


def test_noise_is_the_models_own_unless_given():
    model = small()
    with torch.no_grad():
        for layer in model.G.layers:
            layer.noise.fill_(0.3)
    w = model.mapping(torch.randn(2, 6), {})
    assert torch.equal(model.synthesis(w), model.synthesis(w))
    one, other = (model.synthesis(w, model.draw_noise(2)) for _ in range(2))
    assert not torch.allclose(one, other, atol=1e-3)
    assert [tuple(n.shape) for n in model.draw_noise(3)] == [(3, 1, s, s) for s in model.layer_sides]
    assert small(pixel_noise=False).draw_noise(3) == []
