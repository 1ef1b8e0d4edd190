"""A model's latent space, as the editors see it: pictures in, pictures out, and a plain word where the model has no such door."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from condgen.conditions import Values
from condgen.errors import BadInput
from condgen.model import Model, capabilities

REMEDIES = {
    "encode": "models with an encoder are ae, vae, cvae, ali, bigan, alae; for a generator alone, `invert` finds latents by descent",
    "decode": "choose a model that makes samples of latents",
    "synthesis": "models with styles are stylegan and alae",
    "translate": "a model that translates is cyclegan",
}


def require(model: Model, *needed: str, why: str = "") -> None:
    """Raises BadInput naming the first capability that the model lacks, with a remedy; `why` says before it who needs it."""
    has = capabilities(model)
    for name in needed:
        if name not in has:
            remedy = f"; {REMEDIES[name]}" if name in REMEDIES else ""
            raise BadInput(f"{why}{': ' if why else ''}{type(model).__name__} has no `{name}` (it has: {', '.join(has) or 'none'}){remedy}")


@contextlib.contextmanager
def at_rest(model: Model) -> Iterator[None]:
    """In eval mode and without gradients; the mode is put back afterwards."""
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was)


class Space:
    """Encode and decode in chunks, in eval mode, without gradients; what comes out is float32 on the CPU.

    Args:
        model: trained.
        chunk: samples at once, to bound memory.
    """

    def __init__(self, model: Model, chunk: int = 250):
        self.model, self.chunk = model, chunk

    def encode(self, x: Tensor, c: Values | None = None) -> Tensor:
        """The latents (n, ...) of samples (n, *shape). Raises BadInput where the model has no encoder, or for samples of another shape."""
        require(self.model, "encode")
        if tuple(x.shape[1:]) != tuple(self.model.shape):
            raise BadInput(f"samples of shape {tuple(x.shape[1:])} for a model of {tuple(self.model.shape)}")
        return self._in_chunks("encode", x, c)

    def decode(self, z: Tensor, c: Values | None = None) -> Tensor:
        """Samples (n, *shape) of latents (n, ...). Raises BadInput where the model has no decoder."""
        require(self.model, "decode")
        return self._in_chunks("decode", z, c)

    def reconstruct(self, x: Tensor, c: Values | None = None) -> Tensor:
        return self.decode(self.encode(x, c), c)

    def _in_chunks(self, method: str, x: Tensor, c: Values | None) -> Tensor:
        model: Any = self.model
        given, parts = self.conditions(c, len(x)), []
        with at_rest(model):
            for i in range(0, len(x), self.chunk):
                some = slice(i, i + self.chunk)
                values = {k: v[some].to(model.device) for k, v in given.items()}
                parts.append(getattr(model, method)(x[some].to(model.device), values).float().cpu())
        return torch.cat(parts)

    def conditions(self, c: Values | None, n: int) -> Values:
        """Those that the model reads, a row a sample; one row serves all. Raises BadInput where one is missing or of another length."""
        given = {}
        for name in self.model.schema:
            if c is None or name not in c:
                raise BadInput(f"{type(self.model).__name__} reads {name!r}: say what it is (--set {name}=...)")
            value = c[name].expand(n, *c[name].shape[1:]) if len(c[name]) == 1 else c[name]
            if len(value) != n:
                raise BadInput(f"{len(value)} values of {name!r} for {n} samples")
            given[name] = value
        return given
