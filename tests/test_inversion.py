"""Latents by descent: where they end is known in closed form, rows do not meet, and the model stays as it was."""

import hashlib

import pytest
import torch
from torch import nn

from condgen.conditions import Label
from condgen.editing.inversion import Inverse, invert, last, nearest_conditions
from condgen.editing.latent import path
from condgen.editing.space import Space
from condgen.editing.synthetic import blur, synthetic_vector
from condgen.errors import BadInput
from condgen.model import Model, Sampler
from painter import Painter


class Plain(Sampler):
    """G(z) = W z + b, from a prior N(mean, sd^2) whose draws have exactly these moments; with `labels`, b depends on the label."""

    def __init__(self, shape=(1, 4, 4), schema=None, z_dim=3, mean=0.0, sd=1.0):
        super().__init__(shape, schema or {})
        self.z_dim, self.mean, self.sd = z_dim, mean, sd
        generator = torch.Generator().manual_seed(0)
        numbers = int(torch.tensor(shape).prod())
        self.W = nn.Parameter(torch.randn(numbers, z_dim, generator=generator) / 4)
        self.b = nn.Parameter(torch.randn(4, numbers, generator=generator) / 4)
        self.drop = nn.Dropout(0.5)

    def turns(self, batch, step):
        yield {}

    def prior(self, n, c):
        z = self.noise.normal(n, self.z_dim)
        return self.mean + self.sd * (z - z.mean(0)) / z.std(0)

    def decode(self, z, c):
        offset = self.b[c["digit"]] if self.schema else self.b[0]
        return self.drop(z @ self.W.T + offset).reshape(len(z), *self.shape)


class Bare(Model):
    """Decodes, and has neither prior nor encoder."""

    def __init__(self, shape=(2,), schema=None):
        super().__init__(shape, {})
        self.W = nn.Parameter(torch.eye(2))

    def turns(self, batch, step):
        yield {}

    def decode(self, z, c):
        return z @ self.W


def samples(n=5, seed=1):
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def ridge(model, x, weight):
    """argmin mean (W z + b - x)^2 + w mean ((z - m) / s)^2, solved."""
    W, y = model.W.detach().double(), (x.flatten(1) - model.b[0].detach()).double()
    numbers, d = W.shape
    pull = weight / (d * model.sd**2)
    return torch.linalg.solve(W.T @ W / numbers + pull * torch.eye(d), (y @ W / numbers + pull * model.mean).T).T.float()


# --- where it ends --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean, sd, weight", [(0.0, 1.0, 0.0), (0.0, 1.0, 0.1), (2.0, 0.25, 0.1), (-3.0, 20.0, 0.02)])
def test_a_linear_decoder_is_inverted_as_in_closed_form(mean, sd, weight):
    model, x = Plain(mean=mean, sd=sd).eval(), samples()
    found = last(invert(model, x, steps=800, prior_weight=weight))
    assert torch.allclose(found.z, ridge(model, x, weight), atol=2e-2 * sd)


def test_what_the_model_drew_is_found_again():
    model = Plain().eval()
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(3))
    found = last(invert(model, Space(model).decode(z), steps=600, prior_weight=0.0))
    assert torch.allclose(found.z, z, atol=0.02) and found.loss.max() < 1e-4


def test_the_loss_is_the_stated_one_and_never_rises():
    model, x = Plain().eval(), samples()
    told = list(invert(model, x, steps=40, prior_weight=0.3))
    assert [t.step for t in told] == list(range(41))
    losses = torch.stack([t.loss for t in told])
    assert losses.shape == (41, 5) and (losses[1:] <= losses[:-1]).all() and (losses[-1] < losses[0]).all()
    end = told[-1]
    error = (Space(model).decode(end.z) - x).square().flatten(1).mean(1) + 0.3 * end.z.square().mean(1)
    assert torch.allclose(end.loss, error, atol=1e-5)


# --- where it starts ------------------------------------------------------------------------------------------------------


def test_without_steps_it_is_the_nearest_draw_of_the_prior():
    model, x = Plain().eval(), samples(2)
    (only,) = invert(model, x, steps=0, seed=4)
    model.noise.seed(4)
    pool = model.prior(256, {})[:64]
    nearest = (Space(model).decode(pool)[None] - x[:, None]).square().flatten(2).mean(2).argmin(1)
    assert torch.allclose(only.z, pool[nearest], atol=1e-6)


def test_a_start_that_is_given_is_taken():
    start = torch.full((5, 3), 0.5)
    (only,) = invert(Plain().eval(), samples(), steps=0, start=start)
    assert torch.allclose(only.z, start)
    assert last(invert(Bare(), torch.ones(1, 2), steps=200, start=torch.tensor([[0.0, 0.5]]))).loss.item() < 1e-3


def test_an_encoder_is_where_it_starts():
    class Encoding(Plain):
        def encode(self, x, c):
            return x.flatten(1)[:, :3]

    (only,) = invert(Encoding().eval(), samples(), steps=0)
    assert torch.allclose(only.z, samples().flatten(1)[:, :3], atol=1e-6)


def test_more_starts_are_never_worse():
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 16))

    class Bent(Plain):
        def decode(self, z, c):
            return self.bend(3 * z).reshape(len(z), *self.shape)

    torch.manual_seed(0)
    bent = Bent().eval()
    bent.bend = model
    one, many = (last(invert(bent, samples(), steps=60, restarts=r)).loss for r in (1, 6))
    assert (many <= one + 1e-6).all()


# --- what it leaves alone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [{}, {"digit": Label(("a", "b", "c", "d"))}], ids=["plain", "labels"])
def test_a_row_does_not_know_its_neighbours(schema):
    model, x = Plain(schema=schema).eval(), samples(4)
    c = {"digit": torch.arange(4)} if schema else {}
    whole = last(invert(model, x, c, steps=20, restarts=2))  # more steps enlarge what batches of another size round otherwise
    for i in range(4):
        alone = last(invert(model, x[i : i + 1], {k: v[i : i + 1] for k, v in c.items()}, steps=20, restarts=2))
        assert torch.allclose(alone.z[0], whole.z[i], atol=1e-5)


def state(model):
    numbers = b"".join(v.detach().numpy().tobytes() for v in model.state_dict().values())
    return hashlib.sha256(numbers).hexdigest(), [(p.requires_grad, p.grad) for p in model.parameters()], model.training


@pytest.mark.parametrize("training", [True, False])
def test_weights_and_mode_stay_even_where_it_is_left_early(training):
    model = Plain().train(training)
    model.b.requires_grad_(False)
    before = state(model)
    for found in invert(model, samples(), steps=20):
        assert state(model) == before, "between two steps, too"
        if found.step == 3:
            break
    assert state(model) == before


def test_it_descends_where_gradients_are_off():
    with torch.no_grad():
        told = list(invert(Plain().eval(), samples(), steps=10))
    assert (told[-1].loss < told[0].loss).all() and not told[-1].z.requires_grad


# --- what cannot be -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, says",
    [
        ({"steps": -1}, "steps is -1"),
        ({"restarts": 0}, "restarts is 0"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"prior_weight": -1.0}, "prior_weight is -1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"x": torch.zeros(2, 1, 5, 5)}, r"\(1, 4, 4\)"),
        ({"x": torch.zeros(0, 1, 4, 4)}, "samples of shape"),
        ({"start": torch.zeros(3, 3)}, "3 latents"),
        ({"start": torch.zeros(5, 3), "restarts": 2}, "one start"),
    ],
)
def test_what_cannot_be_used_is_told_at_once(options, says):
    with pytest.raises(BadInput, match=says):
        invert(Plain(), **{"x": samples(), **options})


def test_a_decoder_without_gradient_and_one_without_a_start_are_named():
    class Cut(Plain):
        def decode(self, z, c):
            return super().decode(z, c).detach()

    with pytest.raises(BadInput, match="Cut decodes without gradient"):
        next(iter(invert(Cut(), samples())))
    with pytest.raises(BadInput, match=r"neither an encoder nor a prior.*start"):
        next(iter(invert(Bare(), torch.zeros(1, 2))))


def test_a_condition_that_is_missing_is_named():
    with pytest.raises(BadInput, match="reads 'digit'"):
        invert(Plain(schema={"digit": Label(("a", "b", "c", "d"))}), samples())


# --- the door, and conditions -----------------------------------------------------------------------------------------------


def test_tools_that_take_a_space_take_an_inverse():
    model = Plain().eval()
    door = Inverse(model, steps=150, prior_weight=0.0, chunk=3)
    x = Space(model).decode(torch.randn(8, 3, generator=torch.Generator().manual_seed(1)))
    z = door.encode(x)
    assert torch.allclose(door.decode(z), x, atol=0.1) and torch.allclose(door.reconstruct(x), x, atol=0.1)
    assert path(z[:1], z[1:2], 5).shape == (5, 1, 3)
    assert synthetic_vector(door, x, None, lambda x: blur(x, 1.0)).direction.shape == (3,)


def test_conditions_that_draw_the_sample_are_found():
    model = Plain(schema={"digit": Label(("a", "b", "c", "d"))}).eval()
    model.W.data *= 0.05
    digits = torch.tensor([2, 0, 3, 1])
    x = Space(model).decode(torch.zeros(4, 3), {"digit": digits})
    candidates = {"digit": torch.arange(4).repeat(3)}
    assert torch.equal(nearest_conditions(model, x, candidates) % 4, digits)
    painter = Painter().eval()
    rows = painter.completed({}, 40, 0)
    x = painter.decode(torch.zeros(3, 256), {k: v[:3] for k, v in rows.items()})
    found = nearest_conditions(painter, x, rows)
    assert torch.equal(rows["stripes"][found], rows["stripes"][:3])
