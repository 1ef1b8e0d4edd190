"""The matting Laplacian: a slow reference says what it is, and algebra what it must be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condgen.editing.matting import laplacian, photorealism
from condgen.errors import BadInput


def photograph(h=12, w=12, seed=0, channels=3):
    return 2 * torch.rand(1, channels, h, w, generator=torch.Generator().manual_seed(seed)) - 1


def brute_force(picture, eps):
    """The definition, one window and one pair of pixels at a time."""
    colours = ((picture[0].double() + 1) / 2).permute(1, 2, 0).numpy()
    h, w, c = colours.shape
    m = np.zeros((h * w, h * w))
    for y in range(1, h - 1):
        for x in range(1, w - 1):
            window = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            values = np.array([colours[place] for place in window])
            mean = values.mean(0)
            inverse = np.linalg.inv(np.cov(values.T, bias=True).reshape(c, c) + eps / 9 * np.eye(c))
            for i, (yi, xi) in enumerate(window):
                for j, (yj, xj) in enumerate(window):
                    near = (1 + (values[i] - mean) @ inverse @ (values[j] - mean)) / 9
                    m[yi * w + xi, yj * w + xj] += (i == j) - near
    return m


def affine_of(picture, seed=1):
    """A global affine change of the colours that stays in [-1, 1]."""
    draw = torch.Generator().manual_seed(seed)
    return torch.einsum("cd,bdhw->bchw", 0.2 * torch.randn(3, 3, generator=draw), picture) + 0.1


@pytest.mark.parametrize("h, w, channels", [(8, 8, 3), (3, 3, 3), (6, 3, 3), (3, 7, 3), (7, 4, 3), (5, 6, 1)])
@pytest.mark.parametrize("eps", [1e-7, 1e-3])
def test_it_equals_the_definition(h, w, channels, eps):
    picture = photograph(h, w, channels=channels)
    assert np.allclose(laplacian(picture, eps).toarray(), brute_force(picture, eps), atol=1e-9)


@pytest.mark.parametrize("picture", [photograph(), torch.zeros(1, 3, 9, 11), photograph(5, 20).round()], ids=["noise", "flat", "extreme"])
def test_it_is_symmetric_its_rows_sum_to_zero_and_it_is_positive_semi_definite(picture):
    m = laplacian(picture)
    assert m.dtype == np.float64 and abs(m - m.T).max() < 1e-12 and np.abs(m.sum(1)).max() < 1e-10
    assert np.linalg.eigvalsh(m.toarray())[0] >= -1e-8


def test_a_row_has_at_most_25_entries():
    m = laplacian(photograph(10, 14))
    assert np.diff(m.indptr).max() == 25 and m.nnz < 25 * 140


def test_changes_that_are_affine_in_the_colours_cost_nothing():
    picture = photograph()
    m = laplacian(picture)
    noise = float(photorealism(photograph(seed=2), m))
    assert noise > 10
    assert float(photorealism(affine_of(picture), m)) < 1e-5 * noise
    assert float(photorealism(picture, m)) < 1e-5 * noise
    assert float(photorealism(torch.full_like(picture, 0.3), m)) < 1e-5 * noise


def test_two_affine_changes_in_two_halves_cost_only_along_their_border():
    picture = photograph(12, 16)
    x = torch.cat([affine_of(picture[..., :8], 1), affine_of(picture[..., 8:], 2)], 3)
    m = laplacian(picture)
    v = ((x.double() + 1) / 2)[0].flatten(1).numpy()
    by_pixel = np.abs(m @ v.T).sum(1).reshape(12, 16)
    assert by_pixel[:, :6].max() < 1e-3 and by_pixel[:, 10:].max() < 1e-3 and by_pixel[:, 6:10].max() > 0.1


def test_honest_changes_of_colour_begin_to_cost_as_eps_grows():
    picture = photograph()
    costs = [float(photorealism(affine_of(picture), laplacian(picture, eps))) for eps in (1e-7, 1e-5, 1e-3)]
    assert costs[0] < costs[1] / 10 < costs[2] / 100


@settings(deadline=None, max_examples=25)
@given(st.integers(3, 9), st.integers(3, 9), st.integers(0, 10**6), st.sampled_from([1e-7, 1e-5, 1e-3]))
def test_of_any_picture_it_is_what_it_must_be(h, w, seed, eps):
    picture = photograph(h, w, seed)
    m = laplacian(picture, eps).toarray()
    assert np.allclose(m, m.T) and np.abs(m.sum(1)).max() < 1e-9 and np.linalg.eigvalsh(m)[0] >= -1e-8


# --- the term -------------------------------------------------------------------------------------------------------------


def test_photorealism_is_the_quadratic_form_on_pixels_from_0_to_1():
    picture, x = photograph(6, 7), photograph(6, 7, seed=3).double()
    m = laplacian(picture)
    v = ((x + 1) / 2)[0].flatten(1)
    expected = sum(float(row @ torch.from_numpy(m @ row.numpy())) for row in v)
    assert float(photorealism(x, m)) == pytest.approx(expected, rel=1e-12)
    assert float(photorealism(torch.cat([x, x]), m)) == pytest.approx(2 * expected, rel=1e-12)


def test_its_gradient_is_exact():
    m = laplacian(photograph(4, 5))
    x = photograph(4, 5, seed=4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: 3 * photorealism(x, m), (x,))


def test_float32_pictures_are_weighed_in_float64():
    picture = photograph(30, 30) / 50  # nearly flat, where M's entries are large
    m, x = laplacian(picture), affine_of(picture)
    assert photorealism(x, m).dtype == torch.float32
    assert float(photorealism(x, m)) == pytest.approx(float(photorealism(x.double(), m)), rel=1e-5)
    x.requires_grad_()
    photorealism(x, m).backward()
    assert x.grad is not None and x.grad.dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 3, 2, 9), (2, 3, 9, 9), (3, 9, 9), (1, 4, 9, 9)])
def test_what_is_no_photograph_is_refused(shape):
    with pytest.raises(BadInput, match="expected"):
        laplacian(torch.zeros(shape))


def test_an_eps_of_zero_and_another_size_are_refused():
    with pytest.raises(BadInput, match="eps is 0"):
        laplacian(photograph(), 0)
    with pytest.raises(BadInput, match="7x6 px"):
        photorealism(photograph(6, 7), laplacian(photograph(6, 6)))
