"""Structural similarity against torchmetrics and closed forms; likeness within a class; consistency of coarse samples."""

from itertools import combinations

import pytest
import torch
from torch import Generator
from torch.nn import functional as F

from condgen.errors import BadInput
from condgen.evaluation.measuring import Measuring
from condgen.evaluation.protocols import evaluate
from condgen.evaluation.resolution import coarsened
from condgen.evaluation.ssim import C1, WEIGHTS, _blurring, convention, likeness, ms_ssim, random_pairs, sides, ssim, windows
from painter import RUN, SHAPE, TEST, TRAIN, Painted, Painter


def noise(*shape, seed=0):
    return 2 * torch.rand(*shape, generator=Generator().manual_seed(seed)) - 1


def blurred(x, times):
    for _ in range(times):
        x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return x


def test_five_scales_agree_with_torchmetrics():
    theirs = pytest.importorskip("torchmetrics.functional.image")
    x = blurred(noise(2, 3, 256, 256), 3)
    y = (x + 0.2 * noise(2, 3, 256, 256, seed=1)).clamp(-1, 1)
    expected = theirs.multiscale_structural_similarity_index_measure(x.double(), y.double(), data_range=2.0, normalize="relu")
    assert windows(256, 256) == (11,) * 5
    assert float(ms_ssim(x, y).mean()) == pytest.approx(float(expected), abs=1e-6)
    assert 0.1 < float(expected) < 0.95


def test_one_scale_agrees_with_torchmetrics():
    theirs = pytest.importorskip("torchmetrics.functional.image")
    x, y = blurred(noise(4, 3, 40, 32), 2), noise(4, 3, 40, 32, seed=1)
    for other in (y, (x + 0.3 * y).clamp(-1, 1)):
        expected = theirs.structural_similarity_index_measure(x.double(), other.double(), data_range=2.0, reduction="none")
        assert torch.allclose(ssim(x, other), expected, atol=1e-7)


@pytest.mark.parametrize("side", [7, 8, 28, 32, 64])
def test_even_pictures_have_a_closed_form(side):
    a, b = 0.8, -0.1
    brightness = (2 * a * b + C1) / (a * a + b * b + C1)
    kept = WEIGHTS[: len(sides(side, side))]
    x, y = torch.full((1, 1, side, side), a), torch.full((1, 1, side, side), b)
    assert float(ms_ssim(x, y)) == pytest.approx(max(brightness, 0) ** (kept[-1] / sum(kept)), abs=1e-6)
    b = 0.3
    brightness = (2 * a * b + C1) / (a * a + b * b + C1)
    assert float(ms_ssim(x, torch.full_like(y, b))) == pytest.approx(brightness ** (kept[-1] / sum(kept)), abs=1e-6)


@pytest.mark.parametrize("shape", [(6, 1, 28, 28), (6, 3, 32, 32), (3, 3, 96, 64)])
def test_equal_is_one_noise_is_nothing_and_blur_lowers(shape):
    x = noise(*shape)
    assert torch.allclose(ms_ssim(x, x), torch.ones(len(x), dtype=torch.float64), atol=1e-12)
    assert float(ms_ssim(x, noise(*shape, seed=1)).mean()) < 0.1
    found = [float(ms_ssim(x, blurred(x, k)).mean()) for k in range(5)]
    assert found == sorted(found, reverse=True) and found[4] < 0.6
    assert torch.equal(ms_ssim(x, x.flip(0)), ms_ssim(x, x.flip(0), chunk=2))
    assert torch.allclose(ms_ssim(x, x.flip(0)), ms_ssim(x.flip(0), x))


def test_small_pictures_get_fewer_scales_and_say_so():
    assert [len(sides(s, s)) for s in (7, 14, 27, 28, 32, 64, 112, 256)] == [1, 2, 2, 3, 3, 4, 5, 5]
    assert windows(32, 32) == (11, 11, 7) and windows(64, 64) == (11, 11, 11, 7)
    assert "scales=3|windows=11,11,7" in convention(28, 28) != convention(64, 64)


def test_what_is_no_pair_of_pictures_is_refused():
    with pytest.raises(BadInput, match="at least 7 px"):
        ms_ssim(noise(2, 1, 6, 9), noise(2, 1, 6, 9))
    with pytest.raises(BadInput, match="expected pairs"):
        ms_ssim(noise(2, 1, 8, 8), noise(3, 1, 8, 8))
    with pytest.raises(BadInput, match="no pair"):
        random_pairs(1, 5, 0)


@pytest.mark.parametrize(("side", "window"), [(28, 11), (16, 11), (14, 11), (8, 7), (7, 7)])
def test_a_product_with_bands_is_the_convolution(side, window):
    x = noise(3, 2, side, side + 3).double()
    at = torch.arange(window).double() - window // 2
    bell = torch.exp(-0.5 * (at * 11 / (1.5 * window)).square())
    bell = torch.outer(bell, bell) / bell.sum() ** 2
    padded = F.pad(x, (window // 2,) * 4, mode="reflect")
    expected = F.conv2d(padded.reshape(6, 1, *padded.shape[2:]), bell[None, None]).reshape(x.shape)
    assert torch.allclose(_blurring(window, side, side + 3)(x), expected, atol=1e-14)


def test_pairs_are_of_different_rows_and_seeded():
    first, second = random_pairs(40, 700, 0)
    assert len(first) == 700 and not bool((first == second).any())
    assert set(first.tolist()) == set(second.tolist()) == set(range(40))
    assert torch.equal(first, random_pairs(40, 700, 0)[0]) and not torch.equal(first, random_pairs(40, 700, 1)[0])


def test_where_pairs_are_few_each_is_taken_once():
    for most in (6, 500):
        assert set(zip(*(rows.tolist() for rows in random_pairs(4, most, 0)), strict=True)) == set(combinations(range(4), 2))
    assert len(random_pairs(4, 5, 0)[0]) == 5


# --- the metrics ----------------------------------------------------------------------------------------------------------


def measured(fault="", metrics=("ms_ssim", "ms_ssim_real"), **more):
    return evaluate(Painter(fault=fault, **more), RUN, metrics=metrics, n=200, train=TRAIN, test=TEST)["metrics"]


def test_a_faithful_model_is_as_varied_as_its_classes():
    found = measured()
    assert list(found) == ["ms_ssim", "ms_ssim/across", "ms_ssim/down", "ms_ssim_real"]
    assert found["ms_ssim"]["value"] == pytest.approx(found["ms_ssim"]["ceiling"], abs=0.05)
    assert found["ms_ssim"]["value"] == pytest.approx((found["ms_ssim/across"]["value"] + found["ms_ssim/down"]["value"]) / 2)
    assert found["ms_ssim_real"]["value"] == found["ms_ssim_real"]["ceiling"] == found["ms_ssim"]["ceiling"] < 0.6
    assert [m["control"] for m in found.values()] == pytest.approx([1.0] * 4)
    assert (found["ms_ssim"]["n"], found["ms_ssim/down"]["n"], found["ms_ssim_real"]["n"]) == (2000, 1000, 2000)
    said = found["ms_ssim"]["provenance"]
    assert "scales=2|windows=11,7|sd=1.5 at 11 px, in proportion|L=2|" in said
    assert "within stripes|1000 pairs each or all there are, as if independent|of 200 samples|" in said


def test_standard_errors_are_those_of_pairs_and_of_their_classes():
    m = Measuring(Painter(), RUN, n=40, train=TRAIN, test=TEST)
    found = likeness(m)
    errors = []
    for k, name in enumerate(("across", "down")):
        own = m.balanced[m.groups_asked == k]
        each = torch.cat([ms_ssim(own[i : i + 1], own[j : j + 1]) for i, j in combinations(range(20), 2)])
        errors.append(float(each.std()) / 190**0.5)
        assert found[f"ms_ssim/{name}"].n == 190
        assert found[f"ms_ssim/{name}"].value == pytest.approx(float(each.mean()))
        assert found[f"ms_ssim/{name}"].standard_error == pytest.approx(errors[-1])
    assert found["ms_ssim"].n == 380
    assert found["ms_ssim"].standard_error == pytest.approx((errors[0] ** 2 + errors[1] ** 2) ** 0.5 / 2)


def test_a_single_pair_has_no_standard_error():
    found = likeness(Measuring(Painter(), RUN, n=4, train=TRAIN, test=TEST))
    assert found["ms_ssim/down"].n == 1 and found["ms_ssim/down"].standard_error is found["ms_ssim"].standard_error is None


def test_one_picture_a_class_is_all_alike():
    assert measured("collapsed")["ms_ssim"]["value"] == pytest.approx(1.0)


def test_without_labels_all_samples_are_one_group():
    found = evaluate(Unasked(SHAPE, {}), RUN, metrics=["ms_ssim"], n=60, train=TRAIN, test=TEST)["metrics"]
    assert list(found) == ["ms_ssim"]
    assert "|over all|" in found["ms_ssim"]["provenance"] and "classes" not in found["ms_ssim"]["provenance"]
    assert found["ms_ssim"]["value"] == pytest.approx(found["ms_ssim"]["ceiling"], abs=0.06)


class Unasked(Painter):
    """Other pictures of the same kind, and nothing can be asked of it."""

    def decode(self, z, c):
        return Painted(len(z), 5).x


def test_coarse_pictures_keep_what_is_coarse():
    x = torch.linspace(-1, 1, 16).expand(1, 1, 16, 16)
    stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 1, 16, 16)
    assert coarsened(x, 0) is x
    assert torch.allclose(coarsened(x, 1)[..., 2:-2], x[..., 2:-2], atol=0.02)
    assert float(coarsened(stripes, 1).abs().max()) < 0.3
    assert coarsened(noise(2, 3, 30, 22), 2).shape == (2, 3, 30, 22)


def test_stripes_of_two_pixels_are_gone_at_half_the_size():
    found = measured(metrics=["discriminability"])
    assert list(found) == ["discriminability", "discriminability/16", "discriminability/8"]
    full, half = found["discriminability/16"], found["discriminability/8"]
    assert full["value"] > 0.95 and full["ceiling"] > 0.95 and half["value"] < 0.8
    assert found["discriminability"]["value"] == pytest.approx(full["value"] - half["value"])
    assert found["discriminability"]["ceiling"] == pytest.approx(full["ceiling"] - half["ceiling"])
    assert full["control"] == pytest.approx(0.5, abs=0.12)
    assert "discriminability" not in evaluate(Painter(), RUN, n=60, train=TRAIN, test=TEST)["metrics"]
