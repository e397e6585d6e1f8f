"""The coverage benchmark in small: fixed studies on synthetic data of which the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.coverage import study, summary


@pytest.mark.costly
def test_intervals_cover_the_truth_and_the_best_validation_score_is_optimistic() -> None:
    """Twelve studies: at least ten intervals cover (fewer come with probability 0.02 where the coverage is 95 %)."""
    studies = [study(task, seed) for task in ("regression", "classification") for seed in range(6)]
    assert sum(each["covered"] for each in studies) >= 10
    assert sum(each["gain_covered"] for each in studies) >= 10
    assert max(each["truth_error"] for each in studies) < 0.1 * np.mean([each["width"] for each in studies])
    for chosen in (studies[:6], studies[6:]):
        assert summary("any", chosen)["optimism_of_best_validation_score"]["mean"] > 0
