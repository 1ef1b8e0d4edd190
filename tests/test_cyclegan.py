"""CycleGAN: the published nets, each term by hand, the pool, batches with as many of each domain, exact resume, refusals."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import tiny
from condgen import api, pretrained
from condgen.conditions import Label, Vector
from condgen.data.store import Batch, Content, Dataset
from condgen.drawing import describe_text, draw
from condgen.errors import BadInput
from condgen.model import Model, Noise, Optimizer, Run, Translates
from condgen.models import cyclegan
from condgen.models.cyclegan import CycleGAN, Pool
from condgen.networks import translation
from condgen.networks.translation import PatchDiscriminator, TranslationNet
from condgen.training import order, schedules, turns
from test_processes import codes, logs, together
from tiny import assert_same, measured, saved

DOMAINS = {"domain": Label(("dark", "light"))}
SMALL = {"width": 4, "blocks": 1, "layers": 1, "pool": 5}
RUN = Run(
    "cyclegan.CycleGAN",
    "toy",
    options=SMALL,
    optimizers={"*": Optimizer(lr=1e-3, betas=(0.5, 0.999), schedule="half")},
    batch=4,
    steps=12,
    precision="32",
    save_every=0,
    sample_every=0,
    log_every=1,
)


def toy(light: int = 10, dark: int = 14) -> Dataset:
    """Digits, and other digits turned dark for light: unequal numbers of both, in no order."""
    pixels = api.dataset(tiny.CGAN).pictures()[: light + dark].copy()
    domain = torch.tensor(np.random.default_rng(0).permutation([0] * dark + [1] * light))
    pixels[domain.numpy() == 1] = 255 - pixels[domain.numpy() == 1]
    return Dataset("toy", "train", Content(pixels, {"domain": domain}, DOMAINS))


def model_of(side: int = 8, channels: int = 1, **options) -> CycleGAN:
    torch.manual_seed(0)
    return CycleGAN((channels, side, side), DOMAINS, **{**SMALL, **options})


# Where rounding differs: so small a game is chaotic, and its weights are compared by how far they have moved, which is not far.
PLAIN = replace(RUN, optimizers={"*": Optimizer("SGD", lr=1e-6)}, steps=6, options={**SMALL, "width": 8})


def trained(run: Run, out=None, stop: int | None = None, data: Dataset | None = None):
    for step in tiny.steps(run, out, data or toy()):
        if step.step == stop:
            break
    return step.state


# --- the nets -----------------------------------------------------------------------------------------------------------------


def weights(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_the_published_generator_has_11_4_million_weights():
    ends = 3 * 64 * 49 + 64 * 3 * 49 + 3
    halvings = 64 * 128 * 9 + 128 * 256 * 9
    residual = 9 * 2 * 256 * 256 * 9
    assert weights(TranslationNet(3, 64, 9, "transposed")) == ends + 2 * halvings + residual == 11_372_931
    assert weights(TranslationNet(3, 64, 9, "resize")) == 11_372_931


def test_the_published_discriminator_has_2_8_million_weights():
    by_hand = (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) * 16 + 64 + 1
    assert weights(PatchDiscriminator(3, 64, 3)) == by_hand == 2_763_841


@pytest.mark.parametrize("layers, patch", [(1, 16), (2, 34), (3, 70)])
def test_a_discriminator_sees_patches_of_its_size(layers, patch, monkeypatch):
    monkeypatch.setattr(translation.InstanceNorm, "forward", lambda self, x: x)  # it sees the whole picture
    x = torch.randn(1, 1, 128, 128, requires_grad=True)
    found = PatchDiscriminator(1, 2, layers)(x)
    side = 128 // 2**layers - 2
    assert found.shape == (1, 1, side, side)
    found[0, 0, side // 2, side // 2].backward()
    seen = x.grad[0, 0].nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [patch, patch]


@pytest.mark.parametrize("up", translation.UP)
@pytest.mark.parametrize("sides", [(8, 8), (12, 20), (64, 36)])
def test_a_generator_keeps_the_sides(up, sides):
    x = TranslationNet(3, 4, 2, up)(torch.randn(2, 3, *sides))
    assert x.shape == (2, 3, *sides) and x.abs().max() <= 1


def test_weights_are_drawn_small():
    net = TranslationNet(3, 32, 2, "transposed")
    drawn = torch.cat([p.detach().flatten() for p in net.parameters() if p.dim() == 4])
    assert abs(float(drawn.mean())) < 1e-4 and float(drawn.std()) == pytest.approx(0.02, rel=0.01)
    assert all(not p.any() for p in net.parameters() if p.dim() == 1) and sum(p.dim() == 1 for p in net.parameters()) == 1


# --- the losses ---------------------------------------------------------------------------------------------------------------


class Shift(nn.Module):
    """x + s: a generator whose terms are known."""

    def __init__(self, s: float):
        super().__init__()
        self.s = nn.Parameter(torch.tensor(s))

    def forward(self, x):
        return x + self.s


class Verdict(nn.Module):
    """Two patches: the mean of the picture, and the same plus one."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x):
        mean = self.one * x.mean((1, 2, 3))
        return torch.stack([mean, mean + 1], 1)[:, None, None]


def by_hand(**options) -> tuple[CycleGAN, Batch]:
    """G adds .1, F takes .3 away; x are even pictures of .2 and .4, y of -.5 and 0, as x y x y."""
    model = model_of(**options)
    model.G, model.F = Shift(0.1), Shift(-0.3)
    if model.gan:
        model.D_x, model.D_y = Verdict(), Verdict()
    values = torch.tensor([0.2, -0.5, 0.4, 0.0])
    return model, Batch(values[:, None, None, None].expand(4, 1, 8, 8).clone(), {"domain": torch.tensor([0, 1, 0, 1])})


def verdicts(values: list[float], target: float) -> float:
    return float(np.mean([((v - target) ** 2 + (v + 1 - target) ** 2) / 2 for v in values]))


def test_each_term_is_as_the_paper_says():
    model, batch = by_hand(cycle=10.0, identity=0.5)
    g, d = ({k: v.detach() for terms in turn.values() for k, v in terms.items()} for turn in model.turns(batch, 0))
    # F(G(x)) - x = G(F(y)) - y = -.2; F(x) - x = -.3; G(y) - y = .1
    assert float(g["cycle"].mean()) == pytest.approx(10 * (0.2 + 0.2))
    assert float(g["identity"].mean()) == pytest.approx(10 * 0.5 * (0.3 + 0.1))
    assert g["identity"].tolist() == pytest.approx([2 * 5 * v for v in (0.3, 0.1, 0.3, 0.1)]), "each at its sample's place"
    fake_y, fake_x = [0.3, 0.5], [-0.8, -0.3]
    assert float(g["game"].mean()) == pytest.approx(verdicts(fake_y, 1) + verdicts(fake_x, 1))
    assert float(d["real"].mean()) == pytest.approx((verdicts([0.2, 0.4], 1) + verdicts([-0.5, 0.0], 1)) / 2)
    assert float(d["fake"].mean()) == pytest.approx((verdicts(fake_y, 0) + verdicts(fake_x, 0)) / 2)


def test_unequal_parts_weigh_each_domain_as_much():
    model, batch = by_hand()
    some = Batch(batch.x[:3], {"domain": batch.c["domain"][:3]})
    (g,) = next(model.turns(some, 0)).values()
    assert g["identity"].mean().item() == pytest.approx(5 * (0.3 + 0.1))


@pytest.mark.parametrize(
    "options, terms, cycle, identity",
    [
        ({}, {"game", "cycle", "identity"}, [4, 4], [3, 1]),
        ({"identity": 0.0}, {"game", "cycle"}, [4, 4], None),
        ({"cycle": 0.0}, {"game"}, None, None),
        ({"backward": False}, {"game", "cycle", "identity"}, [4, 0], [3, 0]),
        ({"forward": False}, {"game", "cycle", "identity"}, [0, 4], [0, 1]),
        ({"forward": False, "backward": False}, {"game"}, None, None),
        ({"gan": 0.0}, {"cycle", "identity"}, [4, 4], [3, 1]),
        ({"gan": 2.0, "cycle": 5.0, "identity": 1.0}, {"game", "cycle", "identity"}, [2, 2], [3, 1]),
    ],
)
def test_what_is_left_out_is_left_out(options, terms, cycle, identity):
    """Values at (x, y): lambda * .2 and lambda idt * (.3, .1), twice, since each domain is half of the batch."""
    model, batch = by_hand(**options)
    found = list(model.turns(batch, 0))
    assert set(found[0]["G"]) == terms and ("D" in model.players()) == (len(found) == 2) == bool(model.gan)
    for name, expected in (("cycle", cycle), ("identity", identity)):
        if expected:
            assert found[0]["G"][name][:2].tolist() == pytest.approx(expected)


def test_the_adversarial_weight_counts():
    one, three = (next(by_hand(gan=gan)[0].turns(by_hand()[1], 0))["G"]["game"] for gan in (1.0, 3.0))
    assert torch.allclose(3 * one, three)


def test_pictures_are_enlarged_and_cut_back_anywhere():
    ramp = torch.linspace(-1, 1, 16).expand(3, 1, 16, 16).clone()
    assert torch.equal(cyclegan.cut_back(ramp, 1.0, torch.rand(3, 2)), ramp)
    cut = cyclegan.cut_back(ramp, 1.5, torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.999, 0.999]]))
    assert cut.shape == ramp.shape
    left, right = cut[:, 0, 5, 0], cut[:, 0, 5, 15]
    step = (ramp[0, 0, 0, 1] - ramp[0, 0, 0, 0]) / 1.5
    assert torch.allclose(right[1] - left[1], 15 * step, atol=1e-5), "a third of the detail is lost, none is squeezed"
    assert left[0] == pytest.approx(-1, abs=1e-5) and right[2] == pytest.approx(1, abs=1e-5)
    assert left[0] < left[1] < left[2]


def test_training_pictures_are_mirrored_by_halves():
    model = model_of(mirror=True)
    x = torch.arange(8.0).expand(400, 1, 8, 8)
    model.noise.seed(0)
    turned = model.moved(x)[:, 0, 0, 0] == 7
    assert 150 < int(turned.sum()) < 250
    assert torch.equal(model_of().moved(x), x)


# --- the pool -----------------------------------------------------------------------------------------------------------------


def fakes(n: int, start: int = 0) -> torch.Tensor:
    return torch.arange(start, start + n, dtype=torch.float32)[:, None, None, None].expand(n, 1, 2, 2).clone()


def alone(rows):
    return rows


def test_the_first_fakes_pass_and_then_half_of_them_are_old():
    """Beside the released code's pool as a plain list, on the same draws, a picture at a time."""
    pool, noise, draws = Pool(50, (1, 2, 2)), Noise(), Noise()
    noise.seed(0), draws.seed(0)
    kept, old = [], 0
    for step in range(400):
        fake = fakes(1, step)
        shown = pool.shown(fake, noise)
        pool.remember(alone)
        swap, where = draws.uniform(1, 2)[0].tolist()
        if len(kept) < 50:
            kept.append(step)
            expected = step
        elif swap < 0.5:
            expected, kept[int(where * 50)] = kept[int(where * 50)], step
        else:
            expected = step
        assert shown.unique().tolist() == [expected]
        old += expected != step
    assert pool.kept[:, 0, 0, 0].tolist() == kept and 140 < old < 210


def test_a_step_that_is_taken_again_meets_the_pool_as_it_was():
    pool, noise = Pool(2, (1, 2, 2)), Noise()
    pool.shown(fakes(2), noise)
    pool.remember(alone)
    before = {k: v.clone() for k, v in pool.state_dict().items()}
    noise.seed(1)
    one = pool.shown(fakes(8, 10), noise)
    assert all(torch.equal(v, before[k]) for k, v in pool.state_dict().items())
    pool.new.clear()
    noise.seed(1)
    assert torch.equal(pool.shown(fakes(8, 10), noise), one)
    assert set(one.unique().tolist()) & {0.0, 1.0}, "old ones are among them"
    pool.remember(alone)
    assert not torch.equal(pool.kept, before["kept"]) and not pool.new


def test_no_pool_shows_the_latest():
    pool, noise = Pool(0, (1, 2, 2)), Noise()
    for step in range(5):
        assert torch.equal(pool.shown(fakes(3, step), noise), fakes(3, step))
        pool.remember(alone)


def test_two_processes_keep_one_pool():
    """Each shows its own part of the batch; together they show, and keep, what one process does."""
    whole, pools = Pool(4, (1, 2, 2)), [Pool(4, (1, 2, 2)) for _ in range(2)]
    noises = [Noise() for _ in range(3)]
    for rank in range(2):
        noises[rank].rank, noises[rank].world = rank, 2
    for step in range(20):
        for noise in noises:
            noise.seed(step)
        joint = fakes(4, 4 * step)
        shown = [pool.shown(part, noise) for pool, part, noise in zip(pools, joint.chunk(2), noises[:2], strict=True)]
        assert torch.equal(torch.cat(shown), whole.shown(joint, noises[2]))
        gathered = {tuple(a.shape): torch.cat([a, b]) for a, b in zip(pools[0].new[0], pools[1].new[0], strict=True)}
        for pool in pools:
            pool.remember(lambda rows, found=gathered: found[tuple(rows.shape)])
        whole.remember(alone)
        assert torch.equal(pools[0].kept, whole.kept) and torch.equal(pools[1].kept, whole.kept)


def test_what_the_discriminator_is_shown_has_no_way_back():
    model, data = model_of(), toy()
    for turn in model.turns(data.batch(range(8)), 0):
        for player, terms in turn.items():
            grads = torch.autograd.grad(sum(v.mean() for v in terms.values()), list(model.G.parameters()), allow_unused=True)
            assert all((g is None) == (player == "D") for g in grads)


# --- as many of each domain ---------------------------------------------------------------------------------------------------

VALUES = np.random.default_rng(1).permutation([0] * 7 + [1] * 12 + [2] * 5)


def test_batches_take_turns_through_the_values():
    rows = [order.even_rows(VALUES, 3, 6, 0, step) for step in range(20)]
    assert all(VALUES[r].tolist() == [0, 1, 2, 0, 1, 2] for r in rows)
    for value, n in enumerate((7, 12, 5)):
        seen = np.concatenate([r[VALUES[r] == value] for r in rows])
        for epoch in range(len(seen) // n):
            assert sorted(seen[epoch * n : (epoch + 1) * n]) == np.flatnonzero(VALUES == value).tolist(), "each row once an epoch"
        assert not np.array_equal(seen[:n], seen[n : 2 * n]), "the smaller sets are shuffled again"


def test_pairs_are_drawn_anew():
    """In sets of one size, who meets whom changes from epoch to epoch, and is not who stands at the same place."""
    values = np.arange(40) % 2
    epochs = [{tuple(order.even_rows(values, 2, 2, 0, e * 20 + i)) for i in range(20)} for e in range(3)]
    assert len(epochs[0] & epochs[1]) < 6 and len(epochs[1] & epochs[2]) < 6
    assert sum(b - a == 1 for a, b in epochs[0]) < 6
    assert not np.array_equal(order.even_rows(values, 2, 8, 0, 0), order.even_rows(values, 2, 8, 1, 0))


def test_a_model_that_does_not_ask_gets_rows_as_ever():
    model = api.build(tiny.AE, data := api.dataset(tiny.AE))
    assert np.array_equal(order.rows_for(model, data, 16, 3, 5), order.rows(len(data), 16, 3, 5)) and order.least(model) == 1
    order.check_evenly(model, data, 7, 1)


@pytest.mark.parametrize("parts, sizes", [(1, [8]), (2, [4, 4]), (3, [4, 4]), (4, [2, 2, 2, 2])])
def test_parts_hold_every_domain(parts, sizes):
    batch = Batch(torch.zeros(8, 1), {"domain": torch.arange(8) % 2})
    pieces = turns.cut(batch, parts, least=2)
    assert [len(p.x) for p in pieces] == sizes and all(p.c["domain"].tolist() == [0, 1] * (len(p.x) // 2) for p in pieces)


def test_every_step_has_as_many_of_each(monkeypatch):
    seen = []
    plain = CycleGAN.turns
    monkeypatch.setattr(CycleGAN, "turns", lambda self, batch, step: seen.append(batch.c["domain"].tolist()) or plain(self, batch, step))
    trained(RUN)
    assert seen == [[0, 1, 0, 1]] * RUN.steps


def assert_moved_alike(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """From one start, each weight by the same to a hundredth."""
    start = dict(api.build(PLAIN, toy()).named_parameters())
    apart = {k: float((found[k] - expected[k]).norm() / (expected[k] - p.detach()).norm()) for k, p in start.items()}
    assert {k: v for k, v in apart.items() if not v < 0.01} == {}


def limited(monkeypatch, most: int) -> None:
    """More samples than this do not fit into D's turn."""
    plain = CycleGAN.turns

    def short(self, batch, step):
        for i, turn in enumerate(plain(self, batch, step)):
            if i == 1 and len(batch.x) > most:
                raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
            yield turn

    monkeypatch.setattr(CycleGAN, "turns", short)


def test_where_memory_runs_out_parts_still_hold_both(monkeypatch):
    """And train what the whole does; without the pool, whose draws are each part's own."""
    run = replace(PLAIN, options={**PLAIN.options, "pool": 0})
    whole = trained(run)
    limited(monkeypatch, most=2)
    state = trained(run)
    assert state.micro == 2
    assert_moved_alike(state.model.state_dict(), whole.model.state_dict())


def test_less_than_one_of_each_is_not_tried(monkeypatch):
    limited(monkeypatch, most=1)
    with pytest.raises(BadInput, match="out of memory at step 0 with 2 samples at a time"):
        trained(RUN)


@pytest.mark.parametrize(
    "batch, says", [(3, r"batch 3, 1 process\(es\): .* as many of each domain \(dark, light\), a multiple of 2"), (1, "a multiple of 2")]
)
def test_a_batch_that_cannot_be_even_is_refused(batch, says):
    with pytest.raises(BadInput, match=says):
        trained(replace(RUN, batch=batch))


def test_a_domain_without_pictures_is_refused():
    with pytest.raises(BadInput, match=r"'toy' \(train\) holds 14 of dark, 0 of light: each batch needs as many of every domain"):
        trained(RUN, data=toy(light=0))


# --- training -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16"}, {"options": {**SMALL, "mirror": True, "enlarge": 1.5}}])
def test_stopping_at_every_step_changes_nothing(changes, tmp_path):
    """Bit for bit, the pools included, which swap from the third step on."""
    run = replace(RUN, steps=8, **changes)
    whole = trained(run, tmp_path / "whole")
    assert int(whole.model.pool_x.count) == 5
    for stop in range(1, run.steps + 1):
        trained(run, tmp_path / "chain", stop)
    assert_same(saved(tmp_path / "chain"), saved(tmp_path / "whole"))
    assert any("pool_y.kept" in name for name in tiny.tensors_of(saved(tmp_path / "chain")))
    assert measured(tmp_path / "chain") == measured(tmp_path / "whole")


def train_toy(run: Run, out) -> int:
    """Work for a child."""
    trained(run, out)
    return 0


def test_two_processes_train_what_one_trains(tmp_path):
    """The pool too: it is one for all."""
    assert codes(together(train_toy, PLAIN, tmp_path / "two", log=tmp_path / "log")) == [0, 0], logs(tmp_path / "log")
    trained(PLAIN, tmp_path / "one")
    assert int(saved(tmp_path / "two").tensors["model"]["pool_x.count"]) == 5
    two, one = (saved(tmp_path / name).tensors["model"] for name in ("two", "one"))
    assert_moved_alike(two, one)
    assert all(torch.allclose(two[k], one[k], atol=1e-4) and one[k].any() for k in ("pool_x.kept", "pool_y.kept"))


def test_what_leaves_a_run_translates(tmp_path):
    model = trained(RUN, tmp_path).model.eval()
    again = pretrained.load(tmp_path)
    x, c = toy().batch(range(6)).x, {"domain": torch.tensor([0, 1, 1, 0, 1, 0])}
    assert torch.equal(again.translate(x, c), model.translate(x, c))
    again.save_pretrained(tmp_path / "out")
    assert {k.partition(".")[0] for k in pretrained.load(tmp_path / "out").state_dict()} == {"G", "F"}
    assert "condgen.api.translate(model, x, 'light')" in (tmp_path / "out" / "README.md").read_text()


def test_dark_becomes_light_and_light_becomes_dark():
    """A light quarter on black, or on grey: the ground must change by .6 and the quarter stay where it is, of which no pair tells."""
    quarter, domain = torch.randint(4, (64,), generator=torch.Generator().manual_seed(0)), torch.arange(64) % 2
    places = torch.eye(4)[quarter].view(64, 1, 2, 2)
    x = 0.5 * nn.functional.interpolate(places, scale_factor=4.0) - 0.8 + 0.6 * domain[:, None, None, None]
    data = Dataset("toy", "train", Content(((x + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy(), {"domain": domain}, DOMAINS))
    run = replace(RUN, options={**SMALL, "width": 8}, optimizers={"*": Optimizer(lr=2e-3, betas=(0.5, 0.999))}, steps=60)
    moved = trained(run, data=data).model.eval().translate(x, {"domain": 1 - domain})
    truth = x + 0.6 * (1 - 2 * domain[:, None, None, None])
    assert (moved - truth).abs().mean() < 0.25 * 0.6
    for value in (0, 1):
        assert np.corrcoef(moved[domain == value].flatten(), truth[domain == value].flatten())[0, 1] > 0.9


def test_the_grid_of_a_training_shows_both_ways(tmp_path):
    from PIL import Image

    state = trained(replace(RUN, sample_every=6), tmp_path)
    (first, second) = sorted((tmp_path / "samples").glob("*.png"))
    picture = np.asarray(Image.open(second))[::6, ::6]
    assert picture.shape == (6 * 9 - 1, 8 * 9 - 1) and first.name == "step-000006.png"
    x = toy().batch(torch.nonzero(toy().values()["domain"] == 0)[:8, 0]).x
    state.model.eval()
    drawn = state.model.translate(x, {"domain": torch.ones(8, dtype=torch.int64)})
    row = np.concatenate([np.asarray((p + 1) * 127.5) for p in drawn[:, 0]], 1)
    shown = np.delete(picture[9:17].astype(float), [8 + 9 * i for i in range(7)], 1)
    assert np.abs(shown - row).max() <= 1


def test_its_rate_is_constant_and_then_falls_to_nothing():
    o = Optimizer(lr=2e-4, schedule="half")
    rates = [schedules.at(step, 200, o)[0] for step in (0, 100, 150, 199, 200)]
    assert rates == pytest.approx([2e-4, 2e-4, 1e-4, 2e-6, 0.0])
    assert "half" in schedules.STRETCHED


# --- translating --------------------------------------------------------------------------------------------------------------


def test_each_picture_goes_by_the_net_of_its_domain():
    model, batch = by_hand()
    assert isinstance(model, Translates)
    moved = model.translate(batch.x, {"domain": torch.tensor([1, 1, 0, 0])})
    assert (moved - batch.x)[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.1, -0.3, -0.3])
    assert model.translate(torch.zeros(1, 1, 16, 40), {"domain": torch.tensor([1])}).shape == (1, 1, 16, 40), "of any size"
    assert model.multiple == 4


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 10, 8), (2, 1, 4, 8), (1, 8, 8)])
def test_a_wrong_shape_is_refused(shape):
    with pytest.raises(BadInput, match=r"expected \(b, 1, h, w\) with sides that are multiples of 4, from 8 px"):
        model_of().translate(torch.zeros(shape), {"domain": torch.tensor([0, 1])})


def test_domains_are_one_for_each_picture():
    with pytest.raises(BadInput, match=r"2 pictures and domains of shape \(1,\)"):
        model_of().translate(torch.zeros(2, 1, 8, 8), {"domain": torch.tensor([0])})


def test_it_does_not_sample_and_says_what_it_does():
    with pytest.raises(BadInput, match=r"CycleGAN cannot sample; it can: translate: give it your pictures, by `condgen translate"):
        draw(model_of(), {}, 4, 0)
    told = describe_text(api._description(model_of()))
    assert "translates pictures of shape (1, 8, 8)" in told and "--to (domain)" in told and "--set" not in told


# --- what cannot be -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema, says",
    [
        ({}, "the conditions are none"),
        ({"digit": Label(("a", "b"))}, "the conditions are digit"),
        ({"domain": Label(("a", "b", "c"))}, "'domain' is Label"),
        ({"domain": Vector(2)}, "'domain' is Vector"),
    ],
)
def test_data_without_two_domains_are_refused(schema, says):
    with pytest.raises(BadInput, match=f"needs a label 'domain' of two names.*{says}"):
        CycleGAN((3, 64, 64), schema)


@pytest.mark.parametrize(
    "shape, says",
    [((2,), "needs pictures"), ((3, 66, 64), "multiples of 4"), ((3, 20, 64), "sides of at least 24 px, not 20x64: take larger pictures")],
)
def test_pictures_that_the_nets_cannot_take_are_refused(shape, says):
    with pytest.raises(BadInput, match=says):
        CycleGAN(shape, DOMAINS)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"up": "rezise"}, "unknown up 'rezise': did you mean 'resize'"),
        ({"blocks": -1}, "blocks is -1"),
        ({"layers": 0}, "layers is 0"),
        ({"pool": -1}, "pool is -1"),
        ({"cycle": -1.0}, "cycle is -1.0"),
        ({"identity": math.nan}, "identity is nan"),
        ({"gan": -1.0}, "gan is -1.0"),
        ({"enlarge": 0.5}, "enlarge is 0.5"),
        ({"width": 0}, "width is 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options, says):
    with pytest.raises(BadInput, match=says):
        model_of(**options)


def test_other_conditions_are_left_alone():
    model = CycleGAN((1, 8, 8), {"look": Vector(2), **DOMAINS}, **SMALL)
    assert model.schema == DOMAINS and json.dumps(model.options)
    assert isinstance(model, Model) and not hasattr(model, "sample")


def test_a_run_without_a_cycle_or_a_game_is_refused():
    with pytest.raises(BadInput, match="nothing to learn"):
        model_of(gan=0.0, cycle=0.0)
