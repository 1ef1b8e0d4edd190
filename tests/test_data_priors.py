"""Condition priors against closed forms, and against the measured bandwidth of Gauthier's experiment."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from condgen.conditions import Attributes, Box, Label
from condgen.data.priors import KDE, empirical, uniform
from condgen.errors import BadInput


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_empirical_rows_stay_together():
    values = {"a": torch.arange(7), "b": torch.arange(7)[:, None] * 10.0}
    drawn = empirical(values, 500, seeded())
    assert torch.equal(drawn["b"][:, 0], drawn["a"] * 10.0)
    assert set(drawn["a"].tolist()) == set(range(7))
    assert torch.equal(drawn["a"], empirical(values, 500, seeded())["a"])
    assert empirical({}, 3) == {}


def test_uniform_draws_valid_values():
    schema = {"digit": Label(tuple("abc")), "box": Box(), "attributes": Attributes(("age", "smile"), (20, 0), (60, 1), (False, True))}
    drawn = uniform(schema, 400, seeded())
    assert all(condition.problem(drawn[name]) is None for name, condition in schema.items())
    assert 20 <= drawn["attributes"][:, 0].min() and drawn["attributes"][:, 0].mean().sub(40).abs() < 2


def test_sample_covariance_is_that_of_the_rows_plus_the_window():
    mixing = torch.randn(3, 3, generator=seeded(1))
    rows = torch.randn(2000, 3, generator=seeded(2)) @ mixing
    kde = KDE(rows, bandwidth=0.7)
    drawn = kde.sample(200_000, seeded(3))
    expected = torch.cov(rows.T, correction=0) + 0.49 * torch.eye(3)
    assert (torch.cov(drawn.T) - expected).abs().max() < 0.03 * expected.diagonal().max()
    assert (drawn.mean(0) - rows.mean(0)).abs().max() < 0.02


def test_log_prob_is_the_mixture_density():
    rows = torch.randn(50, 4, generator=seeded()).double()
    at = torch.randn(9, 4, generator=seeded(1)).double() * 2
    mixture = MixtureSameFamily(Categorical(torch.ones(50)), Independent(Normal(rows, 0.3), 1))
    got = KDE(rows, bandwidth=0.3).log_prob(at)
    assert got.dtype == torch.float64 and got.shape == (9,)
    assert torch.allclose(got, mixture.log_prob(at), atol=1e-9)


def test_log_prob_in_chunks_is_the_same(monkeypatch):
    rows = torch.randn(40, 2, generator=seeded())
    whole = KDE(rows, 0.5).log_prob(rows)
    monkeypatch.setattr("condgen.data.priors.CHUNK_NUMBERS", 100)
    assert torch.allclose(KDE(rows, 0.5).log_prob(rows), whole, atol=1e-12)


def test_density_integrates_to_one():
    grid = torch.linspace(-12, 12, 4001)[:, None]
    density = KDE(torch.randn(30, 1, generator=seeded()), bandwidth=0.4).log_prob(grid).exp()
    assert math.isclose(float(torch.trapezoid(density, dx=24 / 4000)), 1, abs_tol=1e-6)


def test_cross_validation_finds_the_best_of_all_candidates():
    rows, held_out = torch.randn(200, 2, generator=seeded()), torch.randn(200, 2, generator=seeded(1))
    candidates = [float(s) for s in np.geomspace(0.02, 3, 23)]
    by_hand = max(candidates, key=lambda s: float(KDE(rows, bandwidth=s).log_prob(held_out).sum()))
    assert KDE(rows, held_out=held_out, candidates=candidates).bandwidth == by_hand
    assert 0.15 < KDE(rows).bandwidth < 0.7, "Silverman's rule gives about .39 here"


def test_bandwidth_follows_the_scale_of_the_data():
    rows = torch.randn(100, 2, generator=seeded())
    assert KDE(rows * 1000).bandwidth == pytest.approx(1000 * KDE(rows).bandwidth, rel=1e-6)


def test_several_conditions_keep_their_names_and_shapes():
    values = {"box": torch.rand(60, 4, generator=seeded()), "attributes": torch.rand(60, 2, generator=seeded())}
    kde = KDE(values, bandwidth=1e-6)
    drawn = kde.sample(20, seeded(1))
    assert {k: tuple(v.shape) for k, v in drawn.items()} == {"attributes": (20, 2), "box": (20, 4)}
    joined = torch.cat([values["attributes"], values["box"]], 1)
    nearest = (torch.cat([drawn["attributes"], drawn["box"]], 1)[:, None] - joined).norm(dim=2).min(1).values
    assert nearest.max() < 1e-4, "rows of several conditions are drawn together"
    assert kde.log_prob(values).shape == (60,)


def test_labels_have_no_window():
    with pytest.raises(BadInput, match="real-valued"):
        KDE({"digit": torch.arange(5)})
    with pytest.raises(BadInput, match="at least 2 rows"):
        KDE(torch.zeros(1, 2))


def test_bandwidth_of_gauthiers_faces():
    path = Path(os.environ.get("CONDGEN_DATA", "")) / "lfw64" / "meta.npz"
    if not os.environ.get("CONDGEN_DATA") or not path.is_file():
        pytest.skip("$CONDGEN_DATA/lfw64/meta.npz is missing")
    meta = np.load(path, allow_pickle=False)
    y, split = torch.from_numpy(meta["kumar_pca30"]), meta["gauthier_split"] * meta["has_kumar"] - ~meta["has_kumar"]
    rows, dev = y[split == 0], y[split == 1]
    assert (len(rows), len(dev)) == (12_000, 571)
    candidates = (0.5, 0.7, 0.8, 0.9, 1.0, 1.2)
    kde = KDE(rows, held_out=dev, candidates=candidates)
    assert kde.bandwidth == 0.8
    assert float(kde.log_prob(dev).mean()) == pytest.approx(-43.69, abs=0.01)
    assert KDE(rows, held_out=dev[:100]).bandwidth == pytest.approx(0.8, abs=0.1)
