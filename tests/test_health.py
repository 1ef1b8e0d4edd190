"""What goes wrong in a run: what is not finite, too little memory, players out of balance, samples that are all alike."""

from dataclasses import replace

import pytest
import torch

import tiny
from condgen import api, cli
from condgen.data.store import Dataset
from condgen.errors import BadInput
from condgen.model import Optimizer
from condgen.models import ae, cgan
from condgen.training import health, loop, preview, turns
from condgen.training.health import Balance, Diverged, sameness
from tiny import AE, CGAN, CVAE, MIRZA, assert_close, assert_same, measured, saved, tensors_of, trained

# --- what is not finite ---------------------------------------------------------------------------------------------------


def spoil_batch(monkeypatch, when: int, spoil) -> None:
    """The batch of step `when` (from 0) goes through `spoil` first."""
    plain, calls = Dataset.batch, []

    def batch(self, rows):
        found = plain(self, rows)
        if len(rows) == CGAN.batch:
            calls.append(1)
            if len(calls) == when + 1:
                spoil(found)
        return found

    monkeypatch.setattr(Dataset, "batch", batch)


def nan_pixel(batch):
    batch.x[3, 0, 2, 2] = float("nan")


# A CVAE that binarises compares pixels with noise, and a comparison with NaN is false: only where it does not, NaN goes on.
PLAIN_CVAE = replace(CVAE, options={**CVAE.options, "binarise": False})


@pytest.mark.parametrize("run", [CGAN, PLAIN_CVAE, AE, MIRZA, replace(CGAN, precision="bf16")], ids=["cgan", "cvae", "ae", "mirza", "bf16"])
def test_nan_in_the_data_is_named(run, monkeypatch, tmp_path):
    spoil_batch(monkeypatch, 5, nan_pixel)
    with pytest.raises(Diverged, match=r"^(D/game|model/\w+) is nan at step 5; not finite: sample x of the batch$"):
        trained(replace(run, save_every=2), tmp_path)
    assert saved(tmp_path).state["step"] == 4
    assert all(bool(torch.isfinite(v).all()) for v in tensors_of(saved(tmp_path)).values() if v.is_floating_point())


def test_the_last_good_checkpoint_is_untouched_and_goes_on(monkeypatch, tmp_path):
    with monkeypatch.context() as spoiled:
        spoil_batch(spoiled, 5, nan_pixel)
        with pytest.raises(Diverged):
            trained(replace(CGAN, save_every=2), tmp_path)
    assert_same(trained(CGAN, tmp_path), trained(CGAN))
    assert [row["step"] for row in measured(tmp_path)] == [*range(1, 13)]


def test_nan_in_a_condition_is_named(monkeypatch, tmp_path):
    import numpy as np

    file = tmp_path / "set.npz"
    draw = np.random.default_rng(0)
    np.savez(file, x=draw.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8), tilt=draw.random((40, 3), dtype=np.float32))

    def spoil(batch):
        batch.c["tilt"][0, 0] = float("nan")

    spoil_batch(monkeypatch, 2, spoil)
    with pytest.raises(Diverged, match="at step 2; not finite: condition tilt of the batch"):
        trained(replace(CGAN, data=str(file), split="train"))


@pytest.mark.parametrize("name", ["D.last.weight", "G.dense.weight"])
def test_nan_in_a_weight_is_named(name, tmp_path):
    with pytest.raises(Diverged, match=rf"is nan at step 3; not finite: weight {name}"):
        for step in tiny.steps(replace(CGAN, save_every=2), tmp_path):
            if step.step == 3:
                with torch.no_grad():
                    step.state.model.get_parameter(name).view(-1)[0] = float("nan")
    assert saved(tmp_path).state["step"] == 2


def test_a_loss_of_infinity_stops_though_all_is_finite(monkeypatch):
    plain = ae.AE.turns

    def infinite(self, batch, step):
        for turn in plain(self, batch, step):
            yield {
                "model": {"reconstruction": turn["model"]["reconstruction"], "spike": torch.full((16,), float("inf") if step == 2 else 0.0)}
            }

    monkeypatch.setattr(ae.AE, "turns", infinite)
    with pytest.raises(Diverged, match="model/spike is inf at step 2; all weights and data are finite"):
        trained(AE)


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """The loss is still finite when the last step throws the weights out of the numbers."""
    run = replace(AE, steps=3, optimizers={"*": Optimizer("SGD", lr=1e-3)})
    trained(run, tmp_path, stop=2)
    steps = tiny.steps(run, tmp_path)
    with pytest.raises(Diverged, match=r"weight E\..* is not finite after step 3; the last good checkpoint is untouched"):
        patched = torch.optim.SGD.step

        def explode(self, closure=None):
            patched(self)
            self.param_groups[0]["params"][0].data.fill_(float("inf"))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.optim.SGD, "step", explode)
            list(steps)
    assert saved(tmp_path).state["step"] == 2


def test_a_diverged_run_ends_with_3(monkeypatch, tmp_path, capsys):
    spoil_batch(monkeypatch, 5, nan_pixel)
    assert cli.main([*tiny.words_for(replace(CGAN, save_every=2)), "--out", str(tmp_path / "run")]) == 3
    assert "condgen: stopped: D/game is nan at step 5; not finite: sample x of the batch" in capsys.readouterr().err
    assert saved(tmp_path / "run").state["step"] == 4


# --- too little memory ----------------------------------------------------------------------------------------------------


class Memory:
    """Holds as many samples as it is told to, in the given turn and from the given step on."""

    def __init__(self, monkeypatch, samples: int, turn: int = 0, step: int = 0):
        self.samples, self.turn, self.step, self.failures = samples, turn, step, 0
        for owner, name in ((cgan, "adversarial_turns"), (ae.AE, "turns")):
            monkeypatch.setattr(owner, name, self.limited(getattr(owner, name)))

    def limited(self, plain):
        def turns_of(model, batch, step):
            for i, turn in enumerate(plain(model, batch, step)):
                if i == self.turn and step >= self.step and len(batch.x) > self.samples:
                    self.failures += 1
                    raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
                yield turn

        return turns_of


@pytest.fixture
def noiseless(monkeypatch):
    """A CGAN whose latents are all the same: then parts of a batch compute what the whole computes."""
    monkeypatch.setattr(cgan.CGAN, "prior", lambda self, n, c: torch.zeros(n, self.z_dim))
    return replace(CGAN, options={**CGAN.options, "width": 16})


def test_the_batch_is_cut_until_it_fits_and_the_run_says_so(monkeypatch, tmp_path, caplog):
    whole = trained(AE)
    memory = Memory(monkeypatch, samples=4)
    state = trained(AE, tmp_path)
    assert (memory.failures, state.micro) == (2, 4)
    assert_close(state, whole, 1e-5)
    sentence = "out of memory at step 0: batches of 16 are now cut in %d parts whose gradients add up; the effective batch is unchanged"
    assert [r.message.split("; going")[0] for r in caplog.records] == [sentence % 2, sentence % 4]
    assert saved(tmp_path).state["micro"] == 4


@pytest.mark.parametrize("batch, samples, micro", [(10, 3, 4), (10, 1, 10), (7, 2, 4), (16, 15, 2), (12, 1, 12)])
def test_parts_of_unequal_size_weigh_what_they_hold(batch, samples, micro, monkeypatch):
    run = replace(AE, batch=batch)
    whole = trained(run)
    Memory(monkeypatch, samples)
    state = trained(run)
    assert state.micro == micro
    assert_close(state, whole, 1e-5)


def test_losses_are_those_of_the_whole_batch(monkeypatch, tmp_path):
    trained(AE, tmp_path / "whole")
    Memory(monkeypatch, samples=5)
    trained(AE, tmp_path / "parts")
    for one, two in zip(measured(tmp_path / "parts"), measured(tmp_path / "whole"), strict=True):
        assert one == pytest.approx(two, rel=1e-5)


@pytest.mark.parametrize("out", [True, False], ids=["with a folder", "in memory"])
@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("step", [0, 5])
def test_a_player_that_had_its_turn_does_not_move_twice(turn, step, out, noiseless, monkeypatch, tmp_path):
    """Memory runs out in D's turn, or in G's when D has moved already."""
    run = replace(noiseless, save_every=4)
    whole = trained(run)
    memory = Memory(monkeypatch, samples=8, turn=turn, step=step)
    state = trained(run, tmp_path if out else None)
    assert (memory.failures, state.micro) == (1, 2)
    assert_close(state, whole, 1e-5)
    counts = {k: float(v) for k, v in state.tensors()["optimizers"].items() if k.endswith("step")}
    assert set(counts.values()) == {12.0}


def test_going_back_is_exact(noiseless, monkeypatch, tmp_path):
    """Failing in the second turn of step 5 ends bit for bit where failing right after the save at step 4 does."""
    run = replace(noiseless, save_every=4)
    with monkeypatch.context() as later:
        Memory(later, samples=8, turn=1, step=5)
        one = trained(run, tmp_path / "later")
    Memory(monkeypatch, samples=8, turn=0, step=4)
    two = trained(run, tmp_path / "at the save")
    assert_same(one, two)
    assert measured(tmp_path / "later") == measured(tmp_path / "at the save")


def test_steps_since_the_last_save_come_again_and_are_measured_once(noiseless, monkeypatch, tmp_path, caplog):
    Memory(monkeypatch, samples=8, turn=1, step=6)
    numbers = [step.step for step in tiny.steps(replace(noiseless, save_every=4), tmp_path)]
    assert numbers == [1, 2, 3, 4, 5, 6, 5, 6, 7, 8, 9, 10, 11, 12]
    assert [row["step"] for row in measured(tmp_path)] == [*range(1, 13)]
    assert "going on from step 4" in caplog.text


def test_what_fits_is_remembered_by_the_checkpoint(monkeypatch, tmp_path):
    memory = Memory(monkeypatch, samples=4)
    trained(AE, tmp_path, stop=5)
    assert memory.failures == 2
    assert trained(AE, tmp_path).micro == 4
    assert memory.failures == 2


def test_memory_may_run_out_while_a_player_moves(monkeypatch):
    """Adam takes its memory at the first step."""
    whole, plain, calls = trained(AE), torch.optim.Adam.step, []

    def step(self, closure=None):
        calls.append(1)
        plain(self)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("simulated")

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    assert_close(trained(AE), whole, 1e-5)


def test_where_one_sample_does_not_fit_a_person_is_told(monkeypatch, tmp_path, capsys):
    trained(CGAN, tmp_path / "run", stop=4)
    Memory(monkeypatch, samples=0)
    with pytest.raises(BadInput, match=r"out of memory at step 4 with one sample at a time: take smaller pictures \(--size\)"):
        trained(CGAN, tmp_path / "run")
    assert cli.main([*tiny.words_for(CGAN), "--out", str(tmp_path / "run")]) == 2
    assert "out of memory at step 4 with one sample at a time" in capsys.readouterr().err
    assert saved(tmp_path / "run").state["step"] == 4


def test_other_errors_are_not_taken_for_memory(monkeypatch):
    def broken(self, batch, step):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        yield

    monkeypatch.setattr(ae.AE, "turns", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        trained(AE)


def test_a_grid_that_does_not_fit_does_not_stop_the_training(monkeypatch, tmp_path, caplog):
    def short(self, *args, **kwargs):
        raise torch.OutOfMemoryError("simulated")

    plain = trained(CGAN)
    monkeypatch.setattr(cgan.CGAN, "sample", short)
    assert_same(trained(replace(CGAN, sample_every=5), tmp_path), plain)  # and the averages were put back
    assert "no samples were drawn at step 5: out of memory; the training goes on" in caplog.text


def test_cut_covers_the_batch_once():
    batch = api.dataset(CGAN).batch(range(10))
    for parts in range(1, 11):
        pieces = turns.cut(batch, parts)
        assert len(pieces) <= parts and torch.equal(torch.cat([p.x for p in pieces]), batch.x)
        assert torch.equal(torch.cat([p.c["digit"] for p in pieces]), batch.c["digit"])
        assert max(len(p.x) for p in pieces) == -(-10 // parts)


# --- balance and diversity ------------------------------------------------------------------------------------------------


def test_balance_says_its_sentence_once():
    balance = Balance()
    said = [balance.watch({"D/game": 0.001, "G/game": 9.0}, step) for step in range(3 * Balance.PATIENCE)]
    sentences = [(i, s) for i, s in enumerate(said) if s]
    assert len(sentences) == 1 and sentences[0][0] >= Balance.PATIENCE - 1
    assert "D tells every fake (its loss is 0.001, G's 9.0)" in sentences[0][1] and "Try a larger r1" in sentences[0][1]


@pytest.mark.parametrize("losses", [{"D/game": 1.38, "G/game": 0.69}, {"D/game": 0.001, "G/game": 0.5}, {"model/kl": 1e-6}, {}])
def test_balance_is_silent_where_nothing_is_wrong(losses):
    balance = Balance()
    assert [balance.watch(losses, step) for step in range(2 * Balance.PATIENCE)] == [None] * (2 * Balance.PATIENCE)


def test_a_swing_does_not_count():
    """Short of the patience, and over again before it: nothing is said."""
    balance, lost, even = Balance(), {"D/game": 0.0, "G/game": 20.0}, {"D/game": 5.0, "G/game": 0.5}
    swings = [w for _ in range(20) for w in [lost] * 200 + [even] * 200]
    assert [balance.watch(w, step) for step, w in enumerate(swings)] == [None] * 8000


def test_one_look_is_not_enough_however_late():
    assert Balance().watch({"D/game": 0.001, "G/game": 9.0}, 10 * Balance.PATIENCE) is None


@pytest.mark.parametrize("every", [1, 10, 50, 200])
def test_a_d_that_wins_is_said_once_however_often_is_logged(every, monkeypatch, caplog):
    """Driven through the loop: even for 300 steps, then D wins for 1000."""

    def one_step(run, state, *_):
        state.step += 1
        even = state.step <= 300
        return {"D/game": torch.tensor(1.3 if even else 0.001), "G/game": torch.tensor(0.7 if even else 9.0)}

    monkeypatch.setattr(loop, "one_step", one_step)
    trained(replace(CGAN, steps=1300, log_every=every))
    assert [r.message.split(" (")[0] for r in caplog.records if r.levelname == "WARNING"] == ["D tells every fake"]


def test_samples_that_are_all_alike_are_named():
    draw = torch.Generator().manual_seed(0)
    real, groups = torch.randn(64, 1, 8, 8, generator=draw), ["three"] * 8 + ["four"] * 8
    assert sameness(real[:16], real, groups) is None
    collapsed = real[:16].clone()
    collapsed[8:] = real[0] + 0.01 * real[8:16]
    assert "samples of four are nearly identical (1% of the distance between real samples)" in (sameness(collapsed, real, groups) or "")


def test_a_collapse_is_said_during_training(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(cgan.CGAN, "decode", lambda self, z, c: torch.zeros(len(z), *self.shape))
    state = next(tiny.steps(CGAN)).state
    preview.preview(state, api.dataset(CGAN), tmp_path / "grid.png")
    assert "samples of 0 are nearly identical (0%" in caplog.text and (tmp_path / "grid.png").exists()


def test_first_bad_looks_everywhere():
    state = trained(CGAN)
    assert health.first_bad(state) is None
    places = {
        "optimizers D.0.exp_avg": state.optimizers["D"].state[state.own["D"][0]]["exp_avg"],
        "ema G.dense.bias": state.ema.tensors["G.dense.bias"],
    }
    for name, tensor in places.items():
        kept = tensor.clone()
        tensor.view(-1)[0] = float("inf")
        assert health.first_bad(state) == name
        tensor.copy_(kept)
    assert health.first_bad(state) is None
