"""The Python client against a running service: trials in this process, in others that are killed, in scripts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from regsearch import AsyncClient, Client, Ended, Refused, Trial, Unreachable

from service.cli.supervisor import free_port
from service.result.external import ExternalStudyResult
from tests.api.conftest import Serving
from tests.api.test_programs import SPEC, value

ROOT = Path(__file__).parents[2]


@pytest.fixture
def client(serving: Serving) -> Iterator[Client]:
    with Client(serving.url) as opened:
        yield opened


def loss(trial: Trial, step: int = 5) -> float:
    return value({"params": trial.params, "seed": trial.seed}, step)


def spec(**changes: Any) -> dict[str, Any]:
    return {name: part for name, part in {**SPEC, **changes}.items() if name != "executor"}


def test_a_loop_over_trials_runs_a_study(client: Client) -> None:
    study = client.study(spec())
    pruned = 0
    for trial in study.trials():
        with trial:
            for step in range(6):
                if trial.report(step, loss(trial, step)):
                    break
            pruned += trial.pruned
    assert study.wait(10) == "finished"
    result = study.result()
    assert isinstance(result, ExternalStudyResult)
    assert result.gain is not None
    assert result.gain.low > 0
    frame = study.frame()
    assert list(frame["number"]) == list(range(12))
    assert {"state", "value", "hidden", "use_weight_decay"} <= set(frame.columns)
    assert pruned == (frame["state"] == "pruned").sum() > 0
    assert frame["value"].min() == pytest.approx(study.refresh()["best"]["value"])


def test_a_function_is_run_in_threads(client: Client) -> None:
    study = client.study(spec(finals=False))
    seen: set[int] = set()

    def function(trial: Trial) -> float:
        seen.add(threading.get_ident())
        time.sleep(0.02)
        return loss(trial)

    study.run(function, threads=3)
    assert study.state == "finished"
    assert len(seen) > 1


def test_an_exception_tells_the_trial_as_failed(client: Client) -> None:
    study = client.study(spec())
    with pytest.raises(ZeroDivisionError):
        study.run(lambda trial: 1 / 0)
    first = study.connection.get(f"/v1/studies/{study.id}/trials/0")
    assert (first["state"], first["stop_reason"]) == ("fail", "ZeroDivisionError: division by zero")
    study.run(lambda trial: 1 / 0, catch=ZeroDivisionError)
    assert study.refresh()["reason"] == "no trial was completed; most often: ZeroDivisionError: division by zero"
    assert study.latest["trials"]["fail"] == 12


def test_a_trial_without_a_value_is_an_error(client: Client) -> None:
    study = client.study(spec())
    trials = study.trials()
    trial = next(trials)
    with pytest.raises(ValueError, match="ended without a value"):
        trial.__exit__(None, None, None)
    assert study.refresh()["trials"]["fail"] == 1


def test_what_is_open_when_the_loop_is_left_is_given_back(client: Client) -> None:
    study = client.study(spec())
    trials = study.trials()
    left = next(trials)
    left.report(0, 1.0)
    trials.close()
    assert left.report(1, 1.0)
    assert study.refresh()["trials"]["waiting"] == 1
    again = next(study.trials())
    assert (again.number, again.params, again.attempt) == (left.number, left.params, 0)


def test_a_told_trial_is_told_once(client: Client) -> None:
    study = client.study(spec(also={"size": "minimize"}, pruner="none", finals=False))
    trials = study.trials()
    trial = next(trials)
    trial.tell(0.5, also={"size": 3.0}, attrs={"note": "first"})
    for again in (lambda: trial.tell(0.5), lambda: trial.report(1, 0.5)):
        with pytest.raises(Ended):
            again()
    told = study.connection.get(f"/v1/studies/{study.id}/trials/0")
    assert (told["value"], told["also"], told["attrs"]["note"]) == (0.5, {"size": 3.0}, "first")


def test_cancelling_stops_the_loop(client: Client) -> None:
    study = client.study(spec())
    seen = 0
    for trial in study.trials():
        with trial:
            seen += 1
            study.cancel()
            assert trial.report(0, 1.0)
            assert trial.stopped == "the study is cancelled"
    assert seen == 1
    assert study.state == "cancelled"


def test_a_trial_that_is_stopped_ends_with_its_best_value(client: Client) -> None:
    study = client.study(spec(budget={"trials": 2}))
    for trial in study.trials():
        with trial:
            assert not trial.report(0, 0.25)
            if trial.number == 0:
                study.stop_trial(0)
                assert trial.report(1, 0.5)
                assert trial.stopped == "stopped"
        if trial.number == 1:
            break
    told = study.connection.get(f"/v1/studies/{study.id}/trials/0")
    assert (told["state"], told["value"], told["stop_reason"]) == ("complete", 0.25, "stopped")
    study.cancel()


def test_test_scores_are_told_with_the_finals(client: Client) -> None:
    study = client.study(spec(budget={"trials": 3, "finalists": 1, "seeds": 2}))
    for trial in study.trials():
        with trial:
            trial.tell(loss(trial), test=None if trial.purpose == "search" else 0.5 + loss(trial))
    result = study.result()
    assert isinstance(result, ExternalStudyResult)
    assert result.winner.test is not None
    assert len(result.test_record) == 1


def test_coroutines_do_the_same(serving: Serving) -> None:
    async def main() -> tuple[str, int]:
        async with AsyncClient(serving.url) as client:
            study = await client.study(spec(budget={"trials": 4, "finalists": 1, "seeds": 2}))
            async for trial in study.trials():
                async with trial:
                    if await trial.report(0, loss(trial.trial)):
                        continue
            assert (await client.studies(limit=1))[0].id == study.id
            return await study.wait(10), len(await study.frame())

    assert asyncio.run(main()) == ("finished", 4)


def test_a_study_is_found_by_its_id_and_a_wrong_one_refused(client: Client) -> None:
    study = client.study(spec())
    assert client.study(study.id).latest["name"] == study.latest["name"]
    with pytest.raises(Refused, match=r"space\.weight_decy"):
        client.study(spec(space={"weight_decy": 0.1}))
    with pytest.raises(Refused):
        client.study(999_999)
    with pytest.raises(Unreachable):
        Client(f"http://127.0.0.1:{free_port()}").studies()
    with pytest.raises(TimeoutError):
        study.wait(0.0)


def test_studies_of_workers_are_submitted_and_read_too(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b,y\n" + "".join(f"{n},{n % 7},{n % 2}\n" for n in range(100)))
    dataset = client.upload(path, "rows")
    study = client.study({"data": {"dataset": dataset, "target": "y"}})
    assert study.latest["spec"]["executor"] == "workers"
    study.pause()
    assert study.state == "paused"
    study.resume()
    study.cancel()
    assert study.wait(5) == "cancelled"


def test_data_are_fetched_by_the_service(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/rows.csv").write_text("a,y\n" + "".join(f"{n},{n % 2}\n" for n in range(100)))
    with closing(sqlite3.connect(tmp_path / "rows.db")) as connection, connection:
        connection.execute(
            "CREATE TABLE rows AS WITH RECURSIVE n(a) AS (SELECT 1 UNION SELECT a + 1 FROM n WHERE a < 50) "
            "SELECT a, a % 2 AS y FROM n"
        )
    (tmp_path / "all.sql").write_text("SELECT * FROM rows ORDER BY a\n")
    address, prefix = f"file://{tmp_path}/data/rows.csv", f"file://{tmp_path}/data/"
    databases = json.dumps({"main": f"sqlite:///{tmp_path}/rows.db"})
    own = Serving(tmp_path / "home", free_port(), data_prefixes=json.dumps([prefix]), databases=databases)
    with Client(own.url) as client:
        ids = [client.upload(address), client.query("main", "SELECT * FROM rows ORDER BY a", "all")]
        found = {each["id"]: each for each in client.connection.get("/v1/datasets")}
        assert [found[each]["rows"] for each in ids] == [100, 50]
        assert found[ids[0]]["source"]["address"] == address
        with pytest.raises(Refused, match="REGSEARCH_DATA_PREFIXES"):
            client.upload(f"file://{tmp_path}/rows.db")
    assert "unchanged since" in own.run("upload", address).stdout
    again = own.run("upload", "--database", "main", "--query", f"@{tmp_path}/all.sql", "--name", "all")
    assert ids[1] in again.stdout, again.stderr
    assert "main: SELECT * FROM rows ORDER BY a" in own.run("datasets").stdout
    assert "REGSEARCH_DATA_PREFIXES" in own.run("upload", "s3://bucket/x.csv").stderr

    async def upload() -> list[str]:
        async with AsyncClient(own.url) as client:
            return [await client.upload(address), await client.query("main", "SELECT * FROM rows ORDER BY a", "all")]

    assert asyncio.run(upload()) == ids
    own.stop()


PROGRAM = """
import os, sys, time
from regsearch import Client
study = Client(sys.argv[1]).study(int(sys.argv[2]))
for trial in study.trials(lease_seconds=2):
    with trial:
        for step in range(3):
            print(trial.name, flush=True)
            time.sleep(float(sys.argv[3]))
            if trial.report(step, 1.0 / (step + 1) + trial.params["hidden"]):
                break
"""


def program(url: str, study_id: int, pause: float) -> subprocess.Popen[str]:
    """A program of the user's, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'service/alias'}"}
    command = [sys.executable, "-c", PROGRAM, url, str(study_id), str(pause)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_program_that_is_killed_loses_nothing(serving: Serving, client: Client) -> None:
    study = client.study(spec(pruner="none", budget={"trials": 8, "finalists": 1, "seeds": 2}))
    with program(serving.url, study.id, 0.3) as killed, program(serving.url, study.id, 0.05) as other:
        assert killed.stdout is not None
        killed.stdout.readline()
        killed.send_signal(signal.SIGKILL)
        killed.wait(10)
        other.communicate(timeout=60)
        assert other.returncode == 0
    study.refresh()
    assert (study.latest["state"], study.latest["trials"]["complete"]) == ("finished", 8)
    assert study.connection.get(f"/v1/studies/{study.id}/trials", limit=500)["total"] == 8
    frame = study.frame()
    assert list(frame["number"]) == list(range(8))


def test_heartbeats_keep_a_trial_that_reports_nothing_for_long(client: Client) -> None:
    study, other = client.study(spec()), client.study(spec())
    for trial in study.trials(lease_seconds=4.0):
        with trial:
            for seconds in (2.5, 3.5):
                time.sleep(seconds)
                for each in other.trials():  # whoever asks takes away the leases that have expired
                    each.fail("only asking")
                    break
            assert not trial.report(0, 1.0)
        break
    assert study.refresh()["trials"]["complete"] == 1


SCRIPT = """
import argparse, json, math, os, sys
parser = argparse.ArgumentParser()
parser.add_argument("--weight_decay", type=float)
parser.add_argument("--hidden", type=int)
given = parser.parse_args()
assert json.loads(os.environ["REGSEARCH_PARAMS"])["hidden"] == given.hidden == int(os.environ["REGSEARCH_PARAM_HIDDEN"])
if given.hidden > 56:
    print("out of memory")
    sys.exit(3)
decay = 0.1 * (math.log10(given.weight_decay) + 2) ** 2 if given.weight_decay else 3.0
for step in range(6):
    value = decay + 1 / (1 + step) + 1e-3 * (int(os.environ["REGSEARCH_SEED"]) % 7)
    if step % 2:
        print(f"epoch {step}: train_val_loss=0, val_loss={value}")
    else:
        with open(os.environ["REGSEARCH_RESULTS"], "a") as file:
            file.write(json.dumps({"step": step, "val_loss": value}) + chr(10))
print(f"test_val_loss={decay + 0.5}")
"""


def test_an_unchanged_script_is_run_for_every_trial(serving: Serving, client: Client, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "study.json").write_text(json.dumps(SPEC))
    command = [sys.executable, str(tmp_path / "train.py"), "{args}"]
    given = ("--study", str(tmp_path / "study.json"), "--parallel", "3", "--url", serving.url)
    done = serving.run("run", *given, "--", *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "regularization gains" in " ".join(done.stdout.split())
    study = client.studies(limit=1)[0]
    trials = study.frame()
    assert study.latest["trials"]["finished"] == 12
    failed = trials[trials["state"] == "fail"]
    assert (failed["hidden"] > 56).all()
    assert all("ended with code 3: out of memory" in reason for reason in failed["stop_reason"])
    result = study.result()
    assert isinstance(result, ExternalStudyResult)
    assert result.winner.test is not None
    assert 0.5 <= result.winner.test.mean < 1.0


def test_an_interrupted_run_ends_its_scripts_and_gives_trials_back(serving: Serving, client: Client, tmp_path: Path) -> None:
    study = client.study(spec())
    mark = tmp_path / "pid"
    script = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    command = [sys.executable, "-m", "service.cli", "run", "--study", str(study.id), "--url", serving.url]
    running = subprocess.Popen([*command, "--", sys.executable, "-c", script], env=serving.environment)
    give_up = time.monotonic() + 60
    while not (mark.exists() and mark.read_text()):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    assert running.wait(30) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
    assert study.refresh()["trials"]["waiting"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--study", "no-such-file.yaml", "--", "true"), "no-such-file.yaml"),
        (("--study", "999999", "--", "true"), "999999"),
    ],
)
def test_what_can_t_be_run_is_told(serving: Serving, arguments: tuple[str, ...], message: str) -> None:
    done = serving.run("run", "--url", serving.url, *arguments)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_that_is_not_there_fails_the_trials(serving: Serving, client: Client) -> None:
    study = client.study(spec(budget={"trials": 2, "finalists": 1, "seeds": 2}))
    done = serving.run("run", "--url", serving.url, "--study", str(study.id), "--", "/no/such/program")
    assert done.returncode == 1
    assert "can't be started" in study.refresh()["reason"]
    assert "can't be started" in str(study.frame()["stop_reason"][0])


def test_a_program_waits_where_it_has_sent_too_many_requests(tmp_path: Path) -> None:
    """A limit on requests slows a program down; it loses no trial."""
    own = Serving(tmp_path / "home", free_port(), quota_requests="60")
    with Client(own.url) as slowed:
        study = slowed.study(spec(budget={"trials": 3, "epochs": 50}, finals=False))
        for trial in study.trials():
            for step in range(20):
                if trial.report(step, 1.0 / (step + 1)):
                    break
        assert study.state == "finished"
        told = [study.connection.get(f"/v1/studies/{study.id}/trials/{number}") for number in range(3)]
        assert [trial["state"] for trial in told] == ["complete"] * 3
    assert any(line.get("status") == 429 for line in own.lines())
    own.stop()
