"""The commands against a real service, run in this process: what they print, and their exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from service.cli import commands, context
from service.cli.supervisor import free_port
from service.settings import Settings
from service.store import open_store
from tests import results as made_up
from tests.api.conftest import Serving
from tests.api.test_routes import SMALL, finish
from tests.trained import keep_onnx, models_of


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def command(serving: Serving, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`regsearch …` with the settings of the service, on a wide terminal."""
    return command_of(serving, monkeypatch, capsys)


def command_of(serving: Serving, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    settings = Settings(home=serving.home, port=int(serving.url.rsplit(":", 1)[1]))
    monkeypatch.setattr(context, "load_settings", lambda: settings)
    for name in ("out", "err"):
        console = Console(stderr=name == "err", width=200, markup=False, emoji=False)
        monkeypatch.setattr(context, name, console)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["regsearch", *arguments])
        with pytest.raises(SystemExit) as ended:
            commands.main()
        said = capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run


def test_a_real_process_does_the_same(serving: Serving) -> None:
    done = serving.run("show", "999999")
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not exist" in done.stderr
    assert serving.run("--help").returncode == 0


def test_commands_speak_to_it(serving: Serving, command: Command, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: '[/b] [red]:smile:'\ndata: {dataset: diabetes}\nspace: {l1: off, dropout: {low: 1e-1, high: 0.5}}\n"
        "budget: {trials: 100}\n"
    )
    submitted = command("submit", str(path))
    assert submitted.returncode == 0, submitted.stderr
    study = serving.client.get("/v1/studies")["studies"][0]
    assert study["spec"]["space"]["l1"] == "off"
    number = str(study["id"])
    assert "[/b] [red]:smile:" in command("list").stdout
    assert "[/b] [red]:smile:" in command("show", number).stdout
    assert json.loads(command("show", number, "--json").stdout)["id"] == study["id"]
    assert "paused" in command("pause", number).stdout
    assert "queued" in command("resume", number).stdout
    assert "of 150" in command("extend", number, "--trials", "50").stdout
    assert json.loads(command("show", number, "--json").stdout)["priority"] == 0
    assert command("set", number).returncode == 2
    assert "of 160" in command("set", number, "--priority", "4", "--trials", "160", "--seconds", "60").stdout
    assert command("set", number, "--seconds", "0").returncode == 0
    now = json.loads(command("show", number, "--json").stdout)
    assert (now["priority"], now["spec"]["budget"]["seconds"]) == (4, None)
    assert "tags" in command("set", number, "--tag", "from the terminal", "--notes", "[b]bold").stdout
    assert "[/b] [red]:smile:" in command("list", "--tag", "from the terminal", "--sort", "name").stdout
    assert "[b]bold" in command("show", number).stdout
    shown = command("changes", number).stdout
    assert all(words in shown for words in ("budget.trials", "150", "160", "priority", "paused")), shown
    logged = command("audit", "--under", f"studies/{number}", "--limit", "3").stdout
    assert all(words in logged for words in ("PATCH /v1/studies/{study_id}", f"studies/{number}", "200")), logged
    used = command("usage").stdout
    assert all(words in used for words in ("default", "trials left", "MiB")), used
    beside = command("compare", number, number)
    assert all(words in beside.stdout for words in ("[/b] [red]:smile:", "rmse", f"/compare?ids={number},{number}")), beside
    missing = command("stop", number, "0")
    assert (missing.returncode, f"trial '{number}/0' does not exist" in missing.stderr) == (2, True)
    again = command("replay", number, "--no-watch")
    assert (again.returncode, f"repeats study {number}" in again.stdout) == (0, True)
    too_soon = command("result", number)
    assert (too_soon.returncode, "it has no result" in too_soon.stderr) == (2, True)
    assert command("delete", number).returncode == 2
    assert "cancelled" in command("cancel", number).stdout
    assert command("watch", number).returncode == 1
    assert "is deleted" in command("delete", number).stdout
    assert "does not exist" in command("show", number).stderr


def test_an_onnx_model_is_waited_for_while_a_worker_makes_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    own = Serving(tmp_path / "home", free_port())
    store = open_store(Settings(home=own.home).database_url)
    own.client.post("/v1/studies", SMALL)
    finish(store, made_up.result(), b"PK archive")
    models, waits = models_of(store), list[float]()

    def asleep(seconds: float) -> None:
        """The worker is done in the second pause."""
        waits.append(seconds)
        if len(waits) == 2:
            keep_onnx(store, models, 1, b"a model")

    monkeypatch.setattr("service.client.connection.time.sleep", asleep)
    command, path = command_of(own, monkeypatch, capsys), tmp_path / "model.onnx"
    done = command("model", "1", "--onnx", "--out", str(path))
    assert (done.returncode, path.read_bytes(), waits) == (0, b"a model", [5.0, 5.0]), done.stderr
    keep_onnx(store, models, 1, None, "too strange")
    done = command("model", "1", "--onnx")
    assert (done.returncode, "no ONNX model: too strange" in done.stderr, len(waits)) == (2, True, 2)
    store.close()
    own.stop()


def test_data_sets_from_the_command_line(serving: Serving, command: Command, tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("age,class\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(40)))
    added = command("datasets", "add", str(table), "--name", "my [people]")
    assert "40 rows, 2 columns" in added.stdout, added.stderr
    assert "40 rows, 2 columns; unchanged since" in command("upload", str(table), "--name", "my [people]").stdout
    (tmp_path / "more.csv").write_text(table.read_text() + "50,a\n")
    first = added.stdout.split()[2].removesuffix(":")
    assert (
        f"earlier ones named 'my [people]': {first}"
        in command("upload", str(tmp_path / "more.csv"), "--name", "my [people]").stdout
    )
    shown = command("datasets")
    assert "my [people]" in shown.stdout
    assert "age (numeric), class (categorical)" in shown.stdout
    assert "diabetes" in shown.stdout
    assert json.loads(command("datasets", "--json").stdout)[0]["name"] == "my [people]"
    (tmp_path / "people.pkl").write_bytes(b"x")
    assert command("datasets", "add", str(tmp_path / "people.pkl")).returncode == 2
    assert "people.csv" in command("datasets", "show", first).stdout
    assert json.loads(command("datasets", "show", first, "--json").stdout)["sha256"].startswith(first)
    for wrong in ((), (str(table), "--query", "SELECT 1"), ("--query", "SELECT 1"), (str(tmp_path / "nobody.csv"),)):
        assert command("upload", *wrong).returncode == 2
    assert command("workers").returncode == 0


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (
            "data: {dataset: diabetes}\nspace: {dropuot: 0.5}\nseed: -1\n",
            2,
            ["space.dropuot", "did you mean dropout?", "≥ 0"],
        ),
        ("data: {dataset: diabetes}\nspace: {normalization: [none, bacth]}\n", 2, ["choices.1", "bacth", "none, batch"]),
        ("data: {dataset: diabetes}\nname: 2026-01-31\nseed: x\n", 2, ["seed", "an integer"]),
        ("data: [", 1, ["is not YAML"]),
        ("data: {dataset: a}\ndata: {dataset: b}\n", 1, ["is not YAML"]),
        ("seed: .nan\n", 1, ["a value that JSON can't represent"]),
        ("a: &a [*a]\n", 1, ["a value that JSON can't represent"]),
        ("", 2, ["body", "an object with the keys"]),
    ],
)
def test_what_is_wrong_with_a_file_is_a_table(
    serving: Serving, command: Command, tmp_path: Path, text: str, code: int, said: list[str]
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    done = command("submit", str(path))
    assert done.returncode == code, done.stderr
    for words in said:
        assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "http://[bad", "ftp://127.0.0.1"])
def test_nobody_there_is_one_clear_line(serving: Serving, command: Command, url: str) -> None:
    done = command("list", "--url", url)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
