"""Drawn scenes: the two domains differ in what they should and in nothing else; shapes have their areas; masks are the animal's."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from condgen.conditions import Label, Picture
from condgen.data import load, scene_pictures
from condgen.data.scene_pictures import animal_mask, drawn, shares
from condgen.data.scenes import INKS, Animal, Limb, Oval, Part, box, parts, scene
from condgen.errors import BadInput

SOME = range(40)


@pytest.fixture
def few(monkeypatch, tmp_path):
    """The set with twelve scenes to train and six to test."""
    monkeypatch.setenv("CONDGEN_CACHE", str(tmp_path))
    monkeypatch.setattr(scene_pictures, "TRAIN", 12)
    monkeypatch.setattr(scene_pictures, "TEST", 6)


def alone(number: int):
    """A scene without things."""
    return dataclasses.replace(scene(number), things=())


def one_part(part: Part, size: int = 64) -> np.ndarray:
    fine = np.zeros((size * 4, size * 4), dtype=np.intp)
    scene_pictures._lay(fine, part)
    return fine


def test_the_set_has_both_domains_in_every_slice_and_pairs_only_in_test(few):
    train, test = load("scenes-domains"), load("scenes-domains", "test")
    assert train.schema == {"domain": Label(("plain", "striped"))} and train.shape == (3, 64, 64)
    assert train.values()["domain"].tolist() == [0, 1] * 6 and load("scenes-domains", "train[:2]").values()["domain"].tolist() == [0, 1]
    assert test.schema == {**train.schema, "counterpart": Picture((3, 64, 64)), "mask": Picture((1, 64, 64))}
    assert len(test) == 6 and test.values()["domain"].tolist() == [0, 1] * 3
    mask = test.values()["mask"]
    assert mask.min() == -1 and mask.max() == 1 and mask.shape == (6, 1, 64, 64)


def test_no_scene_is_in_the_set_twice(few):
    found = scene_pictures.domains(None, 32)
    shown = {row.tobytes() for row in found["train"].samples} | {row.tobytes() for row in found["test"].samples}
    other = {row.tobytes() for row in found["test"].columns["counterpart"]}
    other |= {drawn(scene(i), ("striped", "plain")[i % 2], shares(scene(i), 32)).tobytes() for i in range(12)}
    assert len(shown) == 18 and len(other) == 18 and not shown & other


def test_published_counts_are_those_of_the_set():
    assert (scene_pictures.TRAIN, scene_pictures.TEST) == (4000, 400)
    assert scene_pictures.TRAIN <= scene_pictures.FIRST_TEST, "no scene of train is one of test"


def test_a_counterpart_differs_in_coat_and_grass_alone(few):
    test = scene_pictures.domains(None, 64)["test"]
    for i, (x, other, mask) in enumerate(zip(test.samples, test.columns["counterpart"], test.columns["mask"], strict=True)):
        of_ink = shares(scene(scene_pictures.FIRST_TEST + i), 64)
        changes = of_ink[..., [INKS.index(k) for k in ("shadow", "far", "far stripe", "coat", "stripe")]].sum(-1) > 0
        below = np.arange(64) / 64 > scene(scene_pictures.FIRST_TEST + i).horizon - 1 / 64
        changes |= (of_ink[..., 0] > 0) & below[:, None]
        assert (x == other)[~changes].all() and (x != other)[changes].any(-1).mean() > 0.99
        assert (mask[..., 0] > 0).sum() > 40


def test_sizes_show_the_same_scene_and_others_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CONDGEN_CACHE", str(tmp_path))
    for i in SOME:
        large, small = (drawn(scene(i), "striped", shares(scene(i), side)).astype(float) for side in (64, 32))
        assert np.abs(large.reshape(32, 2, 32, 2, 3).mean((1, 3)) - small).mean() < 3
    with pytest.raises(BadInput, match="at 32, 64, 128 px; size is 48"):
        load("scenes-domains", size=48)


def test_a_number_is_one_scene():
    assert scene(7) == scene(7) and len({scene(i) for i in SOME}) == len(SOME)
    assert np.array_equal(drawn(scene(7), "plain", shares(scene(7), 32)), drawn(scene(7), "plain", shares(scene(7), 32)))
    with pytest.raises(BadInput, match="did you mean 'striped'"):
        drawn(scene(7), "stripes", shares(scene(7), 32))


def test_both_domains_are_told_by_their_grass_and_share_their_skies():
    for i in SOME:
        of_ink = shares(scene(i), 32)
        plain, striped = (drawn(scene(i), domain, of_ink)[-3:].astype(float).mean((0, 1)) for domain in ("plain", "striped"))
        assert plain[1] > plain[0] + 15 and striped[0] > striped[1] + 10, "green, and yellow"


def test_a_lighter_coat_is_lighter_in_both_domains():
    for domain, least in (("plain", 40), ("striped", 20)):
        light = []
        for tone in (0.0, 0.5, 1.0):
            changed = dataclasses.replace(alone(3), animal=dataclasses.replace(scene(3).animal, tone=tone))
            of_ink = shares(changed, 64)
            light.append(drawn(changed, domain, of_ink)[of_ink[..., INKS.index("coat")] > 0.99].mean())
        assert light[1] > light[0] + least / 2 and light[2] > light[1] + least / 2, domain


# --- what is drawn ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0.0, 0.7, 2.0])
def test_shapes_have_the_areas_of_geometry(angle):
    turned = (0.5 + 0.2 * math.cos(angle), 0.5 + 0.2 * math.sin(angle)), (0.5 - 0.2 * math.cos(angle), 0.5 - 0.2 * math.sin(angle))
    areas = {Oval(*turned, 0.1): math.pi * 0.2 * 0.1, Limb(*turned, 0.05, 0.05): 0.4 * 0.1 + math.pi * 0.05**2}
    for shape, area in areas.items():
        assert (one_part(Part("it", shape, "coat"), 200) > 0).mean() == pytest.approx(area, rel=0.01), shape


def test_a_tapered_limb_has_its_radius_at_each_end():
    found = one_part(Part("leg", Limb((0.5, 0.25), (0.5, 0.75), 0.1, 0.04), "coat")) > 0
    assert found[64].mean() == pytest.approx(0.2, abs=0.01) and found[191].mean() == pytest.approx(0.08, abs=0.01)


def test_stripes_turn_and_grow_with_their_part():
    upright = one_part(Part("body", Oval((0.5, 0.2), (0.5, 0.8), 0.15), "coat", 5))
    lying = one_part(Part("body", Oval((0.2, 0.5), (0.8, 0.5), 0.15), "coat", 5))
    assert np.array_equal(upright, lying.T)
    small = one_part(Part("body", Oval((0.1, 0.25), (0.4, 0.25), 0.075), "coat", 5))
    assert (lying[::2, ::2] != small[:128, :128]).mean() < 0.015
    middle = lying[128] == INKS.index("stripe")
    assert (np.diff(middle.astype(int)) == 1).sum() == 5


def test_stripes_lie_as_far_apart_on_every_part_and_only_coats_have_them():
    for i in SOME[:10]:
        animal = scene(i).animal
        striped = {part.name: part for part in parts(animal) if part.stripes}
        assert {"body", "neck", "head", "far fore leg", "near hind leg"} < set(striped) and "mane" not in striped and "ear" not in striped
        for part in striped.values():
            assert math.dist(part.shape.a, part.shape.b) / part.stripes == pytest.approx(0.2 * animal.length)


def test_pixels_are_shares_of_inks_and_edges_are_smooth():
    of_ink = shares(scene(0), 64)
    assert of_ink.shape == (64, 64, len(INKS)) and np.allclose(of_ink.sum(-1), 1) and of_ink.min() == 0
    assert ((of_ink > 0) & (of_ink < 1)).any(-1).mean() > 0.05


def test_an_animal_that_faces_the_other_way_is_its_mirror_image():
    for i in SOME[:10]:
        animal = scene(i).animal
        mirrored = dataclasses.replace(animal, facing=-animal.facing, x=1 - animal.x)
        one, two = (shares(dataclasses.replace(alone(i), animal=a), 32) for a in (animal, mirrored))
        assert np.abs(one - two[:, ::-1]).mean() < 1e-4


def test_every_animal_stands_on_the_ground_and_is_in_the_picture():
    for i in SOME:
        shown = scene(i)
        left, top, right, bottom = box(parts(shown.animal))
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1 and shown.animal.foot > shown.horizon
        mask = animal_mask(shares(alone(i), 64))[..., 0] > 127
        ys, xs = np.nonzero(mask)
        assert left - 0.02 <= xs.min() / 64 and (xs.max() + 1) / 64 <= right + 0.02 and (ys.max() + 1) / 64 <= bottom + 0.02
        assert 0.02 < mask.mean() < 0.3


def test_a_mask_is_what_can_be_seen_of_the_animal():
    hidden = 0
    for i in SOME:
        whole, seen = (animal_mask(shares(s, 64)).astype(int) for s in (alone(i), scene(i)))
        assert (seen <= whole).all() and seen.sum() > 0.6 * whole.sum()
        hidden += (seen < whole).any()
    assert hidden > 0, "in some scene a stone stands before the animal"


def test_what_is_nearer_hides_what_is_farther():
    for i in SOME:
        order = scene(i).far_to_near
        feet = [o.foot for o in order if isinstance(o, Animal) or o.kind != "sun"]
        assert feet == sorted(feet) and len(order) in (2, 3)
        assert all(o.foot < scene(i).animal.foot for o in scene(i).things if o.kind == "tree"), "a tree would hide the animal"


def test_lots_are_even():
    animals = [scene(i).animal for i in range(400)]
    assert 160 < sum(a.facing == 1 for a in animals) < 240
    tone, length = (torch.tensor([getattr(a, k) for a in animals]) for k in ("tone", "length"))
    assert abs(tone.mean() - 0.5) < 0.06 and 0.28 <= length.min() < 0.29 and 0.45 < length.max() <= 0.46
    assert abs(float(torch.corrcoef(torch.stack([tone, torch.arange(400) % 2]))[0, 1])) < 0.15, "the domain says nothing of the tone"
