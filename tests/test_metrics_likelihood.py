"""Parzen windows and variational bounds against closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from condgen.errors import BadInput
from condgen.evaluation.likelihood import binarised, choose_sigma, elbo, nll_iwae, parzen, parzen_log_density


def test_window_of_two_samples_by_hand():
    found = parzen_log_density([[0.0], [2.0]], [[0.0], [5.0]], [0.5, 2.0])
    for i, sigma in enumerate((0.5, 2.0)):
        for j, at in enumerate((0.0, 5.0)):
            p = sum(math.exp(-((at - s) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi)) for s in (0.0, 2.0)) / 2
            assert float(found[i, j]) == pytest.approx(math.log(p), abs=1e-12)


def test_parzen_agrees_with_sklearn():
    density = pytest.importorskip("sklearn.neighbors").KernelDensity
    rs = np.random.RandomState(0)
    s, x = rs.randn(300, 5), rs.randn(700, 5)
    expected = density(bandwidth=0.4).fit(s).score_samples(x)
    assert parzen_log_density(s, x, [0.4])[0].numpy() == pytest.approx(expected, abs=1e-7)  # its tree rounds at 1e-8
    assert torch.allclose(parzen_log_density(s, x, [0.4], chunk=33), parzen_log_density(s, x, [0.4]), atol=1e-10)


def test_parzen_of_a_known_gaussian():
    rs = np.random.RandomState(1)
    d, scale = 3, 0.5
    samples, valid, test = (scale * rs.randn(n, d) for n in (5000, 500, 2000))
    closed = -d * math.log(scale * math.sqrt(2 * math.pi * math.e))  # minus the entropy
    found = parzen(samples, valid, test)
    assert found.mean == pytest.approx(closed, abs=0.5)
    assert 0 < found.standard_error < 0.1
    assert 0.05 < found.sigma < scale


def test_refined_sigma_is_no_worse():
    rs = np.random.RandomState(2)
    samples, valid = rs.randn(400, 4), rs.randn(300, 4)
    coarse = choose_sigma(samples, valid)
    fine = parzen(samples, valid, valid).sigma
    both = parzen_log_density(samples, valid, [coarse, fine]).mean(1)
    assert both[1] >= both[0]


def test_a_lost_mode_has_a_low_density():
    rs = np.random.RandomState(3)
    samples, valid, test = (rs.randn(n, 4) + 10 * (np.arange(n) % 2)[:, None] for n in (500, 200, 200))
    assert parzen(samples[::2], valid, test).mean < parzen(samples, valid, test).mean - 10


def test_widths_must_be_positive():
    with pytest.raises(BadInput, match="positive"):
        choose_sigma(np.zeros((3, 2)), np.zeros((3, 2)), [0.0, 1.0])


class LinearGaussian(torch.nn.Module):
    """z ~ N(0, 1), x|z ~ N(a z, s^2 I), with any Gaussian q: the marginal is N(0, a a^T + s^2 I) exactly."""

    def __init__(self, exact: bool):
        super().__init__()
        self.a, self.s = torch.tensor([1.0, -0.5, 2.0]), 0.7
        precision = 1 + float(self.a @ self.a) / self.s**2
        self.gain = self.a / self.s**2 / precision
        self.spread = precision**-0.5 * (1.0 if exact else 1.5)
        self.noise = _Noise()
        self.device = torch.device("cpu")

    def log_weights(self, x: Tensor, c: dict, k: int) -> Tensor:
        normal = torch.distributions.Normal
        q = normal(x @ self.gain, self.spread)
        z = q.mean + self.spread * torch.randn(k, len(x), generator=self.noise.generator)
        log_x = normal(z[..., None] * self.a, self.s).log_prob(x).sum(-1)
        return log_x + normal(0.0, 1.0).log_prob(z) - q.log_prob(z)

    def log_marginal(self, x: Tensor) -> Tensor:
        cov = torch.outer(self.a, self.a) + self.s**2 * torch.eye(3)
        return torch.distributions.MultivariateNormal(torch.zeros(3), cov).log_prob(x)


class _Noise:
    def __init__(self):
        self.generator, self.rank, self.world = torch.Generator(), 0, 1

    def seed(self, seed):
        self.generator.manual_seed(seed)


def test_elbo_is_the_marginal_where_q_is_exact():
    model, x = LinearGaussian(exact=True), torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(elbo(model, x, {}).float(), model.log_marginal(x), atol=1e-4)
    assert torch.allclose(-nll_iwae(model, x, {}, k=5).float(), model.log_marginal(x), atol=1e-4)


def test_bounds_are_ordered_and_the_gap_is_the_divergence():
    model, x = LinearGaussian(exact=False), torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    exact = float(model.log_marginal(x).mean())
    loose, tight = float(elbo(model, x, {}, k=200).mean()), -float(nll_iwae(model, x, {}, k=200).mean())
    assert loose < tight < exact + 0.01
    gap = (1.5**2 - 1) / 2 - math.log(1.5)  # KL(N(m, (1.5 s)^2) || N(m, s^2))
    assert exact - loose == pytest.approx(gap, abs=0.01)
    assert tight == pytest.approx(exact, abs=0.01)


def test_bounds_are_seeded_and_leave_the_model_as_it_was():
    model, x = LinearGaussian(exact=False).train(), torch.randn(30, 3)
    first = elbo(model, x, {}, seed=4, chunk=7)
    assert torch.equal(first, elbo(model, x, {}, seed=4, chunk=7))
    assert not torch.equal(first, elbo(model, x, {}, seed=5, chunk=7))
    assert model.training


def test_binarised_keeps_the_mean():
    x = torch.linspace(-1, 1, 5).repeat(20000, 1)
    found = binarised(x)
    assert set(found.unique().tolist()) == {-1.0, 1.0}
    assert torch.allclose(found.mean(0), x[0], atol=0.03)
    assert torch.equal(found[:, 0], x[:, 0])
    assert torch.equal(found[:, -1], x[:, -1])
    assert torch.equal(found, binarised(x))
