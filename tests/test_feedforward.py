"""Style in one pass: maps against statistics, tiles against the whole, decoders against their encoders; real pictures."""

import pytest
import torch
import torch.nn.functional as F

from condgen.backbones import FILES, feature_net, photographs
from condgen.data.cache import data_folder
from condgen.editing import feedforward
from condgen.editing.feedforward import MAPS, Statistics, adain, blended, power, statistics, stylize_fast, wct
from condgen.editing.transfer import RECIPES, Transfer
from condgen.errors import BadInput
from condgen.networks.features import VGG_NAMES
from condgen.networks.pairs import Pair, mirrored, pairs


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pair_weights(width=6):
    """All five pairs, with random weights."""
    found = {}
    for level in range(1, 6):
        names, before = [n.replace("_", "") for n in VGG_NAMES], 3
        found[f"e{level}.conv0.weight"], found[f"e{level}.conv0.bias"] = torch.eye(3)[:, :, None, None], torch.zeros(3)
        for name in names[: names.index(f"conv{level}1") + 1]:
            for side, n_in, n_out in (("e", before, width), ("d", width, before)):
                found[f"{side}{level}.{name}.weight"] = torch.randn(n_out, n_in, 3, 3) * (2 / (9 * n_in)) ** 0.5
                found[f"{side}{level}.{name}.bias"] = 0.1 * torch.randn(n_out)
            before = width
    return found


@pytest.fixture(scope="module")
def small() -> dict[int, Pair]:
    torch.manual_seed(0)
    return pairs(pair_weights())


def pictures(h=64, w=80, n=1):
    return F.interpolate(2 * torch.rand(n, 3, h // 4, w // 4) - 1, size=(h, w), mode="bicubic").clamp(-1, 1)


def moments(f):
    rows = f[0].flatten(1).double()
    return Statistics(rows.mean(1), rows.cov(correction=0))


# --- maps -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def codes():
    """Activations of a content and of a style, with correlated channels."""
    return tuple(torch.einsum("mn,bnhw->bmhw", torch.randn(5, 5), torch.rand(1, 5, 20, 30) ** k) + torch.randn(5, 1, 1) for k in (1, 3))


def test_adain_gives_each_channel_the_styles_mean_and_variance(codes):
    content, style = (moments(c) for c in codes)
    mapped = moments(adain(content, style)(codes[0]))
    assert torch.allclose(mapped.mean, style.mean, atol=1e-4) and torch.allclose(mapped.cov.diagonal(), style.cov.diagonal(), rtol=1e-3)
    assert not torch.allclose(mapped.cov, style.cov, rtol=0.1)


def test_wct_gives_all_channels_together_the_styles_mean_and_covariance(codes):
    content, style = (moments(c) for c in codes)
    mapped = moments(wct(content, style)(codes[0]))
    assert torch.allclose(mapped.mean, style.mean, atol=1e-4) and torch.allclose(mapped.cov, style.cov, rtol=1e-3, atol=1e-4)


def test_powers_are_powers_and_leave_empty_directions_out():
    a = torch.randn(4, 4, dtype=torch.float64)
    cov = a @ a.T
    assert torch.allclose(power(cov, 0.5) @ power(cov, 0.5), cov) and torch.allclose(
        power(cov, -0.5) @ cov @ power(cov, -0.5), torch.eye(4).double()
    )
    flat = torch.diag(torch.tensor([4.0, 0.0], dtype=torch.float64))
    assert torch.allclose(power(flat, -0.5), torch.diag(torch.tensor([0.5, 0.0], dtype=torch.float64)))


@pytest.mark.parametrize("kind", MAPS)
def test_a_constant_content_gets_the_styles_mean_and_stays_finite(kind, codes):
    flat = torch.full((1, 5, 8, 8), 0.7)
    mapped = MAPS[kind](moments(flat), moments(codes[1]))(flat)
    assert torch.allclose(mapped, moments(codes[1]).mean.float()[None, :, None, None].expand_as(mapped), atol=1e-4)


def test_strength_and_shares_weigh_the_maps(codes):
    content, style = (moments(c) for c in codes)
    one, two = wct(content, style), adain(content, style)
    found = blended(content, [one, two], [0.25, 0.75], 0.6)(codes[0])
    assert torch.allclose(found, 0.4 * codes[0] + 0.6 * (0.25 * one(codes[0]) + 0.75 * two(codes[0])), atol=1e-4)
    assert torch.allclose(blended(content, [one], [1.0], 0.0)(codes[0]), codes[0])


# --- pairs ----------------------------------------------------------------------------------------------------------------


def test_decoders_mirror_their_encoders(small):
    assert mirrored(2) == ("conv21", "conv12", "conv11") and len(mirrored(5)) == 13
    x = pictures(32, 48)
    for level, pair in small.items():
        code = pair.encode(x)
        assert code.shape[2:] == (32 // pair.stride, 48 // pair.stride) and pair.stride == 2 ** (level - 1)
        assert pair.decode(code).shape == x.shape and pair.decode(code).min() >= -1
    with pytest.raises(BadInput, match="level is 6"):
        Pair(pair_weights(), 6)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_nothing_reaches_farther_than_said(small, level):
    """A gradient is as wide as what a pixel depends on."""
    pair = small[level]
    side = 4 * ((pair.reach + 16) // 16 * 16)
    x = pictures(32, side).requires_grad_()
    column = side // 2 + 5
    (gradient,) = torch.autograd.grad(pair.decode(pair.encode(x))[..., column].sum(), x)
    seen = gradient.abs().sum((0, 1, 2)).nonzero().flatten() - column
    assert -pair.reach <= int(seen.min()) and int(seen.max()) <= pair.reach
    assert max(-int(seen.min()), int(seen.max())) >= 0.5 * pair.reach, "nor is it said to be much farther than it is"


def test_statistics_by_tiles_are_those_of_the_whole(small):
    x = pictures(96, 144)
    for level in (1, 3, 5):
        whole, found = moments(small[level].encode(x)), statistics(small[level], x, tile_px=32)
        assert torch.allclose(found.mean, whole.mean, atol=1e-6) and torch.allclose(found.cov, whole.cov, atol=1e-5)


# --- the whole ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", MAPS)
def test_one_level_is_map_and_decoder(small, method):
    content, style = pictures(48, 64), pictures(64, 48)
    pair = small[3]
    code = pair.encode(content)
    expected = pair.decode(MAPS[method](moments(code), moments(pair.encode(style)))(code)).clamp(-1, 1)
    assert torch.allclose(stylize_fast(content, style, 1.0, method, (3,), pairs=small), expected, atol=1e-4)


@pytest.mark.parametrize("method", MAPS)
@pytest.mark.parametrize("levels", [(2,), (4,), (3, 1)])
def test_a_picture_in_tiles_is_the_picture_at_once(small, method, levels):
    content, style = pictures(100, 248), pictures(40, 52)
    at_once = stylize_fast(content, style, 0.8, method, levels, pairs=small, tile_px=512)
    tiled = stylize_fast(content, style, 0.8, method, levels, pairs=small, tile_px=32)
    assert at_once.shape == content.shape and at_once.std() > 0.02
    assert torch.allclose(at_once, tiled, atol=2e-4)


def test_levels_are_gone_through_from_the_deepest(small):
    content, style = pictures(48, 48), pictures(48, 48)
    first = stylize_fast(content, style, levels=(3,), pairs=small)
    assert torch.equal(stylize_fast(first, style, levels=(1,), pairs=small), stylize_fast(content, style, levels=(1, 3), pairs=small))


def test_several_styles_count_by_their_shares(small):
    content, one, two = pictures(48, 48), pictures(48, 48), pictures(64, 32)
    alone = stylize_fast(content, one, levels=(2,), pairs=small)
    assert torch.allclose(stylize_fast(content, [one, two], shares=[2.0, 0.0], levels=(2,), pairs=small), alone, atol=1e-5)
    assert not torch.allclose(stylize_fast(content, [one, two], levels=(2,), pairs=small), alone, atol=1e-2)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"method": "adian"}, "unknown method 'adian': did you mean 'adain'"),
        ({"strength": 1.5}, "strength is 1.5"),
        ({"levels": (0, 1)}, r"levels are \(0, 1\); expected different ones from 1 to 5"),
        ({"levels": (2, 2)}, "different ones"),
        ({"levels": ()}, "different ones"),
        ({"style": []}, "at least one style"),
        ({"shares": [1.0, 2.0]}, r"the shares of 1 styles are \[1.0, 2.0\]"),
        ({"shares": [-1.0]}, "numbers of at least 0"),
        ({"content": torch.zeros(1, 3, 31, 64)}, r"the content is of shape \(1, 3, 31, 64\); .* at least 32 px"),
        ({"style": torch.zeros(2, 3, 64, 64)}, r"the style is of shape \(2, 3, 64, 64\)"),
    ],
)
def test_what_cannot_be_used_is_refused(small, changes, says):
    with pytest.raises(BadInput, match=says):
        stylize_fast(**{"content": torch.zeros(1, 3, 32, 32), "style": torch.zeros(1, 3, 32, 32), "pairs": small, **changes})


def test_without_weights_one_is_told_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("CONDGEN_DATA", str(tmp_path))
    with pytest.raises(BadInput, match=FILES["distilled"][0]):
        stylize_fast(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))


# --- with the real weights ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> dict[int, Pair]:
    root = data_folder()
    if root is None or not (root / "weights" / FILES["distilled"][0]).is_file():
        pytest.skip(f"needs $CONDGEN_DATA/weights/{FILES['distilled'][0]}")
    return feedforward.distilled_pairs((1, 2, 3, 4, 5))


def test_photographs_come_back_as_well_as_the_weights_are_known_to_draw_them(real):
    x = photographs()[:4]
    known = {1: 41.5, 2: 30.4, 3: 26.8, 4: 23.5, 5: 21.0}  # dB, on other photographs
    for level, pair in real.items():
        error = ((pair.decode(pair.encode(x)).clamp(-1, 1) - x) / 2).square().mean()
        assert float(-10 * error.log10()) == pytest.approx(known[level], abs=6 if level == 1 else 4)


@pytest.mark.parametrize("method, at_most", [("wct", 0.35), ("adain", 0.6)])
def test_the_style_comes_near_and_the_content_stays_recognisable(real, method, at_most):
    pieces = photographs()
    content, style = pieces[:1], pieces[8:9]
    transfer = Transfer(feature_net("distilled"), RECIPES["relative"], content, [style])
    drawn = stylize_fast(content, style, method=method, pairs=real)
    assert transfer.measures(drawn)["style"] < at_most * transfer.measures(content)["style"]
    assert drawn.abs().max() <= 1 and float(torch.corrcoef(torch.stack([drawn.mean(1).flatten(), content.mean(1).flatten()]))[0, 1]) > 0.3
