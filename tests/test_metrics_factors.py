"""What layers and noise control: a model whose coarse layer places two spots and whose fine layer tints, and its faults.

Pictures of 16 px: two bright spots, one to the left and one to the right of the middle, as far apart and as oblique as two numbers say,
on a ground whose colour a third gives. The key points are the spots and a ghost that is in no pixel.
"""

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from condgen.conditions import Keypoints, Label, Schema
from condgen.data import Batch
from condgen.data.cache import data_folder
from condgen.errors import BadInput
from condgen.evaluation import factors as reading
from condgen.evaluation.factors import Factors, axes_of, colour_names, colours_of, factors_for, r_squared
from condgen.evaluation.layers import cuts_of, decided, high_share, jittered, noise_effect, power_of, style_factors
from condgen.evaluation.measuring import OUTCOMES, Measuring
from condgen.evaluation.protocols import chosen, evaluate
from condgen.evaluation.synthesis import AtRest
from condgen.model import Run, Sampler

SHAPE, SIDE = (3, 16, 16), 16
POINTS = Keypoints(("left", "right", "ghost"))
RUN = Run(model="fake", data="spots")
GRID = (torch.arange(SIDE) + 0.5) / SIDE


def spots_at(numbers: Tensor) -> Tensor:
    """Places (n, 2, 2) of the spots, of numbers (n, 3) ~ N(0, 1): half their distance, their slope; the third is the tint."""
    apart, slope = 0.22 + 0.05 * numbers[:, 0].clamp(-3, 3), 0.03 * numbers[:, 1].clamp(-3, 3)
    half = torch.stack([apart, slope], 1)
    return 0.5 + torch.stack([-half, half], 1)


def spotted(numbers: Tensor) -> Tensor:
    """Pictures (n, 3, 16, 16): the same spots in each channel; red and blue differ by 0.1 times the tint, in [0, 1]; nothing is clipped."""
    at = spots_at(numbers)
    across, down = ((GRID - at[:, :, i, None]).square() / 0.006 for i in (0, 1))
    light = torch.exp(-(across[:, :, None, :] + down[:, :, :, None])).sum(1)
    tint = (0.1 * numbers[:, 2].clamp(-3, 3))[:, None] * torch.tensor([1.0, 0.0, -1.0])
    return (light - 0.5)[:, None] + tint[:, :, None, None]


class Spots:
    """A data set of n rows. Where `points` is not set, it has no key points."""

    shape = SHAPE

    def __init__(self, n: int, seed: int, points: bool = True, hidden: float = 0.0):
        generator = Generator().manual_seed(seed)
        numbers = torch.randn(n, 3, generator=generator)
        places = torch.cat([spots_at(numbers), torch.rand(n, 1, 2, generator=generator)], 1)
        places = places + 0.1 * torch.randn(n, 1, 2, generator=generator)  # where the thing is, is no factor
        seen = (torch.rand(n, 3, 1, generator=generator) >= hidden).float()
        kind = torch.arange(n) % 2
        self.x, self.c = spotted(numbers), {"points": torch.cat([places, seen], 2), "kind": kind}
        self.schema: Schema = {"points": POINTS, "kind": Label(("a", "b"))} if points else {"kind": Label(("a", "b"))}
        self.fingerprint = f"spots-{n}-{seed}-{points}-{hidden}"

    def __len__(self) -> int:
        return len(self.x)

    def values(self, rows=None):
        return {k: self.c[k] if rows is None else self.c[k][rows] for k in self.schema}

    def batch(self, rows) -> Batch:
        return Batch(self.x[rows], self.values(rows))


TRAIN, TEST = Spots(256, 0), Spots(200, 1)


class Speckled(Sampler):
    """w are the three numbers, of which a table says which layer gives each; noise is added to the pixels.

    Args:
        given: for each number, the layers whose w give it, added up to variance 1.
        noise: pictures of noise that a draw is made of, (k, 16, 16); None for a model without noise.
        sides: of the layers.
    """

    def __init__(self, shape=SHAPE, schema=None, given=((0,), (0,), (2,)), noise=None, sides=(4, 8, 16), strength=0.05):
        super().__init__(shape, schema or {})
        self.given, self.patterns, self.sides, self.strength = given, noise, sides, strength
        self.psi, self.anchor = 1.0, nn.Parameter(torch.zeros(1))

    def turns(self, batch, step):
        yield {}

    def prior(self, n, c):
        return self.z_prior(n)

    def decode(self, z, c):
        return self.synthesis(self.mapping(z, c))

    def z_prior(self, n):
        return self.noise.normal(n, 3)

    def mapping(self, z, c):
        return z + c["kind"][:, None] if c else z

    def truncate(self, w, c, psi):
        raise AssertionError("nothing is truncated")

    @property
    def layer_sides(self):
        return self.sides

    def synthesis(self, w, noise=None):
        assert not self.training and not torch.is_grad_enabled()
        w = w if w.dim() == 3 else w[:, None].expand(-1, len(self.sides), -1)
        numbers = torch.stack([w[:, list(layers), k].sum(1) / len(layers) ** 0.5 for k, layers in enumerate(self.given)], 1)
        return spotted(numbers) + (0 if noise is None else self.strength * noise[0])

    def draw_noise(self, n):
        if self.patterns is None:
            return []
        weights = self.noise.normal(n, len(self.patterns))
        return [torch.einsum("nk,khw->nhw", weights, self.patterns)[:, None]]


def measured(metric=style_factors, train=TRAIN, test=TEST, n=1000, **model):
    return metric(Measuring(Speckled(**model), RUN, n=n, train=train, test=test))


@pytest.fixture(scope="module")
def factors() -> Factors:
    return factors_for(TRAIN, TEST)


# --- factors --------------------------------------------------------------------------------------------------------------


def test_what_is_in_no_pixel_is_left_out_and_the_rest_is_read_off_new_pictures(factors):
    """The ghost's places vary most, so they are the first two components; the spots' distance and slope are the next."""
    assert factors.kept == [2, 3] and factors.shapes == ["shape_pc3", "shape_pc4"]
    assert max(factors.accuracy[:2]) < 0.2 and min(factors.accuracy[2:]) > 0.85
    numbers = torch.randn(300, 3, generator=Generator().manual_seed(5))
    read = factors.read(spotted(numbers))
    assert read.shape == (300, 8) and read.dtype == torch.float64
    both = np.abs(np.corrcoef(torch.cat([read[:, :2], numbers[:, :2]], 1).T)[:2, 2:])
    assert both.max(1).min() > 0.9 and both.min(1).max() < 0.3, "one is the distance, the other the slope"
    warmth = read[:, factors.names.index("whole_warmth")]
    assert torch.allclose(warmth, 0.1 * numbers[:, 2].clamp(-3, 3).double(), atol=1e-6)
    assert factors.groups == {"shape": [0, 1], "colour": [2, 3, 4, 5, 6, 7]}
    assert "judge-v2:" in factors.id and "kept from 0.6" in factors.id


def test_the_net_is_kept_and_is_the_same_the_next_time(factors, monkeypatch):
    monkeypatch.setattr("condgen.evaluation.judge.train_judge", lambda *_, **__: pytest.fail("trained again"))
    again = factors_for(TRAIN, TEST)
    assert again.id == factors.id and torch.equal(again.read(TEST.x), factors.read(TEST.x))


def test_the_net_is_trained_on_grainy_pictures_and_measured_on_clean_ones(monkeypatch):
    """So that noise which moves nothing is read as moving nothing."""
    given = []

    def watched(train, test):
        given.extend(data.batch(torch.arange(len(data))).x for data in (train, test))
        return type("Mute", (), {"predict": lambda self, x, name: torch.zeros(len(x), 4), "id": "mute"})()

    monkeypatch.setattr(reading, "judge_for", watched)
    factors_for(TRAIN, TEST)
    grain = (given[0] - TRAIN.x).flatten(1).std(1)
    assert torch.equal(given[1], TEST.x) and 0 < grain.min() and reading.GRAIN * 0.9 < grain.max() < reading.GRAIN * 1.1
    assert float(grain.mean()) == pytest.approx(reading.GRAIN / 2, rel=0.1)


def test_rows_with_hidden_points_are_not_used_and_too_few_leave_colours_alone(monkeypatch):
    taken = []

    def watched(train, test):
        taken.append((len(train), len(test), bool((train.values()["shape"].std(0) - 1).abs().max() < 1e-2)))
        return factors_for_nothing

    factors_for_nothing = type("Mute", (), {"predict": lambda self, x, name: torch.zeros(len(x), 4), "id": "mute"})()
    monkeypatch.setattr(reading, "judge_for", watched)
    some = Spots(300, 3, hidden=0.2)
    whole = int((some.c["points"][..., 2] == 1).all(1).sum())
    assert 0 < whole < 300 and factors_for(some, TEST).shapes == [] and taken == [(whole, 200, True)]
    assert factors_for(Spots(300, 4, hidden=0.9), TEST).id == "colours alone, no key points" and len(taken) == 1
    assert factors_for(Spots(300, 5, points=False), TEST).groups == {"colour": [0, 1, 2, 3, 4, 5]} and len(taken) == 1


def test_axes_are_those_of_principal_components_and_moving_changes_nothing():
    from sklearn.decomposition import PCA

    points = torch.rand(200, 5, 3, generator=Generator().manual_seed(0))
    axes = axes_of(points)
    flat = (points[..., :2] - points[..., :2].mean(1, keepdim=True)).flatten(1).double().numpy()
    pca = PCA(6).fit(flat)
    assert np.allclose(np.abs((axes.axes.T.numpy() * pca.components_).sum(1)), 1)
    assert np.allclose(axes.sd.numpy() ** 2 * 200 / 199, pca.explained_variance_)
    assert bool((axes.axes.gather(0, axes.axes.abs().argmax(0, keepdim=True)) > 0).all())
    seen = axes.components(points)
    assert torch.allclose(seen.mean(0), torch.zeros(6), atol=1e-5) and torch.allclose(seen.std(0, correction=0), torch.ones(6), atol=1e-5)
    moved = points + torch.tensor([0.3, -0.2, 0.0])
    assert torch.allclose(axes.components(moved), seen, atol=1e-5)


def test_what_does_not_vary_is_no_component():
    points = torch.rand(1, 4, 3).expand(50, 4, 3).clone()
    points[:, 0, 0] = torch.rand(50)
    assert axes_of(points).axes.shape == (8, 1)


def test_colours_by_hand():
    x = torch.full((2, 3, 8, 8), -1.0)
    x[0, 0] = 1.0  # red
    x[1, :, 2:6, 2:6] = torch.tensor([0.2, 0.6, 1.0])[:, None, None] * 2 - 1
    x[1, 2, 2:6, 2:6] = 7.0  # beyond white counts as white
    third, quarter = 1 / 3, 0.25
    expected = [[third, 1, 1, third, 1, 1], [0.6 * quarter, -0.8 * quarter, 0.8, 0.6, -0.8, 0.8]]
    assert torch.allclose(colours_of(x), torch.tensor(expected, dtype=torch.float64), atol=1e-6)
    assert colour_names(3)[3:] == ("centre_brightness", "centre_warmth", "centre_saturation")
    gray = colours_of(torch.zeros(4, 1, 5, 7))
    assert gray.shape == (4, len(colour_names(1))) and torch.allclose(gray, torch.full_like(gray, 0.5))
    assert float(colours_of(torch.full((1, 3, 4, 4), -1.0)).abs().max()) == 0, "black has no colour"


def test_r_squared_is_one_zero_and_below():
    true = torch.arange(6.0)[:, None].repeat(1, 3)
    said = torch.stack([true[:, 0], true[:, 1].mean().expand(6), -true[:, 2]], 1)
    found = r_squared(said, true)
    assert found[0] == 1 and found[1] == 0 and found[2] < -1


def test_on_faces_the_first_two_components_are_the_turn_and_the_nod():
    if data_folder() is None or not (data_folder() / "lfw64").is_dir():
        pytest.skip("lfw64 is not in CONDGEN_DATA")
    with np.load(data_folder() / "lfw64" / "meta.npz") as meta:
        points = torch.ones(len(meta["landmarks68"]), 68, 3)
        points[..., :2] = torch.from_numpy(meta["landmarks68"].astype(np.float32))
    eyes = [points[:, a : a + 6, :2].mean(1) for a in (36, 42)]
    between, mouth, nose = (eyes[0] + eyes[1]) / 2, points[:, 48:, :2].mean(1), points[:, 30, :2]
    turn = (nose - between)[:, 0] / (eyes[1] - eyes[0]).norm(dim=1)
    nod = (nose - between)[:, 1] / (mouth - between)[:, 1]
    seen = axes_of(points).components(points)
    assert abs(np.corrcoef(turn, seen[:, 0])[0, 1]) > 0.9 and abs(np.corrcoef(nod, seen[:, 1])[0, 1]) > 0.75


# --- layers ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_are_pose(monkeypatch):
    """Of these points the third and fourth component are seen: here they count as the pose."""
    monkeypatch.setattr(reading, "POSE", 4)


def test_coarse_layers_place_and_fine_layers_tint(two_are_pose):
    found = measured()
    value = {name.removeprefix("style_factors/"): one.value for name, one in found.items()}
    assert next(iter(found)) == "style_factors" and value["style_factors"] == value["coarse:pose"] == value["coarse:shape"]
    assert value["coarse:pose"] > 0.95 and value["fine:pose"] < 0.02 and value["middle:pose"] < 0.02 and value["middle+fine:pose"] < 0.02
    assert value["fine:whole_warmth"] > 0.98 and value["fine:centre_warmth"] > 0.98
    assert {"coarse:shape_pc3", "coarse:shape_pc4"} < set(value) and "coarse:whole_warmth" not in value
    assert found["style_factors"].ceiling == 1.0 and found["style_factors"].n == 1000
    about = found["style_factors"].provenance
    assert about.startswith("style_factors|shape by judge-v2:") and "|coarse layers|mean over pose|ceiling=" in about
    assert "|middle+fine layers|ceiling=" in found["style_factors/middle+fine:colour"].provenance


def test_a_model_that_does_the_reverse(two_are_pose):
    found = measured(given=((2,), (2,), (0,)))
    assert found["style_factors"].value < 0.02 and found["style_factors/fine:pose"].value > 0.95
    assert found["style_factors/fine:whole_warmth"].value < 0.02


def test_what_two_layers_decide_together_follows_each_by_half(factors):
    """The tint is the sum of two independent halves. The mix shares one of them with either source: correlation 1/2, so R^2 1/4."""
    m = Measuring(Halves(), RUN, n=1000, train=TRAIN, test=TEST)
    found = decided(m, m.model, cuts_of((4, 8, 16)), factors, 1000)
    at = factors.names.index("whole_warmth")
    assert float(found["middle"][at]) == pytest.approx(0.25, abs=0.06) and float(found["fine"][at]) == pytest.approx(0.25, abs=0.06)
    assert float(found["middle+fine"][at]) > 0.999 and float(found["coarse"][at]) < 0.02


class Halves(Speckled):
    """The tint is half of the second layer's third number, half of the third layer's fourth, which are independent."""

    def __init__(self, shape=SHAPE, schema=None):
        super().__init__(shape, schema)

    def z_prior(self, n):
        return self.noise.normal(n, 4)

    def synthesis(self, w, noise=None):
        w = w if w.dim() == 3 else w[:, None].expand(-1, 3, -1)
        tint = (w[:, 1, 2] + w[:, 2, 3]) / 2**0.5
        return spotted(torch.cat([w[:, 0, :2], tint[:, None]], 1))


def test_a_model_that_draws_one_picture_decides_nothing(factors):
    class Still(Speckled):
        def synthesis(self, w, noise=None):
            return spotted(torch.zeros(len(w), 3))

    m = Measuring(Still(), RUN, n=100, train=TRAIN, test=TEST)
    assert all(bool((r2 == 0).all()) for r2 in decided(m, m.model, cuts_of((4, 8, 16)), factors, 100).values())


def test_a_factor_that_is_turned_round_is_not_followed(factors):
    """The tint of the mix is minus that of the picture which the coarse layers' latent gives alone: a correlation of -1."""

    class Turned(Speckled):
        def synthesis(self, w, noise=None):
            w = w if w.dim() == 3 else w[:, None].expand(-1, 3, -1)
            alone = (w[:, 0, 2] == w[:, 2, 2]).float() * 2 - 1
            return spotted(torch.cat([w[:, 0, :2], (alone * w[:, 0, 2])[:, None]], 1))

    m = Measuring(Turned(), RUN, n=200, train=TRAIN, test=TEST)
    found = decided(m, m.model, cuts_of((4, 8, 16)), factors, 200)
    assert float(found["coarse"][factors.names.index("whole_warmth")]) == 0 and float(found["coarse"][0]) > 0.9


def test_noise_of_many_is_drawn_in_chunks():
    model = Speckled(noise=torch.eye(SIDE**2).view(-1, SIDE, SIDE))
    w = torch.randn(7, 3)
    few, all_at_once = AtRest(model, chunk=3), AtRest(model)
    noise = few.noise(7, seed=1)
    assert noise[0].shape == (7, 1, SIDE, SIDE) and torch.equal(noise[0], all_at_once.noise(7, seed=1)[0])
    assert torch.allclose(few.samples(w, noise), all_at_once.samples(w, noise)) and not torch.equal(few.samples(w, noise), few.samples(w))


def test_data_without_key_points_are_measured_by_colour_alone():
    train, test = Spots(60, 0, points=False), Spots(60, 1, points=False)
    found = measured(train=train, test=test, n=200)
    assert found["style_factors"].value == found["style_factors/fine:colour"].value > 0.5
    assert (
        "|colours alone, no key points|" in found["style_factors"].provenance and "|mean over colour|" in found["style_factors"].provenance
    )
    assert not any("shape" in name or "pose" in name for name in found)


def test_conditions_of_test_rows_reach_the_mapping(factors):
    model = Speckled(schema={"kind": Label(("a", "b"))})
    found = style_factors(Measuring(model, RUN, n=100, train=TRAIN, test=TEST))
    assert found["style_factors"].n == 100 and found["style_factors/coarse:shape"].value > 0.9


def test_models_without_layers_of_three_sizes_are_refused():
    with pytest.raises(BadInput, match="needs coarse, middle and fine layers; this model's are of 1 px"):
        measured(sides=(1,), given=((0,), (0,), (0,)))
    assert cuts_of((4, 4, 8, 8, 16, 16, 32, 32)) == {"coarse": [0, 1, 2, 3], "middle": [4, 5], "fine": [6, 7], "middle+fine": [4, 5, 6, 7]}


# --- noise ----------------------------------------------------------------------------------------------------------------

CHECKS = ((torch.arange(SIDE)[:, None] + torch.arange(SIDE)) % 2 * 2.0 - 1)[None]
FLAT = torch.ones(1, SIDE, SIDE)


def jittering(noise, **model):
    return measured(noise_effect, noise=noise, n=200, **model)


def test_noise_of_single_pixels_is_all_high_and_moves_nothing():
    found = jittering(CHECKS)
    whole = found["noise_effect"]
    assert whole.value == pytest.approx(1.0, abs=1e-6) and whole.control < 0.2 and whole.ceiling is None and whole.n == 24
    assert found["noise_effect/whole_brightness"].value < 0.01 and found["noise_effect/whole_warmth"].value < 1e-6
    assert found["noise_effect/factors"].value < 0.1 < found["noise_effect/factors"].control


def test_noise_that_brightens_is_all_low_and_is_caught_by_the_factor():
    """Brightness in [0, 1] deviates by half the strength; the samples' range is read off their own."""
    found = jittering(FLAT, strength=0.01)
    assert found["noise_effect"].value == pytest.approx(0.0, abs=1e-9)
    m = Measuring(Speckled(), RUN, n=200, train=TRAIN, test=TEST)
    m.model.noise.seed(0)
    x = spotted(m.model.noise.normal(200, 3))
    low, high = np.quantile(colours_of(x.clamp(-1, 1))[:, 0], [0.05, 0.95])
    assert found["noise_effect/whole_brightness"].value == pytest.approx(0.005 / (high - low), rel=0.1)
    assert found["noise_effect/factors"].value >= found["noise_effect/whole_brightness"].value
    grain = 0.01 / 2 / SIDE * 3**-0.5  # of the mean of 768 numbers, in [0, 1]
    assert found["noise_effect/whole_brightness"].ceiling == pytest.approx(grain / (high - low), rel=0.2)
    assert "|worst is '" in found["noise_effect/factors"].provenance
    assert found["noise_effect/variance"].value == pytest.approx(1e-4 / float(x.var(0, correction=0).mean()), rel=0.1)


def test_white_noise_has_the_share_of_the_area(factors):
    m = Measuring(Speckled(noise=torch.eye(SIDE**2).view(-1, SIDE, SIDE)), RUN, n=50, train=TRAIN, test=TEST)
    jitter = jittered(m, AtRest(m.model), torch.zeros(6, 3), factors)
    white = high_share(torch.ones(SIDE, SIDE))
    assert high_share(jitter.power) == pytest.approx(white, abs=0.01)
    assert white == pytest.approx(1 - np.pi / 16, abs=0.05), "all but a circle of a quarter of a cycle in a square of one"
    assert jitter.variance == pytest.approx(0.05**2, rel=0.05)


def test_a_wave_counts_by_its_length_whatever_its_direction():
    steps = torch.arange(16.0)
    slow, fast = (torch.cos(2 * np.pi * k * steps / 16) for k in (3, 5))
    for wave, share in ((slow, 0.0), (fast, 1.0)):
        for picture in (wave.expand(16, 16), wave[:, None].expand(16, 16)):
            assert high_share(power_of(picture[None, None])) == pytest.approx(share, abs=1e-9)
    both = (slow[:, None] + slow)[None, None]
    assert high_share(power_of(both)) == pytest.approx(0.0, abs=1e-9)
    oblique = torch.cos(2 * np.pi * 3 * (steps[:, None] + steps) / 16)
    assert high_share(power_of(oblique[None, None])) == pytest.approx(1.0, abs=1e-9), "3 each way is 4.2 of 16 along the diagonal"


def test_noise_that_does_nothing_and_none_at_all():
    found = jittering(CHECKS, strength=0.0)
    assert found["noise_effect"].value == 0 and found["noise_effect/factors"].value == 0 and found["noise_effect/variance"].value == 0
    with pytest.raises(BadInput, match="noise_effect needs noise in the layers; this Speckled has none"):
        jittering(None)


def kept_fields(one):
    return [field for field in one["provenance"].split("|") if not field.startswith(OUTCOMES)]


def test_both_are_metrics_that_are_asked_for_by_name():
    found = evaluate(Speckled(noise=CHECKS), RUN, metrics=["style_factors", "noise_effect"], n=100, train=TRAIN, test=TEST)["metrics"]
    assert found["style_factors/fine:colour"]["value"] > 0.3 and found["noise_effect"]["value"] > 0.99
    # What differs between two models must not stand in a provenance, but for its outcomes: else `compare` would show nothing.
    other = evaluate(Speckled(noise=FLAT), RUN, metrics=["style_factors", "noise_effect"], n=100, train=TRAIN, test=TEST)
    assert all(kept_fields(found[name]) == kept_fields(other["metrics"][name]) for name in found)
    assert not {"style_factors", "noise_effect"} & set(chosen(Speckled(), None))


def test_values_that_are_not_finite_are_refused():
    class Broken(Speckled):
        def synthesis(self, w, noise=None):
            return torch.full((len(w), *SHAPE), torch.nan)

    with pytest.raises(BadInput, match="not finite"):
        style_factors(Measuring(Broken(), RUN, n=50, train=TRAIN, test=TEST))
