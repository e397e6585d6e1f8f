"""What a report draws, held against scikit-learn and definitions."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import confusion_matrix

from workers.data import TargetScale
from workers.scoring.pictures import BINS, MOST_PAIRS
from workers.scoring.pictures import test_pictures as pictures


def test_confusion_is_scikit_learns_and_calibration_follows_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    out = 3.0 * torch.randn(400, 2, generator=generator)
    target = (torch.rand(400, generator=generator) < out.softmax(1)[:, 1]).long()
    found = pictures("classification", out, target, ("no", "yes"), TargetScale())
    predicted = out.argmax(1)
    assert found.confusion is not None
    assert found.calibration is not None
    assert found.confusion.to_json()["counts"] == confusion_matrix(target, predicted).tolist()
    confidences, right = out.double().softmax(1).max(1).values, predicted == target
    bins, error = found.calibration.bins, 0.0
    for place, each in enumerate(bins):
        inside = (confidences > place / BINS) & (confidences <= (place + 1) / BINS)
        assert each.count == int(inside.sum())
        if not each.count:
            assert (each.confidence, each.accuracy) == (None, None)
            continue
        sure, correct = float(confidences[inside].mean()), float(right[inside].double().mean())
        assert each.confidence == pytest.approx(sure)
        assert each.accuracy == pytest.approx(correct)
        error += abs(sure - correct) * each.count / 400
    assert sum(each.count > 0 for each in bins) == BINS // 2, "of two classes the surer one has at least a half"
    assert found.calibration.expected_error == pytest.approx(error)


def test_pairs_are_in_the_targets_unit_few_and_from_end_to_end() -> None:
    target = torch.arange(2000, dtype=torch.float32)
    found = pictures("regression", target[:, None] + 1, target, (), TargetScale(10.0, 2.0)).pairs
    assert found is not None
    assert len(found) == MOST_PAIRS
    assert (found[0], found[-1]) == ((10.0, 12.0), (4008.0, 4010.0))


def test_too_many_classes_have_no_confusion_matrix() -> None:
    out = torch.eye(40)
    found = pictures("classification", out, torch.arange(40), [str(index) for index in range(40)], TargetScale())
    assert list(found.to_json()) == ["calibration"]
