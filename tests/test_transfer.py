"""Style transfer's energy against arithmetic by hand, and a descent that goes on as if it had never stopped."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condgen.editing.descent import RATES, Descent
from condgen.editing.transfer import RECIPES, STYLE, Masks, Recipe, Transfer
from condgen.errors import BadInput
from condgen.networks.features import random_net
from condgen.objectives import perceptual

LAYERS = ("relu1_1", "relu2_1")
SMALL = {"content_layers": ("relu2_1",), "style_layers": LAYERS, "bounds": 0.0}


@pytest.fixture(scope="module")
def net():
    return random_net(width=8)


def picture(seed, h=24, w=32, spread=0.8):
    return (torch.rand(1, 3, h, w, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * spread


@pytest.fixture(scope="module")
def pictures():
    return picture(0), picture(1, 20, 28), picture(2)


# --- statistics -----------------------------------------------------------------------------------------------------------


def test_a_gram_matrix_is_the_mean_of_products():
    f = torch.randn(2, 3, 4, 5)
    by_hand = torch.zeros(2, 3, 3)
    for b, i, j in itertools.product(range(2), range(3), range(3)):
        by_hand[b, i, j] = sum(f[b, i, y, x] * f[b, j, y, x] for y in range(4) for x in range(5)) / 20
    assert torch.allclose(perceptual.gram(f), by_hand, atol=1e-6)


def test_a_gram_matrix_forgets_where_things_are():
    f = torch.randn(1, 6, 8, 8)
    shuffled = f.flatten(2)[:, :, torch.randperm(64)].view_as(f)
    assert torch.allclose(perceptual.gram(f), perceptual.gram(shuffled), atol=1e-5)


def test_a_masked_gram_matrix_sees_the_mask_alone():
    f, m = torch.randn(1, 4, 6, 6), torch.zeros(1, 1, 6, 6)
    m[..., :3, :] = 1
    assert torch.allclose(perceptual.masked_gram(f, m), perceptual.gram(f[..., :3, :]) / 2, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(2, 6), st.integers(2, 6))
def test_total_variation_of_a_ramp_is_its_squared_slopes(a, b, h, w):
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    ramp = (a * x + b * y).float().expand(1, 3, h, w)
    assert perceptual.total_variation(ramp).item() == pytest.approx(a * a + b * b, rel=1e-4, abs=1e-4)


def test_relative_is_0_where_equal_and_1_where_nothing_is_left():
    a = torch.randn(2, 3, 4)
    assert perceptual.relative(a, a).tolist() == [0, 0]
    assert torch.allclose(perceptual.relative(torch.zeros_like(a), a), torch.ones(2))
    assert torch.isfinite(perceptual.relative(a, torch.zeros_like(a))).all()


# --- the four ways to measure ---------------------------------------------------------------------------------------------


def by_hand(net, way, x, content, style):
    """Content and style loss of one picture in float64, by the sums of the papers."""
    seen, own, other = (net(p, LAYERS) for p in (x, content, style))
    f, p = seen["relu2_1"].double(), own["relu2_1"].double()
    n, m = f.shape[1], f.shape[2] * f.shape[3]
    gap = (f - p).square().sum()
    content_loss = {
        "relative": gap / p.square().sum(),
        "gatys2016": gap / 2,
        "johnson": gap / (n * m),
        "athalye": gap / (n * m),
    }[way]
    losses = []
    for name in LAYERS:
        a, b = (v[name][0].double().flatten(1) for v in (seen, other))
        n, m, k = len(a), a.shape[1], b.shape[1]
        g, s = a @ a.T, b @ b.T  # sums over places, as in the paper
        # The style picture has k places and not m: its sums are brought to those of m.
        s = s * m / k
        gap = (g - s).square().sum()
        losses.append(
            {
                "relative": gap / s.square().sum(),
                "gatys2016": gap / (4 * n**2 * m**2),
                "johnson": gap / (n * m) ** 2 / n**2,
                "athalye": gap / (n * m) ** 2 / n**2,
            }[way]
        )
    return float(content_loss), float(sum(losses) / (1 if way == "johnson" else len(losses)))


@pytest.mark.parametrize("way", ["relative", "gatys2016", "johnson", "athalye"])
def test_losses_are_those_of_the_papers(net, pictures, way):
    content, style, x = pictures
    recipe = Recipe(way, 2.0, 3.0, style_sum=RECIPES[way].style_sum, **SMALL)
    terms = Transfer(net, recipe, content, [style]).energy(x)
    wanted = by_hand(net, way, x, content, style)
    assert float(terms["content"]) == pytest.approx(2 * wanted[0], rel=1e-4)
    assert float(terms["style"]) == pytest.approx(3 * wanted[1], rel=1e-4)


def test_steps_between_pixels_are_counted_on_the_scale_of_each_code(net, pictures):
    content, style, x = pictures
    right, down = (x[..., 1:] - x[..., :-1]).square(), (x[..., 1:, :] - x[..., :-1, :]).square()
    wanted = {
        "relative": right.mean() + down.mean(),
        "gatys2016": right.mean() + down.mean(),
        "johnson": 127.5**2 * (right.sum() + down.sum()) / 2,
        "athalye": 127.5**2 * (right.mean() + down.mean()),
    }
    for way, value in wanted.items():
        terms = Transfer(net, Recipe(way, tv=0.5, **SMALL), content, [style]).energy(x)
        assert float(terms["tv"]) == pytest.approx(0.5 * float(value), rel=1e-4), way


def test_recipes_have_the_published_weights():
    gatys, johnson, athalye = (RECIPES[k] for k in ("gatys2016", "johnson", "athalye"))
    assert gatys.content / gatys.style == pytest.approx(1e-3) and not gatys.style_sum
    assert (johnson.content, johnson.style, johnson.tv, johnson.style_sum, johnson.optimizer) == (5, 100, 1e-3, True, "lbfgs")
    assert (athalye.content, athalye.style, athalye.tv, athalye.optimizer) == (5, 500, 100, "adam")
    assert athalye.lr * 127.5 == pytest.approx(10)
    assert all(r.style_layers == STYLE and r.content_layers == ("relu4_2",) for r in RECIPES.values())
    assert [r.steps for r in (gatys, johnson, athalye)] == [1000] * 3
    assert [r.bounds for r in (gatys, johnson, athalye)] == [0] * 3, "nobody published such a term"


def test_the_bounds_cost_what_lies_outside(net, pictures):
    content, style, x = pictures
    transfer = Transfer(net, Recipe(**{**SMALL, "bounds": 10.0}), content, [style])
    assert float(transfer.energy(x)["bounds"]) == 0
    outside = x.clone()
    outside[0, 0, 0, 0], outside[0, 1, 2, 3] = 1.5, -3.0
    assert float(transfer.energy(outside)["bounds"]) == pytest.approx(10 * (0.25 + 4) / x.numel(), rel=1e-5)


def test_a_picture_has_its_own_content_and_style(net, pictures):
    content, style, x = pictures
    transfer = Transfer(net, Recipe(**SMALL), content, [style])
    assert transfer.measures(content)["content"] == 0
    assert Transfer(net, Recipe(**SMALL), content, [x]).measures(x)["style"] == pytest.approx(0, abs=1e-10)
    assert transfer.measures(x)["style"] > 0.001


def test_measures_are_the_same_whatever_the_recipe(net, pictures):
    content, style, x = pictures
    found = [Transfer(net, Recipe(way, 7.0, 9.0, **SMALL), content, [style]).measures(x) for way in ("relative", "johnson", "gatys2016")]
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-4)


def test_the_gradient_is_that_of_finite_differences(pictures):
    content, style, x = (p[..., :16, :16].double() for p in pictures)
    net = random_net(width=8).double()
    recipe = Recipe(tv=0.3, **{**SMALL, "bounds": 5.0})
    transfer = Transfer(net, recipe, content, [style])
    x = (1.5 * x).requires_grad_()
    total = sum(transfer.energy(x).values())
    (gradient,) = torch.autograd.grad(total, x)
    way = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        far, near = (float(sum(transfer.energy(x + s * 1e-6 * way).values())) for s in (1, -1))
    assert (far - near) / 2e-6 == pytest.approx(float((gradient * way).sum()), rel=1e-4)


# --- several styles, masks ------------------------------------------------------------------------------------------------


def test_shares_mix_the_statistics_of_styles(net, pictures):
    content, style, x = pictures
    one, two, both = (Transfer(net, Recipe(**SMALL), content, *a) for a in (([style],), ([x],), ([style, x], [3, 1])))
    for name in LAYERS:
        mixed = 0.75 * one.statistics[name][0] + 0.25 * two.statistics[name][0]
        assert torch.allclose(both.statistics[name][0], mixed, atol=1e-5)
    assert torch.equal(Transfer(net, Recipe(**SMALL), content, [style, x], [1, 0]).statistics[LAYERS[0]][0], one.statistics[LAYERS[0]][0])


@pytest.mark.parametrize("shares", [[1.0], [1, 2, 3], [-1, 2], [0, 0], [math.nan, 1], [math.inf, 1]])
def test_shares_that_are_none_are_refused(net, pictures, shares):
    content, style, x = pictures
    with pytest.raises(BadInput, match="shares"):
        Transfer(net, Recipe(**SMALL), content, [style, x], shares)


def test_one_mask_over_everything_changes_nothing(net, pictures):
    content, style, x = pictures
    whole = Masks(torch.ones(1, 1, *content.shape[-2:]), [torch.ones(1, 1, *style.shape[-2:])], ("all",))
    plain, masked = (Transfer(net, Recipe(**SMALL), content, [style], masks=m) for m in (None, whole))
    assert float(masked.energy(x)["style"].detach()) == pytest.approx(float(plain.energy(x)["style"]), rel=1e-4)


def test_masks_that_do_not_fit_are_refused(net, pictures):
    content, style, _ = pictures
    for masks in (
        Masks(torch.ones(1, 1, 5, 5), [torch.ones(1, 1, 20, 28)], ("a",)),
        Masks(torch.ones(1, 2, 24, 32), [torch.ones(1, 1, 20, 28)], ("a", "b")),
        Masks(torch.ones(1, 1, 24, 32), [], ("a",)),
    ):
        with pytest.raises(BadInput, match="masks"):
            Transfer(net, Recipe(**SMALL), content, [style], masks=masks)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"measure": "gatys"}, "gatys2016"),
        ({"style": -1.0}, "style is -1"),
        ({"tv": math.nan}, "tv"),
        ({"content_layers": ()}, "layer"),
    ],
)
def test_recipes_that_cannot_be_are_refused(wrong, named):
    with pytest.raises(BadInput, match=named):
        Recipe(**wrong)


def test_layers_that_the_net_lacks_are_named(net, pictures):
    content, style, _ = pictures
    with pytest.raises(BadInput, match="relu4_2"):
        Transfer(net, Recipe(content_layers=("rellu4_2",)), content, [style])


def test_a_start_is_the_content_or_noise_of_its_seed(net, pictures):
    content, style, _ = pictures
    transfer = Transfer(net, Recipe(**SMALL), content, [style])
    assert torch.equal(transfer.start("content"), content)
    assert torch.equal(transfer.start("noise", 3), transfer.start("noise", 3))
    assert not torch.equal(transfer.start("noise", 3), transfer.start("noise", 4))
    with pytest.raises(BadInput, match="noise"):
        transfer.start("nois")


# --- descent --------------------------------------------------------------------------------------------------------------


def bowl(x):
    """A quadratic whose curvature differs a thousandfold, with its least value 0 at 0.5."""
    steep = torch.logspace(0, 3, x.numel(), dtype=x.dtype).view_as(x)
    return {"bowl": (steep * (x - 0.5).square()).sum() / 2}


@pytest.mark.parametrize(("optimizer", "lr", "steps"), [("lbfgs", None, 120), ("adam", 0.05, 400)])
def test_a_descent_comes_to_the_bottom(optimizer, lr, steps):
    moments = list(Descent(torch.zeros(1, 3, 4, 4), bowl, steps, optimizer, lr))
    assert [m.step for m in moments] == list(range(1, steps + 1))
    assert torch.allclose(moments[-1].x, torch.full((1, 3, 4, 4), 0.5), atol=1e-2)
    assert moments[-1].total < 1e-3 * moments[0].total


def test_a_step_is_one_evaluation():
    calls = []
    descent = Descent(torch.zeros(1, 3, 4, 4), lambda x: calls.append(1) or bowl(x), 9)
    list(descent)
    assert len(calls) == 9


def test_a_descent_leaves_where_it_started_alone():
    x = torch.zeros(1, 3, 4, 4)
    moments = list(Descent(x, bowl, 3))
    assert (x == 0).all() and not moments[0].x.requires_grad
    assert len({m.x.data_ptr() for m in moments}) == 3, "a moment keeps its own picture"


def test_no_step_is_clamped():
    assert max(float(m.x.max()) for m in Descent(torch.zeros(1, 3, 4, 4), lambda x: {"far": (x - 5).square().sum()}, 30)) > 4


@pytest.mark.parametrize(("optimizer", "lr"), [("lbfgs", None), ("lbfgs", 0.7), ("adam", None), ("adam", 1.0)])
@pytest.mark.parametrize("at", [0, 1, 2, 9])
def test_a_descent_goes_on_as_if_it_had_never_stopped(optimizer, lr, at):
    def valley(x):
        a, b = x[:, :1], x[:, 1:]
        return {"valley": ((1 - a).square() + 20 * (b - a.square()).square()).sum()}

    start = torch.linspace(-1, 1, 48).view(1, 3, 4, 4)
    whole = list(Descent(start, valley, 20, optimizer, lr, history=5))
    first = Descent(start, valley, 20, optimizer, lr, history=5)
    for _ in range(at):
        first.advance()
    kept = {k: v.clone() for k, v in first.state().items()}
    list(first)  # what goes on after the state was taken does not change it
    second = Descent(torch.zeros_like(start), valley, 20, optimizer, lr, history=5)
    second.restore(kept)
    rest = list(second)
    assert [m.step for m in rest] == list(range(at + 1, 21))
    for a, b in zip(whole[at:], rest, strict=True):
        assert torch.equal(a.x, b.x) and a.total == b.total


def test_a_state_is_plain_tensors_that_share_no_memory(tmp_path):
    from safetensors.torch import load_file, save_file

    descent = Descent(torch.zeros(1, 3, 4, 4), bowl, 20, history=4)
    for _ in range(8):
        descent.advance()
    save_file(descent.state(), tmp_path / "state.safetensors")
    again = Descent(torch.zeros(1, 3, 4, 4), bowl, 20, history=4)
    again.restore(load_file(tmp_path / "state.safetensors"))
    assert all(torch.equal(a.x, b.x) for a, b in zip(descent, again, strict=True))


def cliff(at):
    """An energy that is no number from its `at`-th evaluation by L-BFGS on, as where a step went too far."""
    calls = itertools.count(1)
    return lambda x: {"bowl": bowl(x)["bowl"] * (math.nan if next(calls) == at else 1)}


def test_a_step_too_far_leaves_it_to_adam_from_the_best_picture():
    descent = Descent(torch.zeros(1, 3, 4, 4), cliff(6), 40)
    moments = list(descent)
    assert descent.kind == "adam" and descent.optimizer.param_groups[0]["lr"] == RATES["adam"]
    assert math.isnan(moments[5].total) and all(math.isfinite(m.total) for m in moments[6:])
    assert torch.isfinite(moments[-1].x).all()
    assert moments[6].total == min(m.total for m in moments[:5])


@pytest.mark.parametrize(("optimizer", "lr"), [("lbfgs", None), ("adam", 10 / 127.5)])
def test_a_descent_that_fell_back_goes_on_with_adam(optimizer, lr):
    whole, first = (Descent(torch.zeros(1, 3, 4, 4), cliff(6), 20, optimizer, lr) for _ in range(2))
    for _ in range(10):
        whole.advance(), first.advance()
    second = Descent(torch.zeros(1, 3, 4, 4), bowl, 20, optimizer, lr)
    second.restore(first.state())
    assert second.kind == "adam" and second.optimizer.param_groups[0]["lr"] == RATES["adam"]
    assert all(torch.equal(a.x, b.x) for a, b in zip(whole, second, strict=True))


def test_an_energy_that_is_no_number_at_the_start_is_refused():
    with pytest.raises(BadInput, match="not finite"):
        next(iter(Descent(torch.zeros(1, 3, 4, 4), cliff(1), 3)))


def test_states_of_other_pictures_and_damaged_ones_are_refused():
    state = Descent(torch.zeros(1, 3, 4, 4), bowl, 3).state()
    with pytest.raises(BadInput, match="picture"):
        Descent(torch.zeros(1, 3, 5, 4), bowl, 3).restore(state)
    with pytest.raises(BadInput, match="damaged"):
        Descent(torch.zeros(1, 3, 4, 4), bowl, 3).restore({k: v for k, v in state.items() if k != "least"})


@pytest.mark.parametrize(
    ("wrong", "named"), [({"optimizer": "lbgfs"}, "lbfgs"), ({"steps": -1}, "steps"), ({"lr": 0.0}, "lr"), ({"history": 0}, "history")]
)
def test_descents_that_cannot_be_are_refused(wrong, named):
    with pytest.raises(BadInput, match=named):
        Descent(**{"x": torch.zeros(1, 3, 4, 4), "energy": bowl, "steps": 3, **wrong})
