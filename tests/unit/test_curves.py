"""Curves and confusion tables against scikit-learn, counted by hand, and against the areas below them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from service.result import Discrimination
from workers.scoring.curves import PLACES, describe


def predictions(classes: int, seeds: int = 3, rows: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(classes)
    target = torch.randint(classes, (rows,), generator=made)
    shift = 1.5 * torch.nn.functional.one_hot(target, classes)
    return torch.randn(seeds, rows, classes, generator=made) + shift, target


def test_the_confusion_table_is_the_mean_of_scikit_learns_over_seeds() -> None:
    out, target = predictions(3)
    found = describe(out, target, ["a", "b", "c"]).confusion
    theirs = [reference.confusion_matrix(target, each.argmax(1)) for each in out]
    np.testing.assert_allclose(found.counts, np.mean(theirs, axis=0))
    assert found.labels == ("a", "b", "c")


@pytest.mark.parametrize(("classes", "positive"), [(2, 1), (2, 0), (4, 1)])
def test_curves_are_scikit_learns_and_enclose_the_areas_that_they_say(classes: int, positive: int) -> None:
    out, target = predictions(classes)
    labels = list("abcd")[:classes]
    made = describe(out, target, labels, positive=positive)
    found = json.loads(json.dumps(made.to_json()))
    assert Discrimination.model_validate(found) == made
    assert [curve["label"] for curve in found["roc"]] == ([labels[positive]] if classes == 2 else labels)
    for roc, pr in zip(found["roc"], found["pr"], strict=True):
        label = labels.index(roc["label"])
        hits = (target == label).numpy()
        score = torch.softmax(out.double(), 2)[:, :, label].numpy()
        assert roc["area"] == pytest.approx(np.mean([reference.roc_auc_score(hits, each) for each in score]))
        assert pr["area"] == pytest.approx(np.mean([reference.average_precision_score(hits, each) for each in score]))
        assert np.trapezoid(roc["y"], roc["x"]) == pytest.approx(roc["area"], abs=0.01)
        assert np.trapezoid(pr["y"], pr["x"]) == pytest.approx(pr["area"], abs=0.01)
        assert np.all(np.diff(roc["y"]) >= 0)
        for curve in (roc, pr):
            assert curve["x"] == pytest.approx(PLACES)
            assert np.all(np.array(curve["low"]) <= curve["y"])
            assert np.all(np.array(curve["y"]) <= curve["high"])


def test_a_curve_counted_by_hand() -> None:
    """Scores 4 > 3 > 2 > 1 of rows +, −, +, −."""
    score = torch.tensor([4.0, 3.0, 2.0, 1.0])
    out = torch.stack([torch.zeros(4), score], dim=1)[None]
    found = describe(out, torch.tensor([1, 0, 1, 0]), ["no", "yes"])
    roc, pr = found.roc[0], found.pr[0]
    at = {place: index for index, place in enumerate(roc.x)}
    assert [roc.y[at[x]] for x in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.5, 0.75, 1.0, 1.0])
    assert [pr.y[at[x]] for x in (0.0, 0.5, 0.51, 1.0)] == pytest.approx([1.0, 1.0, 2 / 3, 2 / 3], abs=1e-5)
    assert (roc.area, pr.area) == pytest.approx((0.75, 5 / 6))
    assert found.confusion.counts == ((0.0, 2.0), (0.0, 2.0))


def test_a_class_without_rows_and_too_many_classes_have_no_curves() -> None:
    out, target = predictions(4)
    found = describe(out, target.clamp(max=2), list("abcd"))
    assert [curve.label for curve in found.roc] == ["a", "b", "c"]
    out, target = predictions(30)
    many = describe(out, target, [str(index) for index in range(30)])
    assert (many.roc, many.pr) == ((), ())
    assert len(many.confusion.counts) == 30
