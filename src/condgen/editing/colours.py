"""Whose colours a stylised picture has: the style's, or those of the photograph.

    keep     Y is transferred from Y, I and Q stay the content's; Y of the style has the content's mean and deviation
    match    the style is recoloured first:  s' = A (s - mean_s) + mean_c,   A = cov_c^1/2 cov_s^-1/2

Y, I, Q are those of NTSC. Gatys, Bethge, Hertzmann & Shechtman 2016, arXiv 1606.05897: luminance-only transfer, and colour
histogram matching in the form of image analogies, symmetric roots. Rows of I and Q sum to 0, so that adding one number to R, G and B
moves Y by that number and leaves both: no matrix has to be inverted.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from condgen.errors import BadInput, unknown

COLOURS = {
    "style": "those of the style",
    "match": "those of the content: the style is recoloured before it is transferred",
    "keep": "those of the content: its luminance alone is painted",
}
LUMA = (0.299, 0.587, 0.114)
FLAT = 1e-6
"""Variance, of pixels in [-1, 1], below which a direction of colour counts as absent: a grey style gets no colour from its noise."""


def luminance(x: Tensor) -> Tensor:
    """Y (b, 1, h, w) of pictures (b, 3, h, w), in their range."""
    return (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def with_luminance(x: Tensor, y: Tensor) -> Tensor:
    """The colours (I and Q) of x (b, 3, h, w) under the luminance y (b, 1, h, w); it may leave [-1, 1]."""
    return x + (y - luminance(x))


def gray(x: Tensor) -> Tensor:
    """Pictures (b, 3, h, w) without their colours."""
    return luminance(x).expand_as(x).contiguous()


def relit(style: Tensor, content: Tensor) -> Tensor:
    """The style's luminance with the content's mean and deviation, three equal channels (1, 3, h, w)."""
    s, c = luminance(style), luminance(content)
    gain = c.std(correction=0) / s.std(correction=0).clamp(min=FLAT**0.5)
    return ((s - s.mean()) * gain + c.mean()).expand_as(style).contiguous()


def matched(style: Tensor, content: Tensor) -> Tensor:
    """The style with the mean and the covariance of the content's colours, (1, 3, h, w); it may leave [-1, 1]."""
    s, c = _pixels(style), _pixels(content)
    change = _root(_covariance(c), 0.5) @ _root(_covariance(s), -0.5)
    return ((s - s.mean(1, keepdim=True)).T @ change.T).T.add(c.mean(1, keepdim=True)).view(style.shape).to(style)


def _pixels(x: Tensor) -> Tensor:
    return x[0].flatten(1).double()


def _covariance(pixels: Tensor) -> Tensor:
    return torch.cov(pixels, correction=0)


def _root(covariance: Tensor, power: float) -> Tensor:
    """A symmetric power; directions without variance stay without."""
    values, vectors = torch.linalg.eigh(covariance)
    powers = torch.where(values > FLAT, values.clamp(min=FLAT) ** power, 0.0)
    return vectors @ torch.diag(powers) @ vectors.T


def prepared(content: Tensor, styles: Sequence[Tensor], colours: str) -> tuple[Tensor, list[Tensor]]:
    """The pictures that are descended to: content (1, 3, h, w) and styles (1, 3, h', w').

    Raises:
        BadInput: for colours that are no key of `COLOURS`.
    """
    if colours not in COLOURS:
        raise unknown("colours", colours, COLOURS)
    if colours == "keep":
        return gray(content), [relit(s, content) for s in styles]
    return content, [matched(s, content) if colours == "match" else s for s in styles]


def finished(x: Tensor, content: Tensor, colours: str) -> Tensor:
    """What a person gets of a descended picture x (1, 3, h, w): in [-1, 1], with the colours of the content where these are kept."""
    if x.shape != content.shape:
        raise BadInput(f"a picture of shape {tuple(x.shape)} for a content of {tuple(content.shape)}; expected the same")
    return (with_luminance(content, luminance(x)) if colours == "keep" else x).clamp(-1, 1)
