"""Adaptive augmentation: each change against what it must be, when it is made, and how its probability moves."""

import math

import pytest
import torch

from condgen.networks.augment import DRAWS, SPEED_IMAGES, Augment, about_grey, colours, geometry, recoloured, resampled

ALWAYS, NEVER = 0.0, 1.0
"""Draws of U(0, 1) by which a change is made, and is not, at any p between."""
HALF = 0.5


def draws(n: int = 1, **chosen: float) -> tuple[torch.Tensor, torch.Tensor]:
    """u and g by which nothing happens, but for what is chosen: `u3=0.1, g0=1.0`."""
    u, g = torch.full((n, DRAWS), NEVER), torch.zeros(n, DRAWS)
    for name, value in chosen.items():
        (u if name[0] == "u" else g)[:, int(name[1:])] = value
    return u, g


def pictures(n: int = 2, channels: int = 3, height: int = 8, width: int = 8) -> torch.Tensor:
    return 2 * torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(0)) - 1


def moved(x: torch.Tensor, p: float = HALF, **chosen: float) -> torch.Tensor:
    return resampled(x, geometry(*draws(len(x), **chosen), p, x.shape[3], x.shape[2]))


def tinted(x: torch.Tensor, **chosen: float) -> torch.Tensor:
    return recoloured(x, *colours(*draws(len(x), **chosen), HALF, x.shape[1]))


# --- geometry -----------------------------------------------------------------------------------------------------------------


def test_without_any_change_the_picture_stays():
    x = pictures()
    assert torch.allclose(moved(x), x, atol=1e-6) and torch.allclose(tinted(x), x, atol=1e-6)


def test_mirroring_is_half_of_the_draws_that_mirror():
    x = pictures()
    assert torch.allclose(moved(x, u0=ALWAYS, u1=0.1), x.flip(3), atol=1e-6)
    assert torch.allclose(moved(x, u0=ALWAYS, u1=0.9), x, atol=1e-6)


@pytest.mark.parametrize("quarters", range(4))
def test_quarter_turns(quarters):
    x = pictures()
    found = moved(x, u2=ALWAYS, u3=(quarters + 0.5) / 4)
    either = [torch.rot90(x, k, (2, 3)) for k in (quarters, -quarters)]
    assert any(torch.allclose(found, turned, atol=1e-5) for turned in either)
    if quarters == 1:
        assert not torch.allclose(found, x, atol=0.1)


def test_pictures_that_are_not_square_are_not_turned_by_quarters():
    x = pictures(height=8, width=16)
    assert torch.allclose(moved(x, u2=ALWAYS, u3=0.3), x, atol=1e-6)


@pytest.mark.parametrize("height, width", [(16, 16), (8, 24)])
def test_the_first_shift_is_by_whole_pixels_up_to_an_eighth(height, width):
    x = pictures(height=height, width=width)
    across = width // 8
    assert torch.allclose(moved(x, u4=ALWAYS, u5=1.0, u6=0.5)[..., :-across], x[..., across:], atol=1e-5)
    down = height // 8
    assert torch.allclose(moved(x, u4=ALWAYS, u5=0.5, u6=0.0)[..., down:, :], x[..., :-down, :], atol=1e-5)
    odd = geometry(*draws(u4=ALWAYS, u5=0.8, u6=0.3), HALF, width, height)[0, :, 2] / 2 * torch.tensor([width, height])
    assert torch.allclose(odd, odd.round(), atol=1e-5)


@pytest.mark.parametrize("aspect", [1, 2])
def test_a_rotation_keeps_distances_in_pixels(aspect):
    """Also of pictures that are not square, whose coordinates run from -1 to 1 on both sides all the same."""
    theta = geometry(*draws(u8=ALWAYS, u9=0.7), HALF, 8 * aspect, 8)[0]
    pixels = torch.tensor([4.0 * aspect, 4.0])
    m = pixels[:, None] * theta[:, :2] / pixels
    angle = math.pi * 0.4
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    assert torch.allclose(m, turn, atol=1e-6)


def test_scales():
    assert torch.allclose(geometry(*draws(u7=ALWAYS, g0=1.0), HALF, 8, 8)[0, :, :2], 2**0.2 * torch.eye(2), atol=1e-6)
    stretched = geometry(*draws(u10=ALWAYS, g1=-1.0), HALF, 8, 8)[0, :, :2]
    assert torch.allclose(stretched, torch.diag(torch.tensor([2**-0.2, 2**0.2])), atol=1e-6)
    assert torch.det(stretched).item() == pytest.approx(1.0), "a stretch keeps the area"


def test_of_the_two_rotations_one_or_both_happen_with_probability_p():
    p, n = 0.4, 200_000
    u, g = torch.rand(n, DRAWS, generator=torch.Generator().manual_seed(0)), torch.zeros(n, DRAWS)
    u[:, [0, 2, 4, 7, 10, 13]] = NEVER
    turned = (geometry(u, g, p, 8, 8)[:, 0, 1].abs() > 1e-6).float().mean()
    assert turned.item() == pytest.approx(p, abs=0.01)


def test_beyond_the_border_the_picture_is_mirrored():
    x = pictures(height=16, width=16)
    assert torch.allclose(moved(x, u4=ALWAYS, u5=1.0, u6=0.5)[..., -2:], x[..., -2:].flip(3), atol=1e-5)


# --- colour -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_brightness_contrast_and_inversion(channels):
    x = pictures(channels=channels)
    assert torch.allclose(tinted(x, u14=ALWAYS, g4=1.5), x + 0.3, atol=1e-6)
    assert torch.allclose(tinted(x, u15=ALWAYS, g5=-2.0), x / 2, atol=1e-6)
    inverted = tinted(x, u16=ALWAYS, u17=0.2)
    assert torch.allclose(inverted.mean(1), -x.mean(1), atol=1e-5), "luma changes its sign"
    assert torch.allclose(inverted - inverted.mean(1, keepdim=True), x - x.mean(1, keepdim=True), atol=1e-5), "and colour stays"
    assert torch.allclose(tinted(x, u16=ALWAYS, u17=0.8), x, atol=1e-6)


def test_saturation_scales_what_is_not_grey():
    x = pictures()
    grey = x.mean(1, keepdim=True)
    assert torch.allclose(tinted(x, u19=ALWAYS, g6=1.0), grey + 2 * (x - grey), atol=1e-5)


def test_a_third_of_the_hues_way_round_exchanges_the_channels():
    x = pictures()
    found = tinted(x, u18=ALWAYS, u20=0.5 + 1 / 3)  # of -pi to pi
    assert torch.allclose(found, x.roll(1, 1), atol=1e-5) or torch.allclose(found, x.roll(-1, 1), atol=1e-5)


def test_turning_hue_keeps_grey_and_lengths():
    m = about_grey(torch.linspace(-3, 3, 7))
    assert torch.allclose(m @ torch.ones(3), torch.ones(7, 3), atol=1e-6)
    assert torch.allclose(m @ m.mT, torch.eye(3).expand(7, 3, 3), atol=1e-6)


def test_hue_is_uniform():
    u, g = torch.rand(50_000, DRAWS, generator=torch.Generator().manual_seed(0)), torch.zeros(50_000, DRAWS)
    u[:, [15, 16, 19]] = NEVER
    u[:, 18] = ALWAYS
    cos = (torch.diagonal(colours(u, g, HALF, 3)[0], dim1=1, dim2=2).sum(1) - 1) / 2
    assert cos.mean().item() == pytest.approx(0.0, abs=0.02) and cos.square().mean().item() == pytest.approx(0.5, abs=0.01)


# --- when ---------------------------------------------------------------------------------------------------------------------


def augment(p: float) -> Augment:
    made = Augment(0.6)
    made.p.fill_(p)
    return made


def random_draws(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, DRAWS, generator=generator), torch.randn(n, DRAWS, generator=generator)


def test_at_probability_zero_it_is_the_identity():
    x = pictures()
    assert augment(0.0)(x, *random_draws(2)) is x


def test_each_picture_has_changes_of_its_own_and_the_size_stays():
    x = pictures(1).expand(6, 3, 8, 8)
    found = augment(0.9)(x, *random_draws(6))
    assert found.shape == x.shape and torch.isfinite(found).all()
    assert all(not torch.allclose(found[0], other, atol=1e-3) for other in found[1:])
    assert torch.allclose(found[3:4], augment(0.9)(x[:1], *(t[3:4] for t in random_draws(6))), atol=1e-6)


def test_the_gradient_reaches_the_picture():
    x = pictures().requires_grad_()
    augment(0.9)(x, *random_draws(2)).square().sum().backward()
    assert all(g.abs().sum() > 0 for g in x.grad)


def test_probability_follows_how_sure_d_is():
    """r = E[sign D(x)] is 1, -1 and 0: above the target up, below it down, by the pictures seen, and never out of [0, 1]."""
    step = 32 / SPEED_IMAGES
    for logit, sign in ((torch.full((32,), 3.0), 1), (torch.full((32,), -0.1), -1), (torch.tensor([1.0, -9.0]).repeat(16), -1)):
        made = augment(0.5)
        made.adapt(logit)
        assert made.p.item() == pytest.approx(0.5 + sign * step, abs=1e-7)
    for p, logit in ((0.0, -1.0), (1.0, 1.0)):
        made = augment(p)
        made.adapt(torch.full((32,), logit))
        assert made.p.item() == p


def test_half_a_million_pictures_take_it_from_never_to_always():
    made = augment(0.0)
    for _ in range(100):
        made.adapt(torch.ones(SPEED_IMAGES // 100))
    assert made.p.item() == pytest.approx(1.0)
