"""Feature nets by name: where weights are looked for, what "auto" means, what is fetched and checked, what is refused."""

import hashlib
import http.server
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import condgen
from condgen import backbones
from condgen.backbones import CHOSEN, FILES, VGG19, feature_net, tensors_of
from condgen.data import fetch
from condgen.data.cache import data_folder
from condgen.errors import BadInput
from condgen.networks.features import CAFFE_MEAN, IMAGENET_MEAN, IN_HOUSE, VGG_CHANNELS, random_net, torchvision_key
from condgen.run import Run

LEVELS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


@pytest.fixture
def alone(tmp_path, monkeypatch, workplace) -> Path:
    """A machine without weights and without runs: the folder for the former."""
    monkeypatch.setenv("CONDGEN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CONDGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(CHOSEN, raising=False)
    (tmp_path / "data" / "weights").mkdir(parents=True)
    return tmp_path / "data" / "weights"


@pytest.fixture
def no_network(monkeypatch):
    def refused(address, timeout):
        raise AssertionError(f"{address} was asked for")

    monkeypatch.setattr(fetch, "urlopen", refused)


def vgg19_weights(key=str, upto="conv5_4"):
    """Random, of VGG-19's own shapes: an expanded zero but for the first, so that they take no memory."""
    found, before = {}, 3
    for name, channels in VGG_CHANNELS.items():
        if name > upto:
            break
        weight = torch.zeros(1).expand(channels, before, 3, 3) if before > 3 else torch.randn(channels, 3, 3, 3)
        found[f"{key(name)}.weight"], found[f"{key(name)}.bias"] = weight, torch.zeros(channels)
        before = channels
    return found


def saved(weights, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({k: v.half().contiguous() for k, v in weights.items()}, path)
    else:
        torch.save(weights, path)
    return path


def distilled_weights():
    found, before = {}, 3
    found["e5.conv0.weight"], found["e5.conv0.bias"] = torch.eye(3)[:, :, None, None], torch.zeros(3)
    for name in VGG_CHANNELS:
        found[f"e5.{name.replace('_', '')}.weight"], found[f"e5.{name.replace('_', '')}.bias"] = (
            torch.randn(4, before, 3, 3),
            torch.zeros(4),
        )
        before = 4
    return found


# --- what "auto" means ----------------------------------------------------------------------------------------------------


def test_without_any_net_one_is_told_how_to_get_one(alone, no_network):
    with pytest.raises(BadInput, match=r"condgen train features-photos.*CONDGEN_DATA/weights.*'vgg19'.*548 MB"):
        feature_net()
    for name in ("distilled", "squeezenet"):
        with pytest.raises(BadInput, match=rf"put {FILES[name][0]} into {alone}"):
            feature_net(name)


def test_auto_takes_a_run_then_the_distilled_net_then_vgg(alone, no_network, workplace, monkeypatch):
    run = workplace / "runs" / "features-mine"
    trained(run)
    assert feature_net().id.startswith("inhouse-")
    saved(distilled_weights(), alone / FILES["distilled"][0])
    assert feature_net().id == "vgg19-distilled-16x"
    saved(vgg19_weights(), alone / "vgg19.pth")
    assert feature_net().id == "vgg19" and feature_net(pooling="average").id == "vgg19-average"
    monkeypatch.setenv(CHOSEN, "features-mine")
    assert feature_net().id.startswith("inhouse-")
    monkeypatch.setenv(CHOSEN, "auto")
    with pytest.raises(BadInput, match="CONDGEN_FEATURES is 'auto'"):
        feature_net()


def test_an_unknown_name_is_told_the_nearest(alone):
    with pytest.raises(BadInput, match="unknown feature net 'destilled': did you mean 'distilled'"):
        feature_net("destilled")
    with pytest.raises(BadInput, match=r"there is no file 'nowhere\.pth'"):
        feature_net("vgg19:nowhere.pth")


def test_nets_are_ready_to_look_through(alone):
    net = feature_net("random")
    assert not net.training and not any(p.requires_grad for p in net.parameters())


def test_normalised_nets_have_a_mean_of_one_on_the_photographs(alone):
    net = feature_net("random", normalised=True)
    mean = net(backbones.photographs(), ("relu3_1",))["relu3_1"].mean((0, 2, 3))
    speaking = mean[mean > 0]
    assert net.id == "random-8-0-normalised" and len(speaking) > 24 and speaking.tolist() == pytest.approx([1.0] * len(speaking), abs=1e-3)


# --- runs -----------------------------------------------------------------------------------------------------------------


def trained(folder: Path, steps: int = 2, **options) -> Run:
    run = Run("features.Features", "photos", options={"width": 4, **options}, batch=4, steps=steps, log_every=0, sample_every=0)
    list(condgen.train(run, folder))
    return run


def test_a_run_is_read_as_its_model_gives_it(alone, workplace):
    trained(workplace / "runs" / "features-mine")
    x = 2 * torch.rand(1, 3, 32, 32) - 1
    model = condgen.load("runs/features-mine")
    for name in ("features-mine", "runs/features-mine", str(workplace / "runs" / "features-mine")):
        net = feature_net(name)
        assert net.id == model.feature_net().id and net.names[0] == IN_HOUSE[0]
        assert torch.equal(net(x, ("relu5_1",))["relu5_1"], model.feature_net()(x, ("relu5_1",))["relu5_1"])
    assert {"relu4_2", *LEVELS} <= set(net.names)


def test_runs_of_something_else_or_unfinished_ones_are_refused(alone, workplace):
    list(condgen.train(Run("ae.AE", "digits", options={"z_dim": 2, "hidden": (4,)}, steps=1, log_every=0), workplace / "other"))
    with pytest.raises(BadInput, match=r"holds a ae\.AE; expected a feature net"):
        feature_net("other")
    (workplace / "other" / "config.json").unlink()
    with pytest.raises(BadInput, match="is not finished"):
        feature_net("other")
    trained(workplace / "mine")
    save_file({"net.convs.0.weight": torch.zeros(1)}, workplace / "mine" / "model.safetensors")
    with pytest.raises(BadInput, match="do not fit its config"):
        feature_net("mine")


# --- weights --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, file, name, mean",
    [
        (str, "any.safetensors", "vgg19", CAFFE_MEAN),
        (torchvision_key, "any.safetensors", "vgg19", IMAGENET_MEAN),
        (torchvision_key, "any.safetensors", "vgg19-caffe", CAFFE_MEAN),
        (torchvision_key, "vgg19-d01eb7cb.safetensors", "vgg19", CAFFE_MEAN),
    ],
)
def test_vggs_preprocessing_is_recognised_or_said(alone, tmp_path, key, file, name, mean):
    path = saved(vgg19_weights(key, "conv5_1"), tmp_path / file)
    net = feature_net(f"{name}:{path}")
    assert net.preprocess.mean.flatten().tolist() == pytest.approx(mean) and net.names[-1] == "relu5_1"


def test_a_pth_of_tensors_is_read_whatever_wraps_them(alone, tmp_path):
    weights = {"a": torch.arange(3.0)}
    for held in (weights, {"state_dict": weights}):
        assert torch.equal(tensors_of(saved(held, tmp_path / "w.pth"))["a"], weights["a"])


class Hostile:
    """What a pickle may do that is read without care."""

    def __reduce__(self):
        return (Path("harmed").touch, ())


def test_a_pth_that_would_run_something_is_refused(alone, tmp_path, workplace):
    path = tmp_path / "evil.pth"
    torch.save({"a": Hostile()}, path)
    with pytest.raises(BadInput, match=r"evil\.pth cannot be read as weights alone"):
        tensors_of(path)
    assert not (workplace / "harmed").exists()


@pytest.mark.parametrize("file", ["w.pth", "w.safetensors", "w.npz"])
def test_what_holds_no_weights_is_refused(tmp_path, file):
    (tmp_path / file).write_bytes(b"no weights at all")
    with pytest.raises(BadInput, match=file):
        tensors_of(tmp_path / file)
    if file == "w.pth":
        torch.save([1, 2], tmp_path / file)
        with pytest.raises(BadInput, match="no tensors by name"):
            tensors_of(tmp_path / file)


def test_another_net_is_not_taken_for_vgg(alone, tmp_path):
    short, wide = vgg19_weights(upto="conv4_4"), vgg19_weights(upto="conv5_1")
    wide["conv2_1.weight"] = torch.zeros(1).expand(96, 64, 3, 3)
    with pytest.raises(BadInput, match=r"conv5_1\.weight is missing; expected \(512, 512, 3, 3\)"):
        feature_net(f"vgg19:{saved(short, tmp_path / 'short.safetensors')}")
    with pytest.raises(BadInput, match=r"conv2_1\.weight is of shape \(96, 64, 3, 3\); expected \(128, 64, 3, 3\)"):
        feature_net(f"vgg19:{saved(wide, tmp_path / 'wide.safetensors')}")


def test_the_distilled_net_and_squeezenet_are_here():
    root = data_folder()
    if root is None or not (root / "weights" / FILES["distilled"][0]).is_file():
        pytest.skip(f"needs $CONDGEN_DATA/weights/{FILES['distilled'][0]}")
    x = 2 * torch.rand(1, 3, 64, 64) - 1
    seen = feature_net("distilled")(x, LEVELS)
    assert [a.shape[1:] for a in seen.values()] == [(16, 64, 64), (32, 32, 32), (64, 16, 16), (128, 8, 8), (128, 4, 4)]
    if (root / "weights" / FILES["squeezenet"][0]).is_file():
        assert [a.shape[1] for a in feature_net("squeezenet")(x, LEVELS).values()] == [64, 128, 256, 384, 512]


# --- fetching -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves a folder on this machine as if it were pytorch.org."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        monkeypatch.setattr(backbones, "VGG19_AT", f"http://127.0.0.1:{httpd.server_port}/")
        yield folder
        httpd.shutdown()
        thread.join()


def test_vgg_is_fetched_by_name_checked_and_kept(alone, server, tmp_path, monkeypatch):
    path = saved(vgg19_weights(torchvision_key, "conv5_1"), server / "whole.pth")
    name = f"vgg19-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"
    path.rename(server / name)
    monkeypatch.setattr(backbones, "VGG19", name)
    monkeypatch.setitem(backbones.FILES, "vgg19", (name,))
    with pytest.raises(BadInput, match="no feature net is on this machine"):
        feature_net()
    assert feature_net("vgg19").preprocess.mean.flatten().tolist() == pytest.approx(IMAGENET_MEAN)
    assert [f.name for f in (tmp_path / "cache" / "weights").iterdir()] == [name]
    (server / name).unlink()
    assert feature_net("vgg19").id == feature_net().id == "vgg19", "it is here now"


def test_what_is_not_the_file_is_not_kept(alone, server, tmp_path, monkeypatch):
    (server / VGG19).write_bytes(b"another")
    with pytest.raises(BadInput, match=rf"cannot be fetched .* does not begin with dcbb9e9d\. Put {VGG19} into {alone}"):
        feature_net("vgg19")
    monkeypatch.setattr(backbones, "VGG19_BYTES", 3)
    with pytest.raises(BadInput, match="more than 3 bytes"):
        feature_net("vgg19")
    (server / VGG19).unlink()
    with pytest.raises(BadInput, match="File not found"):
        feature_net("vgg19")
    assert list((tmp_path / "cache" / "weights").iterdir()) == []
    assert random_net().id == "random-8-0"
