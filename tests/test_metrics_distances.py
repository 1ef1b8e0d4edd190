"""Fréchet, kernel and neighbour measures against closed forms, golden values and independent implementations."""

import math

import numpy as np
import pytest
import torch

from condgen.errors import BadInput
from condgen.evaluation.frechet import frechet, frechet_of_features, frechet_of_moments, kernel, kernel_subsets
from condgen.evaluation.neighbours import neighbours, squared_distances

R = np.random.RandomState(0).randn(1000, 16)
F = np.random.RandomState(1).randn(1000, 16) * 0.8 + 0.2


def test_frechet_of_isotropic_gaussians():
    found = frechet_of_moments(np.zeros(64), np.eye(64), np.full(64, 0.5), 4 * np.eye(64))
    assert found.value == pytest.approx(80.0, abs=1e-10)
    assert found.clamped < 1e-9


def test_frechet_of_diagonal_gaussians():
    a, b = np.linspace(0.1, 3, 64), np.linspace(2, 0.2, 64)
    found = frechet_of_moments(np.zeros(64), np.diag(a), np.zeros(64), np.diag(b)).value
    assert found == pytest.approx(28.72545608143045, abs=1e-10)
    assert found == pytest.approx(float(((np.sqrt(a) - np.sqrt(b)) ** 2).sum()), abs=1e-10)


def test_frechet_golden():
    assert frechet(R, F) == pytest.approx(1.4654850365785848, abs=1e-10)


def test_frechet_of_a_shift_is_its_square():
    shift = np.linspace(-1, 1, 16)
    assert frechet(R, R + shift) == pytest.approx(float((shift**2).sum()), abs=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(300, 200, 16), (40, 60, 100), (40, 500, 100), (500, 40, 100)])
def test_frechet_invariances(n, m, d):
    rs = np.random.RandomState(n)
    x, y = rs.randn(n, d), rs.randn(m, d) * 0.7 + 0.1
    rotation = np.linalg.qr(rs.randn(d, d))[0]
    value = frechet(x, y)
    assert value > 1
    assert frechet(y, x) == pytest.approx(value, rel=1e-9)
    assert frechet(x[rs.permutation(n)], y) == pytest.approx(value, rel=1e-9)
    assert frechet(x @ rotation, y @ rotation) == pytest.approx(value, rel=1e-9)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 60, 100), (40, 500, 100), (90, 90, 100)])
def test_nuclear_form_agrees_with_a_matrix_square_root(n, m, d):
    linalg = pytest.importorskip("scipy.linalg")
    rs = np.random.RandomState(3)
    x, y = rs.randn(n, d), rs.randn(m, d) * 0.7 + 0.1
    s1, s2 = np.cov(x.T), np.cov(y.T)
    trace = np.sqrt(linalg.eigvals(s1 @ s2).astype(complex)).real.sum()
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * trace
    assert frechet(x, y) == pytest.approx(expected, rel=1e-4)


def test_frechet_agrees_with_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")
    x, y = torch.tensor(R), torch.tensor(F)
    expected = fid._compute_fid(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    assert frechet(x, y) == pytest.approx(float(expected), abs=1e-8)


def test_clamp_is_reported():
    found = frechet_of_features(R, R)
    assert found.value >= 0
    assert 0 <= found.clamped < 1e-9
    bent = np.diag([1.0, -1e-3])
    assert frechet_of_moments(np.zeros(2), bent, np.zeros(2), np.eye(2)).clamped == pytest.approx(1e-3, rel=0.1)


def test_kernel_golden():
    assert kernel(R, F) == pytest.approx(0.16609949785332212, abs=1e-12)
    assert kernel(R[:500], R[500:]) == pytest.approx(0.0011672, abs=5e-7)


def test_kernel_agrees_with_torchmetrics():
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = torch.tensor(R), torch.tensor(F)
    assert kernel(x, y) == pytest.approx(float(kid.poly_mmd(x, y)), abs=1e-12)


def test_kernel_subsets_are_seeded_and_centred():
    mean, spread = kernel_subsets(R, F, subsets=20, size=400)
    assert (mean, spread) == kernel_subsets(R, F, subsets=20, size=400)
    assert abs(mean - kernel(R, F)) < 4 * spread / math.sqrt(20) + 1e-3
    with pytest.raises(BadInput, match="at most 1000"):
        kernel_subsets(R, F, size=1001)


@pytest.mark.parametrize(("k", "expected"), [(5, (0.984, 0.516, 2.0728, 0.970)), (3, (0.963, 0.411, 2.08467, 0.900))])
def test_neighbours_golden(k, expected):
    found = neighbours(R, F, k=k)
    assert found == pytest.approx(expected, abs=5e-6)
    assert neighbours(R, F, k=k, chunk=77) == found


def test_neighbours_agree_with_sklearn():
    nn = pytest.importorskip("sklearn.neighbors").NearestNeighbors
    radius = nn(n_neighbors=6).fit(R).kneighbors(R)[0][:, -1]
    inside = np.linalg.norm(R[:, None] - F[None, :200], axis=2) < radius[:, None]
    found = neighbours(R, F[:200], k=5)
    assert found.precision == inside.any(0).mean()
    assert found.density == pytest.approx(inside.sum(0).mean() / 5)
    assert found.coverage == inside.any(1).mean()


def test_a_set_covers_itself_but_for_density():
    assert neighbours(R, R)[:2] == (1.0, 1.0)
    assert neighbours(R, R).coverage == 1.0
    assert neighbours(R, R).density == pytest.approx(1.0)


def test_collapsed_set_is_precise_and_recalls_nothing():
    found = neighbours(R, np.random.RandomState(2).randn(1000, 16) * 0.05)
    assert (found.precision, found.recall, found.coverage) == (1.0, 0.0, 0.141)
    assert found.density == pytest.approx(13.27, abs=5e-3)


def test_one_repeated_real_point_recalls_nothing():
    found = neighbours(R, np.repeat(R[:1], 50, 0))
    assert (found.precision, found.recall) == (1.0, 0.0)


def test_convention_of_precision_and_recall():
    rs = np.random.RandomState(0)
    found = neighbours(3 * rs.randn(200, 16), 0.1 * rs.randn(200, 16), k=3)
    assert found.precision > 0.8
    assert found.recall < 0.3


def test_distances_are_exact_for_equal_rows():
    x = torch.randn(50, 30, dtype=torch.float64) + 100
    assert torch.equal(squared_distances(x, x).diagonal(), torch.zeros(50, dtype=torch.float64))
    y = torch.randn(20, 30, dtype=torch.float64)
    assert torch.allclose(squared_distances(x, y), torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist") ** 2)


@pytest.mark.parametrize("metric", [frechet, kernel, neighbours])
def test_bad_features_are_refused(metric):
    with pytest.raises(BadInput, match="16 and of 3"):
        metric(R, F[:, :3])
    with pytest.raises(BadInput, match="finite"):
        metric(R, np.where(np.arange(16) == 3, np.nan, F))
    with pytest.raises(BadInput, match="at least 2"):
        metric(R, F[:1])


def test_more_neighbours_than_rows_are_refused():
    with pytest.raises(BadInput, match="expected 1 to 4"):
        neighbours(R, F[:5], k=5)
