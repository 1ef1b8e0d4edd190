"""Path lengths, separability, mixing and reciprocity: against closed forms, independent implementations, models with known answers."""

import math

import numpy as np
import pytest
import torch
from torch import Generator, nn

from condgen.conditions import Attributes, Label
from condgen.data import Batch
from condgen.editing.latent import lerp, slerp
from condgen.errors import BadInput
from condgen.evaluation import mixing, path_length, separability
from condgen.evaluation.frechet import frechet
from condgen.evaluation.judge import Judge, random_judge
from condgen.evaluation.measuring import Measuring
from condgen.evaluation.metrics import METRICS, metric_of
from condgen.evaluation.mixing import crossovers, spliced
from condgen.evaluation.path_length import lengths, on_sphere, squared_speeds, trimmed
from condgen.evaluation.perceptual import FLOOR, perceptual
from condgen.evaluation.protocols import chosen, evaluate
from condgen.evaluation.reciprocity import cycle_of, entropy_of
from condgen.evaluation.separability import entropy_given, seen_in, sides, surer_half
from condgen.evaluation.synthesis import AtRest
from condgen.model import Model, Run, Sampler
from condgen.models.stylegan import StyleGAN

STYLED = ["path_length_z", "path_length_w", "separability_z", "separability_w", "mixing_damage"]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


def squared(x, y):
    return (x - y).square().flatten(1).sum(1)


# --- the perceptual distance ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge():
    return random_judge((3, 16, 16))


def by_hooks(judge, x, y):
    """The same by what hooks see of the judge's own pass, place by place."""
    seen = []
    hooks = [m.register_forward_hook(lambda _, __, out: seen.append(out)) for m in judge.net.body if isinstance(m, nn.ReLU)]
    judge.net(torch.cat([x, y]))
    for hook in hooks:
        hook.remove()
    total = np.zeros(len(x))
    for layer in (a.detach().numpy().astype(np.float64) for a in seen if a.dim() == 4):
        rows = np.moveaxis(layer, 1, 3)
        rows = rows / np.sqrt((rows**2).sum(3, keepdims=True) + FLOOR**2)
        total += ((rows[: len(x)] - rows[len(x) :]) ** 2).sum(3).mean((1, 2))
    return total


def test_the_distance_is_that_of_the_judges_own_activations(judge):
    x, y = normal(5, 3, 16, 16), normal(5, 3, 16, 16, seed=1)
    found = perceptual(judge)(x, y)
    assert found.dtype == torch.float64 and found.numpy() == pytest.approx(by_hooks(judge, x, y), rel=1e-5)
    assert perceptual(judge, torch.float32)(x, y).numpy() == pytest.approx(found.numpy(), rel=1e-5)
    assert torch.equal(found, perceptual(judge)(y, x)) and (found > 0.1).all()
    assert (perceptual(judge)(x, x) == 0).all()
    assert judge.id in perceptual(judge).id and "lpips" not in perceptual(judge).id.lower()


def test_the_smallest_steps_are_measured_exactly(judge):
    x, v = normal(8, 3, 16, 16).double(), normal(8, 3, 16, 16, seed=1).double()
    distance = perceptual(judge)
    slopes = [distance(x, x + eps * v) / eps**2 for eps in (1e-4, 1e-6)]
    assert slopes[0].numpy() == pytest.approx(slopes[1].numpy(), rel=0.02)
    assert (distance(x, x + 1e-9 * v) > 0).all(), "nothing is rounded to levels"


def test_a_place_without_activations_has_no_direction(judge):
    dark = torch.zeros(1, 3, 16, 16)  # convolutions have no bias: all activations are 0
    found = perceptual(judge)(dark, dark + 1e-5)
    assert found.isfinite().all() and float(found) < 1e-3, "unit directions would be 1 apart or more"


def test_wrong_pictures_and_judges_are_refused(judge):
    with pytest.raises(BadInput, match=r"\(2, 3, 16, 16\) and \(1, 3, 16, 16\)"):
        perceptual(judge)(torch.zeros(2, 3, 16, 16), torch.zeros(1, 3, 16, 16))
    with pytest.raises(BadInput, match="no convolutions"):
        perceptual(random_judge((2,)))


# --- models whose answers are known ---------------------------------------------------------------------------------------

SIDES = (2, 4, 8)


class Linear(Sampler):
    """w = scale z (+ a condition), layer i draws a third of the rows of an orthonormal map of its w; E is the inverse.

    `warp` bends z -> w; `deaf`: only the first layer counts; `wrong` is what is added to E(x); untrained, another scale and no encoder.
    """

    d = 12

    def __init__(self, shape=(1, 8, 8), schema=None, scale=0.1, warp=False, deaf=False, wrong=0.0):
        super().__init__(shape, schema or {})
        self.scale, self.warp, self.deaf, self.wrong = scale, warp, deaf, wrong
        self.basis = nn.Parameter(torch.linalg.qr(normal(math.prod(shape), self.d))[0])
        self.options = {"scale": 0.0, "wrong": 10.0}
        self.psi = 1.0

    layer_sides = property(lambda self: SIDES)

    def turns(self, batch, step):
        yield {}

    def z_prior(self, n):
        return self.noise.normal(n, self.d)

    def draw_noise(self, n):
        return []

    def mapping(self, z, c):
        w = torch.cat([z[:, :1] * (3 * z[:, 1:2]).sin(), z[:, 1:]], 1) if self.warp else z
        shift = sum(v.to(z.dtype).reshape(len(z), -1)[:, :1] for v in c.values()) if c else 0
        return self.scale * w + shift + (0.01 * z if self.scale == 0 else 0)

    def synthesis(self, w, noise=None):
        w = w[:, None].expand(-1, len(SIDES), -1) if w.dim() == 2 else w
        if self.deaf:
            w = w[:, :1].expand_as(w)
        own = torch.arange(self.d) * len(SIDES) // self.d  # which layer draws which number
        return (w[:, own, torch.arange(self.d)] @ self.basis.T).reshape(-1, *self.shape)

    def truncate(self, w, c, psi):
        return psi * w

    def prior(self, n, c):
        return self.mapping(self.z_prior(n), c)

    def decode(self, z, c):
        return self.synthesis(z).clamp(-1, 1)

    def encode(self, x, c):
        return x.flatten(1) @ self.basis + self.wrong


class Rows:
    """What a model draws, with two attributes: its first number is above 0, or its second; and a third that hardly any has."""

    schema = {"looks": Attributes(("first", "second", "rare"), binary=(True,) * 3), "kind": Label(("below", "above"))}
    shape = (1, 8, 8)

    def __init__(self, n, seed, model=None):
        model = model or Linear()
        w = model.mapping(normal(n, Linear.d, seed=seed + 10), {})
        self.x = model.decode(w, {}).detach()
        looks = torch.stack([w[:, 0] > 0, w[:, 1] > 0, w[:, 2] > 0.3], 1).float()
        self.c = {"looks": looks, "kind": (w[:, 3] > 0).long()}
        self.fingerprint = f"{type(model).__name__}-{n}-{seed}"

    def __len__(self):
        return len(self.x)

    def values(self, rows=None):
        return {k: v if rows is None else v[rows] for k, v in self.c.items()}

    def batch(self, rows):
        return Batch(self.x[rows], self.values(rows))


TRAIN, TEST = Rows(400, 0), Rows(500, 1)
RUN = Run("fake", "rows")


def measured(model, names, n=400, train=TRAIN, test=TEST):
    return evaluate(model, RUN, metrics=names, n=n, train=train, test=test)["metrics"]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(path_length, "PAIRS", 120)
    monkeypatch.setattr(path_length, "CONTROL_PAIRS", 40)
    monkeypatch.setattr(separability, "DRAWN", 2000)


# --- path lengths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [False, True])
def test_the_length_of_a_chord_is_the_distance_of_its_ends(end):
    t = torch.zeros(60) if end else torch.rand(60, generator=Generator().manual_seed(3))
    model = Linear(scale=2.0)
    z = AtRest(model, torch.float64).latents(60, 7, 2)
    expected = 4 * (z[0] - z[1]).square().sum(1)
    assert lengths(model, {}, t, "w", squared, seed=7).numpy() == pytest.approx(expected.numpy(), rel=1e-5)
    many = lengths(model, {}, torch.zeros(20_000), "w", squared)
    assert float(many.mean()) == pytest.approx(4 * 2 * Linear.d, rel=0.02)


def test_the_length_of_an_arc_is_its_angle_times_the_radius():
    model, t = Linear(scale=2.0), torch.rand(60, generator=Generator().manual_seed(3))
    a, b = (v.numpy() for v in AtRest(model, torch.float64).latents(60, 7, 2))
    theta = np.arccos((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
    assert lengths(model, {}, t, "z", squared, seed=7).numpy() == pytest.approx(4 * Linear.d * theta**2, rel=1e-5)
    assert on_sphere(torch.from_numpy(a)).norm(dim=1).numpy() == pytest.approx(Linear.d**0.5)


def test_latents_are_not_the_numbers_that_the_weights_were_drawn_as():
    """Built and measured with seed 0, a mapping would meet its own rows."""
    torch.manual_seed(0)
    model = StyleGAN((3, 8, 8), {}, z_dim=64, width=4, widest=8, depth=1)
    (z,) = AtRest(model).latents(64, seed=0)
    weight = model.F.layers[0].weight.detach() * model.F.layers[0].lr_mul
    cosine = torch.nn.functional.cosine_similarity(z[:, None], weight[None], dim=2)
    assert cosine.abs().max() < 0.7
    assert torch.allclose(torch.randn(64, 64, generator=Generator().manual_seed(0)), weight), "the plain seed gives the weights themselves"


def test_both_ends_of_a_pair_have_its_conditions():
    c, t = {"looks": normal(60, 1)}, torch.full((60,), 0.4)
    schema = {"looks": Attributes(("first",), (-5.0,), (5.0,))}
    plain, told = Linear(), Linear(schema=schema)
    assert torch.allclose(lengths(plain, {}, t, "w", squared), lengths(told, c, t, "w", squared), rtol=1e-6)
    assert torch.allclose(lengths(plain, {}, t, "z", squared), lengths(told, c, t, "z", squared), rtol=1e-6)


def test_speeds_of_a_known_curve():
    """d/dt of (t^2, ...) along a chord from 0 to 1 is 2t: an eps of 1e-4 sees it to 1e-4 t^-1."""
    t = torch.tensor([0.25, 0.5, 1.0])
    found = squared_speeds(lambda z, _: z**2, torch.zeros(3, 1).double(), torch.ones(3, 1).double(), t, lerp, squared, chunk=2)
    assert found.tolist() == pytest.approx([(2 * v + 1e-4) ** 2 for v in t.tolist()], rel=1e-8)
    with pytest.raises(BadInput, match="eps is 0"):
        squared_speeds(lambda z, _: z, torch.zeros(3, 1), torch.ones(3, 1), t, slerp, squared, eps=0)


@pytest.mark.parametrize("n", [2, 57, 100, 101, 2000])
def test_the_tails_are_those_of_the_released_code(n):
    found = normal(n).double().exp()
    low, high = np.percentile(found, 1, method="lower"), np.percentile(found, 99, method="higher")
    kept = found.numpy()[(found >= low) & (found <= high)]
    assert trimmed(found).mean == pytest.approx(kept.mean(), rel=1e-12)
    assert trimmed(found).standard_error == pytest.approx(kept.std(ddof=1) / len(kept) ** 0.5) and trimmed(found).n == n
    with pytest.raises(BadInput, match="at least 2"):
        trimmed(found[:1])


def test_a_mapping_that_bends_makes_the_way_through_z_longer():
    """w1 = z1 sin(3 z2): by that a step in z moves w1 by 1/2 + 9/2 of what it moves others; two draws are half as far apart."""
    t = torch.rand(2000, generator=Generator().manual_seed(0))
    found = {(space, warp): float(lengths(Linear(scale=1.0, warp=warp), {}, t, space, squared).mean()) for space in "zw" for warp in (0, 1)}
    assert found["w", 1] == pytest.approx(2 * 11.5, rel=0.03) and found["w", 0] == pytest.approx(2 * 12, rel=0.03)
    assert found["z", 1] / found["z", 0] == pytest.approx(16 / 12, rel=0.1)


def test_path_lengths_of_a_model():
    found = measured(Linear(), ["path_length_z", "path_length_w"])
    assert list(found) == ["path_length_z", "path_length_z/end", "path_length_w", "path_length_w/end"]
    for entry in found.values():
        assert entry["n"] == 120 and entry["ceiling"] is None and entry["control"] < entry["value"], "nearly one picture"
        assert "|perceptual on judge-v2:" in entry["provenance"] and "s.e.=" in entry["provenance"]
    assert "|full: t in [0,1]|" in found["path_length_z"]["provenance"] and "|end: t=0|" in found["path_length_z/end"]["provenance"]


def test_a_model_is_not_changed_by_its_copy_in_float64():
    model = Linear()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    lengths(model, {}, torch.zeros(4), "w", squared)
    assert model.basis.dtype == torch.float32 and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training


def test_a_generator_of_nets_is_measured_finely_enough(judge):
    torch.manual_seed(0)
    model, t = StyleGAN((3, 16, 16), {}, z_dim=8, width=4, widest=8, depth=2).eval(), torch.linspace(0, 0.9, 16)
    for space, way in (("w", lerp), ("z", slerp)):
        at = AtRest(model, torch.float64)
        a, b = (at.mapping(z, {}) if space == "w" else on_sphere(z) for z in at.latents(16, 0, 2))
        draw = (lambda w, _, at=at: at.draw(w)) if space == "w" else (lambda z, _, at=at: at.draw(at.mapping(z, {})))
        coarse = squared_speeds(draw, a, b, t, way, perceptual(judge), eps=1e-3)
        fine = lengths(model, {}, t, space, perceptual(judge))
        assert float(fine.median()) == pytest.approx(float(coarse.median()), rel=0.05) and float(fine.median()) > 0


# --- separability ---------------------------------------------------------------------------------------------------------


def test_conditional_entropy_is_that_of_sklearn():
    from sklearn.metrics import mutual_info_score

    x, y = normal(300) > 0.3, normal(300) + normal(300, seed=1) > 0
    share = float(y.double().mean())
    h = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert entropy_given(x, y) == pytest.approx(h - mutual_info_score(x, y), abs=1e-12)
    assert entropy_given(y, y) == entropy_given(~y, y) == 0
    assert entropy_given(torch.zeros_like(y), y) == pytest.approx(h)


def test_a_plane_tells_sides_whatever_the_scale():
    x = normal(400, 3)
    has = x[:, 0] + 0.5 * x[:, 1] > 0.4
    scaled = x * torch.tensor([1e-4, 1.0, 1e3]) + 5
    assert float((sides(x, has) == has).double().mean()) > 0.98
    assert torch.equal(sides(scaled, has), sides(x, has))
    crossed = (x[:, 0] * x[:, 1]) > 0
    assert entropy_given(sides(x, crossed), crossed) > 0.65, "no plane tells it"
    with pytest.raises(BadInput, match="3 rows on one side"):
        sides(x, torch.arange(400) < 3)


def test_an_svm_speaks_of_rows_that_it_was_not_fitted_to():
    x, has = normal(60, 200), torch.arange(60) % 2 == 0
    assert 0.25 < float((sides(x, has) == has).double().mean()) < 0.75, "a fit of its own rows would be perfect"


def test_the_surer_half():
    assert surer_half(torch.tensor([0.1, 0.9, 0.5, 0.9, 0.2])).tolist() == [1, 3]


class Said(nn.Module):
    """A judge's net that says what it is shown."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return {"looks": x[:, :2], "kind": x[:, 2:]}


def test_what_the_judge_sees_and_how_sure_it_is():
    schema = {"looks": Attributes(("a", "b"), binary=(True, False)), "kind": Label(("a", "u", "v"))}
    real = torch.tensor([[5.0, 0.0], [5.0, 0.7], [5.0, 0.8]])  # the median of b; 0 and 1 have a half
    x = torch.tensor([[0.5, -0.2, 3.0, 0.0, 0.0], [-0.1, 0.9, 0.0, 0.1, 0.0]])
    found = seen_in(Judge(Said(), schema, "said"), x, real)
    assert list(found) == ["a", "b", "kind.a", "u", "v"]
    assert found["a"].has.tolist() == [True, False] and found["a"].sure.tolist() == pytest.approx([0.5, 0.1])
    assert found["b"].has.tolist() == [False, True] and found["b"].sure.tolist() == pytest.approx([0.9, 0.2])
    assert found["kind.a"].has.tolist() == [True, False] and found["u"].has.tolist() == [False, True]
    assert torch.equal(found["u"].sure, found["v"].sure) and found["u"].sure[0] > found["u"].sure[1]
    with pytest.raises(BadInput, match="attributes or a label"):
        seen_in(random_judge((1, 8, 8)), torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))


def test_a_bent_mapping_is_separable_in_w_and_not_in_z():
    """The sign of w's first number is that of z1 sin(3 z2): no plane of z tells it. All else is told in both."""
    found = measured(Linear(warp=True), ["separability_z", "separability_w"])
    z, w = (found[f"separability_{space}"] for space in "zw")
    assert w["value"] < 1.5 < 1.7 < z["value"] < z["control"] and w["control"] == z["control"]
    assert z["ceiling"] == 1 and z["n"] == 1000
    assert "|attributes=4|left out for rarity: rare|" in z["provenance"], "two of the attributes, and two classes"
    assert found["separability_z/mean"]["value"] == pytest.approx(z["value"] ** 0.25)
    assert found["separability_w/mean"]["control"] == pytest.approx(w["control"] ** 0.25)
    with pytest.raises(BadInput, match="nothing to part"):
        measured(Linear(scale=1e-9), ["separability_w"])


# --- mixing ---------------------------------------------------------------------------------------------------------------


def test_crossovers_are_even_different_and_rising():
    one, three = crossovers(9000, 4, 2, 0), crossovers(300, 4, 4, 0)
    counts = one.flatten().bincount(minlength=4)
    assert counts[0] == 0 and (counts[1:] - 3000).abs().max() < 200
    assert torch.equal(three, torch.tensor([1, 2, 3]).expand(300, 3))
    assert crossovers(5, 4, 1, 0).shape == (5, 0)


def test_layers_are_those_of_their_latents():
    w = torch.tensor([0.0, 1.0, 2.0])[:, None, None].expand(3, 2, 1)
    found = spliced(w, torch.tensor([[1, 3], [2, 3]]), 4)[..., 0]
    assert found.tolist() == [[0, 1, 1, 2], [0, 0, 1, 2]]


def test_mixing_costs_nothing_where_layers_do_not_listen():
    entry = measured(Linear(deaf=True), ["mixing_damage"])
    assert entry["mixing_damage"]["value"] == 0 and entry["mixing_damage"]["ceiling"] == 0
    assert entry["mixing_damage/one"]["value"] == entry["mixing_damage/two"]["value"] == entry["mixing_damage/three"]["value"]


class Agreeing(Linear):
    """Numbers of different layers are one and the same in every sample: those of two latents together are something new."""

    def mapping(self, z, c):
        return super().mapping(z[:, :4].repeat(1, 3), c)


def test_mixing_costs_most_where_layers_go_together():
    free = measured(Linear(), ["mixing_damage"])
    rows = {"train": Rows(400, 0, Agreeing()), "test": Rows(500, 1, Agreeing())}
    bound = measured(Agreeing(), ["mixing_damage"], **rows)
    names = ["mixing_damage", "mixing_damage/one", "mixing_damage/two", "mixing_damage/three"]
    assert list(bound) == names, "three layers have no four latents"
    assert abs(free["mixing_damage"]["value"]) < 0.1 * bound["mixing_damage"]["value"]
    assert bound["mixing_damage"]["value"] == bound["mixing_damage/two"]["value"] - bound["mixing_damage/one"]["value"]
    assert bound["mixing_damage/three"]["value"] > bound["mixing_damage/two"]["value"]
    assert free["mixing_damage"]["control"] > 3 * abs(free["mixing_damage"]["value"]), "means of two pictures have half the variance"


def test_one_layer_cannot_be_mixed(monkeypatch):
    monkeypatch.setattr(Linear, "layer_sides", property(lambda self: (1,)))
    with pytest.raises(BadInput, match="Linear has 1 layer"):
        measured(Linear(), ["mixing_damage"])


def test_not_more_samples_than_are_needed(monkeypatch):
    monkeypatch.setattr(mixing, "MOST", 100)
    assert measured(Linear(), ["mixing_damage"])["mixing_damage"]["n"] == 100


# --- reciprocity ----------------------------------------------------------------------------------------------------------


def test_the_cycle_of_known_errors():
    w = torch.tensor([[1.0, 0.0], [-1.0, 4.0]])  # variances 1 and 4
    assert cycle_of(w, w) == (0, 2.5)
    assert cycle_of(w, w + torch.tensor([1.0, 2.0])) == (1, 2.5)
    assert cycle_of(w, w.mean(0, keepdim=True).expand(2, 2))[0] == 1, "the mean alone"
    with pytest.raises(BadInput, match="all of 3 draws"):
        cycle_of(torch.ones(3, 2), torch.ones(3, 2))


def test_a_perfect_encoder_has_no_cycle_error():
    found, wrong = measured(Linear(), ["latent_cycle"]), measured(Linear(wrong=0.1), ["latent_cycle"])
    assert found["latent_cycle"]["value"] < 1e-10 and found["latent_cycle"]["control"] > 100
    assert found["latent_cycle/variance"]["value"] == pytest.approx(0.01, rel=0.1)
    assert wrong["latent_cycle"]["value"] == pytest.approx(0.01 / wrong["latent_cycle/variance"]["value"], rel=1e-3)
    assert not METRICS["latent_cycle"].higher and metric_of("latent_cycle/variance").higher


def test_reconstructions_are_compared_as_samples_are():
    found, wrong = (measured(Linear(wrong=v), ["reconstruction_frechet"]) for v in (0.0, 0.5))
    entry, ratio = found["reconstruction_frechet"], found["reconstruction_frechet/ratio"]
    assert entry["value"] == pytest.approx(entry["ceiling"], rel=1e-3) and entry["n"] == 400
    assert ratio["value"] == pytest.approx(1, abs=0.5) and ratio["control"] > 5
    assert wrong["reconstruction_frechet"]["value"] > 2 * entry["value"]
    m = Measuring(Linear(), RUN, n=400, train=TRAIN, test=TEST)
    rows, samples = (m.judge.features(x) for x in (m.stand_in.x, m.natural))
    assert len(rows) == len(samples) == 400
    assert entry["value"] / ratio["value"] == pytest.approx(frechet(rows, samples), rel=1e-6), "of samples to those same training rows"


def test_the_entropy_of_known_shares():
    assert entropy_of(torch.arange(70) % 7) == pytest.approx(math.log(7))
    assert entropy_of(torch.full((9,), 4)) == 0
    assert entropy_of(torch.tensor([0, 2, 2, 2])) == pytest.approx(math.log(4) - 0.75 * math.log(3))


def test_the_classes_of_samples():
    entry = measured(Linear(), ["class_entropy"])["class_entropy"]
    assert entry["value"] == pytest.approx(math.log(2), abs=0.02) and entry["ceiling"] == pytest.approx(math.log(2), abs=0.02)
    assert "|label=kind|nats|n=400|" in entry["provenance"] and METRICS["class_entropy"].higher


# --- who may be measured --------------------------------------------------------------------------------------------------


def test_each_is_refused_where_it_cannot_be():
    class Blind(Model):
        def turns(self, batch, step):
            yield {}

    class Unlabelled(Rows):
        schema = {}

        def values(self, rows=None):
            return {}

    class Encoder(Blind):
        def encode(self, x, c): ...

    for name in STYLED:
        with pytest.raises(BadInput, match="no `synthesis`"):
            chosen(Encoder((1, 8, 8), {}), [name])
    with pytest.raises(BadInput, match="no `encode` or no `synthesis`"):
        chosen(Encoder((1, 8, 8), {}), ["latent_cycle"])
    assert METRICS["latent_cycle"].refusal(Linear()) is None
    bare = (Unlabelled(50, 0), Unlabelled(50, 1))
    for name in ("separability_w", "class_entropy"):
        with pytest.raises(BadInput, match=r"needs (attributes or )?a label"):
            evaluate(Linear(), RUN, metrics=[name], n=50, train=bare[0], test=bare[1])
    with pytest.raises(BadInput, match="space is 'w\\+'"):
        lengths(Linear(), {}, torch.zeros(2), "w+", squared)
    names = [*STYLED, "latent_cycle", "reconstruction_frechet", "class_entropy"]
    assert all(METRICS[name].asked_only for name in names) and not set(names) & set(chosen(Linear(), None))


@pytest.mark.parametrize("psi", [0.7, 0.0, math.nan])
def test_a_truncated_model_is_refused(psi):
    model = Linear()
    model.psi = psi
    with pytest.raises(BadInput, match=f"psi is {psi}; metrics are taken at 1"):
        measured(model, ["path_length_w"])


def test_pictures_that_are_not_finite_are_refused():
    model = Linear()
    with torch.no_grad():
        model.basis[0, 0] = math.nan
    for name in STYLED:
        with pytest.raises(BadInput, match="not finite"):
            measured(model, [name])


def test_a_stylegan_is_measured_whole():
    torch.manual_seed(0)
    model = StyleGAN((1, 8, 8), {"kind": Rows.schema["kind"]}, z_dim=8, width=4, widest=8, depth=2)
    found = measured(model, ["path_length_z", "path_length_w", "mixing_damage", "class_entropy"], n=100)
    assert all(math.isfinite(entry["value"]) for entry in found.values())
    assert "|given kind|" in found["path_length_w"]["provenance"] and found["mixing_damage/four"]["n"] == 100
