"""A style-based model through z, w and w+: one and the same model; and layers of one picture in another."""

import itertools

import pytest
import torch

from condgen.editing.inversion import Inverse, invert, last
from condgen.editing.latent import path
from condgen.editing.space import Space
from condgen.editing.views import SPACES, bands, crossed, has_styles, layers_of, lifted, own_space, truncate_by, view
from condgen.errors import BadInput
from condgen.model import capabilities
from condgen.models.alae import ALAE, StyleALAE
from condgen.models.stylegan import StyleGAN
from condgen.models.vae import VAE
from styled import DIGIT, rows_of, styled

KINDS = [(cls, schema) for cls in (StyleGAN, StyleALAE) for schema in ({}, {"digit": DIGIT})]


def model_of(kind):
    return styled(*kind)


every = pytest.mark.parametrize("kind", KINDS, ids=["gan", "gan-digit", "alae", "alae-digit"])


# --- one model --------------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("psi", [1.0, 0.6])
def test_every_space_draws_the_same_samples(kind, space, psi):
    model = model_of(kind)
    model.psi = psi
    x = model.sample(n=5, seed=3)
    assert x.std(0).mean() > 0.05, "they differ"
    assert torch.allclose(view(model, space).sample(n=5, seed=3), x, atol=1e-5)


@every
@pytest.mark.parametrize("have, want", list(itertools.combinations_with_replacement(SPACES, 2)))
def test_latents_lifted_draw_the_same(kind, have, want):
    model = model_of(kind)
    model.psi = 0.8
    c = rows_of(model, 4)
    z = view(model, have).prior(4, c)
    up = lifted(model, z, c, have, want)
    assert up.shape == {"z": (4, 6), "w": (4, 6), "w+": (4, 6, 6)}[want]
    assert torch.allclose(view(model, want).decode(up, c), view(model, have).decode(z, c), atol=1e-5)


def test_the_own_space_is_the_model_itself():
    plain, alae, vae = styled(), styled(StyleALAE), VAE((1, 8, 8), hidden=(8,), z_dim=2)
    assert [own_space(m) for m in (plain, alae, vae)] == ["z", "w", "z"]
    assert view(plain, None) is plain and view(plain, "z") is plain and view(alae, "w") is alae and view(vae, "z") is vae
    assert has_styles(plain) and not has_styles(vae)
    assert view(view(alae, "w+"), "w") is alae and view(view(plain, "w"), "w+").model is plain


@pytest.mark.parametrize("space", ["w", "w+"])
def test_a_view_is_the_model_in_all_but_the_latent(space):
    model = styled(schema={"digit": DIGIT})
    model.facts, model.rows = {"step": 7}, {"digit": torch.tensor([3, 3, 4])}
    seen = view(model, space)
    assert seen.schema == model.schema and seen.shape == model.shape and seen.facts == {"step": 7} and seen.device == model.device
    assert torch.equal(seen.rows["digit"], model.rows["digit"]) and seen.noise is model.noise and seen.walk == "lerp"
    assert not seen.training and view(styled().train(), space).training
    assert {p.data_ptr() for p in seen.parameters()} == {p.data_ptr() for p in model.parameters()}
    assert capabilities(seen) == ["sample", "decode"]


def test_an_encoder_gives_its_w_to_every_layer():
    model = styled(StyleALAE)
    x = torch.rand(3, 1, 16, 16)
    w, up = Space(model).encode(x), Space(view(model, "w+")).encode(x)
    assert up.shape == (3, 6, 6) and all(torch.equal(up[:, i], w) for i in range(6))
    assert torch.allclose(Space(view(model, "w+")).reconstruct(x), Space(model).reconstruct(x), atol=1e-5)
    assert "encode" not in capabilities(view(model, "z"))


def test_a_model_of_one_layer_has_all_spaces():
    model = ALAE((1, 8, 8), z_dim=4, hidden=(8,), depth=1).eval()
    x = model.sample(n=3, seed=0)
    for space in SPACES:
        assert torch.allclose(view(model, space).sample(n=3, seed=0), x, atol=1e-5)
    assert view(model, "w+").prior(3, {}).shape == (3, 1, 4)


def test_w_and_w_plus_are_drawn_whatever_the_conditions():
    model = styled(schema={"digit": DIGIT})
    for space in ("w", "w+"):
        seen = view(model, space)
        z = seen.prior(1, {"digit": torch.tensor([2])})
        assert torch.equal(*(seen.decode(z, {"digit": torch.tensor([d])}) for d in (2, 5)))
        assert not torch.allclose(z, lifted(model, model.z_prior(1), {"digit": torch.tensor([2])}, "z", space)), "another draw"


# --- tools take it ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["w", "w+"])
@pytest.mark.parametrize("kind", [KINDS[1], KINDS[2]], ids=["gan-digit", "alae"])
def test_a_picture_of_the_model_is_found_in_w_and_w_plus(kind, space):
    model = model_of(kind)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    c, seen = rows_of(model, 2), view(model, space)
    z = seen.prior(2, c)
    start = torch.lerp(z, seen.prior(2, c), 0.3)
    first, *_, end = invert(seen, seen.decode(z, c), c, steps=60, start=start, prior_weight=0.0, lr=0.05)
    assert end.z.shape == start.shape and (end.loss < 0.1 * first.loss).all()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_more_freedom_comes_nearer():
    """A picture that has another w in each layer: one w cannot draw it."""
    model = styled()
    x = view(model, "w+").decode(torch.cat([view(model, "w+").prior(1, {})[:, :3], view(model, "w+").prior(1, {})[:, 3:]], 1), {})
    found = {s: float(last(invert(view(model, s), x, steps=60, prior_weight=0.0, seed=1)).loss) for s in ("w", "w+")}
    assert found["w+"] < 0.3 * found["w"]


def test_walks_and_descents_run_in_any_space():
    model = styled(schema={"digit": DIGIT})
    c, x = rows_of(model, 2), model.sample(n=2, seed=0)
    for space in SPACES:
        door = Inverse(view(model, space), steps=2)
        z = door.encode(x, c)
        way = path(z[:1], z[1:], 3, door.model.walk)[:, 0]
        assert way.shape == (3, *z.shape[1:]) and torch.equal(way[0], z[0])
        assert door.decode(way, {"digit": c["digit"][:1]}).shape == (3, 1, 16, 16)


# --- truncation -------------------------------------------------------------------------------------------------------------


def test_psi_0_is_one_picture_and_minus_1_the_other_side():
    model = styled()
    w = view(model, "w").prior(4, {})
    truncate_by(model, 0.0)
    x = model.sample(n=4, seed=0)
    assert x.std(0).max() < 1e-6 and torch.allclose(x[:1], model.synthesis(model.w_mean[None]).clamp(-1, 1), atol=1e-5)
    truncate_by(model, -1.0)
    model.noise.seed(5)
    turned = view(model, "w").prior(4, {})
    truncate_by(model, 1.0)
    model.noise.seed(5)
    w = view(model, "w").prior(4, {})
    assert torch.allclose((w + turned) / 2, model.w_mean.expand(4, -1), atol=1e-5) and not torch.allclose(w, turned)


@pytest.mark.parametrize("psi", [float("nan"), float("inf"), -11.0])
def test_a_psi_out_of_range_is_named(psi):
    model = styled()
    with pytest.raises(BadInput, match=r"--psi is .*; expected a number from -10 to 10"):
        truncate_by(model, psi)
    assert model.psi == 1.0


@every
def test_samples_come_nearer_to_each_other_with_psi(kind):
    """The mean distance of two samples falls at each step, and is 0 at the end: below each condition, where one is read."""
    model, apart = model_of(kind), []
    c = {"digit": ["4"] * 12} if model.schema else {}
    for psi in (1.0, 0.8, 0.6, 0.4, 0.2, 0.0):
        truncate_by(model, psi)
        apart.append(float(torch.pdist(model.sample(c, n=12, seed=2).flatten(1)).mean()))
    assert all(a > 1.05 * b for a, b in itertools.pairwise(apart)) and apart[-1] < 1e-3 * apart[0], apart


@every
def test_a_few_layers_are_truncated_alone(kind):
    """In the view w+ (in z, of a model whose own they are): the first layers are those of the mean, the others have not moved."""
    model = model_of(kind)
    c = rows_of(model, 4)
    model.noise.seed(5)
    free = view(model, "w+").prior(4, c)
    truncate_by(model, 0.0, 2)
    model.noise.seed(5)
    near = view(model, "w+").prior(4, c)
    assert torch.equal(near[:, 2:], free[:, 2:]) and torch.allclose(
        near[:, :2], model.mean_under(c, 4)[:, None].expand(-1, 2, -1), atol=1e-6
    )
    model.noise.seed(5)
    z = model.z_prior(4)
    assert torch.allclose(view(model, "z").decode(z, c), view(model, "w+").decode(near, c), atol=1e-5)
    with pytest.raises(BadInput, match="truncated in 2 layers alone, a sample has several w, which w cannot tell"):
        lifted(model, z, c, "z", "w")
    truncate_by(model, 0.5)
    assert model.psi_layers is None, "of all layers again"


@pytest.mark.parametrize("layers", [-1, 7])
def test_a_cut_that_there_is_not_is_named(layers):
    model = styled()
    with pytest.raises(BadInput, match=f"--psi-layers is {layers}; expected a whole number of at"):
        truncate_by(model, 0.5, layers)
    assert model.psi == 1.0 and model.psi_layers is None


# --- bounds -----------------------------------------------------------------------------------------------------------------


# --- layers -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sides, expected",
    [
        (
            [s for s in (4, 8, 16, 32, 64, 128, 256, 512, 1024) for _ in "ab"],
            ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15, 16, 17]),
        ),
        ([4, 4, 8, 8, 16, 16, 32, 32, 64, 64], ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9])),
        ([4, 4, 8, 8, 16, 16, 32, 32], ([0, 1, 2, 3], [4, 5], [6, 7])),
        ([7, 7, 14, 14, 28, 28], ([0, 1], [2, 3], [4, 5])),
        ([4, 4, 8, 8], ([], [0, 1], [2, 3])),
        ([1], ([], [], [0])),
    ],
)
def test_bands(sides, expected):
    assert bands(sides) == {k: v for k, v in zip(("coarse", "middle", "fine"), expected, strict=True) if v}


def test_layers_are_named_by_band_number_or_range():
    sides = (4, 4, 8, 8, 16, 16, 32, 32)
    assert layers_of(sides, "middle") == [4, 5] and layers_of(sides, "7") == [7]
    assert layers_of(sides, "0-3") == layers_of(sides, "coarse") and layers_of(sides, "6, 0-2,1") == [0, 1, 2, 6]


@pytest.mark.parametrize("word", ["fin", "8", "3-1", "-1", "0-", "", "1.5", "0,,2", "0-8", "²"])
def test_layers_that_there_are_not_are_named(word):
    with pytest.raises(BadInput, match="expected coarse, middle, fine, or numbers such as 0 or 0-3, from 0 to 7"):
        layers_of((4, 4, 8, 8, 16, 16, 32, 32), word)
    with pytest.raises(BadInput, match=r"expected fine, or numbers"):
        layers_of((1,), "coarse")


def test_crossing_takes_the_named_layers_of_the_style_and_all_others_of_the_source():
    sources, styles = torch.randn(2, 5, 3), torch.randn(4, 5, 3)
    found = crossed(sources, styles, [1, 4])
    assert found.shape == (2, 4, 5, 3)
    for i, j, layer in itertools.product(range(2), range(4), range(5)):
        assert torch.equal(found[i, j, layer], (styles[j] if layer in (1, 4) else sources[i])[layer])


# --- what cannot be used ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_seen_is_named():
    model, vae = styled(), VAE((1, 8, 8), hidden=(8,), z_dim=2)
    with pytest.raises(BadInput, match=r"unknown space 'w\+\+': did you mean 'w\+'"):
        view(model, "w++")
    with pytest.raises(BadInput, match=r"the space w\+ needs styles: VAE has no `synthesis` .*stylegan and alae"):
        view(vae, "w+")
    with pytest.raises(BadInput, match=r"truncation .* needs styles: VAE"):
        truncate_by(vae, 0.5)
    with pytest.raises(BadInput, match=r"latents of w\+ cannot be told in w, only the other way.*--space w\+"):
        lifted(model, torch.zeros(1, 6, 6), {}, "w+", "w")
    with pytest.raises(BadInput, match="a view is not trained: train the StyleGAN itself"):
        next(view(model, "w").turns(None, 0))


@pytest.mark.parametrize("space, shape", [("w", (2, 6, 6)), ("w", (6,)), ("w+", (2, 6)), ("w+", (2, 5, 6))])
def test_latents_of_another_space_are_refused_by_their_shape(space, shape):
    with pytest.raises(BadInput, match=r"latents of shape .*; in w.* they are \(b, "):
        view(styled(), space).decode(torch.zeros(shape), {})
