"""Launching: profiles and what is wrong with them, the scaler's decisions, and the script of a Slurm job."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.spec import StudySpec
from service.store import Store, open_store
from workers.launch.__main__ import main
from workers.launch.command import handed_on, worker_arguments, worker_environment
from workers.launch.jobs import COMMANDS, SCRIPT, SlurmEngine, SlurmProfile
from workers.launch.profile import CannotLaunch, Profile, read_profile
from workers.launch.scaler import Census, Scaler


class Cluster:
    """An engine with room for ``room`` workers; what does not fit is pending."""

    unit = 1

    def __init__(self, room: int) -> None:
        self.room, self.staying, self.others, self.failed = room, 0, 0, 0

    def options(self) -> object:
        return {}

    def census(self) -> Census:
        found, failed = self.staying + self.others, self.failed
        self.failed = 0
        running = min(found, self.room)
        return Census(running, found - running, self.staying, failed)

    def start(self, count: int, *, stays: bool) -> None:
        if stays:
            self.staying += count
        else:
            self.others += count

    def withdraw(self, count: int) -> None:
        self.others -= count

    def drain(self) -> None:
        self.staying = self.others = 0

    def kill(self) -> None:
        raise AssertionError("nothing is left")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'regsearch.db'}", create=True)
    yield opened
    opened.close()


def submit(store: Store, trials: int, devices: int = 1) -> int:
    raw = {
        "data": {"dataset": "diabetes"},
        "budget": {"trials": trials, "epochs": 1},
        "model": {"devices": devices},
    }
    return store.studies.submit(StudySpec.model_validate(raw).resolved("regression"))


def test_the_scaler_closes_the_gap_in_both_directions(store: Store) -> None:
    cluster, now = Cluster(room=3), [0.0]
    scaler = Scaler(store, cluster, Profile(min=1, max=6, trials_per_worker=10), lambda: now[0])
    scaler.step()
    assert (cluster.staying, cluster.others) == (1, 0)
    study = submit(store, 100)
    scaler.step()
    assert (cluster.staying, cluster.others) == (1, 5)
    scaler.step()
    assert cluster.census().all == 6
    store.studies.cancel(study)
    scaler.step()  # what waits for room is taken back, what runs ends by itself
    assert cluster.census() == Census(3, 0, 1)
    cluster.others = 0
    submit(store, 20)
    cluster.failed = 2
    scaler.step()
    assert cluster.census().all == 1  # not at once
    now[0] = 1.5
    scaler.step()
    assert cluster.census().all == 2
    scaler.stop(lambda _: False)
    assert cluster.census().all == 0


def test_workers_are_started_for_studies_that_they_can_take_and_of_others_it_is_told_why_not(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    submit(store, 20, devices=2)
    small, large = Cluster(room=9), Cluster(room=9)
    scaler = Scaler(store, small, Profile(trials_per_worker=10))
    for _ in range(3):
        scaler.step()
    assert small.census().all == 0
    told = "for 1 study no worker is started: they want up to 2 devices, and these have 1"
    assert [told in each.getMessage() for each in caplog.records if each.levelname == "WARNING"] == [True]
    Scaler(store, large, Profile(trials_per_worker=10, cpus=2, devices_per_trial=2)).step()
    assert large.census().all == 2
    assert caplog.text.count("no worker is started") == 1


def test_a_worker_of_several_devices_is_given_all_of_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on = {"devices_per_trial": 4, "cpus": 8, "gpus": 1, "memory_mb": 8192}
    profile = SlurmProfile.model_validate(on)
    assert worker_arguments(profile, stays=True)[-2:] == ["--devices-per-trial", "4"]
    assert worker_environment(profile, {})["REGSEARCH_WORKER_MEMORY_MB"] == "2048"
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in COMMANDS:
        (commands / name).touch(0o755)
    monkeypatch.setenv("PATH", str(commands))
    engine = SlurmEngine(profile, {"REGSEARCH_HOME": str(tmp_path)})
    assert {"--gres=gpu:4", "--cpus-per-task=8", "--mem=8192"} < {*engine.options()["sbatch"]}
    assert "--device cuda:0 --threads 8 --devices-per-trial 4" in engine.options()["script"]


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("max: 0", {}, "max: Input should be greater than or equal to 1, not 0"),
        ("", {"gpus": "0.4"}, "gpus: must be 0, 1 or 1/n for n workers that share a GPU, not 0.4"),
        ("min: 5", {"max": "2"}, "min: must not be above max, which is 2, not 5"),
        ("gpu: 1", {}, "gpu: there is no such value; there are min, max"),
        ("devices_per_trial: 2", {"cpus": "2", "gpus": "0.5"}, "gpus: must be 0 or 1 where a worker has several devices"),
        ("devices_per_trial: 4", {"cpus": "3"}, "cpus: must be 4 or more, a core for each of the devices_per_trial, not 3"),
        ("{devices_per_trial: 2, cpus: 2}", {"memory_mb": "2000"}, "memory_mb: must be 2048 or more, 1024 for each"),
        ("", {"devices_per_trial": "65"}, "devices_per_trial: Input should be less than or equal to 64, not '65'"),
        ("[1]", {}, "must be a mapping"),
        ("a: [", {}, "profile.yaml"),
        ("", {"env": ["A"]}, "env: must be NAME=VALUE, not ['A']"),
    ],
)
def test_what_is_wrong_with_a_profile_is_told(tmp_path: Path, text: str, options: dict[str, object], told: str) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(CannotLaunch) as error:
        read_profile(Profile, path, options)
    assert told in str(error.value)


def test_options_go_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text("max: 3\ngpus: 0.33\nenv: {A: b}\n")
    profile = read_profile(Profile, path, {"max": "5", "env": ["C=d=e"]})
    assert (profile.max, profile.workers_per_gpu, profile.env) == (5, 3, {"C": "d=e"})


def test_a_setting_from_a_file_is_not_handed_on_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGSEARCH_DB_URL_FILE", "/run/secrets/db-url")
    found = handed_on({"REGSEARCH_DB_URL": "sqlite:///a.db"})
    assert found["REGSEARCH_DB_URL"] == "sqlite:///a.db"
    assert "REGSEARCH_DB_URL_FILE" not in found


def test_an_engine_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["kubernetes", "--apply"]) == 1
    assert "there is no kubectl here" in capsys.readouterr().err


def test_a_job_runs_all_of_its_workers_and_tells_that_one_failed(tmp_path: Path) -> None:
    script = SCRIPT.format(unit=3, setup="export WHERE=here", command=f"sh -c 'mkdir {tmp_path}/$WHERE'")
    done = subprocess.run(["bash"], input=script, text=True, capture_output=True, check=False)
    assert (tmp_path / "here").is_dir()
    assert done.stderr.count("File exists") == 2
    assert done.returncode == 1
