"""The temperature of probabilities: found where networks are too sure, and what the archive does with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from workers.answer.temperature import calibrated, temperature


def drawn(rows: int, sureness: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``sureness`` times as large as those that the labels were drawn by."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, 3, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return sureness * logits, labels


@pytest.mark.parametrize("sureness", [0.4, 1.0, 3.0])
def test_the_temperature_is_by_how_much_a_network_is_too_sure(sureness: float) -> None:
    assert temperature([drawn(20_000, sureness)]) == pytest.approx(sureness, rel=0.1)


def test_losses_are_those_of_scikit_learn_and_other_rows_are_calibrated_too() -> None:
    valid, test = [drawn(500, 3.0, seed) for seed in (1, 2)], drawn(2000, 3.0, 3)
    found = calibrated(valid, test)
    out, labels = test
    assert found.test_before == pytest.approx(log_loss(labels, out.double().softmax(1).numpy()), rel=1e-6)
    scaled = (out.double() / found.temperature).softmax(1).numpy()
    assert found.test_after == pytest.approx(log_loss(labels, scaled), rel=1e-6)
    both = torch.cat([out for out, _ in valid]).double()
    assert found.valid_before == pytest.approx(log_loss(torch.cat([own for _, own in valid]), both.softmax(1).numpy()))
    assert found.test_after is not None
    assert found.test_before is not None
    assert found.test_after < found.test_before - 0.1
    assert np.array_equal(scaled.argmax(1), out.argmax(1))


def test_few_rows_determine_nothing() -> None:
    assert temperature([drawn(40, 3.0), drawn(59, 3.0)]) == 1.0
    assert temperature([drawn(40, 3.0), drawn(60, 3.0)]) > 1.5
