"""Two results side by side: what is compared, what is refused, and that no provenance hides an outcome among its protocol."""

import json
from pathlib import Path

import pytest
import torch

from condgen.errors import BadInput
from condgen.evaluation.compare import compare, protocol, read_result, refusal, text
from condgen.evaluation.protocols import METRICS, evaluate
from condgen.models.cvae import CVAE
from painter import RUN, SCHEMA, SHAPE, TEST, TRAIN, Painter, painted

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def entry(value, provenance="p|n=10|v1", n=10):
    return {"value": value, "reported": None, "ceiling": None, "control": None, "n": n, "provenance": provenance}


def result(preset="", **metrics):
    return {"preset": preset, "metrics": {k.replace("__", "/"): m for k, m in metrics.items()}, "seconds": 1.0, "machine": "m", "seed": 0}


def results(**pairs):
    """name -> (value of the first, value of the second)."""
    return [result(**{name: entry(pair[i]) for name, pair in pairs.items()}) for i in range(2)]


def test_a_difference_and_whose_is_better():
    a, b = results(
        frechet=(3.0, 2.0), recall=(0.9, 0.8), diversity_ratio=(1.2, 0.9), kernel=(1.0, 1.0), ms_ssim__7=(0.4, 0.3), foreign=(1, 2)
    )
    found = compare(a, b)
    assert {r.name: r.better for r in found.rows} == {
        "frechet": "second",
        "recall": "first",
        "diversity_ratio": "second",
        "kernel": "",
        "ms_ssim/7": "second",
        "foreign": "",
    }
    assert found.rows[0][:4] == ("frechet", 3.0, 2.0, -1.0)
    assert found.refused == {}


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ("kernel|judge-v2:3fa9c1|n=9|v1", "kernel|judge-v2:77ab01|n=9|v1", "judge-v2:3fa9c1 against judge-v2:77ab01"),
        ("frechet|j|n=1000/359|v1", "frechet|j|n=10000/359|v1", "n=1000/359 against n=10000/359"),
        ("ms_ssim|scales=3|w=11,11,7", "ms_ssim|scales=2|w=11,7", "scales=3, w=11,11,7 against scales=2, w=11,7"),
        ("frechet|j|v1|classes as in the test rows", "frechet|j|v1", "classes as in the test rows against nothing of the kind"),
        ("a|v1", "a|v2", "v1 against v2"),
    ],
)
def test_what_was_measured_otherwise_is_refused_with_the_field(ours, theirs, said):
    assert refusal(entry(1, ours), entry(2, theirs)) == said
    assert compare(result(frechet=entry(1, ours)), result(frechet=entry(2, theirs))) == ([], {"frechet": said})


def test_other_numbers_of_samples_are_refused():
    assert refusal(entry(1, n=1000), entry(1, n=10000)) == "n=1000 against n=10000"


def test_parts_of_models_that_read_other_conditions_are_comparable():
    """`read 3 of 6` concerns the mean over what is read, and no part of it."""

    class Looks(Painter):
        def decode(self, z, c):
            return painted({"stripes": torch.zeros(len(z), dtype=torch.int64), "traits": torch.full((len(z), 1), 0.5), **c}, z)

    models = (Painter(), Looks(schema={"look": SCHEMA["look"]}))
    a, b = (evaluate(model, RUN, metrics=["condition_correlation"], n=60, train=TRAIN, test=TEST) for model in models)
    found = compare(a, b)
    assert {r.name for r in found.rows} == {"condition_correlation/look.1", "condition_correlation/look.2"}
    assert found.refused["condition_correlation"].startswith("read 3 of 6, from 0.3 on real rows, constant: constant against read 2 of 3")


def test_outcomes_do_not_count():
    one = "parzen|pixels|n=10|sigma=0.143, ceiling 0.158|v1|control=PCA, 8 dimensions|s.e.=0.8"
    assert refusal(entry(1, one), entry(2, "parzen|pixels|n=10|sigma=0.2, ceiling 0.158|v1|control=PCA, 20 dimensions|s.e.=1")) is None
    assert refusal(entry(1, "a|j|worst is '7'"), entry(2, "a|j|clamped=1.0e-05|worst is '0'")) is None


def test_other_data_are_refused_as_a_whole():
    found = compare(result("cgan-mnist", recall=entry(1)), result("cgan-digits", recall=entry(1)))
    assert found == ([], {"recall": "measured on mnist against digits"})
    assert compare(result("cgan-mnist", recall=entry(1)), result("cvae-mnist", recall=entry(1))).refused == {}
    assert compare(result("cgan-mnist", recall=entry(1)), result("mine", recall=entry(1))).refused == {}


def test_only_what_both_have_and_what_is_asked():
    a, b = result(recall=entry(1), ms_ssim=entry(1), ms_ssim__7=entry(1)), result(recall=entry(1), ms_ssim=entry(1), kernel=entry(1))
    found = compare(a, b)
    assert [r.name for r in found.rows] == ["recall", "ms_ssim"]
    assert found.refused == {"ms_ssim/7": "only the first has it", "kernel": "only the second has it"}
    assert [r.name for r in compare(a, b, ["ms_ssim"]).rows] == ["ms_ssim"]
    assert compare(a, b, ["ms_ssim"]).refused.keys() == {"ms_ssim/7"}
    assert compare(a, b, ["elbo"]).refused == {"elbo": "neither has it"}
    with pytest.raises(BadInput, match="did you mean 'recall'"):
        compare(a, b, ["recal"])


def test_a_table_and_a_line_for_each_refusal():
    a, b = result(frechet=entry(3.0), kernel=entry(1, "x")), result(frechet=entry(3.5), kernel=entry(1, "y"))
    lines = text(compare(a, b)).splitlines()
    assert lines[0].split() == ["metric", "first", "second", "difference", "better"]
    assert lines[1].split() == ["frechet", "3.000", "3.500", "+0.500", "first"]
    assert lines[2:] == ["", "kernel is not compared: x against y"]
    assert text(compare(result(kernel=entry(1, "x")), result())).startswith("nothing can be compared\n")


def test_committed_results_stay_comparable():
    """Of one data set, with one judge: all but what other conditions were asked for."""
    found = compare(RESULTS / "cgan-mnist.json", RESULTS / "cgan-mnist-paper.json")
    assert found.refused == {}
    assert {"class_consistency_worst", "parzen", "frechet", "diversity_ratio"} <= {r.name for r in found.rows}
    across = compare(RESULTS / "cgan-mnist.json", RESULTS / "cgan-digits.json")
    assert across.rows == [] and set(across.refused.values()) == {"measured on mnist against digits"}


def cvae(z_dim, seed):
    torch.manual_seed(seed)
    return CVAE(SHAPE, SCHEMA, z_dim=z_dim, hidden=(16,), prior_hidden=8)


def test_no_metric_hides_an_outcome_in_its_protocol():
    """Two models that have nothing in common but data and conditions: whatever differs in a provenance must be named in OUTCOMES."""
    measured = set()
    for name in METRICS:
        try:
            a, b = (evaluate(cvae(z, s), RUN, metrics=[name], n=60, seed=s, train=TRAIN, test=TEST) for z, s in ((4, 0), (6, 1)))
        except BadInput:  # what other data need
            continue
        found = compare(a, b)
        assert found.refused == {}, name
        assert found.rows[0].name == name
        measured.add(name)
    assert measured >= {"class_consistency_worst", "condition_correlation", "discriminability", "elbo", "frechet", "memorisation_ratio"}
    assert measured >= {
        "attribute_effect",
        "ms_ssim",
        "ms_ssim_real",
        "nll_iwae",
        "parzen",
        "parzen_gcn",
        "reconstruction",
        "recall",
        "diversity_ratio",
    }


def test_every_field_that_does_not_count_is_used():
    assert protocol("a|s.e.=1|sigma=1|clamped=1|worst is 1|ceiling=1|control=1") == ["a"]


# --- where results lie, and the command -----------------------------------------------------------------------------------


def run_folder(at, found, data="digits", size=None):
    at.mkdir()
    (at / "evaluation.json").write_text(json.dumps(found))
    (at / "run.json").write_text(json.dumps({"run": {"data": data, "size": size}}))
    return at


def test_results_are_read_from_folders_and_files(tmp_path):
    a = run_folder(tmp_path / "a", result(recall=entry(1)))
    assert compare(a, str(a / "evaluation.json")).rows[0].name == "recall"
    b = run_folder(tmp_path / "b", result(recall=entry(1)), size=16)
    assert compare(a, b).refused == {"recall": "measured on digits against digits at 16 px"}


def test_what_is_no_result_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(BadInput, match=r"there is no .*evaluation.json: `condgen evaluate .*run` writes it"):
        read_result(tmp_path / "run")
    with pytest.raises(BadInput, match="expected a run's folder, or a file"):
        read_result(tmp_path / "absent")
    lacking = '{"metrics": {"a": {"value": 1}}}'
    for content, said in (("{", "cannot be read"), ("[]", "holds no result"), (lacking, "'a' lacks a value, an n")):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(BadInput, match=said):
            read_result(tmp_path / "bad.json")
    with pytest.raises(BadInput, match="the result holds no result"):
        compare({}, {})


def test_command(condgen, tmp_path):
    a = run_folder(tmp_path / "a", result(recall=entry(0.5), kernel=entry(1, "x")))
    b = run_folder(tmp_path / "b", result(recall=entry(0.75), kernel=entry(1, "y")))
    shown = condgen("compare", a, b)
    assert shown.code == 0
    assert "recall  0.500   0.750      +0.250  second" in shown.out and "kernel is not compared: x against y" in shown.out
    told = condgen("compare", a, b, "--json").json
    assert told["rows"] == [{"name": "recall", "a": 0.5, "b": 0.75, "difference": 0.25, "better": "second"}]
    assert told["refused"] == {"kernel": "x against y"}
    assert condgen("compare", a, b, "--metrics", "recall").code == 0
    assert condgen("compare", a, b, "--metrics", "recall,kernel").code == 2
    other = run_folder(tmp_path / "c", result(recall=entry(0.75)), data="mnist")
    assert condgen("compare", a, other).code == 2
    failed = condgen("compare", a, tmp_path / "absent")
    assert failed.code == 2 and "there is no" in failed.err
