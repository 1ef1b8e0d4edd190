"""What codes know and what reconstructions keep: against closed forms, independent implementations, and the known controls of MNIST."""

import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, nn

from condgen.conditions import Label
from condgen.data import Batch, load
from condgen.errors import BadInput
from condgen.evaluation import svm as svms
from condgen.evaluation.inference import ks_distances, ratio_of
from condgen.evaluation.metrics import METRICS
from condgen.evaluation.probes import agreement, logistic, nearest_rows, pixels, principal, read
from condgen.evaluation.protocols import chosen, evaluate
from condgen.evaluation.svm import GRID, balanced_draws, l2_svm, spanned
from condgen.model import Model, Run, Sampler


@pytest.fixture(scope="module")
def mnist():
    if not os.environ.get("CONDGEN_DATA") or not (Path(os.environ["CONDGEN_DATA"]) / "mnist").is_dir():
        pytest.skip("$CONDGEN_DATA/mnist is missing")
    train, test = load("mnist"), load("mnist", "test")
    rows = test.batch(range(10_000))
    return read(train, torch.arange(60_000), pixels), train.values()["digit"], pixels(rows), rows.c["digit"]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


# --- the nearest neighbour ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_the_nearest_is_that_of_all_distances(chunk):
    x, references = normal(60, 5), normal(200, 5, seed=1) + 30
    expected = torch.cdist(x.double(), references.double()).argmin(1)
    assert torch.equal(nearest_rows(x, references, chunk), expected)


def test_of_equal_references_the_first():
    references = normal(300, 17)
    doubled = torch.cat([references[200:], references, references[:50]])
    assert torch.equal(nearest_rows(references, doubled), torch.cat([torch.arange(100, 300), torch.arange(100)]))
    assert nearest_rows(torch.zeros(2, 3), torch.ones(500, 3)).tolist() == [0, 0], "also of more than are compared again"


def test_what_rounding_cannot_tell_is_compared_exactly():
    step = torch.finfo(torch.float32).eps
    references = torch.tensor([[1.0, 0.0], [0.0, 1.0 - step], [-1.0 + 2 * step, 0.0], [50.0, 50.0]])
    assert nearest_rows(torch.zeros(1, 2), references).tolist() == [2]


def test_wrong_widths_are_refused():
    with pytest.raises(BadInput, match=r"\(2, 3\) and references of \(4, 5\)"):
        nearest_rows(torch.zeros(2, 3), torch.zeros(4, 5))
    with pytest.raises(BadInput, match="expected"):
        nearest_rows(torch.zeros(2, 3), torch.zeros(0, 3))


def test_principal_components_are_those_of_sklearn():
    from sklearn.decomposition import PCA

    x, other = normal(400, 12) @ normal(12, 12, seed=1), normal(30, 12, seed=2)
    expected = PCA(4).fit(x.double().numpy()).transform(other.double().numpy())
    assert principal(x, 4)(other).abs().numpy() == pytest.approx(np.abs(expected), abs=1e-4)


@pytest.mark.slow
def test_mnist_has_its_known_neighbours(mnist):
    """Exactly, of all 60,000: the controls that BiGAN's 97.39 % must be read beside."""
    train, labels, test, answers = mnist
    assert agreement(labels[nearest_rows(test, train)], answers) == 0.9691
    project = principal(train, 50)
    assert agreement(labels[nearest_rows(project(test), project(train))], answers) == 0.9734


# --- linear models --------------------------------------------------------------------------------------------------------


def blobs(n, classes=3, width=2.0, seed=0):
    """Vectors (n, 4) around one corner a class, and their labels."""
    labels = torch.arange(n) % classes
    return width * torch.eye(4)[labels] + 0.5 * normal(n, 4, seed=seed), labels


def test_a_probe_is_a_logistic_regression_on_standardised_codes():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (x, y), (test, _) = blobs(300), blobs(200, seed=1)
    scale = torch.tensor([1e3, 1.0, 1e-3, 1.0])
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000)).fit((x * scale).numpy(), y.numpy())
    assert agreement(logistic(x * scale, y, test * scale), torch.from_numpy(expected.predict((test * scale).numpy()))) > 0.99
    with pytest.raises(BadInput, match="one label"):
        logistic(x, torch.zeros_like(y), test)


def test_draws_are_balanced_and_fresh():
    labels = torch.tensor([0] * 50 + [1] * 20 + [2] * 30)
    draws = list(islice(balanced_draws(labels, 10, seed=3), 4))
    for rows in draws:
        assert labels[rows].bincount().tolist() == [10, 10, 10] and len(rows.unique()) == 30
    assert len({tuple(rows.sort().values.tolist()) for rows in draws}) == 4
    assert torch.equal(draws[0], next(balanced_draws(labels, 10, seed=3)))
    with pytest.raises(BadInput, match="at least 20 rows each; a draw needs two classes, and 21 rows"):
        next(balanced_draws(labels, 21, seed=0))
    with pytest.raises(BadInput, match="1 classes"):
        next(balanced_draws(labels[:50], 5, seed=0))


def test_svms_separate_what_is_separable_and_guess_noise():
    train, labels = blobs(600, width=8.0)
    test, answers = blobs(300, width=8.0, seed=1)
    assert l2_svm(train, labels, test, answers, draws=3, per_class=20)[:2] == (0, 0)
    noise = l2_svm(normal(600, 4), labels, normal(900, 4, seed=1), torch.arange(900) % 3, draws=5, per_class=20)
    assert noise.error == pytest.approx(2 / 3, abs=0.06) and noise.sd > 0


def test_the_protocol_chooses_on_the_last_sixth_and_draws_from_the_rest(monkeypatch):
    seen = []

    def error(train, labels, test, answers, c):
        seen.append((train, labels, test, answers, c))
        return abs(np.log(c) - 1.0) if len(seen) <= len(GRID) else 0.1 * (len(seen) - len(GRID))

    monkeypatch.setattr(svms, "_error", error)
    train, labels = torch.arange(120.0)[:, None], torch.arange(120) % 2
    found = l2_svm(train, labels, torch.full((7, 1), -1.0), torch.zeros(7), draws=4, per_class=6)
    assert found == pytest.approx((0.25, np.std([0.1, 0.2, 0.3, 0.4]), GRID[int(np.argmin(np.abs(np.log(GRID) - 1)))]))
    assert len(seen) == 50 + 4 and len({id(s[0]) for s in seen[50:]}) == 4
    assert all(s[0].max() < 100 and s[1].bincount().tolist() == [6, 6] for s in seen)
    assert all(torch.equal(s[2], train[100:]) for s in seen[:50]) and all(len(s[2]) == 7 for s in seen[50:])
    assert (GRID[0], GRID[-1]) == pytest.approx((np.exp(-20), np.exp(20)))


@pytest.mark.slow
def test_mnist_pixels_give_the_known_error(mnist):
    """12.28 +- .30 % at C = .0112 in the reference, of ten other draws."""
    found = l2_svm(*mnist, draws=30)
    assert found.c == pytest.approx(0.0112, abs=1e-4)
    assert found.error == pytest.approx(0.1228, abs=0.004) and found.sd == pytest.approx(0.003, abs=0.002)


# --- reconstructions and priors -------------------------------------------------------------------------------------------


def test_the_ratio_by_hand():
    x, back = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    assert ratio_of(x, back) == pytest.approx((1 + 0) / (1 + 2))  # each from its own; each from the other


def test_the_ratio_of_perfect_and_of_unrelated_reconstructions():
    x = normal(500, 1, 4, 4)
    assert ratio_of(x, x) == 0
    assert ratio_of(x, normal(500, 1, 4, 4, seed=1)) == pytest.approx(1, abs=0.02)
    assert ratio_of(x, torch.zeros_like(x)) == pytest.approx(1, abs=1e-12), "the mean picture keeps nothing"
    with pytest.raises(BadInput, match="no other"):
        ratio_of(x[:1], x[:1])


def test_the_distance_of_marginals_is_that_of_scipy():
    from scipy.stats import ks_2samp

    x, y = torch.cat([normal(50, 2), torch.ones(30, 2)]), torch.stack([normal(40, seed=1), torch.ones(40)], 1)
    expected = [ks_2samp(x[:, i].numpy(), y[:, i].numpy()).statistic for i in range(2)]
    assert ks_distances(x, y).tolist() == pytest.approx(expected)


# --- the metrics of a model -----------------------------------------------------------------------------------------------


class Stripes:
    """Pictures (1, 8, 8) of two kinds, stripes across or down under noise; the second label is of no use."""

    shape, schema = (1, 8, 8), {"kind": Label(("across", "down")), "other": Label(("a", "b"))}

    def __init__(self, n, seed):
        kind = torch.arange(n) % 2
        stripes = torch.tensor([0.4, -0.4]).repeat(4).expand(8, 8)
        clean = torch.where(kind[:, None, None] == 0, stripes.T, stripes)[:, None]
        self.x, self.c = clean + 0.25 * normal(n, 1, 8, 8, seed=seed), {"kind": kind, "other": (torch.arange(n) // 2) % 2}
        self.fingerprint = f"stripes-{n}-{seed}"

    def __len__(self):
        return len(self.x)

    def values(self, rows=None):
        return {k: v if rows is None else v[rows] for k, v in self.c.items()}

    def batch(self, rows):
        return Batch(self.x[rows], self.values(rows))


TRAIN, TEST = Stripes(400, 0), Stripes(200, 1)
RUN = Run("fake", "stripes")


class Coder(Sampler):
    """z is the picture itself; untrained it is the same number always. By its fault it takes every fifth for the other kind."""

    def __init__(self, shape=(1, 8, 8), schema=None, fault="untrained"):
        super().__init__(shape, {})
        self.fault, self.anchor = fault, nn.Parameter(torch.zeros(1))
        self.options = {}

    def turns(self, batch, step):
        yield {}

    def prior(self, n, c):
        return self.noise.normal(n, 64)

    def decode(self, z, c):
        return z.reshape(-1, 1, 8, 8)

    def encode(self, x, c):
        if self.fault == "untrained":
            return torch.zeros(len(x), 64)
        fifth = (torch.arange(len(x)) % 5 == 0)[:, None, None, None] & (self.fault == "confuses")
        return torch.where(fifth, x.transpose(2, 3), x).flatten(1)

    def features(self, x):
        return torch.zeros(len(x), 2) if self.fault == "untrained" else x.flatten(1)[:, :10]

    def classify(self, x):
        down = (x[:, 0].mean(1).var(1) > x[:, 0].mean(2).var(1)).long()  # the mean of columns varies more than that of rows
        said = {"untrained": torch.zeros_like(down), "confuses": 1 - down}.get(self.fault, down)
        return torch.eye(2)[said]


def measured(names, fault=""):
    return evaluate(Coder(fault=fault), RUN, metrics=names, n=100, train=TRAIN, test=TEST)["metrics"]


def test_codes_that_are_pictures_know_what_pixels_know():
    found = measured(["one_nn", "linear_probe"])
    parts = ["one_nn", "one_nn/features", "one_nn/pixels", "one_nn/pca50", "linear_probe", "linear_probe/features", "linear_probe/pixels"]
    assert list(found) == parts
    for name in ("one_nn", "linear_probe"):
        assert found[name]["value"] == found[f"{name}/pixels"]["value"] > 0.95
        assert found[name]["control"] == 0.5, "one code for all: the first row's label, or any"
        assert found[name]["ceiling"] > 0.95 and found[f"{name}/pixels"]["control"] is None
        assert f"{name}|label=kind|" in found[name]["provenance"]
    assert found["one_nn/features"]["value"] < found["one_nn"]["value"]
    assert "n=200 test|references=400" in found["one_nn"]["provenance"]


def test_svm_error_of_a_model(monkeypatch):
    monkeypatch.setattr(svms, "DRAWS", 3)
    monkeypatch.setattr(svms, "CONTROL_DRAWS", 2)
    found = measured(["svm_error"])
    assert list(found) == ["svm_error", "svm_error/untrained"]
    assert found["svm_error"]["value"] < 0.3 and found["svm_error/untrained"]["value"] == 0.5 and found["svm_error"]["control"] < 0.05
    assert "|features|100 a class|C of 50 on the last sixth of train|" in found["svm_error"]["provenance"]
    few = Stripes(60, 0)
    with pytest.raises(BadInput, match="at least 25 rows each"):
        evaluate(Coder(fault=""), RUN, metrics=["svm_error"], train=few, test=TEST)


def test_reconstructions_that_change_their_label_are_counted():
    names = ["label_kept", "reconstruction_ratio"]
    found, confused = measured(names), measured(names, "confuses")
    assert found["label_kept"]["value"] == found["label_kept"]["ceiling"] > 0.95
    assert found["label_kept"]["control"] == 0.5
    assert confused["label_kept"]["value"] == pytest.approx(found["label_kept"]["value"] - 0.2, abs=0.02)
    assert found["reconstruction_ratio"]["value"] == 0 and found["reconstruction_ratio"]["control"] == pytest.approx(1, abs=1e-9)
    assert 0.1 < confused["reconstruction_ratio"]["value"] < 0.5


def test_a_models_own_classifier_is_measured_on_test_rows():
    found, confused = measured(["semi_supervised_error"]), measured(["semi_supervised_error"], "confuses")
    entry = found["semi_supervised_error"]
    assert entry["value"] < 0.05 and entry["control"] == 0.5 and entry["ceiling"] < 0.05
    assert confused["semi_supervised_error"]["value"] == pytest.approx(1 - entry["value"])
    model = Coder(fault="")
    model.classify = lambda x: torch.zeros(len(x), 3)
    with pytest.raises(BadInput, match=r"classes are \(3,\), the data's 'kind'"):
        evaluate(model, RUN, metrics=["semi_supervised_error"], train=TRAIN, test=TEST)


def test_codes_are_compared_with_the_prior():
    entry = measured(["latent_marginal"])["latent_marginal"]
    assert entry["ceiling"] < 0.12 < entry["value"] < entry["control"]
    assert entry["control"] == pytest.approx(0.5, abs=0.05), "all codes at its median"


def test_each_is_refused_where_it_cannot_be():
    class Blind(Model):
        def turns(self, batch, step):
            yield {}

    class Unlabelled(Stripes):
        schema = {}

        def values(self, rows=None):
            return {}

    for name in ("one_nn", "linear_probe", "svm_error"):
        with pytest.raises(BadInput, match="no `encode` and no `features`"):
            chosen(Blind((1, 8, 8), {}), [name])
    for name in ("one_nn", "linear_probe", "svm_error", "label_kept", "semi_supervised_error"):
        with pytest.raises(BadInput, match=f"{name} needs a label among the data's conditions: there are none"):
            evaluate(Coder(fault=""), RUN, metrics=[name], train=Unlabelled(50, 0), test=Unlabelled(50, 1))
    assert all(METRICS[name].asked_only for name in ("one_nn", "linear_probe", "svm_error", "label_kept", "latent_marginal"))


def test_codes_that_are_not_finite_are_refused():
    model = Coder(fault="")
    model.encode = lambda x, c: torch.full((len(x), 3), torch.nan)
    with pytest.raises(BadInput, match="not finite"):
        evaluate(model, RUN, metrics=["one_nn"], train=TRAIN, test=TEST)


@pytest.mark.parametrize("classes", [2, 3])
def test_an_svm_of_turned_rows_is_that_of_the_rows(classes):
    """sklearn on the rows themselves is the oracle, for fewer rows than numbers."""
    from sklearn.svm import LinearSVC

    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, 60, generator=generator)
    labels = torch.arange(30) % classes
    x = (centres[labels] + torch.randn(30, 60, generator=generator)).double()
    turned, basis = spanned(x)
    assert turned.shape == (30, 30) and torch.allclose(turned @ basis.T, x)
    weights = [
        LinearSVC(C=0.01, tol=1e-8, max_iter=100_000, random_state=0).fit(rows, labels).coef_ for rows in (x.numpy(), turned.numpy())
    ]
    assert np.allclose(weights[0], weights[1] @ basis.numpy().T, atol=1e-5)
