"""Diversity within a condition and class consistency, by hand and against scipy."""

import numpy as np
import pytest
import torch

from condgen.errors import BadInput
from condgen.evaluation.consistency import consistency
from condgen.evaluation.diversity import diversity_ratio, mean_distance, within


def test_mean_distance_agrees_with_scipy():
    distance = pytest.importorskip("scipy.spatial.distance")
    x = np.random.RandomState(0).randn(120, 3, 4, 4) + 50
    expected = distance.pdist(x.reshape(120, -1)).mean()
    assert mean_distance(x) == pytest.approx(expected, rel=1e-12)
    assert mean_distance(x, chunk=17) == pytest.approx(expected, rel=1e-12)


def test_within_looks_at_one_group_at_a_time():
    x = torch.tensor([[0.0], [1.0], [100.0], [103.0], [7.0]])
    assert within(x, [0, 0, 1, 1, 2]) == pytest.approx({0: 1.0, 1: 3.0})


def test_ratio_of_halved_spread_is_half():
    rs = np.random.RandomState(1)
    real, groups = rs.randn(200, 6), np.arange(200) % 4
    means = 10 * groups[:, None]
    assert diversity_ratio(real + means, groups, real + means, groups) == pytest.approx(1.0)
    assert diversity_ratio(0.5 * real + means, groups, real + means, groups) == pytest.approx(0.5)


def test_one_picture_a_class_has_no_diversity():
    rs = np.random.RandomState(2)
    real, groups = rs.rand(60, 5), np.arange(60) % 3
    assert diversity_ratio(real[groups], groups, real, groups) == 0.0


def test_mean_consistency_counts_each_class_the_same():
    found = consistency([0, 0, 0, 1, 0], [0, 0, 0, 1, 1])
    assert (found.overall, found.mean, found.worst) == (0.8, 0.75, 0.5)


def test_diversity_without_common_conditions_is_refused():
    x = np.arange(4.0)[:, None]
    with pytest.raises(BadInput, match="no condition"):
        diversity_ratio(x, [0, 0, 0, 0], x, [1, 1, 1, 1])
    with pytest.raises(BadInput, match="all equal"):
        diversity_ratio(x, [0, 0, 0, 0], 0 * x, [0, 0, 0, 0])


def test_consistency_by_hand():
    found = consistency(predicted=[0, 0, 1, 1, 2, 0], asked=[0, 0, 1, 1, 2, 2])
    assert found.overall == pytest.approx(5 / 6)
    assert (found.worst, found.by_class) == (0.5, {0: 1.0, 1: 1.0, 2: 0.5})


def test_consistency_is_the_mean_recall_of_sklearn():
    metrics = pytest.importorskip("sklearn.metrics")
    rs = np.random.RandomState(0)
    asked, predicted = rs.randint(0, 5, 300), rs.randint(0, 5, 300)
    recalls = metrics.recall_score(asked, predicted, average=None)
    found = consistency(predicted, asked)
    assert found.overall == pytest.approx(metrics.accuracy_score(asked, predicted))
    assert found.worst == pytest.approx(recalls.min())


def test_consistency_of_nothing_is_refused():
    with pytest.raises(BadInput, match="one each"):
        consistency([], [])
    with pytest.raises(BadInput, match="one each"):
        consistency([1, 2], [1])
