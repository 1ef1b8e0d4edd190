"""The figures: what they show is what the model drew, and what cannot be drawn says why."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from condgen import api, figures
from condgen.cli import main
from condgen.conditions import Attributes, Label, Vector
from condgen.errors import BadInput
from condgen.evaluation.grids import save_png
from condgen.figures import shift
from condgen.figures.canvas import GAP_PX, Layout, Tiles, colours, draw_tiles
from condgen.figures.curves import LN2, _panel, at_a_loss, indifferent, logarithmic, smooth
from condgen.figures.evolution import read_grid
from condgen.figures.jitter import jittered
from condgen.figures.likelihood import standard_error
from condgen.figures.shift import shifted
from condgen.figures.subject import preferred
from condgen.model import Run

NAMES = ("Smiling", "Young", "Hat")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of labels that kept its grids and its costs."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    words = ["--model.width", "4", "--model.z-dim", "4", "--batch", "16", "--sample-every", "4", "--log-every", "2"]
    assert main(["train", "cgan-digits", "--out", str(out), "--steps", "12", *words]) == 0
    return out


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three attributes and a vector of two axes; its data have a test split, its costs are lost."""
    folder = tmp_path_factory.mktemp("faces")
    seeded = np.random.default_rng(0)
    face, look = seeded.random((60, 3), dtype=np.float32), seeded.normal(size=(60, 2)).astype(np.float32)
    x = (255 * face[:, :1, None, None] * np.ones((1, 8, 8, 3)) + seeded.random((60, 8, 8, 3))).clip(0, 255).astype(np.uint8)
    np.savez(folder / "faces.npz", x=x, face=face, look=look, split=np.array(["train"] * 40 + ["test"] * 20))
    schema = {"face": {"kind": "Attributes", "names": NAMES}, "look": {"kind": "Vector", "dim": 2}}
    (folder / "faces.schema.json").write_text(json.dumps(schema))
    words = ["--model.width", "4", "--model.z-dim", "4", "--batch", "16", "--sample-every", "0", "--log-every", "0"]
    out = folder / "run"
    assert main(["train", "cgan", "--data", str(folder / "faces.npz"), "--out", str(out), "--steps", "4", *words]) == 0
    (out / "metrics.jsonl").unlink()
    return out


def pixels(file: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def result(
    folder: Path, name: str, n: int = 100, value: float = 90.0, provenance: str = "parzen|v1|s.e.=1.5", metric: str = "parzen"
) -> str:
    entry = {"value": value, "reported": [132, 1.8], "ceiling": 120.0, "control": -50.0, "n": n, "provenance": provenance}
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"preset": name, "metrics": {metric: entry}}))
    return str(file)


# --- the canvas -----------------------------------------------------------------------------------------------------------


def test_every_pixel_of_a_picture_is_a_square_in_the_file(tmp_path: Path):
    cells = np.random.default_rng(0).integers(0, 255, (2, 3, 9, 7, 3), dtype=np.uint8)
    tiles = Tiles(cells, "a title", ["one", "two"], ["a", "b\nb", "c"], {(1, 1): "over"}, frozenset({1}), frozenset({2}))
    drawn, layout = pixels(draw_tiles(tiles, tmp_path / "new" / "a.png")), Layout(tiles)
    assert drawn.shape == (layout.height, layout.width, 3)
    for i, y in enumerate(layout.y):
        for j, x in enumerate(layout.x):
            found = drawn[y : y + layout.h : layout.scale, x : x + layout.w : layout.scale]
            assert np.array_equal(found, cells[i, j]), (i, j)
            assert np.array_equal(found.repeat(layout.scale, 0).repeat(layout.scale, 1), drawn[y : y + layout.h, x : x + layout.w])
    assert layout.x[1] - layout.x[0] - layout.w == GAP_PX < layout.x[2] - layout.x[1] - layout.w
    assert (drawn[:, -1] == 255).all() and (drawn[: layout.y[0]] < 128).any(), "white around, a title above"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]


def test_many_pictures_are_drawn_smaller_and_too_many_refused():
    few, many = (Layout(Tiles(np.zeros((2, k, 28, 28, 3), np.uint8), "")) for k in (2, 60))
    assert few.scale == 3 and many.scale == 1 and many.width < 3000
    with pytest.raises(BadInput, match="ask for fewer"):
        Layout(Tiles(np.zeros((200, 2, 28, 28, 3), np.uint8), ""))


def test_pictures_of_any_channels_become_colours():
    assert colours(torch.zeros(2, 1, 4, 4)).shape == (2, 4, 4, 3)
    assert (colours(torch.full((1, 3, 4, 4), torch.nan)) == 128).all()


# --- evolution ------------------------------------------------------------------------------------------------------------


def test_a_grid_is_read_back_as_it_was_drawn(tmp_path: Path):
    x = torch.rand(16, 1, 28, 20) * 2 - 1
    save_png(x, tmp_path / "grid.png", columns=8)
    assert np.array_equal(read_grid(tmp_path / "grid.png", 28, 20).reshape(16, 28, 20, 3), colours(x))
    with pytest.raises(BadInput, match="no grid of 8 columns"):
        read_grid(tmp_path / "grid.png", 28, 28)
    (tmp_path / "torn.png").write_bytes((tmp_path / "grid.png").read_bytes()[:40])
    with pytest.raises(BadInput, match=r"torn\.png cannot be read"):
        read_grid(tmp_path / "torn.png", 28, 20)


def test_evolution_shows_the_kept_steps(digits: Path, tmp_path: Path):
    drawn = pixels(figures.figure("evolution", tmp_path / "a.png", digits, columns=2, rows=3))
    grids = [read_grid(digits / "samples" / f"step-{step:06d}.png", 8, 8) for step in (4, 12)]
    cells = np.stack([np.stack([g[r, 0] for g in grids]) for r in range(3)])
    title = "digits: the same latents and conditions over the training"
    layout = Layout(Tiles(cells, title, ["0", "1", "2"], ["step\n4", "step\n12"]))
    assert np.array_equal(drawn[layout.y[2] :: layout.scale, layout.x[1] :: layout.scale][:8, :8], grids[1][2, 0])
    assert pixels(figures.figure("evolution", tmp_path / "b.png", digits, rows=12)).shape[0] > drawn.shape[0]


def test_evolution_needs_grids(faces: Path, tmp_path: Path):
    with pytest.raises(BadInput, match="kept no grids"):
        figures.figure("evolution", tmp_path / "a.png", faces)


# --- conditions -----------------------------------------------------------------------------------------------------------


def test_jitter_moves_what_is_continuous_within_its_range():
    schema = {"digit": Label(("a", "b")), "face": Attributes(("s", "t"), low=(0.0, -9.0), high=(0.6, 9.0)), "look": Vector(3)}
    n, generator = 4000, torch.Generator().manual_seed(0)
    base = {"digit": torch.ones(n, dtype=torch.int64), "face": torch.full((n, 2), 0.5), "look": torch.zeros(n, 3)}
    spread = torch.tensor([1.0, 2.0, 0.0])
    rows = {"digit": torch.zeros(2, dtype=torch.int64), "face": torch.rand(9, 2), "look": torch.stack([-spread, spread])}
    moved = jittered(schema, base, rows, 0.5, generator)
    assert torch.equal(moved["digit"], base["digit"])
    assert moved["face"][:, 0].max() == torch.tensor(0.6) < moved["face"][:, 1].max(), "clamped where its range ends"
    assert torch.allclose(moved["look"].std(0), 0.5 * spread, rtol=0.05)
    assert torch.equal(jittered(schema, base, rows, 0.0, generator)["look"], base["look"])


def test_jitter_without_noise_repeats_one_picture_and_ends_in_its_neighbour(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[Tiles] = []
    monkeypatch.setattr("condgen.figures.jitter.draw_tiles", lambda tiles, out: seen.append(tiles) or out)
    figures.figure("jitter", tmp_path / "a.png", faces, sd=0.0, n=3, rows=2)
    figures.figure("jitter", tmp_path / "a.png", faces, sd=1.0, n=3, rows=2, asked=["Smiling=1"])
    still, moved = (t.cells for t in seen)
    assert still.shape == (2, 4, 8, 8, 3)
    assert (still[:, 0] == still[:, 1]).all() and (moved[:, 0] != moved[:, 1]).any()
    train = api.dataset(Run.from_json(api.load(faces).facts["run"]))
    assert all(any(np.array_equal(row[3], p) for p in train.pictures()) for row in still)


def test_shift_moves_one_axis_and_nothing_else(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    values = {"look": torch.zeros(2, 3), "digit": torch.ones(2)}
    assert shifted(values, "look", 1, 2.5)["look"].tolist() == [[0, 2.5, 0]] * 2 and not values["look"].any()
    seen: list[Tiles] = []
    monkeypatch.setattr("condgen.figures.shift.draw_tiles", lambda tiles, out: seen.append(tiles) or out)
    figures.figure("shift", tmp_path / "a.png", faces, attributes=["Young", "look.2"], n=2, steps=3, seed=5)
    (tiles,) = seen
    assert tiles.rows == ["Young 0.00", "Young 0.50", "Young 1.00", "look.2 -3.75", "look.2 +0.00", "look.2 +3.75"]
    assert tiles.apart_rows == {3}
    model = api.load(faces)
    assert np.array_equal(tiles.cells[2], colours(model.sample({"Young": 1.0}, n=2, seed=5)))
    assert np.array_equal(tiles.cells[4], colours(model.sample(n=2, seed=5))), "the middle of an axis is the condition itself"


def test_named_asks_low_and_high_or_each_class(faces: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[Tiles] = []
    monkeypatch.setattr("condgen.figures.named.draw_tiles", lambda tiles, out: seen.append(tiles) or out)
    figures.figure("named", tmp_path / "a.png", faces, n=2, asked={"Hat": 0.5})
    figures.figure("named", tmp_path / "a.png", digits, n=2)
    attributes, classes = seen
    assert [r.split("\n")[0] for r in attributes.rows] == ["Smiling", "Young"] and attributes.cells.shape[:2] == (2, 4)
    assert np.array_equal(attributes.cells[1, 2:], colours(api.load(faces).sample({"Hat": 0.5, "Young": 1.0}, n=2, seed=0)))
    assert classes.rows == tuple("0123456789") and classes.cells.shape[:2] == (10, 4)
    assert "rows that agree" in attributes.title and "other conditions differ" in attributes.title
    assert np.array_equal(classes.cells[7], colours(api.load(digits).sample({"digit": "7"}, n=4, seed=0)))


def test_names_that_read_well_come_first():
    assert preferred(["a", "b", "c"], ("smiling",), 2) == ["a", "b"]
    pair = {"Young", "Mouth_Slightly_Open"}
    assert pair <= {*preferred(["a", *pair], shift.DEFAULTS, len(shift.DEFAULTS))}, "the lecture's senior and open mouth"
    assert preferred(["a", "Mouth Slightly Open", "smiling"], ("smiling", "mouth_slightly_open"), 4) == ["smiling", "Mouth Slightly Open"]


# --- neighbours -----------------------------------------------------------------------------------------------------------


def test_neighbours_tells_each_ratio(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[Tiles] = []
    monkeypatch.setattr("condgen.figures.neighbours.draw_tiles", lambda tiles, out: seen.append(tiles) or out)
    figures.figure("neighbours", tmp_path / "a.png", faces, n=5)
    (tiles,) = seen
    assert tiles.cells.shape[:2] == (2, 8) and len(tiles.over) == 5 and tiles.over.keys() >= {(0, 0), (0, 6), (1, 0)}
    assert all(float(word.split()[1]) > 0 for word in tiles.over.values())
    assert (tiles.cells[1, 2:] == 255).all(), "places without a pair stay white"


# --- curves ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("game", "d", "g"),
    [
        ("non_saturating", [2 * LN2], [LN2]),
        ("minimax", [2 * LN2], [-LN2]),
        ("relativistic", [LN2], [LN2]),
        ("least_squares", [0.25], [0.125]),
        ("hinge", [2.0], []),
        ("wasserstein", [0.0], []),
    ],
)
def test_the_lines_are_what_a_d_pays_that_cannot_tell(game: str, d: list[float], g: list[float]):
    from condgen.models.gan import GAN

    model = GAN((2,), width=2, game=game)
    assert (sorted(indifferent(model, "D")), sorted(indifferent(model, "G"))) == (pytest.approx(d), pytest.approx(g))
    assert indifferent(model, "model") == {}


def test_a_d_that_pays_half_has_half_the_line():
    from condgen.models.gan import GAN
    from condgen.models.gauthier import Gauthier

    halved = GAN((2,), width=2)
    halved.d_share = 0.5
    ((value, label),) = indifferent(halved, "D").items()
    assert value == pytest.approx(LN2) and label == "ln 2 = 0.693: D cannot tell"
    assert [*indifferent(halved, "G")] == [pytest.approx(LN2)]
    assert [*indifferent(Gauthier((2,), {"look": Vector(2)}), "D")] == [pytest.approx(LN2)], "(3) of the paper"


def test_the_axis_fits_the_curve_and_its_line_but_no_single_spike():
    from matplotlib.figure import Figure

    values = np.full(400, 0.65)
    values[7] = 9.0
    axis = Figure().subplots()
    _panel(axis, "D", {"game": list(enumerate(values))}, {LN2: "ln 2"})
    low, high = axis.get_ylim()
    assert low < 0.65 < LN2 < high and high < 2
    _panel(flat := Figure().subplots(), "D", {"game": [(1, 0.5)]}, {})
    assert flat.get_ylim()[0] < 0.5 < flat.get_ylim()[1], "one value has no extent"


def test_a_weighted_game_stands_still_at_its_own_entropy():
    from condgen.objectives.games import task_specific

    d, g = at_a_loss(task_specific(0.1))
    assert d == pytest.approx(-0.1 * math.log(0.1) - 0.9 * math.log(0.9), abs=1e-6)
    assert g == pytest.approx(0.9 * math.log(0.9), abs=1e-3)


def test_smoothing_keeps_constants_and_ends():
    assert np.allclose(smooth(np.full(9, 2.5), 3), 2.5)
    assert np.allclose(smooth(np.arange(9.0), 2)[2:-2], np.arange(2, 7))
    assert np.array_equal(smooth(np.array([3.0, 1.0]), 0), [3.0, 1.0])
    assert logarithmic([0.1, 10.0]) and not logarithmic([1.0, 10.0]) and not logarithmic([-1.0, 100.0])


def test_curves_are_drawn_of_what_was_measured(digits: Path, faces: Path, tmp_path: Path):
    drawn = pixels(figures.figure("curves", tmp_path / "a.png", digits))
    assert drawn.shape[1] == 2 * 640 and (drawn[0] == 255).all() and (drawn != 255).any()
    with pytest.raises(BadInput, match="measured no costs"):
        figures.figure("curves", tmp_path / "b.png", faces)


# --- likelihood -----------------------------------------------------------------------------------------------------------


def test_likelihood_draws_what_was_measured_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bars: list[tuple[float, float]] = []
    monkeypatch.setattr("condgen.figures.likelihood._bar", lambda axis, x, value, error, *_: bars.append((value, error)))
    a, b = result(tmp_path, "a"), result(tmp_path, "b", value=80.0, provenance="parzen|v1|s.e.=2")
    figures.figure("likelihood", tmp_path / "a.png", a, b)
    assert bars == [(90, 1.5), (132, 1.8), (120, 0), (-50, 0), (80, 2), (132, 1.8), (120, 0), (-50, 0)]
    assert math.isclose(standard_error({"provenance": "elbo|s.e.=3.1e-05"}), 3.1e-05) and standard_error({}) == 0


def test_bars_are_written(tmp_path: Path):
    entries = {"n": 100_000, "metric": "parzen_gcn", "provenance": "parzen_gcn|v1|s.e.=1.5"}
    drawn = pixels(figures.figure("likelihood", tmp_path / "a.png", result(tmp_path, "a", **entries)))
    assert max(drawn.shape) < 3000 and all((edge == 255).all() for edge in (drawn[0], drawn[:, :2], drawn[:, -2:])), "nothing is cut off"
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 5


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"n": 200}, "n=100 against n=200"),
        ({"provenance": "parzen|v2|s.e.=1"}, "v2"),
        ({"metric": "elbo"}, "no likelihood is common"),
    ],
)
def test_what_was_not_measured_alike_is_not_drawn_together(other: dict, said: str, tmp_path: Path):
    with pytest.raises(BadInput, match=said):
        figures.figure("likelihood", tmp_path / "a.png", result(tmp_path, "a"), result(tmp_path, "b", **other))
    assert not (tmp_path / "a.png").exists()


def test_likelihood_names_what_is_missing(digits: Path, tmp_path: Path):
    a = result(tmp_path, "a")
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    refusals = {
        "condgen evaluate": ((digits,), {}),
        "cannot be read as a result": ((tmp_path / "bad.json",), {}),
        "holds no result": ((tmp_path / "list.json",), {}),
        "given twice": ((a, a), {}),
        "did you mean 'parzen'": ((a,), {"metric": "parsen"}),
        "not all have elbo": ((a,), {"metric": "elbo"}),
    }
    for said, (runs, options) in refusals.items():
        with pytest.raises(BadInput, match=said):
            figures.figure("likelihood", tmp_path / "a.png", *runs, **options)


# --- the command ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jitter", "shift", "named", "neighbours"])
def test_each_is_one_command(name: str, faces: Path, tmp_path: Path, condgen):
    file = tmp_path / f"{name}.png"
    found = condgen("figure", name, "-n", 2, faces, "--out", file, "--seed", 3, "--json")
    assert found.code == 0 and found.json == {"out": str(file), "figure": name}
    first = file.read_bytes()
    assert max(pixels(file).shape) < 3000
    condgen("figure", name, "-n", 2, faces, "--out", file, "--seed", 3)
    assert file.read_bytes() == first, "the same seed, the same file"


def test_help_lists_the_figures(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(["figure", "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.splitlines()[-len(figures.FIGURES) :] == [f"  {k:12} {f.about}" for k, f in figures.FIGURES.items()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["shft"], "did you mean 'shift'"),
        (["shift"], "one run, 0 given"),
        (["divergences", "RUN"], "no run, 1 given"),
        (["shift", "RUN", "--sd", "1"], "no option --sd; it has: --attribute, -n, --steps, --seed"),
        (["shift", "RUN", "--attribute", "Smilin"], "did you mean 'Smiling'"),
        (["shift", "RUN", "--attribute", "look.3"], "unknown attribute 'look.3'"),
        (["shift", "RUN", "--attribute", "Hat", "--attribute", "Hat"], "given twice"),
        (["shift", "RUN", "--steps", "1"], "at least 2"),
        (["shift", "RUN", "-n", "0"], "at least 1"),
        (["jitter", "RUN", "--sd", "-1"], "at least 0"),
        (["jitter", "RUN", "--set", "Hatt=1"], "did you mean 'Hat'"),
        (["named", "RUN", "--seed", "-1"], "at least 0"),
        (["named", "nowhere"], "nowhere"),
        (["neighbours", "RUN", "--stepz", "3"], "--steps"),
        (["jitter", "LABELS"], "reads digit (Label)"),
        (["shift", "LABELS"], "nothing can be shifted"),
        (["named", "LABELS", "--attribute", "Hat"], "unknown attribute"),
        (["named", "LABELS", "--set", "digit=3"], "nothing is left"),
    ],
)
def test_what_cannot_be_drawn_says_why(words: list[str], said: str, faces: Path, digits: Path, tmp_path: Path, condgen):
    runs = {"RUN": str(faces), "LABELS": str(digits)}
    found = condgen("figure", *(runs.get(w, w) for w in words), "--out", tmp_path / "a.png")
    assert found.code == 2 and said in found.err and found.out == ""
    assert not (tmp_path / "a.png").exists()


def test_a_figure_needs_a_place(faces: Path, tmp_path: Path, condgen):
    assert "--out" in condgen("figure", "named", faces).err
    assert ".png" in condgen("figure", "named", faces, "--out", tmp_path / "a.pdf").err
    (tmp_path / "file").write_text("")
    assert "cannot be written" in condgen("figure", "named", faces, "-n", 1, "--out", tmp_path / "file" / "a.png").err


def test_points_are_no_pictures(tmp_path: Path, condgen):
    small = ["--model.width", "4", "--batch", "16", "--sample-every", "0"]
    assert condgen("train", "gan-mixture2d", "--out", tmp_path / "run", "--steps", 2, *small).code == 0
    assert "made of pictures" in condgen("figure", "neighbours", tmp_path / "run", "--out", tmp_path / "a.png").err


def test_every_figure_of_the_table_has_its_module():
    from importlib import import_module

    for name, entry in figures.FIGURES.items():
        assert callable(import_module(entry.module).draw), name
