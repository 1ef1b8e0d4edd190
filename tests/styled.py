"""Small style-based models whose styles and noise matter before any training, for the tests of what is done with them."""

from typing import Any

import torch

from condgen.conditions import Label, Schema, Values
from condgen.models.alae import StyleALAE
from condgen.models.stylegan import StyleGAN
from condgen.styled import Styled

DIGIT = Label(tuple("0123456789"))


def styled(cls: type[Styled] = StyleGAN, schema: Schema | None = None, side: int = 16, channels: int = 1, **options: Any) -> Any:
    """Of layers of 4, 4, 8, 8, ... px, in eval mode; its weights are moved off what they begin at, where noise is let in by 0."""
    torch.manual_seed(0)
    options |= {"picture_gain": 1.0} if cls is StyleALAE else {}
    model = cls((channels, side, side), schema or {}, z_dim=6, width=4, widest=8, depth=2, **options)
    with torch.no_grad():
        for weight in model.G.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
        model.w_mean.copy_(model.mapping(torch.randn(500, 6), {k: v[:1].expand(500, *v.shape[1:]) for k, v in model.rows.items()}).mean(0))
    return model.eval().requires_grad_(False)


def rows_of(model: Styled, n: int) -> Values:
    """Conditions of n rows, the labels in turn."""
    return {k: torch.arange(n) % 10 for k in model.schema}
