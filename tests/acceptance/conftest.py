"""The service as a user starts it: `regsearch up`, in processes of its own, and a browser to look at it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from service.cli.supervisor import free_port
from service.client.connection import HttpClient

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]

STUDY = """
name: acceptance
data: {dataset: diabetes}
model: {widths: [32, 32]}
space:
  preset: default
  l1: off                       # a word in YAML 1.2, not a boolean
  lr: {low: 1e-3, high: 1e-2, log: true}
  lr_schedule: [constant, step]
validation: {method: holdout}
pruner: {name: successive_halving, min_epochs: 3}
budget: {trials: 30, epochs: 12}
seed: 5
"""


class Service:
    """A running `regsearch up`."""

    def __init__(self, home: Path, *, workers: int = 1, per_device: int | None = None, **settings: str) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **os.environ,
            "COLUMNS": "200",
            "REGSEARCH_HOME": str(home),
            "REGSEARCH_PORT": str(self.port),
            "REGSEARCH_CACHE": str(home / "cache"),
            **{f"REGSEARCH_{name.upper()}": value for name, value in settings.items()},
        }
        self.output = home.parent / f"{home.name}.up.log"
        options = ["--workers", str(workers)] if per_device is None else ["--workers-per-device", str(per_device)]
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service.cli", "up", *options],
                env=self.environment,
                stdout=out,
                stderr=out,
            )
        self.client = HttpClient(self.url)
        self.client.wait_until_ready(120)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `regsearch` command against this service."""
        command = [sys.executable, "-m", "service.cli", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=300)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A `regsearch` command that goes on."""
        command = [sys.executable, "-m", "service.cli", *arguments]
        with self.output.open("ab") as out:
            return subprocess.Popen(command, env=self.environment, stdout=out, stderr=out)

    def start_worker(self) -> subprocess.Popen[bytes]:
        """One more worker, not looked after by the service."""
        with self.output.open("ab") as out:
            return subprocess.Popen([sys.executable, "-m", "workers"], env=self.environment, stdout=out, stderr=out)

    def children(self) -> list[psutil.Process]:
        """All processes of the service, the API first."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def worker_pids(self) -> list[int]:
        """Processes that are workers."""
        return [child.pid for child in self.children() if "workers" in child.cmdline()]

    def stop(self) -> int:
        """Ctrl-C, and the exit code."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=60)


def wait_for(condition: Callable[[], bool], seconds: float = 400.0) -> None:
    """Look until a condition holds; fail after a time no correct run comes near."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests that only use it."""
    running = Service(tmp_path_factory.mktemp("service") / "home")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def study(service: Service, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A study submitted from a file and followed to its end."""
    path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(STUDY)
    done = service.run("submit", str(path), "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "30/30 finished" in done.stdout
    assert "(winner)" in done.stdout
    assert "Warning: Dropout together with batch normalization" in done.stderr
    found: dict[str, Any] = service.client.get("/v1/studies")["studies"][0]
    assert found["name"] == "acceptance"
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    expect.set_options(timeout=120_000)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page with nothing remembered from others."""
    opened = browser.new_page(viewport={"width": 1400, "height": 900})
    yield opened
    opened.close()
