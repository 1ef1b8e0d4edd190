"""The nets of style-based models, each block against its definition or a loop."""

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from condgen.conditions import Label, Vector
from condgen.errors import BadInput
from condgen.model import APART
from condgen.networks.equalised import ROOT2, Bias, Blur, EqualConv, EqualLinear, doubled, minibatch_stddev, pixel_norm
from condgen.networks.reading import ReadingBlock, StyleCritic, StyleEncoder, statistics
from condgen.networks.style import Mapping, StyleLayer, Synthesis, adain, demodulation, grouped, modulated, stages
from condgen.objectives.penalties import path_lengths
from condgen.styled import AVERAGED, distinct, swapped
from styled import styled


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# --- equalised layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [ROOT2, 1.0])
@pytest.mark.parametrize("lr_mul", [1.0, 0.1, 0.01])
def test_effective_weights_are_gain_over_the_root_of_fan_in(gain, lr_mul):
    layer = EqualLinear(256, 300, gain=gain, lr_mul=lr_mul)
    effective = layer(torch.eye(256)).detach() - layer(torch.zeros(1, 256)).detach()
    assert layer.weight.std().item() == pytest.approx(1 / lr_mul, rel=0.02)
    assert effective.std().item() == pytest.approx(gain / 16, rel=0.02)
    assert layer(torch.randn(2000, 256)).std().item() == pytest.approx(gain, rel=0.05)


def test_the_same_step_moves_a_slow_layer_by_lr_mul():
    """Adam moves each number by its learning rate: what the layer does then changes lr_mul times as much."""
    moves = {}
    for lr_mul in (1.0, 0.01):
        layer = EqualLinear(64, 64, lr_mul=lr_mul)
        x, before = torch.randn(5, 64), None
        for _ in range(2):
            before, moved = layer(x).detach(), before
            for p in layer.parameters():
                p.data += 1e-3
        moves[lr_mul] = (before - moved).norm() / (x.sum(1).abs() * ROOT2 / 8 + 1).norm()
    assert (moves[0.01] / moves[1.0]).item() == pytest.approx(0.01, rel=0.15)


@pytest.mark.parametrize("kernel, change", [(3, {}), (1, {}), (3, {"down": True}), (3, {"up": True})])
def test_a_convolution_keeps_the_variance_times_its_gain(kernel, change):
    conv = EqualConv(32, 48, kernel, gain=1.0, **change)
    assert (conv.weight * conv.scale).std().item() == pytest.approx(1 / math.sqrt(32 * kernel**2), rel=0.05)
    if not change:
        inner = conv(torch.randn(16, 32, 12, 12))[:, :, 1:-1, 1:-1]
        assert inner.var().item() == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("side", [(4, 4), (7, 5)])
def test_doubling_is_nearest_upsampling_and_the_convolution(side):
    conv, x = EqualConv(5, 3, up=True), torch.randn(2, 5, *side)
    plain = F.conv2d(F.interpolate(x, scale_factor=2.0), conv.weight * conv.scale, padding=1)
    assert torch.allclose(conv(x), plain, atol=1e-5)
    assert doubled(conv.weight).shape == (5, 3, 4, 4)


def test_down_halves_the_sides():
    assert EqualConv(2, 3, down=True)(torch.randn(1, 2, 8, 6)).shape == (1, 3, 4, 3)


def test_blur_is_the_outer_product_and_takes_zeros_beyond_the_border():
    blur, x = Blur(3), torch.randn(2, 3, 6, 5)
    row = torch.tensor([0.25, 0.5, 0.25])
    padded, expected = F.pad(x, (1, 1, 1, 1)), torch.zeros_like(x)
    for i in range(3):
        for j in range(3):
            expected += row[i] * row[j] * padded[:, :, i : i + 6, j : j + 5]
    assert torch.allclose(blur(x), expected, atol=1e-6)
    assert torch.allclose(blur.kernel.sum((2, 3)), torch.ones(3, 1))
    constant = blur(torch.ones(1, 3, 6, 6))
    assert torch.allclose(constant[:, :, 1:-1, 1:-1], torch.ones(1, 3, 4, 4)) and constant[0, 0, 0, 0] == 9 / 16
    assert not list(blur.state_dict()), "the kernel is no weight"


def test_bias_and_pixel_norm():
    layer, x = Bias(3), 5 + torch.randn(2, 3, 4, 4)
    layer.bias.data = torch.tensor([1.0, 2.0, 3.0])
    assert torch.allclose(layer(x)[:, 1], x[:, 1] + 2)
    assert torch.allclose(pixel_norm(x).square().mean(1), torch.ones(2, 4, 4), atol=1e-5)


@pytest.mark.parametrize("b, group, size", [(8, 4, 4), (6, 4, 3), (5, 4, 1), (2, 4, 2), (7, 8, 7)])
def test_minibatch_deviation_against_a_loop(b, group, size):
    x = torch.randn(b, 3, 2, 2)
    found = minibatch_stddev(x, group)
    assert torch.equal(found[:, :3], x) and found.shape == (b, 4, 2, 2)
    apart = b // size
    for i in range(b):
        own = [x[j] for j in range(b) if j % apart == i % apart]
        assert len(own) == size
        each = [math.sqrt(float(torch.stack([o.flatten()[k] for o in own]).var(correction=0)) + 1e-8) for k in range(12)]
        assert torch.allclose(found[i, 3], torch.tensor(sum(each) / 12), atol=1e-6)


# --- styles -------------------------------------------------------------------------------------------------------------------


def test_adain_gives_the_statistics_that_are_asked():
    x, style = 3 + 7 * torch.randn(4, 6, 8, 8), torch.randn(4, 12)
    scale, shift = style.chunk(2, 1)
    y = adain(x, style)
    assert torch.allclose(y.mean((2, 3)), shift, atol=1e-5)
    assert torch.allclose(y.std((2, 3), correction=0), (1 + scale).abs(), atol=1e-5)


def test_a_new_layer_leaves_channels_at_about_zero_and_one():
    """The style's bias begins at 0, so that scales are 1 + A w with A w small."""
    layer = StyleLayer(16, 16, 8, False, False, True, "adain")
    assert (layer.style.bias == 0).all() and layer.style.scale == pytest.approx(1 / math.sqrt(8))
    y = layer(torch.randn(8, 16, 8, 8), torch.zeros(8, 8), None)
    assert torch.allclose(y.mean((2, 3)), torch.zeros(8, 16), atol=1e-5) and torch.allclose(y.std((2, 3), correction=0), torch.ones(8, 16))


def test_noise_is_let_in_by_a_weight_that_begins_at_zero_and_stands_before_the_rectifier():
    layer, x, w = StyleLayer(4, 4, 3, False, False, True, "plain"), torch.randn(2, 4, 4, 4), torch.zeros(2, 3)
    noise = torch.randn(2, 1, 4, 4)
    assert torch.equal(layer(x, w, noise), layer(x, w, None))
    layer.noise.data = torch.tensor([0.0, 1.0, 2.0, -1.0])
    layer.bias.bias.data = torch.randn(4)
    h = layer.conv(x) + noise * layer.noise.view(-1, 1, 1) + layer.bias.bias.view(-1, 1, 1)
    assert torch.allclose(layer(x, w, noise), pixel_norm(F.leaky_relu(h, 0.2)), atol=1e-6)


def test_without_a_style_the_first_layer_keeps_the_level_of_what_it_is_given():
    """An even picture is all level; the instance norm of a style takes it away, the pixel norm does not."""
    layer, x, w = StyleLayer(0, 4, 3, False, False, False, "plain"), torch.randn(2, 4, 4, 4), torch.zeros(2, 3)
    layer.bias.bias.data = torch.randn(4)
    expected = pixel_norm(F.leaky_relu(x + layer.bias.bias.view(-1, 1, 1), 0.2))
    assert torch.allclose(layer(x, w, None), expected, atol=1e-6)
    even = x[:, :, :1, :1].expand(2, 4, 4, 4)
    assert torch.allclose(layer(even, w, None), expected[:, :, :1, :1].expand(2, 4, 4, 4), atol=1e-6)
    styled_layer = StyleLayer(0, 4, 3, False, False, False, "adain")
    assert torch.allclose(styled_layer(even, w, None), torch.zeros(2, 4, 4, 4), atol=1e-6)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("up", [True, False])
def test_scaled_inputs_and_grouped_kernels_are_one_convolution(up, demodulate):
    conv, x, scale = EqualConv(6, 5, up=up), torch.randn(3, 6, 8, 8), 1 + torch.randn(3, 6)
    found = [f(x.requires_grad_(), conv, scale, demodulate) for f in (modulated, grouped)]
    assert found[0].shape == (3, 5, 16, 16) if up else (3, 5, 8, 8)
    assert torch.allclose(*found, atol=1e-5)
    gradients = [torch.autograd.grad(y.square().sum(), [x, conv.weight]) for y in found]
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-3, rtol=1e-5)


def test_demodulation_brings_outputs_to_unit_variance_whatever_the_style():
    conv, x = EqualConv(64, 32), torch.randn(4, 64, 16, 16)
    scale = torch.tensor([0.01, 1.0, 30.0, 1.0])[:, None] * (0.5 + torch.rand(4, 64))
    y = modulated(x, conv, scale)[:, :, 1:-1, 1:-1]
    assert torch.allclose(y.var((1, 2, 3)), torch.ones(4), atol=0.05)
    kernels = conv.weight * conv.scale * scale[2][None, :, None, None]
    assert torch.allclose(demodulation(conv, scale)[2], 1 / kernels.square().sum((1, 2, 3)).sqrt(), rtol=1e-5)


def test_the_mapping_normalises_what_it_is_given():
    net, z = Mapping(16, {}, 3, 0.01), torch.randn(4, 16)
    assert torch.allclose(net(z, {}), net(9 * z, {}), atol=1e-5)
    assert torch.allclose(Mapping(16, {}, 0, 0.01)(z, {}), pixel_norm(z))
    assert all(layer.lr_mul == 0.01 for layer in net.layers) and len(net.layers) == 3


def test_the_mapping_reads_conditions():
    net, z = Mapping(8, {"digit": Label(tuple("01"))}, 2, 0.1), torch.randn(1, 8).expand(2, 8)
    w = net(z, {"digit": torch.tensor([0, 1])})
    assert not torch.allclose(w[0], w[1])


# --- synthesis ----------------------------------------------------------------------------------------------------------------


def test_channels_halve_and_sides_double():
    assert stages((3, 64, 64), 16, 64) == ([(4, 4), (8, 8), (16, 16), (32, 32), (64, 64)], [64, 64, 64, 32, 16])
    assert stages((1, 28, 28), 8, 512)[0] == [(7, 7), (14, 14), (28, 28)]


def test_there_are_two_layers_a_resolution_and_the_constant_begins_at_one():
    net = Synthesis((3, 16, 16), 8, 4, 16)
    assert net.layer_sides == net.noise_sides == ((4, 4), (4, 4), (8, 8), (8, 8), (16, 16), (16, 16))
    assert (net.first == 1).all() and net.first.shape == (1, 16, 4, 4)
    assert net.layers[0].conv is None, "the first layer has no convolution"
    assert [layer.conv.up for layer in net.layers[1:]] == [False, True, False, True, False]
    assert Synthesis((3, 16, 16), 8, 4, 16, noisy=False).noise_sides == ()


def noises(net, b):
    return [torch.randn(b, 1, *side) for side in net.noise_sides]


@pytest.mark.parametrize("kind", ["adain", "demodulated", "plain"])
def test_each_layer_reads_its_own_w(kind):
    """A change of one layer's w changes the picture; for "plain" only the first, from which it begins."""
    net = Synthesis((1, 16, 16), 6, 4, 8, constant=kind != "plain", noisy=False, kind=kind)
    w, out = torch.randn(1, 6, 6), []
    for i in range(6):
        other = w.clone()
        other[:, i] += 1
        out.append(not torch.allclose(net(other, []), net(w, []), atol=1e-6))
    assert out == ([True] * 6 if kind != "plain" else [True] + [False] * 5)


def test_between_two_stages_the_picture_is_the_blend():
    net = Synthesis((3, 16, 16), 6, 4, 8, growing=True)
    w, noise = torch.randn(2, 6, 6), noises(net, 2)
    at = {stage: net(w, noise, stage) for stage in (0.0, 1.0, 1.25, 2.0)}
    assert [tuple(x.shape[2:]) for x in at.values()] == [(4, 4), (8, 8), (16, 16), (16, 16)]
    smaller = at[1.0].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(at[1.25], 0.75 * smaller + 0.25 * at[2.0], atol=1e-5)
    assert torch.equal(at[2.0], net(w, noise))


def test_the_critic_of_a_stage_blends_too():
    net, x = StyleCritic((3, 16, 16), {}, 4, 8, growing=True), torch.randn(4, 3, 16, 16)
    assert not torch.allclose(net(x, {}, 1.5), net(x, {}, 2.0))
    near = net(x, {}, 1.0 + 1e-6)  # next to nothing of the new layers: the critic of the smaller picture
    assert torch.allclose(near, net(F.avg_pool2d(x, 2), {}, 1.0), atol=1e-4)
    assert torch.allclose(net(x, {}, 2.0 - 1e-6), net(x, {}), atol=1e-4)


def test_path_lengths_of_a_linear_synthesis():
    """x = sum over layers of A_l w_l: J^T y is A_l^T y, whatever w."""
    a, w, y = torch.randn(2, 12, 5), torch.randn(3, 2, 5, requires_grad=True), torch.randn(3, 3, 2, 2)
    x = torch.einsum("lpd,bld->bp", a, w).view(3, 3, 2, 2)
    by_hand = [math.sqrt(sum(float((a[i].T @ y[b].flatten()).square().sum()) for i in range(2)) / 2) / 2 for b in range(3)]
    assert path_lengths(x, w, y).tolist() == pytest.approx(by_hand, rel=1e-5)


def test_path_lengths_can_be_descended():
    net = Synthesis((1, 8, 8), 6, 4, 8, noisy=False)
    w = torch.randn(2, 4, 6, requires_grad=True)
    x = net(w, [])
    path_lengths(x, w, torch.randn_like(x)).sum().backward()
    assert all(layer.conv.weight.grad.abs().sum() > 0 for layer in net.layers[1:])


# --- mixing, truncation -------------------------------------------------------------------------------------------------------


def test_a_crossover_leaves_each_latent_at_least_one_layer():
    model = styled()  # six layers
    w, other, n = torch.zeros(1, 6), torch.ones(1, 6), 6000
    u = torch.linspace(0, 1, n + 1)[:-1]
    mixed = model.mixed(w.expand(n, 6), other.expand(n, 6), u)
    first = (mixed[:, :, 0] == 0).sum(1)
    assert torch.equal(mixed, mixed[:, :, :1].expand(-1, -1, 6)) and (mixed[:, :, 0].diff(dim=1) >= 0).all(), "first w, then the other"
    assert Counter(first.tolist()) == dict.fromkeys(range(1, 6), n // 5)


@pytest.mark.parametrize("each", [True, False])
def test_crossovers_are_of_the_batch_or_of_each_sample(each):
    model = styled(mixing=1.0, cut_each=each)
    model.noise.seed(0)
    cuts = []
    for _ in range(40):
        w = model.drawn_styles(16, {})
        assert w.shape == (16, 6, 6)
        cuts.append([int((row == row[0]).all(1).sum()) for row in w])
    assert all(1 <= cut <= 5 for batch in cuts for cut in batch)
    assert {len(set(batch)) > 1 for batch in cuts} == {each}
    assert len({cut for batch in cuts for cut in batch}) == 5


def test_a_share_of_the_batches_is_mixed():
    model = styled(mixing=0.3)
    model.noise.seed(0)
    mixed = [not torch.equal(w[:, 0], w[:, -1]) for w in (model.drawn_styles(2, {}) for _ in range(600))]
    assert sum(mixed) / 600 == pytest.approx(0.3, abs=0.06)


def test_truncation():
    model = styled()
    z = torch.randn(5, 6)
    w = model.mapping(z, {})
    assert model.truncate(w, {}, 1.0) is w
    assert torch.allclose(model.truncate(w, {}, 0.0), model.w_mean.expand(5, 6))
    opposite = model.truncate(w, {}, -1.0)
    assert torch.allclose((opposite + w) / 2, model.w_mean.expand(5, 6), atol=1e-6)
    by_layer = model.by_layer(w)
    assert torch.allclose(model.truncate(by_layer, {}, 0.5), model.by_layer(model.truncate(w, {}, 0.5)), atol=1e-6)


def test_psi_0_gives_one_picture_whatever_z():
    model = styled()
    pictures = {}
    for psi in (1.0, 0.7, 0.0, -1.0):
        model.psi = psi
        pictures[psi] = model.sample(n=4, seed=0)
    apart = {psi: float((x - x.mean(0)).abs().max()) for psi, x in pictures.items()}
    assert apart[0.0] < 1e-6 and min(apart[1.0], apart[0.7], apart[-1.0]) > 1e-3
    assert not torch.allclose(pictures[1.0], pictures[-1.0], atol=1e-3)


def test_the_mean_is_that_of_the_rows_own_conditions():
    model = styled(schema={"digit": Label(tuple("0123456789"))})
    c = {"digit": torch.tensor([3, 8, 3])}
    found = model.truncate(model.mapping(torch.randn(3, 6), c), c, 0.0)
    assert torch.allclose(found[0], found[2], atol=1e-6) and not torch.allclose(found[0], found[1], atol=1e-3)
    many = {"digit": torch.full((20_000,), 8)}
    truth = model.mapping(torch.randn(20_000, 6), many)
    assert torch.allclose(found[1], truth.mean(0), atol=5 * float(truth.std(0).max()) / 16)


def test_the_mean_of_a_row_does_not_depend_on_the_others():
    """What is computed once for equal rows is what a loop over all rows computes."""
    schema = {"digit": Label(tuple("0123456789")), "look": Vector(2)}
    model = styled(schema=schema)
    c = {"digit": torch.tensor([3, 8, 3, 3, 8]), "look": torch.tensor([[0.1, 0], [0.1, 0], [0.1, 0], [0, 0.1], [0.1, 0]])}
    rows, place = distinct(c)
    assert len(rows) == 3 and all(torch.equal(v[rows][place], v) for v in c.values())
    z, expected = torch.randn(AVERAGED, 6, generator=torch.Generator().manual_seed(APART)), []
    for i in range(5):
        expected.append(model.F(z, {k: v[i : i + 1].expand(AVERAGED, *v.shape[1:]) for k, v in c.items()}).mean(0))
    assert torch.equal(model.mean_under(c, 5), torch.stack(expected))


def test_equal_rows_are_mapped_once(monkeypatch):
    model, calls = styled(schema={"digit": Label(tuple("0123456789"))}), []
    monkeypatch.setattr(model.F, "forward", lambda z, c, forward=model.F.forward: calls.append(len(z)) or forward(z, c))
    assert model.mean_under({"digit": torch.arange(60) % 3}, 60).shape == (60, 6) and calls == [AVERAGED] * 3


@pytest.mark.parametrize("layers", [0, 2, 6])
def test_truncation_of_the_first_layers_alone(layers):
    model = styled(schema={"digit": Label(tuple("0123456789"))})
    c = {"digit": torch.tensor([3, 8, 3])}
    w = model.mapping(torch.randn(3, 6), c)
    found, near = model.truncate(w, c, 0.3, layers), model.truncate(w, c, 0.3)
    assert found.shape == (3, 6, 6) and not torch.allclose(near, w, atol=1e-3)
    for i in range(6):
        assert torch.equal(found[:, i], near if i < layers else w)
    assert torch.equal(model.truncate(model.by_layer(w), c, 0.3, layers), found)
    assert torch.equal(model.truncate(w, c, 1.0, layers), model.by_layer(w))


@pytest.mark.parametrize("layers", [-1, 7, 2.5])
def test_truncation_of_layers_that_there_are_not_is_refused(layers):
    model = styled()
    with pytest.raises(BadInput, match=f"layers is {layers}; expected a whole number"):
        model.truncate(torch.zeros(1, 6), {}, 0.5, layers)


def test_swapped_layers():
    w, other = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    each = torch.tensor([[True, False, False, True], [False] * 4, [True] * 4])
    found, same = swapped(w, other, each), swapped(w, other, [1, 3])
    for i in range(3):
        for layer in range(4):
            assert torch.equal(found[i, layer], (other if each[i, layer] else w)[i, layer])
            assert torch.equal(same[i, layer], (other if layer in (1, 3) else w)[i, layer])
    assert torch.equal(swapped(w, other, []), w) and torch.equal(swapped(w, other[:1], range(4)), other[:1].expand(3, 4, 2))


def test_the_mean_of_w_in_closed_form():
    """From zero, n equal batches leave 1 - .995^n of theirs."""
    model = styled()
    model.w_mean.zero_()
    for _ in range(100):
        model.remember(torch.tensor([[1.0] * 6, [3.0] * 6]))
    assert torch.allclose(model.w_mean, torch.full((6,), 2 * (1 - 0.995**100)), atol=1e-5)


# --- the encoder --------------------------------------------------------------------------------------------------------------


def test_statistics_are_means_and_deviations():
    x = 2 + 3 * torch.randn(4, 5, 6, 6)
    assert torch.allclose(statistics(x), torch.cat([x.mean((2, 3)), x.std((2, 3), correction=0)], 1), atol=1e-5)


def test_the_encoder_reads_the_statistics_of_its_input():
    """Normalisation would hide a shift or a stretch of the colours: the styles are read before it."""
    net, x = StyleEncoder((3, 16, 16), 6, 4, 8), torch.randn(2, 3, 16, 16)
    w = net(x)
    assert w.shape == (2, 6)
    assert not torch.allclose(net(x + 1), w, atol=1e-2) and not torch.allclose(net(2 * x), w, atol=1e-2)
    for block in net.blocks:
        for layer in (block.style1, block.style2):
            layer.weight.data.zero_()
    net.style.weight.data.zero_()
    for bias in [m for m in net.modules() if isinstance(m, Bias)]:
        bias.bias.data.zero_()
    blind = net(x)
    assert torch.allclose(net(2 * x), blind, atol=1e-3), "with no style read, what is left is normalised"


@pytest.mark.parametrize("silent, heard", [("style1", False), ("style2", True)])
def test_a_block_reads_before_it_normalises(silent, heard):
    """A louder first convolution is heard by the first style; it is normalised away before the second convolution."""
    block, x = ReadingBlock(4, 6, 5), torch.randn(2, 4, 8, 8)
    getattr(block, silent).weight.data.zero_()
    before = block(x)
    block.first.weight.data *= 2
    after = block(x)
    assert torch.allclose(before[0], after[0], atol=1e-4)
    assert (not torch.allclose(before[1], after[1], atol=1e-4)) == heard


def test_w_is_the_sum_over_blocks():
    net, x = StyleEncoder((3, 16, 16), 6, 4, 8), torch.randn(2, 3, 16, 16)
    whole, h, read = net(x), net.colours(x), []
    for block in net.blocks:
        h, style = block(h)
        assert torch.allclose(statistics(h), torch.cat([torch.zeros(2, 8), torch.ones(2, 8)], 1), atol=1e-4), "normalised behind it"
        read.append(style)
    assert len(read) == 2
    h = F.leaky_relu(net.bias(net.conv(h)), 0.2)
    last = net.style(statistics(h)) + net.last(F.instance_norm(h, eps=1e-8).flatten(1))
    assert torch.allclose(whole, sum(read) + last, atol=1e-5)
    assert net.first(x).shape == (2, 8)
