"""Grids, the terminal's table and the page: what they show, and that they hold nothing foreign."""

import base64
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from torch import nn

from condgen.conditions import Label
from condgen.data import load
from condgen.errors import BadInput
from condgen.evaluation.curves import curves_svg
from condgen.evaluation.grids import class_grid, class_values, grid, save_png
from condgen.evaluation.report import headline, read_history, show, table, write_report
from condgen.model import Run, Sampler

DIGIT = Label(tuple("0123456789"))


class Flat(Sampler):
    """Brightness says the class, and one pixel the latent."""

    def __init__(self, shape=(1, 8, 8), schema=None):
        super().__init__(shape, {"digit": DIGIT} if schema is None else schema)
        self.anchor = nn.Parameter(torch.zeros(1))

    def turns(self, batch, step):
        yield {}

    def prior(self, n, c):
        return self.noise.uniform(n, 1)

    def decode(self, z, c):
        level = c["digit"] / 4.5 - 1 if c else torch.zeros(len(z))
        x = level[:, None].repeat(1, math.prod(self.shape))
        x[:, 0] = z[:, 0]
        return x.reshape(-1, *self.shape)


class Page(HTMLParser):
    """Collects what a browser would ask for, and whether every tag is closed."""

    VOID = {"meta", "img", "br", "path", "use", "rect"}

    def __init__(self, text):
        super().__init__()
        self.open, self.asked, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.asked += [v for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "action") and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def entry(value, **more):
    return {"value": value, "reported": None, "ceiling": None, "control": None, "n": 10, "provenance": "p|v1"} | more


def evaluation(**metrics):
    return {"preset": "toy", "metrics": metrics, "seconds": 1.5, "machine": "a machine", "versions": {"torch": "2"}, "seed": 0}


FOUND = evaluation(class_consistency=entry(0.9712, ceiling=0.9931, control=0.1, reported=[0.9, 0.02]), elbo=entry(-101.26))


def test_grid_places_pictures_row_by_row():
    x = torch.linspace(-1, 1, 6)[:, None, None, None].expand(6, 1, 4, 5)
    found = grid(x, columns=3, gap_px=2)
    assert found.shape == (4 * 2 + 2, 5 * 3 + 4, 1)
    assert found.dtype == np.uint8
    assert [int(found[r, c, 0]) for r in (0, 6) for c in (0, 7, 14)] == [0, 51, 102, 153, 204, 255]
    assert int(found[4, 0, 0]) == 255


def test_grid_of_colour_and_of_odd_numbers():
    assert grid(torch.zeros(5, 3, 4, 4)).shape == (9, 14, 3)
    assert grid(torch.zeros(5, 4, 4, 4)).shape[2] == 3
    assert grid(torch.zeros(1, 2, 4, 4)).shape == (4, 4, 1)
    with pytest.raises(BadInput, match="not of shape"):
        grid(torch.zeros(5, 2))
    with pytest.raises(BadInput, match="draw fewer"):
        grid(torch.zeros(100, 1, 1000, 1000))


def test_class_grid_has_a_row_a_class_and_one_latent_a_column():
    model = Flat()
    x = class_grid(model, columns=4, seed=3).reshape(10, 4, 8, 8)
    assert torch.allclose(x[:, :, 5, 5], (torch.arange(10) / 4.5 - 1)[:, None].expand(10, 4))
    assert torch.equal(x[:, :, 0, 0], x[:1, :, 0, 0].expand(10, 4))
    assert len(x[0, :, 0, 0].unique()) == 4
    assert class_values(model, columns=4)["digit"].tolist() == [k for k in range(10) for _ in range(4)]
    assert class_grid(Flat(schema={}), columns=3).shape == (9, 1, 8, 8)


def test_png_is_written_whole_and_enlarged(tmp_path):
    image = pytest.importorskip("PIL.Image")
    save_png(torch.zeros(4, 1, 8, 8), tmp_path / "a.png", columns=2)
    with image.open(tmp_path / "a.png") as picture:
        assert picture.size == (17 * 6, 17 * 6)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_numbers_read_well():
    shown = [show(v) for v in (None, 0.98765, 0.0, 0.0012345, -101.26, 12.345, 1000, [132, 1.8], "x")]
    assert shown == ["–", "0.988", "0.000", "0.00123", "-101.3", "12.35", "1000", "132 ± 1.8", "x"]


def test_table_says_consistency_with_its_ceiling_first():
    lines = table(FOUND).splitlines()
    assert lines[0] == "class consistency 0.971 (ceiling 0.993: real data in the samples' place), control 0.100, n = 10"
    assert lines[2].split() == ["metric", "measured", "paper", "real", "data", "control", "n"]
    assert lines[3].split() == ["class_consistency", "0.971", "0.9", "±", "0.02", "0.993", "0.100", "10"]
    assert len({len(line) for line in lines[2:5]}) == 1
    assert headline(evaluation(elbo=entry(-101.26))) == "test ELBO -101.3, control –, n = 10"
    assert "metric" in table(evaluation())


def test_history_passes_over_what_a_crash_left(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text(
        '{"step": 1, "D/game": 0.5, "seconds": 3}\n{"step": 2, "D/game": null}\nnonsense\n[1]\n{"step": 3, "D/game": 0.25}\n{"st'
    )
    assert read_history(file) == {"D/game": [(1.0, 0.5), (3.0, 0.25)]}
    assert read_history(tmp_path / "absent") == {}


def test_curves_take_the_page_colour_and_ask_for_nothing():
    drawing = curves_svg({"D/game": [(0.0, 1.0), (1.0, 2.0)], "D/r1": [(0.0, 1.0)], "G/game": [(0.0, 3.0)]})
    assert drawing.startswith("<svg") and drawing.rstrip().endswith("</svg>")
    assert "currentColor" in drawing and "http" not in drawing
    assert drawing == curves_svg({"D/game": [(0.0, 1.0), (1.0, 2.0)], "D/r1": [(0.0, 1.0)], "G/game": [(0.0, 3.0)]})


@pytest.fixture
def page(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps({"step": s, "D/game": 1 / (s + 1)}) for s in range(5)))
    run = Run(model="toy.Toy", data="digits", source="<script>alert(1)</script> & co")
    file = write_report(tmp_path, FOUND | {"preset": "<b>toy</b>"}, Flat(), run, tmp_path / "metrics.jsonl", load("digits", "test"))
    assert file == tmp_path / "report.html"
    return file.read_text()


def test_page_holds_everything_itself(page):
    found = Page(page)
    assert found.open == []
    assert all(a.startswith(("data:image/png;base64,", "#")) for a in found.asked)
    assert "http" not in page and "url(http" not in page
    assert not re.search(r"@import|<script", page)
    assert "prefers-color-scheme: dark" in page


def test_page_says_what_was_measured(page):
    text = Page(page).text
    for wanted in (
        "class_consistency",
        "0.971",
        "0.9 ± 0.02",
        "0.993",
        "p|v1",
        "0, 1, 2, 3",
        "<b>toy</b>",
        "<script>alert(1)</script> & co",
    ):
        assert wanted in text
    assert "<svg" in page


def test_page_shows_samples_beside_real_pictures(page):
    image = pytest.importorskip("PIL.Image")
    shown = [image.open(io.BytesIO(base64.b64decode(uri))) for uri in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]
    assert len(shown) == 2
    assert shown[0].size == shown[1].size == (89 * 5, 89 * 5)
    assert [shown[0].getpixel((20, y)) for y in (20, 425)] == [0, 255]  # class 0 is dark, class 9 bright


def test_page_of_points(tmp_path):
    data = load("mixture2d", "test")
    file = write_report(tmp_path, evaluation(), Flat((2,), {}), Run(model="toy", data="mixture2d"), None, data)
    assert file.read_text().count("<svg") == 1
