"""A trial's values of its study's further objectives, with the weights that it kept. Independent of the store.

A metric is read from the curve, at the epoch of the kept weights. `gap` is how much worse the study's metric is on
validation rows than on training rows: the result's `gap.train_valid`, of one seed. Both are scored in eval mode. The
training loss of the curve would not do, as it includes dropout, noise and penalties: a strong penalty alone would make a
gap to it small, or negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.spec import GAP, StudySpec
from workers.scoring.scores import exact
from workers.stack.device_data import DeviceData
from workers.stack.run import Protocol, Run
from workers.stack.runner import StackRunner


@dataclass(frozen=True)
class Objectives:
    """Scores runs of one study."""

    spec: StudySpec
    protocol: Protocol
    data: DeviceData

    def further(self, run: Run, runner: StackRunner) -> dict[str, float]:
        """Values by objective, of a run that is still on its lanes and has kept weights."""
        return {name: self._gap(run, runner) if name == GAP else run.curve[name][run.best_epoch] for name in self.spec.also}

    def _gap(self, run: Run, runner: StackRunner) -> float:
        """The generalization gap, mean over the run's lanes."""
        data, metric = self.data, self.protocol.metric
        rows = [data.train[fold] for fold, _ in run.fold_seeds]
        trained = []
        for (fold, _), on, out in zip(run.fold_seeds, rows, runner.predict(run, rows), strict=True):
            scale, reading = float(data.scale[fold]), (data.positive, data.quantile)
            trained.append(float(exact(data.task, metric, out, data.y[on], scale, *reading)[0]))
        return self.protocol.sign * (run.best_value - float(np.mean(trained)))
