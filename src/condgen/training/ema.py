"""A moving average of the weights, by half-life in samples."""

import torch
from torch import Tensor

from condgen.model import Model

RAMP_UP = 0.05
"""Early on, the half-life is at most this share of the samples seen, so that the average forgets the initial weights."""


def kept(model: Model) -> dict[str, Tensor]:
    """The tensors that leave a run: all but the critics'."""
    return {k: v for k, v in model.state_dict().items() if k.split(".")[0] not in model.critics}


def decay(batch: int, half_life_images: float, images_seen: int) -> float:
    """What remains of the average after one step: 0.5^(batch / half-life)."""
    return 0.5 ** (batch / min(half_life_images, max(RAMP_UP * images_seen, 1e-8)))


class EMA:
    """Averages of a model's floating tensors outside its critics; other tensors are copied."""

    def __init__(self, model: Model, half_life_images: float):
        self.model, self.half_life_images = model, half_life_images
        self.tensors = {k: v.clone() for k, v in kept(model).items()}

    @torch.no_grad()
    def update(self, batch: int, images_seen: int) -> None:
        """Move towards the model's weights, after a step of `batch` samples that brought the total to `images_seen`."""
        live = kept(self.model)
        still = self.model.unaveraged
        floating = [k for k, v in live.items() if v.is_floating_point() and k.split(".")[0] not in still]
        weight = 1 - decay(batch, self.half_life_images, images_seen)
        torch._foreach_lerp_([self.tensors[k] for k in floating], [live[k] for k in floating], weight)
        for k in live.keys() - set(floating):
            self.tensors[k].copy_(live[k])

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the averages and the model's weights; a second call undoes it."""
        for k, v in kept(self.model).items():
            held = v.clone()
            v.copy_(self.tensors[k])
            self.tensors[k].copy_(held)
