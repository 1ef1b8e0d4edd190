"""Translation between domains: any size of picture in bounded memory, and measures of a translator whose answers are known."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from condgen import api
from condgen.conditions import Label, Picture
from condgen.data.store import Batch, Content, Dataset, to_bytes, to_float
from condgen.editing import translation as sizes
from condgen.editing.translation import SharedNorms, Translator, mosaic, tiles
from condgen.errors import BadInput
from condgen.evaluation import translation
from condgen.evaluation.judge import random_judge
from condgen.evaluation.metrics import METRICS, metric_of
from condgen.evaluation.protocols import evaluate
from condgen.evaluation.segmenter import overlaps, sized, train_segmenter
from condgen.evaluation.translation import cycle_l1, domain_accuracy, learning_half, mask_iou, paired_gain, tint
from condgen.model import Model, Run

DOMAINS = Label(("dark", "bright"))


class Fake(Model):
    """Dark pictures are -|p|, bright ones |p|; a translation goes part of the way, `reach` of 1 for all of it."""

    def __init__(self, shape=(1, 16, 16), schema=None, reach=1.0):
        super().__init__(shape, schema or {"domain": DOMAINS})
        self.weight = nn.Parameter(torch.zeros(1))
        self.reach = reach

    def turns(self, batch, step):
        yield {}

    def translate(self, x, c):
        assert len(c["domain"]) == len(x) and not self.training and not torch.is_grad_enabled()
        there = torch.where(c["domain"][:, None, None, None] == 1, x.abs(), -x.abs())
        return x + self.reach * (there - x)


class Net(Fake):
    """A small net as CycleGAN's: reflections, instance norms, down by two and up again."""

    multiple = 2

    def __init__(self, shape=(3, 16, 16), schema=None):
        super().__init__(shape, schema)
        torch.manual_seed(0)
        norms = nn.InstanceNorm2d(8), nn.InstanceNorm2d(8, affine=True)
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(shape[0], 8, 3), norms[0], nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), norms[1], nn.ReLU(),
            nn.ConvTranspose2d(8, shape[0], 3, 2, 1, output_padding=1), nn.Tanh()
        )  # fmt: skip

    def translate(self, x, c):
        assert not any(side % 2 for side in x.shape[2:])
        return self.layers(x) * (1 - 2 * c["domain"][:, None, None, None])


def pictures(n=12, seed=0, shape=(1, 16, 16)):
    """Dark and bright in turn; the parts in which the two do not differ are 0."""
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.1
    x[..., : shape[-1] // 2] = 0
    domain = torch.arange(n) % 2
    return torch.where(domain[:, None, None, None] == 1, x, -x), domain


def context(model, **changes):
    """What `Measuring` gives, with a judge that sees the mean."""
    x, domain = pictures()
    mask = -torch.ones(len(x), 1, 16, 16)
    mask[:, :, 4:8, 8:12] = 1
    mask[torch.arange(12), 0, torch.arange(12), 0] = 1  # a mask of each scene's own
    c = {"domain": domain, "counterpart": -x, "mask": mask}
    judge = SimpleNamespace(id="judge-v0", accuracy={"domain": 1.0}, predict=lambda some, name: (some.mean((1, 2, 3)) > 0).long())
    fresh = Fake(reach=0.0).eval()
    return SimpleNamespace(**{"model": model, "untrained": fresh, "real": Batch(x, c), "judge": judge, "seed": 0, **changes})


# --- any size -------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.integers(16, 3000), st.integers(16, 3000), st.sampled_from([1, 4, 16]))
def test_tiles_cover_a_picture_once(h, w, multiple):
    seen = np.zeros((h, w), dtype=np.uint8)
    for inner, outer in tiles(h, w, multiple):
        seen[inner.at] += 1
        assert outer.top <= inner.top and outer.left <= inner.left and outer.bottom >= inner.bottom and outer.right >= inner.right
        assert (outer.bottom - outer.top) * (outer.right - outer.left) <= sizes.LARGEST
        assert outer.top % multiple == outer.left % multiple == 0
        assert inner.top == 0 or inner.top - outer.top >= sizes.MARGIN
        assert inner.bottom == h or outer.bottom - inner.bottom >= min(sizes.MARGIN, h - inner.bottom)
    assert seen.min() == seen.max() == 1


@settings(deadline=None, max_examples=60)
@given(st.integers(16, 8000), st.integers(16, 8000))
def test_a_mosaic_spans_the_picture_within_the_bound(h, w):
    boxes = mosaic(h, w)
    area = (boxes[0].bottom - boxes[0].top) * (boxes[0].right - boxes[0].left)
    assert 0 < len(boxes) * area <= sizes.LARGEST
    assert all(0 <= b.top < b.bottom <= h and 0 <= b.left < b.right <= w for b in boxes)
    if len({b.left for b in boxes}) > 1:
        assert min(b.left for b in boxes) == 0 and max(b.right for b in boxes) == w


@torch.no_grad()
def test_norms_of_a_whole_picture_are_those_of_instance_norm():
    x, net, norms = torch.randn(1, 3, 20, 20), Net().layers, SharedNorms()
    with norms.taken():
        whole = net(x)
    assert len(norms.kept) == 2 and torch.allclose(whole, net(x), atol=1e-5)
    with norms.given():
        other = net(0.1 * x)
    assert not torch.allclose(other, net(0.1 * x), atol=1e-2), "a pale picture is not stretched any more"
    free = nn.BatchNorm2d(3).eval()
    with norms.taken():
        assert torch.equal(free(x), F.batch_norm(x, free.running_mean, free.running_var, free.weight, free.bias)) and norms.kept == []


def test_tiles_meet_as_in_the_whole_picture(monkeypatch):
    x, translator = torch.rand(1, 3, 90, 131) * 2 - 1, Translator(Net(), "bright")
    for name, value in (("LARGEST", 60 * 60), ("TILE", 60), ("MARGIN", 8), ("CROP", 20)):
        monkeypatch.setattr(sizes, name, value)
    assert len(list(tiles(90, 131, 2))) > 6
    norms = SharedNorms()
    with norms.taken():
        translator._drawn(torch.cat([x[(..., *box.at)] for box in mosaic(90, 131)]))
    with norms.given():
        whole = translator._drawn(x)
    assert torch.allclose(translator(x), whole, atol=1e-5)
    monkeypatch.setattr(sizes, "MARGIN", 0)
    assert not torch.allclose(translator(x), whole, atol=1e-3), "without rims tiles do show"


def test_a_picture_of_any_size_keeps_it():
    translator = Translator(Net(), "bright")
    x = torch.rand(2, 3, 17, 23) * 2 - 1
    whole = translator(x)
    assert whole.shape == x.shape and whole.dtype == torch.float32
    wide = F.pad(x, (0, 1, 0, 1), mode="reflect")
    assert torch.allclose(whole, translator(wide)[..., :17, :23], atol=1e-6)
    pixels = to_bytes(x[:1])[0]
    assert np.array_equal(translator.pixels(pixels), to_bytes(translator(to_float(pixels[None])))[0])
    assert torch.equal(api.translate(translator.model, x, "dark"), -whole)


def test_large_pictures_go_through_one_by_one(monkeypatch):
    x, translator, seen = torch.rand(5, 3, 20, 20), Translator(Net(), "dark"), []
    whole = translator(x)
    monkeypatch.setattr(sizes, "LARGEST", 2 * 400)
    drawn = translator._drawn
    monkeypatch.setattr(translator, "_drawn", lambda part: seen.append(len(part)) or drawn(part))
    assert torch.allclose(translator(x), whole, atol=1e-6) and seen == [2, 2, 1]


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((1, 3, 8, 40), "40x8 px; this model takes sides of at least 16 px"),
        ((1, 1, 20, 20), r"this model takes \(b, 3, h, w\)"),
        ((3, 20, 20), r"shape \(3, 20, 20\)"),
    ],
)
def test_what_a_net_cannot_take_is_refused(shape, says):
    with pytest.raises(BadInput, match=says):
        Translator(Net(), "dark")(torch.zeros(shape))


def test_refusals_name_what_would_do():
    with pytest.raises(BadInput, match="unknown domain 'brigth': did you mean 'bright'"):
        Translator(Net(), "brigth")
    with pytest.raises(BadInput, match="at most 64 megapixels"):
        Translator(Net(), "dark").check(9000, 9000)
    with pytest.raises(BadInput, match="takes 16x16 px alone"):
        Translator(Fake(), "dark").check(32, 32)
    with pytest.raises(BadInput, match="has no `translate`"):
        Translator(type("Mute", (Fake,), {"translate": None})(), "dark")
    with pytest.raises(BadInput, match="no label that would name domains"):
        Translator(Fake(schema={"n": Picture((1, 4, 4))}), "dark")


# --- measures -------------------------------------------------------------------------------------------------------------


def test_pictures_that_arrive_are_counted():
    found = domain_accuracy(context(Fake()))
    assert list(found) == ["domain_accuracy", "domain_accuracy/to:dark", "domain_accuracy/to:bright"]
    assert [(m.value, m.ceiling, m.control, m.n) for m in found.values()] == [(1, 1, 0, 12), (1, 1, 0, 6), (1, 1, 0, 6)]
    assert "judge-v0" in found["domain_accuracy"].provenance
    one_way = type("OneWay", (Fake,), {"translate": lambda self, x, c: x.abs()})()
    found = domain_accuracy(context(one_way))
    assert [m.value for m in found.values()] == [0.5, 0, 1] and found["domain_accuracy"].standard_error == pytest.approx((0.25 / 12) ** 0.5)


def test_what_comes_back_is_compared_with_the_picture():
    x, _ = pictures()
    error = x.abs().double().mean().item() / 2
    found = cycle_l1(context(Fake()))
    assert [m.value for m in found.values()] == [0, 0, 0] and found["cycle_l1"].control == 0
    flat = type("Flat", (Fake,), {"translate": lambda self, x, c: torch.zeros_like(x)})()
    found = cycle_l1(context(flat, untrained=flat.eval()))
    assert found["cycle_l1"].value == found["cycle_l1"].control == pytest.approx(error)
    assert found["cycle_l1/to:dark"].value == pytest.approx(x[1::2].abs().double().mean().item() / 2)


def test_a_translation_half_the_way_gains_a_half():
    x, _ = pictures()
    found = paired_gain(context(Fake(reach=0.5)))
    assert set(found) == {f"paired_gain{p}" for p in ("", "/to:dark", "/to:bright", "/inside", "/outside", "/l1", "/tint")}
    for part in ("", "/to:dark", "/to:bright", "/inside", "/outside"):
        assert found[f"paired_gain{part}"].value == pytest.approx(0.5) and found[f"paired_gain{part}"].control == 0
    assert [found[f"paired_gain{part}"].n for part in ("", "/to:dark", "/to:bright", "/l1")] == [12, 6, 6, 12]
    whole = x.abs().double().mean().item()
    assert found["paired_gain/l1"].value == pytest.approx(whole / 2) and found["paired_gain/l1"].control == pytest.approx(whole)
    assert found["paired_gain/tint"].value == 0
    assert METRICS["paired_gain"].higher and not metric_of("paired_gain/tint").higher and not metric_of("paired_gain/l1").higher


def test_tint_is_how_far_the_mean_colour_moves_where_it_should_not():
    x = torch.zeros(2, 3, 4, 4)
    y, still = x.clone(), torch.zeros(2, 4, 4, dtype=torch.bool)
    still[:, :2] = True
    y[0, 0, :2], y[1, 1, :2], y[:, :, 2:] = 0.2, -0.4, 1.0  # and a change that is wanted
    y[0, 2, 0], y[0, 2, 1] = 0.5, -0.5  # noise without a tint
    assert tint(y, x, still) == pytest.approx((0.1 + 0.2) / 6)
    still[1] = False
    assert tint(y, x, still) == pytest.approx(0.1 / 3), "of a picture with nothing that stays nothing is said"


def test_a_translation_that_tints_is_seen_to():
    tinting = type("Tinting", (Fake,), {"translate": lambda self, x, c: Fake.translate(self, x, c) + 0.1})()
    found = paired_gain(context(tinting))
    assert found["paired_gain/tint"].value == pytest.approx(0.05, rel=1e-5) and found["paired_gain"].value < 1


def test_a_shape_that_is_kept_overlaps_the_mask(monkeypatch):
    def seen(x):
        """What is not nought."""
        return x[:, 0].abs() > 0.05

    m = context(Fake())
    x = m.real.x * (m.real.c["mask"] > 0)
    x[torch.arange(12), 0, torch.arange(12), 0] = torch.where(m.real.c["domain"] == 1, 0.9, -0.9)
    m.real = Batch(x, m.real.c)
    monkeypatch.setattr(translation, "train_segmenter", lambda x, mask: type("S", (), {"id": "s", "__call__": lambda self, y: seen(y)})())
    found = mask_iou(m)
    assert list(found) == ["mask_iou", "mask_iou/to:dark", "mask_iou/to:bright"]
    whole = found["mask_iou"]
    assert (whole.value, whole.ceiling, whole.n) == (1, 1, 6) and whole.control == pytest.approx(16 / 18)
    shifting = type("Shifting", (Fake,), {"translate": lambda self, x, c: x.roll(2, 3)})()
    m.model = shifting
    moved = mask_iou(m)["mask_iou"]
    assert moved.value == pytest.approx(8 / 26) and moved.ceiling == 1


def test_no_scene_is_learnt_from_and_tried():
    masks = torch.zeros(9, 4, 4, dtype=torch.bool)
    scene = torch.tensor([3, 0, 1, 3, 2, 4, 1, 5, 0])
    masks[torch.arange(9), scene // 4, scene % 4] = True
    half = learning_half(masks, torch.zeros(9, dtype=torch.int64))
    assert half.tolist() == [True, False, True, True, False, True, True, False, False]
    domain = torch.arange(9) % 2
    half = learning_half(masks, domain)
    assert all(half[scene == k].unique().numel() == 1 for k in range(6))
    assert half[domain == 0].any() and not half[domain == 0].all() and half[domain == 1].any() and not half[domain == 1].all()


def test_a_segmenter_learns_squares():
    generator = torch.Generator().manual_seed(0)
    n, at = 80, torch.arange(16)
    top, left = torch.randint(2, 10, (2, n, 1, 1), generator=generator)
    inside = (at[:, None] >= top) & (at[:, None] < top + 5) & (at >= left) & (at < left + 5)
    x = torch.where(inside, 0.7, -0.2)[:, None] + 0.1 * torch.randn(n, 1, 16, 16, generator=generator)
    mask = torch.where(inside, 1.0, -1.0)[:, None]
    found = train_segmenter(x[:60], mask[:60], steps=60)
    assert float(overlaps(found(x[60:]), inside[60:]).mean()) > 0.9 and "60 real pictures" in found.id
    assert sized(torch.zeros(1, 3, 128, 100)).shape == (1, 3, 64, 64) and sized(torch.zeros(1, 3, 30, 41)).shape == (1, 3, 24, 40)
    empty = torch.zeros(1, 4, 4, dtype=torch.bool)
    assert overlaps(empty, empty).tolist() == [1] and overlaps(empty, ~empty).tolist() == [0]


def test_data_without_pairs_are_refused_in_words():
    m = context(Fake())
    m.real = Batch(m.real.x, {"domain": m.real.c["domain"]})
    with pytest.raises(BadInput, match=r"no `counterpart` \(the same scene in the other domain\)"):
        paired_gain(m)
    with pytest.raises(BadInput, match="no `mask`"):
        mask_iou(m)
    m = context(Fake())
    m.real.c["mask"][:] = 1.0
    with pytest.raises(BadInput, match="all test pictures have one mask"):
        mask_iou(m)


# --- who tells domains apart ----------------------------------------------------------------------------------------------


def unsure(known=0.6):
    """A judge that sees one domain alone, so that it is right half of the time."""
    return SimpleNamespace(id="judge-v0", accuracy={"domain": known}, predict=lambda some, name: torch.zeros(len(some), dtype=torch.int64))


class Means(nn.Module):
    """A feature net that sees brightness."""

    id, names = "means-v1", ("conv1_1", "relu1_1", "relu2_1", "relu2_2")

    def forward(self, x, layers):
        assert layers == ["relu2_2"]
        return {"relu2_2": torch.cat([x, x.square()], 1)}


def test_an_unsure_judge_gives_way_to_a_probe(monkeypatch):
    x, domain = pictures(40, 1)
    train = Dataset("d", "train", Content(to_bytes(x), {"domain": domain}, {"domain": DOMAINS}))
    m = context(Fake(), judge=unsure(), train=train)
    monkeypatch.setitem(sys.modules, "condgen.backbones", SimpleNamespace(feature_net=lambda name: Means()))
    found = domain_accuracy(m)["domain_accuracy"]
    assert (found.value, found.ceiling, found.control) == (1, 1, 0)
    assert "logistic on means-v1 relu2_2, 40 real pictures" in found.provenance

    def none(name):
        raise BadInput("no feature net here")

    monkeypatch.setitem(sys.modules, "condgen.backbones", SimpleNamespace(feature_net=none))
    found = domain_accuracy(m)["domain_accuracy"]
    assert found.value == 0.5 and "judge-v0" in found.provenance
    assert "judge-v0" in domain_accuracy(context(Fake(), judge=unsure(0.97)))["domain_accuracy"].provenance, "nobody else is asked"


def test_a_translator_is_measured_by_name(monkeypatch):
    x, domain = pictures(24)
    plain = Content(to_bytes(x), {"domain": domain}, {"domain": DOMAINS})
    schema = {"domain": DOMAINS, "counterpart": Picture((1, 16, 16))}
    test = Dataset("d", "test", Content(to_bytes(x), {"domain": domain, "counterpart": to_bytes(-x)}, schema))

    def known(train, test):
        return SimpleNamespace(
            **(vars(random_judge((1, 16, 16))) | {"accuracy": {"domain": 1.0}, "predict": lambda x, _: x.mean((1, 2, 3)) > 0})
        )

    monkeypatch.setattr("condgen.evaluation.measuring.judge_for", known)
    run = Run("cyclegan.CycleGAN", "scenes-domains")
    found = evaluate(Fake(), run, train=Dataset("d", "train", plain), test=test)["metrics"]
    assert [name for name in found if "/" not in name] == ["domain_accuracy", "cycle_l1", "paired_gain"], "no mask, so no overlap"
    assert found["domain_accuracy"]["value"] == 1 and found["paired_gain"]["value"] == pytest.approx(1, abs=0.01)  # 8 bits
    with pytest.raises(BadInput, match="no `mask`"):
        evaluate(Fake(), run, metrics=("mask_iou",), train=Dataset("d", "train", plain), test=test)
