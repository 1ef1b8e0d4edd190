"""The judge and the protocol, on models whose faults are known: stored pictures, the class ignored, one picture a class."""

import json

import pytest
import torch
from torch import Generator, Tensor, nn

from condgen.conditions import Attributes, Label
from condgen.data import Batch, load
from condgen.errors import BadInput
from condgen.evaluation import judge as judging
from condgen.evaluation.judge import judge_for, random_judge, readable, shifted, train_judge
from condgen.evaluation.measuring import Measuring
from condgen.evaluation.protocols import METRICS, chosen, evaluate
from condgen.model import Run, Sampler

RUN = Run(model="fake", data="digits", name="stored", reported={"class_consistency": (0.9, 0.01)})
NAMES = {
    "class_consistency",
    "class_consistency_worst",
    "diversity_ratio",
    "ms_ssim",
    "memorisation_ratio",
    "elbo",
    "nll_iwae",
    "parzen",
    "frechet",
    "kernel",
    "precision",
    "recall",
    "density",
    "coverage",
}
LABELLED = NAMES - {"elbo", "nll_iwae"}


class Stored(Sampler):
    """Real training pictures: of the class asked for, of any class, or always the first of the class; noise while untrained."""

    def __init__(self, shape, schema, fault=""):
        super().__init__(shape, schema)
        self.fault = fault
        self.trained = False
        self.anchor = nn.Parameter(torch.zeros(1))

    def turns(self, batch, step):
        yield {}

    def prior(self, n, c):
        return self.noise.uniform(n, 1)

    def decode(self, z, c):
        if not self.trained:
            return 2 * torch.rand(len(z), *self.shape, generator=torch.Generator().manual_seed(0)) - 1
        everything = load("digits")
        labels = everything.values()["digit"]
        asked = c["digit"] if c else None
        rows = torch.stack([self._row(labels, None if asked is None else asked[i], z[i]) for i in range(len(z))])
        return everything.batch(rows).x

    def _row(self, labels: Tensor, asked: Tensor | None, z: Tensor) -> Tensor:
        own = torch.arange(len(labels)) if asked is None or self.fault == "ignores" else (labels == asked).nonzero().flatten()
        return own[0] if self.fault == "collapsed" else own[int(z * len(own))]


def stored(fault="", schema=None):
    model = Stored((1, 8, 8), {"digit": Label(tuple("0123456789"))} if schema is None else schema, fault=fault)
    model.trained = True
    return model


@pytest.fixture(scope="module")
def faithful():
    return evaluate(stored(), RUN)


SOME = ["class_consistency", "class_consistency_worst", "diversity_ratio", "frechet", "recall", "coverage"]


def values(found):
    return {name: entry["value"] for name, entry in found["metrics"].items()}


# --- the protocol ---------------------------------------------------------------------------------------------------------


def test_layout_is_the_one_that_stays(faithful):
    assert list(faithful) == ["preset", "metrics", "seconds", "machine", "versions", "seed"]
    assert {name for name in faithful["metrics"] if "/" not in name} == LABELLED
    assert {name.split("/")[0] for name in faithful["metrics"] if "/" in name} == {"ms_ssim"}
    for name, entry in faithful["metrics"].items():
        assert list(entry) == ["value", "reported", "ceiling", "control", "n", "provenance"]
        assert entry["n"] == (1000 * (1 if "/" in name else 10) if name.startswith("ms_ssim") else 1000)  # pairs, or samples
    assert faithful["metrics"]["class_consistency"]["reported"] == [0.9, 0.01]
    assert faithful["preset"] == "stored"
    assert json.loads(json.dumps(faithful)) == faithful
    assert NAMES <= set(METRICS)


def test_real_pictures_reach_the_ceiling(faithful):
    found = faithful["metrics"]
    assert found["class_consistency"]["ceiling"] >= 0.97
    assert found["class_consistency"]["value"] >= 0.97
    assert found["diversity_ratio"]["value"] == pytest.approx(1, abs=0.05)
    assert found["diversity_ratio"]["ceiling"] == pytest.approx(1, abs=0.05)
    for name in ("precision", "recall", "coverage"):
        assert found[name]["value"] == pytest.approx(found[name]["ceiling"], abs=0.1)
    assert found["frechet"]["value"] < 2 * found["frechet"]["ceiling"] + 1
    assert found["parzen"]["value"] == pytest.approx(found["parzen"]["ceiling"], abs=10)


def test_controls_are_bad(faithful):
    found = faithful["metrics"]
    assert found["class_consistency"]["control"] == pytest.approx(0.1, abs=0.03)
    assert found["diversity_ratio"]["control"] == 0
    assert found["frechet"]["control"] > 10 * found["frechet"]["value"]
    assert found["kernel"]["control"] > 10 * abs(found["kernel"]["value"])
    assert found["coverage"]["control"] < 0.2
    assert found["parzen"]["control"] < found["parzen"]["value"] - 5


def test_a_model_that_ignores_the_class_is_at_chance():
    found = values(evaluate(stored("ignores"), RUN, metrics=SOME))
    assert found["class_consistency"] == pytest.approx(0.1, abs=0.04)
    assert found["class_consistency_worst"] < 0.2
    assert found["coverage"] > 0.85


def test_a_collapsed_model_is_consistent_and_nothing_else(faithful):
    found = values(evaluate(stored("collapsed"), RUN, metrics=SOME))
    assert found["class_consistency"] >= 0.9
    assert found["diversity_ratio"] == 0
    assert found["recall"] < 0.02
    assert found["coverage"] < 0.2
    assert found["frechet"] > 5 * values(faithful)["frechet"]


def test_the_same_seed_measures_the_same(faithful):
    first = values(evaluate(stored(), RUN, metrics=SOME))
    assert first == {name: values(faithful)[name] for name in SOME}
    assert values(evaluate(stored(), RUN, metrics=SOME, seed=1)) != first


def test_provenance_says_judge_numbers_and_control(faithful):
    said = faithful["metrics"]["frechet"]["provenance"]
    assert said.startswith("frechet|judge-v2:")
    assert "|n=1000/359|f64|v1" in said
    assert "control=untrained model" in said
    assert "judge accuracy=0.9" in faithful["metrics"]["class_consistency"]["provenance"]
    assert all("fid" not in entry["provenance"].lower() for entry in faithful["metrics"].values())


def test_a_model_without_conditions_has_no_consistency():
    found = evaluate(stored(schema={}), RUN, metrics=["frechet", "diversity_ratio", "recall"])["metrics"]
    assert found["frechet"]["value"] < 1 + 2 * found["frechet"]["ceiling"]
    assert found["diversity_ratio"]["value"] == pytest.approx(1, abs=0.05)
    assert "class_consistency" not in chosen(stored(schema={}), None)
    with pytest.raises(BadInput, match="reads no label"):
        chosen(stored(schema={}), ["class_consistency"])


def test_wrong_requests_are_refused():
    with pytest.raises(BadInput, match="did you mean 'frechet'"):
        chosen(stored(), ["frechett"])
    with pytest.raises(BadInput, match="no `log_weights`"):
        chosen(stored(), ["elbo"])
    with pytest.raises(BadInput, match="at least 2"):
        evaluate(stored(), RUN, n=1)
    with pytest.raises(BadInput, match="shape"):
        evaluate(Stored((1, 9, 9), {}), RUN)
    with pytest.raises(BadInput, match="differ"):
        evaluate(stored(schema={"digit": Label(("a", "b"))}), RUN)


def test_a_tiny_set_is_measured_as_far_as_it_goes(caplog):
    train, test = load("digits").slice(0, 30), load("digits", "test").slice(0, 4)
    found = evaluate(stored(), RUN, train=train, test=test)["metrics"]
    assert "class_consistency" in found and "frechet" in found
    assert "recall" not in found
    assert "recall is not measured: k is 5" in caplog.text
    with pytest.raises(BadInput, match="k is 5"):
        evaluate(stored(), RUN, metrics=["recall"], train=train, test=test)


def test_samples_that_are_not_finite_are_refused():
    model = stored()
    model.decode = lambda z, c: torch.full((len(z), 1, 8, 8), float("nan"))
    with pytest.raises(BadInput, match="finite"):
        evaluate(model, RUN, metrics=["frechet"])


def test_one_draw_asks_as_the_test_rows_are_and_every_class_as_often():
    measuring = Measuring(stored(), RUN, n=57)
    asked, test = measuring.asked["digit"], load("digits", "test").values()["digit"]
    assert measuring.groups_asked.bincount().tolist() == [5] * 10
    assert torch.equal(asked[measuring.evenly], measuring.groups_asked)
    assert 50 < len(asked) < 70 and len(measuring.natural) == len(measuring.balanced) == 50
    whole = Measuring(stored(), RUN, n=3590)
    assert torch.equal(whole.naturally["digit"].bincount(), 10 * test.bincount())
    assert torch.equal(measuring.stand_in.c["digit"], measuring.naturally["digit"])


class Blobs:
    """Two overlapping Gaussians of the plane, nine rows of the first for each of the second; `asked` are labels to draw for."""

    shape, schema = (2,), {"type": Label(("common", "rare"))}

    def __init__(self, n, seed):
        self.labels = (torch.arange(n) % 10 == 9).long()
        self.x, self.fingerprint = self.draw(self.labels, Generator().manual_seed(seed)), f"blobs-{n}-{seed}"

    @staticmethod
    def draw(labels, generator):
        return 0.2 * torch.randn(len(labels), 2, generator=generator) + labels[:, None] * 0.6 - 0.3

    def __len__(self):
        return len(self.labels)

    def values(self, rows=None):
        return {"type": self.labels if rows is None else self.labels[rows]}

    def batch(self, rows):
        return Batch(self.x[rows], {"type": self.labels[rows]})


class Faithful(Stored):
    def prior(self, n, c):
        return self.noise.normal(n, 2)

    def decode(self, z, c):
        return 0.2 * z + c["type"][:, None] * 0.6 - 0.3 if self.trained else z


def test_a_faithful_sampler_of_rare_classes_is_at_its_ceilings():
    model = Faithful((2,), Blobs.schema)
    model.trained = True
    found = evaluate(model, RUN, n=2000, train=Blobs(4000, 0), test=Blobs(2000, 1))["metrics"]
    for name, slack in {"frechet": 0.003, "class_consistency": 0.03, "class_consistency_worst": 0.06, "diversity_ratio": 0.05}.items():
        assert found[name]["value"] == pytest.approx(found[name]["ceiling"], abs=slack), name
    assert found["frechet"]["control"] > 0.5
    assert "classes as in the test rows|ceiling=training rows" in found["frechet"]["provenance"]
    assert "classes evenly|" in found["class_consistency"]["provenance"]


def test_other_conditions_come_from_rows_of_the_class():
    class Doubled:
        schema = {"digit": Label(tuple("0123456789")), "twice": Attributes(("v",), high=(18.0,))}
        shape = (1, 8, 8)

        def __len__(self):
            return 100

        def values(self, rows=None):
            digit = torch.arange(100) % 10 if rows is None else torch.as_tensor(rows) % 10
            return {"digit": digit, "twice": 2.0 * digit[:, None]}

    measuring = Measuring(stored(schema=Doubled.schema), RUN, n=40, train=Doubled(), test=Doubled())
    assert torch.equal(measuring.asked["twice"][:, 0], 2.0 * measuring.asked["digit"])


def test_data_that_hold_no_test_rows_are_refused(tmp_path):
    from numpy import savez, zeros

    savez(tmp_path / "all.npz", x=zeros((1, 8, 8, 1), dtype="uint8"))
    run = Run(model="fake", data=str(tmp_path / "all.npz"))
    with pytest.raises(BadInput, match=r"all.npz has no test split, so there is nothing to measure against: add samples"):
        evaluate(stored(schema={}), run)
    with pytest.raises(BadInput, match="has 1 row; measuring needs at least 2"):
        evaluate(stored(), RUN, test=load("digits", "test").slice(0, 1))


def test_what_differs_is_said_in_words():
    def said(condition, name="digit"):
        with pytest.raises(BadInput) as error:
            Measuring(stored(schema={name: condition}), RUN)
        return str(error.value).removeprefix("the model's conditions and the data's differ: ")

    digits = tuple("0123456789")
    assert said(Label(("0", "a"))) == "of 'digit' the model knows 2 labels with a, the data have 10 labels with 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert said(Label(digits[:9])) == "of 'digit' the model knows 9 labels, the data have 10 labels with 9"
    assert said(Label(digits[::-1])).startswith("of 'digit' the model knows 10 labels in the order 9, 8,")
    assert said(Label(digits), "number") == "the model reads 'number', the data have digit"
    assert said(Attributes(("v",))).startswith("'digit' is Attributes, v (0 to 1) to the model and Label, 0, 1,")


def test_points_are_measured_in_their_own_coordinates():
    class Lattice(Sampler):
        def __init__(self, shape, schema):
            super().__init__(shape, schema)
            self.where = nn.Parameter(torch.randn(25, 2))

        def turns(self, batch, step):
            yield {}

        def prior(self, n, c):
            return 0.05 * self.noise.normal(n, 2)

        def decode(self, z, c):
            return self.where[c["mode"]] + z

    data, test = load("mixture2d"), load("mixture2d", "test").slice(0, 1000)
    model = Lattice((2,), data.schema)
    values = data.values()["mode"]
    model.where.data = torch.stack([data.batch((values == k).nonzero()[:200, 0]).x.mean(0) for k in range(25)])
    found = evaluate(model, Run(model="fake", data="mixture2d"), n=1000, train=data.slice(0, 8000), test=test)["metrics"]
    assert found["class_consistency"]["value"] == 1
    assert found["frechet"]["provenance"].startswith("frechet|coordinates|")
    assert found["frechet"]["value"] < found["frechet"]["control"]
    assert found["diversity_ratio"]["value"] == pytest.approx(1, abs=0.1)
    assert "parzen" not in found


# --- the judge ------------------------------------------------------------------------------------------------------------


def test_judge_is_cached_by_content_and_reads_back_equal(monkeypatch):
    train, test = load("digits"), load("digits", "test")
    first = judge_for(train, test)
    assert first.accuracy["digit"] >= 0.97
    monkeypatch.setattr(judging, "train_judge", None)  # a second training would fail
    again = judge_for(train, test)
    assert (again.id, again.accuracy) == (first.id, first.accuracy)
    x = test.batch(range(50)).x
    assert torch.equal(first.features(x), again.features(x))
    assert first.features(x).shape == (50, 64)


def test_training_a_judge_is_said_once(caplog, tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "_cache", lambda: tmp_path)
    monkeypatch.setattr(judging, "train_judge", lambda *a: train_judge(*a, epochs=1))
    with caplog.at_level("INFO", "condgen"):
        judge_for(load("digits").slice(0, 200), load("digits", "test"))
        judge_for(load("digits").slice(0, 200), load("digits", "test"))
    assert caplog.text.count("training a judge of digit on 200 real samples") == 1


def test_a_damaged_judge_is_trained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "_cache", lambda: tmp_path)
    monkeypatch.setattr(judging, "train_judge", lambda *a: train_judge(*a, epochs=1))
    train, test = load("digits").slice(0, 200), load("digits", "test")
    first = judge_for(train, test)
    (weights,) = tmp_path.glob("*/judge.safetensors")
    damaged = bytearray(weights.read_bytes())
    damaged[-5] ^= 0x40
    weights.write_bytes(damaged)
    again = judge_for(train, test)
    assert again.id == first.id  # the recipe has no other source of randomness than its seed
    (weights,) = tmp_path.glob("*/judge.safetensors")
    assert weights.read_bytes() != damaged
    weights.write_bytes(b"")
    assert judge_for(train, test).id == first.id
    assert len(list(tmp_path.iterdir())) == 1


def test_judge_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train_judge(load("digits").slice(0, 100), load("digits", "test"), readable(load("digits").schema), epochs=1)
    assert torch.equal(torch.rand(1), expected)


def test_data_without_labels_get_features_that_say_so():
    judge = random_judge((3, 16, 16))
    assert judge.id == "random-conv-v1"
    x = torch.rand(5, 3, 16, 16)
    assert torch.equal(judge.features(x), random_judge((3, 16, 16)).features(x))
    assert judge.features(x).std() > 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 30, 20), (3, 128, 128), (2,)])
def test_judge_fits_every_shape(shape):
    net = judging.JudgeNet(shape, {"a": 3})
    assert net(torch.rand(4, *shape))["a"].shape == (4, 3)
    assert sum(p.numel() for p in net.parameters()) < 400_000


@pytest.mark.parametrize("name", ["type", "keys", "values", "half", "float", "training", "a.b", "body"])
def test_judge_reads_conditions_of_any_name(name):
    assert judging.JudgeNet((1, 8, 8), {name: 3})(torch.rand(4, 1, 8, 8))[name].shape == (4, 3)


def test_judge_reads_attributes_and_leaves_out_the_unknown():
    condition = Attributes(("mean", "lost"), low=(-1.0, 0.0), high=(1.0, 1.0))
    x = 2 * torch.rand(600, 1, 1, 1, generator=torch.Generator().manual_seed(0)) - 1
    value = torch.cat([x.reshape(-1, 1), torch.full((600, 1), float("nan"))], 1)

    class Flat:
        shape = (1, 8, 8)

        def __len__(self):
            return 600

        def batch(self, rows):
            return Batch(x[rows].expand(-1, 1, 8, 8), {"level": value[rows]})

    judge = train_judge(Flat(), Flat(), {"level": condition}, epochs=12)
    seen = judge.predict(Flat().batch(torch.arange(100)).x, "level")
    assert float((seen[:, 0] - value[:100, 0]).abs().mean()) < 0.1
    assert judge.accuracy == {}


def test_shifts_move_pictures_by_whole_pixels_or_less():
    generator = torch.Generator().manual_seed(0)
    x = torch.full((200, 1, 28, 28), -1.0)
    x[:, :, 14, 10] = 1
    moved = shifted(x, generator)
    at = moved[:, 0].flatten(1).argmax(1)
    assert torch.equal(moved.sum((1, 2, 3)), x.sum((1, 2, 3)))
    assert set((at // 28).tolist()) == set(range(12, 17))
    assert set((at % 28).tolist()) == set(range(8, 13))
    small = torch.rand(50, 1, 8, 8) * 2 - 1
    assert shifted(small, generator).shape == small.shape
    assert shifted(small, generator).abs().max() <= 1
    points = torch.rand(3, 2)
    assert shifted(points, generator) is points
