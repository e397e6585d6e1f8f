"""docker-compose.yml as far as it goes without Docker: the schema, and every container's own command as a process."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from service.cli.supervisor import free_port
from service.client.connection import HttpClient
from tests.acceptance.conftest import wait_for
from tests.acceptance.crash import Postgres

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
OURS = ("api", "dashboard", "worker")
Running = tuple[dict[str, int], dict[str, Any], dict[str, str]]
"""Ports, services, and the environment of the worker."""


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(COMPOSE.read_text())["services"]
    return found


def test_the_file_is_valid_compose() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_images_are_built_from_what_is_there(services: dict[str, Any]) -> None:
    for service in services.values():
        if "build" not in service:
            continue
        dockerfile = ROOT / service["build"]["dockerfile"]
        for line in re.findall(r"^COPY (.+)$", dockerfile.read_text(), re.MULTILINE):
            for source in line.split()[:-1]:
                assert (ROOT / source).exists(), f"{dockerfile}: {source}"
    assert "torch" not in re.sub("#.*", "", (ROOT / "service/Dockerfile").read_text())


def test_the_password_is_in_a_file_and_nowhere_else(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if name in (*OURS, "postgres"):
            assert service["secrets"] == ["db_password"], name
            files = {key: value for key, value in service["environment"].items() if "PASSWORD" in key}
            assert all(key.endswith("_FILE") and value == "/run/secrets/db_password" for key, value in files.items()), name
        assert "POSTGRES_PASSWORD}" not in str(service), name


def test_containers_are_confined_and_their_images_pinned(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"] > 0, name
        if name in (*OURS, "postgres"):
            assert service["healthcheck"]["test"], name
        if "image" in service:
            assert re.search(r":(v?\d+\.\d+|RELEASE\.\d{4}-)", service["image"]), name
        else:
            text = (ROOT / service["build"]["dockerfile"]).read_text()
            assert re.search(r"^FROM \S+:\d+\.\d+\.\d+-", text, re.MULTILINE), name
            assert re.search(r"^USER (?!root)", text, re.MULTILINE), name


@pytest.fixture
def running(services: dict[str, Any], tmp_path: Path) -> Iterator[Running]:
    """The commands of all containers as processes, with their environment; only addresses and paths differ."""
    postgres = Postgres()
    ports = {"8000": free_port(), "8080": free_port()}
    replaced = {"/data": str(tmp_path), "0.0.0.0": "127.0.0.1", **{port: str(free) for port, free in ports.items()}}
    secret = tmp_path / "db_password"
    secret.write_text("p@ss/w:rd\n")
    processes = []
    for name in OURS:
        # As compose does where the variable is not set.
        given = {
            key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value or ""))
            for key, value in services[name]["environment"].items()
        }
        given["REGSEARCH_DB_URL"] = postgres.url
        given["REGSEARCH_DB_PASSWORD_FILE"] = str(secret)
        for key in ("REGSEARCH_HOME", "REGSEARCH_CACHE", "REGSEARCH_HOST", "REGSEARCH_PORT"):
            for old, new in replaced.items():
                given[key] = given.get(key, "").replace(old, new)
        environment = {**os.environ, **{key: value for key, value in given.items() if value}}
        program, *arguments = services[name]["command"]
        found = shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        assert found, program
        with (tmp_path / f"{name}.log").open("wb") as log:
            processes.append(subprocess.Popen([found, *arguments], env=environment, stdout=log, stderr=log))
        if name == "api":  # the others depend on it being healthy
            client = HttpClient(f"http://127.0.0.1:{ports['8000']}")
            client.wait_until_ready(120)
            client.close()
    yield ports, services, environment
    for process in processes:
        process.terminate()
    for process in processes:
        assert process.wait(timeout=60) in (0, -signal.SIGTERM)  # uvicorn hands the signal on when it is done
    postgres.stop()


def test_every_container_does_its_part(running: Running) -> None:
    ports, services, environment = running
    client = HttpClient(f"http://127.0.0.1:{ports['8000']}")
    spec = {
        "data": {"dataset": "wine"},
        "model": {"widths": [8]},
        "budget": {"trials": 8, "epochs": 3, "finalists": 1, "seeds": 2},
    }
    study = client.post("/v1/studies", spec)
    wait_for(lambda: client.get(f"/v1/studies/{study['id']}")["state"] == "finished")
    for name, port in (("api", "8000"), ("dashboard", "8080")):
        _, program, *arguments = services[name]["healthcheck"]["test"]
        code = [each.replace(port, str(ports[port])) for each in arguments]
        command = [sys.executable if program == "python" else program, *code]
        assert subprocess.run(command, check=False).returncode == 0
    _, _, *arguments = services["worker"]["healthcheck"]["test"]
    assert subprocess.run([sys.executable, *arguments], env=environment, check=False).returncode == 0
    client.close()
