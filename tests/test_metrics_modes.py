"""Modes of a known mixture: true samples find all, a collapsed set one, and what lies between is counted by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from condgen.data import load, mixture2d
from condgen.errors import BadInput
from condgen.evaluation.metrics import METRICS, metric_of
from condgen.evaluation.modes import count_modes, nearest_mode
from condgen.evaluation.protocols import chosen, evaluate
from condgen.model import Run, Sampler

TWO = torch.tensor([[0.0, 0.0], [4.0, 0.0]])


# --- counting -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "k"), [("mixture2d", 25), ("mixture9", 9)])
def test_true_samples_have_all_modes(name, k):
    test = load(name, "test")
    found = count_modes(test.batch(range(10_000)).x, mixture2d.MIXTURES[name])
    assert (found.any, found.hit, found.fair) == (k, k, k)
    assert found.high_quality == pytest.approx(1 - math.exp(-4.5), abs=0.003)  # 0.9889: two dimensions, three standard deviations
    assert 0 <= found.kl < 0.003


def test_a_collapsed_set_has_one():
    found = count_modes(np.repeat(mixture2d.CENTRES[7:8], 500, axis=0), mixture2d.CENTRES)
    assert found[:3] == (1, 1, 1) and found.high_quality == 1
    assert found.kl == pytest.approx(math.log(25))


def test_counts_by_hand():
    x = torch.tensor([[0.0, 0.2], [0.0, -0.31], [3.9, 0.0], [2.1, 0.0]])  # near the first; just not; near the second; far from it
    found = count_modes(x, TWO, std=0.1)
    assert (found.any, found.hit, found.high_quality) == (2, 2, 0.5)
    assert found.kl == pytest.approx(0, abs=1e-12)


def test_a_mode_of_one_sample_is_hit_and_not_fair():
    x = torch.cat([torch.zeros(99, 2), TWO[1:]])
    assert count_modes(x, TWO, 0.1)[:3] == (2, 2, 1)
    assert count_modes(torch.cat([torch.zeros(9, 2), TWO[1:]]), TWO, 0.1).fair == 2, "a fifth of half of ten is one"
    p = torch.tensor([0.99, 0.01], dtype=torch.float64)
    assert count_modes(x, TWO, 0.1).kl == pytest.approx(float((p * (2 * p).log()).sum()))


def test_modes_without_a_near_sample_are_dropped_only_by_the_stricter_count():
    found = count_modes(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), TWO, 0.1)
    assert (found.any, found.hit, found.fair, found.high_quality) == (2, 0, 0, 0)
    assert found.kl == pytest.approx(math.log(2)), "of nothing: the worst"


def test_the_nearest_mode_is_the_most_probable():
    from scipy.stats import multivariate_normal

    x = np.random.default_rng(0).uniform(-5, 5, (300, 2))
    log_p = np.stack([multivariate_normal.logpdf(x, mean, mixture2d.STD**2) for mean in mixture2d.CENTRES.astype(float)])
    assert nearest_mode(x, mixture2d.CENTRES)[0].tolist() == log_p.argmax(0).tolist()


def test_what_belongs_to_no_mode_is_refused():
    with pytest.raises(BadInput, match="not finite"):
        nearest_mode(torch.tensor([[math.nan, 0.0]]), TWO)
    with pytest.raises(BadInput, match=r"points of shape \(3, 5\)"):
        nearest_mode(torch.zeros(3, 5), TWO)
    with pytest.raises(BadInput, match="expected"):
        nearest_mode(torch.zeros(0, 2), TWO)


def test_nine_modes_are_the_middle_of_twenty_five():
    train = load("mixture9")
    assert train.schema["mode"].names == ("-2,-2", "0,-2", "2,-2", "-2,0", "0,0", "2,0", "-2,2", "0,2", "2,2")
    batch = train.batch(range(len(train)))
    off = batch.x - torch.from_numpy(mixture2d.NINE)[batch.c["mode"]]
    assert len(train) == 100_000 and abs(float(off.std()) - 0.05) < 0.0005
    assert (batch.c["mode"].bincount(minlength=9) - 100_000 / 9).abs().max() < 500


# --- metrics --------------------------------------------------------------------------------------------------------------


class Exact(Sampler):
    """Draws from the mixture and encodes exactly: z = (u, e), u uniform over modes, e standard normal; or by its fault does not."""

    def __init__(self, shape, schema=None, data="mixture2d", fault="untrained"):
        super().__init__(shape, {})
        self.centres, self.fault = torch.from_numpy(mixture2d.MIXTURES[data]), fault
        self.anchor = nn.Parameter(torch.zeros(1))

    def turns(self, batch, step):
        yield {}

    def prior(self, n, c):
        return torch.cat([self.noise.uniform(n, 1), self.noise.normal(n, 2)], 1)

    def decode(self, z, c):
        if self.fault == "untrained":
            return 0.01 * z[:, 1:] + 0.7
        k = (z[:, 0] * len(self.centres)).long().clamp(0, len(self.centres) - 1)
        return self.centres[k * (self.fault != "collapsed")] + mixture2d.STD * z[:, 1:]

    def encode(self, x, c):
        k, _ = nearest_mode(x, self.centres)
        e = (x - self.centres[k]) / mixture2d.STD
        k = torch.where(torch.arange(len(x)) % 5 == 0, (k + 1) % len(self.centres), k) if self.fault == "confuses" else k
        return torch.cat([(k[:, None] + 0.5) / len(self.centres), e], 1)


def measured(fault="", data="mixture2d"):
    train, test = load(data).slice(0, 5000), load(data, "test").slice(0, 4000)
    model = Exact((2,), data=data, fault=fault)
    model.options = {"data": data}  # fresh weights are untrained
    names = ["modes", "high_quality", "same_mode_reconstruction"]
    return evaluate(model, Run("fake", data), metrics=names, n=4000, train=train, test=test)["metrics"]


@pytest.mark.parametrize(("data", "k"), [("mixture2d", 25), ("mixture9", 9)])
def test_an_exact_model_is_at_its_ceilings(data, k):
    found = measured(data=data)
    for part in ("modes", "modes/any", "modes/fair"):
        assert (found[part]["value"], found[part]["ceiling"], found[part]["control"]) == (k, k, 0 if part in ("modes", "modes/fair") else 1)
    assert found["modes/kl"]["value"] < 0.01 and found["modes/kl"]["control"] == pytest.approx(math.log(k))
    assert found["high_quality"]["value"] == pytest.approx(found["high_quality"]["ceiling"], abs=0.006)
    assert found["high_quality"]["control"] < 0.1
    kept = found["same_mode_reconstruction"]
    assert (kept["value"], kept["ceiling"]) == (1, 1) and kept["control"] == pytest.approx(1 / k, abs=0.02)
    assert found["same_mode_reconstruction/high_quality"]["value"] == found["same_mode_reconstruction/high_quality"]["ceiling"] > 0.98
    assert found["same_mode_reconstruction/latent_spread"]["value"] < 0.05
    assert found["modes"]["provenance"].startswith(f"modes|{k} modes|within 3 sd of 0.05|n=4000|f64|v1")


def test_a_collapsed_model_is_of_high_quality_and_has_one_mode():
    found = measured("collapsed")
    assert found["modes"]["value"] == 1 and found["modes/any"]["value"] == 1
    assert found["high_quality"]["value"] > 0.98
    assert found["same_mode_reconstruction"]["value"] == pytest.approx(1 / 25, abs=0.02)


def test_every_fifth_point_that_changes_its_mode_counts():
    found = measured("confuses")
    assert found["same_mode_reconstruction"]["value"] == 0.8
    assert found["same_mode_reconstruction/high_quality"]["value"] == pytest.approx(0.8 * 0.9889, abs=0.01)
    assert found["modes"]["value"] == 25


def test_where_modes_are_not_known_that_is_said():
    one = load("mixture1d", "test").slice(0, 50)

    class Line(Exact):
        def decode(self, z, c):
            return z[:, :1]

    model = Line((1,))
    with pytest.raises(BadInput, match="modes of 'mixture1d' are not known; those of mixture2d and mixture9 are"):
        evaluate(model, Run("fake", "mixture1d"), metrics=["modes"], train=one, test=one)
    with pytest.raises(BadInput, match="no points"):
        chosen(Exact((1, 8, 8)), ["modes"])
    assert not {"modes", "high_quality", "same_mode_reconstruction"} & set(chosen(Exact((1, 8, 8)), None)), "nobody is warned of pictures"


def test_of_some_parts_less_is_better():
    assert METRICS["modes"].higher and metric_of("modes").higher and metric_of("modes/fair").higher
    assert not metric_of("modes/kl").higher and not metric_of("same_mode_reconstruction/latent_spread").higher
