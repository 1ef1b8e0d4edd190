"""The table of metrics: what each measures, what it needs of a model, and whether more is better.

A metric with parts is a *family*: `ms_ssim` is its mean over classes, `ms_ssim/7` that of class 7. METRICS, presets and
commands name the whole; a result holds the parts as well. How all are measured is told in `protocols`.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from condgen.conditions import Attributes, Vector
from condgen.errors import BadInput, unknown
from condgen.evaluation.attributes import attribute_auc
from condgen.evaluation.correlation import condition_correlation
from condgen.evaluation.diversity import ratio, within
from condgen.evaluation.edits import edit_success, z_mse
from condgen.evaluation.effect import attribute_effect
from condgen.evaluation.feature_distances import frechet_on_net, kernel_on_net
from condgen.evaluation.frechet import frechet_of_features, kernel
from condgen.evaluation.gcn import parzen_gcn
from condgen.evaluation.inference import label_kept, latent_marginal, reconstruction_ratio, semi_supervised_error
from condgen.evaluation.layers import noise_effect, style_factors
from condgen.evaluation.likelihood import binarised, elbo, nll_iwae, parzen
from condgen.evaluation.measuring import Family, K, Measured, Measuring
from condgen.evaluation.memorisation import memorisation_ratio
from condgen.evaluation.mixing import mixing_damage
from condgen.evaluation.modes import high_quality, modes, same_mode_reconstruction
from condgen.evaluation.path_length import path_length_w, path_length_z
from condgen.evaluation.probes import linear_probe, one_nn
from condgen.evaluation.reciprocity import class_entropy, latent_cycle, reconstruction_frechet
from condgen.evaluation.recognition import one_shot_metric, retrieval_map
from condgen.evaluation.reconstruction import latent_of, pca_error, reconstruction_errors
from condgen.evaluation.resolution import discriminability
from condgen.evaluation.same_scene import mask_iou, paired_gain
from condgen.evaluation.separability import separability_w, separability_z
from condgen.evaluation.ssim import likeness, likeness_of_real
from condgen.evaluation.svm import svm_error
from condgen.evaluation.textures import texture_auc
from condgen.evaluation.translation import cycle_l1, domain_accuracy
from condgen.model import Model, capabilities

CLASSWISE = "classes evenly|ceiling=test rows|control=labels shuffled"
"""Ends the provenance of what the judge says class by class."""


@dataclass(frozen=True)
class Metric:
    """One row of the table of metrics.

    Args:
        measure: of the context of one evaluation; a family answers with name -> Measured, its own name first.
        needs: the capability that the model must have; of several between bars, one, of several between ampersands, all.
        about: one line, for people.
        higher: whether more is better.
        near: the best value, where neither more nor less is better.
        label: whether the model must read a Label.
        numbers: whether it must read Attributes or a Vector.
        attributes: whether it must read Attributes.
        pictures: whether the samples must be pictures.
        points: whether they must be points.
        asked_only: whether it is measured only where a run or a person names it.
        opposite: parts of which less is better where more of the whole is, or the reverse.
    """

    measure: Callable[[Measuring], Measured | Family]
    needs: str
    about: str
    higher: bool = True
    near: float | None = None
    label: bool = False
    numbers: bool = False
    attributes: bool = False
    pictures: bool = False
    points: bool = False
    asked_only: bool = False
    opposite: tuple[str, ...] = ()

    def refusal(self, model: Model) -> str | None:
        """Why this cannot be measured of a model, or None where it can."""
        has = set(capabilities(model))
        if not any(set(together.split("&")) <= has for together in self.needs.split("|")):
            return f"the model has no `{self.needs.replace('|', '` and no `').replace('&', '` or no `')}`"
        if self.label and not Measuring.labels_of(model.schema):
            return "the model reads no label"
        if self.numbers and not any(isinstance(c, Attributes | Vector) for c in model.schema.values()):
            return "the model reads no attributes and no vector"
        if self.attributes and not any(isinstance(c, Attributes) for c in model.schema.values()):
            return "the model reads no attributes"
        if self.points and len(model.shape) != 1:
            return "the samples are no points"
        return "the samples are no pictures" if self.pictures and len(model.shape) != 3 else None


def _class_consistency(m: Measuring) -> Measured:
    about = f"{m.on_judge('class_consistency')}|label={m.label}|judge accuracy={m.judge_accuracy:.4f}|{CLASSWISE}"
    return Measured.of((c.mean for c in m.three_consistencies), m.n, about)


def _class_consistency_worst(m: Measuring) -> Measured:
    value = m.three_consistencies[0]
    worst = min(value.by_class, key=lambda k: value.by_class[k])
    about = f"{m.on_judge('class_consistency_worst')}|label={m.label}|worst is {m.name_of(worst)!r}|{CLASSWISE}"
    return Measured.of((c.worst for c in m.three_consistencies), m.n, about)


def _diversity(m: Measuring) -> Measured:
    real, samples, groups = m.real.x, m.balanced, m.groups_asked
    of = f"within {m.label}" if m.label else "over all"
    about = f"diversity_ratio|pixels L2|{of}|n={m.n}/{len(real)}|f64|v1{_even(m)}|control=one real picture a class repeated"
    beside = within(real, m.groups(m.real.c, real))
    sets = ((samples, groups), (m.stand_in.x, m.groups(m.stand_in.c, m.stand_in.x)), (m.one_each(groups), groups))
    return Measured.of((ratio(within(x, g), beside) for x, g in sets), m.n, about)


def _whole(m: Measuring) -> str:
    """Ends the provenance of what compares whole distributions."""
    return ("|classes as in the test rows" if m.label else "") + "|ceiling=training rows|control=untrained model"


def _even(m: Measuring) -> str:
    """Where every class is asked as often."""
    return ("|classes evenly" if m.label else "") + "|ceiling=training rows"


def _frechet(m: Measuring) -> Measured:
    found = [frechet_of_features(m.real_features, f) for f in m.three_features]
    clamped = max(f.clamped for f in found)
    about = m.on_judge("frechet", m.real_features) + (f"|clamped={clamped:.1e}" if clamped > 1e-6 else "") + _whole(m)
    return Measured.of((f.value for f in found), m.n, about)


def _kernel(m: Measuring) -> Measured:
    found = [kernel(m.real_features, f) for f in m.three_features]
    return Measured.of(found, m.n, m.on_judge("kernel", m.real_features) + f"|cubic, unbiased, full set{_whole(m)}")


def _neighbour(name: str) -> Callable[[Measuring], Measured]:
    def measure(m: Measuring) -> Measured:
        about = m.on_judge(name, m.real_features) + f"|k={K}{_whole(m)}"
        return Measured.of((getattr(found, name) for found in m.three_neighbours), m.n, about)

    return measure


def _parzen(m: Measuring) -> Measured:
    """Breuleux's protocol as in Mirza 2014: pixels in [0, 1], the width by validation on the tail of the training data."""
    train, valid = m.parzen_parts()
    test = m.unit(m.real.x)
    value, ceiling, control = (parzen(m.unit(s), m.unit(valid), test) for s in (m.balanced, train, train.mean(0, keepdim=True)))
    about = f"parzen|pixels in [0,1]|n={m.n}/{len(test)}|sigma={value.sigma:.3f}, ceiling {ceiling.sigma:.3f}"
    about += f"|valid={len(valid)} of the train tail|f64|v1{_even(m)}|control=the mean picture alone"
    return Measured(value.mean, ceiling.mean, control.mean, m.n, about, value.standard_error)


def _bound(name: str, of: Callable[..., Tensor], draws: int, most: int) -> Callable[[Measuring], Measured]:
    def measure(m: Measuring) -> Measured:
        x, c = m.real.x[:most], {k: v[:most] for k, v in m.real_conditions.items()}
        x = binarised(x, m.seed) if is_binary(m.model) else x
        value = of(m.model, x, c, draws, m.seed)
        few = max(1, len(x) // 10)
        control = of(m.untrained, x[:few], {k: v[:few] for k, v in c.items()}, draws, m.seed)
        kind = "dynamically binarised" if is_binary(m.model) else "densities of x in [-1,1]"
        about = f"{name}|k={draws}|{kind}|n={len(x)} test|nats|v1|ceiling=none|control=untrained model, n={few}"
        return Measured(float(value.mean()), None, float(control.mean()), len(x), about, float(value.std() / len(x) ** 0.5))

    return measure


def _reconstruction(m: Measuring) -> Measured:
    """Mean squared error of decode(encode(x)) a pixel, in [0, 1], beside a projection on as many principal components."""
    z_dim = math.prod(latent_of(m.model, m.real.x[:1], m.real_conditions).shape[1:])
    error = reconstruction_errors(m.model, m.real.x, m.real_conditions)
    linear = pca_error(m.train, m.real.x, z_dim)
    about = f"reconstruction|mean squared error in [0,1]|n={len(error)} test|v1|ceiling=the picture itself|control=PCA, {z_dim} dimensions"
    return Measured(float(error.mean()), 0.0, linear, len(error), about)


def is_binary(model: Model) -> bool:
    """Whether the model's likelihood is of binary pictures, so that its bounds are measured on binarised ones."""
    kind = getattr(model, "likelihood", None)
    return getattr(kind, "kind", kind) == "bernoulli"


METRICS: dict[str, Metric] = {
    "class_consistency": Metric(_class_consistency, "sample", "share of samples in which the judge sees the class asked for", label=True),
    "class_consistency_worst": Metric(_class_consistency_worst, "sample", "the same of the worst class", label=True),
    "condition_correlation": Metric(
        condition_correlation, "sample", "correlation of the numbers asked for and those the judge reads off the samples", numbers=True
    ),
    "diversity_ratio": Metric(_diversity, "sample", "distance of two samples of one condition, over that of real ones", near=1.0),
    "ms_ssim": Metric(likeness, "sample", "likeness of two samples of one class, 1 where all are equal", higher=False, pictures=True),
    "memorisation_ratio": Metric(
        memorisation_ratio, "sample", "distance to the nearest training picture, over that of test pictures", near=1.0, pictures=True
    ),
    "frechet": Metric(_frechet, "sample", "Fréchet distance of the judge's features to real ones", higher=False),
    "kernel": Metric(_kernel, "sample", "kernel distance of the judge's features to real ones", higher=False),
    "precision": Metric(_neighbour("precision"), "sample", "share of samples near real ones"),
    "recall": Metric(_neighbour("recall"), "sample", "share of real ones near samples"),
    "density": Metric(_neighbour("density"), "sample", "how densely real ones surround a sample"),
    "coverage": Metric(_neighbour("coverage"), "sample", "share of real ones with a sample in their neighbourhood"),
    "parzen": Metric(_parzen, "sample", "test log-likelihood under a Parzen window of samples, nats", pictures=True),
    "elbo": Metric(_bound("elbo", elbo, 1, 10000), "log_weights", "lower bound of the test log-likelihood, nats"),
    "nll_iwae": Metric(
        _bound("nll_iwae", nll_iwae, 100, 2000), "log_weights", "upper bound of -log-likelihood by 100 draws, nats", higher=False
    ),
    "reconstruction": Metric(_reconstruction, "encode", "squared error of decode(encode(x)), pixels in [0, 1]", higher=False),
    "attribute_auc": Metric(attribute_auc, "encode", "how well products with attribute vectors tell who has what, area under ROC"),
    "discriminability": Metric(
        discriminability,
        "sample",
        "consistency lost when the samples' detail is; only where asked",
        label=True,
        pictures=True,
        asked_only=True,
    ),
    "ms_ssim_real": Metric(
        likeness_of_real, "sample", "`ms_ssim` of real pictures; only where asked", higher=False, pictures=True, asked_only=True
    ),
    "parzen_gcn": Metric(
        parzen_gcn,
        "sample",
        "minus the Parzen log-likelihood of contrast-normalised pictures, nats; only where asked",
        higher=False,
        pictures=True,
        asked_only=True,
    ),
    "attribute_effect": Metric(
        attribute_effect,
        "sample",
        "change that the judge sees, of the change asked of one attribute alone; only where asked",
        near=1.0,
        attributes=True,
        asked_only=True,
    ),
    "retrieval_map": Metric(
        retrieval_map,
        "features",
        "how early test pictures of the query's label come, by the model's features; only where asked",
        pictures=True,
        asked_only=True,
    ),
    "one_shot_accuracy": Metric(
        one_shot_metric,
        "features",
        "right answers in Omniglot's 20-way one-shot runs, by the model's features; only where asked",
        pictures=True,
        asked_only=True,
    ),
    "frechet_features": Metric(
        frechet_on_net, "sample", "`frechet` in the eyes of a feature net; only where asked", higher=False, pictures=True, asked_only=True
    ),
    "kernel_features": Metric(
        kernel_on_net, "sample", "`kernel` in the eyes of a feature net; only where asked", higher=False, pictures=True, asked_only=True
    ),
    "texture_auc": Metric(
        texture_auc,
        "features",
        "how well a feature net's Grams tell neighbouring squares from those of other pictures; only where asked",
        pictures=True,
        asked_only=True,
    ),
    "modes": Metric(modes, "sample", "modes of a known mixture with a sample of high quality", points=True, opposite=("modes/kl",)),
    "high_quality": Metric(high_quality, "sample", "share of samples within three sd of a mode of a known mixture", points=True),
    "same_mode_reconstruction": Metric(
        same_mode_reconstruction,
        "encode",
        "share of points that come back from encode and decode to their own mode",
        points=True,
        opposite=("same_mode_reconstruction/latent_spread",),
    ),
    "reconstruction_ratio": Metric(
        reconstruction_ratio, "encode", "distance to the own reconstruction, over that to another's", higher=False
    ),
    "label_kept": Metric(
        label_kept, "encode", "share of reconstructions in which the judge sees the picture's label; only where asked", asked_only=True
    ),
    "one_nn": Metric(one_nn, "encode|features", "label right by the nearest neighbour of E(x); only where asked", asked_only=True),
    "linear_probe": Metric(linear_probe, "encode|features", "label right by a linear model of E(x); only where asked", asked_only=True),
    "svm_error": Metric(
        svm_error, "encode|features", "error of an SVM on features, 100 labels a class; only where asked", higher=False, asked_only=True
    ),
    "semi_supervised_error": Metric(semi_supervised_error, "classify", "test error of the model's own classifier", higher=False),
    "latent_marginal": Metric(
        latent_marginal, "encode", "distance of E(x) from the prior, by dimension; only where asked", higher=False, asked_only=True
    ),
    "path_length_z": Metric(
        path_length_z,
        "synthesis",
        "change of pictures along ways between two z, in the judge's eyes; only where asked",
        higher=False,
        pictures=True,
        asked_only=True,
    ),
    "path_length_w": Metric(
        path_length_w, "synthesis", "the same between two w; only where asked", higher=False, pictures=True, asked_only=True
    ),
    "separability_z": Metric(
        separability_z, "synthesis", "how badly planes part z by what the judge sees; only where asked", higher=False, asked_only=True
    ),
    "separability_w": Metric(separability_w, "synthesis", "the same of w; only where asked", higher=False, asked_only=True),
    "mixing_damage": Metric(
        mixing_damage, "synthesis", "Fréchet distance that two latents in one picture add; only where asked", higher=False, asked_only=True
    ),
    "latent_cycle": Metric(
        latent_cycle,
        "encode&synthesis",
        "squared error of E(G(w)), over the variance of w; only where asked",
        higher=False,
        asked_only=True,
        opposite=("latent_cycle/variance",),
    ),
    "reconstruction_frechet": Metric(
        reconstruction_frechet,
        "encode",
        "Fréchet distance of reconstructions to real ones; only where asked",
        higher=False,
        asked_only=True,
    ),
    "class_entropy": Metric(
        class_entropy, "sample", "entropy of the classes that the judge sees in samples, nats; only where asked", asked_only=True
    ),
    "edit_success": Metric(edit_success, "edit", "share of edited test pictures in which the judge sees what was asked for"),
    "z_mse": Metric(z_mse, "edit", "how far latents are moved to obey, in squared deviations of the encoder", higher=False),
    "style_factors": Metric(
        style_factors,
        "synthesis",
        "how much of the pose follows the source of the coarse layers, R^2; parts for shape, colour and other layers; only where asked",
        pictures=True,
        asked_only=True,
        opposite=tuple(f"style_factors/{part}" for part in ("coarse:colour", "fine:pose", "fine:shape")),
    ),
    "noise_effect": Metric(
        noise_effect,
        "synthesis",
        "share of what noise changes that is fine detail; its parts: how far it moves pose and colours; only where asked",
        pictures=True,
        asked_only=True,
        opposite=("noise_effect/factors", "noise_effect/variance"),
    ),
    "domain_accuracy": Metric(
        domain_accuracy, "translate", "share of translated pictures, and of their objects alone, that are taken for the asked domain"
    ),
    "cycle_l1": Metric(cycle_l1, "translate", "difference of a picture and what comes back of it, pixels in [0, 1]", higher=False),
    "paired_gain": Metric(
        paired_gain,
        "translate",
        "how much nearer translation comes to the same scene in the other domain, where the data have it",
        opposite=("paired_gain/l1", "paired_gain/still", "paired_gain/tint"),
    ),
    "mask_iou": Metric(
        mask_iou, "translate", "overlap of the object's mask and that seen in the translated picture, where the data have it"
    ),
}


def metric_of(name: str) -> Metric | None:
    """The row of METRICS that a name in a result belongs to: `ms_ssim/7` to `ms_ssim`; None for a name of another version."""
    metric = METRICS.get(name.split("/", 1)[0])
    return replace(metric, higher=not metric.higher) if metric and name in metric.opposite else metric


def chosen(model: Model, asked: Iterable[str] | None) -> list[str]:
    """The metrics that were asked for, each one possible; or all that the model allows and that need no asking. Raises BadInput."""
    names = list(asked or ())
    for name in names:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
        if why := METRICS[name].refusal(model):
            raise BadInput(f"{name} cannot be measured: {why}")
    return names or [name for name, metric in METRICS.items() if not (metric.asked_only or metric.refusal(model))]
