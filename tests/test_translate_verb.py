"""`condgen translate`: pictures, folders and clips, what is kept, what is refused, and what an interruption leaves."""

import shutil
import signal
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from condgen.conditions import Label
from condgen.edits import translating
from condgen.edits.translate import direction, planned, translate
from condgen.errors import BadInput
from condgen.models.ae import AE
from condgen.models.cyclegan import CycleGAN


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two saved models: a translator that was not trained, and one that does not translate."""
    at = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    CycleGAN((3, 16, 16), {"domain": Label(("horse", "zebra"))}, width=4, blocks=1, layers=1).save_pretrained(at / "run")
    AE((1, 8, 8), {}, z_dim=2, hidden=(4,)).save_pretrained(at / "ae")
    return at


def paint(file, w=20, h=17, seed=0, mode="RGB"):
    file.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (h, w, *channels), dtype=np.uint8), mode).save(file)
    return file


def look(file):
    with Image.open(file) as picture:
        return picture.size, picture.mode


def sizes(folder):
    return {str(p.relative_to(folder)): look(p)[0] for p in sorted(folder.rglob("*.png"))}


def hidden(folder):
    return [p.name for p in folder.rglob(".*")]


def test_a_picture_keeps_its_size_and_is_kept(home, tmp_path, condgen):
    file, out = paint(tmp_path / "a.jpg", 21, 18), tmp_path / "new" / "b.png"
    done = condgen("translate", home / "run", file, "--to", "zebra", "--out", out, "--json")
    assert done.code == 0 and done.json == {"out": str(out), "to": "zebra", "made": 1, "kept": 0, "failed": [], "stopped": False}
    first = out.read_bytes()
    assert look(out) == ((21, 18), "RGB")
    assert condgen("translate", home / "run", file, "--to", "zebra", "--out", out, "--json").json["kept"] == 1 and out.read_bytes() == first
    for words in (["--to", "horse"], ["--to", "horse", "--size", 40]):
        assert condgen("translate", home / "run", file, *words, "--out", out, "--json").json["made"] == 1, "asked otherwise, made anew"
    assert look(out)[0] == (47, 40) and hidden(tmp_path) == []
    paint(file, 30, 30, 1)
    assert condgen("translate", home / "run", file, "--to", "horse", "--size", 40, "--out", out, "--json").json["made"] == 1
    assert look(out)[0] == (40, 40)


def test_without_a_place_it_goes_beside_the_file(home, tmp_path, condgen):
    paint(tmp_path / "a.png", mode="RGBA"), paint(tmp_path / "g.png", mode="L")
    done = condgen("translate", home / "run", tmp_path / "a.png", tmp_path / "g.png", "--from", "horse")
    assert done.code == 0 and "2 translated to zebra" in done.out
    assert sizes(tmp_path) == dict.fromkeys(("a.png", "a.zebra.png", "g.png", "g.zebra.png"), (20, 17))


def test_a_folder_becomes_a_folder(home, tmp_path, condgen):
    photos, out = tmp_path / "photos", tmp_path / "out"
    for i, name in enumerate(("a.png", "b.jpg", "b.png", "deep/a.png")):
        paint(photos / name, seed=i)
    (photos / "a.mp4").write_bytes(b"a clip"), (photos / "deep" / "walk.mov").write_bytes(b"a clip")
    (photos / "broken.png").write_bytes(b"no picture"), (photos / "new.heic").write_bytes(b""), (photos / "notes.txt").write_text("")
    paint(photos / "tiny.png", 9, 30), paint(photos / ".hidden" / "x.png")
    done = condgen("translate", home / "run", photos, "--to", "zebra", "--out", out, "--json")
    assert done.code == 0 and (done.json["made"], done.json["kept"], len(done.json["failed"])) == (4, 0, 5)
    unread = ("broken.png", "new.heic", "tiny.png: a picture of 9x30 px", "a.mp4 is a clip in a folder", "walk.mov is a clip in a folder")
    assert all(any(name in said for said in done.json["failed"]) for name in unread)
    assert list(sizes(out)) == ["a.png", "b.jpg.png", "b.png.png", "deep/a.png"] and hidden(out) == []
    paint(photos / "a.png", seed=9), (out / "b.jpg.png").unlink()
    again = condgen("translate", home / "run", photos, "--to", "zebra", "--out", out, "--json").json
    assert (again["made"], again["kept"]) == (2, 2), "what changed, and what is missing"
    inside = condgen("translate", home / "run", photos, "--to", "zebra", "--out", photos / "out", "--json").json
    assert (
        inside["made"] == 4 == condgen("translate", home / "run", photos, "--to", "zebra", "--out", photos / "out", "--json").json["kept"]
    )


def test_an_interrupted_folder_goes_on(home, tmp_path, condgen, monkeypatch):
    photos, out, drawn = tmp_path / "photos", tmp_path / "out", translating.Work.drawn
    for i in range(4):
        paint(photos / f"{i}.png", seed=i)
    assert condgen("translate", home / "run", photos, "--to", "zebra", "--out", tmp_path / "whole").code == 0

    def stops(self, pixels, source):
        if source.name == "2.png":
            raise KeyboardInterrupt
        return drawn(self, pixels, source)

    with monkeypatch.context() as patch:
        patch.setattr(translating.Work, "drawn", stops)
        stopped = condgen("translate", home / "run", photos, "--to", "zebra", "--out", out)
        assert stopped.code == 130
    assert list(sizes(out)) == ["0.png", "1.png"] and hidden(out) == []

    def cut(self, file, *args, **kwargs):
        file.write_bytes(b"half a picture")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", cut)
        assert condgen("translate", home / "run", photos, "--to", "zebra", "--out", out).code == 130
    assert list(sizes(out)) == ["0.png", "1.png"] and hidden(out) == []
    assert condgen("translate", home / "run", photos, "--to", "zebra", "--out", out, "--json").json["kept"] == 2
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {p.name: p.read_bytes() for p in (tmp_path / "whole").iterdir()}


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_who_is_asked_to_stop_finishes_a_picture(asked, home, tmp_path, condgen, monkeypatch):
    drawn = translating.Work.drawn
    for i in range(4):
        paint(tmp_path / "photos" / f"{i}.png", seed=i)

    def interrupted(self, pixels, source):
        if source.name == "1.png":
            signal.raise_signal(asked)
        return drawn(self, pixels, source)

    monkeypatch.setattr(translating.Work, "drawn", interrupted)
    done = condgen("translate", home / "run", tmp_path / "photos", "--to", "zebra", "--out", tmp_path / "out")
    assert done.code == 128 + asked and "stopped: 2 of 4 are done; the same command goes on" in done.out
    assert list(sizes(tmp_path / "out")) == ["0.png", "1.png"] and hidden(tmp_path) == []


def test_a_clip_becomes_a_clip_and_goes_on(home, tmp_path, condgen, monkeypatch):
    pytest.importorskip("cv2")
    from condgen.data import video

    clip, out, drawn = tmp_path / "walk.mp4", tmp_path / "out.mp4", translating.Work.drawn
    video.write(clip, np.random.default_rng(0).integers(0, 256, (5, 18, 24, 3), dtype=np.uint8), 12.0)
    assert condgen("translate", home / "run", clip, "--to", "zebra").code == 0
    whole = video.read(tmp_path / "walk.zebra.mp4")
    assert whole.frames.shape == (5, 18, 24, 3) and whole.fps == 12 and hidden(tmp_path) == []
    seen = []

    def stops(self, pixels, source):
        seen.append(0)
        if len(seen) == 3:
            signal.raise_signal(signal.SIGINT)
        return drawn(self, pixels, source)

    monkeypatch.setattr(translating.Work, "drawn", stops)
    words = ["translate", home / "run", clip, "--to", "zebra", "--out", out]
    stopped = condgen(*words)
    assert stopped.code == 130 and "stopped: 0 of 1" in stopped.out and not out.exists() and len(hidden(tmp_path)) == 1
    assert condgen(*words).code == 0 and len(seen) == 5, "three frames were there"
    assert np.array_equal(video.read(out).frames, whole.frames) and hidden(tmp_path) == []
    made = out.read_bytes()
    assert condgen(*words, "--json").json["kept"] == 1 and out.read_bytes() == made and len(seen) == 5, "a finished clip is kept"
    assert condgen(*words, "--size", 20, "--json").json["made"] == 1 and video.look(out).height == 20, "asked otherwise, made anew"
    assert condgen("translate", home / "run", clip, "--to", "zebra", "--json").json["kept"] == 1


def test_a_clip_in_the_way_is_not_replaced(home, tmp_path, condgen):
    pytest.importorskip("cv2")
    from condgen.data import video

    frames = np.random.default_rng(0).integers(0, 256, (2, 18, 24, 3), dtype=np.uint8)
    clip, own = tmp_path / "walk.mp4", tmp_path / "walk.zebra.mp4"
    video.write(clip, frames, 12.0)
    for note in ("", "condgen-stylize of a night"):
        video.write(own, frames[:1], 12.0, note=note)
        before = own.read_bytes()
        done = condgen("translate", home / "run", clip, "--to", "zebra")
        assert done.code == 2 and "walk.zebra.mp4 is there, and no translation has written it" in done.err and own.read_bytes() == before
    assert condgen("translate", home / "run", clip, "--to", "zebra", "--out", own).code == 0 and video.look(own).frames == 2, "named, it is"


def test_frames_that_another_command_began_are_dropped_with_the_clip(home, tmp_path, condgen, monkeypatch):
    pytest.importorskip("cv2")
    from condgen.data import video

    clip, drawn = tmp_path / "walk [1].mp4", translating.Work.drawn
    video.write(clip, np.zeros((3, 18, 24, 3), dtype=np.uint8), 12.0)
    (tmp_path / ".mine.mp4.0123456789abcdef").mkdir(), (tmp_path / ".out [1].mp4.draft").mkdir()
    words = ["translate", home / "run", clip, "--to", "zebra", "--out", tmp_path / "out [1].mp4"]

    def stops(self, pixels, source):
        signal.raise_signal(signal.SIGINT)
        return drawn(self, pixels, source)

    with monkeypatch.context() as patch:
        patch.setattr(translating.Work, "drawn", stops)
        assert [condgen(*words, "--size", size).code for size in (20, 24)] == [130, 130] and len(hidden(tmp_path)) == 4
    assert condgen(*words).code == 0 and sorted(hidden(tmp_path)) == [".mine.mp4.0123456789abcdef", ".out [1].mp4.draft"]


def test_a_clip_without_opencv_says_what_to_install(home, tmp_path, condgen, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "a.mp4").write_bytes(b"")
    done = condgen("translate", home / "run", tmp_path / "a.mp4", "--to", "zebra")
    assert done.code == 2 and 'pip install "condgen[video]"' in done.err


def test_large_pictures_are_said_to_be(home, tmp_path, caplog):
    paint(tmp_path / "a.png", 80, 70), paint(tmp_path / "b.png", 80, 70, 1)
    with caplog.at_level("INFO"):
        translate(str(home / "run"), [tmp_path / "a.png", tmp_path / "b.png"], "zebra")
    assert caplog.text.count("learnt at 16x16") == 1 and "--size 32" in caplog.text


def test_a_model_of_one_size_gets_that(home, tmp_path, condgen, monkeypatch):
    monkeypatch.setattr(CycleGAN, "multiple", None)
    file, out = paint(tmp_path / "a.png", 40, 30), tmp_path / "o.png"
    assert condgen("translate", home / "run", file, "--to", "zebra", "--out", out).code == 0 and look(out)[0] == (16, 16)
    done = condgen("translate", home / "run", file, "--to", "zebra", "--out", out, "--size", 64)
    assert done.code == 2 and "this model takes 16x16 px alone" in done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a.png", "--to", "zebro"], "unknown domain 'zebro': did you mean 'zebra'? Valid: horse, zebra"),
        (["a.png"], "to which domain? Say it: --to horse or --to zebra"),
        (["a.png", "--to", "zebra", "--from", "zebra"], "--from and --to are both 'zebra'"),
        (["a.png", "--from", "zebrra"], "did you mean 'zebra'"),
        (["a.pgn", "--to", "zebra"], "there is no file a.pgn"),
        (["notes.txt", "--to", "zebra"], "notes.txt is neither a picture"),
        (["a.png", "--to", "zebra", "--size", "3"], "--size is 3; expected a whole number of at least 16"),
        (["a.png", "--to", "zebra", "--out", "a.png"], "a.png is one of the files to be translated"),
        (["a.png", "--to", "zebra", "--out", "b.mp4"], "a.png becomes a .png"),
        (["photos", "--to", "zebra", "--out", "b.png"], "photos is a folder, and so is what it becomes"),
        (["empty", "--to", "zebra"], "empty holds no pictures"),
        (["bad", "--to", "zebra"], "none of 1 pictures could be translated: bad/x.png"),
        (["bad/x.png", "--to", "zebra"], "bad/x.png is empty"),
        (["small.png", "--to", "zebra"], "small.png: a picture of 12x40 px; this model takes sides of at least 16 px"),
        (["a.png", "photos/a.png", "--to", "zebra", "--out", "all"], "a.png and photos/a.png would both become all/a.png"),
        (["photos", "--to", "zebra", "--out", "own"], "own/a.png is there, and no translation has written it"),
        (["a.png", "--to", "zebra", "--out", "notes.txt/b.png"], "b.png cannot be written"),
    ],
)
def test_what_cannot_be_is_said(words, says, home, workplace, condgen):
    for name in ("a.png", "photos/a.png", "own/a.png"):
        paint(workplace / name)
    paint(workplace / "small.png", 12, 40)
    (workplace / "notes.txt").write_text("words"), (workplace / "empty").mkdir(), (workplace / "bad").mkdir()
    (workplace / "bad" / "x.png").write_bytes(b"")
    before = sorted(p for p in workplace.rglob("*") if p.is_file())
    done = condgen("translate", home / "run", *words)
    assert done.code == 2 and says in done.err
    assert sorted(p for p in workplace.rglob("*") if p.is_file()) == before


def test_a_model_that_does_not_translate_is_named(home, tmp_path, condgen):
    done = condgen("translate", home / "ae", paint(tmp_path / "a.png"), "--to", "zebra")
    assert done.code == 2 and "AE has no `translate`" in done.err


def test_a_place_that_is_full_ends_it(home, tmp_path, condgen, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError("No space left on device")

    for i in range(3):
        paint(tmp_path / "photos" / f"{i}.png")
    monkeypatch.setattr(Image.Image, "save", full)
    done = condgen("translate", home / "run", tmp_path / "photos", "--to", "zebra", "--out", tmp_path / "out")
    assert done.code == 2 and "0.png cannot be written: No space left" in done.err and "1.png" not in done.err


def test_many_domains_have_to_be_named():
    class Many(CycleGAN):
        def __init__(self):
            super().__init__((3, 16, 16), {"domain": Label(("a", "b"))}, width=2, blocks=0, layers=1)
            self.schema = {"domain": Label(("a", "b", "c"))}

    assert direction(Many(), "c", None) == "c"
    with pytest.raises(BadInput, match="--to a or --to b or --to c"):
        direction(Many(), None, "a")


def test_names_of_domains_become_names_of_files(tmp_path):
    file = paint(tmp_path / "a.png")
    assert planned([file], "van Gogh/late", None)[0].out == tmp_path / "a.van-Gogh-late.png"
    (tmp_path / "photos").mkdir()
    shutil.copy(file, tmp_path / "photos")
    two = planned([tmp_path / "photos", file], "x", tmp_path / "out")
    assert [job.out for job in two] == [tmp_path / "out" / "photos" / "a.png", tmp_path / "out" / "a.png"]
