"""AC-GAN: its two losses on logits made by hand, what D is given, and the layers of its table."""

import pytest
import torch
import torch.nn.functional as F

from condgen.conditions import Attributes, Label
from condgen.data.store import Batch
from condgen.errors import BadInput
from condgen.models.acgan import ACGAN, Jitter

SCHEMA = {"k": Label(("a", "b", "c")), "face": Attributes(("age",), (0.0,), (100.0,))}


class Says(torch.nn.Module):
    """A D whose answer is made by hand: the real half and the fake half of its batch each get one row."""

    def __init__(self, real, fake):
        super().__init__()
        self.rows = torch.nn.Parameter(torch.tensor([real, fake]))
        self.seen = []

    def forward(self, x, c):
        self.seen.append((len(x), dict(c)))
        return self.rows.repeat_interleave(len(x) // 2, 0)


def model(**options) -> ACGAN:
    torch.manual_seed(0)
    made = ACGAN((1, 8, 8), SCHEMA, z_dim=4, width=4, **options)
    made.noise.seed(0)
    return made


def batch(n: int = 6) -> Batch:
    c = {"k": torch.arange(n) % 3, "face": torch.linspace(0, 100, n)[:, None]}
    return Batch(torch.rand(n, 1, 8, 8), c)


REAL, FAKE = [1.5, 2.0, 0.0, -1.0, 0.3], [-0.5, 0.1, 0.2, 0.3, -0.7]


def test_the_losses_are_l_s_and_l_c():
    made, b = model(game="minimax"), batch()
    made.start(b)
    made.D = Says(REAL, FAKE)
    d, g = [{k: v.detach() for k, v in next(iter(t.values())).items()} for t in made.turns(b, 0)]
    s = torch.tensor([1.5, -0.5])
    l_s = F.logsigmoid(s[0]) + F.logsigmoid(-s[1])
    assert d["game"].tolist() == pytest.approx([-l_s.item()] * 6)
    assert g["game"].tolist() == pytest.approx([F.logsigmoid(-s[1]).item()] * 6), "G maximises L_C - L_S: it descends log P(fake | fake)"
    value = (b.c["face"][:, 0] - b.c["face"].mean()) / b.c["face"].std()
    for term, row in ((d["class"], REAL), (d["class_fake"], FAKE), (g["class"], FAKE)):
        expected = -torch.log_softmax(torch.tensor(row[1:4]), 0)[b.c["k"]] + 0.5 * (row[4] - value) ** 2
        assert torch.allclose(term, expected, atol=1e-5)


def test_the_non_saturating_form_descends_minus_log_p_real():
    made = model()
    made.D = Says(REAL, FAKE)
    g = list(made.turns(batch(), 0))[1]["G"]["game"]
    assert g.tolist() == pytest.approx([-F.logsigmoid(torch.tensor(-0.5)).item()] * 6)


def test_d_is_never_given_the_condition():
    made = model()
    made.D = Says(REAL, FAKE)
    list(made.turns(batch(), 0))
    assert made.D.seen == [(12, {}), (12, {})], "real and fake samples in one pass, no conditions"


def test_fakes_leave_ds_class_loss_by_option():
    with_fakes, without = (set(next(iter(model(aux_on_fake=on).turns(batch(), 0)))["D"]) for on in (True, False))
    assert with_fakes == {"game", "class", "class_fake"} and without == {"game", "class"}


def test_the_table_at_32_px():
    made = ACGAN((3, 32, 32), {"k": Label(tuple("abcdefghij"))}, nets="paper")
    g = [(type(m).__name__, tuple(m.weight.shape)) for m in made.G.layers if hasattr(m, "kernel_size")]
    assert g == [("ConvTranspose2d", (384, 192, 5, 5)), ("ConvTranspose2d", (192, 96, 5, 5)), ("ConvTranspose2d", (96, 3, 5, 5))]
    assert made.G.dense.weight.shape == (384 * 4 * 4, 110), "z of 100 and ten numbers for the class"
    d = [(m.out_channels, m.stride[0]) for m in made.D.layers if isinstance(m, torch.nn.Conv2d)]
    assert d == [(16, 2), (32, 1), (64, 2), (128, 1), (256, 2), (512, 1)]
    assert made.D.layers[-1].out_features == 11 and {m.p for m in made.D.layers if isinstance(m, torch.nn.Dropout)} == {0.5}
    norms = [isinstance(m, torch.nn.BatchNorm2d) for m in made.D.layers]
    assert sum(norms) == 5 and not any(norms[:3]), "no batch norm behind the first layer"
    assert [sum(isinstance(m, torch.nn.BatchNorm2d) for m in made.G.layers)] == [2]


def test_activation_noise_is_for_training():
    x = torch.zeros(1000)
    assert Jitter(0.2)(x).std().item() == pytest.approx(0.2, abs=0.02)
    assert torch.equal(Jitter(0.2).eval()(x), x) and torch.equal(Jitter(0.0)(x), x)


def test_what_cannot_be_is_refused():
    with pytest.raises(BadInput, match="3 doublings do not end at 28"):
        ACGAN((1, 28, 28), SCHEMA, nets="paper")
    with pytest.raises(BadInput, match="needs at least one condition"):
        ACGAN((1, 8, 8), {})
    for options, says in (({"noise": -1.0}, "noise is -1"), ({"dropout": 2.0}, "dropout is 2"), ({"aux_weight": -1.0}, "aux_weight is -1")):
        with pytest.raises(BadInput, match=says):
            ACGAN((1, 8, 8), SCHEMA, **options)


def test_the_houses_d_sees_noise_too():
    made = model(noise=0.5)
    x = torch.zeros(4, 1, 8, 8)
    assert made.jitter(x).std() > 0.3 and torch.equal(made.eval().jitter(x), x)
