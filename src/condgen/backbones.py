"""Feature nets by name: where their weights lie, how they are fetched and checked, which net is best of those at hand.

Weights are looked for in `$CONDGEN_DATA/weights` and in the cache's `weights`; a net that condgen trained lies in its run's folder.
Only VGG-19 is ever fetched, and only where it is asked for by this name.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from condgen.data.cache import cache_folder, data_folder
from condgen.data.fetch import fetched_file
from condgen.data.photos import NAMES, photograph, pieces_of
from condgen.data.store import to_float
from condgen.errors import BadInput, unknown
from condgen.networks import features
from condgen.networks.features import VGG_CHANNELS, FeatureNet, caffe, is_torchvision, torchvision_key
from condgen.networks.pairs import Pair, pairs
from condgen.networks.textures import TextureNet

RUNS = Path("runs")
FOLDER = "weights"
CHOSEN = "CONDGEN_FEATURES"
"""The environment's word for what "auto" is to mean."""
VGG19 = "vgg19-dcbb9e9d.pth"
"""torchvision's, under the name at its official address; the eight characters begin its SHA-256."""
VGG19_AT = "https://download.pytorch.org/models/"
VGG19_BYTES = 600 << 20
"""More than the file has (548 MB), so that another is not read without end."""
CAFFE_MARK = "d01eb7cb"
"""In the name of a file that is known to hold caffe's weights under torchvision's keys (Johnson's pytorch-vgg)."""
FILES = {
    "vgg19": (VGG19, "vgg19.safetensors", "vgg19.pth"),
    "distilled": ("vgg19_distilled_16x_encoders_decoders.safetensors",),
    "squeezenet": ("squeezenet_v1_1_features.safetensors",),
}
PREFERRED = ("vgg19", "distilled", "squeezenet")
"""What "auto" takes, the best first."""
NEED = (
    "no feature net is on this machine. Train one in four minutes with `condgen train features-photos` (no download), put "
    f"{FILES['distilled'][0]} into $CONDGEN_DATA/{FOLDER}, or ask for 'vgg19', which is fetched from pytorch.org (548 MB)"
)


def feature_net(name: str = "auto", pooling: str = "max", normalised: bool = False) -> FeatureNet:
    """A feature net in eval mode, its weights without gradient.

    Args:
        name: "vgg19", "distilled", "squeezenet"; one of these with the path of its weights behind a colon, "vgg19:weights.pth"
            ("vgg19-caffe:PATH" where caffe's weights bear torchvision's names); the folder or the name below runs/ of a `features-...`
            run; "random"; or "auto": what $CONDGEN_FEATURES says, else the first of `PREFERRED` that is here, else the newest run's.
            It downloads nothing.
        pooling: "max" or "average"; a run's net has means, as it was trained, whatever is asked.
        normalised: rescale every filter to a mean activation of 1 on the embedded photographs, as Gatys et al. did.

    Raises:
        BadInput: for an unknown name, weights that are not here, damaged or of another shape, and for "auto" where there is nothing.
    """
    net = _built(name, pooling)
    return features.normalised(net, photographs()) if normalised else net


def photographs() -> Tensor:
    """The embedded photographs in pieces, (12, 3, 192, 192) in [-1, 1]."""
    import numpy as np

    return to_float(np.stack([piece for name in NAMES for piece in pieces_of(photograph(name), 192)]))


def _built(name: str, pooling: str) -> FeatureNet:
    kind, _, path = name.partition(":")
    if path and kind in KINDS:
        return KINDS[kind](existing(path), pooling)
    if name == "auto":
        return _best(pooling)
    if name == "random":
        return features.random_net(pooling=pooling)
    if name == "vgg19":
        return _vgg19(found(name) or fetch_vgg19(), pooling)
    if name in FILES:
        return KINDS[name](wanted(name), pooling)
    if (run := run_of(name)) is not None:
        return in_house(run)
    raise unknown("feature net", name, ["auto", *FILES, *(run.name for run in runs()), "random"])


def _best(pooling: str) -> FeatureNet:
    if chosen := os.environ.get(CHOSEN, ""):
        if chosen == "auto":
            raise BadInput(f"{CHOSEN} is 'auto'; expected the name of a net")
        return _built(chosen, pooling)
    for kind in PREFERRED:
        if path := found(kind):
            return KINDS[kind](path, pooling)
    if ours := runs():
        return in_house(ours[-1])
    raise BadInput(NEED)


# --- files ----------------------------------------------------------------------------------------------------------------


def found(kind: str) -> Path | None:
    """The file of a kind's weights on this machine, if there is one."""
    folders = [root / FOLDER for root in (data_folder(), cache_folder()) if root]
    return next((folder / file for folder in folders for file in FILES[kind] if (folder / file).is_file()), None)


def wanted(kind: str) -> Path:
    """As `found`. Raises BadInput, saying where the file belongs, where there is none."""
    if path := found(kind):
        return path
    raise BadInput(f"the weights of {kind!r} are not on this machine: put {FILES[kind][0]} into {home()}")


def home() -> Path:
    """Where a person best puts weights."""
    return (data_folder() or cache_folder()) / FOLDER


def existing(path: str) -> Path:
    if not (file := Path(path).expanduser()).is_file():
        raise BadInput(f"there is no file {path!r} to read weights from")
    return file


def fetch_vgg19() -> Path:
    """torchvision's VGG-19 from its official address, checked and kept in the cache. Raises BadInput where it cannot be had."""
    try:
        return fetched_file(FOLDER, VGG19, VGG19_AT, VGG19.split("-")[1].split(".")[0], VGG19_BYTES)
    except (OSError, ValueError) as error:
        why = f"it cannot be fetched from {VGG19_AT}: {getattr(error, 'reason', error)}"
        raise BadInput(f"VGG-19 is not on this machine, and {why}. Put {VGG19} into {home()}") from None


def tensors_of(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors, or of a .pth that holds nothing but tensors by name.

    A .pth is a pickle. It is read with `weights_only=True`, which builds tensors and plain containers and refuses everything else, and
    nowhere but here: VGG-19's official weights come in no other form.

    Raises:
        BadInput: for another kind of file, or one that is damaged or holds something else.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{path} is no whole safetensors file: {error}") from None
    if path.suffix not in (".pth", ".pt"):
        raise BadInput(f"{path} is no file of weights; expected .safetensors or .pth")
    return _state(path)


def _state(path: Path) -> dict[str, Tensor]:
    try:
        held = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever a damaged or hostile file makes of the reader
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise BadInput(f"{path} cannot be read as weights alone: {why}") from None
    held = held.get("state_dict", held) if isinstance(held, dict) else held
    if not isinstance(held, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in held.items()):
        raise BadInput(f"{path} holds no tensors by name")
    return dict(held)


# --- nets -----------------------------------------------------------------------------------------------------------------


def _vgg19(path: Path, pooling: str, caffes: bool = False) -> FeatureNet:
    weights = tensors_of(path)
    require_vgg19(weights, path)
    mistaken = caffes or CAFFE_MARK in path.name
    return features.vgg19(weights, pooling, caffe() if mistaken else None)


def require_vgg19(weights: Mapping[str, Tensor], path: Path) -> None:
    """Raises BadInput, naming the first that differs, where these are not VGG-19's convolutions from conv1_1 to conv5_1 at least."""
    key: Callable[[str], str] = torchvision_key if is_torchvision(weights) else str
    before = 3
    for name, channels in VGG_CHANNELS.items():
        weight, shape = weights.get(f"{key(name)}.weight"), (channels, before, 3, 3)
        if weight is None and name > "conv5_1":
            break
        if weight is None or tuple(weight.shape) != shape:
            is_there = "missing" if weight is None else f"of shape {tuple(weight.shape)}"
            raise BadInput(f"{path} is no VGG-19: {key(name)}.weight is {is_there}; expected {shape}")
        before = channels


def _squeezenet(path: Path, pooling: str) -> FeatureNet:
    return features.squeezenet(tensors_of(path), pooling)


def _distilled(path: Path, pooling: str) -> FeatureNet:
    return features.distilled(tensors_of(path), pooling)


def _caffes_vgg19(path: Path, pooling: str) -> FeatureNet:
    return _vgg19(path, pooling, caffes=True)


KINDS: dict[str, Callable[[Path, str], FeatureNet]] = {
    "vgg19": _vgg19,
    "vgg19-caffe": _caffes_vgg19,
    "distilled": _distilled,
    "squeezenet": _squeezenet,
}
"""By name: a net of the weights in a file."""


def distilled_pairs(levels: tuple[int, ...], path: str | None = None) -> dict[int, Pair]:
    """Encoder and decoder of each of these levels, for feed-forward style transfer. Raises BadInput where the weights are not here."""
    return pairs(tensors_of(existing(path) if path else wanted("distilled")), levels)


# --- runs -----------------------------------------------------------------------------------------------------------------


def runs() -> list[Path]:
    """Folders below runs/ that hold a finished feature net, the newest last."""
    folders = [folder for folder in RUNS.glob("features-*") if (folder / "model.safetensors").is_file()]
    return sorted(folders, key=lambda folder: (folder / "model.safetensors").stat().st_mtime)


def run_of(name: str) -> Path | None:
    """A run's folder, by its path or by its name below runs/."""
    folders = (Path(name).expanduser(), RUNS / name)
    return next((f for f in folders if (f / "run.json").is_file() or (f / "config.json").is_file()), None)


def in_house(folder: Path) -> FeatureNet:
    """The net of a finished `features-...` run. Raises BadInput for a run of something else, or one that is not finished."""
    if not (folder / "config.json").is_file():
        raise BadInput(f"the run in {folder} is not finished: `condgen train` takes it up where it stopped")
    try:
        config = json.loads((folder / "config.json").read_text())
        model, options = str(config["model"]), dict(config["options"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder / 'config.json'} cannot be read: {error}") from None
    if model != "features.Features":
        raise BadInput(f"{folder} holds a {model}; expected a feature net, as `condgen train features-photos` makes one")
    saved = {k.removeprefix("net."): v for k, v in tensors_of(folder / "model.safetensors").items()}
    return features.in_house(_trained(saved, options, folder).weights())


def _trained(saved: dict[str, Tensor], options: dict[str, object], folder: Path) -> TextureNet:
    try:
        net = TextureNet(**{k: int(str(options[k])) for k in ("width",) if k in options}).eval()
        net.load_state_dict(saved)
        return net
    except (RuntimeError, ValueError, TypeError) as error:
        raise BadInput(f"the weights in {folder} do not fit its config: {str(error).splitlines()[0]}") from None
