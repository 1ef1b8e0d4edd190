"""The loop and its parts: turns, isolation of players, order, schedules, averages, clipping, leaving."""

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tiny
from condgen import api
from condgen.errors import BadInput
from condgen.model import Model, Optimizer, Run
from condgen.training import loop, order, processes, schedules
from condgen.training.ema import EMA, RAMP_UP, decay
from condgen.training.state import begin, make
from tiny import AE, CGAN, CVAE, MIRZA, saved, trained

# --- leaving, and what is left --------------------------------------------------------------------------------------------


def test_leaving_the_loop_saves(tmp_path):
    for step in tiny.steps(CGAN, tmp_path):
        if step.step == 3:
            assert not (tmp_path / "checkpoints").exists()
            break
    assert saved(tmp_path).state["step"] == 3


def test_an_error_of_the_caller_saves_too(tmp_path):
    with pytest.raises(ZeroDivisionError):
        for step in tiny.steps(CGAN, tmp_path):
            if step.step == 3:
                raise ZeroDivisionError
    assert saved(tmp_path).state["step"] == 3


def test_closing_before_the_first_step_writes_nothing(tmp_path):
    tiny.steps(CGAN, tmp_path / "run").close()
    assert not (tmp_path / "run").exists()


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained(replace(CGAN, save_every=1, sample_every=1))
    trained(CGAN, stop=2)
    assert list(tmp_path.rglob("*")) == []


def test_what_a_run_leaves(tmp_path):
    trained(replace(CGAN, save_every=5, sample_every=6), tmp_path)
    files = sorted(f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*") if f.parent.name != "checkpoints" and f.is_file())
    groups = ["ema.safetensors", "manifest.json", "model.safetensors", "optimizers.safetensors", "rows.safetensors", "state.json"]
    kept = [f"checkpoints/step-{s:06d}/{g}" for s in (10, 12) for g in groups]
    assert files == [*kept, "metrics.jsonl", "run.json", "samples/step-000006.png", "samples/step-000012.png"]


def test_what_a_step_tells():
    found = list(tiny.steps(CGAN))
    assert [s.step for s in found] == [*range(1, 13)]
    assert all(a.seconds < b.seconds and b.images_per_second > 0 for a, b in zip(found, found[1:], strict=False))
    assert [set(s.losses) for s in found[:5]] == [{"D/game", "D/r1", "G/game"}, *[{"D/game", "G/game"}] * 3, {"D/game", "D/r1", "G/game"}]
    assert not any(v.requires_grad for s in found for v in s.losses.values())


def test_metrics_are_written_as_often_as_asked(tmp_path):
    for every, steps in ((5, [5, 10, 12]), (0, [12]), (1, [*range(1, 13)])):
        trained(replace(CGAN, log_every=every), tmp_path / str(every))
        assert [row["step"] for row in tiny.measured(tmp_path / str(every))] == steps


def test_a_term_of_few_steps_stands_in_the_next_line(tmp_path):
    """R1 falls on steps 1, 5 and 9: lines of every third step give its last value since the line before, or none."""
    run = replace(CGAN, log_every=3)
    found = {s.step: s.losses for s in tiny.steps(run, tmp_path)}
    lines = {row["step"]: row for row in tiny.measured(tmp_path)}
    assert {step: row.get("D/r1") for step, row in lines.items()} == {
        3: found[1]["D/r1"],
        6: found[5]["D/r1"],
        9: found[9]["D/r1"],
        12: None,
    }
    assert all(row["G/game"] == found[step]["G/game"] for step, row in lines.items())


@pytest.mark.parametrize("stop", [1, 2, 5, 6, 9, 10, 11])
def test_a_term_of_few_steps_outlives_a_stop(stop, tmp_path):
    run = replace(CGAN, log_every=3)
    trained(run, tmp_path / "whole")
    trained(run, tmp_path / "run", stop)
    trained(run, tmp_path / "run")
    assert tiny.measured(tmp_path / "run") == tiny.measured(tmp_path / "whole")


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    one, two, other = trained(CVAE), trained(CVAE), trained(replace(CVAE, seed=1))
    tiny.assert_same(one, two)
    assert not torch.equal(one.model.G.layers[0].weight, other.model.G.layers[0].weight)


def test_seconds_go_on_after_a_stop(tmp_path):
    first = list(tiny.steps(replace(CGAN, steps=3), tmp_path))[-1]
    assert next(tiny.steps(CGAN, tmp_path)).seconds > first.seconds


@pytest.mark.parametrize(
    "change, message", [({"precision": "16"}, "precision '16': valid are auto, 32, bf16"), ({"precision": "fp8"}, "precision 'fp8'")]
)
def test_a_run_that_cannot_be_is_refused(change, message):
    with pytest.raises(BadInput, match=message):
        trained(replace(CGAN, **change))


def test_the_announcement_of_bfloat16_is_not_heard(caplog):
    with caplog.at_level("INFO", logger="lightning_fabric.utilities.rank_zero"):
        processes.make_fabric("bf16")
        assert logging.getLogger("lightning_fabric.utilities.rank_zero").level == logging.INFO, "put back as it was"
    assert "Automatic Mixed Precision" not in caplog.text


def test_a_batch_may_be_larger_than_the_data():
    state = trained(replace(AE, split="train[:5]", batch=16, steps=3))
    assert state.step == 3


# --- turns ----------------------------------------------------------------------------------------------------------------


def test_nothing_of_one_turn_reaches_another_player():
    """After G's turn D's gradients are still those of D's own turn, and D's turn leaves G none."""
    steps = tiny.steps(replace(CGAN, steps=2))
    state, seen = next(steps).state, {}

    def watch(player):
        plain = state.optimizers[player].step

        def step(closure=None):
            seen[player] = {p: [q.grad.clone() if q.grad is not None else None for q in state.own[p]] for p in ("D", "G")}
            plain()

        return step

    for player in ("D", "G"):
        for p in state.own[player]:
            p.grad = None
        state.optimizers[player].step = watch(player)
    next(steps)
    assert all(g is None for g in seen["D"]["G"]), "D's turn gave G a gradient"
    assert all(torch.equal(a, b) for a, b in zip(seen["D"]["D"], seen["G"]["D"], strict=True)), "G's turn changed D's gradients"
    assert all(g is not None for g in seen["G"]["G"])


class Toy(Model):
    """Two numbers a and b; the turns are given."""

    critics = ()

    def __init__(self, shape=(2,), schema=None, told=None):
        super().__init__(shape, {})
        self.a, self.b = Number(1.0), Number(2.0)
        self.told = told

    def players(self):
        return {"A": [self.a], "B": [self.b]}

    def turns(self, batch, step):
        yield from self.told(self, batch, step)


class Number(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.tensor([value]))


SGD = {"*": Optimizer("SGD", lr=0.1)}
TOY = Run("toy.Toy", "mixture2d", optimizers=SGD, split="train[:8]", batch=8, steps=1, save_every=0, sample_every=0, precision="32")


def played(told, run=TOY):
    """a and b after the run."""
    *_, last = loop.train(run, Toy(told=told), api.dataset(run))
    return last.state.model.a.value.item(), last.state.model.b.value.item()


def ones(batch):
    return torch.ones(len(batch.x))


def test_two_players_of_one_turn_move_at_once():
    """Both see the other's old value: a - 0.1 b, b - 0.1 a."""

    def told(m, batch, step):
        product = m.a.value * m.b.value * ones(batch)
        yield {"A": {"t": product}, "B": {"t": product}}

    assert played(told) == pytest.approx((1 - 0.1 * 2, 2 - 0.1 * 1))


def test_a_later_turn_sees_the_earlier_move():
    def told(m, batch, step):
        yield {"A": {"t": m.a.value * m.b.value * ones(batch)}}
        yield {"B": {"t": m.a.value * m.b.value * ones(batch)}}

    assert played(told) == pytest.approx((0.8, 2 - 0.1 * 0.8))


def test_a_player_may_have_several_turns():
    def told(m, batch, step):
        for _ in range(5):
            yield {"A": {"t": m.a.value * ones(batch)}}

    assert played(told) == pytest.approx((1 - 5 * 0.1, 2.0))


def test_terms_add_up_and_losses_are_their_means():
    def told(m, batch, step):
        yield {"A": {"one": m.a.value * torch.arange(8.0), "two": 2 * m.a.value * ones(batch)}}

    *_, last = loop.train(TOY, Toy(told=told), api.dataset(TOY))
    assert {k: v.item() for k, v in last.losses.items()} == {"A/one": 3.5, "A/two": 2.0}
    assert last.state.model.a.value.item() == pytest.approx(1 - 0.1 * (3.5 + 2))


def test_a_player_without_a_turn_stays():
    def told(m, batch, step):
        if step % 2 == 0:
            yield {"B": {"t": m.b.value * ones(batch)}}

    assert played(told, replace(TOY, steps=4)) == pytest.approx((1.0, 2 - 2 * 0.1))


@pytest.mark.parametrize("clip", [0.05, 1.0, 100.0])
def test_clip_bounds_each_players_gradient(clip):
    """With plain SGD at lr 1 a move is the gradient: 3 for A, 40 for B."""

    def told(m, batch, step):
        yield {"A": {"t": 3 * m.a.value * ones(batch)}, "B": {"t": 40 * m.b.value * ones(batch)}}

    a, b = played(told, replace(TOY, clip=clip, optimizers={"*": Optimizer("SGD", lr=1.0)}))
    assert (1 - a, 2 - b) == pytest.approx((min(3, clip), min(40, clip)), rel=1e-4)


def test_clip_bounds_the_norm_over_all_weights():
    run = replace(AE, clip=0.01, steps=1, optimizers={"*": Optimizer("SGD", lr=1.0)})
    before = {k: v.clone() for k, v in api.build(run, api.dataset(run)).state_dict().items()}
    after = trained(run).model.state_dict()
    assert math.sqrt(sum(float((after[k] - v).square().sum()) for k, v in before.items())) == pytest.approx(0.01, rel=1e-3)


def test_players_and_optimisers_must_meet():
    model = Toy(told=None)
    with pytest.raises(BadInput, match="unknown player 'C': Valid: A, B"):
        begin(model, replace(TOY, optimizers={"*": Optimizer(), "C": Optimizer()}))
    with pytest.raises(BadInput, match="no optimiser for player 'B': the run names A"):
        begin(model, replace(TOY, optimizers={"A": Optimizer()}))
    with pytest.raises(BadInput, match="unknown optimizer 'Adamm': did you mean 'Adam'"):
        make(Optimizer("Adamm"), [])
    state = begin(model, replace(TOY, optimizers={"A": Optimizer(lr=1.0), "*": Optimizer("SGD", lr=2.0)}))
    assert [type(o).__name__ for o in state.optimizers.values()] == ["Adam", "SGD"]
    assert [o.param_groups[0]["lr"] for o in state.optimizers.values()] == [1.0, 2.0]


# --- order ----------------------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 50), batch=st.integers(1, 70), seed=st.integers(0, 2**31), epochs=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_each_epoch_is_a_permutation_whatever_the_batch(n, batch, seed, epochs):
    total = n * epochs
    laid = np.concatenate([order.rows(n, batch, seed, s) for s in range(-(-total // batch))])
    for e in range(epochs):
        assert sorted(laid[e * n : (e + 1) * n]) == list(range(n))
        assert np.array_equal(laid[e * n : (e + 1) * n], order.permutation(n, seed, e))


@given(n=st.integers(1, 50), a=st.integers(1, 40), b=st.integers(1, 40), seed=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_the_order_does_not_depend_on_the_batch(n, a, b, seed):
    one = np.concatenate([order.rows(n, a, seed, s) for s in range(2 * b)])
    two = np.concatenate([order.rows(n, b, seed, s) for s in range(2 * a)])
    assert np.array_equal(one, two)


def test_the_order_is_a_function_of_seed_and_epoch():
    order.permutation.cache_clear()
    first = order.permutation(1000, 3, 7).copy()
    order.permutation(1000, 3, 8), order.permutation(1000, 4, 7)
    np.random.seed(0)  # noqa: NPY002 (the global generator must not matter)
    order.permutation.cache_clear()
    assert np.array_equal(order.permutation(1000, 3, 7), first)
    different = [order.permutation(1000, seed, epoch) for seed, epoch in ((3, 8), (4, 7), (7, 3))]
    assert not any(np.array_equal(first, d) for d in different)


def test_a_late_step_costs_no_more_than_an_early_one():
    assert len(order.rows(100, 16, 0, 10**12)) == 16


# --- schedules ------------------------------------------------------------------------------------------------------------


def lr_at(schedule, step, steps=1000, o=None):
    return schedules.at(step, steps, replace(o or Optimizer(lr=0.2, momentum=0.5), schedule=schedule))


def test_schedules_at_their_ends():
    assert [lr_at("constant", s) for s in (0, 500, 1000)] == [(0.2, 0.5)] * 3
    assert [lr_at("late", s)[0] for s in (0, 500, 750, 1000)] == pytest.approx([0.2, 0.2, 0.1, 0.002])
    assert [lr_at("cosine", s)[0] for s in (0, 250, 500, 1000)] == pytest.approx([0.2, 0.1 * (1 + math.sqrt(0.5)), 0.1, 0.0])
    assert lr_at("cosine", 2000)[0] == pytest.approx(0.0)  # past the end it stays there
    assert lr_at("late", 2000)[0] == pytest.approx(0.002)


def test_mirzas_schedule():
    """Mirza & Osindero 2014, 4.1: lr 0.1, divided by 1.00004 a step down to 1e-6; momentum 0.5 to 0.7 in 250 epochs of 500 steps."""
    o = Optimizer("SGD", lr=0.1, momentum=0.5)
    found = [lr_at("pylearn2", s, o=o) for s in (0, 1, 50_000, 62_500, 125_000, 1_000_000)]
    assert [lr for lr, _ in found] == pytest.approx(
        [0.1, 0.1 / 1.00004, 0.1 / 1.00004**50_000, 0.1 / 1.00004**62_500, 0.1 / 1.00004**125_000, 1e-6]
    )
    assert found[2][0] == pytest.approx(0.013534, rel=1e-4)
    assert [m for _, m in found] == pytest.approx([0.5, 0.5 + 0.2 / 125_000, 0.58, 0.6, 0.7, 0.7])


def test_a_schedule_that_does_not_exist_names_the_nearest():
    with pytest.raises(BadInput, match="unknown schedule 'cosin': did you mean 'cosine'"):
        lr_at("cosin", 0)


def test_the_optimisers_follow_their_schedules():
    run = replace(
        MIRZA, optimizers={"D": Optimizer("SGD", lr=0.1, momentum=0.5, schedule="pylearn2"), "G": Optimizer(lr=1e-3, schedule="cosine")}
    )
    for step in tiny.steps(run):
        groups = {p: o.param_groups[0] for p, o in step.state.optimizers.items()}
        done = step.step - 1
        assert (groups["D"]["lr"], groups["D"]["momentum"]) == pytest.approx((0.1 / 1.00004**done, 0.5 + 0.2 * done / 125_000))
        assert groups["G"]["lr"] == pytest.approx(5e-4 * (1 + math.cos(math.pi * done / 12)))


# --- the moving average ---------------------------------------------------------------------------------------------------


class Walk(Model):
    """A weight, a counter and a critic."""

    def __init__(self, shape=(1,), schema=None):
        super().__init__(shape, {})
        self.w, self.D = nn.Parameter(torch.zeros(3)), nn.Linear(1, 1)
        self.register_buffer("count", torch.tensor(0))

    def turns(self, batch, step):
        yield {}


def test_the_average_is_its_closed_form():
    """m_k = sum_i w_i (1 - d_i) prod_{j>i} d_j, where d_j = 0.5^(batch / half-life), the half-life ramping up with what was seen."""
    model, batch, half_life = Walk(), 16, 100.0
    ema, path = EMA(model, half_life), torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    decays = [0.5 ** (batch / min(half_life, 0.05 * batch * k)) for k in range(1, 201)]
    assert decays[0] == 0.5**20 and decays[-1] == decays[-50] == 0.5 ** (16 / 100)
    for k, w in enumerate(path, 1):
        model.w.data.copy_(w)
        model.count += 1
        ema.update(batch, k * batch)
    weights = [(1 - d) * math.prod(decays[i + 1 :]) for i, d in enumerate(decays)]
    assert sum(weights) == pytest.approx(1 - math.prod(decays))
    expected = sum(weight * w for weight, w in zip(weights, path, strict=True))
    assert torch.allclose(ema.tensors["w"].double(), expected, atol=1e-6)
    assert ema.tensors["count"] == 200  # what is no float is copied


def test_half_of_it_is_left_after_a_half_life():
    assert decay(100, 1000.0, 10**9) ** 10 == pytest.approx(0.5)
    assert decay(1, 1000.0, 10**9) ** 1000 == pytest.approx(0.5)
    assert RAMP_UP == 0.05
    assert decay(16, 1000.0, 160) == 0.5 ** (16 / 8)  # early on: a twentieth of what was seen
    assert decay(16, 1000.0, 0) == 0.0


def test_the_same_half_life_at_every_batch_size():
    """Past the ramp, 10 steps of 10 forget as much as 1 of 100."""
    assert decay(10, 50.0, 10**6) ** 10 == pytest.approx(decay(100, 50.0, 10**6))


def test_critics_are_not_averaged_and_a_swap_undoes_itself():
    model = Walk()
    ema = EMA(model, 10.0)
    assert set(ema.tensors) == {"w", "count"}
    model.w.data.fill_(2.0)
    ema.swap()
    assert model.w.tolist() == [0.0] * 3 and ema.tensors["w"].tolist() == [2.0] * 3
    ema.swap()
    assert model.w.tolist() == [2.0] * 3 and ema.tensors["w"].tolist() == [0.0] * 3


def test_the_loop_counts_the_images_of_the_average():
    """Against an independent replay over the weights that the steps showed."""
    average = None
    for step in tiny.steps(CGAN):
        w = step.state.model.G.dense.weight.detach().double().clone()
        d = 0.5 ** (16 / min(100.0, 0.05 * 16 * step.step))
        average = w if average is None else d * average + (1 - d) * w  # the first step forgets all but 2^-20
    assert torch.allclose(step.state.ema.tensors["G.dense.weight"].double(), average, atol=1e-5)
