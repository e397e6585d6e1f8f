"""Real training programs, of Lightning and of Transformers, searched over HTTP; one is killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.cli.supervisor import free_port
from service.client import Client
from service.result.external import ExternalStudyResult
from tests.acceptance.conftest import wait_for
from tests.api.conftest import Serving

ROOT = Path(__file__).parents[2]

COMMON = """
import logging, sys, tempfile, warnings
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
import torch
from torch import nn
from regsearch import Client, {callback}

def rows(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 30, generator=generator)
    return x, x[:, :1] + 0.7 * torch.randn(n, 1, generator=generator)

train_rows, valid_rows = rows(40, 1), rows(400, 2)

def network(params):
    hidden = params["hidden"]
    return nn.Sequential(nn.Linear(30, hidden), nn.ReLU(), nn.Dropout(params["dropout"]), nn.Linear(hidden, 1))

study = Client(sys.argv[1]).study(int(sys.argv[2]))
"""

LIGHTNING = (
    COMMON.format(callback="lightning_callback")
    + """
from lightning import pytorch as lightning

class Module(lightning.LightningModule):
    def __init__(self, params):
        super().__init__()
        self.params, self.network = params, network(params)

    def training_step(self, batch, _):
        return nn.functional.mse_loss(self.network(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("val_loss", nn.functional.mse_loss(self.network(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.02, weight_decay=self.params["weight_decay"])

for trial in study.trials(lease_seconds=3):
    with trial:
        print(trial.name, flush=True)
        torch.manual_seed(trial.seed)
        data = [torch.utils.data.TensorDataset(*part) for part in (train_rows, valid_rows)]
        loaders = [torch.utils.data.DataLoader(part, batch_size=400) for part in data]
        trainer = lightning.Trainer(max_epochs=25, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=[lightning_callback(trial, "val_loss")])
        trainer.fit(Module(trial.params), *loaders)
"""
)

TRANSFORMERS = (
    COMMON.format(callback="transformers_callback")
    + """
from transformers import Trainer, TrainingArguments

class Model(nn.Module):
    def __init__(self, params):
        super().__init__()
        self.network = network(params)

    def forward(self, x, labels):
        out = self.network(x)
        return {"loss": nn.functional.mse_loss(out, labels), "logits": out}

data = [[{"x": x, "labels": y} for x, y in zip(*part)] for part in (train_rows, valid_rows)]
for trial in study.trials(lease_seconds=3):
    with trial, tempfile.TemporaryDirectory() as folder:
        print(trial.name, flush=True)
        arguments = TrainingArguments(output_dir=folder, num_train_epochs=25, per_device_train_batch_size=40,
            per_device_eval_batch_size=400, eval_strategy="epoch", save_strategy="no", logging_strategy="no", report_to=[],
            use_cpu=True, disable_tqdm=True, learning_rate=0.02, weight_decay=trial.params["weight_decay"], seed=trial.seed)
        torch.manual_seed(trial.seed)
        Trainer(model=Model(trial.params), args=arguments, train_dataset=data[0], eval_dataset=data[1],
            callbacks=[transformers_callback(trial)]).train()
"""
)

SPEC: dict[str, Any] = {
    "metric": "val_loss",
    "direction": "minimize",
    "space": {
        "weight_decay": {"low": 0.1, "high": 20.0, "log": True, "off": True},
        "dropout": {"low": 0.1, "high": 0.7, "off": True},
        "custom": {"hidden": {"low": 8, "high": 64, "log": True}},
    },
    "pruner": {"name": "median", "startup_trials": 4, "warmup_epochs": 3},
    "budget": {"trials": 16, "epochs": 25, "finalists": 2, "seeds": 3},
}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    running = Serving(tmp_path_factory.mktemp("programs") / "home", free_port())
    yield running
    running.stop()


def start(code: str, url: str, study_id: int) -> subprocess.Popen[str]:
    """A program in a process of its own, as a user starts it."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'service/alias'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(code), url, str(study_id)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.costly
def test_programs_of_two_libraries_search_one_study_and_one_is_killed(serving: Serving) -> None:
    with Client(serving.url) as client:
        study = client.study(SPEC)
        with start(LIGHTNING, serving.url, study.id) as killed, start(TRANSFORMERS, serving.url, study.id) as other:
            assert killed.stdout is not None
            for _ in range(2):  # in its second trial
                line = killed.stdout.readline()
                assert line.strip().isdecimal(), line + killed.stdout.read()
            wait_for(lambda: study.refresh()["trials"]["finished"] >= 3, 120)
            killed.send_signal(signal.SIGKILL)
            told, _ = other.communicate(timeout=240)
            assert other.returncode == 0, told
        assert study.state == "finished"
        frame, result = study.frame(), study.result()
    assert list(frame["number"]) == list(range(16))
    assert set(frame["state"]) == {"complete", "pruned"}
    assert isinstance(result, ExternalStudyResult)
    assert result.winner.valid is not None
    assert result.winner.valid.n == 3
    assert (result.gain is None) == (result.baseline is None)  # where the winner has no regularizer on
