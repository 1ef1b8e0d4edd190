"""A checkpoint is whole to the last bit or named as damaged; whatever happens while one is written, the one before it stays."""

import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import condgen
import tiny
from condgen.errors import BadInput
from condgen.training import checkpoint
from condgen.training.checkpoint import damage, folders, newest
from test_resume import interrupted_in_a_turn
from tiny import CGAN, assert_same, saved, trained

FILES = ["ema.safetensors", "manifest.json", "model.safetensors", "optimizers.safetensors", "rows.safetensors", "state.json"]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run with whole checkpoints of steps 10 and 12."""
    out = tmp_path_factory.mktemp("original") / "run"
    trained(replace(CGAN, save_every=2), out)
    return out


@pytest.fixture
def run(original, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "run"))


def last(run: Path) -> Path:
    return run / "checkpoints" / "step-000012"


def test_what_a_checkpoint_holds(run):
    assert [f.name for f in folders(run / "checkpoints")] == ["step-000010", "step-000012"]
    assert sorted(f.name for f in last(run).iterdir()) == FILES
    assert damage(last(run)) is None
    manifest = json.loads((last(run) / "manifest.json").read_text())
    assert sorted(manifest["files"]) == [f for f in FILES if f != "manifest.json"]
    for name, facts in manifest["files"].items():
        assert facts == {"sha256": checkpoint.digest(last(run) / name), "bytes": (last(run) / name).stat().st_size}


def test_every_file_can_be_read_by_others(original):
    modes = {f.name: oct(f.stat().st_mode & 0o777) for f in [*last(original).iterdir(), original / "run.json"]}
    assert set(modes.values()) == {"0o644"}, modes


# --- damage ---------------------------------------------------------------------------------------------------------------


def test_a_hundred_flipped_bytes_are_all_detected(run, caplog):
    draw, hit = random.Random(0), set()
    for i in range(100):
        file = last(run) / FILES[i % len(FILES)]
        whole = file.read_bytes()
        place, bit = draw.randrange(len(whole)), 1 << draw.randrange(8)
        flipped = bytearray(whole)
        flipped[place] ^= bit
        file.write_bytes(flipped)
        assert damage(last(run)), f"byte {place} of {file.name}, bit {bit}"
        hit.add(file.name)
        if i < 2 * len(FILES):  # and the newest whole one is used, the damaged one named
            caplog.clear()
            found = newest(run / "checkpoints")
            assert found is not None and found.state["step"] == 10
            assert "step-000012 is damaged and passed over" in caplog.text and file.name in caplog.text
        file.write_bytes(whole)
    assert hit == set(FILES) and damage(last(run)) is None


def test_every_single_byte_of_the_manifest_counts(run):
    file = last(run) / "manifest.json"
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert damage(last(run)), f"byte {place}"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["half", "last byte", "emptied", "missing", "longer", "a folder"])
def test_truncated_emptied_and_missing_files_are_detected(name, how, run):
    file = last(run) / name
    whole = file.read_bytes()
    file.unlink()
    if how == "a folder":
        file.mkdir()
    elif how != "missing":
        file.write_bytes({"half": whole[: len(whole) // 2], "last byte": whole[:-1], "emptied": b"", "longer": whole + b"\n"}[how])
    problem = damage(last(run))
    assert problem is not None and name in problem
    assert saved(run).state["step"] == 10


def test_files_and_manifests_of_another_step_are_detected(run):
    ten, twelve = folders(run / "checkpoints")
    model = (twelve / "model.safetensors").read_bytes()
    shutil.copy(ten / "model.safetensors", twelve / "model.safetensors")
    assert damage(twelve) == "model.safetensors does not match its SHA-256 sum"
    (twelve / "model.safetensors").write_bytes(model)
    shutil.copy(ten / "manifest.json", twelve / "manifest.json")
    assert damage(twelve) == "manifest.json belongs to step 10"


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", "null", '{"step": 12}', '{"step": "12", "files": {}}', "[" * 100_000, "\xff\x00"])
def test_a_manifest_that_is_none(text, run):
    (last(run) / "manifest.json").write_bytes(text.encode("latin-1"))
    assert "manifest.json" in (damage(last(run)) or "")


def test_where_all_are_damaged_each_is_named(run, caplog):
    ten, twelve = folders(run / "checkpoints")
    (ten / "state.json").write_text("{}")
    (twelve / "ema.safetensors").unlink()
    for use in (lambda: trained(CGAN, run), lambda: condgen.load(run)):
        with pytest.raises(
            BadInput, match=r"no whole checkpoint in .*: step-000012: ema.safetensors is missing; step-000010: state.json has 2 bytes"
        ):
            use()


def test_load_takes_the_newest_whole_checkpoint(run):
    whole = condgen.load(run).sample({"digit": 3}, n=2, seed=0)
    file = last(run) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    older = condgen.load(run).sample({"digit": 3}, n=2, seed=0)
    assert older.shape == whole.shape and not torch.equal(older, whole)
    shutil.rmtree(last(run))
    assert torch.equal(condgen.load(run).sample({"digit": 3}, n=2, seed=0), older)


def test_training_goes_on_from_the_newest_whole_one_and_mends_the_damaged(run, caplog):
    (last(run) / "model.safetensors").write_bytes(b"")
    state = trained(CGAN, run)
    assert "step-000012 is damaged and passed over (model.safetensors has 0 bytes" in caplog.text
    assert_same(state, trained(CGAN))
    assert damage(last(run)) is None
    assert tiny.drafts(run) == []


def test_a_damaged_newer_one_does_not_push_out_the_whole_ones(run):
    """Pruning counts from the step that was written: the damaged one of step 12 must not take a place."""
    (last(run) / "state.json").unlink()
    trained(CGAN, run, stop=11)
    assert [f.name for f in folders(run / "checkpoints")] == ["step-000010", "step-000011"]


# --- pickles --------------------------------------------------------------------------------------------------------------


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def test_a_pickle_in_place_of_the_weights_is_never_read(run, tmp_path, caplog):
    poisoned, sprung = pickle.dumps(Trap(tmp_path / "sprung")), tmp_path / "sprung"
    (last(run) / "model.safetensors").write_bytes(poisoned)
    assert damage(last(run))
    forge_manifest(last(run))  # even where its sums are right
    assert damage(last(run)) is None
    assert saved(run).state["step"] == 10
    assert "it is no checkpoint of condgen" in caplog.text
    assert not sprung.exists()
    pickle.loads(poisoned)
    assert sprung.exists()  # it would have


def test_a_file_in_place_of_a_run_is_refused(tmp_path):
    file = tmp_path / "model.pt"
    torch.save({"weights": torch.zeros(2)}, file)
    with pytest.raises(BadInput, match=r"is a pickle: .* never read"):
        condgen.load(file)
    with pytest.raises(BadInput, match=r"model.pt cannot be written"):
        trained(CGAN, file)


def forge_manifest(folder: Path) -> None:
    files = {
        f.name: {"sha256": checkpoint.digest(f), "bytes": f.stat().st_size} for f in sorted(folder.iterdir()) if f.name != "manifest.json"
    }
    (folder / "manifest.json").write_bytes(checkpoint._manifest_text({"step": checkpoint._number(folder), "files": files}))


def test_a_checkpoint_of_another_model_is_refused(run):
    """Whole, of the right run by its word, but with other tensors."""
    for folder in folders(run / "checkpoints"):
        checkpoint.save_file({"G.x": torch.zeros(3)}, folder / "model.safetensors")
        forge_manifest(folder)
    with pytest.raises(BadInput, match=r"(?s)checkpoint step-000012 does not fit this model: .*G\.x"):
        trained(CGAN, run)


# --- a full disk ----------------------------------------------------------------------------------------------------------


def command_with_small_files(words: list[str], most_bytes: int) -> int:
    """Work for a child: no file may grow beyond `most_bytes`, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    return tiny.command(words)


def test_a_full_disk_ends_with_2_and_leaves_the_earlier_checkpoint(tmp_path):
    out, log = tmp_path / "run", tmp_path / "log"
    trained(CGAN, out, stop=4)
    before = saved(out)
    words = [*tiny.words_for(replace(CGAN, save_every=3)), "--out", str(out)]
    most = 10_000
    assert (out / "checkpoints" / "step-000004" / "model.safetensors").stat().st_size > most
    assert tiny.ended(tiny.child(command_with_small_files, words, most, log=log)) == 2, log.read_text()
    text = log.read_text()
    assert "the checkpoint of step 6 could not be written (" in text and "earlier checkpoints in" in text and "Traceback" not in text
    assert [f.name for f in (out / "checkpoints").iterdir()] == ["step-000004"]
    assert_same(saved(out), before)
    assert tiny.drafts(out) == []
    assert_same(trained(CGAN, out), trained(CGAN))  # with room again


def test_a_disk_too_full_for_the_smallest_file(tmp_path):
    trained(CGAN, tmp_path / "run", stop=4)
    words = [*tiny.words_for(CGAN), "--out", str(tmp_path / "run")]
    nowhere = Path(os.devnull)  # a log would be too large as well
    assert tiny.ended(tiny.child(command_with_small_files, words, 100, log=nowhere)) == 2
    assert saved(tmp_path / "run").state["step"] == 4 and tiny.drafts(tmp_path / "run") == []


def interrupted_with_small_files(words: list[str]) -> int:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    return interrupted_in_a_turn(words, signal.SIGTERM)


def test_a_disk_that_is_full_when_a_signal_comes_is_not_passed_over(tmp_path):
    """What could not be saved must not be called saved."""
    trained(CGAN, stop=1)  # the data is prepared before
    words, log = [*tiny.words_for(CGAN), "--out", str(tmp_path / "run")], tmp_path / "log"
    code = tiny.ended(tiny.child(interrupted_with_small_files, words, log=log))
    assert code == 2 and "the checkpoint of step 5 could not be written" in log.read_text() and "and saved" not in log.read_text()


FILL = """
import sys, torch
from pathlib import Path
from condgen.errors import BadInput
from condgen.training import checkpoint
root = Path(sys.argv[1]) / "run" / "checkpoints"
weights = {"model": {"w": torch.arange(60_000.0)}}  # 240 kB: a 1 MB disk holds three with a fourth on the way
checkpoint.write(root, 1, weights, {"step": 1})
checkpoint.write(root, 2, weights, {"step": 2})
(root / "other").write_bytes(bytes(int(sys.argv[2])))
try:
    checkpoint.write(root, 3, weights, {"step": 3})
except BadInput as error:
    print(error)
print(sorted(f.name for f in root.iterdir()), checkpoint.newest(root).state)
print(torch.equal(checkpoint.newest(root).tensors["model"]["w"], weights["model"]["w"]))
"""


@pytest.mark.parametrize("other_bytes, kept", [(350_000, 2), (100_000, 3)], ids=["full", "room"])
def test_a_small_disk_that_is_really_full(other_bytes, kept, tmp_path):
    script, disk = tmp_path / "fill.py", tmp_path / "disk"
    script.write_text(FILL)
    disk.mkdir()
    mounted = f"mount -t tmpfs -o size=1m none {disk} && exec {sys.executable} {script} {disk} {other_bytes}"
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-rm", "sh", "-c", f"mount -t tmpfs none {disk}"], capture_output=True).returncode
    ):
        pytest.skip("unshare and mount: this machine lets us mount no tmpfs")
    found = subprocess.run(["unshare", "-rm", "sh", "-c", mounted], capture_output=True, text=True, env=tiny.environment(), timeout=120)
    assert found.returncode == 0, found.stderr
    *error, listed, equal = found.stdout.splitlines()
    assert ["No space left on device" in e and "step 3" in e for e in error] == [True] * (kept == 2)
    names = ["other", "step-000001", "step-000002"] if kept == 2 else ["other", "step-000002", "step-000003"]
    assert (listed, equal) == (f"{names} {{'step': {kept}}}", "True")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match=r"file/run cannot be written \(.*Not a directory.*its checkpoints are untouched"):
        trained(CGAN, tmp_path / "file" / "run")


# --- killed while saving --------------------------------------------------------------------------------------------------


def train_and_be_killed(out: Path, calls: int, where: str) -> int:
    """Work for a child: SIGKILL at the calls-th call of a function of `checkpoint` or of the system."""
    owner = {"flush": checkpoint, "save_file": checkpoint, "digest": checkpoint, "rename": Path}[where]
    plain, seen = getattr(owner, where), []

    def deadly(*args, **kwargs):
        seen.append(1)
        if len(seen) == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*args, **kwargs)

    setattr(owner, where, deadly)
    trained(replace(CGAN, save_every=5), out)
    return 0


# While a run opens its folder `flush` is called twice (run.json, metrics.jsonl); then for each file of a checkpoint and its folders.
MOMENTS = [
    ("flush", 3),
    ("flush", 6),
    ("flush", 9),
    ("flush", 10),
    ("save_file", 1),
    ("save_file", 3),
    ("digest", 14),
    ("rename", 1),
    ("rename", 2),
]


@pytest.mark.parametrize("where, calls", MOMENTS)
def test_a_kill_in_the_middle_of_a_save(where, calls, tmp_path):
    out = tmp_path / "run"
    trained(CGAN, out, stop=4)
    process = tiny.child(train_and_be_killed, out, calls, where, log=tmp_path / "log")
    assert tiny.ended(process) == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert saved(out).state["step"] in (4, 5, 10)
    left = tiny.drafts(out)
    state = trained(CGAN, out)
    assert_same(state, trained(CGAN))
    assert tiny.drafts(out) == [], f"left behind: {left}"


def test_drafts_of_killed_processes_are_cleaned_up(tmp_path):
    out = tmp_path / "run"
    trained(CGAN, out, stop=4)
    for name in (f"checkpoints/.draft-000005-{os.getpid()}", "checkpoints/.draft-000003-1-replaced", "checkpoints/.draft-000002-999999999"):
        (out / name).mkdir()
        (out / name / "model.safetensors").write_bytes(b"half")
    (out / ".metrics.jsonl.4711").write_text("half")
    (out / ".run.json.4711").write_text("half")
    assert len(tiny.drafts(out)) == 5
    trained(CGAN, out)
    assert tiny.drafts(out) == []


def test_a_draft_of_the_same_process_number_does_not_stand_in_the_way(tmp_path):
    """In a container every run has the same number."""
    draft = tmp_path / f".draft-000001-{os.getpid()}"
    draft.mkdir()
    (draft / "left.safetensors").write_bytes(b"half")
    folder = checkpoint.write(tmp_path, 1, {"model": {"w": torch.ones(3)}}, {})
    assert sorted(f.name for f in folder.iterdir()) == ["manifest.json", "model.safetensors", "state.json"]
