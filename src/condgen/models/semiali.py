"""Semi-supervised adversarially learned inference: a discriminator of K + 1 classes.

    labelled encoder pairs (x, z^, y)   -> class y
    encoder pairs without a label       -> any of the K
    decoder pairs (x~, z)               -> class K + 1

Dumoulin et al. 2016, arXiv 1606.00704, section 4.3, after Salimans et al. 2016, arXiv 1606.03498, and without feature matching. The logit
of class K + 1 is 0, so that p(real) = sigmoid(logsumexp of the K others): (1) of `ali` is played on that number.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.conditions import Label, Schema
from condgen.data.ink import moved
from condgen.data.store import Batch
from condgen.errors import BadInput, require_range, require_whole
from condgen.model import Optimizer, Run, Shape, Turn
from condgen.models.ali import ALI
from condgen.objectives.games import swapped
from condgen.objectives.reconstruction import squared_error


class SemiALI(ALI):
    """ALI whose discriminator names the class of a sample, from a few labelled ones; encoder and decoder read no label.

    Args:
        shape: of a sample; pictures in [-1, 1].
        schema: the data's; its one Label is learnt. May be {} where `classes` and `label` say it.
        labelled: samples whose label is read, as many of each class: the first of each in the run's order of the data. No other label
            is ever looked at.
        class_weight: of the cross-entropy of the labelled.
        shift: pictures are moved by up to so many px each way in training, the border repeated; 0 for none.
        z_dim, width, game, r1, r2, lazy, cycle, nets, maps: as in `ali`.
        classes: the label's names, read from the schema where that has them.
        label: the label's own name, likewise.

    Raises:
        BadInput: for a schema without a single Label, or fewer labelled samples than classes.
    """

    critics = ("labelled_x", "labelled_y")
    labelled_x: Tensor
    labelled_y: Tensor

    def __init__(
        self,
        shape: Shape,
        schema: Schema | None = None,
        labelled: int = 100,
        class_weight: float = 1.0,
        shift: int = 0,
        z_dim: int = 64,
        width: int = 32,
        game: str = "non_saturating",
        r1: float = 0.0,
        r2: float = 0.0,
        lazy: int = 1,
        cycle: float = 0.0,
        nets: str = "house",
        maps: float = 1.0,
        classes: tuple[str, ...] = (),
        label: str = "",
    ):
        if not classes:
            label, classes = only_label(schema or {})
        self.label, self.classes = label, tuple(classes)
        super().__init__(shape, {}, z_dim, width, game, r1, r2, lazy, cycle, nets, maps=maps)
        require_whole("labelled", labelled, len(self.classes))
        if labelled % len(self.classes):
            nearest = labelled // len(self.classes) * len(self.classes)
            raise BadInput(f"labelled is {labelled}; expected as many of each of the {len(self.classes)} classes, such as {nearest}")
        if nets in ("svhn", "celeba"):
            raise BadInput(
                f"the batch norm of nets {nets!r} would tell labelled pictures, which pass alone, from all others: take cifar or house"
            )
        require_whole("shift", shift, 0)
        require_range(0, math.inf, class_weight=class_weight)
        self.options = {**self.options, "classes": self.classes, "label": label}  # what was read from the schema builds it again
        self.class_weight, self.shift = class_weight, shift
        each = labelled // len(self.classes)
        self.register_buffer("labelled_x", torch.zeros(each * len(self.classes), *self.shape))
        self.register_buffer("labelled_y", torch.arange(len(self.classes)).repeat_interleave(each))

    @property
    def judged(self) -> int:
        return len(self.classes)

    def realness(self, answers: Tensor) -> Tensor:
        """Any of the K, against the zero logit of class K + 1."""
        return answers.logsumexp(1)

    @torch.no_grad()
    def start(self, batch: Batch) -> None:
        """Keeps the labelled samples. Raises BadInput where a class has too few."""
        super().start(batch)
        if self.label not in batch.c:
            raise BadInput(f"the data has no label {self.label!r}; it has: {', '.join(batch.c) or 'none'}")
        each = len(self.labelled_y) // len(self.classes)
        for k, name in enumerate(self.classes):
            rows = (batch.c[self.label] == k).nonzero().flatten()[:each]
            if len(rows) < each:
                raise BadInput(
                    f"{each} labelled samples of each class are asked for; {name!r} has {len(rows)} of the {len(batch.x)} looked at"
                )
            self.labelled_x[k * each : (k + 1) * each] = batch.x[rows]

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        x = self.moved(batch.x)
        z = self.prior(len(x), {})
        code, fake = self.draw(x, {}), self.G(z, {}).float()
        q, p = self.pairs((x, code), (fake, z), {})
        terms = {"game": self.game.d(self.realness(q), self.realness(p)), "class": self.class_weight * self.misnamed(len(x))}
        if (self.r1 or self.r2) and step % self.lazy == 0:
            terms |= self.penalties((x, code), (fake, z), {})
        ours = {"game": swapped(self.game, self.realness(q), self.realness(p))}
        if self.cycle:
            ours["cycle"] = self.cycle / math.prod(self.shape) * squared_error(self.G(code, {}).float(), x)
        yield {"D": terms, "G": ours}

    def misnamed(self, n: int) -> Tensor:
        """Cross-entropy (n,) of n of the labelled samples, drawn with replacement."""
        rows = (self.noise.uniform(n) * len(self.labelled_y)).long().to(self.device)
        x = self.moved(self.labelled_x[rows])
        return F.cross_entropy(self.D(x, self.draw(x, {}).detach(), {}), self.labelled_y[rows], reduction="none")

    def moved(self, x: Tensor) -> Tensor:
        """Pictures moved by whole pixels, each by its own draw."""
        if not self.shift or x.dim() != 4:
            return x
        across, down = ((self.noise.uniform(len(x), 2) * (2 * self.shift + 1)).long().to(x.device)).unbind(1)
        return moved(x, down, across, self.shift)

    def classify(self, x: Tensor) -> Tensor:
        """Logits (b, K) of the pair (x, mu(x))."""
        return self.D(x, self.encode(x, {}), {})


def only_label(schema: Schema) -> tuple[str, tuple[str, ...]]:
    """The name and the classes of the one Label. Raises BadInput where there is none, or more than one."""
    found = [(name, c.names) for name, c in schema.items() if isinstance(c, Label)]
    if len(found) != 1:
        unread = ", ".join(name for name in schema if name not in dict(found)) or "nothing"
        labels = ", ".join(name for name, _ in found) or "none"
        raise BadInput(f"semiali learns exactly one label, the data has {labels}; besides it has {unread}: leave it out (--conditions)")
    return found[0]


PRESETS = {
    "semiali-digits": Run(
        model="semiali.SemiALI",
        data="digits",
        options={"labelled": 50, "z_dim": 16, "width": 32, "r1": 0.2, "r2": 0.2},
        optimizers={"*": Optimizer(lr=1e-3, betas=(0.0, 0.99), schedule="late")},
        steps=4000,
        half_life_images=10_000,
        source="section 4.3 at the size of the embedded set",
    ),
    "semiali-mnist": Run(
        model="semiali.SemiALI",
        data="mnist",
        options={"labelled": 100, "z_dim": 64, "width": 16, "r1": 1.0, "r2": 1.0, "lazy": 4, "shift": 2},
        optimizers={"*": Optimizer(lr=5e-4, betas=(0.0, 0.99), schedule="late")},
        steps=3000,
        half_life_images=20_000,
        metrics=("semi_supervised_error", "reconstruction_ratio", "label_kept", "frechet"),
        source="section 4.3 with 100 labels, the house's nets",
    ),
}
