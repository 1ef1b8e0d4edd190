"""Pictures painted in the style of others: colours, sizes, tiles, stopping and going on, and the verb as a person meets it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_image

from condgen.editing import colours
from condgen.editing import stylize as stylizing
from condgen.editing.coarse import of_area, resized, sizes
from condgen.editing.stylize import MOST_PIXELS, Plan, descent_bytes, remembered, stylize
from condgen.editing.tiles import Tiled, bytes_kept, tiles
from condgen.editing.transfer import RECIPES, Masks
from condgen.errors import BadInput
from condgen.networks.features import random_net

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_2", "relu5_1")


def photograph(name, h, w):
    """A real picture that every install has, (1, 3, h, w) in [-1, 1]."""
    image = Image.fromarray(load_sample_image(f"{name}.jpg")).resize((w, h), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.fixture(scope="module")
def net():
    return random_net(width=4)


@pytest.fixture(scope="module")
def photo():
    return photograph("china", 64, 72)


@pytest.fixture(scope="module")
def painting():
    return photograph("flower", 40, 60)


def short(steps=6, **plan):
    return Plan(replace(RECIPES["relative"], steps=steps), **{"start": "noise", **plan})


# --- colours --------------------------------------------------------------------------------------------------------------

YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]], dtype=torch.float64)


def yiq(x):
    return torch.einsum("ij,bjhw->bihw", YIQ, x.double())


def test_a_new_luminance_leaves_i_and_q(photo, painting):
    y = colours.luminance(resized(painting, photo.shape[-2:]))
    mixed = yiq(colours.with_luminance(photo, y))
    assert torch.allclose(mixed[:, :1], y.double(), atol=1e-5)
    assert torch.allclose(mixed[:, 1:], yiq(photo)[:, 1:], atol=1e-5)


def moments(x):
    pixels = x[0].flatten(1).double()
    return pixels.mean(1), torch.cov(pixels, correction=0)


def test_a_matched_style_has_mean_and_covariance_of_the_content(photo, painting):
    got, wanted = moments(colours.matched(painting, photo)), moments(photo)
    assert torch.allclose(got[0], wanted[0], atol=1e-5) and torch.allclose(got[1], wanted[1], atol=1e-5)


def test_matching_a_picture_to_itself_changes_nothing(photo):
    assert torch.allclose(colours.matched(photo, photo), photo, atol=1e-4)


def test_matching_goes_by_the_symmetric_root(photo, painting):
    """Of all maps between the covariances the one that is symmetric after whitening: A = C^1/2 S^-1/2."""
    from scipy.linalg import fractional_matrix_power as power

    (mean_s, s), (mean_c, c) = moments(painting), moments(photo)
    change = power(c.numpy(), 0.5) @ power(s.numpy(), -0.5)
    by_hand = change @ (painting[0].flatten(1).double() - mean_s[:, None]).numpy() + mean_c[:, None].numpy()
    assert np.abs(by_hand - colours.matched(painting, photo)[0].flatten(1).numpy()).max() < 1e-4


def test_a_gray_style_gets_light_and_shade_and_nothing_wild(photo, painting):
    got = colours.matched(colours.gray(painting), photo)
    assert torch.isfinite(got).all() and float(got.abs().max()) < 3
    flat = colours.matched(torch.full_like(painting, 0.3), photo)
    assert torch.allclose(flat, photo.mean((2, 3), keepdim=True).expand_as(flat), atol=1e-5)


def test_a_relit_style_is_gray_as_bright_as_the_content(photo, painting):
    got = colours.relit(painting, photo)
    assert torch.equal(got[:, 0], got[:, 1]) and torch.equal(got[:, 0], got[:, 2])
    y = colours.luminance(photo)
    assert float(got[:, 0].mean()) == pytest.approx(float(y.mean()), abs=1e-5)
    assert float(got[:, 0].std()) == pytest.approx(float(y.std()), rel=1e-3)


def test_kept_colours_are_the_contents(net, photo, painting):
    painted = stylize(net, 0.3 * photo, [painting], short(colours="keep", start="content"))
    list(painted)
    out = painted.picture()
    inside = (out.abs() < 1).all(1, keepdim=True).expand(-1, 2, -1, -1)
    assert inside.float().mean() > 0.5
    assert torch.allclose(yiq(out)[:, 1:][inside], yiq(0.3 * photo)[:, 1:][inside], atol=1e-4)
    assert not torch.allclose(out, 0.3 * photo, atol=1e-2), "its light and shade are painted"


def test_unknown_colours_are_named(net, photo, painting):
    with pytest.raises(BadInput, match="did you mean 'keep'"):
        stylize(net, photo, [painting], short(colours="keeps"))
    with pytest.raises(BadInput, match="expected the same"):
        colours.finished(photo, painting, "keep")


# --- sizes ----------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.integers(16, 3000), st.integers(16, 3000))
def test_sizes_double_up_to_the_picture(h, w):
    found = sizes(h, w)
    assert found[-1] == (h, w)
    for (a, b), (c, d) in zip(found, found[1:], strict=False):
        assert abs(c - 2 * a) <= 2 and abs(d - 2 * b) <= 2
    assert max(found[0]) <= 257 or min(found[0]) < 64, "from about 256 px, unless that is too narrow"


def test_a_style_has_the_area_of_the_content():
    h, w = of_area(torch.zeros(1, 3, 300, 200), 120 * 160)
    assert h * w == pytest.approx(120 * 160, rel=0.02) and h / w == pytest.approx(1.5, rel=0.02)
    assert min(of_area(torch.zeros(1, 3, 10, 4000), 64 * 64)) >= 32


def test_a_picture_through_several_sizes_ends_in_its_own(net, photo, painting):
    painted = stylize(net, photo, [painting], short(8, levels=2))
    seen = [(m.step, tuple(m.x.shape[-2:])) for m in painted]
    assert seen == [(i, (32, 36) if i <= 8 else (64, 72)) for i in range(1, 13)]
    assert (painted.step, painted.steps) == (12, 12)
    out = painted.picture()
    assert out.shape == photo.shape and float(out.abs().max()) <= 1


def test_the_next_size_starts_from_the_best_of_the_last(net, photo, painting):
    painted = stylize(net, photo, [painting], short(8, levels=2))
    steps = iter(painted)
    for _ in range(8):
        next(steps)
    best = painted.descent.best.clone()
    next(steps)
    assert torch.equal(painted.descent.best, resized(best, (64, 72))), "after one evaluation the start is the best"


def test_a_last_step_too_far_does_not_spoil_the_picture(net, photo, painting):
    painted = stylize(net, photo, [painting], short(8))
    list(painted)
    before = painted.picture()
    painted.descent.x.data.fill_(7.0)
    assert torch.equal(painted.picture(), before) and painted.measures()["style"] < 1


# --- tiles ----------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.integers(16, 5000), st.integers(16, 1024))
def test_tiles_cover_a_side_once(length, tile_px):
    found = tiles(length, tile_px)
    assert found[0].start == 0 and found[-1].end == length
    assert all(a.end == b.start for a, b in zip(found, found[1:], strict=False))
    assert all(t.start % 16 == 0 and t.end - t.start <= tile_px + 15 for t in found)
    assert all(t.first == max(0, t.start - 128) and t.last == min(length, t.end + 128) for t in found)


@pytest.mark.parametrize("size", [(170, 290), (301, 150)])
def test_a_tiled_net_sees_what_the_net_sees(net, size):
    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole, tiled = (x.clone().requires_grad_() for _ in range(2))
    seen, again = net(whole, LAYERS), Tiled(net, 64)(tiled, LAYERS)
    for name in LAYERS:
        assert seen[name].shape == again[name].shape
        assert torch.allclose(seen[name], again[name], atol=1e-5), name
    for found in (seen, again):
        sum((a.flatten(2) @ a.flatten(2).mT).square().mean().sqrt() + a.mean() for a in found.values()).backward()
    assert torch.allclose(whole.grad, tiled.grad, rtol=1e-3, atol=1e-5 * float(whole.grad.abs().max()))


def test_a_margin_too_narrow_is_seen(net):
    """The check above can fail: with 16 px the deepest layer differs."""
    x = torch.rand(1, 3, 170, 290) * 2 - 1
    assert not torch.allclose(net(x, LAYERS)["relu5_1"], Tiled(net, 64, margin_px=16)(x, LAYERS)["relu5_1"], atol=1e-4)


def test_a_tiled_net_keeps_less(net):
    """What the graph holds of a large picture: nothing but the picture, where each activation was held before."""
    x = torch.rand(1, 3, 256, 256, requires_grad=True)
    held = []
    for way in (net, Tiled(net, 64)):
        total = 0

        def keep(t):
            nonlocal total
            total += t.numel() * 4
            return t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            way(x, LAYERS)
        held.append(total)
    assert held[1] == x.numel() * 4 < held[0] / 8


def test_what_a_net_keeps_is_counted_in_bytes_a_pixel():
    """conv1_1 alone keeps its input, that with a rim, and its rectified output: 3, 3 and 4 channels of 4 bytes."""
    assert bytes_kept(random_net(width=4), ["relu1_1"], 256) == pytest.approx(4 * (3 + 3 + 4), rel=0.05)


def test_what_a_net_keeps_is_asked_where_the_net_is():
    """In its own precision here; on its own device is the same line, and takes a GPU to fail."""
    double = bytes_kept(random_net(width=4).double(), LAYERS)
    assert double == pytest.approx(2 * bytes_kept(random_net(width=4), LAYERS), rel=0.1)


def test_a_net_of_another_precision_paints(photo, painting):
    painted = stylize(random_net(width=4).double(), photo.double(), [painting.double()], short(2))
    assert len(list(painted)) == 2 and painted.picture().dtype == torch.float64


def test_a_large_picture_is_tiled_and_comes_out_the_same(net, photo, painting, monkeypatch):
    whole = stylize(net, photo, [painting], short(3))
    monkeypatch.setattr(stylizing, "AT_ONCE_BYTES", 0)
    monkeypatch.setattr(stylizing, "Tiled", lambda net: Tiled(net, 32))
    tiled = stylize(net, photo, [painting], short(3))
    assert isinstance(tiled.net, Tiled) and whole.net is net
    for a, b in zip(whole, tiled, strict=True):
        assert torch.allclose(a.x, b.x, atol=1e-4)


def test_of_a_large_picture_fewer_steps_are_remembered():
    meta = {"device": "meta"}
    assert remembered(20, torch.empty(1, 3, 256, 256, **meta)) == 20
    assert remembered(100, torch.empty(1, 3, 1000, 1000, **meta)) == (512 << 20) // (24 * 1000 * 1000)
    assert remembered(20, torch.empty(1, 3, 4000, 2000, **meta)) == 4 and remembered(2, torch.empty(1, 3, 4000, 2000, **meta)) == 2
    assert descent_bytes(RECIPES["relative"], MOST_PIXELS) < 2 << 30


def test_a_picture_beyond_the_bound_is_refused_with_its_size(net, painting):
    with pytest.raises(BadInput, match=r"9\.0 megapixels; at most 8 .* GiB .* --size 2828"):
        stylize(net, torch.zeros(1, 3, 3000, 3000), [painting])


@pytest.mark.parametrize("scale", [12.5, 3e3])
def test_strokes_too_wide_are_refused_with_the_widest(net, photo, painting, monkeypatch, scale):
    monkeypatch.setattr(stylizing, "MOST_PIXELS", 64 * 72 * 144)
    with pytest.raises(BadInput, match=r"at most 0\.66.* a scale of 12 or less"):
        stylize(net, photo, [painting], short(style_scale=scale))
    assert stylizing.style_pixels(photo, 12.0) == 64 * 72 * 144


def test_a_style_larger_than_the_content_decides_on_tiles(net, photo, painting, monkeypatch):
    kept = bytes_kept(net, (*RECIPES["relative"].content_layers, *RECIPES["relative"].style_layers))
    monkeypatch.setattr(stylizing, "AT_ONCE_BYTES", 2 * kept * photo.shape[-2:].numel())
    assert stylize(net, photo, [painting], short(style_scale=1.4)).net is net
    assert isinstance(stylize(net, photo, [painting], short(style_scale=1.5)).net, Tiled)


def test_without_a_plan_it_is_painted_as_by_the_command(net, photo, painting):
    plan = stylize(net, photo, [painting]).plan
    assert plan == Plan() and (plan.recipe, plan.start) == (stylizing.SMOOTH, "content")


# --- painting -------------------------------------------------------------------------------------------------------------


def test_content_and_style_come_nearer(net, photo, painting):
    painted = stylize(net, photo, [painting], short(40))
    before = painted.measures()
    list(painted)
    after = painted.measures()
    assert after["style"] < 0.1 * before["style"] and after["content"] < before["content"]


def test_a_heavier_style_costs_content(net, photo, painting):
    found = []
    for weight in (1.0, 1000.0):
        painted = stylize(net, photo, [painting], Plan(replace(RECIPES["relative"], steps=40, style=weight), "noise"))
        list(painted)
        found.append(painted.measures())
    assert found[1]["style"] < found[0]["style"] and found[1]["content"] > found[0]["content"]


def test_the_seed_decides_and_nothing_else(net, photo, painting):
    out = []
    for seed in (1, 1, 2):
        torch.rand(3)  # the global generator is not read
        painted = stylize(net, photo, [painting], short(4, seed=seed))
        list(painted)
        out.append(painted.picture())
    assert torch.equal(out[0], out[1]) and not torch.equal(out[0], out[2])


@pytest.mark.parametrize("at", [0, 3, 8, 9, 11])
@pytest.mark.parametrize("plan", [short(8, levels=2), short(8, levels=2, colours="keep", start="content")], ids=["noise", "keep"])
def test_a_stopped_painting_goes_on_as_if_it_had_never_stopped(net, photo, painting, plan, at, tmp_path):
    whole = stylize(net, photo, [painting], plan)
    wanted = list(whole)
    first = stylize(net, photo, [painting], plan)
    for _, _ in zip(range(at), first, strict=False):
        pass
    save_file(first.state(), tmp_path / "state.safetensors")
    second = stylize(net, photo, [painting], plan)
    second.restore(load_file(tmp_path / "state.safetensors"))
    rest = list(second)
    assert [m.step for m in rest] == list(range(at + 1, 13))
    assert all(torch.equal(a.x, b.x) and a.total == b.total for a, b in zip(wanted[at:], rest, strict=True))
    assert torch.equal(whole.picture(), second.picture())


def test_states_of_other_paintings_are_refused(net, photo, painting):
    state = stylize(net, photo, [painting], short()).state()
    with pytest.raises(BadInput, match="another"):
        stylize(net, photo, [painting], short()).restore({k: v for k, v in state.items() if k != "level"})
    with pytest.raises(BadInput, match="another"):
        stylize(net, photo, [painting], short()).restore({**state, "level": torch.tensor(3)})
    with pytest.raises(BadInput, match="picture"):
        stylize(net, photo[..., :56], [painting], short()).restore(state)


def test_masks_go_through_all_sizes(net, photo, painting):
    left = torch.zeros(1, 2, *photo.shape[-2:])
    left[:, 0, :, :36], left[:, 1, :, 36:] = 1, 1
    top = torch.zeros(1, 2, *painting.shape[-2:])
    top[:, 0, :20], top[:, 1, 20:] = 1, 1
    painted = stylize(net, photo, [painting], short(4, levels=2), masks=Masks(left, [top], ("a", "b")))
    assert [m.x.shape[-1] for m in painted] == [36] * 4 + [72] * 2
    assert painted.transfer.masks.content.shape == (1, 2, 64, 72)


@pytest.mark.parametrize(
    ("content", "styles", "named"),
    [
        (torch.zeros(3, 32, 32), [torch.zeros(1, 3, 32, 32)], r"the content is of shape \(3, 32, 32\)"),
        (torch.zeros(1, 1, 32, 32), [torch.zeros(1, 3, 32, 32)], "the content"),
        (torch.zeros(1, 3, 31, 32), [torch.zeros(1, 3, 32, 32)], "at least 32"),
        (torch.zeros(1, 3, 32, 32), [torch.zeros(2, 3, 32, 32)], "a style"),
        (torch.full((1, 3, 32, 32), torch.nan), [torch.zeros(1, 3, 32, 32)], "finite"),
        (torch.zeros(1, 3, 32, 32), [], "at least one style"),
    ],
)
def test_pictures_of_no_use_are_refused(net, content, styles, named):
    with pytest.raises(BadInput, match=named):
        stylize(net, content, styles, short())


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"start": "nois"}, "noise"), ({"levels": 0}, "levels"), ({"style_scale": 0.0}, "style_scale"), ({"seed": -1}, "seed")],
)
def test_plans_that_cannot_be_are_refused(wrong, named):
    with pytest.raises(BadInput, match=named):
        Plan(**wrong)
