"""Image augmentation against torch's and SciPy's own operations, and its draws against what was asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage, stats
from torch import Tensor

from workers.plain.augmentation import SLOTS, affine, cut_mixed, patch, sampled
from workers.stack.hashing import combine, draw, uniform
from workers.stack.techniques import TECHNIQUES, Batch

K, B = 3, 40


def images(height: int = 6, width: int = 6, k: int = K, b: int = B) -> Tensor:
    return torch.randn(k, b, 2, height, width, generator=torch.Generator().manual_seed(0))


def keys(k: int = K, update: int = 0) -> Tensor:
    return combine(torch.arange(k, dtype=torch.int32), update)


def augmented(x: Tensor, strengths: dict[str, Tensor], keys: Tensor) -> Tensor:
    """Images (k, b, c, h, w) as the techniques of a stack make them, of a key per lane for its first dropout layer."""
    batch = Batch(x, torch.zeros(x.shape[:2]), strengths, keys[:, None])
    for technique in TECHNIQUES:
        if technique.name in strengths:
            technique.on_batch(batch, frozenset(strengths))
    return batch.x


def matrix(height: int = 6, width: int = 6, **moves: float) -> Tensor:
    given = {name: torch.tensor([moves.get(name, 0.0)]) for name in ("degrees", "shear", "zoom", "right", "down")}
    return affine(**given, height=height, width=width)


def warped(x: Tensor, **moves: float) -> Tensor:
    theta = matrix(x.shape[2], x.shape[3], **moves)
    return sampled(x, theta.expand(len(x), 2, 3))


def test_without_any_move_the_matrix_is_torchs_identity() -> None:
    torch.testing.assert_close(matrix(), torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]))
    x = images(5, 8)[0]
    torch.testing.assert_close(warped(x), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_are_torchs(turns: int) -> None:
    x = images()[0]
    torch.testing.assert_close(warped(x, degrees=90.0 * turns), torch.rot90(x, turns, (2, 3)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("right", "down"), [(1, 0), (-2, 0), (0, 3), (2, -1)])
def test_shifts_by_whole_pixels_are_rolls_with_the_edge_repeated(right: int, down: int) -> None:
    x = images(6, 8)[0]
    padded = F.pad(x, (3, 3, 3, 3), mode="replicate").roll((down, right), (2, 3))[:, :, 3:-3, 3:-3]
    torch.testing.assert_close(warped(x, right=right / 8, down=down / 6), padded, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "moves",
    [
        {"degrees": 25.0},
        {"shear": 15.0},
        {"zoom": 0.3},
        {"zoom": -0.2},
        {"degrees": -40.0, "shear": -20.0, "zoom": 0.25, "right": 0.1, "down": -0.2},
    ],
)
def test_any_move_is_scipys(moves: dict[str, float]) -> None:
    """Written once more in pixels, step by step, for images that are not square."""
    x = images(7, 10)[0, :2]
    turn, slant = math.radians(moves.get("degrees", 0.0)), math.tan(math.radians(moves.get("shear", 0.0)))
    # Coordinates are (y, x) with y downwards, so a turn to the left takes (1, 0) at the right to the top.
    sheared = np.array([[1.0, 0.0], [slant, 1.0]])
    turned = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    forward = (1.0 + moves.get("zoom", 0.0)) * turned @ sheared
    back = np.linalg.inv(forward)
    middle, shift = np.array([3.0, 4.5]), np.array([moves.get("down", 0.0) * 7, moves.get("right", 0.0) * 10])
    offset = middle - back @ (middle + shift)
    expected = np.stack(
        [
            [ndimage.affine_transform(channel, back, offset, order=1, mode="nearest") for channel in image]
            for image in x.double().numpy()
        ]
    )
    np.testing.assert_allclose(warped(x, **moves), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("name", "axis"), [("horizontal_flip", 4), ("vertical_flip", 3)])
def test_flips_are_torchs_to_the_last_bit(name: str, axis: int) -> None:
    x = images()
    got = augmented(x, {name: torch.tensor([0.0, 1.0, 0.3])}, keys())
    assert torch.equal(got[0], x[0])
    assert torch.equal(got[1], x.flip(axis)[1])
    flipped = (got[2] != x[2]).flatten(1).any(1)
    assert torch.equal(got[2], torch.where(flipped[:, None, None, None], x.flip(axis)[2], x[2]))


def test_flips_are_as_frequent_as_asked() -> None:
    x = torch.arange(4.0).view(1, 1, 1, 2, 2).expand(1, 5000, 1, 2, 2)
    got = augmented(x, {"horizontal_flip": torch.tensor([0.3]), "vertical_flip": torch.tensor([0.6])}, keys(1))
    across, down = got[0, :, 0, 0, 0] % 2 == 1, got[0, :, 0, 0, 0] >= 2
    assert across.float().mean().item() == pytest.approx(0.3, abs=0.025)
    assert down.float().mean().item() == pytest.approx(0.6, abs=0.025)
    assert (across & down).float().mean().item() == pytest.approx(0.18, abs=0.025)


def test_shifts_are_uniform_up_to_their_strength() -> None:
    """Where a bright column of a wide image ends up says how far it was moved."""
    x = torch.linspace(-1, 1, 64).expand(1, 3000, 1, 4, 64)
    got = augmented(x, {"shift": torch.tensor([0.1])}, keys(1))
    moved = (x - got)[0, :, 0, 0, 32] / 2.0 * 63 / 64
    assert stats.kstest(moved.numpy(), stats.uniform(-0.1, 0.2).cdf).pvalue > 0.001


def test_every_number_of_every_image_is_its_own_and_uniform() -> None:
    element = torch.arange(60 * len(SLOTS), dtype=torch.int32)
    numbers = uniform(draw(keys(50)[:, None], element[None])).view(50 * 60, len(SLOTS)).numpy().T
    for row in numbers:
        assert stats.kstest(row, "uniform").pvalue > 0.0005
    off_diagonal = np.corrcoef(numbers) - np.eye(len(numbers))
    assert np.abs(off_diagonal).max() < 0.08
    assert len(np.unique(numbers)) > 0.99 * numbers.size


def test_a_lane_off_is_untouched_beside_lanes_that_are_on() -> None:
    x = images()
    on = torch.tensor([0.0, 0.5, 0.0])
    names = ("rotation", "shift", "shear", "zoom", "horizontal_flip", "vertical_flip", "cutout")
    got = augmented(x, dict.fromkeys(names, on), keys())
    assert torch.equal(got[0], x[0])
    assert torch.equal(got[2], x[2])
    assert not torch.equal(got[1], x[1])


def test_a_lane_has_the_images_it_would_have_alone() -> None:
    x = images()
    strengths = {"rotation": torch.tensor([10.0, 20.0, 30.0]), "cutout": torch.tensor([0.2, 0.0, 0.4])}
    together = augmented(x, strengths, keys())
    for lane in range(K):
        one = slice(lane, lane + 1)
        own = {name: value[one] for name, value in strengths.items()}
        more = own | {"zoom": torch.zeros(1), "vertical_flip": torch.zeros(1)}
        for given in (own, more):  # what other lanes bring into the stack changes nothing
            torch.testing.assert_close(augmented(x[one], given, keys()[one])[0], together[lane], rtol=0, atol=1e-6)
    assert not torch.equal(augmented(x, strengths, keys(update=1)), together)


def test_cutout_removes_one_patch_of_its_size() -> None:
    x = torch.ones(1, 4000, 1, 10, 20)
    got = augmented(x, {"cutout": torch.tensor([0.4])}, keys(1))[0, :, 0]
    rows, columns = (got == 0).any(2).sum(1), (got == 0).any(1).sum(1)
    assert rows.max() <= 4
    assert columns.max() <= 8
    assert torch.equal((got == 0).flatten(1).sum(1), rows * columns)  # a rectangle
    # A side s around a place anywhere has s − s²/4 of the axis on average: what reaches over the edge is lost.
    expected = (0.4 - 0.4**2 / 4) ** 2
    assert (got == 0).float().mean().item() == pytest.approx(expected, abs=0.005)


def test_a_whole_patch_is_the_whole_image() -> None:
    middle = torch.tensor([0.5])
    assert patch(5, 4, torch.tensor([1.0 + 1e-6]), middle, middle).all()
    assert not patch(5, 4, torch.tensor([0.0]), middle, middle).any()


def test_cutmix_takes_a_patch_and_its_share_of_the_label() -> None:
    x, other = torch.zeros(200, 3, 1, 8, 8), torch.ones(200, 3, 1, 8, 8)
    shares = torch.linspace(0, 1, 200)
    across, down = uniform(draw(keys(200)[:, None], torch.arange(2, dtype=torch.int32)[None])).unbind(1)
    got, own = cut_mixed(x, other, shares, across, down)
    torch.testing.assert_close(own, 1.0 - got[:, 0, 0].mean((1, 2)))
    torch.testing.assert_close(own, 1.0 - got[:, 2, 0].mean((1, 2)))  # one patch for the whole batch
    assert own[-1] == 1.0
    assert (own >= shares - 0.15).all()  # no more than wanted, but for whole pixels
    assert np.corrcoef(own, shares)[0, 1] > 0.8
