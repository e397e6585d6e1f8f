"""A trial as a callback of the real libraries, in tiny runs on the CPU."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
from lightning import pytorch as lightning
from torch import Tensor, nn

from service.client import Trial, keras_callback, lightning_callback, transformers_callback


class Recording:
    """A trial that notes what is reported, and stops after a number of reports."""

    def __init__(self, stop_after: int) -> None:
        self.reports: list[tuple[int, float]] = []
        self._stop_after = stop_after

    def report(self, step: int, value: float) -> bool:
        self.reports.append((step, value))
        return len(self.reports) >= self._stop_after


def as_trial(recording: Recording) -> Trial:
    return cast(Trial, recording)


def rows(n: int = 32) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(n, 4)
    return x, x.sum(1, keepdim=True)


class Module(lightning.LightningModule):  # type: ignore[misc, name-defined, unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def training_step(self, batch: Sequence[Tensor], _: int) -> Tensor:
        return nn.functional.mse_loss(self.layer(batch[0]), batch[1])

    def validation_step(self, batch: Sequence[Tensor], _: int) -> None:
        self.log("val_loss", nn.functional.mse_loss(self.layer(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def fit(callback: Any, folder: Path, epochs: int = 6) -> Any:
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*rows()), batch_size=16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[callback],
        )
        trainer.fit(Module(), loader, loader)
    return trainer


def test_lightning_reports_after_every_validation_and_stops(tmp_path: Path) -> None:
    trial = Recording(stop_after=3)
    trainer = fit(lightning_callback(as_trial(trial), "val_loss"), tmp_path)
    assert [step for step, _ in trial.reports] == [0, 1, 2]
    assert trial.reports[2][1] < trial.reports[0][1]
    assert trainer.current_epoch == 3
    assert float(trainer.callback_metrics["val_loss"]) == pytest.approx(trial.reports[-1][1])


def test_a_metric_that_is_not_logged_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no metric 'val_los'; it has val_loss"):
        fit(lightning_callback(as_trial(Recording(9)), "val_los"), tmp_path)


class Regressor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        out = self.layer(x)
        return {"loss": nn.functional.mse_loss(out, labels), "logits": out}


def test_transformers_reports_after_every_evaluation_and_stops(tmp_path: Path) -> None:
    trial = Recording(stop_after=2)
    x, y = rows()
    data = [{"x": each, "labels": label} for each, label in zip(x, y, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=5,
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            learning_rate=0.05,
        )
        trainer = transformers.Trainer(
            model=Regressor(),
            args=arguments,
            train_dataset=data,
            eval_dataset=data,
            callbacks=[transformers_callback(as_trial(trial))],
        )
        trainer.train()
    assert [step for step, _ in trial.reports] == [0, 1]
    assert trial.reports[1][1] < trial.reports[0][1]
    assert trainer.state.epoch == 2


def test_keras_reports_after_every_epoch_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras = importlib.import_module("keras")  # reads its backend once
        assert keras.backend.backend() == "torch"
        x, y = (part.numpy() for part in rows())
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
        model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
        trial = Recording(stop_after=4)
        history = model.fit(x, y, epochs=9, validation_data=(x, y), verbose=0, callbacks=[keras_callback(as_trial(trial))])
    assert [step for step, _ in trial.reports] == [0, 1, 2, 3]
    assert [value for _, value in trial.reports] == pytest.approx(history.history["val_loss"])
    assert all(math.isfinite(value) for _, value in trial.reports)
