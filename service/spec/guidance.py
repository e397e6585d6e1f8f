"""Combinations that the literature advises against, as warnings in the response to a submit; nothing is refused."""

from __future__ import annotations

from service.spec.domain import Choices, Domain, Fixed, PerLayer, Range, Scalar, can_leave
from service.spec.study import StudySpec

_SMALL_BATCH = 16
_ACTIVATION_NORMS = {"batch", "layer", "group"}


def warnings_for(spec: StudySpec) -> list[str]:
    """One sentence, with its source, for each doubtful combination in the space."""
    domains = spec.domains
    found = []
    batch_norm = "batch" in _values(domains["normalization"])
    if batch_norm and _smallest(domains["batch_size"]) <= _SMALL_BATCH:
        found.append(
            f"Batch normalization with batches of {_SMALL_BATCH} or fewer has noisy statistics; group or layer "
            "normalization does not (Wu and He, Group Normalization, ECCV 2018)."
        )
    if batch_norm and _can_be_on(domains["dropout"]):
        found.append(
            "Dropout together with batch normalization changes variances between training and test, and is often worse than "
            "either alone (Li et al., Understanding the Disharmony between Dropout and Batch Normalization, CVPR 2019)."
        )
    if _can_be_on(domains["l2"]) and set(_values(domains["optimizer"])) - {"sgd"}:
        found.append(
            "With an adaptive optimizer, an L2 penalty has little effect on weights with large gradients; weight_decay is "
            "decoupled from them (Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019)."
        )
    if batch_norm and "gru" in _values(domains["cell"]) and spec.model.word == "sequence":
        found.append(
            "Batch normalization averages over the steps of a series, whose statistics change along it in a recurrent "
            "network; layer normalization does not (Ba et al., Layer Normalization, 2016; Laurent et al., Batch Normalized "
            "Recurrent Neural Networks, ICASSP 2016)."
        )
    if _can_be_on(domains["max_norm"]) and _ACTIVATION_NORMS & set(_values(domains["normalization"])):
        found.append(
            "Before a normalization the norm of the weights does not change the function, only the effective learning rate; "
            "so does max_norm (van Laarhoven, L2 Regularization versus Batch and Weight Normalization, 2017)."
        )
    if _can_be_on(domains["mixup"]) and spec.task == "regression":
        found.append(
            "Mixing arbitrary pairs yields wrong labels if the target is not linear in the features (Yao et al., C-Mixup: "
            "Improving Generalization in Regression, NeurIPS 2022)."
        )
    return found


def _values(domain: Domain) -> tuple[Scalar, ...]:
    match domain:
        case Fixed(value=value):
            return (value,)
        case Choices(choices=choices):
            return choices
        case Range() | PerLayer():
            return ()


def _smallest(domain: Domain) -> float:
    match domain:
        case Range(low=low):
            return low
        case Fixed() | Choices() | PerLayer():
            return min(float(value) for value in _values(domain))


def _can_be_on(domain: Domain) -> bool:
    return can_leave(domain, neutral=0.0)
