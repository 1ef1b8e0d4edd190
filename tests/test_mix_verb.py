"""`condgen edit RUN mix` and `--space`: layers of one person's picture in another's, and every verb in w and in w+."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from condgen import api
from condgen.cli import main
from condgen.data.store import to_bytes
from condgen.editing.pictures import Given, weights_of
from condgen.editing.space import Space
from condgen.editing.views import own_space, told_in, view
from condgen.edits import edit, mix
from condgen.edits.subject import Manner, Subject
from condgen.errors import BadInput
from condgen.model import Run
from condgen.models.alae import ALAE, StyleALAE
from condgen.models.vae import VAE
from styled import DIGIT, styled

LAYERS = {"coarse": [0, 1], "middle": [2, 3], "fine": [4, 5]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of pictures of 16 px: plain, conditional, with an encoder, dense, and one without styles; samples of the first as files."""
    home = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    np.savez(home / "data.npz", x=rng.integers(0, 256, (40, 16, 16), dtype=np.uint8), digit=np.arange(40) % 10)
    (home / "data.schema.json").write_text(json.dumps({"digit": {"kind": "Label", "names": DIGIT.names}}))
    run = Run("stylegan.StyleGAN", str(home / "data.npz")).to_json()
    models = {
        "gan": styled(),
        "cgan": styled(schema={"digit": DIGIT}),
        "alae": styled(StyleALAE),
        "dense": ALAE((1, 16, 16), z_dim=4, hidden=(8,), depth=1),
        "vae": VAE((1, 16, 16), z_dim=4, hidden=(8,)),
    }
    for name, model in models.items():
        model.save_pretrained(home / name, {"run": run})
    assert main(["sample", str(home / "gan"), "-n", "5", "--seed", "1", "--out", str(home / "five.npz")]) == 0
    with np.load(home / "five.npz") as kept:
        for name, pixels in zip("abcde", kept["x"][..., 0], strict=True):
            Image.fromarray(pixels).save(home / f"{name}.png")
    return home


def kept(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as found:
        return {k: found[k] for k in found.files}


def pictures(home: Path, names: str) -> list[Path]:
    return [home / f"{name}.png" for name in names]


def blend(source: np.ndarray, style: np.ndarray, layers: list[int]) -> np.ndarray:
    return np.stack([style[i] if i in layers else source[i] for i in range(len(source))])


# --- mix --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["gan", "alae"])
def test_two_files_are_mixed_by_band(run: str, home: Path, tmp_path: Path, condgen):
    words = ["edit", home / run, "mix", *pictures(home, "ab"), "--descent", 3]
    done = condgen(*words, "--out", tmp_path / "o.png", "--json")
    assert done.code == 0, done.err
    assert done.json["layers"] == LAYERS and (done.json["rows"], done.json["columns"], done.json["n"]) == (3, 1, 3)
    assert ("found by descent" in done.err) == (run == "gan")
    edit(str(home / run), "invert", pictures(home, "ab"), tmp_path / "own.npz", descent=3, space="w+")
    if run == "alae":
        x = torch.stack([torch.from_numpy(np.array(Image.open(p), dtype=np.float32)) / 127.5 - 1 for p in pictures(home, "ab")])[:, None]
        a, b = Space(api.load(home / run)).encode(x)[:, None].repeat(1, 6, 1).numpy()
    else:
        a, b = kept(tmp_path / "own.npz")["z"]
    found = kept(tmp_path / "o.npz")
    assert np.allclose(found["z"], [blend(a, b, layers) for layers in LAYERS.values()], atol=1e-5)
    again = Space(view(api.load(home / run), "w+")).decode(torch.from_numpy(found["z"]))
    assert np.abs(found["x"][:, None, ..., 0] / 127.5 - 1 - again.numpy()).max() < 0.005
    assert set(found) == {"x", "z", "weights", "space"} and set(found["space"]) == {"w+"}
    assert set(found["weights"]) == {weights_of(api.load(home / run))}, "of the model, whichever the view"


def test_sources_down_and_styles_across(home: Path, tmp_path: Path):
    edit(str(home / "alae"), "interpolate", pictures(home, "abcde"), tmp_path / "own.npz", steps=2, space="w+")
    z = kept(tmp_path / "own.npz")["z"]
    told = edit(str(home / "alae"), "mix", pictures(home, "abcde"), tmp_path / "o.npz", sources=2, layers=["fine", "0,3"]).told
    assert told["layers"] == {"fine": [4, 5], "0,3": [0, 3]} and (told["rows"], told["columns"], told["n"]) == (4, 3, 12)
    wanted = [blend(z[i], z[j], layers) for layers, i, j in itertools.product(([4, 5], [0, 3]), (0, 1), (2, 3, 4))]
    assert np.allclose(kept(tmp_path / "o.npz")["z"], wanted, atol=1e-5)


def test_the_sheet_has_its_originals_in_front(home: Path):
    model = api.load(home / "cgan")
    given = [Given(f"{i}", x, None, {"digit": torch.tensor([i])}) for i, x in enumerate(model.sample(n=4, seed=0))]
    subject = Subject("toy", model, given, {}, Manner(descent=2, space="w+"))
    sheet = mix.draw(subject, sources=2)
    own = subject.decode(subject.z, subject.c)
    assert sheet.cells.shape == (2 + 3 * 2, 2 + 2, 1, 16, 16) and len(sheet.rows) == 8 and len(sheet.columns) == 4
    assert (sheet.cells[:2, :2] == 1).all()
    assert torch.equal(sheet.cells[0, 2:], subject.x[2:]) and torch.allclose(sheet.cells[1, 2:], own[2:])
    for block in range(3):
        rows = slice(2 + 2 * block, 4 + 2 * block)
        assert torch.equal(sheet.cells[rows, 0], subject.x[:2]) and torch.allclose(sheet.cells[rows, 1], own[:2])
    assert torch.equal(sheet.cells[2:, 2:].flatten(0, 1), sheet.x) and sheet.rows[2] == "0\nwith coarse"
    assert sheet.c["digit"].tolist() == [0, 0, 1, 1] * 3, "a mixed picture has its source's conditions"
    assert len(sheet.frames) == 12 and sheet.bare_columns == 2


def test_a_style_is_no_source_and_all_layers_are_the_style(home: Path, tmp_path: Path):
    edit(str(home / "alae"), "mix", pictures(home, "ab"), tmp_path / "o.npz", layers=["0-5"])
    edit(str(home / "alae"), "interpolate", pictures(home, "ab"), tmp_path / "own.npz", steps=2)
    found, own = kept(tmp_path / "o.npz"), kept(tmp_path / "own.npz")
    assert np.abs(found["x"][0].astype(int) - own["x"][1].astype(int)).max() <= 1


def test_bare_is_the_mixed_pictures_alone(home: Path, tmp_path: Path):
    out = tmp_path / "o.png"
    edit(str(home / "alae"), "mix", pictures(home, "ab"), out, layers=["coarse"], bare=True)
    with Image.open(out) as picture:
        assert np.array_equal(np.asarray(picture.convert("L")), kept(out.with_suffix(".npz"))["x"][0, ..., 0])


def test_mixing_makes_a_film(home: Path, tmp_path: Path):
    cv2 = pytest.importorskip("cv2", reason="the extra `video` is not installed")
    edit(str(home / "alae"), "mix", pictures(home, "abc"), tmp_path / "o.mp4")
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 6


@pytest.mark.parametrize(
    "run, words, says",
    [
        ("alae", ["a.png"], "a source and at least one style, 1 picture given"),
        ("alae", [], "mix takes 1 to 100 files, 0 given"),
        ("alae", ["a.png", "b.png", "--sources", "2"], "--sources is 2; expected a whole number of at most 1"),
        ("alae", ["a.png", "b.png", "--sources", "0"], "--sources is 0; expected a whole number of at least 1"),
        ("alae", ["a.png", "b.png", "--layers", "corse"], "--layers corse: expected coarse, middle, fine, or numbers"),
        ("alae", ["a.png", "b.png", "--layers", "4-6"], "from 0 to 5"),
        ("alae", ["a.png", "b.png", "--space", "w"], "which w cannot tell"),
        ("alae", ["a.png", "b.png", "--space", "ww"], "unknown space 'ww': did you mean 'w'"),
        ("alae", ["a.png", "b.png", "--name", "digit=3"], "mix has no option --name; it has: --layers, --sources"),
        ("dense", ["a.png", "b.png"], "dense has a single layer: there is nothing to mix"),
        ("vae", ["a.png", "b.png"], "the space w+ needs styles: VAE has no `synthesis`"),
    ],
)
def test_what_cannot_be_mixed_is_named(run, words, says, home: Path, tmp_path: Path, condgen, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(home)
    done = condgen("edit", run, "mix", *words, "--out", tmp_path / "o.png")
    assert done.code == 2 and says in done.err, done.err
    assert not (tmp_path / "o.png").exists()


# --- every verb in every space ------------------------------------------------------------------------------------------------

CALLS = {
    "interpolate": ("ab", {"steps": 3}, 3),
    "analogy": ("abc", {}, 1),
    "attribute": ("a", {"names": ["digit=3"], "steps": 2, "rows": 6}, 2),
    "constrain": ("a", {"wants": ["ink>=0.9"], "steps": 2, "realism": 0.0}, 1),
    "invert": ("ab", {}, 2),
    "grid": ("ab", {"spacing": 2}, 3),
}


@pytest.mark.parametrize("run, space", [("cgan", "w"), ("cgan", "w+"), ("alae", "z"), ("alae", "w+")])
@pytest.mark.parametrize("verb", CALLS)
def test_every_verb_edits_in_any_space(verb: str, run: str, space: str, home: Path, tmp_path: Path):
    names, options, n = CALLS[verb]
    asked = ["digit=4"] if run == "cgan" else []
    edit(str(home / run), verb, pictures(home, names), tmp_path / "o.npz", asked=asked, descent=1, space=space, **options)
    found, model = kept(tmp_path / "o.npz"), api.load(home / run)
    assert found["z"].shape == (n, 6, 6) if space == "w+" else (n, 6)
    assert set(found["space"]) == {space} and set(found["weights"]) == {weights_of(model)}
    c = {k: torch.from_numpy(found[k]) for k in model.schema}
    again = Space(view(model, space)).decode(torch.from_numpy(found["z"]), c)
    assert np.abs(found["x"][:, None, ..., 0] / 127.5 - 1 - again.numpy()).max() < 0.005, "x is what z decodes to, in that space"


def test_without_a_space_it_is_the_models_own(home: Path, tmp_path: Path):
    for run, space in (("gan", "z"), ("alae", "w")):
        edit(str(home / run), "interpolate", pictures(home, "ab"), tmp_path / "o.npz", steps=2, descent=1)
        assert set(kept(tmp_path / "o.npz")["space"]) == {space} == {own_space(api.load(home / run))}
    edit(str(home / "vae"), "interpolate", pictures(home, "ab"), tmp_path / "o.npz", steps=2, space="z")
    assert "space" not in kept(tmp_path / "o.npz"), "of a model that has but one"


# --- latents go on to another space -------------------------------------------------------------------------------------------


def test_latents_are_told_in_a_later_space_bit_for_bit(home: Path, tmp_path: Path):
    edit(str(home / "cgan"), "interpolate", pictures(home, "ab"), tmp_path / "z.npz", steps=2, descent=1, asked=["digit=4"])
    rows = [f"{tmp_path / 'z.npz'}:{i}" for i in range(2)]
    for space in ("w", "w+"):
        edit(str(home / "cgan"), "interpolate", rows, tmp_path / f"{space}.npz", steps=2, space=space)
        assert np.abs(kept(tmp_path / f"{space}.npz")["x"].astype(int) - kept(tmp_path / "z.npz")["x"]).max() <= 1
    model, z = api.load(home / "cgan"), torch.from_numpy(kept(tmp_path / "z.npz")["z"])
    w = model.mapping(z, {"digit": torch.tensor([4, 4])})
    assert np.allclose(kept(tmp_path / "w.npz")["z"], w, atol=1e-6)
    assert np.allclose(kept(tmp_path / "w+.npz")["z"], w[:, None].expand(2, 6, 6), atol=1e-6)
    edit(str(home / "cgan"), "mix", [tmp_path / "w.npz"], tmp_path / "m.npz", layers=["fine"])
    assert np.allclose(kept(tmp_path / "m.npz")["z"][0], blend(*w[:, None].expand(2, 6, 6).numpy(), [4, 5]), atol=1e-6)


@pytest.mark.parametrize("have, want", [("w", "z"), ("w+", "w"), ("w+", "z")])
def test_latents_of_a_later_space_are_refused(have: str, want: str, home: Path, tmp_path: Path):
    edit(str(home / "gan"), "interpolate", pictures(home, "ab"), tmp_path / "o.npz", steps=2, descent=1, space=have)
    rows = [f"{tmp_path / 'o.npz'}:{i}" for i in range(2)]
    with pytest.raises(BadInput, match=rf"o\.npz:0: latents of {have.replace('+', '.')} cannot be told in {want}.*--space {have[0]}"):
        edit(str(home / "gan"), "interpolate", rows, tmp_path / "again.npz", space=want)


def test_latents_without_a_word_of_their_space_are_taken_as_asked(home: Path, tmp_path: Path):
    np.savez(tmp_path / "mine.npz", z=np.zeros((2, 6), dtype=np.float32))
    rows = [f"{tmp_path / 'mine.npz'}:{i}" for i in range(2)]
    edit(str(home / "gan"), "interpolate", rows, tmp_path / "o.npz", steps=2, space="w")
    assert set(kept(tmp_path / "o.npz")["space"]) == {"w"} and not kept(tmp_path / "o.npz")["z"].any()
    with pytest.raises(BadInput, match=r"in w\+ they are \(b, 6, d\)"):
        edit(str(home / "gan"), "interpolate", rows, tmp_path / "o.npz", steps=2, space="w+")


@pytest.mark.parametrize("said", [["w", "w+"], ["v", "v"]])
def test_a_file_of_several_or_odd_spaces_is_refused(said: list[str], home: Path, tmp_path: Path):
    np.savez(tmp_path / "odd.npz", z=np.zeros((2, 6), dtype=np.float32), space=np.array(said))
    with pytest.raises(BadInput, match=r"odd\.npz: its latents are of .*; expected one of z, w, w\+"):
        edit(str(home / "gan"), "mix", [tmp_path / "odd.npz"], tmp_path / "o.npz")


# --- samples ------------------------------------------------------------------------------------------------------------------


def test_samples_are_truncated(home: Path, tmp_path: Path, condgen):
    drawn = {}
    for psi in ("1", "0.5", "0"):
        done = condgen("sample", home / "gan", "-n", 6, "--seed", 2, "--psi", psi, "--out", tmp_path / "s.npz", "--json")
        assert done.code == 0 and done.json["psi"] == float(psi)
        drawn[psi] = kept(tmp_path / "s.npz")["x"].astype(float)
    spread = [drawn[psi].std(0).mean() for psi in ("1", "0.5", "0")]
    assert spread[0] > spread[1] > spread[2] == 0
    assert condgen("sample", home / "gan", "-n", 6, "--seed", 2, "--out", tmp_path / "s.npz").code == 0
    assert np.array_equal(kept(tmp_path / "s.npz")["x"], drawn["1"]), "none, if nothing is said"


@pytest.mark.parametrize("run, space", [("gan", "z"), ("cgan", "z"), ("alae", "w")])
def test_samples_are_mixed_without_a_descent(run: str, space: str, home: Path, tmp_path: Path, condgen):
    assert condgen("sample", home / run, "-n", 3, "--seed", 2, "--out", tmp_path / "s.npz").code == 0
    drawn, model = kept(tmp_path / "s.npz"), api.load(home / run)
    assert set(drawn) == {"x", "z", "space", "weights", *model.schema} and set(drawn["space"]) == {space}
    asked = {k: torch.from_numpy(drawn[k]) for k in model.schema}
    assert np.array_equal(drawn["x"], to_bytes(model.sample(asked, n=3, seed=2))), "what Python draws"
    done = condgen("edit", home / run, "mix", tmp_path / "s.npz", "--layers", "fine", "--out", tmp_path / "o.png", "--json")
    assert done.code == 0 and "found by descent" not in done.err, done.err
    own = told_in(model, torch.from_numpy(drawn["z"]), asked, space, "w+").numpy()
    found = kept(tmp_path / "o.npz")["z"]
    assert np.allclose(found, [blend(own[0], own[i], [4, 5]) for i in (1, 2)], atol=1e-5)


@pytest.mark.parametrize("run", ["gan", "cgan", "alae"])
@pytest.mark.parametrize("words, space", [(["--psi", 0.5], "w"), (["--psi", 0.5, "--psi-layers", 2], "w+")])
def test_truncated_samples_stay_truncated_when_they_are_edited(run: str, words: list, space: str, home: Path, tmp_path: Path, condgen):
    """The model that edits them knows of no psi: they are written as w, or as w+."""
    done = condgen("sample", home / run, "-n", 3, "--seed", 2, *words, "--out", tmp_path / "s.npz", "--json")
    assert done.code == 0 and done.json.get("psi_layers") == (2 if space == "w+" else None), done.err
    drawn = kept(tmp_path / "s.npz")
    assert set(drawn["space"]) == {space} and drawn["z"].shape == ((3, 6) if space == "w" else (3, 6, 6))
    edit(str(home / run), "mix", [tmp_path / "s.npz"], tmp_path / "o.npz", layers=["0-5"])
    assert np.abs(kept(tmp_path / "o.npz")["x"].astype(int) - drawn["x"][1:]).max() <= 1, "all layers of the style: the style"
    assert condgen("sample", home / run, "-n", 3, "--seed", 2, "--out", tmp_path / "free.npz").code == 0
    assert np.abs(kept(tmp_path / "free.npz")["x"].astype(int) - drawn["x"]).max() > 3


def test_without_a_seed_each_file_has_its_own_latents(home: Path, tmp_path: Path, condgen):
    for name in "ab":
        assert condgen("sample", home / "gan", "-n", 2, "--out", tmp_path / f"{name}.npz").code == 0
    a, b = (kept(tmp_path / f"{name}.npz")["z"] for name in "ab")
    assert not np.allclose(a, b)


def test_samples_of_a_model_without_styles_are_written_as_ever(home: Path, tmp_path: Path, condgen):
    assert condgen("sample", home / "vae", "-n", 2, "--out", tmp_path / "s.npz").code == 0
    assert set(kept(tmp_path / "s.npz")) == {"x"}


def test_fewer_samples_than_asked_are_said(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    monkeypatch.setattr("condgen.edits.attribute.SEARCHED", 6)
    with caplog.at_level("INFO", "condgen"):
        told = edit(str(home / "gan"), "attribute", pictures(home, "a"), tmp_path / "o.npz", names=["digit=3"], descent=1, steps=2).told
    assert told["samples"] <= 6 and "the vector of digit=3 is made of at most 6 training samples, not 4000" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO", "condgen"):
        edit(str(home / "alae"), "attribute", pictures(home, "a"), tmp_path / "o.npz", names=["digit=3"], steps=2)
    assert "at most" not in caplog.text, "an encoder is asked for all"


@pytest.mark.parametrize(
    "words, says", [(["--psi-layers", 2], "give --psi too"), (["--psi", 0.5, "--psi-layers", 7], "--psi-layers is 7; expected")]
)
def test_a_cut_that_cannot_be_is_named(words: list, says: str, home: Path, tmp_path: Path, condgen):
    done = condgen("sample", home / "gan", *words, "--out", tmp_path / "s.npz")
    assert done.code == 2 and says in done.err and not (tmp_path / "s.npz").exists()


@pytest.mark.parametrize(
    "run, psi, says", [("vae", "0.7", "needs styles: VAE"), ("gan", "nan", "--psi is nan"), ("gan", "70", "--psi is 70")]
)
def test_what_cannot_be_truncated_is_named(run: str, psi: str, says: str, home: Path, tmp_path: Path, condgen):
    done = condgen("sample", home / run, "--psi", psi, "--out", tmp_path / "s.npz")
    assert done.code == 2 and says in done.err and not (tmp_path / "s.npz").exists()
