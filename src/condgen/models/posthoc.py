"""Inference after the fact: a generator learns as in a GAN and never hears of the encoder that learns to read it.

    "regression":   min_E E_z|z - E(G(z))|^2                      the learned inverse mapping
    "adversarial":  ALI's game (1) of pairs, in which the decoder does not move: post-hoc learned inference

The two baselines of Dumoulin et al. 2016, arXiv 1606.00704, section 2.6, to which ALI's joint training is compared. There the generator is
frozen before the encoder begins. Here both learn side by side and no gradient passes from encoder to generator: the encoder ends on the
same footing, against the final generator, in one run.
"""

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor, nn

from condgen.conditions import Schema
from condgen.data.store import Batch
from condgen.errors import unknown
from condgen.model import Optimizer, Run, Shape, Turn
from condgen.models.ali import ALI
from condgen.models.gan import pair
from condgen.objectives.games import swapped
from condgen.objectives.penalties import squared_gradient
from condgen.objectives.reconstruction import squared_error


class PostHoc(ALI):
    """A GAN (G against D, on samples) and an encoder E of its samples (against C, on pairs); no conditions.

    Args:
        shape: of a sample; pictures in [-1, 1].
        schema: ignored.
        inference: "regression" or "adversarial".
        z_dim, width, game, r1, r2, lazy, posterior: as in `ali`; the penalties are of D on samples, and of C on pairs.
    """

    critics = ("D", "C")

    def __init__(
        self,
        shape: Shape,
        schema: Schema | None = None,
        inference: str = "regression",
        z_dim: int = 64,
        width: int = 32,
        game: str = "non_saturating",
        r1: float = 0.0,
        r2: float = 0.0,
        lazy: int = 1,
        posterior: str = "gaussian",
    ):
        super().__init__(shape, {}, z_dim, width, game, r1, r2, lazy, posterior=posterior)
        if inference not in ("regression", "adversarial"):
            raise unknown("inference", inference, ["regression", "adversarial"])
        self.inference = inference
        self.C, (_, self.D) = self.D, pair(self.shape, {}, z_dim, width)
        if inference == "regression":
            del self.C

    @property
    def pair_critic(self) -> nn.Module:
        return self.C

    def players(self) -> dict[str, list[nn.Module]]:
        players: dict[str, list[nn.Module]] = {"D": [self.D], "G": [self.G], "E": [self.E]}
        return players | ({"C": [self.C]} if self.inference == "adversarial" else {})

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        x = batch.x
        z = self.prior(len(x), {})
        fake = self.G(z, {}).float()
        yield {
            "D": self.against(x, fake.detach(), step),
            "G": {"game": self._passing(fake, x)},
            **self.inferring(x, fake.detach(), z, step),
        }

    def against(self, x: Tensor, fake: Tensor, step: int) -> dict[str, Tensor]:
        """D's loss on samples."""
        due = (self.r1 or self.r2) and step % self.lazy == 0
        if due:
            x, fake = x.detach().requires_grad_(), fake.requires_grad_()
        real_logit, fake_logit = self.D(x, {})[:, 0], self.D(fake, {})[:, 0]
        terms = {"game": self.game.d(real_logit, fake_logit)}
        for name, gamma, logit, at in (("r1", self.r1, real_logit, x), ("r2", self.r2, fake_logit, fake)):
            if due and gamma:
                terms[name] = self.lazy * gamma / 2 * squared_gradient(logit, at)
        return terms

    def _passing(self, fake: Tensor, x: Tensor) -> Tensor:
        real = self.D(x, {})[:, 0] if self.game.paired else None
        return self.game.g(self.D(fake, {})[:, 0], real)

    def inferring(self, x: Tensor, fake: Tensor, z: Tensor, step: int) -> Turn:
        """The encoder's turn, and that of its critic."""
        if self.inference == "regression":
            return {"E": {"regression": squared_error(self.draw(fake, {}) if self.noise_dim else self.moments(fake, {})[0], z)}}
        code = self.draw(x, {})
        q, p = self.pairs((x, code), (fake, z), {})
        terms = {"game": self.game.d(q[:, 0], p[:, 0])}
        if (self.r1 or self.r2) and step % self.lazy == 0:
            terms |= self.penalties((x, code), (fake, z), {})
        return {"E": {"game": swapped(self.game, q[:, 0], p[:, 0])}, "C": terms}


_TOY = Run(
    model="posthoc.PostHoc",
    data="mixture2d",
    options={"z_dim": 2, "width": 64, "game": "relativistic", "r1": 0.02, "r2": 0.02, "posterior": "noise"},
    optimizers={"*": Optimizer(lr=1e-3, betas=(0.5, 0.99), schedule="late")},
    batch=256,
    steps=30_000,
    half_life_images=100_000,
    precision="32",
    metrics=("modes", "high_quality", "same_mode_reconstruction"),
    source="section 2.6: the learned inverse mapping",
)

PRESETS = {
    "posthoc-mixture2d": _TOY,
    "posthoc-mixture2d-adversarial": replace(
        _TOY, options=_TOY.options | {"inference": "adversarial"}, source="section 2.6: post-hoc learned inference"
    ),
}
