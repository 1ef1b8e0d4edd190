"""Gauthier's face GAN: the shapes of its table, the window its conditions come from, and why the released head cannot learn them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import condgen
from condgen.conditions import Attributes, Label, Vector
from condgen.data import load
from condgen.data.cache import data_folder
from condgen.data.priors import KDE
from condgen.data.store import Batch, Content, Dataset
from condgen.errors import BadInput
from condgen.model import Optimizer, Run
from condgen.models.gauthier import Gauthier
from condgen.networks.layers import contrast_normalised
from condgen.networks.maxout import Deconvolution, MaxoutCode
from condgen.training import loop

FACE = {"face": Attributes(("smile", "glasses"), binary=(False, True)), "look": Vector(3)}
SMALL = {"z_dim": 4, "hidden": 12, "channels": 3, "filters": (2, 2, 3), "dense": 6}


def rows(n: int, seed: int = 7) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    face = torch.stack([torch.rand(n, generator=g), (torch.rand(n, generator=g) > 0.5).float()], 1)
    return {"face": face, "look": 6 + torch.tensor([3.0, 1.0, 0.5]) * torch.randn(n, 3, generator=g)}


def started(n: int = 400, **options) -> tuple[Gauthier, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model, c = Gauthier((3, 32, 32), FACE, **{**SMALL, **options}), rows(n)
    model.start(Batch(torch.rand(n, 3, 32, 32), c))
    model.noise.seed(0)
    return model, c


# --- the tables ---------------------------------------------------------------------------------------------------------------


def test_the_maxout_convolutions_leave_16_7_and_5_px():
    net, x, sides = MaxoutCode((3, 32, 32), (4, 4, 6), 10, (0.2, 0.5)), torch.zeros(2, 3, 32, 32), []
    for layer in net.convs:
        x = layer(x)
        sides.append(tuple(x.shape[1:]))
    assert sides == [(4, 16, 16), (4, 7, 7), (6, 5, 5)]
    assert net(torch.zeros(2, 3, 32, 32), {}).shape == (2, 10)


def test_one_transposed_convolution_of_stride_3_makes_32_px():
    net = Deconvolution(130, 50, 8, (3, 32, 32), sigmoid=True, bounded=False)
    assert net.side == (10, 10) and net.second.out_features == 800 and net.picture.stride == (3, 3)
    assert net.bias.shape == (3, 32, 32), "a bias for each pixel"
    assert net(torch.zeros(2, 130), {}).shape == (2, 3, 32, 32)
    assert Deconvolution(5, 5, 2, (1, 28, 28), True, True)(torch.zeros(1, 5), {}).shape == (1, 1, 28, 28)


def test_the_paper_preset_has_the_papers_layers():
    from condgen.models.gauthier import PRESETS

    with torch.device("meta"):
        model = Gauthier((3, 32, 32), {"look": Vector(30)}, **PRESETS["gauthier-lfw-paper"].options)
    count = {name: sum(p.numel() for p in net.parameters()) for name, net in model.G.net.named_children()}
    assert count == {"first": 131 * 8000, "second": 8001 * 8000, "picture": 80 * 3 * 25} and model.G.net.bias.numel() == 3072
    assert model.D.last.in_features == 500 + 30 and model.D.joint is None, "the condition enters the last linear unit only"
    assert (model.D.code.convs[0].dropout.p, model.D.code.convs[1].dropout.p, model.D.dropout.p) == (0.2, 0.5, 0.5)


def test_normalised_pictures_have_no_mean_and_a_norm_of_55():
    x = contrast_normalised(2 * torch.rand(5, 3, 32, 32) - 1, 55.0).flatten(1)
    assert torch.allclose(x.norm(dim=1), torch.full((5,), 55.0), atol=1e-3) and x.mean(1).abs().max() < 1e-5
    assert x.std().item() == pytest.approx(0.992, abs=1e-3)
    assert contrast_normalised(torch.full((1, 1, 4, 4), 0.3), 55.0).isfinite().all(), "a picture of one grey"


def test_a_normalised_picture_is_shown_in_the_usual_light():
    torch.manual_seed(0)
    model, c = Gauthier((3, 32, 32), FACE, gcn=55.0, **SMALL), rows(50)
    x = 0.3 + 0.1 * torch.randn(50, 3, 32, 32)
    model.start(Batch(x, c))
    model.G.net = torch.nn.Identity()
    model.G.net.forward = lambda w, _: contrast_normalised(x, 55.0)
    shown = model.decode(torch.zeros(50, 4), c)
    assert shown.mean().item() == pytest.approx(0.3, abs=0.01) and (shown - x).abs().mean() < 0.01


# --- the window ---------------------------------------------------------------------------------------------------------------


def test_conditions_of_fakes_come_from_the_window():
    """The covariance of what is drawn is that of the rows and sigma^2 beside, in the units that y is read in."""
    model, c = started(4000, bandwidth=0.7)
    drawn = model.near(c)
    read = model.G.read
    std = read.stds()["look"]
    noise = (drawn["look"] - c["look"]) / std
    assert noise.std(0).tolist() == pytest.approx([0.7] * 3, rel=0.03) and abs(noise.mean()) < 0.02
    spread = torch.cov((drawn["look"] / std).T)
    assert torch.allclose(spread, torch.cov((c["look"] / std).T) + 0.49 * torch.eye(3), atol=0.03 * 1.49)
    assert torch.equal(drawn["face"][:, 1], c["face"][:, 1]), "what is 0 or 1 stays so"
    assert drawn["face"][:, 0].min() >= 0 and drawn["face"][:, 0].max() <= 1 and not torch.equal(drawn["face"], c["face"])


def test_the_width_is_chosen_by_cross_validation_unless_it_is_given():
    model, c = started()
    assert float(model.bandwidth) == pytest.approx(KDE(model.G.read.real(c)).bandwidth)
    assert float(started(bandwidth=1.0)[0].bandwidth) == 1.0
    none, c = started(bandwidth=0.0)
    assert all(torch.equal(none.near(c)[k], c[k]) for k in c)


def test_conditions_are_read_standardised_or_as_they_are():
    for standardise in (True, False):
        model, c = started(standardise=standardise)
        y = model.D.read.real(c)
        if standardise:
            assert y.mean(0).abs().max() < 1e-4 and torch.allclose(y.std(0), torch.ones(5), atol=1e-3)
        else:
            assert torch.equal(y, torch.cat([c["face"], c["look"]], 1))


def test_the_width_for_the_faces_is_point_eight():
    """Reference: cross-validation picks .8 for the 30-d vectors, where the released code has 1."""
    if data_folder() is None or not (data_folder() / "lfwcrop32").is_dir():
        pytest.skip("lfwcrop32 is not in CONDGEN_DATA")
    look, held_out = (load("lfwcrop32", split).values()["look"] for split in ("train", "validation"))
    assert KDE(look, held_out=held_out).bandwidth == pytest.approx(0.8, abs=0.1)
    model = Gauthier((3, 32, 32), {"look": Vector(30)}, **SMALL, standardise=False)
    model.start(Batch(torch.zeros(len(look), 3, 1, 1), {"look": look}))
    assert float(model.bandwidth) == pytest.approx(0.8, abs=0.1), "also by folds of the training rows, as a run chooses it"


# --- turns --------------------------------------------------------------------------------------------------------------------


def turns(model: Gauthier, step: int = 0) -> list[dict]:
    model.noise.seed(0)
    return list(model.turns(Batch(torch.rand(6, 3, 32, 32), rows(6)), step))


def test_both_players_move_at_once_or_one_after_the_other():
    assert [set(t) for t in turns(started(update="simultaneous")[0])] == [{"D", "G"}]
    assert [set(t) for t in turns(started()[0])] == [{"D"}, {"G"}]


def test_k_steps_of_d_for_one_of_g():
    model = started(k=3)[0]
    assert [len(turns(model, step)) for step in range(6)] == [1, 1, 2, 1, 1, 2]
    both = started(k=2, update="simultaneous")[0]
    assert [set(turns(both, step)[0]) for step in range(2)] == [{"D"}, {"D", "G"}]


def test_costs_start_at_ln_2_with_a_d_that_cannot_tell():
    model = started(uniform=True)[0]
    (d, g) = turns(model)
    assert d["D"]["game"].mean().item() == pytest.approx(np.log(2), abs=0.02) and g["G"]["game"].mean().item() == pytest.approx(
        np.log(2), abs=0.02
    )


def test_a_grown_model_draws_what_the_plain_one_drew_until_it_is_trained():
    torch.manual_seed(0)
    plain = Gauthier((3, 32, 32), {}, **SMALL)
    grown = Gauthier.from_unconditional(plain, FACE)
    z = torch.randn(3, 4)
    with torch.no_grad():
        before, after = plain.decode(z, {}), grown.decode(z, rows(3))
    assert (before - after).abs().max() < 0.2 and not torch.equal(before, after), "small new weights for y"
    assert torch.equal(grown.G.net.first.weight[:, :4], plain.G.net.first.weight) and grown.G.net.first.weight[:, 4:].abs().max() <= 0.005
    assert all(torch.equal(v, grown.D.code.state_dict()[k]) for k, v in plain.D.code.state_dict().items())
    conv = Gauthier.from_unconditional(Gauthier((3, 32, 32), {}, nets="conv", width=4, z_dim=4), FACE)
    assert conv.decode(z, rows(3)).shape == (3, 3, 32, 32)
    with pytest.raises(BadInput, match="the layers of G are others"):
        Gauthier.from_unconditional(plain, FACE, nets="conv")
    with pytest.raises(BadInput, match="reads face, look already"):
        Gauthier.from_unconditional(grown, FACE)
    with pytest.raises(BadInput, match="keep the options"):
        Gauthier.from_unconditional(plain, FACE, hidden=20)


def test_a_gan_that_left_its_run_is_grown_with_a_fresh_d(tmp_path):
    Gauthier((3, 32, 32), {}, **SMALL).save_pretrained(tmp_path)
    plain = Gauthier.from_pretrained(tmp_path)
    grown = Gauthier.from_unconditional(plain, FACE)
    assert torch.equal(grown.G.net.second.weight, plain.G.net.second.weight) and grown.D.last is not None


def test_what_cannot_be_is_refused():
    for options, says in (
        ({"dropout": (2.0, 0.5)}, "dropout is"),
        ({"bandwidth": -1.0}, "bandwidth is -1"),
        ({"r1": -1.0}, "r1 is -1"),
        ({"gcn": -5.0}, "gcn is -5"),
        ({"filters": (2, 2)}, "expected 3 numbers"),
        ({"head": "sum"}, "head 'sum'"),
        ({"update": "both"}, "update 'both'"),
        ({"nets": "conv", "gcn": 55.0}, "gcn is 55"),
    ):
        with pytest.raises(BadInput, match=says):
            Gauthier((3, 32, 32), FACE, **{**SMALL, **options})
    for side, says in ((2, "at least 3 px"), (3, "at least 8 px")):
        with pytest.raises(BadInput, match=says):
            Gauthier((3, side, side), FACE, **SMALL)


def test_a_plain_gan_is_trained_and_its_grown_one_trained_on(tmp_path):
    options = {**SMALL, "nets": "conv", "width": 4}
    run = Run("gauthier.Gauthier", "digits", options, conditions=("none",), batch=8, steps=2, precision="32", sample_every=0)
    *_, last = condgen.train(run, tmp_path / "plain")
    plain = last.state.model
    assert plain.schema == {}
    grown = Gauthier.from_unconditional(plain, condgen.api.dataset(run).schema)
    with pytest.raises(BadInput, match="cannot begin with this model: schema is"):
        next(condgen.train(run, model=grown))
    before = grown.G.net.dense.weight.clone()
    run = replace(run, conditions=())
    *_, last = condgen.train(run, tmp_path / "grown", model=grown)
    assert last.state.model is grown and not torch.equal(grown.G.net.dense.weight, before)
    assert (grown.G.net.dense.weight - before).abs().max() < 0.01, "two steps away from where it was grown"
    assert condgen.load(tmp_path / "grown").sample({"digit": 3}, n=2, seed=0).shape == (2, 1, 8, 8)


# --- the heads ----------------------------------------------------------------------------------------------------------------


def four_classes(n: int = 4000) -> Dataset:
    g = torch.Generator().manual_seed(0)
    k = torch.randint(4, (n,), generator=g)
    x = 2 * torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])[k] + 0.2 * torch.randn(n, 2, generator=g)
    return Dataset("four", "train", Content(x.numpy(), {"k": k}, {"k": Label(("a", "b", "c", "d"))}))


@pytest.mark.parametrize("head, low, high", [("additive", 0.0, 0.35), ("joint", 0.99, 1.0), ("projection", 0.99, 1.0)])
def test_an_additive_head_cannot_learn_conditions(head, low, high):
    """Four classes of points in the corners of a square: which corner a sample is drawn in, given the one asked for."""
    options = {"head": head, "z_dim": 4, "width": 32, "dense": 32, "r1": 0.1}
    run = Run(
        "gauthier.Gauthier",
        "four",
        options,
        {"*": Optimizer(lr=2e-3, betas=(0.0, 0.99))},
        batch=128,
        steps=500,
        precision="32",
        log_every=0,
    )
    data = four_classes()
    torch.manual_seed(0)
    model = Gauthier((2,), data.schema, **options)
    for _ in loop.train(replace(run, sample_every=0, save_every=0), model, data):
        pass
    asked = torch.arange(4).repeat(250)
    x = model.sample({"k": asked}, seed=0)
    drawn = 2 * (x[:, 0] < 0).long() + (x[:, 1] < 0).long()
    assert low <= (drawn == asked).float().mean() <= high
    assert len(drawn.unique()) >= 3, "with either head, the points themselves are drawn"
