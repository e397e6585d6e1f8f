"""Who may import whom: read from the source, and checked once more in fresh processes."""

from __future__ import annotations

import ast
import subprocess
import sys
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
    "onnx": "service.onnx_export",
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
    "service.datasets": ("service.search", "service.store", "service.api", "service.cli", "service.spec"),
    "service.search": ("service.store", "service.api", "service.cli"),
    "service.store": ("service.search", "service.api", "service.cli"),
    "service.report": ("service.api", "service.cli", "service.store.engine"),
    "service.api": ("service.cli",),
    "workers": ("service.api", "service.cli"),
    "workers.stack": ("service.store", "workers.worker", "workers.searching", "workers.planning", "workers.answer"),
    "workers.scoring": ("service.store", "workers.searching", "workers.answer"),
    "workers.models": ("service.store",),
    "workers.searching.session": ("workers.data.locked",),
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
    # The supervisor hands the environment on to its children, and reads nothing from it.
    assert reading == ["supervisor.py"]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("service.api.app", ("torch", "sklearn", "workers")),
        ("service.cli", ("torch", "sklearn", "workers", "fastapi")),
        ("workers.worker", ("fastapi", "starlette", "uvicorn")),
    ],
)
def test_a_fresh_process_loads_no_more_than_it_needs(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
