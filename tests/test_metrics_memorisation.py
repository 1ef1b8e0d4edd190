"""Nearest training pictures against brute force, and the ratio of models that draw and that copy."""

import pytest
import torch
from torch import Generator

from condgen.data import load
from condgen.errors import BadInput
from condgen.evaluation.memorisation import beside_nearest, nearest
from condgen.evaluation.protocols import evaluate
from painter import NOISE, RUN, TEST, TRAIN, Painter


def test_nearest_agrees_with_brute_force():
    generator = Generator().manual_seed(0)
    samples, train = torch.randn(40, 3, 6, 6, generator=generator), torch.randn(300, 3, 6, 6, generator=generator)
    all_pairs = torch.cdist(samples.flatten(1).double(), train.flatten(1).double(), compute_mode="donot_use_mm_for_euclid_dist")
    expected, at = all_pairs.min(1)
    for chunk in (7, 300, 5000):
        distance, row = nearest(samples, train, chunk)
        assert torch.equal(row, at)
        assert torch.allclose(distance, expected, atol=1e-12)


def test_a_data_set_is_read_in_parts():
    digits = load("digits")
    rows = torch.tensor([0, 700, 1300])
    distance, row = nearest(digits.batch(rows).x, digits, chunk=100)
    assert torch.equal(row, rows)
    assert torch.equal(distance, torch.zeros(3, dtype=torch.float64))


def test_a_near_copy_keeps_its_distance():
    train = TRAIN.x + 3
    distance, row = nearest(train[:5] + 1e-4, train)
    assert row.tolist() == [0, 1, 2, 3, 4]
    assert torch.allclose(distance, torch.full((5,), 16e-4, dtype=torch.float64), rtol=0.01)


def test_samples_stand_above_their_neighbours_the_nearest_first():
    x = torch.cat([TEST.x[:3], TRAIN.x[7:8]])
    found = beside_nearest(x, TRAIN.x, most=3)
    assert found.shape == (6, 1, 16, 16)
    assert torch.equal(found[0], TRAIN.x[7]) and torch.equal(found[3], TRAIN.x[7])
    gaps = (found[:3] - found[3:]).flatten(1).norm(dim=1)
    assert gaps.tolist() == sorted(gaps.tolist())


def test_nothing_to_compare_is_refused():
    with pytest.raises(BadInput, match="0 samples and 400 training rows"):
        nearest(TRAIN.x[:0], TRAIN)
    with pytest.raises(BadInput, match="of 4 numbers and training rows of 256"):
        nearest(torch.zeros(2, 1, 2, 2), TRAIN)


def ratio(fault="", test=TEST):
    found = evaluate(Painter(fault=fault), RUN, metrics=["memorisation_ratio"], n=150, train=TRAIN, test=test)
    return found["metrics"]["memorisation_ratio"]


def test_a_model_that_draws_is_as_far_away_as_new_pictures():
    found = ratio()
    assert found["value"] == pytest.approx(1, abs=0.06)
    assert (found["ceiling"], found["n"]) == (1.0, 150)
    assert found["control"] == pytest.approx(0.05 / (NOISE * 2**0.5), rel=0.2)
    assert found["provenance"].startswith("memorisation_ratio|pixels L2|medians|n=150/200|train=400|")


def test_a_model_that_copies_is_at_zero():
    assert ratio("copies")["value"] == 0.0


def test_a_test_split_of_training_pictures_says_nothing():
    with pytest.raises(BadInput, match="training pictures as well"):
        ratio(test=TRAIN)
