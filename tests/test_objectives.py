"""Every objective against a closed form, `torch.distributions` or finite differences, written here without it."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from condgen.conditions import Vector
from condgen.data.store import Batch
from condgen.model import APART
from condgen.models.cvae import CVAE
from condgen.models.vae import VAE, floored, warmed
from condgen.objectives.divergences import kl_normal, kl_standard_normal
from condgen.objectives.games import GAMES
from condgen.objectives.penalties import between, squared_gradient, unit_gradient
from condgen.objectives.reconstruction import bernoulli_nll, normal_log_prob, normal_nll, squared_error

ONE, ZERO = torch.ones(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)


def bce(logit, target):
    return F.binary_cross_entropy(torch.sigmoid(logit), target, reduction="none")


# game -> (D's loss, G's loss), of (real, fake), as the papers write them: with probabilities, not with softplus.
BY_HAND = {
    "minimax": (lambda r, f: bce(r, ONE) + bce(f, ZERO), lambda r, f: torch.log1p(-torch.sigmoid(f))),
    "non_saturating": (lambda r, f: bce(r, ONE) + bce(f, ZERO), lambda r, f: bce(f, ONE)),
    "least_squares": (lambda r, f: 0.5 * (F.mse_loss(r, ONE, reduction="none") + f.square()), lambda r, f: 0.5 * (f - 1).square()),
    "hinge": (lambda r, f: torch.clamp(1 - r, min=0) + torch.clamp(1 + f, min=0), lambda r, f: -f),
    "wasserstein": (lambda r, f: f - r, lambda r, f: -f),
    "relativistic": (lambda r, f: bce(r - f, ONE), lambda r, f: bce(f - r, ONE)),
}
each_game = pytest.mark.parametrize("name", GAMES)
logits = st.lists(st.floats(-8, 8), min_size=6, max_size=6).map(lambda v: torch.tensor(v, dtype=torch.float64))


def g_loss(name, fake, real):
    return GAMES[name].g(fake, real if GAMES[name].paired else None)


# --- games --------------------------------------------------------------------------------------------------------------------


def test_every_game_has_a_form_by_hand():
    assert BY_HAND.keys() == GAMES.keys()


@each_game
@given(real=logits, fake=logits)
def test_games_are_what_their_papers_write(name, real, fake):
    d, g = BY_HAND[name]
    assert torch.allclose(GAMES[name].d(real, fake), d(real, fake), rtol=1e-9, atol=1e-9)
    assert torch.allclose(g_loss(name, fake, real), g(real, fake), rtol=1e-9, atol=1e-9)


@each_game
def test_d_raises_real_and_lowers_fake_while_g_raises_fake(name):
    real, fake = (torch.linspace(-0.9, 0.9, 6).roll(i).requires_grad_() for i in (0, 2))
    on_real, on_fake = torch.autograd.grad(GAMES[name].d(real, fake).sum(), (real, fake))
    (of_g,) = torch.autograd.grad(g_loss(name, fake, real).sum(), fake)
    # Least squares pulls towards 1 and 0, so on fakes below 0 its D pulls up.
    assert (on_real < 0).all() and (on_fake[fake > 0] > 0).all() and (of_g < 0).all()
    if name != "least_squares":
        assert (on_fake > 0).all()


@each_game
def test_sure_logits_stay_finite(name):
    real, fake = torch.tensor([200.0, -200.0], requires_grad=True), torch.tensor([-200.0, 200.0], requires_grad=True)
    loss = GAMES[name].d(real, fake) + g_loss(name, fake, real)
    gradients = torch.autograd.grad(loss.sum(), (real, fake))
    assert loss.isfinite().all() and all(g.isfinite().all() for g in gradients)


def test_minimax_vanishes_where_d_is_sure_and_the_other_form_does_not():
    fake = torch.tensor([-12.0], requires_grad=True)
    gradients = {name: torch.autograd.grad(g_loss(name, fake, None).sum(), fake)[0].item() for name in ("minimax", "non_saturating")}
    assert abs(gradients["minimax"]) < 1e-5 and gradients["non_saturating"] == pytest.approx(-1, abs=1e-4)


@each_game
def test_only_a_paired_game_reads_real_in_g(name):
    fake = torch.zeros(3)
    if GAMES[name].paired:
        with pytest.raises(TypeError, match="pass D's logits on the real batch"):
            GAMES[name].g(fake, None)
    else:
        assert torch.equal(GAMES[name].g(fake, None), GAMES[name].g(fake, torch.ones(3)))


def test_an_even_game_costs_ln_2_a_term():
    even = torch.zeros(1)
    assert GAMES["minimax"].d(even, even).item() == pytest.approx(2 * math.log(2))
    assert GAMES["relativistic"].d(even, even).item() == pytest.approx(math.log(2))


def test_shapes_are_checked_under_test():
    with pytest.raises(TypeCheckError, match="hinge_d"):
        GAMES["hinge"].d(torch.zeros(3), torch.zeros(4))
    with pytest.raises(TypeCheckError, match="squared_gradient"):
        squared_gradient(torch.zeros(3, 1), torch.zeros(3, 2, requires_grad=True))


# --- penalties ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (2, 3, 3)])
def test_a_linear_critic_has_the_gradient_w(shape):
    w = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.randn(4, *shape, dtype=torch.float64).requires_grad_()
    output = (x * w).flatten(1).sum(1)
    assert torch.allclose(squared_gradient(output, x), w.float().square().sum().expand(4))
    assert torch.allclose(unit_gradient(output, x), (w.float().norm() - 1).square().expand(4))


def critic(x, w):
    return (torch.tanh(x.flatten(1) @ w) ** 2).sum(1)


@pytest.mark.parametrize("penalty, of_norm", [(squared_gradient, lambda n: n**2), (unit_gradient, lambda n: (n - 1) ** 2)])
def test_penalties_agree_with_finite_differences(penalty, of_norm):
    w = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = torch.randn(4, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    h, norms = 1e-5, []
    for i in range(4):
        steps = h * torch.eye(6, dtype=torch.float64).reshape(6, 1, 2, 3)
        slopes = (critic(x[i] + steps, w) - critic(x[i] - steps, w)) / (2 * h)
        norms.append(slopes.norm())
    assert torch.allclose(penalty(critic(x, w), x).double(), of_norm(torch.stack(norms)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("penalty", [squared_gradient, unit_gradient])
def test_penalties_can_be_descended(penalty):
    """Second order: d penalty / d w by autograd is that by differences of w."""
    w = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    (found,) = torch.autograd.grad(penalty(critic(x, w), x).sum(), w)
    h = 1e-2  # the penalty is float32 whatever the critic is
    for i, j in ((0, 0), (3, 1), (5, 2)):
        d = torch.zeros_like(w)
        d[i, j] = h
        slope = (penalty(critic(x, w + d), x).sum() - penalty(critic(x, w - d), x).sum()) / (2 * h)
        assert found[i, j].item() == pytest.approx(slope.item(), rel=2e-2, abs=2e-3)


def test_the_penalty_of_each_sample_is_its_own():
    w, x = torch.randn(3, 2), torch.randn(4, 3).requires_grad_()
    singles = [row[None].detach().requires_grad_() for row in x]
    alone = torch.cat([squared_gradient(critic(one, w), one) for one in singles])
    assert torch.allclose(squared_gradient(critic(x, w), x), alone)


def test_a_critic_that_is_flat_still_has_a_finite_gradient():
    """|g| has a corner at 0: a critic that starts with no slope must not start with NaN."""
    w, x = torch.zeros(3, requires_grad=True), torch.randn(4, 3).requires_grad_()
    penalty = unit_gradient(x @ w, x)
    assert torch.allclose(penalty, torch.ones(4))
    assert torch.autograd.grad(penalty.sum(), w)[0].isfinite().all()


def test_points_between_lie_on_the_line_and_lead_to_no_one():
    real, fake = torch.randn(3, 1, 2, 2, requires_grad=True), torch.randn(3, 1, 2, 2, requires_grad=True)
    line = between(real, fake, torch.tensor([0.0, 0.25, 1.0]))
    assert torch.equal(line[0], fake[0]) and torch.equal(line[2], real[2])
    assert torch.allclose(line[1], fake[1] + 0.25 * (real[1] - fake[1]))
    assert line.requires_grad and line.is_leaf


# --- divergences --------------------------------------------------------------------------------------------------------------

moments = st.lists(st.floats(-3, 3), min_size=4, max_size=4).map(lambda v: torch.tensor(v, dtype=torch.float64).reshape(2, 2))


def normal(mean, log_var):
    return Normal(mean, (log_var / 2).exp())


@given(moments, moments, moments, moments)
def test_kl_is_that_of_torch_distributions(mean_q, log_var_q, mean_p, log_var_p):
    expected = kl_divergence(normal(mean_q, log_var_q), normal(mean_p, log_var_p))
    found = kl_normal(mean_q, log_var_q, mean_p, log_var_p)
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-9) and (found > -1e-9).all()
    zero = torch.zeros_like(mean_q)
    assert torch.allclose(kl_standard_normal(mean_q, log_var_q), kl_normal(mean_q, log_var_q, zero, zero), atol=1e-12)


@given(moments, moments)
def test_kl_of_a_distribution_to_itself_is_nothing(mean, log_var):
    assert kl_normal(mean, log_var, mean, log_var).abs().max() < 1e-12


# --- reconstructions ----------------------------------------------------------------------------------------------------------


@given(moments, moments)
def test_squared_error_sums_over_the_sample(x, target):
    assert torch.allclose(squared_error(x, target), F.mse_loss(x, target, reduction="none").sum(1))
    assert torch.allclose(squared_error(x[:, None, None], target[:, None, None]), squared_error(x, target))


@given(moments, st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=4))
def test_bernoulli_nll_is_that_of_torch_distributions(raw, bits):
    x = torch.tensor(bits, dtype=torch.float64).reshape(2, 2)
    assert torch.allclose(bernoulli_nll(raw, x), -Independent(Bernoulli(logits=raw), 1).log_prob(x))


@given(moments, moments, st.floats(0.05, 5))
def test_normal_nll_is_that_of_torch_distributions(mean, x, sigma):
    assert torch.allclose(normal_nll(mean, x, sigma), -Independent(Normal(mean, sigma), 1).log_prob(x))
    pictures = [t.reshape(1, 1, 2, 2) for t in (mean, x)]
    assert torch.allclose(normal_nll(*pictures, sigma), normal_nll(mean, x, sigma).sum(0, keepdim=True))


@given(moments, moments, moments)
def test_normal_log_prob_is_that_of_torch_distributions(z, mean, log_var):
    assert torch.allclose(normal_log_prob(z, mean, log_var), Independent(normal(mean, log_var), 1).log_prob(z))


def test_the_likelihoods_are_normalised():
    """Sums and integrals over all x are 1: the constants are there."""
    raw = torch.tensor([[0.7, -1.3]], dtype=torch.float64).expand(4, 2)
    every = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float64)
    assert (-bernoulli_nll(raw, every)).exp().sum().item() == pytest.approx(1)
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    density = (-normal_nll(torch.full_like(x, 0.3), x, 0.6)).exp()
    assert torch.trapezoid(density, x[:, 0]).item() == pytest.approx(1)


# --- the bounds that VAE and CVAE put together from these -------------------------------------------------------------------------


def bounded(model, x, c, seed=0):
    """(ELBO by `turns`, its terms), with the noise of this seed."""
    model.noise.seed(seed)
    (turn,) = list(model.turns(Batch(x, c), 0))
    return -sum(turn["model"].values()), turn["model"]


def vae(shape=(3,), **options):
    torch.manual_seed(0)
    return shaken(VAE(shape, {}, z_dim=2, hidden=(7,), **options)), {}


def cvae(shape=(3,), **options):
    torch.manual_seed(0)
    model = CVAE(shape, {"look": Vector(2)}, z_dim=2, hidden=(7,), prior_hidden=5, **options)
    return shaken(model), {"look": torch.randn(6, 2)}


def shaken(model):
    """Away from q = p = N(0, I), where mistakes would not show; variances stay within the bounds of `prior_of`."""
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.25)
    return model


@pytest.mark.parametrize("made", [vae, cvae])
@pytest.mark.parametrize("likelihood", ["bernoulli", "normal"])
def test_the_elbo_is_that_of_torch_distributions(made, likelihood):
    shape = (3,) if likelihood == "normal" else (1, 1, 3)
    model, c = made(shape, likelihood=likelihood, sigma_x=0.7, binarise=False)
    x = torch.rand(6, 3) * 2 - 1 if likelihood == "normal" else torch.randint(0, 2, (6, *shape)) * 2.0 - 1
    found, _ = bounded(model, x, c)

    mean, log_var = model.E(x, c).chunk(2, 1)
    q = Normal(mean, (log_var / 2).exp())
    mean_p, log_var_p = model.P(torch.zeros(6, 0), c).chunk(2, 1) if c else (torch.zeros(1), torch.zeros(1))
    p = Normal(mean_p, (log_var_p / 2).exp())
    z = mean + q.stddev * torch.randn(6, 2, generator=torch.Generator().manual_seed(APART))
    raw = model.G(z, c)
    of_x = Normal(raw, 0.7).log_prob(x) if likelihood == "normal" else Bernoulli(logits=raw).log_prob((x + 1) / 2).flatten(1)
    assert torch.allclose(found, of_x.sum(1) - kl_divergence(q, p).sum(1), rtol=1e-4, atol=1e-4)
    model.noise.seed(0)
    weight = of_x.sum(1) + (p.log_prob(z) - q.log_prob(z)).sum(1)
    assert torch.allclose(model.log_weights(x, c, 1)[0], weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("made", [vae, cvae])
def test_weights_of_many_draws_have_the_elbo_as_their_mean_and_a_higher_bound(made):
    """Two ways to one number: the closed form of the KL in `turns`, and densities of z in `log_weights`."""
    model, c = made(likelihood="normal", sigma_x=0.7)
    x = torch.rand(6, 3) * 2 - 1
    model.noise.seed(1)
    with torch.no_grad():
        w = model.log_weights(x, c, 1000)
        by_turns = torch.stack([bounded(model, x, c, seed)[0] for seed in range(400)])
    error = (w.var(0) / 1000 + by_turns.var(0) / 400).sqrt()
    assert ((w.mean(0) - by_turns.mean(0)).abs() < 5 * error).all()
    assert (torch.logsumexp(w, 0) - math.log(1000) > w.mean(0)).all()


def test_the_gsnn_mix_weighs_its_two_parts():
    plain, mixed = (cvae(likelihood="normal", gsnn_alpha=alpha) for alpha in (1.0, 0.25))
    x = torch.rand(6, 3) * 2 - 1
    of_plain, of_mixed = bounded(plain[0], x, mixed[1])[1], bounded(mixed[0], x, mixed[1])[1]
    assert set(of_plain) == {"reconstruction", "kl"} and set(of_mixed) == {"reconstruction", "kl", "gsnn"}
    for term in of_plain:
        assert torch.allclose(of_mixed[term], 0.25 * of_plain[term])
    model, c = mixed
    mean, log_var = model.P(torch.zeros(6, 0), c).chunk(2, 1)
    generator = torch.Generator().manual_seed(APART)
    _, noise = (torch.randn(6, 2, generator=generator) for _ in range(2))  # the second draw of the turn
    drawn = model.G(mean + (log_var / 2).exp() * noise, c)
    assert torch.allclose(of_mixed["gsnn"], -0.75 * Normal(drawn, 0.1).log_prob(x).sum(1), rtol=1e-4)


def test_the_kl_warms_up_and_free_bits_are_free():
    assert [warmed(step, 4) for step in (0, 1, 4, 9)] == [0, 0.25, 1, 1] and warmed(0, 0) == 1
    kl = torch.tensor([[0.1, 2.0], [0.3, 4.0]], requires_grad=True)
    assert torch.equal(floored(kl, 0.0), kl.sum(1))
    paid = floored(kl, 0.5)
    assert torch.allclose(paid, torch.tensor([2.5, 4.5])), "the first dimension, 0.2 on average, costs 0.5"
    assert torch.autograd.grad(paid.sum(), kl)[0].tolist() == [[0, 1], [0, 1]]
