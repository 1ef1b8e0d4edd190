"""Correlation of numbers asked for and shown, against numpy and on painters whose faults are known; a judge that reads vectors."""

import json

import numpy as np
import pytest
import torch
from torch import Generator

from condgen.conditions import Attributes
from condgen.errors import BadInput
from condgen.evaluation import judge as judging
from condgen.evaluation.correlation import pearson, principal_axes
from condgen.evaluation.judge import JudgeNet, judge_for
from condgen.evaluation.protocols import chosen, evaluate
from condgen.evaluation.report import headline, table, write_report
from painter import RUN, SCHEMA, SHAPE, TEST, TRAIN, Painted, Painter

READ = ["level", "look.1", "look.2"]


def test_pearson_agrees_with_numpy():
    rs = np.random.RandomState(0)
    x = rs.randn(200, 3)
    y = x * [1, -2, 0.1] + rs.randn(200, 3) + 1e3
    expected = [np.corrcoef(x[:, k], y[:, k])[0, 1] for k in range(3)]
    assert pearson(torch.tensor(x), torch.tensor(y)).tolist() == pytest.approx(expected, abs=1e-9)


def test_rows_that_are_not_known_do_not_count():
    x = torch.tensor([[1.0], [2.0], [float("nan")], [4.0]])
    y = torch.tensor([[1.0], [3.0], [100.0], [4.0]])
    assert float(pearson(x, y)) == pytest.approx(np.corrcoef([1, 2, 4], [1, 3, 4])[0, 1])


def test_no_variance_asked_is_nan_and_none_shown_is_zero():
    varied, same = torch.randn(50, 1), torch.full((50, 1), 0.1)
    assert pearson(same, varied).isnan().all()
    assert pearson(varied, same).tolist() == [0.0]
    assert pearson(torch.full((3, 1), float("nan")), varied[:3]).isnan().all()
    with pytest.raises(BadInput, match="two of"):
        pearson(varied, varied[:3])


def test_axes_are_those_of_largest_variance():
    z = torch.randn(500, 5, generator=Generator().manual_seed(0)) * torch.tensor([0.1, 3.0, 1.0, 0.01, 2.0])
    found = principal_axes(z + 7)
    assert found.directions.abs().argmax(0).tolist() == [1, 4, 2]
    assert torch.allclose(found.mean, (z + 7).double().mean(0))
    assert principal_axes(z[:, :2]).directions.shape == (2, 2)


# --- the metric -----------------------------------------------------------------------------------------------------------


def measured(fault=""):
    return evaluate(Painter(fault=fault), RUN, metrics=["condition_correlation"], n=200, train=TRAIN, test=TEST)


@pytest.fixture(scope="module")
def faithful():
    return measured()


def test_a_faithful_painter_is_at_the_ceiling_in_all_that_can_be_read(faithful):
    found = faithful["metrics"]
    assert list(found) == ["condition_correlation", *(f"condition_correlation/{k}" for k in READ)]
    for entry in found.values():
        assert entry["value"] > 0.8
        assert entry["value"] == pytest.approx(entry["ceiling"], abs=0.1)
        assert abs(entry["control"]) < 0.25
    parts = [found[f"condition_correlation/{k}"]["value"] for k in READ]
    assert found["condition_correlation"]["value"] == pytest.approx(sum(parts) / 3)


def test_what_is_left_out_is_said(faithful):
    said = faithful["metrics"]["condition_correlation"]["provenance"]
    assert said.startswith("condition_correlation|judge-v2:") and "|n=200/200|" in said
    assert "|read 3 of 6, from 0.3 on real rows|constant: constant|ceiling=test rows|" in said
    part = faithful["metrics"]["condition_correlation/look.1"]["provenance"]
    assert part == said.replace("|read 3 of 6, from 0.3 on real rows|constant: constant", "")


def test_a_painter_that_does_not_listen_is_at_nothing():
    assert abs(measured("ignores")["metrics"]["condition_correlation"]["value"]) < 0.2
    assert abs(measured("collapsed")["metrics"]["condition_correlation"]["value"]) < 0.2


def test_it_needs_numbers_to_be_asked():
    stripes = Painter(schema={"stripes": SCHEMA["stripes"]})
    assert "condition_correlation" not in chosen(stripes, None) and "condition_correlation" in chosen(Painter(), None)
    with pytest.raises(BadInput, match="no attributes and no vector"):
        chosen(stripes, ["condition_correlation"])


def test_a_judge_that_reads_nothing_is_no_judge(monkeypatch):
    monkeypatch.setattr(judging.Judge, "predict", lambda self, x, name: torch.rand(len(x), *SCHEMA[name].shape))
    with pytest.raises(BadInput, match="reads none of level, useless"):
        measured()


def test_families_are_shown_as_one(faithful, tmp_path):
    assert headline(faithful).startswith("correlation of what was asked and what is shown 0.")
    lines = table(faithful).splitlines()
    assert [line.split()[0] for line in lines[3:7]] == ["condition_correlation", *(f"condition_correlation/{k}" for k in READ)]
    page = write_report(tmp_path, json.loads(json.dumps(faithful)), Painter(), RUN, None, TEST).read_text()
    assert page.count("<b>condition_correlation</b> ↑") == 1 and "<span class=part>look.1</span>" in page
    assert page.count("condition_correlation|judge-v2:") == 2  # the mean's, and the one that all parts share


# --- the judge ------------------------------------------------------------------------------------------------------------


def test_judge_reads_vectors_and_is_read_back(monkeypatch):
    judge = judge_for(TRAIN, TEST)
    seen = judge.predict(TEST.x, "look")
    assert seen.shape == (200, 4)
    axes = principal_axes(TRAIN.c["look"], 2)
    read, shown = ((v.double() - axes.mean) @ axes.directions for v in (seen, TEST.c["look"]))
    assert bool((pearson(shown, read) > 0.8).all())
    assert float((read - shown).square().mean()) < 0.3 * float(shown.square().mean())  # the scale is put back
    monkeypatch.setattr(judging, "train_judge", None)
    again = judge_for(TRAIN, TEST)
    assert again.id == judge.id and torch.equal(again.predict(TEST.x, "look"), seen)
    assert torch.allclose(again.net.scale("look").mean, TRAIN.c["look"].mean(0))


def test_a_judge_without_vectors_holds_what_it_held():
    net = JudgeNet(SHAPE, {"a": 3})
    assert [k for k in net.state_dict() if not k.startswith(("body.", "heads."))] == []
    assert sorted(k for k in JudgeNet(SHAPE, {"a": 3, "v": 4}, ["v"]).state_dict() if k.startswith("scales")) == [
        "scales.1.mean",
        "scales.1.sd",
    ]


def test_an_entry_that_never_changes_keeps_its_scale():
    net = JudgeNet(SHAPE, {"v": 2}, ["v"])
    values = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    net.scale("v").fit(values)
    assert net.scale("v")(values).tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert torch.equal(net.scale("v").back(net.scale("v")(values)), values)


def test_attributes_of_one_name_are_told_apart():
    schema = {"a": Attributes(("level", "useless", "constant")), "b": Attributes(("level",))}

    train, test = Painted(300, 3), Painted(100, 4)
    for data in (train, test):
        data.schema, data.fingerprint = schema, f"twice-{data.fingerprint}"
        data.c = {"a": data.c["traits"], "b": data.c["traits"][:, :1]}

    class Double(Painter):
        def decode(self, z, c):
            zero = torch.zeros(len(z), dtype=torch.int64)
            return super().decode(z, {"traits": c["a"], "stripes": zero, "look": torch.full((len(z), 4), 5.0)})

    found = evaluate(Double(schema=schema), RUN, metrics=["condition_correlation"], n=100, train=train, test=test)["metrics"]
    assert list(found)[1:] == ["condition_correlation/level", "condition_correlation/b.level"]
