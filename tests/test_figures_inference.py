"""The figure `inference`: six panels of points coloured by mode, rows of pictures, and what cannot be drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch

from condgen import api, figures
from condgen.data import load, mixture2d
from condgen.errors import BadInput
from condgen.evaluation.modes import nearest_mode
from condgen.figures.inference import Drawn, between, latent_panels, mode_colours
from condgen.model import Optimizer, Run

SMALL = {"batch": 16, "steps": 2, "save_every": 0, "sample_every": 0, "log_every": 0, "precision": "32", "optimizers": {"*": Optimizer()}}


def trained(at: Path, model: str, data: str, **options) -> Path:
    for _ in api.train(Run(model, data, options=options, **SMALL), at):
        pass
    return at


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A VAE and a GAN of points, the same of digits, and one that reads their label."""
    at = tmp_path_factory.mktemp("runs")
    return {
        "points": trained(at / "points", "vae.VAE", "mixture9", z_dim=3, hidden=(8,), likelihood="normal"),
        "gan": trained(at / "gan", "gan.GAN", "mixture9", z_dim=2, width=4),
        "line": trained(at / "line", "vae.VAE", "mixture1d", z_dim=1, hidden=(8,), likelihood="normal"),
        "digits": trained(at / "digits", "vae.VAE", "digits", z_dim=2, hidden=(8,)),
        "labels": trained(at / "labels", "cvae.CVAE", "digits", z_dim=2, hidden=(8,), prior_hidden=8),
        "ae": trained(at / "ae", "ae.AE", "digits", z_dim=2, hidden=(8,)),
    }


def pixels(file: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def test_a_point_keeps_the_colour_of_its_mode(runs, tmp_path, monkeypatch):
    from condgen.figures import inference

    seen = []
    monkeypatch.setattr(inference, "_scatter", lambda axis, title, x, colour, limits: seen.append((title, x, colour)))
    figures.figure("inference", tmp_path / "six.png", runs["points"], runs["gan"], n=300, seed=1)
    assert [title for title, *_ in seen] == [
        "data",
        "points: reconstructions",
        "points: samples",
        "gan: samples",
        "encodings, first 2 axes of 3",
        "prior, first 2 axes of 3",
    ]
    data, back, samples, gan, codes, prior = seen
    palette = mode_colours(9)
    for _, x, colour in (data, samples, gan):
        assert np.array_equal(colour, palette[nearest_mode(x, mixture2d.NINE)[0]])
    assert np.array_equal(data[2], back[2]) and np.array_equal(data[2], codes[2]) and np.array_equal(samples[2], prior[2])
    assert len(prior[1]) == 300 and prior[1].shape[1] == 2


def test_six_panels_are_drawn_alike_each_time(runs, tmp_path):
    for name in ("a.png", "b.png"):
        figures.figure("inference", tmp_path / name, runs["points"], runs["gan"], n=300)
    first = pixels(tmp_path / "a.png")
    assert (
        first.shape[1] == pytest.approx(2 * first.shape[0], abs=2)
        and (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    )
    assert pixels(figures.figure("inference", tmp_path / "c.png", runs["points"], n=300)).shape[1] < first.shape[1]


def test_no_two_modes_look_alike():
    palette = mode_colours(25)
    apart = np.linalg.norm(palette[:, None] - palette, axis=2) + 9 * np.eye(25)
    assert apart.min() > 0.1 and palette.shape == (25, 3)
    neighbours = [apart[i, j] for i in range(25) for j in (i + 1, i + 5) if j < 25]
    assert min(neighbours) > 0.15


def test_latents_of_one_and_two_dimensions_are_shown_as_they_are():
    z, own = torch.randn(5, 2), torch.zeros(5, dtype=torch.int64)
    assert torch.equal(latent_panels(z, z, own, own)[0][1], z)
    line = latent_panels(z[:, :1], z[:, :1], own, own)[1]
    assert line[0] == "prior" and torch.equal(line[1], torch.stack([z[:, 0], torch.zeros(5)], 1))


@pytest.mark.parametrize("name", ["digits", "labels"])
def test_lines_between_codes_end_in_reconstructions(runs, name):
    drawn = Drawn.of(api.load(runs[name]), load("digits", "test"), 6, seed=0)
    row = between(drawn, 2, 3, 7)
    assert row.shape == (7, 1, 8, 8)
    assert torch.equal(row[0], drawn.data.x[2]) and torch.equal(row[-1], drawn.data.x[3])
    assert torch.allclose(row[1], drawn.back[2], atol=1e-5) and torch.allclose(row[-2], drawn.back[3], atol=1e-5)


def test_rows_of_pictures_are_one_command(runs, tmp_path, condgen):
    file = tmp_path / "rows.png"
    found = condgen("figure", "inference", runs["labels"], runs["digits"], "-n", 5, "--rows", 2, "--out", file, "--json")
    assert found.code == 0 and found.json == {"out": str(file), "figure": "inference"}
    assert pixels(file).shape[0] > 6 * 64


def test_what_cannot_be_drawn_says_why(runs, tmp_path):
    def refused(*given, **options):
        with pytest.raises(BadInput) as error:
            figures.figure("inference", tmp_path / "a.png", *given, **options)
        assert not (tmp_path / "a.png").exists()
        return str(error.value)

    assert "GAN has no `encode`" in refused(runs["gan"])
    assert "AE has no `sample`" in refused(runs["ae"])
    assert "modes of 'mixture1d' are not known" in refused(runs["line"])
    assert "cannot stand side by side" in refused(runs["digits"], runs["gan"])
    assert "-n is 2" in refused(runs["digits"], n=2)
    assert "-n is 400; the test split has 359 rows" in refused(runs["digits"], n=400)
    assert "1 to 2 runs, 0 given" in refused()
