"""What the trials of earlier studies gained a search: its first trials were drawn by them and at random, in turn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from service.result import WarmStart
from service.search import drawn_at_random
from service.spec import StudySpec
from service.store.records import TrialRecord


def warm_start(spec: StudySpec, trials: Sequence[TrialRecord]) -> WarmStart:
    """The medians of both kinds; a pruned trial counts with its best value so far."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for trial in trials:
        at_random = drawn_at_random(spec, trial.number)
        if at_random is not None and trial.value is not None:
            found[at_random].append(trial.value)
    informed, random = (statistics.median(values) if values else math.nan for values in (found[False], found[True]))
    return WarmStart(
        studies=spec.search_from,
        informed=informed,
        random=random,
        informed_trials=len(found[False]),
        random_trials=len(found[True]),
    )
