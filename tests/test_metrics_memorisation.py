"""Nearest training pictures against brute force, and the ratio of models that draw and that copy."""

import pytest
import torch
from torch import Generator

from condgen.data import load
from condgen.errors import BadInput
from condgen.evaluation.measuring import Measuring
from condgen.evaluation.memorisation import beside_nearest, memorisation_ratio, nearest, nearest_pictures, unit_distance
from condgen.evaluation.protocols import evaluate
from painter import NOISE, RUN, SHAPE, TEST, TRAIN, Painter, painted


def test_nearest_agrees_with_brute_force():
    generator = Generator().manual_seed(0)
    samples, train = torch.randn(40, 3, 6, 6, generator=generator), torch.randn(300, 3, 6, 6, generator=generator)
    all_pairs = torch.cdist(samples.flatten(1).double(), train.flatten(1).double(), compute_mode="donot_use_mm_for_euclid_dist")
    expected, at = all_pairs.min(1)
    for chunk in (7, 300, 5000):
        distance, row = nearest(samples, train, chunk)
        assert torch.equal(row, at)
        assert torch.allclose(distance, expected, atol=1e-12)


def test_a_data_set_is_read_in_parts():
    digits = load("digits")
    rows = torch.tensor([0, 700, 1300])
    distance, row = nearest(digits.batch(rows).x, digits, chunk=100)
    assert torch.equal(row, rows)
    assert torch.equal(distance, torch.zeros(3, dtype=torch.float64))


def test_a_near_copy_keeps_its_distance():
    train = TRAIN.x + 3
    distance, row = nearest(train[:5] + 1e-4, train)
    assert row.tolist() == [0, 1, 2, 3, 4]
    assert torch.allclose(distance, torch.full((5,), 16e-4, dtype=torch.float64), rtol=0.01)


def test_mirror_images_are_found_where_they_count():
    samples = torch.cat([TRAIN.x[7:8].flip(3), TRAIN.x[9:10], TEST.x[:1]])
    distance, pictures = nearest_pictures(samples, TRAIN, mirrored=True)
    assert distance[:2].tolist() == [0, 0] and float(distance[2]) > 1
    assert torch.equal(pictures[:2], samples[:2])
    both = torch.cat([TRAIN.x, TRAIN.x.flip(3)])
    assert float(distance[2]) == pytest.approx(float(nearest(TEST.x[:1], both)[0]))
    assert nearest_pictures(samples, TRAIN)[0][0] > 1


def test_beside_samples_stand_their_neighbours_in_the_metrics_unit():
    x = torch.cat([TEST.x[:3], TRAIN.x[7:8]])
    found = beside_nearest(x, TRAIN.x, TEST)
    assert torch.equal(found.pictures[3], TRAIN.x[7]) and float(found.ratios[3]) == 0
    gaps = (x - found.pictures).flatten(1).double().norm(dim=1)
    assert torch.allclose(found.ratios, gaps / unit_distance(TEST, TRAIN))
    m = Measuring(Painter(), RUN, n=150, train=TRAIN, test=TEST)
    assert float(beside_nearest(m.recalled, TRAIN, TEST).ratios.median()) == pytest.approx(memorisation_ratio(m).value)


def test_nothing_to_compare_is_refused():
    with pytest.raises(BadInput, match="0 samples and 400 training rows"):
        nearest(TRAIN.x[:0], TRAIN)
    with pytest.raises(BadInput, match="of 4 numbers and training rows of 256"):
        nearest(torch.zeros(2, 1, 2, 2), TRAIN)


def ratio(fault="", test=TEST):
    found = evaluate(Painter(fault=fault), RUN, metrics=["memorisation_ratio"], n=150, train=TRAIN, test=test)
    return found["metrics"]["memorisation_ratio"]


def test_a_model_that_draws_is_as_far_away_as_new_pictures():
    found = ratio()
    assert found["value"] == pytest.approx(1, abs=0.06)
    assert (found["ceiling"], found["n"]) == (1.0, 150)
    assert found["control"] == pytest.approx(0.05 / (NOISE * 2**0.5), rel=0.2)
    assert found["provenance"].startswith("memorisation_ratio|pixels L2|medians|n=150/200|train=400|f64|v1|conditions=training rows|")


def test_a_model_that_copies_is_at_zero():
    assert ratio("copies")["value"] == 0.0


def test_a_test_split_of_training_pictures_says_nothing():
    with pytest.raises(BadInput, match="training pictures as well"):
        ratio(test=TRAIN)


# --- under which conditions ------------------------------------------------------------------------------------------------


class ByHeart(Painter):
    """Knows each training picture by its condition, and paints well under any other."""

    def decode(self, z, c):
        apart = torch.cdist(c["look"], TRAIN.c["look"]).min(1)
        return torch.where((apart.values < 1e-3)[:, None, None, None], TRAIN.x[apart.indices], painted(c, z))


class Windowed(Painter):
    """Was trained with noise on the conditions."""

    def near(self, c):
        return {**c, "look": c["look"] + self.noise.normal(len(c["look"]), 4)}


class Mirrored(Painter):
    """Copies the mirror image."""

    def __init__(self, shape=SHAPE, schema=None, fault="copies", flip=True):
        super().__init__(shape, schema, fault)

    def decode(self, z, c):
        return super().decode(z, c).flip(3)


def test_pairs_learnt_by_heart_show():
    m = Measuring(ByHeart(), RUN, n=150, train=TRAIN, test=TEST)
    assert memorisation_ratio(m).value == 0
    assert float(beside_nearest(m.natural, TRAIN, TEST).ratios.median()) == pytest.approx(1, abs=0.06), "under test rows they do not"


def test_conditions_are_drawn_from_the_window_that_the_model_was_trained_with():
    asked = []
    model = Windowed()
    model.decode = lambda z, c: asked.append((z, c["look"])) or painted(c, z)
    m = Measuring(model, RUN, n=150, train=TRAIN, test=TEST)
    found = memorisation_ratio(m)
    z, look = asked[-1]
    apart = torch.cdist(look, TRAIN.c["look"]).amin(1)
    assert 0.5 < float(apart.mean()) < 2 and "|conditions=window around training rows|" in found.provenance
    assert not torch.allclose(z.flatten()[:4], (look - TRAIN.c["look"][_order(150)]).flatten()[:4], atol=1e-3), (
        "latents are others than the noise"
    )
    again = Measuring(Windowed(), RUN, n=150, train=TRAIN, test=TEST)
    assert torch.equal(again.recalled, m.recalled) and not torch.equal(Measuring(Windowed(), RUN, 150, 1, TRAIN, TEST).recalled, m.recalled)


def _order(n):
    return torch.randperm(len(TRAIN), generator=Generator().manual_seed(0))[:n]


def test_more_samples_than_training_rows_take_them_in_turn():
    m = Measuring(Painter(), RUN, n=900, train=TRAIN, test=TEST)
    assert len(m.recalled) == 900


def test_without_conditions_the_samples_are_the_usual_ones():
    m = Measuring(Unasked(schema={}), RUN, n=100, train=TRAIN, test=TEST)
    assert m.recalled is m.natural or torch.equal(m.recalled, m.natural)
    assert "conditions" not in memorisation_ratio(m).provenance


class Unasked(Painter):
    def decode(self, z, c):
        return painted({k: v[: len(z)] for k, v in TEST.c.items()}, z)


def test_mirrored_copies_count_where_the_model_saw_mirror_images():
    seen, unseen = (memorisation_ratio(Measuring(Mirrored(flip=f), RUN, n=100, train=TRAIN, test=TEST)) for f in (True, False))
    assert seen.value == 0 < 0.5 < unseen.value
    assert "|mirror images of training rows too|" in seen.provenance and "mirror" not in unseen.provenance
