"""The task-specific cost: its weights, its two forms of G's loss, and that pi decides between covering and choosing."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from condgen import api
from condgen.data.store import Batch
from condgen.errors import BadInput
from condgen.models.pigan import PiGAN
from condgen.objectives.games import task_specific
from condgen.training import loop


@pytest.mark.parametrize("pi", [0.1, 0.5, 0.9])
def test_the_weighted_game(pi):
    real, fake = torch.randn(7), torch.randn(7)
    game = task_specific(pi)
    assert torch.allclose(game.d(real, fake), -pi * F.logsigmoid(real) - (1 - pi) * F.logsigmoid(-fake), atol=1e-6)
    assert torch.allclose(game.g(fake, None), (1 - pi) * F.logsigmoid(-fake), atol=1e-6), "minimax: G descends its term of the same value"
    assert torch.allclose(task_specific(pi, "non_saturating").g(fake, None), -F.logsigmoid(fake), atol=1e-6)


def test_at_the_best_d_the_value_is_the_weighted_divergence():
    """V(D*) = JS_pi + pi log pi + (1 - pi) log(1 - pi), by sums over a grid."""
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    p, q = (torch.distributions.Normal(m, s).log_prob(x).exp() for m, s in ((-1.0, 0.7), (0.5, 1.2)))
    pi, dx = 0.3, x[1] - x[0]
    best = torch.log(pi * p) - torch.log((1 - pi) * q)
    value = -(dx * (p * pi * F.softplus(-best) + q * (1 - pi) * F.softplus(best))).sum()
    m = pi * p + (1 - pi) * q
    js = (dx * (pi * p * (p / m).log() + (1 - pi) * q * (q / m).log())).sum()
    entropy = pi * torch.tensor(pi).log() + (1 - pi) * torch.tensor(1 - pi).log()
    assert value.item() == pytest.approx((js + entropy).item(), abs=1e-5)


@pytest.mark.parametrize("pi, covers", [(0.05, True), (0.9, False)])
def test_a_small_pi_covers_and_a_large_pi_picks_a_mode(pi, covers):
    """A normal of learnt mean and deviation on .7 N(-2, .5^2) + .3 N(2, .5^2): by quadrature N(-.80, 1.90^2), N(-2.00, .50^2)."""
    run = api.preset("pigan-mixture1d")
    quiet = {"sample_every": 0, "save_every": 0, "log_every": 0}
    run = replace(run, options={**run.options, "pi": pi}, steps=2000, batch=128, half_life_images=10_000, **quiet)
    data = api.dataset(run)
    *_, last = loop.train(run, api.build(run, data), data)
    last.state.ema.swap()
    mean, std = last.state.model.G.mean.item(), last.state.model.G.log_std.exp().item()
    if covers:
        assert std >= 1.5 and mean == pytest.approx(-0.8, abs=0.3)
    else:
        assert std <= 0.8 and mean == pytest.approx(-2.0, abs=0.2)


def test_features_are_the_released_codes_50176_numbers():
    with torch.device("meta"):
        model = PiGAN((1, 105, 105), nets="paper", z_dim=2)
        assert model.features(torch.zeros(2, 1, 105, 105)).shape == (2, 256 * 14 * 14)
    assert PiGAN((1, 25, 25), nets="paper").decode(torch.zeros(2, 64), {}).shape == (2, 1, 25, 25)


def test_features_leave_a_run_and_the_last_layer_does_not(tmp_path):
    torch.manual_seed(0)
    model = PiGAN((1, 8, 8), width=4, z_dim=4).eval()
    model.save_pretrained(tmp_path)
    again, x = PiGAN.from_pretrained(tmp_path), torch.rand(3, 1, 8, 8)
    assert torch.equal(again.features(x), model.features(x)) and not hasattr(again, "D")


@pytest.mark.parametrize("joint", [True, False])
def test_batches_are_shown_together_or_apart(joint):
    """With batch statistics it matters: apart, each half is normalised by its own."""
    torch.manual_seed(0)
    model = PiGAN((1, 8, 8), nets="paper", joint_batch=joint, z_dim=4)
    x, fake = torch.rand(6, 1, 8, 8), 5 + torch.rand(6, 1, 8, 8)
    real, _ = model.judged(x, fake)
    alone = model.D(model.features(x))[:, 0]
    assert torch.allclose(real, alone, atol=1e-5) is not joint


def test_k_steps_of_d():
    model = PiGAN((2,), k=3, width=4)
    model.noise.seed(0)
    counts = [len(list(model.turns(Batch(torch.rand(4, 2), {}), step))) for step in range(6)]
    assert counts == [1, 1, 2, 1, 1, 2]


def test_what_cannot_be_is_refused():
    for options, says in (({"pi": 0.0}, "pi is 0.0"), ({"pi": 1}, "pi is 1"), ({"g_loss": "ns"}, "g_loss 'ns'")):
        with pytest.raises(BadInput, match=says):
            PiGAN((1, 8, 8), **options)
    with pytest.raises(BadInput, match="nets='paper' are for pictures"):
        PiGAN((2,), nets="paper")
