"""`condgen edit`: a person's own files go in; pictures, films and latents come out, and what cannot be used is named."""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from condgen import api, data
from condgen.cli import main
from condgen.conditions import Attributes, Label, Vector
from condgen.editing.constraints import attribute_critic
from condgen.editing.latent import slerp
from condgen.editing.pictures import read, weights_of
from condgen.editing.space import Space
from condgen.edits import EDITS, constrain, edit
from condgen.edits.attribute import even_rows
from condgen.edits.grid import _columns, bilinear
from condgen.edits.sheet import there_and_back
from condgen.edits.subject import mixed
from condgen.errors import BadInput
from condgen.models.ae import AE

FAST = ["--batch", "16", "--save-every", "0", "--sample-every", "0"]


def trained(folder: Path, preset: str, *words: str) -> Path:
    assert main(["train", preset, "--out", str(folder), *FAST, *words]) == 0
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs, of digits of 8 px, and three pictures of another size, one in colour."""
    home = tmp_path_factory.mktemp("home")
    trained(home / "vae", "vae-digits", "--steps", "60", "--model.hidden", "[32]")
    trained(home / "cvae", "cvae-digits", "--steps", "10", "--model.hidden", "[16]")
    trained(home / "cgan", "cgan-digits", "--steps", "2", "--model.width", "4", "--model.z-dim", "4")
    shown = data.load("digits", split="test").pictures(range(3))[..., 0]
    for name, pixels in zip("abc", shown, strict=True):
        picture = Image.fromarray(pixels).resize((24, 24), Image.Resampling.NEAREST)
        (picture.convert("RGB") if name == "b" else picture).save(home / f"{name}.png")
    return home


@pytest.fixture(autouse=True)
def hasty_critics(monkeypatch: pytest.MonkeyPatch) -> None:
    """What conditions are learnt by takes seconds, and how well it learns is tested elsewhere."""
    monkeypatch.setattr(constrain, "attribute_critic", functools.partial(attribute_critic, steps=10))


@pytest.fixture(scope="module")
def traits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on pictures that are `bright` or not, and `wide` or not, the two going together; `rare` is bright and not wide in one row."""
    home = tmp_path_factory.mktemp("traits")
    rng = np.random.default_rng(0)
    bright = rng.random(200) < 0.5
    wide = np.where(rng.random(200) < 0.8, bright, ~bright)
    x = np.zeros((200, 8, 8), dtype=np.uint8)
    x[:, 2:6, 2:4] = np.where(bright, 240, 90)[:, None, None]
    x[:, 2:6, 4:8] = np.where(wide, 120, 0)[:, None, None]
    np.savez(home / "traits.npz", x=x, attributes=np.stack([bright, wide, bright], 1).astype(np.float32))
    names = ("bright", "wide", "same")
    schema = {"attributes": {"kind": "Attributes", "names": names, "low": [0] * 3, "high": [1] * 3, "binary": [True] * 3}}
    (home / "traits.schema.json").write_text(json.dumps(schema))
    trained(
        home / "ae", "ae-digits", "--data", str(home / "traits.npz"), "--steps", "250", "--model.hidden", "[]", "--optimizer.lr", "0.01"
    )
    Image.fromarray(x[0]).save(home / "one.png")
    return home


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


# --- every verb -----------------------------------------------------------------------------------------------------------

CALLS = {
    "interpolate": (["a.png", "b.png", "c.png"], ["--steps", "4"], 7),
    "analogy": (["a.png", "b.png", "c.png"], [], 1),
    "analogy-grid": (["a.png", "b.png", "c.png"], ["--grid", "3x4"], 12),
    "attribute": (["a.png", "b.png"], ["--name", "digit=3", "--steps", "3", "--rows", "60"], 6),
    "attribute-amount": (["a.png"], ["--name", "digit=3", "--amount", "1", "--rows", "60", "--svm"], 1),
    "attribute-two": (["a.png"], ["--name", "digit=3", "--name", "blur", "--grid", "2x3", "--rows", "60"], 6),
    "constrain": (["a.png", "b.png"], ["--want", "ink>=0.6", "--steps", "3", "--realism", "0"], 2),
    "constrain-condition": (["a.png", "b.png"], ["--want", "digit=8", "--steps", "3", "--realism", "0", "--rows", "60"], 2),
    "invert": (["a.png", "b.png"], [], 2),
    "grid": (["a.png", "b.png", "c.png", "a.png"], ["--spacing", "2"], 9),
    "grid-neighbours": (["a.png"], ["--neighbours", "6", "--rows", "60"], 6),
}


@pytest.mark.parametrize("run", ["vae", "cvae", "cgan"])
@pytest.mark.parametrize("call", CALLS)
def test_every_verb_writes_a_picture_and_latents(call: str, run: str, home: Path, tmp_path: Path, condgen):
    files, options, n = CALLS[call]
    out = tmp_path / "deeper" / "out.png"
    words = ["edit", home / run, call.split("-")[0], *(home / f for f in files), *options, "--descent", "3", "--out", out]
    done = condgen(*words, "--json")
    assert done.code == 0 and done.out.count("\n") == 1, done.err
    assert done.json["n"] == n and Path(done.json["latents"]) == out.with_suffix(".npz")
    assert ("found by descent" in done.err) == (run == "cgan" and call != "invert")
    assert min(size(out)) > 60
    model = api.load(home / run)
    with np.load(out.with_suffix(".npz")) as kept:
        assert kept["x"].shape == (n, 8, 8, 1) and kept["x"].dtype == np.uint8 and kept["z"].shape[0] == n
        assert set(kept.files) == {"x", "z", "weights", *model.schema} and set(kept["weights"]) == {weights_of(model)}
        c = {k: torch.from_numpy(kept[k]) for k in model.schema}
        again = Space(model).decode(torch.from_numpy(kept["z"]), c)
        assert np.abs(kept["x"][:, None, ..., 0] / 127.5 - 1 - again.clamp(-1, 1).numpy()).max() < 0.005, "x is what z decodes to"


@pytest.mark.parametrize("call", CALLS)
def test_every_verb_writes_a_film(call: str, home: Path, tmp_path: Path):
    cv2 = pytest.importorskip("cv2", reason="the extra `video` is not installed")
    files, options, _ = CALLS[call]
    out = tmp_path / "out.mp4"
    given = [str(home / f) for f in files]
    assert main(["edit", str(home / "vae"), call.split("-")[0], *given, *options, "--descent", "3", "--out", str(out)]) == 0
    film = cv2.VideoCapture(str(out))
    assert film.isOpened() and film.get(cv2.CAP_PROP_FRAME_COUNT) >= 3 and film.get(cv2.CAP_PROP_FPS) == 12
    good, frame = film.read()
    assert good and frame.shape[0] % 2 == frame.shape[1] % 2 == 0 and frame.shape[0] > 200
    film.release()
    assert not [p for p in tmp_path.iterdir() if ".part" in p.name]


def test_help_tells_all_verbs(capsys: pytest.CaptureFixture[str]):
    for words in (["edit", "--help"], ["edit", "runs/any", "--help"]):
        with pytest.raises(SystemExit):
            main(words)
        told = capsys.readouterr().out
        assert all(f"{verb} {EDITS[verb].usage}" in told for verb in EDITS) and "--balance" in told


# --- what the edits are -----------------------------------------------------------------------------------------------------


def latents(path: Path) -> torch.Tensor:
    with np.load(path) as kept:
        return torch.from_numpy(kept["z"])


def test_the_way_is_the_arc_between_the_encodings(home: Path, tmp_path: Path):
    edit(str(home / "vae"), "interpolate", [home / "a.png", home / "b.png"], tmp_path / "way.npz", steps=5)
    model = api.load(home / "vae")
    a, b = Space(model).encode(torch.stack([g.x for g in read(model, [home / "a.png", home / "b.png"])]))
    way = latents(tmp_path / "way.npz")
    assert torch.equal(way[0], a) and torch.equal(way[-1], b)
    assert torch.allclose(way[2], slerp(a[None], b[None], 0.5)[0], atol=1e-6)
    edit(str(home / "vae"), "interpolate", [home / "a.png", home / "b.png"], tmp_path / "line.npz", steps=5, how="lerp")
    assert torch.allclose(latents(tmp_path / "line.npz")[2], (a + b) / 2, atol=1e-6)


def test_the_fourth_is_b_and_c_less_a(home: Path, tmp_path: Path):
    files = [home / f"{k}.png" for k in "abc"]
    model = api.load(home / "vae")
    a, b, c = Space(model).encode(torch.stack([g.x for g in read(model, files)]))
    edit(str(home / "vae"), "analogy", files, tmp_path / "four.npz")
    assert torch.allclose(latents(tmp_path / "four.npz")[0], b + c - a, atol=1e-5)
    edit(str(home / "vae"), "analogy", files, tmp_path / "j.npz", grid="3x4")
    corners = latents(tmp_path / "j.npz").reshape(3, 4, -1)
    assert torch.equal(corners[0, 0], a) and torch.equal(corners[0, 3], b) and torch.equal(corners[2, 0], c)


def brightness(path: Path) -> list[float]:
    with np.load(path) as kept:
        return kept["x"][:, 2:6, 2:4, 0].mean((1, 2)).tolist()


def width(path: Path) -> list[float]:
    with np.load(path) as kept:
        return kept["x"][:, 2:6, 4:8, 0].mean((1, 2)).tolist()


def test_an_attribute_moves_what_it_names_and_balanced_nothing_else(traits: Path, tmp_path: Path):
    plain, fair = tmp_path / "plain.npz", tmp_path / "fair.npz"
    for out, options in ((plain, {}), (fair, {"balance": ["wide"]})):
        edit(str(traits / "ae"), "attribute", [traits / "one.png"], out, names=["bright"], low=0.0, high=1.0, steps=2, **options)
        low, high = brightness(out)
        assert high - low > 50
    drift = [abs(b - a) for a, b in (width(plain), width(fair))]
    assert drift[0] > 40 and drift[1] < drift[0] / 3, "the two go together in the data"


def test_an_empty_combination_is_named(traits: Path, tmp_path: Path):
    with pytest.raises(BadInput, match=r"bright.*same|same.*bright"):
        edit(str(traits / "ae"), "attribute", [traits / "one.png"], tmp_path / "x.npz", names=["bright"], balance=["same"])


def test_a_neighbourhood_holds_the_seed_once(home: Path, tmp_path: Path):
    edit(str(home / "vae"), "grid", [home / "a.png"], tmp_path / "near.npz", neighbours=6, rows=80)
    model = api.load(home / "vae")
    own = Space(model).encode(read(model, [home / "a.png"])[0].x[None])[0]
    z = latents(tmp_path / "near.npz")
    assert len(z) == 6 and (z - own).norm(dim=1).lt(1e-4).sum() == 1


def test_descent_comes_nearer_than_the_encoder(home: Path, tmp_path: Path):
    told = edit(str(home / "vae"), "invert", [home / "a.png", home / "b.png"], tmp_path / "inv.png", descent=80).told
    assert all(after < before for before, after in zip(told["error_before"], told["error"], strict=True))


def test_bare_is_the_edited_picture_alone(home: Path, tmp_path: Path):
    out = tmp_path / "one.png"
    assert main(["edit", str(home / "vae"), "analogy", *(str(home / f"{k}.png") for k in "abc"), "--bare", "--out", str(out)]) == 0
    with Image.open(out) as picture, np.load(out.with_suffix(".npz")) as kept:
        assert np.array_equal(np.asarray(picture.convert("L")), kept["x"][0, ..., 0])


# --- constraints ------------------------------------------------------------------------------------------------------------


def test_what_obeys_already_comes_back_as_it_was_given(home: Path, tmp_path: Path):
    for run, asked, wants in (("vae", [], ["ink>=0.01", "ink<=0.99"]), ("cvae", ["digit=4"], ["digit=4"])):
        told = edit(str(home / run), "constrain", [home / "a.png"], tmp_path / "o.npz", asked=asked, wants=wants).told
        assert told["held_before"] == told["holds"] == [True]
        given = read(api.load(home / run), [home / "a.png"])[0].x
        with np.load(tmp_path / "o.npz") as kept:
            assert np.array_equal(kept["x"][0, ..., 0], ((given[0] + 1) * 127.5).round().numpy().astype(np.uint8))


def test_a_rule_is_reached_through_the_decoder(home: Path, tmp_path: Path):
    told = edit(str(home / "vae"), "constrain", [home / "a.png", home / "b.png"], tmp_path / "o.npz", wants=["ink>=0.4"], realism=0.0).told
    assert told == told | {"held_before": [False, False], "holds": [True, True]}
    with np.load(tmp_path / "o.npz") as kept:
        assert (kept["x"].mean((1, 2, 3)) / 255 >= 0.399).all()


def test_a_function_without_gradient_is_learnt_and_reached(home: Path, tmp_path: Path, condgen):
    """Brighter, or darker, than most of what the model draws: whichever the picture is not."""
    model = api.load(home / "vae")
    drawn = model.sample(n=200, seed=1).mean((1, 2, 3))
    sign = 1 if read(model, [home / "a.png"])[0].x.mean() < drawn.median() else -1
    bound = float((sign * drawn).quantile(0.7))
    (tmp_path / "mine.py").write_text(f"def bright(x):\n    return {sign} * x.detach().numpy().mean((1, 2, 3))\n")
    reward = f"{tmp_path / 'mine.py'}:bright>={bound}"
    words = ["edit", home / "vae", "constrain", home / "a.png", "--reward", reward, "--realism", "0", "--rows", "500"]
    done = condgen(*words, "--out", tmp_path / "o.png", "--json")
    assert done.code == 0 and "a critic of latents learns it" in done.err, done.err
    assert done.json["holds"] == [True] and done.json["held_before"] == [False]
    with np.load(tmp_path / "o.npz") as kept:
        assert sign * (kept["x"].mean() / 127.5 - 1) >= bound - 0.01


def test_a_decoder_that_reads_the_condition_keeps_the_latent(home: Path, tmp_path: Path):
    edit(str(home / "cvae"), "constrain", [home / "a.png"], tmp_path / "o.npz", asked=["digit=4"], wants=["digit=8"])
    model = api.load(home / "cvae")
    own = Space(model).encode(read(model, [home / "a.png"])[0].x[None], {"digit": torch.tensor([4])})
    with np.load(tmp_path / "o.npz") as kept:
        assert kept["digit"].tolist() == [8] and np.allclose(kept["z"], own.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "nothing is wanted"),
        (["--want", "digit=3", "--want", "ink>=0.2"], "one kind at a time"),
        (["--want", "inc>=0.2"], "did you mean 'ink'"),
        (["--want", "digt=3"], "did you mean 'digit'"),
        (["--want", "digit=33"], "unknown label '33'"),
        (["--reward", "mine"], "FILE.py:FUNCTION"),
        (["--reward", "none.py:f"], "there is no Python file"),
        (["--want", "ink>=0.2", "--steps", "0"], "--steps is 0"),
        (["--want", "ink>=0.2", "--distance", "-1"], "--distance is -1"),
        (["--want", "ink>=0.2", "--rows", "3"], "--rows is 3"),
    ],
)
def test_what_cannot_be_wanted_is_named(words: list[str], says: str, home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    out = str(tmp_path / "o.png")
    assert says in refused(capsys, ["edit", str(home / "vae"), "constrain", str(home / "a.png"), *words, "--out", out])


# --- files ----------------------------------------------------------------------------------------------------------------


def test_a_picture_is_read_as_training_reads_it(tmp_path: Path):
    """Every way of writing it: 16 bits, alpha, a palette, turned by EXIF, another size and not square."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "pets"
    folder.mkdir()
    pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    colour = Image.fromarray(pixels)
    colour.save(folder / "a.png")
    colour.convert("P").save(folder / "b.gif")
    colour.convert("RGBA").save(folder / "c.webp", lossless=True)
    turned = Image.Exif()
    turned[0x0112] = 6
    colour.save(folder / "d.jpg", exif=turned)
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "e.png")
    loaded = data.load(str(folder), size=8)
    mine = {g.name: g.x for g in read(AE((3, 8, 8)), sorted(folder.iterdir()))}
    theirs = loaded.batch(range(len(loaded))).x
    assert len(theirs) and all(any(torch.equal(row, x) for x in mine.values()) for row in theirs)


def test_colours_become_grey_by_luminance_for_a_model_without(tmp_path: Path):
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "red.png")
    x = read(AE((1, 8, 8)), [tmp_path / "red.png"])[0].x
    assert torch.allclose(x, torch.full((1, 8, 8), 2 * 76 / 255 - 1))
    assert read(AE((3, 8, 8)), [tmp_path / "red.png"])[0].x[1].max() == -1


def test_what_an_edit_wrote_is_edited_further_bit_for_bit(home: Path, tmp_path: Path):
    edit(str(home / "cvae"), "interpolate", [home / "a.png", home / "b.png"], tmp_path / "one.npz", steps=4, asked=["digit=5"])
    model = api.load(home / "cvae")
    given = read(model, [tmp_path / "one.npz"])
    assert [g.name for g in given] == [f"one.npz:{i}" for i in range(4)]
    assert torch.equal(torch.stack([g.z for g in given]), latents(tmp_path / "one.npz"))
    assert all(int(g.c["digit"][0]) == 5 for g in given)
    (row,) = read(model, [f"{tmp_path / 'one.npz'}:2"])
    assert torch.equal(row.z, given[2].z)
    edit(str(home / "cvae"), "interpolate", [f"{tmp_path / 'one.npz'}:0", f"{tmp_path / 'one.npz'}:3"], tmp_path / "two.npz", steps=2)
    with np.load(tmp_path / "two.npz") as kept:
        assert np.array_equal(kept["z"], latents(tmp_path / "one.npz").numpy()[[0, 3]]) and kept["digit"].tolist() == [5, 5]


def test_latents_of_other_weights_are_not_believed(home: Path, tmp_path: Path):
    edit(str(home / "cvae"), "interpolate", [home / "a.png", home / "b.png"], tmp_path / "one.npz", steps=3, asked={"digit": "5"})
    assert all(g.z is None and g.x is not None for g in read(api.load(home / "vae"), [tmp_path / "one.npz"]))
    with np.load(tmp_path / "one.npz") as kept:
        np.savez(tmp_path / "alone.npz", z=kept["z"], weights=kept["weights"])
        np.savez(tmp_path / "mine.npz", z=np.zeros((2, 8), dtype=np.float32))
    with pytest.raises(BadInput, match="other weights"):
        read(api.load(home / "vae"), [tmp_path / "alone.npz"])
    edit(str(home / "vae"), "interpolate", [tmp_path / "mine.npz"] * 2, tmp_path / "o.npz", steps=2)


def test_what_sample_wrote_is_edited(home: Path, tmp_path: Path):
    assert main(["sample", str(home / "cgan"), "--set", "digit=7", "-n", "2", "--seed", "1", "--out", str(tmp_path / "s.npz")]) == 0
    edit(str(home / "cgan"), "invert", [tmp_path / "s.npz"], tmp_path / "o.npz", descent=2)
    with np.load(tmp_path / "o.npz") as kept:
        assert kept["digit"].tolist() == [7, 7]


@pytest.mark.parametrize(
    "words, says",
    [
        (["interpolat", "a.png", "b.png"], "interpolate"),
        (["interpolate", "a.png"], "2 to 100 files, 1 given"),
        (["analogy", "a.png", "b.png"], "takes 3 files, 2 given"),
        (["interpolate", "a.png", "d.png"], "there is no file"),
        (["interpolate", "a.png", "."], "is a folder"),
        (["interpolate", "a.png", "notes.txt"], "notes.txt is none of PNG"),
        (["interpolate", "a.png", "b.png", "--steps", "1"], "--steps is 1"),
        (["interpolate", "a.png", "b.png", "--how", "slurp"], "slerp"),
        (["interpolate", "a.png", "b.png", "--name", "digit=3"], "interpolate has no option --name; it has: --steps, --how"),
        (["interpolate", "a.png", "b.png", "--stepz", "3"], "--steps"),
        (["interpolate", "a.png", "b.png", "--set", "digit=3"], "unknown condition 'digit'"),
        (["interpolate", "a.png", "b.png", "--seed", "-1"], "--seed is -1"),
        (["interpolate", "a.png", "b.png", "--fps", "0"], "--fps is 0"),
        (["interpolate", "a.png", "b.png", "--descent", "-2"], "--descent is -2"),
        (["analogy", "a.png", "b.png", "c.png", "--grid", "5"], "ROWSxCOLUMNS"),
        (["attribute", "a.png"], "--name once"),
        (["attribute", "a.png", "--name", "digit=12"], "digit=1"),
        (["attribute", "a.png", "--name", "blurr"], "blur"),
        (["attribute", "a.png", "--name", "blur", "--svm"], "no rows to balance"),
        (["attribute", "a.png", "--name", "digit=3", "--balance", "digit=4"], "digit=4"),
        (["attribute", "a.png", "--name", "digit=3", "--grid", "3x3"], "second --name"),
        (["attribute", "a.png", "b.png", "--name", "digit=3", "--name", "blur"], "one picture; 2 files"),
        (["attribute", "a.png", "--name", "digit=3", "--amount", "inf"], "--amount is inf"),
        (["grid", "a.png"], "--neighbours N"),
        (["grid", "a.png", "b.png", "--neighbours", "6"], "near one picture; 2 files"),
        (["grid", "a.png", "b.png", "c.png", "--columns", "2"], "fill no rows of 2"),
        (["grid", "a.png", "b.png", "--spacing", "0"], "--spacing is 0"),
        (["grid", "a.png", "b.png", "--spacing", "70"], "at most 60"),
        (["grid", "a.png", "--neighbours", "6", "--columns", "7"], "at most 6"),
        (["grid", "a.png", "--neighbours", "50", "--rows", "20"], "--rows"),
        (["invert", "a.png", "--restarts", "0"], "--restarts is 0"),
    ],
)
def test_what_cannot_be_used_is_named(
    words: list[str], says: str, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(home)
    (home / "notes.txt").write_text("hello")
    assert says in refused(capsys, ["edit", "vae", *words, "--out", "out.png"])
    assert not (home / "out.png").exists() and not (home / "out.npz").exists()


@pytest.mark.parametrize(
    "options, says",
    [
        (["--out", "o.bmp"], ".png for a picture"),
        (["--out", "o.png", "--latents", "o.json"], "written as .npz"),
        (["--out", "a.png"], "a.png is one of the files"),
        (["--out", "mine.png"], "--latents FILE.npz"),
        (["--out", "a.png/deeper/o.png"], "cannot be written"),
        ([], "--out"),
    ],
)
def test_no_file_of_the_persons_is_replaced(
    options: list[str], says: str, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(home)
    np.savez("mine.npz", x=np.zeros(3))
    before = {p: p.read_bytes() for p in (home / "a.png", home / "mine.npz")}
    assert says in refused(capsys, ["edit", "vae", "interpolate", "a.png", "b.png", *options])
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize(
    "arrays, says",
    [
        ({"y": np.zeros(3)}, "expected pictures `x` or latents `z`"),
        ({"x": np.zeros((2, 9, 7, 3), dtype=np.uint8), "z": np.zeros((3, 8))}, "2 rows"),
        ({"z": np.full((2, 8), np.nan)}, "not a finite number"),
        ({"x": np.zeros((2, 5), dtype=np.float32)}, r"shape (5,); this model's are (1, 8, 8)"),
        ({"z": np.zeros((2, 5), dtype=np.float32)}, "no latent of vae"),
    ],
)
def test_arrays_that_do_not_fit_are_named(arrays: dict, says: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    np.savez(tmp_path / "odd.npz", **arrays)
    said = refused(capsys, ["edit", str(home / "vae"), "interpolate", *[str(tmp_path / "odd.npz")] * 2, "--out", str(tmp_path / "o.npz")])
    assert says in said and "odd.npz" in said


def test_a_row_that_is_not_there(home: Path, tmp_path: Path):
    np.savez(tmp_path / "z.npz", z=np.zeros((2, 8), dtype=np.float32))
    with pytest.raises(BadInput, match="no row 2; its rows are 0 to 1"):
        read(api.load(home / "vae"), [f"{tmp_path / 'z.npz'}:2"])


def test_a_film_without_opencv_names_the_extra(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(BadInput, match=r"condgen\[video\]"):
        edit(str(home / "vae"), "interpolate", [home / "a.png", home / "b.png"], tmp_path / "o.mp4")


# --- points ---------------------------------------------------------------------------------------------------------------


def test_points_come_and_go_as_arrays(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]):
    trained(tmp_path / "run", "gan-mixture2d", "--steps", "1", "--model.width", "8")
    np.savez(tmp_path / "two.npz", x=np.array([[1.0, 2.0], [-1.0, 0.5]], dtype=np.float32))
    words = ["edit", str(tmp_path / "run"), "interpolate", str(tmp_path / "two.npz")]
    edit(str(tmp_path / "run"), "interpolate", [f"{tmp_path / 'two.npz'}:{i}" for i in (0, 1)], tmp_path / "o.npz", steps=3, descent=2)
    with np.load(tmp_path / "o.npz") as kept:
        assert kept["x"].shape == (3, 2) and kept["x"].dtype == np.float32
    assert "write them to an .npz" in refused(capsys, [*words, str(tmp_path / "two.npz"), "--out", str(tmp_path / "o.png")])
    assert "expected an .npz with x" in refused(capsys, [*words, str(home / "a.png"), "--out", str(tmp_path / "o.npz")])


# --- conditions -----------------------------------------------------------------------------------------------------------


def test_what_is_left_open_is_said(home: Path, tmp_path: Path, condgen):
    words = ["edit", home / "cvae", "interpolate", home / "a.png", home / "b.png", "--out", tmp_path / "o.png"]
    assert "a.png: not said, so as in a training row that suits: digit=" in condgen(*words).err
    done = condgen(*words, "--set", "digit=4")
    assert done.code == 0 and "not said" not in done.err
    with np.load(tmp_path / "o.npz") as kept:
        assert set(kept["digit"].tolist()) == {4}
    assert "did you mean 'digit'" in condgen(*words, "--set", "digt=4").err


def test_conditions_between_two_are_averaged_or_the_nearer():
    schema = {"digit": Label(("a", "b")), "face": Attributes(("s",)), "look": Vector(2)}
    c = {"digit": torch.tensor([0, 1]), "face": torch.tensor([[0.0], [1.0]]), "look": torch.tensor([[0.0, 2.0], [4.0, 0.0]])}
    found = mixed(schema, c, torch.tensor([[1.0, 0.0], [0.75, 0.25], [1.0, 3.0]]))
    assert found["digit"].tolist() == [0, 0, 1]
    assert torch.allclose(found["face"], torch.tensor([[0.0], [0.25], [0.75]]))
    assert torch.allclose(found["look"], torch.tensor([[0.0, 2.0], [1.0, 1.5], [3.0, 0.5]]))


# --- parts ----------------------------------------------------------------------------------------------------------------


def test_rows_of_every_combination_are_as_many():
    flags = torch.zeros(1000, 2, dtype=torch.bool)
    flags[:100, 0], flags[:10, 1], flags[500:700, 1] = True, True, True
    known = torch.ones(1000, dtype=torch.bool)
    known[0] = False
    chosen = even_rows(flags, known, 120, 0)
    code = (2 * flags[chosen, 0] + flags[chosen, 1]).bincount(minlength=4).tolist()
    assert code == [37, 37, 37, 9] and 0 not in chosen and len(set(chosen.tolist())) == 120
    assert torch.equal(chosen, even_rows(flags, known, 120, 0)) and not torch.equal(chosen, even_rows(flags, known, 120, 1))


def test_weights_of_a_sheet_are_shares_and_its_walk_is_whole():
    weights = bilinear(3, 2, 4)
    assert weights.shape == (9 * 5, 6) and torch.allclose(weights.sum(1), torch.ones(45))
    assert torch.equal(weights.reshape(9, 5, 6)[::4, ::4].reshape(6, 6), torch.eye(6))
    assert there_and_back(torch.arange(6).reshape(2, 3)).tolist() == [0, 1, 2, 5, 4, 3]
    assert [_columns(n) for n in (1, 2, 3, 4, 6, 7, 12)] == [1, 2, 3, 2, 3, 7, 4]
