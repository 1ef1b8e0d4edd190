"""Walks and grids in a latent space, against closed forms: ends, lengths, angles, corners, anchors."""

import math

import pytest
import torch

from condgen.editing.grids import decoupled, j_diagram, mine, nearest, neighbour_grid
from condgen.editing.latent import analogy, angle, lerp, path, slerp, uniform_path
from condgen.errors import BadInput

PLACES = torch.linspace(0, 1, 11, dtype=torch.float64)[:, None]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def equally_long(n: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = normal(2, n, d, dtype=torch.float64)
    return a / a.norm(dim=1, keepdim=True) * 3, b / b.norm(dim=1, keepdim=True) * 3


# --- slerp ----------------------------------------------------------------------------------------------------------------


def test_it_is_the_printed_formula_with_its_parentheses():
    a, b = normal(2, 6, 5, dtype=torch.float64)
    theta = torch.arccos((a * b).sum(1) / a.norm(dim=1) / b.norm(dim=1))[:, None]
    expected = (0.7 * theta).sin() / theta.sin() * a + (0.3 * theta).sin() / theta.sin() * b
    assert torch.allclose(slerp(a, b, 0.3), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_are_exact_and_the_type_is_kept(dtype: torch.dtype):
    a, b = normal(2, 50, 20, dtype=dtype)
    for walk in (slerp, lerp):
        assert torch.equal(walk(a, b, 0), a) and torch.equal(walk(a, b, 1.0), b) and walk(a, b, 0.5).dtype == dtype


def test_there_and_back_is_the_same_way():
    a, b = normal(2, 50, 20, dtype=torch.float64)
    for end in (b, -a, 2 * a):
        assert torch.allclose(slerp(a, end, PLACES), slerp(end, a, 1 - PLACES), atol=1e-12)


def test_length_is_kept_and_the_angle_is_in_proportion():
    a, b = equally_long(40, 7)
    found = slerp(a, b, PLACES)
    assert torch.allclose(found.norm(dim=2), torch.full((11, 40), 3.0, dtype=torch.float64), atol=1e-6)
    whole = angle(a, b)
    for t, z in zip(PLACES[:, 0], found, strict=True):
        assert torch.allclose(angle(a, z), t * whole, atol=1e-6)


def test_a_batch_is_its_rows_one_by_one():
    a, b, t = *normal(2, 9, 4), torch.rand(9, generator=torch.Generator().manual_seed(1))
    loop = torch.cat([slerp(a[i : i + 1], b[i : i + 1], float(t[i])) for i in range(9)])
    assert torch.equal(slerp(a, b, t), loop)
    each = torch.stack([slerp(a, b, float(p)) for p in PLACES])
    assert torch.equal(slerp(a, b, PLACES), each) and torch.equal(path(a, b, 11)[[0, 10]], torch.stack([a, b]))


def test_latents_of_any_shape_are_walked_as_vectors():
    a, b = normal(2, 3, 2, 4, 4)
    assert torch.equal(slerp(a, b, 0.4), slerp(a.flatten(1), b.flatten(1), 0.4).reshape(a.shape))
    assert path(a, b, 5).shape == (5, 3, 2, 4, 4) and path(a, b, 5, "lerp").shape == (5, 3, 2, 4, 4)
    assert analogy(a, b, a).shape == a.shape and angle(a, b).shape == (3,)


def test_equal_and_parallel_latents_do_not_move_sideways():
    a = normal(8, 5)
    assert torch.equal(slerp(a, a, 0.3), a)
    assert torch.allclose(slerp(a, 3 * a, 0.5), 2 * a, atol=1e-6)
    near = a + 1e-9 * normal(8, 5, seed=1)
    assert torch.allclose(slerp(a, near, PLACES), a.expand(11, 8, 5), atol=1e-6)


def test_opposite_latents_go_round_by_a_fixed_way():
    a = torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 2.0]])
    found = slerp(a, -a, PLACES)
    assert torch.equal(found[0], a) and torch.equal(found[-1], -a)
    assert torch.allclose(found.norm(dim=2), a.norm(dim=1).expand(11, 2), atol=1e-6)
    assert torch.allclose(found[5], torch.tensor([[0.0, 5.0, 0.0], [2.0, 0.0, 0.0]]), atol=1e-6)  # the axis nearest to orthogonal
    assert torch.allclose(angle(a, found[3]), torch.full((2,), 0.3 * math.pi, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(slerp(a, -3 * a, 0.5).norm(dim=1), 2 * a.norm(dim=1), atol=1e-6)


def test_a_zero_latent_has_no_direction():
    a = normal(2, 4)
    assert torch.equal(slerp(a, 0 * a, 0.25), lerp(a, 0 * a, 0.25))
    assert torch.allclose(lerp(a, 0 * a, 0.25), 0.75 * a)


def test_in_a_hundred_dimensions_the_chord_leaves_the_sphere_and_the_arc_does_not():
    a, b = normal(2, 10_000, 100)
    assert float(lerp(a, b, 0.5).norm(dim=1).mean()) == pytest.approx(7.05, abs=0.1)
    assert float(slerp(a, b, 0.5).norm(dim=1).mean()) == pytest.approx(9.97, abs=0.1)


def test_a_uniform_prior_stays_uniform_on_the_way():
    a, b = 4 * torch.rand(2, 2000, 50, generator=torch.Generator().manual_seed(0)) - 1
    found = uniform_path(a, b, 3, low=-1, high=3)
    assert torch.equal(found[0], a) and torch.equal(found[2], b)
    assert float(found[1].min()) >= -1 and float(found[1].max()) <= 3
    assert float(found[1].var()) == pytest.approx(16 / 12, rel=0.03)  # the chord's middle has half of that
    rim = torch.tensor([[-1.0, 3.0]])
    assert bool(uniform_path(rim, rim.flip(1), 5, -1, 3).isfinite().all())


def test_an_analogy_is_a_parallelogram():
    a, b, c = normal(3, 6, 5, dtype=torch.float64)
    assert torch.allclose(analogy(a, b, c), c + b - a) and torch.allclose(analogy(a, b, a), b)
    assert torch.allclose(analogy(a, b, c), analogy(a, c, b))
    d = analogy(a, b, c, renorm=True)
    assert torch.allclose(d.norm(dim=1), (a.norm(dim=1) + b.norm(dim=1) + c.norm(dim=1)) / 3)
    assert torch.allclose(angle(d, c + b - a), torch.zeros(6, dtype=torch.float64), atol=1e-7)


def test_the_angle_is_exact_where_the_arc_cosine_is_not():
    a = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    for theta in (1e-9, 0.5, math.pi - 1e-9):
        turned = torch.tensor([[math.cos(theta), math.sin(theta)]], dtype=torch.float64)
        assert float(angle(a, 5 * turned)) == pytest.approx(theta, rel=1e-6)
        assert math.pi - float(angle(a, 5 * turned)) == pytest.approx(math.pi - theta, rel=1e-6)


# --- grids ----------------------------------------------------------------------------------------------------------------


def test_the_corners_of_a_j_diagram():
    a, b, c = normal(3, 6, dtype=torch.float64)
    grid = j_diagram(a, b, c, 4, 7)
    d = b + c - a
    assert grid.shape == (4, 7, 6)
    for corner, z in (((0, 0), a), ((0, -1), b), ((-1, 0), c), ((-1, -1), d)):
        assert torch.allclose(grid[corner], z, atol=1e-12)
    left, right = (slerp(one[None], other[None], 2 / 3)[0] for one, other in ((a, c), (b, d)))  # edges, then across
    assert torch.allclose(grid[2, 5], slerp(left[None], right[None], 5 / 6)[0], atol=1e-12)
    short = j_diagram(a, b, c, 2, 2, renorm=True)
    assert torch.allclose(short[1, 1].norm(), (a.norm() + b.norm() + c.norm()) / 3)


def test_a_mine_grid_keeps_its_anchors():
    anchors = normal(3, 4, 5)
    grid = mine(anchors, 3)
    assert grid.shape == (7, 10, 5) and torch.equal(grid[::3, ::3], anchors)
    assert torch.allclose(grid[3, 4], slerp(anchors[1, 1][None], anchors[1, 2][None], 1 / 3)[0], atol=1e-6)
    above, below = grid[3, 5], grid[6, 5]  # across first, then down
    assert torch.allclose(grid[5, 5], slerp(above[None], below[None], 2 / 3)[0], atol=1e-6)
    assert torch.equal(mine(anchors, 1), anchors) and mine(anchors[:1], 2).shape == (1, 7, 5)
    assert mine(normal(2, 2, 3, 4, 4), 2).shape == (3, 3, 3, 4, 4)


def test_the_nearest_by_angle_however_long():
    z = torch.tensor([[9.0, 1.0], [0.0, 1.0], [0.1, 0.1], [-1.0, 0.0]])
    assert nearest(torch.tensor([1.0, 0.0]), z, 3).tolist() == [0, 2, 1]


def test_neighbours_in_the_space_are_neighbours_on_the_sheet():
    corner = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    z = torch.stack(corner, 2).reshape(36, 2) @ normal(2, 8) + 0.01 * normal(36, 8, seed=1)
    z = z[torch.randperm(36, generator=torch.Generator().manual_seed(2))]
    found = neighbour_grid(z, 6, 6)
    assert sorted(found.flatten().tolist()) == list(range(36)) and torch.equal(found, neighbour_grid(z, 6, 6))

    def beside(order: torch.Tensor) -> float:
        sheet = z[order]
        return float((sheet[1:] - sheet[:-1]).norm(dim=2).mean() + (sheet[:, 1:] - sheet[:, :-1]).norm(dim=2).mean())

    assert beside(found) < 0.6 * beside(torch.arange(36).reshape(6, 6))


@pytest.mark.parametrize(("rows", "columns", "d"), [(1, 1, 3), (1, 2, 3), (1, 3, 1), (2, 2, 1), (2, 3, 5)])
def test_few_neighbours_fill_a_small_sheet(rows: int, columns: int, d: int):
    found = neighbour_grid(normal(rows * columns, d), rows, columns)
    assert sorted(found.flatten().tolist()) == list(range(rows * columns)) and found.shape == (rows, columns)
    assert neighbour_grid(torch.zeros(6, 2), 2, 3).numel() == 6  # all the same


def test_two_attributes_move_apart():
    z, v, w = normal(3, 5)
    grid = decoupled(z, v, w, 3, 5, low=-1, high=2)
    assert grid.shape == (3, 5, 5)
    assert torch.allclose(grid[0, 0], z - v - w, atol=1e-6) and torch.allclose(grid[0, 4], z + 2 * v - w, atol=1e-6)
    assert torch.allclose(grid[2, 0], z - v + 2 * w, atol=1e-6) and torch.allclose(grid[1, 2], z + 0.5 * v + 0.5 * w, atol=1e-6)


# --- refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda z: slerp(z, z[:1], 0.5), "expected two of"),
        (lambda z: slerp(z[0], z[0], 0.5), "expected two of"),
        (lambda z: slerp(z, z, math.nan), "t is nan"),
        (lambda z: slerp(z, z, torch.zeros(3)), "one or 4 a step"),
        (lambda z: slerp(z, z, "half"), "t is 'half'"),
        (lambda z: path(z, z, 1), "steps is 1"),
        (lambda z: path(z, z, 3, "slurp"), "did you mean 'slerp'"),
        (lambda z: uniform_path(z, z, 3, 0, 1), "for a uniform prior from 0 to 1"),
        (lambda z: uniform_path(z, z, 3, 1, 0), "low end below"),
        (lambda z: j_diagram(z[0], z[1], z[2], 1, 5), "rows is 1"),
        (lambda z: j_diagram(z[0], z[1], z[2, :3], 2, 5), "expected three"),
        (lambda z: mine(z, 2), "expected a grid"),
        (lambda z: mine(z[None], 0), "spacing is 0"),
        (lambda z: nearest(z[0], z, 5), "at most 4"),
        (lambda z: nearest(z, z, 1), "a seed of shape"),
        (lambda z: neighbour_grid(z, 2, 3), "4 latents for 2 x 3 cells"),
        (lambda z: decoupled(z[0], z[0], z, 2, 2), "for a latent of"),
    ],
)
def test_what_cannot_be_walked_says_why(call, said: str):
    with pytest.raises(BadInput, match=said):
        call(normal(4, 5))
