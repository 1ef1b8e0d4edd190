"""Networks: each block against its definition, each net on every shape it is for."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from condgen.conditions import Attributes, Box, Condition, Keypoints, Label, Picture, Text, Vector, kinds, parse
from condgen.errors import BadInput
from condgen.models.cgan import MirzaDiscriminator, MirzaGenerator
from condgen.networks.conv import ConvEncoder, ConvGenerator, pyramid
from condgen.networks.embed import Centre, SchemaEmbedding, Visible, embed
from condgen.networks.layers import Maxout, OneHot, ScaleShift
from condgen.networks.mlp import ACTIVATIONS, MLP
from condgen.networks.text import ByteGRU

KINDS = [
    Label(("cat", "dog", "owl")),
    Attributes(("smile", "age"), (0.0, 18.0), (1.0, 90.0), (True, False)),
    Vector(3),
    Text(12),
    Box(),
    Keypoints(("hand", "foot")),
    Picture((3, 8, 8)),
    Picture((1, 28, 20)),
]
SCHEMA = {f"{type(c).__name__.lower()}{i}": c for i, c in enumerate(KINDS)}
DIGITS = {"digit": Label(tuple("0123456789"))}
each_kind = pytest.mark.parametrize("condition", KINDS, ids=lambda c: type(c).__name__)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def values(n):
    return {name: c.uniform(n, torch.Generator().manual_seed(1)) for name, c in SCHEMA.items()}


# --- layers -------------------------------------------------------------------------------------------------------------------


def test_maxout_is_the_largest_of_its_pieces():
    layer, x = Maxout(5, 3, 4), torch.randn(6, 5)
    w, b = layer.linear.weight, layer.linear.bias
    for row, out in zip(x, layer(x), strict=True):
        for u in range(3):
            pieces = [row @ w[4 * u + j] + b[4 * u + j] for j in range(4)]
            assert out[u].item() == pytest.approx(max(pieces).item(), abs=1e-6)


def test_one_hot():
    assert OneHot(4)(torch.tensor([2, 0])).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("channels, groups", [(8, 4), (4, 2), (16, 8), (12, 4), (7, 1), (1, 1)])
def test_scale_shift_normalises_each_sample_and_modulates_it(channels, groups):
    layer, x, w = ScaleShift(channels, 5), 3 + 2 * torch.randn(4, channels, 6, 6), torch.randn(4, 5)
    scale, shift = layer.affine(w).unflatten(1, (2, channels)).unbind(1)
    grouped = x.reshape(4, groups, -1)
    plain = ((grouped - grouped.mean(2, keepdim=True)) / (grouped.var(2, keepdim=True, unbiased=False) + 1e-5).sqrt()).reshape(x.shape)
    assert torch.allclose(layer(x, w), plain * (1 + scale[:, :, None, None]) + shift[:, :, None, None], atol=1e-4)


def test_centre_maps_the_range_to_minus_one_and_one():
    found = Centre((0.0, 18.0, 5.0), (1.0, 90.0, 5.0))(torch.tensor([[0.0, 90.0, 5.0], [1.0, 54.0, 5.0]]))
    assert found.tolist() == [[-1, 1, 0], [1, 0, 0]], "an attribute that never varies is 0, not NaN"


def test_a_point_that_is_not_visible_says_nothing():
    points = torch.tensor([[[0.0, 1.0, 1.0], [0.3, 0.4, 0.0]], [[0.0, 1.0, 1.0], [0.9, 0.1, 0.0]]])
    seen = Visible()(points)
    assert torch.equal(seen[0], seen[1]) and seen[0].tolist() == [-1, 1, 1, 0, 0, 0]


# --- text ---------------------------------------------------------------------------------------------------------------------


def test_padding_is_not_read():
    net, words = ByteGRU(16), ["a red bird", "bird", "grün", ""]
    short, long = (net(torch.stack([parse(Text(length), w) for w in words])) for length in (12, 40))
    assert short.shape == (4, 16) and torch.allclose(short, long, atol=1e-6)


def test_the_order_and_the_last_letter_are_read():
    net = ByteGRU(16)
    a, b, c = net(torch.stack([parse(Text(12), w) for w in ("abc", "bac", "abd")]))
    assert min((a - b).norm(), (a - c).norm()) > 1e-2


def test_padding_learns_nothing():
    net = ByteGRU(8)
    net(parse(Text(12), "ab")[None]).sum().backward()
    rows = net.bytes.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert rows == [ord("a"), ord("b")]


# --- embeddings ---------------------------------------------------------------------------------------------------------------


def test_every_kind_has_an_embedding():
    assert {k for k, c in kinds().items() if c.__module__ == "condgen.conditions"} == {type(c).__name__ for c in KINDS}


@each_kind
@pytest.mark.parametrize("dim", [1, 7, 64])
def test_an_embedding_has_the_dimension_that_was_asked(condition, dim):
    net = embed(condition, dim)
    features = net(condition.uniform(5))
    assert features.shape == (5, dim) and features.dtype == torch.float32
    features.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@each_kind
def test_an_embedding_tells_values_apart_and_rows_alone(condition):
    net, v = embed(condition, 8).eval(), condition.uniform(6, torch.Generator().manual_seed(3))
    features = net(v)
    assert torch.allclose(features, torch.cat([net(v[i : i + 1]) for i in range(6)]), atol=1e-6)
    different = next(i for i in range(1, 6) if not torch.equal(v[0], v[i]))
    assert (features[0] - features[different]).norm() > 1e-3


def test_a_kind_without_embedding_says_where_to_add_one():
    class Scent(Condition):
        shape = (2,)

        def uniform(self, n, generator=None):
            return torch.rand(n, 2, generator=generator)

    with pytest.raises(TypeError, match=r"kind Scent: add one with @embed\.register"):
        embed(Scent(), 4)


def test_a_schema_is_embedded_side_by_side_behind_the_input():
    net, c, x = SchemaEmbedding(SCHEMA, 6), values(4), torch.randn(4, 3)
    out = net(c, x)
    assert net.out == 6 * len(SCHEMA) and out.shape == (4, 3 + net.out) and torch.equal(out[:, :3], x)
    for i, name in enumerate(SCHEMA):
        assert torch.allclose(out[:, 3 + 6 * i : 9 + 6 * i], net.each[i](c[name]), atol=1e-6)
    assert torch.equal(net(c | {"other": torch.zeros(4)}, x), out), "values that are not in the schema are not read"
    assert torch.equal(SchemaEmbedding({}, 6)({}, x), x)


# --- dense nets ---------------------------------------------------------------------------------------------------------------


def test_an_mlp_without_hidden_layers_is_affine():
    net = MLP(12, (), (2, 2), {})
    a, b = torch.randn(3, 3, 2, 2), torch.randn(3, 3, 2, 2)
    zero = net(torch.zeros_like(a), {})
    assert torch.allclose(net(a + b, {}) - zero, net(a, {}) + net(b, {}) - 2 * zero, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_mlp_is_its_layers(activation):
    net, x, c = MLP(4, (5, 6), (3,), DIGITS, embed_dim=2, activation=activation), torch.randn(7, 4), {"digit": torch.arange(7)}
    functions = {"relu": F.relu, "tanh": torch.tanh, "leaky": lambda v: torch.where(v > 0, v, 0.2 * v)}
    h = torch.cat([x, net.embed.each[0](c["digit"])], 1)
    dense = [m for m in net.layers if isinstance(m, nn.Linear)]
    for layer in dense[:-1]:
        h = functions[activation](layer(h))
    assert torch.allclose(net(x, c), dense[-1](h), atol=1e-6)


# --- convolutional nets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, width, start, channels",
    [
        ((1, 8, 8), 32, (4, 4), [64, 32]),
        ((1, 28, 28), 32, (7, 7), [128, 64, 32]),
        ((3, 64, 64), 16, (4, 4), [128, 128, 64, 32, 16]),
        ((1, 9, 9), 8, (9, 9), [8]),
        ((3, 16, 24), 8, (4, 6), [32, 16, 8]),
        ((3, 8, 64), 8, (4, 32), [16, 8]),
    ],
)
def test_the_pyramid(shape, width, start, channels):
    assert pyramid(shape, width) == (start, channels)
    assert [start[0] * 2 ** (len(channels) - 1), start[1] * 2 ** (len(channels) - 1)] == list(shape[1:])


@pytest.mark.parametrize("shape", [(1, 3, 3), (1, 28, 2), (2,), (28, 28), (1, 1, 28, 28)])
def test_what_is_too_small_for_a_convolution_is_refused(shape):
    for net in (lambda: ConvGenerator(4, {}, shape), lambda: ConvEncoder(shape, {}, 1)):
        with pytest.raises(BadInput, match=r"at least 4 px, not samples of shape \("):
            net()


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 32, 32), (1, 48, 48), (3, 64, 64), (3, 16, 24), (1, 4, 4), (1, 9, 14)], ids=str
)
def test_convolutional_nets_fit_every_size(shape):
    G, D = ConvGenerator(5, DIGITS, shape, width=4, embed_dim=3), ConvEncoder(shape, DIGITS, 2, width=4, embed_dim=3)
    c = {"digit": torch.tensor([3, 8])}
    x = G(torch.randn(2, 5), c)
    assert x.shape == (2, *shape) and x.abs().max() <= 1
    assert D(x, c).shape == (2, 2)


@pytest.mark.parametrize("width", [1, 3, 6, 12, 20])
def test_any_width_will_do(width):
    x = ConvGenerator(5, {}, (1, 8, 8), width=width)(torch.randn(2, 5), {})
    assert x.shape == (2, 1, 8, 8)


def test_every_kind_of_condition_reaches_both_nets():
    G, D, c = ConvGenerator(5, SCHEMA, (1, 8, 8), width=8), ConvEncoder((1, 8, 8), SCHEMA, 1, width=8), values(4)
    z = torch.randn(4, 5)
    x, y = G(z, c), D(torch.randn(4, 1, 8, 8), c)
    (x.square().sum() + y.square().sum()).backward()
    dead = [n for net in (G, D) for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_the_conditions_are_judged_together_with_the_picture():
    """D(x, c) is no sum f(x) + g(c): else it could not tell whether they fit each other."""
    D, x = ConvEncoder((1, 8, 8), DIGITS, 1, width=8), torch.randn(2, 1, 8, 8)
    one, two = ({"digit": torch.tensor([k, k])} for k in (1, 7))
    (a, b), (c, d) = D(x, one)[:, 0], D(x, two)[:, 0]
    assert abs((a - b) - (c - d)) > 1e-3


def test_nets_keep_float32_out_of_half_precision():
    c = {"digit": torch.tensor([3, 8])}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = ConvGenerator(5, DIGITS, (1, 8, 8), width=8)(torch.randn(2, 5), c)
        assert x.dtype == torch.float32 and ConvEncoder((1, 8, 8), DIGITS, 1, width=8)(x, c).dtype == torch.float32


# --- Mirza's nets -------------------------------------------------------------------------------------------------------------


def test_mirzas_generator_has_the_papers_size():
    # 200 of z, 1000 of c, 1200 of both, 784 pixels: 100*200+200 + 10*1000+1000 + 1200*1200+1200 + 1200*784+784
    assert sum(p.numel() for p in MirzaGenerator(100, DIGITS, (1, 28, 28)).parameters()) == 2_413_984


def test_mirzas_discriminator_has_the_papers_size():
    # maxout 240 of 5 pieces of x, 50 of 5 of y, 240 of 4 of both
    expected = (784 + 1) * 240 * 5 + (10 + 1) * 50 * 5 + (290 + 1) * 240 * 4 + 240 + 1
    assert sum(p.numel() for p in MirzaDiscriminator((1, 28, 28), DIGITS).parameters()) == expected


def test_mirzas_weights_are_uniform_and_its_pictures_begin_at_the_marginals():
    G, x = MirzaGenerator(10, DIGITS, (1, 4, 4)), torch.rand(500, 1, 4, 4) * 1.8 - 0.9
    for name, p in G.named_parameters():
        assert p.abs().max() <= 0.05 and (name.endswith("bias") == (p.abs().max() == 0))
    G.begin_at(x)
    drawn = G.eval()(torch.zeros(1, 10), {"digit": torch.tensor([0])})
    assert (drawn[0] - x.mean(0)).abs().max() < 0.15
    white = MirzaGenerator(10, DIGITS, (1, 4, 4))
    white.begin_at(torch.ones(5, 1, 4, 4))
    assert white.x.bias.isfinite().all()


def test_mirzas_conditions_pass_a_maxout_of_their_own():
    D = MirzaDiscriminator((1, 4, 4), SCHEMA).eval()
    assert D.joint.linear.in_features == 240 + 50 * len(SCHEMA)
    assert D(torch.randn(3, 1, 4, 4), values(3)).shape == (3, 1)
