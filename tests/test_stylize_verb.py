"""`condgen stylize` as a person meets it: what it writes, how it stops and goes on, and what it says to what cannot be used."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from condgen.edits.stylize import stylize as verb
from condgen.errors import BadInput


@pytest.fixture
def files(workplace):
    for name in ("china", "flower"):
        Image.fromarray(load_sample_image(f"{name}.jpg")).save(f"{name}.png")
    return workplace


QUICK = ("china.png", "--style", "flower.png", "--net", "random", "--size", "48", "--steps", "4")


def pixels(file):
    with Image.open(file) as image:
        return np.asarray(image)


def test_a_photo_is_painted_beside_itself(condgen, files):
    got = condgen("stylize", *QUICK, "--json")
    assert got.code == 0, got.err
    told = got.json
    assert told["out"] == "china.flower.png" and told["size"] == [48, 32] and told["net"] == "random-8-0" and told["steps"] == 4
    assert 0 < told["style"] < 2 and 0 < told["content"] < 2
    assert pixels("china.flower.png").shape == (32, 48, 3)
    assert {p.name for p in Path().iterdir()} == {"china.png", "flower.png", "china.flower.png"}
    assert condgen("stylize", *QUICK).code == 0, "its own painting may be replaced"


def test_a_large_photo_is_brought_to_512_px(condgen, files):
    got = condgen("stylize", *QUICK[:-4], "--steps", "1", "--json")
    assert got.json["size"] == [512, 342] and got.json["steps"] == 2


@pytest.mark.parametrize("out", ["x.jpg", "x.webp", "deep/er/x.png"])
def test_the_ending_decides_what_is_written(condgen, files, out):
    assert condgen("stylize", *QUICK, "--out", out).code == 0
    assert pixels(out).shape == (32, 48, 3)


def test_options_reach_the_painting(condgen, files):
    plain = pixels_after(condgen, files)
    for more in (
        ["--style-weight", "1"],
        ["--tv", "5"],
        ["--start", "noise"],
        ["--colours", "match"],
        ["--colours", "keep"],
        ["--start", "noise", "--seed", "1"],
        ["--recipe", "johnson"],
        ["--pooling", "average"],
        ["--optimizer", "adam"],
        ["--style-scale", "2"],
        ["--style", "china.png"],
    ):
        assert not np.array_equal(plain, pixels_after(condgen, files, *more)), more
    mixed = ["--style", "flower.png", "--share", "1", "0"]
    assert np.array_equal(plain, pixels_after(condgen, files, *mixed)), "a second style without a share"


def pixels_after(condgen, files, *more):
    got = condgen("stylize", *QUICK, *more, "--out", "x.png")
    assert got.code == 0, got.err
    return pixels("x.png")


def test_the_published_gatys_has_means_and_even_filters(condgen, files):
    got = condgen("stylize", *QUICK, "--recipe", "gatys2016", "--json")
    assert got.code == 0 and "average" in got.json["net"]


def stopping_after(n):
    calls = []
    return lambda: calls.append(1) or len(calls) >= n


ASKED = {"net": "random", "size": 48, "steps": 9}


def test_a_stopped_command_goes_on_bit_for_bit(files):
    verb("china.png", ["flower.png"], "whole.png", **ASKED)
    done = verb("china.png", ["flower.png"], "x.png", stopping_after(4), **ASKED)
    assert done.told["stopped"] and done.told["step"] == 4 and not Path("x.png").exists()
    assert Path(done.told["kept"]).exists() and Path(done.told["kept"]).name.startswith(".x.png.")
    again = verb("china.png", ["flower.png"], "x.png", stopping_after(3), **ASKED)
    assert again.told["step"] == 7
    last = verb("china.png", ["flower.png"], "x.png", **ASKED)
    assert not last.told["stopped"] and Path("x.png").read_bytes() == Path("whole.png").read_bytes()
    assert not list(Path().glob(".x.png*")), "nothing is left behind"


def test_another_command_does_not_go_on_from_it(files, caplog):
    caplog.set_level("INFO")
    kept = verb("china.png", ["flower.png"], "x.png", stopping_after(4), **ASKED).told["kept"]
    for other in ({"seed": 1}, {"style_weight": 10.0}, {"size": 52}, {"colours": "match"}):
        verb("china.png", ["flower.png"], "x.png", **{**ASKED, **other})
    Image.fromarray(load_sample_image("flower.jpg")[:200]).save("other.png")
    verb("china.png", ["other.png"], "x.png", **ASKED)
    assert "goes on" not in caplog.text and Path(kept).exists()
    verb("china.png", ["flower.png"], "x.png", **ASKED)
    assert "goes on after 4 of 9" in caplog.text and not Path(kept).exists()


def test_a_damaged_state_is_named(files):
    kept = Path(verb("china.png", ["flower.png"], "x.png", stopping_after(4), **ASKED).told["kept"])
    kept.write_bytes(kept.read_bytes()[:-500])
    with pytest.raises(BadInput, match=r"damaged.*remove it"):
        verb("china.png", ["flower.png"], "x.png", **ASKED)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_it_with_their_code(condgen, files, monkeypatch, number):
    from condgen.edits import progress

    show = progress.Progress.show

    def shown(self, step, numbers):
        if step == 3:
            os.kill(os.getpid(), number)
        show(self, step, numbers)

    monkeypatch.setattr(progress.Progress, "show", shown)
    got = condgen("stylize", *QUICK, "--json")
    assert got.code == 128 + number and got.json["stopped"] and got.json["step"] == 3
    monkeypatch.undo()
    os.chdir(files)
    assert condgen("stylize", *QUICK).code == 0 and Path("china.flower.png").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["nowhere.png", "--style", "flower.png"], "there is no file nowhere.png; beside it are china.png, flower.png"),
        (["china.png"], "--style"),
        (["china.png", "--style", "nowhere.png"], "there is no file"),
        (["china.png", "--style", "."], "folder"),
        (["china.png", "--style", "words.txt", "--net", "random"], "words.txt"),
        ([*QUICK, "--recipe", "gatys"], "gatys2016"),
        ([*QUICK, "--colours", "kept"], "keep"),
        ([*QUICK, "--start", "photo"], "content"),
        ([*QUICK, "--net", "distiled"], "distilled"),
        ([*QUICK, "--optimizer", "adams"], "adam"),
        ([*QUICK, "--pooling", "mean"], "average"),
        ([*QUICK, "--size", "4"], "--size is 4"),
        ([*QUICK, "--size", "8000"], "megapixels"),
        ([*QUICK, "--steps", "0"], "--steps is 0"),
        ([*QUICK, "--seed", "-1"], "--seed"),
        ([*QUICK, "--style-weight", "-2"], "--style-weight"),
        ([*QUICK, "--tv", "nan"], "--tv"),
        ([*QUICK, "--style-scale", "0"], "--style-scale"),
        ([*QUICK, "--share", "1", "2"], "--share has 2 numbers for 1 styles"),
        ([*QUICK, "--share", "0"], "shares"),
        ([*QUICK, "--out", "china.png"], "one of the files"),
        ([*QUICK, "--out", "flower.png"], "one of the files"),
        ([*QUICK, "--out", "x.gif"], ".png, .jpg"),
        ([*QUICK, "--fast", "--photo"], "together"),
        ([*QUICK, "--style-scale", "500"], "a scale of 72.16 or less"),
        ([*QUICK, "--style-scale", "500", "--photo"], "a scale of 72.16 or less"),
        ([*QUICK, "--style-scale", "500", "--fast"], "a scale of 72.16 or less"),
        ([*QUICK, "--masks", "flower.png"], "--style-masks go together"),
        ([*QUICK, "--style-masks", "flower.png"], "--style-masks go together"),
        ([*QUICK, "--masks", "china.png", *["--style-masks", "flower.png"] * 2], "2 --style-masks for 1 styles"),
        ([*QUICK, "--masks", "china.png", "--style-masks", "flower.png", "--clusters", "2"], "one of the two"),
        ([*QUICK, "--clusters", "3", "--fast"], "do not go with --fast"),
        ([*QUICK, "--clusters", "0"], "clusters is 0"),
        ([*QUICK, "--strength", ".5"], "--fast"),
        ([*QUICK, "--method", "wct"], "--fast"),
        ([*QUICK, "--variant", "warped"], "clip"),
        ([*QUICK, "--photo", "--colours", "keep"], "--colours keep"),
        ([*QUICK, "--stile", "flower.png"], "--style"),
    ],
)
def test_what_cannot_be_used_is_named(condgen, files, words, named):
    Path("words.txt").write_text("no picture")
    before = {p: p.read_bytes() for p in Path().iterdir()}
    got = condgen("stylize", *words)
    assert got.code == 2 and named in got.err and got.out == ""
    assert {p: p.read_bytes() for p in Path().iterdir()} == before, "and nothing was written"


def test_a_picture_that_condgen_did_not_paint_is_not_replaced_by_chance(condgen, files):
    Image.new("RGB", (8, 8)).save("china.flower.png")
    got = condgen("stylize", *QUICK)
    assert got.code == 2 and "--out" in got.err and pixels("china.flower.png").shape == (8, 8, 3)
    assert condgen("stylize", *QUICK, "--out", "china.flower.png").code == 0


def test_a_photograph_stays_one(condgen, files):
    got = condgen("stylize", *QUICK, "--photo", "--clusters", "2", "--out", "x.png", "--json")
    assert got.code == 0, got.err
    assert got.json["steps"] == 8 and pixels("x.png").shape == (32, 48, 3)


def test_the_weight_of_staying_a_photograph_reaches_it(condgen, files):
    found = [condgen("stylize", *QUICK, "--photo", "--photo-weight", w, "--out", f"{w}.png", "--json").json for w in ("0", "10")]
    assert found[1]["photorealism"] < found[0]["photorealism"]
    refused = condgen("stylize", *QUICK, "--photo", "--recipe", "johnson")
    assert refused.code == 2 and "--photo-weight" in refused.err


def test_a_stopped_photograph_goes_on_bit_for_bit(files):
    verb("china.png", ["flower.png"], "whole.png", photo=True, **ASKED)
    for n in (5, 6):
        assert verb("china.png", ["flower.png"], "x.png", stopping_after(n), photo=True, **ASKED).told["stopped"]
    verb("china.png", ["flower.png"], "x.png", photo=True, **ASKED)
    assert Path("x.png").read_bytes() == Path("whole.png").read_bytes()


def test_one_pass_paints_at_once(condgen, files):
    from condgen.backbones import found

    if found("distilled") is None:
        pytest.skip("needs the distilled encoders and decoders in $CONDGEN_DATA/weights")
    quick = [*QUICK[:3], "--size", "64", "--fast", "--out", "x.png"]
    seen = []
    for more in ([], ["--method", "adain"], ["--strength", "0"], ["--colours", "keep"], ["--net", "random"]):
        got = condgen("stylize", *quick, *more, "--json")
        assert got.code == 0, got.err
        assert got.json["size"] == [64, 43] and got.json["steps"] == 1
        assert got.json["recipe"] == ("adain" if "adain" in more else "wct")
        seen.append((got.json["style"], pixels("x.png")))
    assert seen[2][0] > 1.5 * seen[0][0], "without strength there is little of the style"
    assert not np.array_equal(seen[0][1], seen[1][1]) and not np.array_equal(seen[0][1], seen[3][1])
    assert np.array_equal(seen[0][1], seen[4][1]), "the net only measures"
    for more, named in ((["--method", "adian"], "adain"), (["--strength", "2"], "--strength is 2")):
        refused = condgen("stylize", *quick, *more)
        assert refused.code == 2 and named in refused.err


def test_one_pass_is_measured_on_copies(files):
    """Of a large picture no net keeps more than of one of 512 px, whatever the strokes."""
    from condgen.editing.coarse import resized
    from condgen.editing.stylize import MOST_PIXELS
    from condgen.edits.at_once import measured
    from condgen.edits.stylize import Asked
    from condgen.networks.features import random_net

    net, seen = random_net(width=4), []
    net.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[-2:])))
    content, style = (torch.rand(1, 3, n, n, generator=torch.Generator().manual_seed(n)) * 2 - 1 for n in (900, 64))
    for scale in (1.0, 2.5):
        found = measured(net, content, [style], content, Asked(Path(), (), Path(), style_scale=scale))
        assert found["content"] == 0
    assert max(h * w for h, w in seen) <= 520**2 < 900**2 < MOST_PIXELS
    small = resized(content, (512, 512))
    again = measured(net, small, [style], small, Asked(Path(), (), Path()))
    assert again["style"] == pytest.approx(measured(net, content, [style], content, Asked(Path(), (), Path()))["style"], rel=1e-3)


def halves(file, h, w, upright):
    """Two flat colours, side by side or one above the other."""
    labels = np.zeros((h, w, 3), np.uint8)
    labels[:, : w // 2 if upright else w] = 255
    labels[h // 2 if not upright else h :] = 0
    Image.fromarray(labels).save(file)


def test_a_class_takes_its_style_from_the_same_class(condgen, files):
    """White, the left of the photo, from the upper half of the style, or from the lower where the style's colours change places."""
    halves("left.png", 40, 60, upright=True)
    halves("upper.png", 40, 60, upright=False)
    Image.fromarray(255 - pixels("upper.png")).save("lower.png")
    plain, out = pixels_after(condgen, files), []
    for masks in (
        ["--masks", "left.png", "--style-masks", "upper.png"],
        ["--masks", "left.png", "--style-masks", "lower.png"],
        ["--clusters", "2"],
    ):
        out.append(pixels_after(condgen, files, *masks))
    assert all(not np.array_equal(a, plain) for a in out) and not np.array_equal(out[0], out[1])


def test_a_class_of_another_name_is_another_command(files, caplog):
    """Names of files in a folder of masks are those of classes: one that is renamed leaves the order, and nothing else, as it was."""
    caplog.set_level("INFO")
    for folder in ("of_photo", "of_style"):
        Path(folder).mkdir()
        halves(f"{folder}/a.png", 40, 60, upright=True)
        Image.fromarray(255 - pixels(f"{folder}/a.png")).save(f"{folder}/b.png")
    masked = {**ASKED, "masks": Path("of_photo"), "style_masks": ["of_style"]}
    kept = [verb("china.png", ["flower.png"], "x.png", stopping_after(3), **masked).told["kept"]]
    for folder in ("of_photo", "of_style"):
        Path(folder, "b.png").rename(Path(folder, "c.png"))
    kept.append(verb("china.png", ["flower.png"], "x.png", stopping_after(3), **masked).told["kept"])
    assert kept[0] != kept[1] and "goes on" not in caplog.text


@pytest.fixture
def clip(files):
    pytest.importorskip("cv2")
    from condgen.data.video import write

    big = load_sample_image("china.jpg")[::6, ::6]
    write("walk.mp4", [big[:48, i : i + 64] for i in range(0, 12, 4)], 8)
    return files


CLIP = ("walk.mp4", "--style", "flower.png", "--net", "random", "--steps", "4")


def test_a_clip_is_painted_frame_by_frame(condgen, clip):
    from condgen.data.video import look

    got = condgen("stylize", *CLIP, "--json")
    assert got.code == 0, got.err
    assert got.json["frames"] == 3 and got.json["out"] == "walk.flower.mp4"
    facts = look("walk.flower.mp4")
    assert (facts.width, facts.height, facts.fps) == (64, 48, 8)
    assert not list(Path().glob(".walk*"))
    for more in (["--colours", "keep"], ["--variant", "random"]):
        assert condgen("stylize", *CLIP, *more, "--out", "x.mp4").code == 0
    for more, named in (
        (["--variant", "warpd"], "warped"),
        (["--out", "x.png"], ".mp4"),
        (["--start", "content"], "--variant"),
        (["--fast"], "together"),
    ):
        refused = condgen("stylize", *CLIP, *more)
        assert refused.code == 2 and named in refused.err


def test_a_stopped_clip_goes_on(clip):
    verb("walk.mp4", ["flower.png"], "whole.mp4", net="random", steps=4)
    done = verb("walk.mp4", ["flower.png"], "x.mp4", stopping_after(6), net="random", steps=4)
    assert done.told["stopped"] and done.told["frames"] == 1 and not Path("x.mp4").exists()
    verb("walk.mp4", ["flower.png"], "x.mp4", net="random", steps=4)
    assert Path("x.mp4").read_bytes() == Path("whole.mp4").read_bytes() and not list(Path().glob(".x.mp4*"))


def test_published_weights_on_another_net_are_said(condgen, files):
    assert "chosen for VGG-19; of random-8-0" in condgen("stylize", *QUICK, "--recipe", "johnson").err
    assert "VGG-19" not in condgen("stylize", *QUICK).err


def test_without_a_net_it_says_how_to_get_one(condgen, files, monkeypatch):
    monkeypatch.delenv("CONDGEN_DATA", raising=False)
    monkeypatch.delenv("CONDGEN_FEATURES", raising=False)
    monkeypatch.setenv("CONDGEN_CACHE", str(files / "cache"))
    got = condgen("stylize", "china.png", "--style", "flower.png")
    assert got.code == 2 and "condgen train features-photos" in got.err
