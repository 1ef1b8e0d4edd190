"""The figures of styles: what stands in a cell is what the model draws of those layers, that noise and that psi."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from condgen import api, figures
from condgen.editing.views import bands, view
from condgen.errors import BadInput
from condgen.figures.canvas import Tiles, colours
from condgen.figures.noise import heat, let_into, spread_of_noise
from condgen.figures.truncation import PSI
from condgen.models.alae import ALAE
from condgen.models.vae import VAE
from styled import DIGIT, styled


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    models = {
        "gan": styled(channels=3),
        "cgan": styled(schema={"digit": DIGIT}),
        "silent": styled(pixel_noise=False),
        "deaf": styled(),
        "dense": ALAE((1, 8, 8), z_dim=4, hidden=(8,), depth=1),
        "vae": VAE((1, 8, 8), z_dim=4, hidden=(8,)),
    }
    with torch.no_grad():
        for name, weight in models["deaf"].G.named_parameters():
            weight.mul_(0 if name.endswith("noise") else 1)
    for name, model in models.items():
        model.save_pretrained(home / name)
    return home


@pytest.fixture
def tiles(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a figure would draw: `tiles("noise", "gan", rows=2)`."""

    def drawn(name: str, run: str, **options) -> Tiles:
        seen: list[Tiles] = []
        monkeypatch.setattr(importlib.import_module(f"condgen.figures.{name}"), "draw_tiles", lambda one, out: seen.append(one) or out)
        figures.figure(name, tmp_path / "o.png", home / run, **options)
        return seen[0]

    return drawn


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Up to how many are drawn at once, which the last digit depends on."""
    return a.shape == b.shape and int(np.abs(a.astype(int) - b.astype(int)).max()) <= 1


# --- truncation -------------------------------------------------------------------------------------------------------------


def test_truncation_goes_from_the_samples_to_one_picture_and_past_it(home: Path, tiles):
    cells, model = tiles("truncation", "gan", rows=3, seed=4).cells, api.load(home / "gan")
    assert cells.shape == (3, len(PSI), 16, 16, 3) and PSI[0] == 1 and PSI[3] == 0
    for i, psi in enumerate(PSI):
        model.psi = psi
        assert close(cells[:, i], colours(model.sample(n=3, seed=4))), psi
    assert close(cells[:1, 3].repeat(3, 0), cells[:, 3]) and not close(cells[:1, 0].repeat(3, 0), cells[:, 0])
    assert not close(cells[:, 0], cells[:, 5])


def test_a_conditional_model_has_a_mean_for_each_condition(tiles):
    cells = tiles("truncation", "cgan", rows=4, asked={"digit": ["2", "2", "7", "7"]}).cells
    assert close(cells[0, 3], cells[1, 3]) and close(cells[2, 3], cells[3, 3]) and not close(cells[0, 3], cells[2, 3])
    assert not close(cells[0, 0], cells[1, 0])


# --- noise ------------------------------------------------------------------------------------------------------------------


def test_the_panels_of_noise_differ_in_the_layers_that_are_told(home: Path, tiles):
    shown, model = tiles("noise", "gan", rows=2, n=3, seed=1), api.load(home / "gan")
    assert shown.columns[:4] == ["no noise", "all layers", "fine\n16 px", "coarse\n4-8 px"] and shown.columns[4].startswith("s.d. of 3")
    model.noise.seed(1)
    w = view(model, "w").prior(2, {})
    noise = model.draw_noise(2)
    none, fine = [torch.zeros_like(one) for one in noise], bands(model.layer_sides)["fine"]
    coarse = [i for i in range(6) if i not in fine]
    for column, layers in enumerate(([], [*coarse, *fine], fine, coarse)):
        mixed = [noise[i] if i in layers else none[i] for i in range(6)]
        assert close(shown.cells[:, column], colours(model.synthesis(w, mixed).clamp(-1, 1))), shown.columns[column]
    assert not close(shown.cells[:, 0], shown.cells[:, 1])


def test_noise_is_let_into_the_layers_that_are_asked(home: Path, tiles):
    shown, model = tiles("noise", "gan", rows=2, n=3, seed=1, layers=["coarse", "0-3", "5"]), api.load(home / "gan")
    wanted = {"no noise": [], "all layers": range(6), "coarse\n4 px": [0, 1], "layers 0-3\n4-8 px": [0, 1, 2, 3], "layer 5\n16 px": [5]}
    assert shown.columns[:-1] == list(wanted) and shown.columns[-1].startswith("s.d. of 3") and shown.apart_columns == {5}
    model.noise.seed(1)
    w = view(model, "w").prior(2, {})
    noise = model.draw_noise(2)
    for column, layers in enumerate(wanted.values()):
        assert close(shown.cells[:, column], colours(model.synthesis(w, let_into(noise, layers)).clamp(-1, 1))), column


class Linear:
    """Draws b + a times its noise: the deviation of each pixel is known."""

    psi, layer_sides = 1.0, (2, 4)

    def __init__(self, amount: torch.Tensor):
        self.amount, self.generator = amount, torch.Generator().manual_seed(0)

    def draw_noise(self, n):
        return [torch.randn(n, 1, side, side, generator=self.generator) for side in self.layer_sides]

    def synthesis(self, w, noise):
        return 0.1 + self.amount * noise[1]


def test_the_heat_is_the_deviation_of_each_pixel():
    amount = torch.zeros(3, 4, 4)
    amount[:, 0, 0], amount[0, 1, 2] = 0.1, 0.1
    found = spread_of_noise(Linear(amount), torch.zeros(2, 5), 4000)
    assert found.shape == (2, 4, 4) and torch.allclose(found[:, 0, 0], torch.full((2,), 0.1).double(), rtol=0.05)
    assert torch.allclose(found[:, 1, 2], torch.full((2,), 0.1 / 3**0.5).double(), rtol=0.05), "the root mean square of channels"
    assert (found > 0).sum() == 4
    shades = heat(found).astype(int).sum(-1)
    assert shades[:, 1, 2].min() > shades[:, 3, 3].max() and heat(found)[0, 3, 3].sum() < 10


def test_noise_let_into_some_layers_is_0_in_all_others():
    noise = [torch.ones(1, 1, 2, 2), torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4)]
    assert [float(one.sum()) for one in let_into(noise, [0, 2])] == [4, 0, 16]


# --- styles -----------------------------------------------------------------------------------------------------------------


def test_a_cell_of_styles_is_its_source_with_layers_of_its_style(home: Path, tiles):
    shown, model = tiles("styles", "gan", rows=2, columns=3, seed=5), api.load(home / "gan")
    x = colours(model.sample(n=5, seed=5))
    assert shown.cells.shape == (1 + 3 * 2, 1 + 3, 16, 16, 3) and (shown.cells[0, 0] == 255).all()
    assert close(shown.cells[0, 1:], x[2:]) and all(close(shown.cells[1 + 2 * k : 3 + 2 * k, 0], x[:2]) for k in range(3))
    model.noise.seed(5)
    w = view(model, "w+").prior(5, {})
    for k, (band, layers) in enumerate(bands(model.layer_sides).items()):
        assert shown.rows[1 + 2 * k] == f"{band}\n{layers[0]}-{layers[-1]}"
        for source in range(2):
            mixed = w[source].repeat(3, 1, 1)
            mixed[:, layers] = w[2:, layers]
            assert close(shown.cells[1 + 2 * k + source, 1:], colours(model.synthesis(mixed).clamp(-1, 1)))


def test_styles_are_truncated_and_of_what_is_asked(home: Path, tiles):
    cells = tiles("styles", "gan", rows=1, columns=2, psi=0.0).cells
    flat = cells.reshape(-1, *cells.shape[2:])[1:]
    assert close(flat[:1].repeat(len(flat), 0), flat)
    shown, model = tiles("styles", "cgan", rows=1, columns=1, asked=["digit=3"], seed=2), api.load(home / "cgan")
    assert close(np.stack([shown.cells[1, 0], shown.cells[0, 1]]), colours(model.sample({"digit": "3"}, n=2, seed=2)))


# --- the command ------------------------------------------------------------------------------------------------------------


def test_each_is_one_command(home: Path, tmp_path: Path, condgen):
    for name, options in (
        ("truncation", ["--rows", 2]),
        ("noise", ["--rows", 1, "-n", 2, "--psi", 0.5, "--layers", "0"]),
        ("styles", ["--columns", 2]),
    ):
        done = condgen("figure", name, home / "cgan", *options, "--set", "digit=1", "--seed", 1, "--out", tmp_path / f"{name}.png")
        assert done.code == 0, done.err
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "name, run, options, says",
    [
        ("truncation", "vae", {}, "the figure truncation needs styles: VAE has no `synthesis`"),
        ("noise", "vae", {}, "the figure noise needs styles"),
        ("styles", "vae", {}, "the figure styles needs styles"),
        ("noise", "silent", {}, "has no noise"),
        ("noise", "deaf", {"n": 2}, "draws the same whatever its noise"),
        ("noise", "dense", {}, "has no noise"),
        ("styles", "dense", {}, "layers of one size alone"),
        ("noise", "gan", {"n": 1}, "-n is 1"),
        ("noise", "gan", {"layers": ["corse"]}, "--layers corse: expected coarse, middle, fine, or numbers"),
        ("noise", "gan", {"layers": ["coarse", "0-1"]}, "--layers 0-1: layers 0-1 have a panel already"),
        ("styles", "gan", {"layers": ["0"]}, "figure styles has no option --layers"),
        ("noise", "gan", {"psi": float("nan")}, "--psi is nan"),
        ("styles", "gan", {"columns": 0}, "--columns is 0"),
        ("truncation", "gan", {"rows": 0}, "--rows is 0"),
        ("truncation", "gan", {"psi": 0.5}, "figure truncation has no option --psi"),
        ("styles", "gan", {"seed": -1}, "--seed is -1"),
        ("styles", "gan", {"asked": ["digit=3"]}, "digit"),
    ],
)
def test_what_cannot_be_drawn_is_named(name: str, run: str, options: dict, says: str, home: Path, tmp_path: Path):
    with pytest.raises(BadInput, match=says):
        figures.figure(name, tmp_path / "o.png", home / run, **options)
    assert not (tmp_path / "o.png").exists()
