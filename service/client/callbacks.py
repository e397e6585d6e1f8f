"""A trial as a callback of Lightning, Transformers and Keras: reports the monitored metric, and ends the training when told.

Each function imports its library when it is called. Plain loops need none: they call `Trial.report`.
"""

from __future__ import annotations

from typing import Any

from service.client.trials import Trial


def lightning_callback(trial: Trial, monitor: str) -> Any:
    """A `lightning.pytorch.Callback` that reports ``monitor`` after every validation.

    With several processes the first one reports, and all of them stop.

    Raises:
        ModuleNotFoundError: `lightning` is not installed.
        KeyError: In training: the module logs no such metric.
    """
    from lightning.pytorch import Callback

    class Reporting(Callback):  # type: ignore[misc, unused-ignore]  # of a library that may be absent
        """Reports to the service."""

        def __init__(self) -> None:
            self._steps = 0

        def on_validation_end(self, trainer: Any, _module: Any) -> None:
            """Report, unless this is the sanity check before the training."""
            if trainer.sanity_checking:
                return
            value = _monitored(trainer.callback_metrics, monitor)
            stop = trial.report(self._steps, float(value)) if trainer.is_global_zero else False
            self._steps += 1
            trainer.should_stop = trainer.strategy.broadcast(stop) or trainer.should_stop

    return Reporting()


def transformers_callback(trial: Trial, monitor: str = "eval_loss") -> Any:
    """A `transformers.TrainerCallback` that reports ``monitor`` after every evaluation.

    Raises:
        ModuleNotFoundError: `transformers` is not installed.
        KeyError: In training: the evaluation has no such metric.
    """
    from transformers import TrainerCallback

    class Reporting(TrainerCallback):  # type: ignore[misc, unused-ignore]  # of a library that may be absent
        """Reports to the service."""

        def __init__(self) -> None:
            self._steps = 0

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
            """Report."""
            if trial.report(self._steps, float(_monitored(metrics or {}, monitor))):
                control.should_training_stop = True
            self._steps += 1

    return Reporting()


def keras_callback(trial: Trial, monitor: str = "val_loss") -> Any:
    """A `keras.callbacks.Callback` that reports ``monitor`` after every epoch.

    Raises:
        ModuleNotFoundError: `keras` is not installed.
        KeyError: In training: there is no such metric.
    """
    import keras

    class Reporting(keras.callbacks.Callback):  # type: ignore[misc, unused-ignore]  # of a library that may be absent
        """Reports to the service."""

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            """Report."""
            if trial.report(epoch, float(_monitored(logs or {}, monitor))):
                self.model.stop_training = True

    return Reporting()


def _monitored(metrics: Any, name: str) -> Any:
    if name not in metrics:
        raise KeyError(f"the training has no metric {name!r}; it has {', '.join(sorted(metrics))}")
    return metrics[name]
