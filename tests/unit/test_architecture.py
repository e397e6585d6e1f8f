"""Who may import whom: read from the source, and checked once more in fresh processes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def imports() -> Iterator[tuple[str, str]]:
    """(module, imported module) for every import of the project, those inside functions included."""
    for package in ("service", "workers"):
        for path in (ROOT / package).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    yield from ((module, alias.name) for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module:
                    yield module, node.module


ALLOWED_IN = {
    "torch": "workers",
    "sklearn": "workers",
    "fastapi": "service.api",
    "starlette": "service.api",
    "sqlalchemy": "service.store",
    "alembic": "service.store",
    "onnx": "workers.archive",
    "typer": "service.cli",
    "rich": "service.cli",
}


def test_libraries_stay_in_their_layer() -> None:
    wrong = [
        (module, name)
        for module, name in imports()
        for library, layer in ALLOWED_IN.items()
        if name.split(".")[0] == library and not f"{module}.".startswith(f"{layer}.")
    ]
    assert wrong == []


FORBIDDEN = {
    "service": ("workers",),
    "service.spec": ("service.search", "service.store", "service.api", "service.cli"),
    "service.objects": ("service.datasets", "service.search", "service.store", "service.api", "service.cli", "service.spec"),
    "service.datasets": ("service.search", "service.store", "service.api", "service.cli", "service.spec"),
    "service.search": ("service.store", "service.api", "service.cli"),
    "service.store": ("service.search", "service.api", "service.cli"),
    "service.external": ("service.api", "service.cli", "service.store.engine"),
    "service.client": ("service.api", "service.cli", "service.store", "service.search", "service.external"),
    "service.webhooks": ("service.api", "service.cli", "service.store.engine"),
    "service.report": ("service.api", "service.cli", "service.store.engine"),
    "service.api": ("service.cli",),
    "workers": ("service.api", "service.cli"),
    "workers.stack": ("service.store",),
    "workers.scoring": ("service.store",),
    "workers.data": ("service.store", "torch"),
    "workers.plain": ("service", "workers"),
    "workers.planning": ("service.store",),
    "workers.searching": ("workers.data.locked",),
}


def test_layers_import_downwards() -> None:
    wrong = [
        (module, name)
        for module, name in imports()
        for layer, others in FORBIDDEN.items()
        for other in others
        if f"{module}.".startswith(f"{layer}.") and f"{name}.".startswith(f"{other}.")
    ]
    assert wrong == []


def private_names_of_optuna(path: Path) -> Iterator[str]:
    """Private modules and names of Optuna that a file imports, or reaches through the package itself."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                named = [alias.name for alias in node.names]
            case ast.ImportFrom(module=str(module)):
                named = [f"{module}.{alias.name}" for alias in node.names]
            case ast.Attribute():
                named = [ast.unparse(node)]
            case _:
                continue
        yield from (name for name in named if re.match(r"optuna\.(\w+\.)*_(?!_)", name))


def test_optunas_private_names_are_in_one_module() -> None:
    """They may change with any minor version of Optuna, so pyproject.toml allows a single one."""
    found = {
        path.relative_to(ROOT).as_posix(): [*private_names_of_optuna(path)]
        for package in ("service", "workers")
        for path in (ROOT / package).rglob("*.py")
    }
    assert [path for path, names in found.items() if names] == ["service/optuna_private.py"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pinned,) = (line for line in project["dependencies"] if line.startswith("optuna>"))
    assert re.fullmatch(r"optuna>=5\.(\d+),<5\.(\d+)", pinned)
    least, below = map(int, re.findall(r"5\.(\d+)", pinned))
    assert below == least + 1


ROOMS = (
    ("workers.timing", ()),
    ("workers.seeds", ()),
    ("workers.liveness", ()),
    ("workers.plain", ()),
    ("workers.data", ("plain",)),
    ("workers.scoring", ("data", "plain")),
    ("workers.stack", ("plain", "data", "scoring", "timing")),
    ("workers.archive", ("plain", "data")),
    ("workers.study_data", ("plain", "data", "stack", "archive")),
    ("workers.planning", ("stack",)),
    ("workers.searching", ("data", "scoring", "stack", "planning", "study_data", "liveness", "seeds", "timing")),
    (
        "workers.answer",
        ("plain", "data", "scoring", "stack", "archive", "planning", "study_data", "liveness", "seeds", "timing"),
    ),
    ("workers.onnx_models", ("archive", "plain", "liveness")),
    ("workers.warm", ("data", "planning", "stack", "study_data")),
    ("workers.worker", ("stack", "study_data", "searching", "answer", "liveness", "onnx_models")),
)
"""The rooms of the workers, each with those that it may use, which stand above it."""


def room_of(module: str) -> str | None:
    return next((room for room, _ in ROOMS if f"{module}.".startswith(f"{room}.")), None)


def test_rooms_of_the_workers_import_one_way() -> None:
    used: dict[str, set[str]] = {room: set() for room, _ in ROOMS}
    for module, name in imports():
        room, other = room_of(module), room_of(name)
        if room is not None and other is not None and room != other:
            used[room].add(other.removeprefix("workers."))
    assert used == {room: set(others) for room, others in ROOMS}
    order = [room for room, _ in ROOMS]
    assert all(order.index(f"workers.{other}") < order.index(room) for room, others in ROOMS for other in others)


def test_only_a_runner_reaches_its_stack() -> None:
    reaching = [
        f"{path.name}:{node.lineno}"
        for room in ("searching", "planning", "answer")
        for path in (ROOT / "workers" / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("stack", "_stack")
        if not (isinstance(node.value, ast.Name) and node.value.id in ("torch", "np"))
    ]
    assert reaching == []


def test_a_result_needs_nothing_but_pydantic_and_the_words_of_a_spec() -> None:
    """Whoever reads a result, a client among them, loads no more than this."""
    foreign = {
        (module, name)
        for module, name in imports()
        if f"{module}.".startswith("service.result.")
        and name.split(".")[0] not in sys.stdlib_module_names
        and not f"{name}.".startswith(("pydantic.", "service.result.", "service.spec."))
    }
    assert foreign == set()


def test_only_settings_read_the_environment() -> None:
    reading = [
        path.name
        for package in ("service", "workers")
        for path in (ROOT / package).rglob("*.py")
        if "os.environ" in path.read_text() and path.name != "settings.py"
    ]
    # The supervisor, the launchers and workers on several devices hand the environment on to what they start, and read
    # nothing from it. A client's token is no setting of a service, and its package does without pydantic's; what torchrun
    # tells its processes is none either.
    assert sorted(reading) == ["command.py", "credentials.py", "followers.py", "link.py", "supervisor.py"]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("service.api.app", ("torch", "sklearn", "workers")),
        ("service.cli", ("torch", "sklearn", "workers", "fastapi")),
        ("service.client", ("torch", "sklearn", "workers", "fastapi", "optuna", "sqlalchemy", "pandas", "numpy")),
        ("workers.worker", ("fastapi", "starlette", "uvicorn")),
        ("workers.launch.__main__", ("torch", "sklearn", "fastapi", "ray")),
    ],
)
def test_a_fresh_process_loads_no_more_than_it_needs(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
