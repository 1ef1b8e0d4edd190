"""The command line as a person meets it: what it prints, where, and with which exit code."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from condgen import api
from condgen.cli import VERBS, main

SMALL = ["--model.width", "4", "--model.z-dim", "4", "--batch", "16", "--save-every", "0", "--sample-every", "0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "small"
    assert main(["train", "cgan-digits", "--out", str(out), "--steps", "6", *SMALL]) == 0
    return out


def answers(capsys: pytest.CaptureFixture[str], words: list[str], code: int = 0) -> dict:
    capsys.readouterr()
    assert main([*words, "--json"]) == code
    out = capsys.readouterr().out
    assert out.count("\n") == 1, "one JSON object, on one line, alone on standard output"
    return json.loads(out)


def refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def test_help_needs_no_tensors():
    heavy = "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    code = f"import sys; from condgen.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n{heavy}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for verb in VERBS:
        assert verb in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]):
    try:
        assert main([verb, "--help"]) == 0
    except SystemExit as stopped:
        assert stopped.code in (0, None)
    assert f"condgen {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["trian"], "train"),
        (["train", "cgan-digts"], "cgan-digits"),
        (["train", "cgan-digits", "--stepz", "3"], "--steps"),
        (["train", "cgan-digits", "--model.widht", "3"], "--model.width"),
        (["train", "cgan-digits", "--optimizer.lrr=3"], "--optimizer.lr"),
        (["train", "cgan-digits", "--steps", "many"], "steps"),
        (["train", "cgan-digits", "--steps", "0"], "at least 1"),
        (["train", "cgan-digits", "--batch", "-4"], "at least 1"),
        (["train", "cgan-digits", "--seed", "-1"], "at least 0"),
        (["train", "cgan-digits", "--seed", str(2**63)], "at most"),
        (["train", "cgan-digits", "--clip", "0"], "above 0"),
        (["train", "cgan-digits", "--save-every", "-5"], "at least 0"),
        (["train", "cgan-digits", "--half-life-images", "-5"], "at least 0"),
        (["train", "cgan-digits", "--metrics", "frechet,kernle"], "kernel"),
        (["train", "cgan-digits", "--metrics=kernle"], "kernel"),
        (["train", "cgan-digits", "--conditions", "digit,digt"], "digit"),
        (["train", "cgan-digits", "--skip-bad=maybe"], "true, false"),
        (["train", "--json"], "preset"),
        (["train", "cgan-digits", "--precision", "16"], "bf16"),
        (["train", "cgan-digits", "--model.game", "minmax"], "minimax"),
        (["train", "cgan-digits", "--optimizer.kind", "Adm"], "Adam"),
        (["train", "cgan-digits", "--optimizer.schedule", "cosin"], "cosine"),
        (["train", "cgan-digits", "--conditions", "[digt]"], "digit"),
        (["train", "cgan-digits", "--split", "trian"], "train"),
        (["train", "cgan"], "--data"),
        (["train", "cgan", "--data", "no/such/folder"], "no/such/folder"),
        (["train", "cgan", "--data", "digist"], "digits"),
        (["train", "gan-digits", "--data"], "--data"),
        (["train", "cgan-digits", "--size", "big"], "big"),
        (["sample", "nowhere"], "nowhere"),
        (["sample"], "run"),
        (["evaluate", "nowhere"], "nowhere"),
        (["describe", "cgann"], "cgan"),
        (["list", "model"], "models"),
        (["data", "chek", "digits"], "check"),
        (["data", "check", "digits", "--size", "0"], "from 4 to 4096"),
        (["evaluate", "nowhere", "--seed", "-1"], "at least 0"),
        (["doctor", "--jsonn"], "--json"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_nearest(words: list[str], named: str, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    extra = ["--out", str(tmp_path / "run")] if words[0] == "train" and len(words) > 1 and words[1] != "--json" else []
    assert named in refused(capsys, [*words[:2], *extra, *words[2:]] if words[-1] != "--data" else words)


@pytest.mark.parametrize("left", ["run.json", "checkpoints/.draft/state.json", ""], ids=["begun", "half saved", "nothing"])
def test_a_preset_is_described_while_its_run_holds_nothing(left: str, workplace: Path, capsys: pytest.CaptureFixture[str]):
    folder = workplace / "runs" / "cgan-digits"
    (folder / left).parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True)
    if left:
        (folder / left).write_text("{}")
    found = answers(capsys, ["describe", "cgan-digits"])
    assert (
        found["model"] == "cgan.CGAN"
        and "step" not in found
        and found["run"] == json.loads(json.dumps(api.preset("cgan-digits").to_json()))
    )
    (workplace / "ae").mkdir()
    assert answers(capsys, ["describe", "ae"])["model"] == "ae.AE"
    (workplace / "mine").mkdir()
    assert "neither a config.json nor checkpoints" in refused(capsys, ["describe", "mine"])
    assert "neither a config.json nor checkpoints" in refused(capsys, ["describe", str(folder)])


def test_a_run_comes_before_the_preset_of_its_name(run: Path, workplace: Path, capsys: pytest.CaptureFixture[str]):
    (workplace / "runs").mkdir()
    (workplace / "runs" / "cgan-digits").symlink_to(run)
    assert answers(capsys, ["describe", "cgan-digits"])["step"] == 6


def test_two_data_sets_are_refused_in_one_line(tmp_path: Path, condgen):
    for name in ("digits", "mnist"):
        (tmp_path / name).mkdir()
        metrics = {m: {"value": 1.0, "n": 9, "provenance": m} for m in ("recall", "recall/one", "kernel")}
        (tmp_path / name / "evaluation.json").write_text(json.dumps({"metrics": metrics, "data": name}))
    shown = condgen("compare", tmp_path / "digits", tmp_path / "mnist")
    assert (shown.code, shown.out) == (2, "nothing can be compared: measured on digits against mnist\n")
    told = condgen("compare", tmp_path / "digits", tmp_path / "mnist", "--json").json
    assert [*told["refused"]] == ["recall", "recall/one", "kernel"]


def test_no_words_print_the_usage(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 2
    assert main(["train"]) == 2
    assert "condgen train PRESET" in capsys.readouterr().out


def test_the_same_command_again_has_nothing_left_to_do(run: Path, capsys: pytest.CaptureFixture[str]):
    weights = (run / "model.safetensors").read_bytes()
    found = answers(capsys, ["train", "cgan-digits", "--out", str(run), "--steps", "6", *SMALL])
    assert found["steps"] == 6
    capsys.readouterr()
    assert main(["train", "cgan-digits", "--out", str(run), "--steps", "4", *SMALL]) == 0
    assert "trained already: 6 steps" in capsys.readouterr().out
    assert (run / "model.safetensors").read_bytes() == weights


def test_what_a_run_leaves(run: Path):
    config = json.loads((run / "config.json").read_text())
    assert config["model"] == "cgan.CGAN"
    assert config["options"]["width"] == 4
    assert config["schema"] == {"digit": {"kind": "Label", "names": list("0123456789")}}
    assert (run / "checkpoints" / "step-000006" / "manifest.json").exists()
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 6
    assert "# cgan-digits" in (run / "README.md").read_text()


def test_sample_writes_arrays(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "deeper" / "seven.npz"
    assert answers(capsys, ["sample", str(run), "--set", "digit=7", "-n", "5", "--seed", "3", "--out", str(out)])["n"] == 5
    with np.load(out) as first:
        assert first["x"].shape == (5, 8, 8, 1)
        assert first["x"].dtype == np.uint8
        assert first["digit"].tolist() == [7] * 5
        again = tmp_path / "again.npz"
        main(["sample", str(run), "--set", "digit=7", "-n", "5", "--seed", "3", "--out", str(again)])
        other = tmp_path / "other.npz"
        main(["sample", str(run), "--set", "digit=7", "-n", "5", "--seed", "4", "--out", str(other)])
        with np.load(again) as same, np.load(other) as different:
            assert np.array_equal(first["x"], same["x"])
            assert not np.array_equal(first["x"], different["x"])


def test_a_grid_shows_every_class_in_a_row(run: Path, tmp_path: Path):
    from PIL import Image

    assert main(["sample", str(run), "-n", "30", "--seed", "0", "--out", str(tmp_path / "grid.png")]) == 0
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.height > 3 * grid.width, "ten rows of three"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--set", "digit=11"], "0, 1, 2"),
        (["--set", "digt=1"], "digit"),
        (["--set", "digit"], "NAME=VALUE"),
        (["--set", "digit=1", "--set", "digit=2"], "twice"),
        (["--set", "=1"], "NAME=VALUE"),
        (["--seed", "-1"], "at least 0"),
        (["--seed", str(2**63)], "at most"),
        (["-n", "200000", "--out", "x.png"], "10,000"),
        (["-n", "0"], "at least 1"),
        (["-n", "-3"], "at least 1"),
        (["--out", "samples.bmp"], ".png"),
        (["--sed", "1"], "--seed"),
    ],
)
def test_sampling_refuses_with_the_valid_values(
    run: Path, words: list[str], named: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert named in refused(capsys, ["sample", str(run), *words])


def test_evaluate_writes_what_it_prints(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = answers(capsys, ["evaluate", str(run), "-n", "50", "--metrics", "class_consistency,frechet", "--results", str(tmp_path)])
    assert json.loads((run / "evaluation.json").read_text()) == found == json.loads((tmp_path / "cgan-digits.json").read_text())
    assert found["preset"] == "cgan-digits"
    assert set(found) >= {"preset", "metrics", "seconds", "machine", "versions", "seed"}
    for metric in found["metrics"].values():
        assert set(metric) == {"value", "reported", "ceiling", "control", "n", "provenance"}
    assert found["metrics"]["class_consistency"]["ceiling"] > 0.9 > 0.5 > found["metrics"]["class_consistency"]["control"]
    assert "http" not in (run / "report.html").read_text().replace("http://www.w3.org", "")
    assert "class_consistency" in (run / "README.md").read_text(), "the card is filled from the evaluation"
    assert "diversity_ratio" in refused(capsys, ["evaluate", str(run), "--metrics", "diversity"])


def test_describe_a_run_a_preset_and_a_model(run: Path, capsys: pytest.CaptureFixture[str], workplace: Path):
    found = answers(capsys, ["describe", str(run)])
    assert found["conditions"]["digit"]["names"] == list("0123456789")
    assert found["step"] == 6
    assert {"sample", "decode"} <= set(found["can"])
    assert answers(capsys, ["describe", "cgan-digits"])["run"]["steps"] == api.preset("cgan-digits").steps
    assert answers(capsys, ["describe", "cgan"])["options"]["z_dim"] == 64
    assert main(["describe", str(run)]) == 0
    said = capsys.readouterr().out
    assert "--set digit=" in said and "\ntrained on digits" in said
    assert main(["describe", "cgan-digits"]) == 0
    assert "will train on digits" in capsys.readouterr().out


def test_lists(capsys: pytest.CaptureFixture[str]):
    assert {"ae", "vae", "cvae", "gan", "cgan"} <= set(answers(capsys, ["list", "models"]))
    assert {"cgan-digits", "cgan-mnist", "cgan-mnist-paper", "vae-mnist", "cvae-mnist"} <= set(answers(capsys, ["list", "presets"]))
    assert {"digits", "mixture2d", "mnist"} <= set(answers(capsys, ["list", "data"]))
    names = (
        "class_consistency class_consistency_worst diversity_ratio elbo nll_iwae parzen frechet kernel precision recall density coverage"
    )
    assert set(names.split()) <= set(answers(capsys, ["list", "metrics"]))


def test_any_model_on_a_strangers_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("mine.npz", x=rng.integers(0, 256, (40, 12, 12, 3), dtype=np.uint8), kind=np.array(["cat", "dog"] * 20))
    found = answers(capsys, ["train", "cgan", "--data", "mine.npz", "--steps", "2", "--model.width", "4"])
    assert Path(found["out"]) == Path("runs/cgan-mine")
    assert answers(capsys, ["describe", "cgan-mine"])["conditions"]["kind"]["names"] == ["cat", "dog"]
    assert main(["sample", "cgan-mine", "--set", "kind=cat", "-n", "2", "--out", "two.png"]) == 0
    assert "'dog'" in refused(capsys, ["sample", "cgan-mine", "--set", "kind=dogg"])


def test_any_model_on_a_strangers_folder_of_mixed_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(24):
        folder = tmp_path / "pets" / ("cat" if i % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + i % 3, 18, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    found = answers(capsys, ["train", "cvae", "--data", "pets", "--steps", "2"])
    assert answers(capsys, ["describe", found["out"]])["shape"] == [3, 16, 16], "a multiple of eight below the typical shorter side"


def test_data_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = answers(capsys, ["data", "check", "digits"])
    assert found["ok"] and found["splits"] == {"train": 1438, "test": 359} and found["samples"] == 1797
    assert sum(found["classes"]["digit"].values()) == 1797
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    found = answers(capsys, ["data", "check", str(tmp_path)], code=2)
    assert not found["ok"]
    assert any("broken.png" in p["where"] and p["remedy"] for p in found["problems"])


def test_doctor_and_version(capsys: pytest.CaptureFixture[str]):
    assert "torch" in answers(capsys, ["doctor"])["versions"]
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip()


def test_a_pickle_is_never_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "model.pt").write_bytes(b"\x80\x04N.")
    assert "pickle" in refused(capsys, ["sample", str(tmp_path / "model.pt")])
    assert "pickle" in refused(capsys, ["sample", str(tmp_path)])


# --- words in odd places --------------------------------------------------------------------------------------------------


def asked(words: list[str]) -> tuple:
    from condgen.options import read_run

    return read_run(words)


def test_flags_may_stand_before_the_target():
    run, flags = asked(["--json", "--steps", "3", "cgan-digits", "--batch=4", "--conditions", "digit", "--metrics=frechet, kernel"])
    assert flags.json and (run.name, run.steps, run.batch) == ("cgan-digits", 3, 4)
    assert (run.conditions, run.metrics) == (("digit",), ("frechet", "kernel"))
    assert asked(["cgan-digits", "--metrics", "[frechet, kernel]"])[0].metrics == ("frechet", "kernel")


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["--skip-bad"], True), (["--skip_bad"], True), (["--skip_bad", "true"], True), (["--skip-bad=false"], False), ([], False)],
)
def test_skip_bad_is_a_flag_or_a_truth(words: list[str], expected: bool):
    assert asked([*words, "cgan-digits"])[0].skip_bad is expected
    assert asked(["cgan-digits", *words, "--steps", "3"])[0].skip_bad is expected


def test_a_missing_value_is_told_in_one_voice(capsys: pytest.CaptureFixture[str]):
    assert refused(capsys, ["train", "cgan-digits", "--out"]) == "condgen: --data, --size and --out each need a value\n"


def test_a_papers_value_never_stands_beside_other_data():
    own, other = asked(["gan-mnist"])[0], asked(["gan-mnist", "--data", "digits"])[0]
    assert own.reported and own.source and asked(["gan-mnist", "--data", "mnist"])[0] == own
    assert (other.reported, other.source, other.name, other.data) == ({}, "", "gan-digits", "digits")


def test_of_several_processes_one_answers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    assert main(["list", "models", "--json"]) == 0 == main(["list", "models"])
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    assert main(["list", "models"]) == 0
    assert "cgan" in capsys.readouterr().out


def test_samples_of_points_are_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    np.savez(tmp_path / "points.npz", x=np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32), kind=np.array(["a", "b"] * 20))
    out = str(tmp_path / "run")
    answers(capsys, ["train", "gan-mixture2d", "--data", str(tmp_path / "points.npz"), "--out", out, "--steps", "1", "--batch", "8"])
    found = answers(capsys, ["sample", out, "-n", "3"])
    assert found["out"].endswith("samples.npz")
    with np.load(found["out"]) as drawn:
        assert drawn["x"].shape == (3, 2)
    assert ".npz" in refused(capsys, ["sample", out, "--out", str(tmp_path / "grid.png")])


# --- a stranger's pictures ------------------------------------------------------------------------------------------------


def pictures(folder: Path, name: str, words: tuple[str, str]) -> Path:
    """24 pictures of 8x8 px beside a metadata.csv with one column besides the files' names."""
    import csv

    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(0)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file_name", name])
        for i in range(24):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
            table.writerow([f"{i}.png", words[i % 2]])
    return folder


@pytest.mark.parametrize("target", ["cgan", "cgan-digits"])
def test_broken_pictures_are_left_out_where_asked(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    folder = pictures(tmp_path / "pets", "kind", ("cat", "dog"))
    (folder / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    words = ["train", target, "--data", str(folder), "--out", str(tmp_path / "run"), "--steps", "1", *SMALL]
    assert "3.png" in refused(capsys, words)
    assert main([*words, "--skip-bad"]) == 0
    assert "1 of 24" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["run"]["skip_bad"] is True


@pytest.mark.parametrize("name", ["x", "file", "allow_pickle", "type", "c.d", "a=b", "with space", "Größe \U0001f99c"])
def test_a_condition_may_have_any_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder, run, out = pictures(tmp_path / "pets", name, ("u", "v=w")), str(tmp_path / "run"), tmp_path / "drawn.npz"
    small = ["--model.width", "4", "--batch", "8", "--steps", "1", "--conditions", name]
    assert main(["train", "cgan", "--data", str(folder), "--out", run, *small]) == 0
    assert main(["sample", run, "--set", f"{name}=v=w", "-n", "3", "--out", str(out)]) == 0
    with np.load(out) as drawn:
        member = "condition_x" if name == "x" else name
        assert set(drawn.files) == {"x", member} and drawn["x"].shape == (3, 8, 8, 3) and drawn[member].tolist() == [1, 1, 1]
    assert main(["evaluate", run, "-n", "20", "--metrics", "diversity_ratio,frechet"]) == 0
    assert main(["describe", run]) == 0
    assert f"--set {name}=" in capsys.readouterr().out
