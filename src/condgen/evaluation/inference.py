"""Whether an encoder undoes its decoder: `reconstruction_ratio`, `label_kept`, `semi_supervised_error`, `latent_marginal`.

    reconstruction_ratio = mean |x - G(E(x))| / mean |x' - G(E(x))|,   x' another test row
        Donahue et al. 2016, arXiv 1605.09782; "EGr" and "EGr_b" of the released code. 1 for reconstructions that have nothing to do with x
    label_kept: share of test pictures whose reconstruction the judge gives the picture's own label
    semi_supervised_error: share of test rows that the model's own classifier names wrongly
    latent_marginal: Kolmogorov-Smirnov distance of E(x) and the prior, of each dimension, averaged

Nothing in a game of pairs asks for faithful reconstructions, so what they keep must be measured: distances first, and then what a person
would look for, which is whether a seven is still a seven.
"""

import torch
from torch import Generator, Tensor

from condgen.conditions import Label
from condgen.editing.space import Space, require
from condgen.errors import BadInput
from condgen.evaluation.measuring import Measured, Measuring
from condgen.evaluation.probes import drawn_latents, given, label_of
from condgen.model import Model

FROM_MODEL = "control=untrained model"


def reconstruction_ratio(m: Measuring) -> Measured:
    """The ratio of the module's head, over test rows."""
    value, control = (ratio_of(m.real.x, _reconstructed(m, model), m.seed) for model in (m.model, m.untrained))
    about = f"reconstruction_ratio|L2|n={len(m.real.x)} test|f64|v1{given(m.model)}|ceiling=the row itself|{FROM_MODEL}"
    return Measured(value, 0.0, control, len(m.real.x), about)


def _reconstructed(m: Measuring, model: Model) -> Tensor:
    require(model, "encode", "decode")
    return Space(model).reconstruct(m.real.x, m.real_conditions)


def ratio_of(x: Tensor, back: Tensor, seed: int = 0) -> float:
    """Mean distance of back (n, ...) from its own x (n, ...), over that from another's. Raises BadInput where there is no other."""
    order = torch.randperm(len(x), generator=Generator().manual_seed(seed))
    other = torch.empty_like(order)
    other[order] = order.roll(1)  # one cycle: nobody meets itself
    own, wrong = (float((rows.double() - back.double()).flatten(1).norm(dim=1).mean()) for rows in (x, x[other]))
    if len(x) < 2 or not wrong > 0:
        raise BadInput(f"{len(x)} rows, all of them equal to their reconstructions' neighbours: there is no other to be far from")
    return own / wrong


def label_kept(m: Measuring) -> Measured:
    """The share of the module's head; an encoder that reads conditions is given those of the picture."""
    name, x = label_of(m, "label_kept"), m.real.x
    value, ceiling, control = (_named(m, name, of) for of in (_reconstructed(m, m.model), x, _reconstructed(m, m.untrained)))
    about = f"label_kept|{m.judge.id}|label={name}|n={len(x)} test|v1{given(m.model)}|ceiling=the pictures themselves|{FROM_MODEL}"
    return Measured(value, ceiling, control, len(x), about, _standard_error(value, len(x)))


def _named(m: Measuring, name: str, x: Tensor) -> float:
    """Share of rows, in the test rows' order, that the judge names as those."""
    return float((m.judge.predict(x, name) == m.real.c[name]).double().mean())


def semi_supervised_error(m: Measuring) -> Measured:
    """Of `model.classify`, on test rows."""
    name = m.label or label_of(m, "semi_supervised_error")
    value, control = (_misnamed(m, model, name) for model in (m.model, m.untrained))
    about = f"semi_supervised_error|label={name}|n={len(m.real.x)} test|v1|ceiling=the judge, trained on all labels|{FROM_MODEL}"
    return Measured(value, 1 - m.judge.accuracy[name], control, len(m.real.x), about, _standard_error(value, len(m.real.x)))


@torch.no_grad()
def _misnamed(m: Measuring, model: Model, name: str, chunk: int = 500) -> float:
    was, condition = model.training, m.test.schema[name]
    model.eval()
    try:
        logits = torch.cat([model.classify(part.to(model.device)).float().cpu() for part in m.real.x.split(chunk)])  # type: ignore[operator]
    finally:
        model.train(was)
    if not isinstance(condition, Label) or logits.shape != (len(m.real.x), len(condition.names)):
        raise BadInput(f"the model's classes are {tuple(logits.shape)[1:]}, the data's {name!r} is {condition}")
    return float((logits.argmax(1) != m.real.c[name]).double().mean())


def _standard_error(share: float, n: int) -> float:
    return (share * (1 - share) / n) ** 0.5


def latent_marginal(m: Measuring) -> Measured:
    """Mean over dimensions of the distance of the module's head; for an encoder that is a distribution, of its mean."""
    require(m.model, "encode", "sample")
    prior = drawn_latents(m, m.model)
    value, control = (_to_prior(Space(model).encode(m.real.x, m.real_conditions), prior) for model in (m.model, m.untrained))
    again = drawn_latents(m, m.model, another=True)
    about = f"latent_marginal|Kolmogorov-Smirnov, mean over dimensions|n={len(prior)}/{len(prior)}|f64|v1{given(m.model)}"
    return Measured(value, _to_prior(again, prior), control, len(prior), f"{about}|ceiling=another draw of the prior|{FROM_MODEL}")


def _to_prior(z: Tensor, prior: Tensor) -> float:
    return float(ks_distances(z.flatten(1), prior.flatten(1)).mean())


def ks_distances(x: Tensor, y: Tensor) -> Tensor:
    """The largest difference of the distribution functions of (n, d) and (m, d), of each dimension: float64 (d,), in [0, 1].

    >>> ks_distances(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5], [2.0]]))
    tensor([0.5000], dtype=torch.float64)
    """
    a, b = (v.double().T.contiguous().sort().values for v in (x, y))
    both = torch.cat([a, b], 1)
    below = [torch.searchsorted(v, both, right=True).double() / v.shape[1] for v in (a, b)]
    return (below[0] - below[1]).abs().amax(1)
