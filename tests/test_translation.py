"""Translation between domains: any size of picture in bounded memory, and measures of a translator whose answers are known."""

import sys
from functools import cache
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
from condgen.editing.translation import SharedNorms, Translator, mosaic, reach, tiles
from condgen.errors import BadInput
from condgen.evaluation import domains, same_scene
from condgen.evaluation.domains import alone, object_judge
from condgen.evaluation.judge import random_judge
from condgen.evaluation.metrics import METRICS, metric_of
from condgen.evaluation.protocols import evaluate
from condgen.evaluation.same_scene import mask_iou, moved, paired_gain, recoloured, tint
from condgen.evaluation.segmenter import learning_half, overlaps, sized, train_segmenter
from condgen.evaluation.translation import blurred, cycle_l1, domain_accuracy
from condgen.model import Model, Run, domain_of
from condgen.models.cyclegan import CycleGAN
from condgen.training.preview import translations

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
    return SimpleNamespace(**{"model": model, "untrained": fresh, "real": Batch(x, c), "judge": judge, "seed": 0, "kept": {}, **changes})


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
    assert 3 <= translator.model.layers[1].kernel_size[0] <= reach(translator.model) <= 8
    for name, value in (("LARGEST", 60 * 60), ("TILE", 60), ("MARGIN", 8), ("CROP", 20)):
        monkeypatch.setattr(sizes, name, value)
    translator.margin = 8
    assert len(list(tiles(90, 131, 2))) > 6
    norms = SharedNorms()
    with norms.taken():
        translator._drawn(torch.cat([x[(..., *box.at)] for box in mosaic(90, 131)]))
    with norms.given():
        whole = translator._drawn(x)
    assert torch.allclose(translator(x), whole, atol=1e-5)
    translator.margin = reach(translator.model)
    assert torch.allclose(translator(x), whole, atol=1e-5), "what is counted is enough"
    translator.margin = 0
    assert not torch.allclose(translator(x), whole, atol=1e-3), "without rims tiles do show"


@pytest.mark.parametrize("blocks", [0, 2])
@pytest.mark.parametrize("up", ["transposed", "resize"])
def test_a_net_sees_no_further_than_is_counted(blocks, up):
    """Instance norms see everything; without them the gradient of a pixel is where the net sees."""
    model = CycleGAN((1, 80, 80), {"domain": DOMAINS}, width=2, blocks=blocks, layers=1, up=up)
    for block in model.G.modules():
        for name, child in block.named_children():
            if type(child).__name__ in ("InstanceNorm", "ReLU", "ReflectionPad2d"):
                pad = child.padding[0] if hasattr(child, "padding") else 0
                setattr(block, name, nn.ZeroPad2d(pad) if pad else nn.Identity())
    for weight in model.G.parameters():
        nn.init.constant_(weight, 0.05)
    far = 0
    for place in range(36, 44):
        x = torch.zeros(1, 1, 80, 80, requires_grad=True)
        model.G.layers(x)[0, 0, place, place].backward()
        seen = x.grad[0, 0].abs().amax(0).nonzero()[:, 0]
        far = max(far, int(seen.max()) - place, place - int(seen.min()))
    counted = reach(SimpleNamespace(children=lambda: [model.G]))
    assert far <= counted <= far + 4
    deep = Translator(CycleGAN((1, 16, 16), {"domain": DOMAINS}, width=2, blocks=12, layers=1), "dark")
    assert 106 <= deep.margin <= 120 and Translator(model, "dark").margin == sizes.MARGIN


def test_a_net_that_sees_too_far_takes_no_tiles():
    far = Translator(CycleGAN((1, 16, 16), {"domain": DOMAINS}, width=1, blocks=60, layers=1), "dark")
    far.check(1000, 1000)
    with pytest.raises(BadInput, match="too far for tiles: at most 1 megapixel"):
        far.check(1100, 1000)


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
    parts = ["", "/to:dark", "/to:bright"]
    assert list(found) == [f"domain_accuracy{object}{part}" for object in ("", "/object") for part in parts]
    assert [(m.value, m.ceiling, m.control, m.n) for m in list(found.values())[:3]] == [(1, 1, 0, 12), (1, 1, 0, 6), (1, 1, 0, 6)]
    assert "judge-v0" in found["domain_accuracy"].provenance
    one_way = type("OneWay", (Fake,), {"translate": lambda self, x, c: x.abs()})()
    found = domain_accuracy(context(one_way))
    assert [m.value for m in found.values()][:3] == [0.5, 0, 1] and found["domain_accuracy"].standard_error == pytest.approx(
        (0.25 / 12) ** 0.5
    )


def test_what_comes_back_is_compared_with_the_picture():
    x, _ = pictures()
    error = x.abs().double().mean().item() / 2
    found = cycle_l1(context(Fake()))
    assert [m.value for m in found.values()][:3] == [0, 0, 0] and found["cycle_l1"].control == 0
    flat = type("Flat", (Fake,), {"translate": lambda self, x, c: torch.zeros_like(x)})()
    found = cycle_l1(context(flat, untrained=flat.eval()))
    assert found["cycle_l1"].value == found["cycle_l1"].control == pytest.approx(error)
    assert found["cycle_l1/to:dark"].value == pytest.approx(x[1::2].abs().double().mean().item() / 2)


def test_a_way_back_that_reads_grain_is_found_out():
    """The picture is hidden in the parity of rows: it comes back, but not through a mean over 3x3."""

    class Hiding(Fake):
        def translate(self, x, c):
            return torch.where(torch.arange(x.shape[2])[:, None] % 2 == 0, x, -x)

    x, _ = pictures()
    found = cycle_l1(context(Hiding()))
    assert list(found) == ["cycle_l1", "cycle_l1/to:dark", "cycle_l1/to:bright", "cycle_l1/blurred"]
    assert found["cycle_l1"].value == 0 and found["cycle_l1/blurred"].value > 0.5 * x.abs().mean() / 2
    assert not metric_of("cycle_l1/blurred").higher
    wide = torch.arange(5.0).expand(1, 1, 4, 5)
    assert torch.allclose(blurred(wide)[0, 0, 0], torch.tensor([1 / 3, 1, 2, 3, 11 / 3]))


def test_pictures_are_translated_once():
    class Counting(Fake):
        seen = 0

        def translate(self, x, c):
            Counting.seen += len(x)
            return super().translate(x, c)

    m = context(Counting())
    domain_accuracy(m), paired_gain(m)
    assert Counting.seen == 12
    cycle_l1(m)
    assert Counting.seen == 36, "and back, and back from what was blurred"


def test_a_translation_half_the_way_gains_a_half():
    x, _ = pictures()
    found = paired_gain(context(Fake(reach=0.5)))
    ways = ("", "/to:dark", "/to:bright")
    gains = [f"paired_gain{side}{way}" for side in ("", "/inside", "/outside") for way in ways]
    recoloured = [f"paired_gain/recoloured{side}{way}" for side in ("", "/inside") for way in ways]
    assert set(found) == {*gains, *recoloured, *(f"paired_gain/{p}" for p in ("l1", "tint", "still"))}
    for part in gains:
        assert found[part].value == pytest.approx(0.5) and found[part].control == 0
    assert all(found[part].value == pytest.approx(1) for part in recoloured), "a sign is a map of colours"
    assert [found[f"paired_gain{part}"].n for part in ("", "/to:dark", "/to:bright", "/l1")] == [12, 6, 6, 12]
    whole = x.abs().double().mean().item()
    assert found["paired_gain/l1"].value == pytest.approx(whole / 2) and found["paired_gain/l1"].control == pytest.approx(whole)
    assert found["paired_gain/tint"].value == 0
    assert METRICS["paired_gain"].higher and not any(metric_of(f"paired_gain/{part}").higher for part in ("tint", "still", "l1"))


def test_tint_is_how_far_the_mean_colour_moves_where_it_should_not():
    x = torch.zeros(2, 3, 4, 4)
    y, still = x.clone(), torch.zeros(2, 4, 4, dtype=torch.bool)
    still[:, :2] = True
    y[0, 0, :2], y[1, 1, :2], y[:, :, 2:] = 0.2, -0.4, 1.0  # and a change that is wanted
    y[0, 2, 0], y[0, 2, 1] = 0.5, -0.5  # noise without a tint
    assert tint(y, x, still) == pytest.approx((0.1 + 0.2) / 6)
    assert moved(y, x, still) == pytest.approx((0.1 + 0.2 + 0.25) / 6), "noise counts"
    still[1] = False
    assert tint(y, x, still) == pytest.approx(0.1 / 3), "of a picture with nothing that stays nothing is said"


def test_a_translation_that_tints_is_seen_to():
    tinting = type("Tinting", (Fake,), {"translate": lambda self, x, c: Fake.translate(self, x, c) + 0.1})()
    found = paired_gain(context(tinting))
    assert found["paired_gain/tint"].value == pytest.approx(0.05, rel=1e-5) and found["paired_gain"].value < 1


def test_the_best_map_of_colours_is_found():
    x = torch.rand(3, 3, 5, 4) - 0.5
    turned = torch.tensor([[0.2, 0.1, 0.0], [0.3, -0.4, 0.1], [0.0, 0.2, 0.5]])
    true = torch.einsum("bchw,cd->bdhw", x, turned) + torch.tensor([0.1, 0.0, -0.2])[:, None, None]
    assert torch.allclose(recoloured(x[:2], true[:2], x), true, atol=1e-6)
    assert recoloured(x, true + 9, x).max() == 1


def test_without_masks_every_other_pair_is_fitted():
    m = context(Fake())
    del m.real.c["mask"]
    assert same_scene._halves(m).tolist() == [True, True, False, False] * 3
    found = paired_gain(m)
    assert found["paired_gain/recoloured"].n == 6 and "paired_gain/inside" not in found


# --- what the measures are for: a map that repaints the ground alone is not taken for one that translates -----------------


def farmyard(n=64, seed=0):
    """A ground, dark or bright, and an object on it, gray or striped: each scene's pictures in the two domains, and masks."""
    generator = torch.Generator().manual_seed(seed)
    top, left = torch.randint(1, 10, (2, n, 1, 1), generator=generator)
    at = torch.arange(16)
    mask = ((at[:, None] >= top) & (at[:, None] < top + 5) & (at >= left) & (at < left + 5))[:, None]
    grain = 0.05 * torch.randn(n, 1, 16, 16, generator=generator)
    striped = torch.where((at[:, None] + top) % 2 == 0, 0.4, -0.4)[:, None].expand(n, 1, 16, 16)
    two = torch.where(mask, 0.0, -0.5) + grain, torch.where(mask, striped, 0.5) + grain
    return two, mask


def test_a_map_of_the_ground_alone_is_told_from_a_translation(monkeypatch):
    two, mask = farmyard()
    domain = torch.arange(64) % 2
    x, true = (torch.where((domain == k)[:, None, None, None], two[1], two[0]) for k in (1, 0))
    signed = torch.where(mask, 1.0, -1.0)
    repainted = torch.where(mask, x, true)
    judge = SimpleNamespace(
        id="ear for the ground", accuracy={"domain": 1.0}, predict=lambda some, name: (some[:, :, 0].mean((1, 2)) > 0).long()
    )

    def measured(y):
        m = context(Fake(), real=Batch(x, {"domain": domain, "counterpart": true, "mask": signed}), judge=judge)
        m.kept |= {("ways", m.model): same_scene.Ways(torch.arange(64), domain, 1 - domain, x, y)}
        found = domain_accuracy(m) | paired_gain(m) | mask_iou(m)
        return {name: value.value for name, value in found.items()}

    learnt = cache(lambda: train_segmenter(torch.cat(two), torch.cat([signed, signed]), steps=60))
    monkeypatch.setattr(same_scene, "train_segmenter", lambda x, mask: learnt())
    translated, cheated = measured(true), measured(repainted)
    for found in (translated, cheated):
        assert found["domain_accuracy"] == 1 and found["paired_gain"] > 0.7 and found["mask_iou"] > 0.8, "these hear the ground"
    assert translated["domain_accuracy/object"] == 1 and cheated["domain_accuracy/object"] == 0
    for way in ("", "/to:dark", "/to:bright"):
        assert translated[f"paired_gain/inside{way}"] == 1 and cheated[f"paired_gain/inside{way}"] == 0
    assert abs(translated["paired_gain/recoloured/inside/to:bright"]) < 0.3 < translated["paired_gain/recoloured"]


def test_an_object_is_seen_without_its_rim():
    x, mask = torch.rand(1, 3, 4, 4), torch.tensor([1.0, 0.9, -1.0, 1.0]).expand(1, 1, 4, 4)
    seen = alone(x, mask)
    assert torch.equal(seen[..., [0, 3]], x[..., [0, 3]]) and (seen[..., 1:3] - 1 / 255).abs().max() == 0
    assert (to_bytes(seen)[:, :, 1:3] == 128).all()


def test_no_ground_pleases_the_judge_of_objects():
    two, mask = farmyard(192)
    signed, domain = torch.where(mask, 1.0, -1.0), torch.arange(2).repeat_interleave(128)
    judge = object_judge(torch.cat([x[:128] for x in two]), domain, torch.cat([signed[:128]] * 2), "domain", DOMAINS)
    for k, x in enumerate(two):
        for ground in (-1.0, 0.0, 1.0):
            assert (judge.predict(alone(torch.where(mask, x, ground), signed)[128:]) == k).double().mean() > 0.9


# --- the shape ------------------------------------------------------------------------------------------------------------


def test_a_shape_that_is_kept_overlaps_the_mask(monkeypatch):
    def seen(x):
        """What is not nought."""
        return x[:, 0].abs() > 0.05

    m = context(Fake())
    x = m.real.x * (m.real.c["mask"] > 0)
    x[torch.arange(12), 0, torch.arange(12), 0] = torch.where(m.real.c["domain"] == 1, 0.9, -0.9)
    m.real = Batch(x, m.real.c | {"counterpart": -x})
    monkeypatch.setattr(same_scene, "train_segmenter", lambda x, mask: type("S", (), {"id": "s", "__call__": lambda self, y: seen(y)})())
    found = mask_iou(m)
    assert list(found) == ["mask_iou", "mask_iou/to:dark", "mask_iou/to:bright"]
    whole = found["mask_iou"]
    assert (whole.value, whole.ceiling, whole.n, whole.standard_error) == (1, 1, 6, 0) and whole.control == pytest.approx(16 / 18)
    shifting = type("Shifting", (Fake,), {"translate": lambda self, x, c: x.roll(2, 3)})()
    m.model = shifting
    shifted = mask_iou(m)["mask_iou"]
    assert shifted.value == pytest.approx(8 / 26) and shifted.ceiling == 1
    m.real.c["counterpart"] = m.real.c["counterpart"].roll(2, 3)
    assert mask_iou(m)["mask_iou"].ceiling == pytest.approx(8 / 26), "the segmenter on the true counterparts"
    one = torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert same_scene._mean([one] * 3, "").standard_error == pytest.approx(one.double().std().item() / 2)


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
    x, domain = pictures(42, 1)
    train = Dataset("d", "train", Content(to_bytes(x), {"domain": domain}, {"domain": DOMAINS}))
    m, tried = context(Fake(), judge=unsure(), train=train), []

    def trial(learnt, held):
        tried.append((len(learnt), len(held)))
        return SimpleNamespace(accuracy={"domain": known})

    monkeypatch.setattr(domains, "judge_for", trial)
    monkeypatch.setitem(sys.modules, "condgen.backbones", SimpleNamespace(feature_net=lambda name: Means()))
    known = 0.9
    found = domain_accuracy(m)["domain_accuracy"]
    assert (found.value, found.ceiling, found.control) == (1, 1, 0)
    assert "logistic on means-v1 relu2_2, 35 real pictures" in found.provenance and tried == [(35, 7)]
    known = 1.0
    assert "judge-v0" in domain_accuracy(m)["domain_accuracy"].provenance, "as good on training rows that neither learnt from"

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


# --- domains of any name --------------------------------------------------------------------------------------------------


def test_the_grid_of_a_run_takes_any_label_and_all_its_names():
    asked = []

    class Three(Fake):
        def translate(self, x, c):
            asked.append(int(c["manner"][0]))
            return x + 0.1

    model = Three(schema={"manner": Label(("a", "b", "c"))})
    assert domain_of(model)[0] == "manner"
    x, _ = pictures(9)
    data = Dataset("d", "train", Content(to_bytes(x), {"manner": torch.arange(9) % 3}, {"manner": Label(("a", "b", "c"))}))
    grid = translations(model, data)
    assert len(grid) == 3 * 3 * 8 and asked == [1, 0, 2, 1, 0, 2]
    assert torch.allclose(grid[8:16], grid[:8] + 0.1) and torch.allclose(grid[16:24], grid[:8] + 0.2)
