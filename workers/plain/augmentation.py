"""Augmentation of images: each image changed by random numbers of its own, which are handed in.

Shapes: `n` images, `c` channels, `h`, `w` pixels; images are standardized, so 0 is their mean. Strengths and random numbers
are one per image. What an image has off leaves it as it is, to the last bit.
References: Jaderberg et al., "Spatial Transformer Networks" (2015) for sampling on an affine grid; DeVries and Taylor,
"Improved Regularization of Convolutional Neural Networks with Cutout" (2017); Yun et al., "CutMix" (ICCV 2019).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

AFFINE = ("rotation", "shift", "shear", "zoom")
AUGMENTATIONS = (*AFFINE, "horizontal_flip", "vertical_flip", "cutout")
"""Settings whose strengths `augmented` takes."""

SLOTS = ("rotation", "shift_x", "shift_y", "shear", "zoom", "horizontal_flip", "vertical_flip", "cutout_x", "cutout_y")
"""Names of the random numbers that `augmented` takes, whatever is in use, so that what is in use changes none of them."""


def augmented(x: Tensor, strengths: Mapping[str, Tensor], drawn: Mapping[str, Tensor]) -> Tensor:
    """Images (n, c, h, w) after all augmentations in use: the affine one, flips, cutout.

    Args:
        x: The images.
        strengths: (n,) for each of `AUGMENTATIONS` that is in use; see the settings of these names.
        drawn: (n,) uniform numbers in [0, 1) for each of `SLOTS`.
    """
    if used := [name for name in AFFINE if name in strengths]:
        x = _moved(x, strengths, drawn, used)
    for name, axis in (("horizontal_flip", -1), ("vertical_flip", -2)):
        if name in strengths:
            flipped = drawn[name] < strengths[name]
            x = torch.where(flipped[:, None, None, None], x.flip(axis), x)
    if "cutout" in strengths:
        inside = patch(x.shape[2], x.shape[3], strengths["cutout"], drawn["cutout_x"], drawn["cutout_y"])
        x = torch.where(inside[:, None], 0.0, x)
    return x


def _moved(x: Tensor, strengths: Mapping[str, Tensor], drawn: Mapping[str, Tensor], used: Collection[str]) -> Tensor:
    """Images turned, sheared, zoomed and shifted at once, where any of these is on."""

    def spread(name: str, slot: str) -> Tensor:
        """Uniform between minus and plus the strength."""
        number = drawn[slot]
        return strengths[name] * (2.0 * number - 1.0) if name in used else torch.zeros_like(number)

    theta = affine(
        degrees=spread("rotation", "rotation"),
        shear=spread("shear", "shear"),
        zoom=spread("zoom", "zoom"),
        right=spread("shift", "shift_x"),
        down=spread("shift", "shift_y"),
        height=x.shape[2],
        width=x.shape[3],
    )
    on = torch.stack([strengths[name] for name in used]).any(0)
    return torch.where(on[:, None, None, None], sampled(x, theta), x)


def affine(*, degrees: Tensor, shear: Tensor, zoom: Tensor, right: Tensor, down: Tensor, height: int, width: int) -> Tensor:
    """(..., 2, 3) matrices for `torch.nn.functional.affine_grid`, which leads from a place in the new image to its source.

    An image is first sheared sideways by the angle ``shear``, then enlarged by 1 + ``zoom``, turned counterclockwise by
    ``degrees``, all about its middle, and last moved by the shares ``right`` and ``down`` of its size. All (...).
    """
    turn, slant = torch.deg2rad(degrees), torch.tan(torch.deg2rad(shear))
    cos, sin = turn.cos() / (1.0 + zoom), turn.sin() / (1.0 + zoom)
    # In pixels, with y downwards: source = shear⁻¹ · turn⁻¹ · (place − shift) / (1 + zoom).
    xx, xy, yx, yy = cos - slant * sin, -sin - slant * cos, sin, cos
    xy, yx = xy * height / width, yx * width / height
    x0, y0 = -2.0 * (xx * right + xy * down), -2.0 * (yx * right + yy * down)
    return torch.stack([torch.stack([xx, xy, x0], -1), torch.stack([yx, yy, y0], -1)], -2)


def sampled(x: Tensor, theta: Tensor) -> Tensor:
    """Images (n, c, h, w) on affine grids (n, 2, 3), bilinear; beyond an edge lies the edge's colour."""
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def patch(height: int, width: int, share: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """(..., h, w): the pixels of a patch of ``share`` of both sides around the place ``across``, ``down`` in [0, 1).

    A pixel belongs to it if its middle lies within half a side of the place; it may reach over the edge. All arguments are
    (...).
    """
    device = share.device
    columns = (torch.arange(width, device=device) + 0.5) / width
    rows = (torch.arange(height, device=device) + 0.5) / height
    half = share[..., None] / 2.0
    in_columns, in_rows = (columns - across[..., None]).abs() < half, (rows - down[..., None]).abs() < half
    return in_rows[..., :, None] & in_columns[..., None, :]


def cut_mixed(x: Tensor, other: Tensor, share: Tensor, across: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Images with a patch of ``other``, and the share of every image's own pixels, which is its label's share.

    Args:
        x, other: (..., n, c, h, w).
        share: (...) wanted of x; at 1 nothing is changed. One patch per batch, as in the paper.
        across, down: (...) the place of the patch, in [0, 1).
    """
    inside = patch(x.shape[-2], x.shape[-1], (1.0 - share).sqrt(), across, down)
    mixed = torch.where(inside[..., None, None, :, :], other, x)
    return mixed, 1.0 - inside.to(x.dtype).mean((-2, -1))
