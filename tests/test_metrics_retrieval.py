"""Retrieval, one-shot classification and strokes: closed forms, independent implementations, and the known baselines of Omniglot."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from condgen.conditions import Label
from condgen.data import load, omniglot
from condgen.data.ink import blurred, centred, reduced
from condgen.data.store import Content, Dataset, to_bytes, to_float
from condgen.errors import BadInput
from condgen.evaluation import recognition
from condgen.evaluation.measuring import Measured, Measuring
from condgen.evaluation.protocols import METRICS
from condgen.evaluation.retrieval import cosine_distances, one_shot, one_shot_accuracy, retrieval, whitening
from condgen.evaluation.strokes import hausdorff_distances, ink_points, modified_hausdorff
from condgen.model import Model, Run

RUN = Run(model="fake", data="fake", name="fake")


@pytest.fixture(scope="module")
def runs_at():
    if not os.environ.get("CONDGEN_DATA") or not (Path(os.environ["CONDGEN_DATA"]) / "omniglot").is_dir():
        pytest.skip("$CONDGEN_DATA/omniglot is missing")
    return omniglot.one_shot_runs


def pixels(x: torch.Tensor) -> torch.Tensor:
    return ((x + 1) / 2).flatten(1)


# --- retrieval ------------------------------------------------------------------------------------------------------------


def test_retrieval_by_hand():
    # around the circle: a at 0 and 50 degrees, b at 10 and 90
    turn = torch.tensor([0.0, 50.0, 10.0, 90.0]).deg2rad()
    found = retrieval(torch.stack([turn.cos(), turn.sin()], dim=1), torch.tensor([0, 0, 1, 1]), k=1)
    # ranks of the one that fits, among three: 2 (b first), 3 (b, b), 3 (a, a), 2
    assert found.map == pytest.approx((1 / 2 + 1 / 3 + 1 / 3 + 1 / 2) / 4)
    assert found.p_at_1 == found.p_at_k == 0


def test_average_precision_is_that_of_sklearn():
    metrics = pytest.importorskip("sklearn.metrics")
    rs = np.random.RandomState(0)
    x, y = rs.randn(60, 5), rs.randint(0, 4, 60)
    similar = x @ x.T / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(x, axis=1))
    others = [np.delete(np.arange(60), i) for i in range(60)]
    expected = np.mean([metrics.average_precision_score(y[o] == y[i], similar[i, o]) for i, o in enumerate(others)])
    first = np.mean([y[o[similar[i, o].argmax()]] == y[i] for i, o in enumerate(others)])
    found = retrieval(x, y, k=7)
    assert found.map == pytest.approx(expected, rel=1e-12) and found.p_at_1 == pytest.approx(first)
    assert retrieval(x, y, k=7, chunk=11)[:3] == pytest.approx(found[:3])


def test_perfect_features_retrieve_perfectly():
    y = torch.arange(5).repeat_interleave(4)
    found = retrieval(torch.eye(5)[y] + 1e-3 * torch.rand(20, 5, generator=torch.Generator().manual_seed(0)), y, k=3)
    assert (found.p_at_1, found.p_at_k, found.map) == (1, 1, 1) and found.standard_errors == (0, 0, 0)


def test_features_that_say_nothing_score_as_chance():
    y = torch.arange(30).repeat_interleave(20)
    assert retrieval(torch.ones(600, 3), y).p_at_k == pytest.approx(19 / 599, abs=0.01), "not by the order of the rows"


def test_a_label_of_one_row_is_no_query():
    x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    assert retrieval(x, torch.tensor([0, 0, 1]), k=1).map == 1
    with pytest.raises(BadInput, match="no label has two rows"):
        retrieval(x, torch.tensor([0, 1, 2]), k=1)
    with pytest.raises(BadInput, match="k is 3"):
        retrieval(x, torch.tensor([0, 0, 1]), k=3)
    with pytest.raises(BadInput, match="one label a row"):
        retrieval(x, torch.tensor([0, 0]), k=1)


def test_the_error_is_that_of_the_labels_means():
    rs = np.random.RandomState(3)
    x, y = rs.randn(40, 6), np.arange(40) % 8  # five of each: the mean over rows is the mean of the labels' means
    by_label = [retrieval(np.roll(x, 0), np.where(y == k, k, 100 + np.arange(40)), k=1).map for k in range(8)]
    found = retrieval(x, y, k=1)
    assert found.map == pytest.approx(np.mean(by_label))
    assert found.standard_errors[2] == pytest.approx(np.std(by_label, ddof=1) / math.sqrt(8))


# --- one-shot classification ----------------------------------------------------------------------------------------------


def trial(answers: list[int], off: int = 0) -> omniglot.Trial:
    shown = 2 * torch.eye(4).reshape(4, 1, 2, 2) - 1
    right = torch.tensor(answers)
    return omniglot.Trial(shown, shown[right], (right + off) % 4)


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_one_shot_counts_right_answers(distance):
    runs = [trial([0, 2, 1, 3]), trial([3, 1, 2, 0], off=1)]
    found = one_shot_accuracy(pixels, runs, distance)
    assert found.mean == 0.5 and found.standard_error == pytest.approx(0.5)


def test_one_shot_refuses_what_it_cannot_do():
    with pytest.raises(BadInput, match="did you mean 'cosine'"):
        one_shot_accuracy(pixels, [trial([0]), trial([1])], "cosin")
    with pytest.raises(BadInput, match="at least 2 runs"):
        one_shot_accuracy(pixels, [trial([0, 1])])


def test_cosine_distance_of_nothing():
    found = cosine_distances(torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]))
    assert torch.allclose(found, torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 2.0]]))


@pytest.mark.parametrize(
    "wanted, distance, expected",
    [
        ({}, "cosine", 0.2175),
        ({"size": 28}, "cosine", 0.245),
        ({"size": 28, "centred": True}, "cosine", 0.495),
        ({"size": 32, "centred": True, "blur": 1.0}, "l2", 0.5975),
    ],
    ids=["105", "28", "28-centred", "32-centred-blurred"],
)
def test_pixels_reach_the_known_accuracies(runs_at, wanted, distance, expected):
    found = one_shot_accuracy(pixels, runs_at(**wanted), distance)
    assert found.mean == pytest.approx(expected, abs=0.005) and 0.02 < found.standard_error < 0.05


@pytest.mark.slow
def test_modified_hausdorff_reaches_the_official_error(runs_at):
    assert one_shot(hausdorff_distances, runs_at()).mean == pytest.approx(1 - 0.388, abs=0.002)


@pytest.mark.parametrize("split, raw, best", [("train", (0.396, 0.100), (0.774, 0.408)), ("small2", (0.365, 0.088), (0.763, 0.370))])
def test_pixels_retrieve_as_is_known(runs_at, split, raw, best):
    data = load("omniglot", split)
    labels = data.values()["character"]
    sheets = data.pictures()
    plain = retrieval(pixels(to_float(reduced(sheets, 28))), labels)
    assert (plain.p_at_1, plain.map) == pytest.approx(raw, abs=0.0006)
    middle = reduced(to_bytes(centred(to_float(sheets), whole=True)), 32)
    found = retrieval(pixels(blurred(to_float(middle), 1.0)), labels)
    assert (found.p_at_1, found.map) == pytest.approx(best, abs=0.002)


# --- strokes --------------------------------------------------------------------------------------------------------------


def test_modified_hausdorff_by_hand():
    # from {0, 1} to {0, 4}: 0, 1 -> mean .5; back: 0, 3 -> mean 1.5
    a, b = torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    assert modified_hausdorff(a, b) == modified_hausdorff(b, a) == pytest.approx(1.5)


def test_modified_hausdorff_by_scipy():
    distance = pytest.importorskip("scipy.spatial.distance")
    rs = np.random.RandomState(0)
    a, b = 20 * rs.randn(300, 2), 20 * rs.randn(200, 2)
    gaps = distance.cdist(a, b)
    expected = max(gaps.min(0).mean(), gaps.min(1).mean())
    assert float(modified_hausdorff(torch.tensor(a).float(), torch.tensor(b).float())) == pytest.approx(expected, abs=1e-4)


def test_a_moved_drawing_is_at_no_distance():
    x = -torch.ones(2, 1, 12, 12)
    x[0, 0, 1:4, 2] = 1
    x[1, 0, 6:9, 9] = 1
    assert torch.allclose(hausdorff_distances(x[:1], x[1:]), torch.zeros(1, 1), atol=1e-3)
    with pytest.raises(BadInput, match="without ink"):
        ink_points(-torch.ones(1, 4, 4))


# --- whitening ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, d", [(200, 12), (30, 5000)], ids=["tall", "wide"])
def test_whitened_features_have_variance_one(n, d):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 3, d) + 5
    white = whitening(x, 8)(x)
    assert torch.allclose(white.T.cov(), torch.eye(8, dtype=torch.float64), atol=1e-4)
    assert torch.allclose(white.mean(0), torch.zeros(8, dtype=torch.float64), atol=1e-4)


def test_whitening_is_that_of_sklearn():
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = np.random.RandomState(0).randn(80, 6) * [5, 4, 3, 2, 1, 0.5]
    expected = decomposition.PCA(3, whiten=True).fit(x).transform(x)
    found = whitening(torch.from_numpy(x), 3)(torch.from_numpy(x)).numpy()
    assert np.allclose(np.abs(found), np.abs(expected), atol=1e-8)


def test_whitening_leaves_out_what_is_not_there():
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).double() @ torch.ones(3, 9, dtype=torch.float64).triu()
    assert whitening(x, 256).directions.shape == (9, 3)
    with pytest.raises(BadInput, match="equal"):
        whitening(torch.ones(5, 3))
    with pytest.raises(BadInput, match="finite"):
        whitening(torch.full((5, 3), torch.nan))


# --- the two metrics ------------------------------------------------------------------------------------------------------


class Sees(Model):
    """Features are the pixels; untrained, only two in a corner."""

    def __init__(self, shape, schema):
        super().__init__(shape, schema)
        self.trained = False
        self.anchor = nn.Parameter(torch.zeros(1))

    def turns(self, batch, step):
        yield {}

    def features(self, x):
        assert not self.training and not torch.is_grad_enabled()
        flat = x.flatten(1)
        return flat if self.trained else flat[:, :2]


class Blind(Model):
    def turns(self, batch, step):
        yield {}


def measuring(side: int = 8, channels: int = 1) -> Measuring:
    """Six classes, each a patch of its own place with noise; the test classes are others than the training's."""
    rs = np.random.RandomState(0)
    schema = {"sign": Label(tuple("abcdefghijkl"))}
    parts = []
    for first in (0, 6):
        y = np.arange(60) % 6 + first
        patterns = np.random.RandomState(1).rand(12, side, side, channels) > 0.6
        pixels = np.clip(200 * patterns[y] + rs.randint(0, 55, (60, side, side, channels)), 0, 255).astype(np.uint8)
        parts.append(Dataset("fake", "fake", Content(pixels, {"sign": torch.from_numpy(y)}, schema)))
    model = Sees((channels, side, side), schema)
    model.trained = True
    return Measuring(model, RUN, n=24, train=parts[0], test=parts[1])


def test_retrieval_map_tells_a_trained_model_from_an_untrained_one():
    m = measuring()
    found = METRICS["retrieval_map"].measure(m)
    assert list(found) == ["retrieval_map", "retrieval_map/P@1", "retrieval_map/P@19"]
    whole = found["retrieval_map"]
    assert whole.value > 0.95 > 0.8 > whole.control and whole.ceiling == 1.0 and whole.n == 60 and whole.standard_error is not None
    assert found["retrieval_map/P@1"].value > 0.9 and found["retrieval_map/P@19"].value == pytest.approx(9 / 19, abs=0.05)
    assert found["retrieval_map/P@1"].ceiling == 1.0 and found["retrieval_map/P@19"].ceiling == pytest.approx(9 / 19)
    for field in (
        "label=sign",
        "8x8 px",
        "ink centred",
        "256 components of 60 training rows",
        "ceiling=by definition",
        "control=untrained",
        "pixel control=",
    ):
        assert field in whole.provenance


def test_colour_is_not_centred():
    assert "centred" not in METRICS["retrieval_map"].measure(measuring(channels=3))["retrieval_map"].provenance


def test_retrieval_needs_a_label():
    m = measuring()
    m.test.schema = {}
    with pytest.raises(BadInput, match="needs a label"):
        METRICS["retrieval_map"].measure(m)


def test_both_are_asked_for_by_name_and_need_features():
    blind = Blind((1, 8, 8), {})
    for name in ("retrieval_map", "one_shot_accuracy"):
        assert METRICS[name].asked_only and "features" in str(METRICS[name].refusal(blind))
        assert METRICS[name].refusal(measuring().model) is None


def test_one_shot_accuracy_of_pixels_as_features(runs_at, monkeypatch):
    monkeypatch.setattr(recognition, "one_shot_hausdorff", lambda: recognition.Accuracy(0.6125, 0.04))  # tested above, and slow
    m = measuring(side=28)
    found = METRICS["one_shot_accuracy"].measure(m)
    assert isinstance(found, Measured) and found.n == 400 and found.ceiling == 1.0 and found.standard_error > 0
    assert 0.05 < found.value < 1 and found.control < 0.2
    assert "|ceiling=1 by definition|" in found.provenance
    assert "pixel control=0.5975|modified Hausdorff=0.6125" in found.provenance


def test_one_shot_is_of_square_sheets():
    with pytest.raises(BadInput, match=r"one channel.*\(3, 8, 8\)"):
        METRICS["one_shot_accuracy"].measure(measuring(channels=3))


def test_features_that_are_no_rows_are_refused():
    m = measuring()
    m.model.features = lambda x: x
    with pytest.raises(BadInput, match=r"\(n, d\)"):
        METRICS["retrieval_map"].measure(m)
