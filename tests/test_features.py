"""Feature nets: preprocessing in closed form, layers against nets written out here, the scales of Gatys, folded norms, texture's metric."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from condgen.data import load
from condgen.data.photos import SIDE, photograph, pieces_of
from condgen.errors import BadInput
from condgen.evaluation import feature_distances, textures
from condgen.evaluation.feature_distances import frechet_on_net, kernel_on_net, pooled
from condgen.evaluation.frechet import frechet, kernel
from condgen.evaluation.measuring import Measuring
from condgen.evaluation.perceptual import FLOOR, perceptual_on
from condgen.model import Batch
from condgen.models.features import Features, enlarged
from condgen.networks import features
from condgen.networks.features import VGG_NAMES, in_house, normalised, random_net, squeezenet, sum_of, torchvision_key, vgg19
from condgen.networks.textures import TextureNet
from condgen.objectives.perceptual import gram
from painter import RUN, TEST, TRAIN, Painter

RELUS = tuple(name.replace("conv", "relu") for name in VGG_NAMES)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def vgg_weights(key=str, width=4):
    """VGG-19's convolutions, `width` channels each, with random weights and biases."""
    sizes = [3, *[width] * len(VGG_NAMES)]
    found = {}
    for name, n_in, n_out in zip(VGG_NAMES, sizes, sizes[1:]):
        found[f"{key(name)}.weight"] = torch.randn(n_out, n_in, 3, 3) * (2 / (9 * n_in)) ** 0.5
        found[f"{key(name)}.bias"] = 0.1 * torch.randn(n_out)
    return found


def pictures(n=2, h=48, w=32):
    return 2 * torch.rand(n, 3, h, w) - 1


# --- what a net reads -----------------------------------------------------------------------------------------------------


def test_caffe_reads_blue_green_red_from_0_to_255_without_the_mean():
    x = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)  # red 255, green 127.5, blue 0
    assert features.caffe()(x).flatten().tolist() == pytest.approx([-103.939, 127.5 - 116.779, 255 - 123.68], abs=1e-4)


def test_imagenet_reads_red_green_blue_standardised():
    x = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)
    assert features.imagenet()(x).flatten().tolist() == pytest.approx(
        [(1 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, -0.406 / 0.225], rel=1e-5
    )


def test_gray_is_read_three_times():
    net, x = random_net(), pictures()[:, :1]
    assert torch.equal(net(x, ("relu2_1",))["relu2_1"], net(x.repeat(1, 3, 1, 1), ("relu2_1",))["relu2_1"])


# --- what it says ---------------------------------------------------------------------------------------------------------


def by_hand(weights, x, pool=F.max_pool2d, scales=None):
    """VGG-19 written out; with `scales`, every filter divided by its own and the next layer's reading multiplied by it."""
    found, a, before = {}, x, torch.ones(3)
    for name in VGG_NAMES:
        if name.endswith("_1") and name != "conv1_1":
            a = pool(a, 2)
        own = torch.ones(len(weights[f"{name}.bias"])) if scales is None else scales[name]
        weight = weights[f"{name}.weight"] * before[None, :, None, None] / own[:, None, None, None]
        found[name] = F.conv2d(a, weight, weights[f"{name}.bias"] / own, padding=1)
        a, before = F.relu(found[name]), own
        found[name.replace("conv", "relu")] = a
    return found


@pytest.mark.parametrize("pooling, pool", [("max", F.max_pool2d), ("average", F.avg_pool2d)])
def test_vgg_is_vgg_under_both_ways_to_name_its_weights(pooling, pool):
    weights = vgg_weights()
    renamed = {f"{torchvision_key(k.split('.')[0])}.{k.split('.')[1]}": v for k, v in weights.items()}
    x, names = pictures(), ("conv1_1", *RELUS)
    for net, read in ((vgg19(weights, pooling), features.caffe()), (vgg19(renamed, pooling), features.imagenet())):
        found, expected = net(x, names), by_hand(weights, read(x), pool)
        assert set(found) == set(names) and net.names == tuple(n for pair in zip(VGG_NAMES, RELUS) for n in pair)
        assert all(torch.allclose(found[name], expected[name], rtol=1e-4, atol=1e-4 * float(expected[name].abs().max())) for name in names)


def test_torchvisions_places_are_those_of_its_layers():
    plan = [2, "M", 2, "M", 4, "M", 4, "M", 4, "M"]
    layers = [kind for n in plan for kind in (["M"] if n == "M" else ["conv", "relu"] * n)]
    assert [int(torchvision_key(n).split(".")[1]) for n in VGG_NAMES] == [i for i, kind in enumerate(layers) if kind == "conv"]


def test_the_net_runs_no_farther_than_it_is_asked():
    net, small = random_net(), pictures(1, 4, 4)
    assert net(small, ("relu1_2",))["relu1_2"].shape == (1, 8, 4, 4)
    with pytest.raises(BadInput, match="4x4 px is too small"):
        net(small, ("relu5_1",))
    with pytest.raises(BadInput, match=r"unknown layer of random-8-0 'relu5_9': did you mean"):
        net(small, ("relu5_9",))
    with pytest.raises(BadInput, match=r"\(1, 2, 8, 8\); expected \(b, 3, h, w\)"):
        net(torch.zeros(1, 2, 8, 8), ("relu1_1",))


def test_weights_rest_and_pictures_have_gradients():
    net, x = random_net(), pictures().requires_grad_()
    net(x, ("relu4_2",))["relu4_2"].sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0 and not any(p.requires_grad for p in net.parameters()) and not net.training


def squeeze_weights():
    found = {"conv1.weight": torch.randn(8, 3, 3, 3) / 5, "conv1.bias": torch.randn(8) / 10}
    for number in features.FIRES:
        for part, n_in, n_out, side in (("squeeze1x1", 8, 4, 1), ("expand1x1", 4, 4, 1), ("expand3x3", 4, 4, 3)):
            found[f"fire{number}/{part}.weight"] = torch.randn(n_out, n_in, side, side) / (n_in * side**2) ** 0.5
            found[f"fire{number}/{part}.bias"] = torch.randn(n_out) / 10
    return found


def test_squeezenet_is_its_modules_in_a_row():
    weights, x = squeeze_weights(), pictures(1, 67, 48)

    def conv(a, key, **options):
        return F.relu(F.conv2d(a, weights[f"{key}.weight"], weights[f"{key}.bias"], **options))

    expected, a = {}, conv(features.caffe()(x), "conv1", stride=2)
    expected["relu1_1"] = a
    for number, name in features.FIRES.items():
        a = F.max_pool2d(a, 3, 2, ceil_mode=True) if number in (2, 4, 6) else a
        s = conv(a, f"fire{number}/squeeze1x1")
        a = torch.cat([conv(s, f"fire{number}/expand1x1"), conv(s, f"fire{number}/expand3x3", padding=1)], 1)
        expected[f"relu{name}"] = a
    net = squeezenet(weights)
    found = net(x, tuple(expected))
    assert all(torch.allclose(found[k], v, rtol=1e-4, atol=1e-4) for k, v in expected.items())
    assert {"relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1"} <= set(net.names)


def test_weights_that_do_not_fit_are_named():
    weights = vgg_weights()
    with pytest.raises(BadInput, match=r"'conv3_2' has weights of \(4, 5, 3, 3\)"):
        vgg19({**weights, "conv3_2.weight": torch.zeros(4, 5, 3, 3)})
    with pytest.raises(BadInput, match="no 'conv1_1'; they begin with a, b"):
        vgg19({"a": torch.zeros(1), "b": torch.zeros(1)})
    with pytest.raises(BadInput, match=r"no 'fire2/squeeze1x1'"):
        squeezenet({k: v for k, v in squeeze_weights().items() if "fire2/squeeze" not in k})
    with pytest.raises(BadInput, match="unknown pooling 'mean'"):
        vgg19(weights, "mean")


# --- Gatys' normalisation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling, pool", [("max", F.max_pool2d), ("average", F.avg_pool2d)])
def test_normalising_is_rescaling_every_filters_weights(pooling, pool):
    """Against VGG whose weights are really rescaled: the rectifier is homogeneous, so nothing else changes."""
    weights, x, other = vgg_weights(), pictures(3), pictures(1)
    for name in VGG_NAMES:
        weights[f"{name}.bias"].fill_(0.3)  # no filter that never says anything
    net = vgg19(weights, pooling, features.Scaled((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    ours = normalised(net, x, chunk=2)
    means = {name: net(x, (relu,))[relu].mean((0, 2, 3)) for name, relu in zip(VGG_NAMES, RELUS)}
    alive = {name: torch.where(m > 0, m, 1.0) for name, m in means.items()}
    expected = by_hand(weights, other, pool, alive)
    found = ours(other, (*VGG_NAMES, *RELUS))
    assert all(torch.allclose(found[k], expected[k], rtol=1e-3, atol=1e-4 * float(expected[k].abs().max())) for k in expected)
    seen = ours(x, RELUS)
    for name, relu in zip(VGG_NAMES, RELUS):
        assert torch.allclose(seen[relu].mean((0, 2, 3)), (means[name] > 0).float(), atol=1e-4)
    assert ours.id == f"{net.id}-normalised" and torch.equal(net(x, ("relu1_1",))["relu1_1"].mean((0, 2, 3)), means["conv1_1"])


def test_modules_are_normalised_too():
    net, x = squeezenet(squeeze_weights()), pictures(2, 64, 64)
    mean = normalised(net, x)(x, ("relu4_2",))["relu4_2"].mean((0, 2, 3))
    assert torch.allclose(mean[mean > 0], torch.ones(int((mean > 0).sum())), atol=1e-4) and (mean > 0).any()


# --- the net that is trained here -----------------------------------------------------------------------------------------


@pytest.fixture
def texture_net():
    """With norms that are not trivial."""
    net = TextureNet(4)
    for _ in range(3):
        net(pictures(4) * torch.rand(4, 1, 1, 1) + 0.2)
    for norm in net.norms:
        nn.init.normal_(norm.weight, 1, 0.2)
        nn.init.normal_(norm.bias, 0, 0.2)
    return net.eval()


def test_folding_the_norms_changes_nothing(texture_net):
    x, names = pictures(), textures.LEVELS
    found = in_house(texture_net.weights())(x, names)
    for a, name in zip(texture_net.activations(x), names, strict=True):
        assert torch.allclose(found[name], a, rtol=1e-4, atol=1e-5)


def test_directions_have_the_mean_cosine_of_grams(texture_net):
    x = pictures()
    u, v = texture_net(x).detach()
    grams = [gram(a) for a in in_house(texture_net.weights())(x, textures.LEVELS).values()]
    expected = np.mean([float((g[0] * g[1]).sum() / (g[0].norm() * g[1].norm())) for g in grams])
    assert float(u @ v) == pytest.approx(expected, rel=1e-4) and float(u @ u) == pytest.approx(1, rel=1e-5)


def test_the_name_of_a_trained_net_is_its_sum(texture_net):
    weights = texture_net.weights()
    assert in_house(weights).id == f"inhouse-{sum_of(weights)[:6]}"
    weights["conv1_1.bias"][0] += 1e-3
    assert in_house(weights).id != in_house(texture_net.weights()).id


def test_a_crop_of_all_is_the_picture_or_its_mirror_image():
    model = Features((3, 32, 32), width=4, crop=32, zoom=(1.0, 1.0), jitter=0.0, turn=0.0)
    model.noise.seed(0)
    x = pictures(16, 32, 32)
    seen = model.view(x)
    as_it_was, mirrored = ((seen - y).abs().amax((1, 2, 3)) < 1e-4 for y in (x, x.flip(3)))
    assert (as_it_was ^ mirrored).all() and as_it_was.any() and mirrored.any()


def test_crops_lie_inside_are_as_large_as_said_and_keep_their_proportions():
    """On a picture whose red is x and whose green is y: what a crop shows says where it lies."""
    h, w = 64, 128
    down, across = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    x = torch.stack([across, down, down]).expand(40, 3, h, w)
    model = Features((3, h, w), width=4, crop=32, zoom=(0.5, 0.5), jitter=0.0, turn=0.0)
    model.noise.seed(0)
    seen = model.view(x)
    wide, tall = (seen[:, k].amax((1, 2)) - seen[:, k].amin((1, 2)) for k in (0, 1))
    assert torch.allclose(wide, torch.full((40,), 0.5 * 31 / 32), atol=0.03)  # half of the shorter side is a quarter of the longer
    assert torch.allclose(tall, torch.full((40,), 1.0 * 31 / 32), atol=0.03)
    middles = seen[:, 0].mean((1, 2))
    assert middles.min() < -0.5 and middles.max() > 0.5 and seen.abs().max() <= 1


def test_colours_are_changed_crop_by_crop():
    model = Features((3, 32, 32), width=4, jitter=0.2)
    model.noise.seed(0)
    seen = model.view(torch.full((8, 3, 32, 32), 0.5))
    assert torch.allclose(seen, seen[:, :, :1, :1].expand_as(seen), atol=1e-5) and (seen - 0.5).abs().max() <= 0.3 + 1e-5
    assert seen[:, :, 0, 0].std() > 0.03


def test_the_loss_is_a_choice_among_the_batch():
    """A net that tells all apart pays nothing, one that cannot pays the logarithm of how many there are."""
    model, batch = Features((3, 32, 32), width=4, temperature=0.05), Batch(pictures(6, 32, 32), {})
    eye, ones = torch.eye(6), torch.ones(6, 6) / 6**0.5
    for direction, cost in ((eye, 0.0), (ones, float(np.log(6)))):
        model.net.forward = lambda x, direction=direction: direction
        (turn,) = model.turns(batch, 0)
        assert turn["net"]["which"].tolist() == pytest.approx([cost] * 6, abs=1e-5)


def test_features_are_statistics_and_small_pictures_are_enlarged():
    model = Features((1, 8, 8), width=4).eval()
    x = pictures(3, 8, 8)[:, :1]
    assert enlarged(x).shape == (3, 1, 32, 32) and model.features(x).shape == (3, 30 * 4)
    first = model.net.activations(enlarged(x))[0]
    assert torch.allclose(model.features(x)[:, :4], first.mean((2, 3)))


@pytest.mark.parametrize("shape", [(2,), (4, 16, 16)])
def test_points_and_strange_channels_are_refused(shape):
    with pytest.raises(BadInput, match=r"needs pictures \(c, h, w\) of one or three channels"):
        Features(shape)


def test_photos_are_pieces_of_the_photographs():
    train, test = load("photos"), load("photos", "test")
    assert (len(train), len(test), train.shape) == (50, 10, (3, SIDE, SIDE)) and train.schema["photo"].names == ("china", "flower")
    whole = {pixels.tobytes() for pixels in (*train.pictures(), *test.pictures())}
    assert len(whole) == 60 and pieces_of(photograph("china"))[0].tobytes() in whole
    assert np.bincount(train.values()["photo"]).tolist() == [25, 25]


# --- the metric of textures -----------------------------------------------------------------------------------------------


def test_the_area_under_the_curve_counts_comparisons():
    a, b, picture = torch.randn(6, 3, 64, 64), torch.randn(6, 3, 64, 64), torch.tensor([0, 0, 1, 1, 2, 2])
    net = random_net()
    u, v = (torch.cat([F.normalize(gram(g).flatten(1), dim=1) for g in net(x, textures.LEVELS).values()], 1).double() for x in (a, b))
    d = torch.cdist(u, v)
    wins = [(d[i, i] < d[j, k]).double() for i in range(6) for j in range(6) for k in range(6) if picture[j] != picture[k]]
    assert textures.auc(net, textures.Pairs(a, b, picture)) == pytest.approx(float(torch.stack(wins).mean()), abs=1e-9)


def test_textures_that_differ_are_told_apart_and_equal_ones_are_not():
    stripes = torch.sin(torch.arange(160.0) * 0.8).expand(3, 160, 160)
    kinds = [stripes, stripes.transpose(1, 2), torch.randn(3, 160, 160), torch.rand(3, 1, 1).expand(3, 160, 160)]
    assert textures.auc(random_net(), textures.pairs_of(kinds, each=3)) == 1.0
    noise = [torch.randn(3, 160, 160) for _ in range(12)]
    assert 0.2 < textures.auc(random_net(), textures.pairs_of(noise, each=2)) < 0.8


def test_squares_are_neighbours():
    ramp = torch.arange(100.0).expand(3, 100, 100) + 1000 * torch.arange(100.0)[:, None]
    found = textures.pairs_of([ramp] * 20, each=1, side=16)
    step = (found.b - found.a)[:, 0]
    assert all(len(s.unique()) == 1 and float(s[0, 0]) in (16.0, 16000.0) for s in step) and len(step[:, 0, 0].unique()) == 2


def test_files_that_are_equal_are_one_picture(tmp_path):
    for name, content in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).write_bytes(content)
    assert [f.name for f in textures.distinct(sorted(tmp_path.iterdir()))] == ["a", "b"]


def test_without_pictures_the_metric_says_which_are_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("CONDGEN_DATA", str(tmp_path))
    with pytest.raises(BadInput, match=r"style_images and .*deep_photo; there are 0"):
        textures.held_out()


# --- distances in the eyes of a feature net -------------------------------------------------------------------------------


@pytest.fixture
def measuring(monkeypatch):
    monkeypatch.setattr(feature_distances, "feature_net", lambda: random_net(8))
    return Measuring(Painter(), RUN, n=60, train=TRAIN, test=TEST)


def test_distances_are_of_pooled_activations_and_name_the_net(measuring):
    real, drawn = measuring.real.x, measuring.natural
    net = random_net(8)
    big = F.interpolate(real[:3], scale_factor=32 / real.shape[-1], mode="bilinear") if real.shape[-1] < 32 else real[:3]
    assert torch.allclose(pooled(net, real[:3]), net(big, ("relu5_1",))["relu5_1"].mean((2, 3)).double(), atol=1e-5)
    found, other = frechet_on_net(measuring), kernel_on_net(measuring)
    assert found.value == pytest.approx(frechet(pooled(net, real), pooled(net, drawn)))
    assert other.value == pytest.approx(kernel(pooled(net, real), pooled(net, drawn)))
    assert "|random-8-0, mean of relu5_1" in found.provenance and "random-8-0" in other.provenance and "cubic" in other.provenance
    assert found.ceiling is not None and found.ceiling < found.control


def test_the_perceptual_distance_is_the_formula_on_the_nets_own_layers():
    net, x, y = random_net(), pictures(), pictures()
    expected = torch.zeros(2, dtype=torch.float64)
    for name in textures.LEVELS:
        u, v = (
            a / (a.square().sum(1, keepdim=True) + FLOOR**2).sqrt()
            for a in (net(x, (name,))[name].double(), net(y, (name,))[name].double())
        )
        expected += (u - v).square().sum(1).mean((1, 2))
    distance = perceptual_on(net)
    assert torch.allclose(distance(x, y), expected, rtol=1e-4) and (distance(x, x) == 0).all()
    assert distance.id == "perceptual on random-8-0 (relu1_1, relu2_1, relu3_1, relu4_1, relu5_1)"
    assert next(net.parameters()).dtype == torch.float32, "the net itself stays as it is"
