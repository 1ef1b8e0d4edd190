"""A style-based model at work: z to w and w to pictures, in chunks, in eval mode, without gradients.

Truncation is off, as in all of the papers' measures, and the noise is the model's own, the same in every picture.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from condgen.conditions import Values
from condgen.editing.space import Space, at_rest, require
from condgen.errors import BadInput
from condgen.evaluation.measuring import Measuring
from condgen.model import Model


class AtRest:
    """`mapping` and `synthesis` of a model; answers lie on the CPU.

    Args:
        model: with the capability "synthesis"; it is not changed.
        dtype: float32 works on the model itself, float64 on a copy, in which every layer computes in float64.
        chunk: samples at once, to bound memory.

    Raises:
        BadInput: for a model without styles.
    """

    def __init__(self, model: Model, dtype: torch.dtype = torch.float32, chunk: int = 250):
        require(model, "synthesis")
        self.model: Any = model if dtype == torch.float32 else _twin(model, dtype)
        self.space, self.dtype, self.chunk = Space(self.model), dtype, chunk

    def latents(self, n: int, seed: int, sets: int = 1) -> list[Tensor]:
        """`sets` independent draws of the prior of z, each (n, z_dim)."""
        self.model.noise.seed(seed)
        return [self.model.z_prior(n).to("cpu", self.dtype) for _ in range(sets)]

    def mapping(self, z: Tensor, c: Values) -> Tensor:
        """w (n, w_dim) of z (n, z_dim) under conditions (n, ...)."""
        given = self.space.conditions(c, len(z))
        return self._in_chunks(z, lambda part, rows: self.model.mapping(part, {k: self._there(v[rows]) for k, v in given.items()}))

    def noise(self, n: int, seed: int) -> list[Tensor]:
        """Fresh noise of n samples, (n, 1, h, w) for each layer; [] where there is none."""
        with at_rest(self.model):
            self.model.noise.seed(seed)
            return [layer.to("cpu", self.dtype) for layer in self.model.draw_noise(n)]

    def draw(self, w: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Pictures (n, *shape) of w (n, w_dim) or (n, layers, w_dim), without bounds.

        Args:
            w: what is drawn.
            noise: (n, 1, h, w) for each layer; None for the model's own.

        Raises:
            BadInput: where a picture is not finite.
        """

        def drawn(part: Tensor, rows: Tensor) -> Tensor:
            some = None if noise is None else [self._there(layer[rows]) for layer in noise]
            x: Tensor = self.model.synthesis(part, some)
            return x

        found = self._in_chunks(w, drawn)
        if not bool(found.isfinite().all()):
            raise BadInput("the model draws values that are not finite numbers; train it again, or choose an earlier checkpoint")
        return found

    def samples(self, w: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """As `draw`, brought to [-1, 1] where they are pictures: what a person sees."""
        x = self.draw(w, noise)
        return x.clamp(-1, 1) if len(self.model.shape) == 3 else x

    def _in_chunks(self, x: Tensor, of: Any) -> Tensor:
        with at_rest(self.model):
            parts = [of(self._there(x[rows]), rows).cpu().to(self.dtype) for rows in torch.arange(len(x)).split(self.chunk)]
        return torch.cat(parts)

    def _there(self, x: Tensor) -> Tensor:
        return x.to(self.model.device, self.dtype if x.is_floating_point() else x.dtype)


def _twin(model: Model, dtype: torch.dtype) -> Model:
    """A copy of this type that shares nothing."""
    twin = copy.deepcopy(model)
    for module in twin.to(dtype).modules():  # nets here and there say float32: so each layer is given what its weights are
        module.register_forward_pre_hook(lambda _, args: tuple(_finer(a, dtype) for a in args))
    return twin


def _finer(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def conditions_of(m: Measuring, n: int) -> Values:
    """Conditions of n samples, as frequent as in the test rows."""
    return {name: v[torch.arange(n) % len(v)] for name, v in m.naturally.items()}
