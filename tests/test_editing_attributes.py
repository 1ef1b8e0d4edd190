"""Attribute vectors, their bias and its correction, what products with them read, and attributes made by spoiling pictures."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from condgen import figures
from condgen.cli import main
from condgen.conditions import Attributes, Label, Vector
from condgen.data.ink import blurred
from condgen.editing.attributes import (
    atdot,
    attribute_vectors,
    balanced_weights,
    best_threshold,
    cells,
    flags_of,
    mean_difference,
    roc,
    shift,
    svm_vector,
    vector_of,
)
from condgen.editing.space import Space
from condgen.editing.synthetic import DISTORTIONS, blur, line_kernel, motion, sharpness, synthetic_vector
from condgen.errors import BadInput
from condgen.evaluation.attributes import attribute_auc, flags_in, readings_of
from condgen.evaluation.measuring import OUTCOMES, Measuring
from condgen.evaluation.protocols import chosen
from condgen.figures.bias import LECTURE, pair_of
from condgen.model import Model
from painter import RUN, SHAPE, TEST, TRAIN, Painter


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a.double() @ b.double() / a.double().norm() / b.double().norm())


def population(counts: dict[tuple[bool, bool], int], noise: float = 0.5, d: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents z = a u + m w + noise, u and w the first two axes, a and m 1 or -1; and flags (n, 2), by how many have which."""
    flags = torch.cat([torch.tensor(some).expand(n, 2) for some, n in counts.items()])
    z = noise * torch.randn(len(flags), d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z[:, :2] += 2.0 * flags - 1
    return z, flags


CORRELATED = {(True, True): 1600, (True, False): 400, (False, True): 400, (False, False): 1600}
"""Correlation .6."""
FACES = {some: round(10_000 * share) for some, share in LECTURE.items()}
"""(smiling, male) as in the lecture's table."""


# --- balanced replication -------------------------------------------------------------------------------------------------


def random_table(n: int = 300, k: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    seeded = torch.Generator().manual_seed(3)
    return torch.randn(n, 4, generator=seeded, dtype=torch.float64), torch.rand(n, k, generator=seeded) < torch.tensor([0.3, 0.5, 0.8][:k])


def test_weights_are_equally_averaged_cell_means():
    z, flags = random_table()
    w = balanced_weights(flags)
    assert w.dtype == torch.float64 and float(w.sum()) == pytest.approx(1)
    means = {some: z[(flags == torch.tensor(some)).all(1)].mean(0) for some in itertools.product((True, False), repeat=3)}
    for k in range(3):
        with_it, without = ([mean for some, mean in means.items() if some[k] is has] for has in (True, False))
        expected = torch.stack(with_it).mean(0) - torch.stack(without).mean(0)
        assert torch.allclose(mean_difference(z, flags[:, k], w), expected, atol=1e-6)


def test_weights_are_cyclic_replication():
    """White's way: every cell repeated, in turn, to a common size; exact where the sizes divide it."""
    z, _ = random_table(12)
    flags = torch.tensor([[True, True]] * 6 + [[True, False]] * 3 + [[False, True]] * 2 + [[False, False]])
    rows = [torch.arange(12)[(flags == torch.tensor(some)).all(1)] for some in itertools.product((True, False), repeat=2)]
    copies = torch.cat([cell[torch.arange(6) % len(cell)] for cell in rows])
    for k in range(2):
        assert torch.allclose(
            mean_difference(z, flags[:, k], balanced_weights(flags)), mean_difference(z[copies], flags[copies, k]), atol=1e-12
        )


def test_the_raw_vector_is_biased_and_the_balanced_one_is_not():
    z, flags = population(CORRELATED)
    w = torch.eye(6, dtype=torch.float64)[1]
    for method in ("mean", "svm"):
        raw, fair = (attribute_vectors(z, flags, ["a", "m"], by, method)["a"] for by in ((), ("a", "m")))
        assert abs(cosine(fair.direction, w)) <= 0.05
        assert method == "svm" or cosine(raw.direction, w) >= 0.4  # the machine is not fooled by what the latents tell apart
    assert fair.method == "svm balanced by a, m" and fair.n == 4000


def test_the_balanced_vector_is_the_regression_coefficient():
    z, flags = population(CORRELATED)
    root = balanced_weights(flags).sqrt()[:, None]
    design = torch.cat([torch.ones(len(z), 1), 2.0 * flags - 1], 1).double()
    coefficient = np.linalg.lstsq((root * design).numpy(), (root * z).numpy(), rcond=None)[0][1]
    assert np.allclose(attribute_vectors(z, flags, ["a", "m"], ["m"])["a"].direction.numpy(), 2 * coefficient, atol=1e-9)


def test_on_the_lectures_table_a_smile_carries_sex_and_the_corrected_one_does_not():
    """Measured by a classifier of the sex, on the latents of all who do not smile, each given a smile."""
    from sklearn.linear_model import LogisticRegression

    z, flags = population(FACES)
    assert cells(flags) == pytest.approx(LECTURE)
    classifier = LogisticRegression().fit(z.numpy(), flags[:, 1].numpy())

    def males(z: torch.Tensor) -> float:
        return float(classifier.predict_proba(z.numpy())[:, 1].mean())

    grave = z[~flags[:, 0]]
    raw, fair = (attribute_vectors(z, flags, ["smiling", "male"], by)["smiling"] for by in ((), ("smiling", "male")))
    # Of those who smile 17 of 48 are male, of the others 25 of 52: the raw vector takes 12.7 % of the way between the sexes.
    assert float(raw.direction[1]) == pytest.approx(2 * (17 / 48 - 25 / 52), abs=0.03)
    assert float(fair.direction[1]) == pytest.approx(0, abs=0.03)
    before, amount = males(grave), 3.0
    assert males(shift(grave, raw, amount)) < before - 0.1
    assert abs(males(shift(grave, fair, amount)) - before) < 0.02


def test_an_empty_combination_is_named():
    flags = torch.tensor([[True, True], [True, False], [False, False]])
    with pytest.raises(BadInput, match="no row has not smiling and male"):
        balanced_weights(flags.repeat(2, 1), ["smiling", "male"])
    with pytest.raises(BadInput, match=r"cannot fill the 2\^2"):
        balanced_weights(flags)
    with pytest.raises(BadInput, match="no row has not a and b"):
        attribute_vectors(torch.randn(6, 2), flags.repeat(2, 1), ["a", "b"], ["b"])


# --- vectors --------------------------------------------------------------------------------------------------------------


def test_the_support_vectors_look_where_it_is_hard_to_tell():
    z, flags = population(CORRELATED)
    z[flags[:, 0], 2] += 3 * (z[flags[:, 0], 2] > 1)  # a few with it, far out: they pull the mean
    mean, svm = mean_difference(z, flags[:, 0]), svm_vector(z, flags[:, 0])
    assert svm.norm() == pytest.approx(float(mean.norm())) and cosine(svm, torch.eye(6, dtype=torch.float64)[0]) > cosine(
        mean, torch.eye(6)[0]
    )
    far = roc(atdot(z, svm), flags[:, 0]).auc
    assert far > 0.97 and far > roc(atdot(z, mean), flags[:, 0]).auc


def test_whitened_reading_is_fishers_discriminant():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    z, flags = population(CORRELATED)
    z[:, 3] *= 30  # a wide dimension that says nothing
    has = flags[:, 0]
    raw, white = (attribute_vectors(z, flags, ["a", "m"], whiten=some)["a"] for some in (False, True))
    assert torch.equal(raw.direction, white.direction)  # moved alike, read otherwise
    fisher = LinearDiscriminantAnalysis().fit(z.numpy(), has.numpy()).coef_[0]
    assert cosine(white.reader, torch.from_numpy(fisher)) == pytest.approx(1, abs=1e-6)
    assert roc(atdot(z, white), has).auc > roc(atdot(z, raw), has).auc + 0.01


def test_a_shift_is_what_it_says_in_latents_of_any_shape():
    z, v = torch.randn(2, 5, 3, 2, 2, generator=torch.Generator().manual_seed(0)).unbind()
    v = v[0]
    assert torch.equal(shift(z, v, 0.0), z) and torch.allclose(shift(z, v, 2), z + 2 * v, atol=1e-6)
    assert torch.allclose(shift(z, v, torch.arange(5.0))[3], z[3] + 3 * v, atol=1e-6)
    assert torch.allclose(shift(z, v, 4.0, renorm=True).flatten(1).norm(dim=1), z.flatten(1).norm(dim=1))
    has = torch.tensor([True, False, True, False, True])
    assert torch.allclose(mean_difference(z, has), z[has].mean(0) - z[~has].mean(0), atol=1e-6)
    assert svm_vector(z, has).shape == (3, 2, 2)
    assert vector_of("a", v, z, has, "mean", whiten=True).reader.shape == v.shape and atdot(z, v).shape == (5,)


def test_flags_are_the_upper_half_or_those_above_the_median():
    condition = Attributes(("level", "on"), low=(0.0, 0.0), high=(4.0, 1.0), binary=(False, True))
    values = torch.tensor([[0.5, 0.0], [2.0, 1.0], [3.0, 1.0], [1.0, 0.0]])
    assert flags_of(values, condition).tolist() == [[False, False], [False, True], [True, True], [False, False]]
    assert flags_of(values, condition, "median")[:, 0].tolist() == [False, True, True, False]
    values[2, 1] = torch.nan
    with pytest.raises(BadInput, match="'on' of row 2 is not known"):
        flags_of(values, condition)
    with pytest.raises(BadInput, match="did you mean 'median'"):
        flags_of(values, condition, "mdian")


# --- reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [3, 40, 10**9])
def test_the_roc_is_sklearns_with_ties(levels: int):
    from sklearn.metrics import roc_auc_score, roc_curve

    seeded = torch.Generator().manual_seed(0)
    has = torch.rand(500, generator=seeded) < 0.3
    scores = ((torch.randn(500, generator=seeded, dtype=torch.float64) + has) * levels / 6).round()
    found = roc(scores, has)
    assert found.auc == pytest.approx(roc_auc_score(has.numpy(), scores.numpy()), abs=1e-12)
    fpr, tpr, _ = roc_curve(has.numpy(), scores.numpy(), drop_intermediate=False)
    assert np.allclose(found.fpr.numpy(), fpr) and np.allclose(found.tpr.numpy(), tpr)
    assert float(torch.trapezoid(found.tpr, found.fpr)) == pytest.approx(found.auc)
    assert roc(-scores, has).auc == pytest.approx(1 - found.auc)


def test_the_standard_error_is_the_spread_over_draws():
    seeded = torch.Generator().manual_seed(0)
    has = torch.arange(120) < 40
    found = [roc(torch.randn(120, generator=seeded) + has, has) for _ in range(400)]
    spread = float(torch.tensor([r.auc for r in found]).std())
    assert sum(r.standard_error for r in found) / 400 == pytest.approx(spread, rel=0.1)


def test_the_threshold_is_the_best_there_is():
    seeded = torch.Generator().manual_seed(0)
    for _ in range(20):
        has = torch.rand(30, generator=seeded) < 0.4
        scores = (3 * torch.randn(30, generator=seeded) + 2 * has).round()
        best = max(float(((scores > t) == has).float().mean()) for t in torch.arange(-20, 20, 0.5))
        assert float(((scores > best_threshold(scores, has)) == has).float().mean()) == best
    assert best_threshold(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([False, False, True])) == 4.0  # better to answer no


# --- synthetic attributes -------------------------------------------------------------------------------------------------

CHECKER = torch.where((torch.arange(16)[:, None] + torch.arange(16)) % 2 == 0, 1.0, -1.0)


class Checkers(Model):
    """Latents are the contrast of a chequered pattern, and the mean: exact on pictures of these two."""

    def __init__(self):
        super().__init__((3, 16, 16), {})
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def turns(self, batch, step):
        yield {}

    def encode(self, x, c):
        return torch.stack([(x * CHECKER).mean((1, 2, 3)), x.mean((1, 2, 3))], 1)

    def decode(self, z, c):
        return (z[:, :1, None, None] * CHECKER + z[:, 1:, None, None]).expand(-1, 3, 16, 16)


def chequered(n: int) -> torch.Tensor:
    z = torch.rand(n, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.3, 0.4]) + torch.tensor([0.3, -0.2])
    return Checkers().decode(z, {})


def test_blur_is_read_and_taken_away():
    space, x = Space(Checkers()), chequered(60)
    v = synthetic_vector(space, x[:40], None, blur)
    z, spoiled = space.encode(x[40:]), space.encode(blur(x[40:]))
    has = torch.arange(40) >= 20
    assert v.method == "synthetic" and v.n == 80 and roc(atdot(torch.cat([z, spoiled]), v), has).auc == 1
    assert ((atdot(torch.cat([z, spoiled]), v) > v.threshold) == has).all()
    steps = torch.stack([sharpness(space.decode(shift(z, v, k))) for k in (-1.0, -0.5, 0.0, 0.5)])
    assert bool((steps[1:] < steps[:-1]).all())
    before, after = sharpness(blur(x[40:])), sharpness(space.decode(shift(spoiled, v, -1)))
    assert bool((after > 1.1 * before).all()) and float(after.mean()) == pytest.approx(float(sharpness(x).mean()), rel=0.2)


def test_sharpness_in_closed_form():
    x = torch.stack([0.5 * CHECKER, 0.25 * CHECKER, torch.linspace(-1, 1, 16).expand(16, 16), torch.full((16, 16), 0.3)])[:, None]
    assert sharpness(x).tolist() == pytest.approx([16.0, 4.0, 0.0, 0.0], abs=1e-9)
    assert sharpness(x.expand(4, 3, 16, 16)).tolist() == pytest.approx([16.0, 4.0, 0.0, 0.0], abs=1e-9)


def test_blur_of_any_channels_is_scipys():
    from scipy.ndimage import gaussian_filter

    x = torch.rand(2, 3, 12, 9, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = gaussian_filter(x.double().numpy(), (0, 0, 1, 1), mode="nearest", truncate=4.0)
    assert np.allclose(blur(x, 1.0).numpy(), expected, atol=1e-5)
    ink = gaussian_filter((x.double().numpy() + 1) / 2, (0, 0, 1, 1), mode="constant", truncate=4.0)
    assert np.allclose(blurred(x, 1.0).numpy(), 2 * ink - 1, atol=1e-5)


def test_motion_goes_along_its_line():
    for kernel in (line_kernel(5, 0), line_kernel(5, 30), line_kernel(0.5, 90)):
        assert float(kernel.sum()) == pytest.approx(1) and torch.allclose(kernel, kernel.flip(0, 1))
    assert torch.allclose(line_kernel(5, 90), line_kernel(5, 0).T) and bool((line_kernel(5, 0)[[0, 1, 2, 4, 5, 6]].abs() < 1e-12).all())
    assert line_kernel(4, 45)[0, -1] > 0 and line_kernel(4, 45)[0, 0] == 0  # up to the right
    rows = torch.linspace(-1, 1, 16)[:, None].expand(1, 2, 16, 16)
    assert torch.allclose(motion(rows, 6), rows, atol=1e-6) and not torch.allclose(motion(rows, 6, 90), rows, atol=1e-2)
    assert all(distort(rows).shape == rows.shape for distort in DISTORTIONS.values())


# --- the metric -----------------------------------------------------------------------------------------------------------


class Seer(Painter):
    """Encodes the brightness, and numbers that say nothing."""

    def encode(self, x, c):
        return torch.cat([x.mean((1, 2, 3))[:, None], 0.1 * x[:, 0, 3, :5]], 1)


def test_what_the_latents_tell_and_what_they_do_not():
    found = attribute_auc(Measuring(Seer(), RUN, n=50, train=TRAIN, test=TEST))
    assert list(found) == [
        "attribute_auc",
        *(f"attribute_auc/{name}" for name in ("across", "down", "level", "useless")),
    ]  # constant varies not
    level, useless, across = (found[f"attribute_auc/{name}"] for name in ("level", "useless", "across"))
    assert level.value > 0.95 and level.ceiling > 0.95 and level.value > level.control > 0.5 and level.n == 200
    assert abs(useless.value - 0.5) < 0.15 and abs(useless.control - 0.5) < 0.15 and 0.02 < useless.standard_error < 0.06
    assert across.ceiling > 0.99 and across.value < 0.9
    whole = found["attribute_auc"]
    assert whole.value == pytest.approx(sum(m.value for name, m in found.items() if "/" in name) / 4)
    fields = whole.provenance.split("|")
    assert fields[0] == "attribute_auc" and fields[1].startswith("judge-v2:") and "n=400 train, 200 test" in fields
    told = [field for field in fields if field.startswith(OUTCOMES)]
    assert any("left out 1 of 5" in field for field in told) and any("of pixels reaches 0." in field for field in told)


def test_the_encoder_is_needed_and_the_metric_is_not_only_where_asked():
    assert "attribute_auc" in chosen(Seer(), None) and "attribute_auc" not in chosen(Painter(), None)
    with pytest.raises(BadInput, match="no `encode`"):
        chosen(Painter(), ["attribute_auc"])


def test_unknown_values_are_left_out_of_their_attribute_alone():
    schema = {"a": Attributes(("x", "y")), "b": Label(("x", "z"))}
    flags = flags_in(schema, {"a": torch.tensor([[0.9, torch.nan], [0.1, 0.2]]), "b": torch.tensor([1, 0])})
    assert list(flags) == ["x", "y", "b.x", "z"]
    assert flags["y"].known.tolist() == [False, True] and flags["x"].known.all() and flags["x"].has.tolist() == [True, False]
    assert flags["b.x"].has.tolist() == [False, True] and flags["z"].has.tolist() == [True, False]


class Bare:
    """Rows without anything to read."""

    shape, schema = SHAPE, {"look": Vector(4)}

    def __len__(self):
        return len(TEST)

    def batch(self, rows):
        return TEST.batch(rows)


def test_data_without_attributes_say_so():
    with pytest.raises(BadInput, match="the data have no attributes and no label"):
        readings_of(Seer(schema={}), Bare(), Bare())


# --- the figures ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE, hardly trained, of pictures with two attributes, and one of labels alone."""
    folder = tmp_path_factory.mktemp("faces")
    seeded = np.random.default_rng(0)
    face = seeded.random((240, 2), dtype=np.float32)
    x = (127 * face.sum(1)[:, None, None, None] * np.ones((1, 8, 8, 3)) + seeded.random((240, 8, 8, 3))).clip(0, 255).astype(np.uint8)
    split = np.array(["train"] * 140 + ["test"] * 100)
    np.savez(folder / "faces.npz", x=x, face=face, split=split)
    (folder / "faces.schema.json").write_text(json.dumps({"face": {"kind": "Attributes", "names": ["Smiling", "Male"]}}))
    np.savez(folder / "labels.npz", x=x, kind=np.arange(240) % 2, split=split)
    for name in ("faces", "labels"):
        words = ["--model.z-dim", "4", "--batch", "16", "--sample-every", "0", "--log-every", "0", "--model.hidden", "[8]"]
        assert main(["train", "vae", "--data", str(folder / f"{name}.npz"), "--out", str(folder / name), "--steps", "4", *words]) == 0
    return folder


def test_the_figures_are_drawn(faces: Path, tmp_path: Path):
    for name, run in (("atdot", "faces"), ("atdot", "labels"), ("bias", "faces")):
        out = figures.figure(name, tmp_path / f"{name}.png", faces / run)
        assert out.stat().st_size > 5000
    assert figures.figure("bias", tmp_path / "b.png", faces / "faces", attributes=("Male", "Smiling"), n=2).exists()
    with pytest.raises(BadInput, match="did you mean 'Smiling'"):
        figures.figure("atdot", tmp_path / "c.png", faces / "faces", attributes=("Smilin",))
    with pytest.raises(BadInput, match=r"needs data with two attributes .* has kind \(Label\)"):
        figures.figure("bias", tmp_path / "c.png", faces / "labels")


def test_the_pair_of_the_bias_figure():
    schema = {"look": Vector(2), "face": Attributes(("bald", "smiling", "male", "young"))}
    assert pair_of(schema, (), "d") == ("face", ["smiling", "male"])
    assert pair_of(schema, ("young", "bald"), "d") == ("face", ["young", "bald"])
    with pytest.raises(BadInput, match="1 attributes given"):
        pair_of(schema, ("young",), "d")


# --- refusals -------------------------------------------------------------------------------------------------------------

Z, HAS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([True, True, False, False])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: mean_difference(Z, HAS & False), "0 of 4 rows have the attribute"),
        (lambda: mean_difference(Z, HAS.float()), "expected bool"),
        (lambda: mean_difference(Z, HAS[:3]), "expected .n, d. and one each"),
        (lambda: mean_difference(Z, HAS, torch.tensor([0.0, 0, 1, 1])), "of weights above 0"),
        (lambda: svm_vector(Z, HAS, C=0), "C is 0"),
        (lambda: attribute_vectors(Z, HAS[:, None], ["a", "b"]), "1 attributes for 2 names"),
        (lambda: attribute_vectors(Z, HAS[:, None], ["a"], ["b"]), "unknown attribute 'b'"),
        (lambda: attribute_vectors(Z, HAS[:, None], ["a"], method="men"), "did you mean 'mean'"),
        (lambda: shift(Z, Z[0, :2]), "a vector of shape"),
        (lambda: shift(Z, Z[0], torch.zeros(3)), "an amount of shape"),
        (lambda: roc(torch.zeros(4), HAS | True), "4 of 4 rows"),
        (lambda: roc(torch.tensor([0.0, 1, 2, torch.nan]), HAS), "one finite number each"),
        (lambda: blur(Z), "are no pictures"),
        (lambda: motion(Z[None, None], length=0), "length is 0"),
        (lambda: sharpness(Z[None, None, :2]), "at least 3 x 3"),
        (lambda: synthetic_vector(Space(Checkers()), chequered(3), None, lambda x: x[:2]), "expected the same shape"),
        (lambda: synthetic_vector(Space(Painter(schema={})), TEST.x[:3], None, blur), "no `encode`"),
    ],
)
def test_what_cannot_be_used_says_why(call, said: str):
    with pytest.raises(BadInput, match=said):
        call()
