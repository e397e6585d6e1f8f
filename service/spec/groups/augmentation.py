"""Random transformations of training images."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import OFF, Choices, Domain, Fixed, Frozen, Range
from service.spec.setting import Setting, When

_IMAGES = When("family", ("cnn", "module"))


class Augmentation(Frozen):
    """Random transformations of training images, drawn for each image; the strengths are per lane. `cutmix` also for tables."""

    rotation: Annotated[Domain | None, Setting(
        group="augmentation", kind="float", low=0.0, high=180.0, neutral=0.0, off=True, regularizer=True, when=_IMAGES,
        search=Fixed(value=OFF), advised=Range(low=2.0, high=30.0, off=True),
        doc="Largest angle in degrees by which images are rotated, in either direction; the border is extended by its edge "
        "pixels.")] = None
    shift: Annotated[Domain | None, Setting(
        group="augmentation", kind="float", low=0.0, high=1.0, neutral=0.0, off=True, regularizer=True, when=_IMAGES,
        search=Fixed(value=OFF), advised=Range(low=0.02, high=0.2, off=True),
        doc="Largest shift of images, as a fraction of their height and width.")] = None
    shear: Annotated[Domain | None, Setting(
        group="augmentation", kind="float", low=0.0, high=60.0, neutral=0.0, off=True, regularizer=True, when=_IMAGES,
        search=Fixed(value=OFF), advised=Range(low=2.0, high=20.0, off=True),
        doc="Largest angle in degrees by which images are sheared horizontally.")] = None
    zoom: Annotated[Domain | None, Setting(
        group="augmentation", kind="float", low=0.0, high=0.9, neutral=0.0, off=True, regularizer=True, when=_IMAGES,
        search=Fixed(value=OFF), advised=Range(low=0.02, high=0.3, off=True),
        doc="Largest fraction by which images are enlarged or reduced.")] = None
    horizontal_flip: Annotated[Domain | None, Setting(
        group="augmentation", kind="float", low=0.0, high=1.0, neutral=0.0, off=True, regularizer=True, when=_IMAGES,
        search=Fixed(value=OFF), advised=Choices(choices=(OFF, 0.5)),
        doc="Probability that an image is flipped left to right; not suitable for digits and letters.")] = None
    vertical_flip: Annotated[Domain | None, Setting(
        group="augmentation", kind="float", low=0.0, high=1.0, neutral=0.0, off=True, regularizer=True, when=_IMAGES,
        search=Fixed(value=OFF), advised=Choices(choices=(OFF, 0.5)),
        doc="Probability that an image is flipped upside down.")] = None
    cutout: Annotated[Domain | None, Setting(
        group="augmentation", kind="float", low=0.0, high=1.0, neutral=0.0, off=True, regularizer=True, when=_IMAGES,
        search=Fixed(value=OFF), advised=Range(low=0.1, high=0.6, off=True),
        doc="Side of a randomly placed patch that is set to the mean, as a fraction of height and width (DeVries and Taylor "
        "2017).")] = None
    cutmix: Annotated[Domain | None, Setting(
        group="augmentation", kind="float", low=0.0, high=100.0, neutral=0.0, off=True, regularizer=True,
        when=When("family", ("cnn", "mlp", "module")), search=Fixed(value=OFF), advised=Range(low=0.1, high=1.0, log=True, off=True),
        doc="α of cutmix: a patch is replaced by that of another image, or some columns by those of another row (Kadra et al. "
        "2021), and the label is mixed in proportion; the share is drawn from Beta(α, α) per batch (Yun et al. 2019). With `mixup` on as well, each batch uses one of the two.",
    )] = None
