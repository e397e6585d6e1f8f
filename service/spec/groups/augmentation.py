"""Random changes of training images, each image its own; the strength is the lane's."""

from __future__ import annotations

from typing import Annotated

from service.spec.domain import OFF, Choices, Domain, Fixed, Frozen, Range
from service.spec.setting import Setting, When

_IMAGES = When("family", ("cnn",))


class Augmentation(Frozen):
    """Random changes of training images, each image its own; the strength is the lane's. Images only."""

    rotation: Annotated[Domain | None, Setting(
        group="augmentation", kind="float", low=0.0, high=180.0, neutral=0.0, off=True, regularizer=True, when=_IMAGES,
        search=Fixed(value=OFF), advised=Range(low=2.0, high=30.0, off=True),
        doc="Images are turned by up to so many degrees either way; what is behind an edge has the edge's colour.")] = None
    shift: Annotated[Domain | None, Setting(
        group="augmentation", kind="float", low=0.0, high=1.0, neutral=0.0, off=True, regularizer=True, when=_IMAGES,
        search=Fixed(value=OFF), advised=Range(low=0.02, high=0.2, off=True),
        doc="Images are moved by up to this share of their height and width.")] = None
    shear: Annotated[Domain | None, Setting(
        group="augmentation", kind="float", low=0.0, high=60.0, neutral=0.0, off=True, regularizer=True, when=_IMAGES,
        search=Fixed(value=OFF), advised=Range(low=2.0, high=20.0, off=True),
        doc="Images are sheared sideways by up to so many degrees.")] = None
    zoom: Annotated[Domain | None, Setting(
        group="augmentation", kind="float", low=0.0, high=0.9, neutral=0.0, off=True, regularizer=True, when=_IMAGES,
        search=Fixed(value=OFF), advised=Range(low=0.02, high=0.3, off=True),
        doc="Images are enlarged or made smaller by up to this share.")] = None
    horizontal_flip: Annotated[Domain | None, Setting(
        group="augmentation", kind="float", low=0.0, high=1.0, neutral=0.0, off=True, regularizer=True, when=_IMAGES,
        search=Fixed(value=OFF), advised=Choices(choices=(OFF, 0.5)),
        doc="Probability that left and right are exchanged; not for digits and letters.")] = None
    vertical_flip: Annotated[Domain | None, Setting(
        group="augmentation", kind="float", low=0.0, high=1.0, neutral=0.0, off=True, regularizer=True, when=_IMAGES,
        search=Fixed(value=OFF), advised=Choices(choices=(OFF, 0.5)),
        doc="Probability that top and bottom are exchanged.")] = None
    cutout: Annotated[Domain | None, Setting(
        group="augmentation", kind="float", low=0.0, high=1.0, neutral=0.0, off=True, regularizer=True, when=_IMAGES,
        search=Fixed(value=OFF), advised=Range(low=0.1, high=0.6, off=True),
        doc="A patch with this share of the height and width, anywhere, is set to the mean (DeVries and Taylor 2017).")] = None
    cutmix: Annotated[Domain | None, Setting(
        group="augmentation", kind="float", low=0.0, high=100.0, neutral=0.0, off=True, regularizer=True, when=_IMAGES,
        search=Fixed(value=OFF), advised=Range(low=0.1, high=1.0, log=True, off=True),
        doc="α of cutmix: a patch comes from another image, and so does its share of the label; its area is drawn from "
        "Beta(α, α) per batch (Yun et al. 2019). With `mixup` on as well, each batch gets one of the two.")] = None
