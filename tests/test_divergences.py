"""The divergence laboratory: a table measured by quadrature, closed forms, other integrators, and the identities of the pi-game."""

import math

import numpy as np
import pytest
import torch
from torch import distributions as D

from condgen.errors import BadInput
from condgen.evaluation.divergences import (
    MOST_ROWS,
    best_logit,
    fit,
    game_value,
    game_value_samples,
    js,
    js_gradient,
    js_samples,
    kl,
    kl_samples,
    log_between,
    minimax_gradient,
    mmd2,
    mmd2_samples,
    mmd_test,
)
from condgen.evaluation.mixtures import MIXTURES, Mixture, gaussian, mixture, standard_nodes

A, B = MIXTURES["A"], MIXTURES["B"]
TILTED = mixture([0.3, 0.7], [[-1.0, 0.5], [1.0, 0.0]], covariances=[[[0.5, -0.3], [-0.3, 0.6]], [[0.4, 0.1], [0.1, 0.2]]])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- densities ----------------------------------------------------------------------------------------------------------------


def test_density_agrees_with_torch():
    one = D.MixtureSameFamily(D.Categorical(A.weights), D.Normal(A.means[:, 0], A.factors[:, 0, 0]))
    x = torch.linspace(-9, 9, 50, dtype=torch.float64)
    assert torch.allclose(A.log_prob(x), one.log_prob(x), atol=1e-12)
    two = D.MixtureSameFamily(D.Categorical(TILTED.weights), D.MultivariateNormal(TILTED.means, scale_tril=TILTED.factors))
    x = 3 * torch.randn(50, 2, dtype=torch.float64, generator=seeded())
    assert torch.allclose(TILTED.log_prob(x), two.log_prob(x), atol=1e-12)


@pytest.mark.parametrize("p", [A, B, TILTED])
def test_quadrature_and_samples_have_the_moments(p):
    points, w = p.nodes()
    mean, covariance = w @ points, (points * w[:, None]).T @ points - torch.outer(w @ points, w @ points)
    assert torch.allclose(p.mean(), mean, atol=1e-12) and torch.allclose(p.covariance(), covariance, atol=1e-11)
    x = p.sample(40_000, seeded(1))
    assert x.shape == (40_000, p.d) and torch.equal(x, p.sample(40_000, seeded(1)))
    assert torch.allclose(x.mean(0), mean, atol=0.04) and torch.allclose(x.T.cov(), covariance, atol=0.06)


def test_sigma_is_the_root_mean_variance():
    assert A.sigma() == pytest.approx(1.9) and A.mean().tolist() == pytest.approx([-0.8])
    assert gaussian([1.0, 2.0], 0.5).sigma() == pytest.approx(0.5)


# --- between densities --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "p, q",
    [
        (D.MultivariateNormal(torch.tensor([0.3]).double(), torch.eye(1).double() * 0.49), gaussian(-1.0, 1.3)),
        (D.MultivariateNormal(torch.tensor([0.3, -1.0]).double(), torch.tensor([[1.0, 0.6], [0.6, 0.5]]).double()), gaussian([0, 1], 0.9)),
    ],
)
def test_kl_of_gaussians(p, q):
    ours = mixture([1.0], p.mean[None], covariances=p.covariance_matrix[None])
    theirs = D.MultivariateNormal(q.means[0], scale_tril=q.factors[0])
    assert float(kl(ours, q)) == pytest.approx(float(D.kl_divergence(p, theirs)), abs=1e-10)
    assert float(kl(q, ours)) == pytest.approx(float(D.kl_divergence(theirs, p)), abs=1e-10)
    assert float(kl(q, q)) == 0


@pytest.mark.parametrize("pi", [0.02, 0.5, 0.9])
def test_js_agrees_with_another_integrator(pi):
    integrate = pytest.importorskip("scipy.integrate")

    def integrand(x: float) -> float:
        log_p, log_q = (float(d.log_prob([x])) for d in (A, B))
        log_m = np.logaddexp(log_p + math.log(pi), log_q + math.log(1 - pi))
        return pi * math.exp(log_p) * (log_p - log_m) + (1 - pi) * math.exp(log_q) * (log_q - log_m)

    expected = sum(integrate.quad(integrand, a, a + 4, epsabs=1e-9)[0] for a in (-10, -6, -2, 2, 6))
    assert float(js(A, B, pi)) == pytest.approx(expected, abs=1e-8)


def test_js_is_bounded_and_turns_round():
    far = gaussian(40.0, 1.0)
    assert float(js(A, far)) == pytest.approx(math.log(2), abs=1e-9)
    assert float(js(A, B, 0.2)) == pytest.approx(float(js(B, A, 0.8)), abs=1e-12)
    assert float(js(A, A, 0.3)) == pytest.approx(0, abs=1e-12)
    plane = mixture([1.0], [[0.0, 0.0]], [1.0]), mixture([1.0], [[1.5, 0.0]], [1.0])
    assert float(js(*plane)) == pytest.approx(float(js(gaussian(0.0, 1.0), gaussian(1.5, 1.0))), abs=1e-9)


@pytest.mark.parametrize("q", [B, gaussian(-0.8, 1.9)])
def test_limits_of_js(q):
    assert float(js(A, q, 1e-3)) / 1e-3 == pytest.approx(float(kl(A, q)), rel=0.01)  # KL[P||Q] as pi -> 0
    assert float(js(q, A, 1 - 1e-3)) / 1e-3 == pytest.approx(float(kl(A, q)), rel=0.01)  # KL[Q||P] as pi -> 1: A is Q here


def test_the_limit_that_the_reference_measured():
    assert float(js(A, fit(A, "kl").q, 1e-3)) / 1e-3 == pytest.approx(0.7235, abs=1e-4)


@pytest.mark.parametrize("h", [0.3, 1.0, 4.0])
def test_mmd_agrees_with_quadrature(h):
    (x, v), (y, w) = (d.nodes() for d in (A, B))
    x, v, y, w = x[::4], v[::4] * 4, y[::4], w[::4] * 4  # a coarser grid is as exact and the pairs are fewer

    def mean(a, va, b, vb):
        return va @ torch.exp(-((a - b.T) ** 2) / (2 * h**2)) @ vb

    expected = mean(x, v, x, v) - 2 * mean(x, v, y, w) + mean(y, w, y, w)
    assert float(mmd2(A, B, h)) == pytest.approx(float(expected), abs=1e-9)


def test_mmd_of_a_plane():
    h, shift, s = 0.7, 1.2, 0.5
    p, q = gaussian([0.0, 0.0], s), gaussian([shift, 0.0], s)
    v = h**2 + 2 * s**2
    assert float(mmd2(p, q, h)) == pytest.approx(2 * h**2 / v * (1 - math.exp(-(shift**2) / (2 * v))), abs=1e-12)
    assert float(mmd2(TILTED, TILTED, h)) == pytest.approx(0, abs=1e-15)


# --- the game -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pi", [0.1, 0.5, 0.9])
def test_value_of_the_game(pi):
    q = gaussian(-0.8, 1.9)
    x, y = A.sample(200_000, seeded(0)), q.sample(200_000, seeded(1))
    found = game_value_samples(A, q, x, y, pi)
    exact = float(js(A, q, pi)) + pi * math.log(pi) + (1 - pi) * math.log(1 - pi)
    assert found.value == pytest.approx(exact, abs=0.01)
    assert abs(found.value - exact) < 4 * found.standard_error < 0.01
    assert float(game_value(A, q, pi)) == pytest.approx(exact, abs=1e-12)


def test_no_other_discriminator_has_a_higher_value():
    q, pi = gaussian(-0.8, 1.9), 0.3
    (x, v), (y, w) = A.nodes(), q.nodes()

    def value(shift, scale):
        real, fake = (best_logit(A, q, at, pi) * scale + shift for at in (x, y))
        return float(pi * v @ torch.nn.functional.logsigmoid(real) + (1 - pi) * w @ torch.nn.functional.logsigmoid(-fake))

    best = value(0, 1)
    assert best == pytest.approx(float(game_value(A, q, pi)), abs=1e-9)
    assert all(value(*other) < best - 1e-5 for other in [(0.1, 1), (-0.1, 1), (0, 0.9), (0, 1.1)])


@pytest.mark.parametrize("pi", [0.05, 0.5, 0.9])
def test_gradients_in_the_density_by_autograd_on_a_grid(pi):
    x, target = torch.linspace(-6, 6, 301, dtype=torch.float64), gaussian(-0.8, 1.9)
    step = float(x[1] - x[0])
    p, q = A.log_prob(x).exp(), target.log_prob(x).exp().requires_grad_()
    m = pi * p + (1 - pi) * q
    of_js = torch.autograd.grad((pi * p * (p / m).log() + (1 - pi) * q * (q / m).log()).sum() * step, q)[0] / step
    assert torch.allclose(of_js, js_gradient(A, target, x, pi), atol=1e-9)
    held = (pi * p / m).detach()  # D*, which G's turn does not move
    of_game = torch.autograd.grad(((1 - pi) * q * (1 - held).log()).sum() * step, q)[0] / step
    assert torch.allclose(of_game, minimax_gradient(A, target, x, pi), atol=1e-9)
    assert torch.allclose(of_game - of_js, torch.full_like(x, (1 - pi) * math.log(1 - pi)), atol=1e-9)


def at(mean: torch.Tensor, sigma: torch.Tensor) -> Mixture:
    """N(mean, sigma^2), through which gradients flow."""
    return Mixture(torch.ones(1, dtype=torch.float64), mean.reshape(1, 1), sigma.reshape(1, 1, 1))


@pytest.mark.parametrize("pi", [0.05, 0.5, 0.9])
def test_what_the_losses_of_g_descend_in_its_parameters(pi):
    """D* is held, and G(z) = mean + sigma z is moved."""
    theta = mean, sigma = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (-0.3, 1.2)]
    u, w = standard_nodes(1)
    x, held = mean + sigma * u, gaussian(mean.detach(), sigma.item())
    minimax = w @ minimax_gradient(A, held, x, pi)  # (1 - pi) E_z log(1 - D*(G(z)))
    non_saturating = -w @ torch.nn.functional.logsigmoid(best_logit(A, held, x, pi))
    q = at(mean, sigma)
    for loss, descended in [(minimax, js(A, q, pi)), (non_saturating, kl(q, A) - js(A, q, pi) / (1 - pi))]:
        found, expected = (torch.stack(torch.autograd.grad(v, theta, retain_graph=True)) for v in (loss, descended))
        assert torch.allclose(found, expected, atol=1e-9)


def test_value_of_the_unweighted_non_saturating_loss():
    """E_Q[-log D*] = -log pi + KL[Q||P] - KL[Q||M], which is no JS_pi."""
    q, pi = gaussian(-0.8, 1.9), 0.2
    y, w = q.nodes()
    loss = -w @ torch.nn.functional.logsigmoid(best_logit(A, q, y, pi))
    to_m = w @ (q.log_prob(y) - log_between(A, q, y, pi))
    assert float(loss) == pytest.approx(float(-math.log(pi) + kl(q, A) - to_m), abs=1e-9)


# --- between samples ----------------------------------------------------------------------------------------------------------


def test_sampled_divergences_agree_with_exact_ones():
    x, y = A.sample(20_000, seeded(2)), B.sample(20_000, seeded(3))
    for found, exact in [(kl_samples(A, B, x), kl(A, B)), (js_samples(A, B, x, y, 0.3), js(A, B, 0.3))]:
        assert 0 < found.standard_error < 0.02
        assert abs(found.value - float(exact)) < 4 * found.standard_error


@pytest.mark.parametrize("p, q", [(A, B), (TILTED, gaussian([0.0, 0.0], 1.0))])
def test_sampled_mmd_agrees_with_the_closed_form(p, q):
    sigmas = (0.5, 2.0)
    exact = sum(float(mmd2(p, q, h)) for h in sigmas)
    x, y = p.sample(1500, seeded(4)), q.sample(1200, seeded(5))
    assert mmd2_samples(x, y, sigmas) == pytest.approx(exact, rel=0.15)
    assert mmd2_samples(x, y, sigmas, unbiased=False) > mmd2_samples(x, y, sigmas)


def test_mmd_by_hand():
    x, y, sigmas = np.array([[0.0], [1.0], [3.0]]) + 1e4, np.array([[0.5], [2.0]]) + 1e4, (0.5, 2.0)

    def k(a, b):
        return sum(np.exp(-((a - b.T) ** 2) / (2 * s**2)) for s in sigmas)

    biased = k(x, x).mean() + k(y, y).mean() - 2 * k(x, y).mean()
    unbiased = (k(x, x).sum() - 6) / 6 + (k(y, y).sum() - 4) / 2 - 2 * k(x, y).mean()
    assert mmd2_samples(x, y, sigmas, unbiased=False) == pytest.approx(biased, abs=1e-9)
    for chunk in (1, 1024):
        assert mmd2_samples(x, y, sigmas, chunk=chunk) == pytest.approx(unbiased, abs=1e-9)
    assert mmd2_samples(x, x, sigmas, unbiased=False) == pytest.approx(0, abs=1e-12)


def test_unbiased_mmd_of_equal_distributions_is_zero_on_average():
    values = np.array([mmd2_samples(A.sample(40, seeded(2 * i)), A.sample(30, seeded(2 * i + 1)), (1.0,)) for i in range(300)])
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(300) and values.min() < 0
    biased = [mmd2_samples(A.sample(40, seeded(2 * i)), A.sample(30, seeded(2 * i + 1)), (1.0,), unbiased=False) for i in range(20)]
    assert min(biased) > 0 and np.mean(biased) > 10 * abs(values.mean())


def test_two_sample_test():
    x, y = A.sample(300, seeded(6)), B.sample(200, seeded(7))
    apart = mmd_test(x, y, (1.0,), permutations=199)
    assert apart.mmd2 == pytest.approx(mmd2_samples(x, y, (1.0,)), abs=1e-12)
    assert apart.p_value == 1 / 200
    assert apart == mmd_test(x, y, (1.0,), permutations=199, seed=0)
    assert mmd_test(x, A.sample(200, seeded(8)), (1.0,), permutations=199).p_value > 0.05
    assert mmd_test(x, x, (1.0,), permutations=50).p_value > 0.9


def test_level_of_the_two_sample_test():
    p = np.array([mmd_test(A.sample(20, seeded(i)), A.sample(30, seeded(i + 900)), (1.0,), 49, seed=i).p_value for i in range(300)])
    assert 0.05 < (p <= 0.1).mean() < 0.15 and 0.4 < (p <= 0.5).mean() < 0.6


def test_rows_that_all_tie_are_no_evidence():
    x = torch.ones(20, 2)
    assert mmd_test(x, x[:10], (1.0,), permutations=30).p_value == 1


# --- fits ---------------------------------------------------------------------------------------------------------------------

TABLE = [  # P, criterion, options, mean, sigma, value: measured by another quadrature and a global search
    ("A", "kl", {}, -0.800, 1.900, 0.7242),
    ("A", "js", {"pi": 0.01}, -0.8008, 1.8993, 0.00717),
    ("A", "js", {"pi": 0.05}, -0.8038, 1.8964, 0.03448),
    ("A", "js", {"pi": 0.10}, -0.8077, 1.8927, 0.06561),
    ("A", "js", {"pi": 0.20}, -1.9997, 0.5007, 0.10477),
    ("A", "js", {"pi": 0.50}, -1.9998, 0.5004, 0.11725),
    ("A", "js", {"pi": 0.90}, -1.9999, 0.5003, 0.03348),
    ("A", "reverse_kl", {}, -1.9999, 0.5003, 0.3566),
    ("A", "mmd", {"h": 0.25}, -2.000, 0.676, 0.0473),
    ("A", "mmd", {"h": 1.0}, -1.943, 1.023, 0.1072),
    ("A", "mmd", {"h": 2.0}, -1.254, 1.941, 0.0285),
    ("A", "mmd", {"h": 4.0}, -0.953, 1.964, 0.0011),
    ("B", "kl", {}, -0.300, 1.6432, None),
    ("B", "js", {"pi": 0.1}, -0.2859, 1.6405, None),
    ("B", "js", {"pi": 0.5}, -0.2203, 1.6253, None),
    ("B", "js", {"pi": 0.9}, -0.1045, 1.5828, None),
    ("B", "reverse_kl", {}, 0.0152, 1.5022, None),
    ("B", "mmd", {"h": 0.5}, -0.756, 1.770, None),
    ("B", "mmd", {"h": 1.0}, -0.651, 1.790, None),
    ("B", "mmd", {"h": 2.0}, -0.488, 1.759, None),
]


@pytest.mark.parametrize("name, criterion, options, mean, sigma, value", TABLE)
def test_table_of_fits(name, criterion, options, mean, sigma, value):
    found = fit(MIXTURES[name], criterion, **options)
    assert (found.mean, found.sigma) == pytest.approx((mean, sigma), abs=1e-3)
    assert value is None or found.value == pytest.approx(value, abs=1e-4)


def test_fits_are_global():
    """No Gaussian of a grid is better."""
    for criterion, cost in [("js", lambda q: js(A, q, 0.15)), ("mmd", lambda q: mmd2(A, q, 1.2))]:
        least = min(float(cost(gaussian(m, s))) for m in np.linspace(-3, 3, 13) for s in np.geomspace(0.3, 3, 9))
        assert least - 0.02 < fit(A, criterion, pi=0.15, h=1.2).value < least


def test_kl_matches_moments_in_the_plane():
    found = fit(TILTED, "kl", full=True)
    assert found.mean == pytest.approx(tuple(TILTED.mean().tolist()), abs=1e-5)
    assert torch.allclose(found.q.covariance()[0], TILTED.covariance()[0], atol=1e-5)
    assert torch.allclose(found.q.covariance()[1], TILTED.covariance()[1], atol=1e-5)
    assert fit(TILTED, "kl").sigma == pytest.approx(TILTED.sigma(), abs=1e-6)


def test_reverse_kl_ends_in_the_mode_it_started_by():
    left, right = (fit(A, "reverse_kl", starts=[(start, 0.5)]) for start in (-1.5, 1.5))
    assert (left.mean, right.mean) == pytest.approx((-2, 2), abs=1e-2)
    assert (left.value, right.value) == pytest.approx((-math.log(0.7), -math.log(0.3)), abs=1e-3)
    assert fit(A, "reverse_kl", starts=[(1.5, 0.5), (-1.5, 0.5)]).mean == left.mean


def test_forward_kl_forgets_its_start():
    assert [fit(A, "kl", starts=[(start, 0.5)]).mean for start in (-2.0, 2.0, 5.0)] == pytest.approx([-0.8] * 3, abs=1e-4)


# --- what cannot be used ------------------------------------------------------------------------------------------------------

PLANE = gaussian([0.0, 0.0], 1.0)
X = torch.zeros(5, 1)


@pytest.mark.parametrize(
    "message, call",
    [
        ("did you mean 'reverse_kl'", lambda: fit(A, "reversekl")),
        ("at least one start", lambda: fit(A, "kl", starts=[])),
        ("in 1 and in 2 dimensions", lambda: fit(A, "kl", starts=[([0.0, 1.0], 1.0)])),
        ("pi is 0", lambda: js(A, B, 0)),
        ("pi is 1.5", lambda: fit(A, "js", pi=1.5)),
        ("pi is nan", lambda: best_logit(A, B, X, math.nan)),
        ("h is 0", lambda: fit(A, "mmd", h=0)),
        ("in 1 and in 2", lambda: kl(A, PLANE)),
        ("in 2 and in 1", lambda: mmd2(PLANE, A, 1.0)),
        ("quadrature in 3 dimensions", lambda: kl(gaussian([0.0] * 3, 1.0), gaussian([0.0] * 3, 1.0))),
        (r"expected \(n, 2\)", lambda: PLANE.log_prob(X)),
        ("sum is 1", lambda: mixture([0.5, 0.6], [0, 1], [1, 1])),
        ("above 0 whose sum", lambda: mixture([1.5, -0.5], [0, 1], [1, 1])),
        ("2 finite numbers above 0", lambda: mixture([0.5, 0.5], [0, 1], [1, 0])),
        ("2 finite numbers above 0", lambda: mixture([0.5, 0.5], [0, 1], [1])),
        ("one of the two", lambda: mixture([1.0], [0])),
        ("finite numbers", lambda: gaussian(math.nan, 1.0)),
        ("not positive definite", lambda: mixture([1.0], [[0, 0]], covariances=[[[1, 2], [2, 1]]])),
        ("symmetric", lambda: mixture([1.0], [[0, 0]], covariances=[[[1, 0.5], [0, 1]]])),
        ("n is 0", lambda: A.sample(0)),
        ("1 samples", lambda: kl_samples(A, B, X[:1])),
        ("expected bandwidths", lambda: mmd2_samples(X, X, ())),
        ("expected bandwidths", lambda: mmd2_samples(X, X, 1.0)),
        ("sigmas is", lambda: mmd_test(X, X, (1.0, -1.0))),
        ("permutations is 0", lambda: mmd_test(X, X, (1.0,), permutations=0)),
        ("of 1 and of 2 dimensions", lambda: mmd_test(X, torch.zeros(5, 2), (1.0,))),
        (f"at most {MOST_ROWS:,}", lambda: mmd_test(torch.zeros(MOST_ROWS, 1), X, (1.0,))),
    ],
)
def test_bad_input_is_refused(message, call):
    with pytest.raises(BadInput, match=message):
        call()


# --- the picture --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_picture_is_drawn(tmp_path):
    from PIL import Image

    from condgen.figures.divergences import draw

    out = draw(tmp_path / "new" / "divergences.png")
    with Image.open(out) as picture:
        assert picture.size == (1300, 1150)
        pixels = np.asarray(picture.convert("L"))
    rows = [pixels[i * 383 : (i + 1) * 383, j * 433 : (j + 1) * 433] for i in range(3) for j in range(3)]
    assert all(0.01 < (panel < 250).mean() < 0.9 for panel in rows)


def test_the_jump_is_where_both_optima_cost_the_same():
    from condgen.figures.divergences import COVERING, PICKING, find_jump

    jump = find_jump(A, 0.1, 0.2)
    values = [fit(A, "js", pi=jump, starts=starts).value for starts in (COVERING, PICKING)]
    assert 0.1 < jump < 0.2 and values[0] == pytest.approx(values[1], abs=1e-4)
    assert fit(A, "js", pi=jump - 1e-3).sigma > 1.5 and fit(A, "js", pi=jump + 1e-3).sigma < 0.6
