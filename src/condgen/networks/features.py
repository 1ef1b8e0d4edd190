"""Feature nets: named activations of a picture under VGG-19's layer names, whatever the net behind them is.

`conv3_1` is the third level's first convolution and `relu3_1` its rectified value; level l lies behind l - 1 poolings. A net brings
its own preprocessing, so that everybody hands over pictures in [-1, 1]. VGG-19: Simonyan and Zisserman 2014, arXiv 1409.1556.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen.errors import BadInput, unknown

Weights = Mapping[str, Tensor]
CONVS = (2, 2, 4, 4, 4)
"""Convolutions of each of VGG-19's levels."""
VGG_NAMES = tuple(f"conv{level}_{i}" for level, n in enumerate(CONVS, 1) for i in range(1, n + 1))
VGG_CHANNELS = dict(zip(VGG_NAMES, (64, 64, 128, 128, *[256] * 4, *[512] * 8), strict=True))
CAFFE_MEAN = (103.939, 116.779, 123.68)
"""Of blue, green and red from 0 to 255."""
IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue from 0 to 1."""


class FeatureNet(nn.Module):
    """Layers in a row, some with a name.

    Args:
        id: names the net in every provenance.
        layers: (name, layer) in order; the name is "" where nobody asks for the layer's output.
        preprocess: pictures (b, 3, h, w) in [-1, 1] to what the first layer reads.
    """

    def __init__(self, id: str, layers: Sequence[tuple[str, nn.Module]], preprocess: nn.Module):
        super().__init__()
        self.id = id
        self.preprocess = preprocess
        self.labels = tuple(name for name, _ in layers)
        self.layers = nn.ModuleList(layer for _, layer in layers)
        self.units = nn.ParameterDict()

    @property
    def names(self) -> tuple[str, ...]:
        """The layers that can be asked for, in order."""
        return tuple(name for name in self.labels if name)

    def forward(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The activations of these layers, (b, channels, h', w') each; the net runs no farther than the deepest of them.

        Args:
            x: pictures (b, 3, h, w) in [-1, 1]; of one channel, it is taken three times.

        Raises:
            BadInput: for a layer that the net does not have, or a picture too small to reach it.
        """
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise BadInput(f"pictures of shape {tuple(x.shape)}; expected (b, 3, h, w) or (b, 1, h, w)")
        for name in layers:
            if name not in self.labels:
                raise unknown(f"layer of {self.id}", name, self.names)
        found: dict[str, Tensor] = {}
        a = self.preprocess(x.expand(-1, 3, -1, -1))
        for label, layer in zip(self.labels, self.layers, strict=True):
            if len(found) == len(set(layers)):
                break
            a = self._through(layer, a, x, label)
            if label in layers:
                found[label] = a / self.units[label] if label in self.units else a
        return found

    def _through(self, layer: nn.Module, a: Tensor, x: Tensor, label: str) -> Tensor:
        try:
            return layer(a)
        except RuntimeError as error:
            if min(a.shape[-2:]) > 2:
                raise
            side = "x".join(map(str, x.shape[-2:]))
            raise BadInput(f"a picture of {side} px is too small for {self.id}: nothing is left before {label or 'its end'}") from error


class Scaled(nn.Module):
    """(x + 1) / 2 * scale - mean, over a standard deviation, channel by channel; red and blue change places where `bgr`."""

    mean: Tensor
    sd: Tensor

    def __init__(self, mean: Sequence[float], sd: Sequence[float] = (1.0, 1.0, 1.0), scale: float = 1.0, bgr: bool = False):
        super().__init__()
        self.scale, self.bgr = scale, bgr
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("sd", torch.tensor(sd).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flip(1) if self.bgr else x
        return ((x + 1) * (self.scale / 2) - self.mean) / self.sd


def caffe() -> Scaled:
    """Blue, green, red from 0 to 255 minus the mean."""
    return Scaled(CAFFE_MEAN, scale=255.0, bgr=True)


def imagenet() -> Scaled:
    """Red, green, blue from 0 to 1, standardised."""
    return Scaled(IMAGENET_MEAN, IMAGENET_SD)


class Halving(nn.Module):
    """Pooling with stride 2: the largest value, or the mean (Gatys et al. found the mean to give smoother pictures).

    Of 2x2 places as VGG has it; or of 3x3, those at the end cut, as SqueezeNet has it.
    """

    def __init__(self, pooling: str, side: int = 2):
        super().__init__()
        self.side = side
        kinds: dict[str, Callable[..., Tensor]] = {"max": F.max_pool2d, "average": F.avg_pool2d}
        if pooling not in kinds:
            raise unknown("pooling", pooling, kinds)
        self.pool = kinds[pooling]

    def forward(self, x: Tensor) -> Tensor:
        if self.side > min(x.shape[-2:]):
            raise RuntimeError(f"activations of {tuple(x.shape[-2:])} cannot be halved")
        return self.pool(x, self.side, 2, ceil_mode=self.side == 3)


def vgg_layers(
    weights: Weights, key: Callable[[str], str], pooling: str, padding: str = "zeros", convs: Sequence[str] = VGG_NAMES
) -> list[tuple[str, nn.Module]]:
    """Convolutions and rectifiers as far as the weights go, with a pooling before each level but the first.

    Args:
        weights: `<key>.weight` (out, in, 3, 3) and `<key>.bias` (out,).
        key: from a convolution's name, such as "conv3_1".
        padding: "zeros" as published, or "reflect".
        convs: names of the net's convolutions, in order.

    Raises:
        BadInput: where the first convolution is missing, or a shape does not fit what comes before.
    """
    layers: list[tuple[str, nn.Module]] = []
    channels = 3
    for name in convs:
        if f"{key(name)}.weight" not in weights:
            break
        if name.endswith("_1") and name != "conv1_1":
            layers.append(("", Halving(pooling)))
        conv = filled_conv(weights, key(name), channels, padding)
        channels = conv.out_channels
        layers += [(name, conv), (rectified(name), nn.ReLU())]
    if not layers:
        raise BadInput(f"the weights have no {key(VGG_NAMES[0])!r}; they begin with {', '.join(sorted(weights)[:3]) or 'nothing'}")
    return layers


def rectified(name: str) -> str:
    """ "relu3_1" of "conv3_1"."""
    return name.replace("conv", "relu")


def filled_conv(weights: Weights, key: str, channels: int, mode: str = "zeros", **conv: Any) -> nn.Conv2d:
    """The convolution `key` of these weights, as float32; sides are kept unless `conv` says otherwise.

    Args:
        mode: of padding, "zeros" or "reflect".
        conv: what else `nn.Conv2d` takes.

    Raises:
        BadInput: where the convolution is missing, or shapes do not fit.
    """
    weight, bias = weights.get(f"{key}.weight"), weights.get(f"{key}.bias")
    if weight is None:
        raise BadInput(f"the weights have no {key!r}; they begin with {', '.join(sorted(weights)[:3]) or 'nothing'}")
    if weight.dim() != 4 or weight.shape[1] != channels or bias is None or bias.shape != weight.shape[:1]:
        beside = None if bias is None else tuple(bias.shape)
        raise BadInput(f"{key!r} has weights of {tuple(weight.shape)} and a bias of {beside}; expected (n, {channels}, k, k) and (n,)")
    side = weight.shape[-1]
    options: dict[str, Any] = {"padding": side // 2, "padding_mode": mode, **conv}
    layer = nn.utils.skip_init(nn.Conv2d, channels, len(weight), side, **options)  # a large net's random start would take seconds
    assert isinstance(layer, nn.Conv2d)
    layer.weight.data.copy_(weight)
    layer.bias.data.copy_(bias)  # type: ignore[union-attr]
    return layer


def frozen(net: FeatureNet) -> FeatureNet:
    """The net as everybody uses it: nothing of it is trained."""
    return net.requires_grad_(False).eval()


def named(id: str, pooling: str) -> str:
    """A net's name; it says where its pooling is not its own."""
    return id if pooling == "max" else f"{id}-{pooling}"


def distilled(weights: Weights, pooling: str = "max", encoder: int = 5) -> FeatureNet:
    """VGG-19 with a quarter of its channels, distilled by Wang et al. 2020, arXiv 2003.08436.

    Its keys are `e5.conv11.weight`; it pads by reflection.

    Args:
        encoder: 1 to 5; the e-th reaches relue_1.
    """
    first = filled_conv(weights, f"e{encoder}.conv0", 3)
    layers = vgg_layers(weights, lambda name: f"e{encoder}." + name.replace("_", ""), pooling, "reflect")
    return frozen(FeatureNet(named("vgg19-distilled-16x", pooling), layers, nn.Sequential(Scaled((0.0, 0.0, 0.0)), first)))


def vgg19(weights: Weights, pooling: str = "max", preprocess: Scaled | None = None) -> FeatureNet:
    """VGG-19 of weights that are named as caffe's (`conv1_1.weight`) and read with `caffe`, or as torchvision's (`features.0.weight`) and
    read with `imagenet`.

    Args:
        preprocess: where the names mislead: some files have torchvision's names and caffe's weights.
    """
    torchvision = is_torchvision(weights)
    layers = vgg_layers(weights, torchvision_key if torchvision else str, pooling)
    own = preprocess or (imagenet() if torchvision else caffe())
    return frozen(FeatureNet(named("vgg19", pooling), layers, own))


def is_torchvision(weights: Weights) -> bool:
    return "features.0.weight" in weights


def torchvision_key(name: str) -> str:
    """
    >>> torchvision_key("conv2_1")
    'features.5'
    """
    return f"features.{dict(zip(VGG_NAMES, _torchvision_places(), strict=True))[name]}"


def _torchvision_places() -> Iterator[int]:
    """Of the convolutions among all layers: two a convolution (its rectifier), one a pooling."""
    place = 0
    for n in CONVS:
        for _ in range(n):
            yield place
            place += 2
        place += 1


FIRES = {2: "2_1", 3: "2_2", 4: "3_1", 5: "3_2", 6: "4_1", 7: "4_2", 8: "4_3", 9: "5_1"}
"""SqueezeNet's modules by the VGG name under which they are known here. There is no pooling before 5_1: it is as large as level 4."""


class Fire(nn.Module):
    """SqueezeNet's module: squeezed by 1x1, widened by 1x1 and 3x3 side by side. Iandola et al. 2016, arXiv 1602.07360."""

    def __init__(self, weights: Weights, number: int, channels: int):
        super().__init__()
        self.squeeze = filled_conv(weights, f"fire{number}/squeeze1x1", channels)
        narrow = self.squeeze.out_channels
        self.ones, self.threes = (filled_conv(weights, f"fire{number}/expand{k}", narrow) for k in ("1x1", "3x3"))
        self.channels = self.ones.out_channels + self.threes.out_channels

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.ones(x), self.threes(x)], 1))


def squeezenet(weights: Weights, pooling: str = "max") -> FeatureNet:
    """SqueezeNet 1.1 (keys `conv1.weight`, `fire2/squeeze1x1.weight`), read with `caffe`; `FIRES` has the names of its modules."""
    first = filled_conv(weights, "conv1", 3, stride=2, padding=0)
    layers: list[tuple[str, nn.Module]] = [("conv1_1", first), ("relu1_1", nn.ReLU())]
    channels = first.out_channels
    for number, name in FIRES.items():
        if name in ("2_1", "3_1", "4_1"):
            layers.append(("", Halving(pooling, side=3)))
        fire = Fire(weights, number, channels)
        channels = fire.channels
        layers.append((f"relu{name}", fire))
    return frozen(FeatureNet(named("squeezenet1_1", pooling), layers, caffe()))


IN_HOUSE = ("conv1_1", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv4_1", "conv4_2", "conv5_1")
"""Convolutions of the nets that condgen trains by itself."""


def in_house(weights: Weights) -> FeatureNet:
    """A net of `textures.TextureNet`: keys `conv1_1.weight`; it pads by reflection, pools by means and reads pictures as they are."""
    layers = vgg_layers(weights, str, "average", "reflect", IN_HOUSE)
    return frozen(FeatureNet(f"inhouse-{sum_of(weights)[:6]}", layers, nn.Identity()))


def random_net(width: int = 8, seed: int = 0, pooling: str = "max") -> FeatureNet:
    """All of VGG-19's layers, narrow, with random weights: for tests, and as a control."""
    generator, channels, weights = torch.Generator().manual_seed(seed), 3, {}
    for name, full in VGG_CHANNELS.items():
        out = full * width // 64
        weights[f"{name}.weight"] = torch.randn(out, channels, 3, 3, generator=generator) * (2 / (9 * channels)) ** 0.5
        weights[f"{name}.bias"] = torch.zeros(out)
        channels = out
    layers = vgg_layers(weights, str, pooling, "reflect")
    return frozen(FeatureNet(named(f"random-{width}-{seed}", pooling), layers, nn.Identity()))


def sum_of(weights: Weights) -> str:
    """SHA-256 of all weights, in order of name."""
    total = hashlib.sha256()
    for name, value in sorted(weights.items()):
        total.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


@torch.no_grad()
def normalised(net: FeatureNet, pictures: Tensor, chunk: int = 8) -> FeatureNet:
    """The net with the weights of each filter rescaled so that its mean activation over these pictures and all places is 1.

    A rectifier is positively homogeneous and both poolings are, so that rescaling a filter, and undoing it in what the next layer reads,
    changes what the filter says by that scale and nothing behind it. The scale is therefore divided out where a layer is told, which
    works for modules of any form. A filter that never says anything stays as it is. Gatys, Ecker, Bethge 2016, section 2.

    Args:
        pictures: (n, 3, h, w) in [-1, 1].
    """
    told = [name for name in net.names if name.startswith("relu")]
    sums = dict.fromkeys(told, torch.zeros(()))
    for some in pictures.split(chunk):
        for name, a in net(some, told).items():
            sums[name] = sums[name] + a.mean((2, 3), dtype=torch.float64).sum(0)
    ours = copy.deepcopy(net)
    ours.id = f"{net.id}-normalised"
    for name in net.names:
        unit = sums[rectified(name)] / len(pictures)
        unit = torch.where(unit > 0, unit, 1.0).to(pictures.dtype).view(1, -1, 1, 1)
        ours.units[name] = nn.Parameter(unit, requires_grad=False)
    return ours
