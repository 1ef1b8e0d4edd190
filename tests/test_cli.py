"""The command line as a person meets it: what it prints, where, and with which exit code."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from condgen import api
from condgen.cli import main

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
    for verb in ("train", "sample", "evaluate", "describe", "data", "list", "doctor"):
        assert verb in done.stdout


@pytest.mark.parametrize("verb", ["train", "sample", "evaluate", "describe", "data", "list", "doctor"])
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
        (["doctor", "--jsonn"], "--json"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_nearest(words: list[str], named: str, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    extra = ["--out", str(tmp_path / "run")] if words[0] == "train" and len(words) > 1 else []
    assert named in refused(capsys, [*words[:2], *extra, *words[2:]] if words[-1] != "--data" else words)


def test_no_words_print_the_usage(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 2
    assert main(["train"]) == 2
    assert "condgen train PRESET" in capsys.readouterr().out


def test_the_same_command_again_has_nothing_left_to_do(run: Path, capsys: pytest.CaptureFixture[str]):
    weights = (run / "model.safetensors").read_bytes()
    found = answers(capsys, ["train", "cgan-digits", "--out", str(run), "--steps", "6", *SMALL])
    assert found["steps"] == 6
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


def test_describe_a_run_a_preset_and_a_model(run: Path, capsys: pytest.CaptureFixture[str]):
    found = answers(capsys, ["describe", str(run)])
    assert found["conditions"]["digit"]["names"] == list("0123456789")
    assert found["step"] == 6
    assert {"sample", "decode"} <= set(found["can"])
    assert answers(capsys, ["describe", "cgan-digits"])["run"]["steps"] == api.preset("cgan-digits").steps
    assert answers(capsys, ["describe", "cgan"])["options"]["z_dim"] == 64
    assert main(["describe", str(run)]) == 0
    assert "--set digit=" in capsys.readouterr().out


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
    assert answers(capsys, ["data", "check", "digits"])["ok"]
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
