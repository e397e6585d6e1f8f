"""What a trial comes to in the further objectives of its study, with the weights that are kept of it. Knows no store.

A metric is read off the curve, at the epoch of the kept weights. `gap` is by how much the study's metric is worse on
validation rows than on training rows: the answer's `gap.train_valid`, of one seed. Both are scored in eval mode. The
training loss that the curve has would not do, for dropout, noise and penalties are in it: a strong penalty alone would
make a gap to it small, or negative.
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
        """Values by name, of a run that is still on its lanes and has weights that were kept."""
        return {name: self._gap(run, runner) if name == GAP else run.curve[name][run.best_epoch] for name in self.spec.also}

    def _gap(self, run: Run, runner: StackRunner) -> float:
        """Mean over the run's lanes."""
        data, metric = self.data, self.protocol.metric
        rows = [data.train[fold] for fold, _ in run.fold_seeds]
        trained = []
        for (fold, _), on, out in zip(run.fold_seeds, rows, runner.predict(run, rows), strict=True):
            trained.append(float(exact(data.task, metric, out, data.y[on], float(data.scale[fold]), data.positive)[0]))
        return self.protocol.sign * (run.best_value - float(np.mean(trained)))
