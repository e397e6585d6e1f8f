"""What a launched worker is given, and how many there may be: from a YAML file, each value of which is also an option."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from service.errors import RegsearchError
from service.spec.model import MOST_DEVICES
from service.store.demand import TRIALS_PER_WORKER

P = TypeVar("P", bound="Profile")
LEAST_MEMORY_MB = 1024


class CannotLaunch(RegsearchError):
    """Workers can't be started: a profile is wrong, or an engine is not there."""


def _pairs(value: object) -> object:
    """A mapping, also from the words ``NAME=VALUE`` of a command line."""
    if not isinstance(value, list | tuple):
        return value
    if not all(isinstance(each, str) and "=" in each for each in value):
        raise ValueError("must be NAME=VALUE")
    return dict(each.split("=", 1) for each in value)


Names = Annotated[dict[str, str], BeforeValidator(_pairs)]
Amounts = Annotated[dict[str, float], BeforeValidator(_pairs)]


class Profile(BaseModel):
    """What all engines have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: int = Field(0, ge=0, description="Workers that are there even if the queue has nothing for them.")
    max: int = Field(8, ge=1, description="Most workers at once.")
    idle_seconds: float = Field(60.0, gt=0, description="A worker beyond `min` ends after this time without work.")
    trials_per_worker: int = Field(
        TRIALS_PER_WORKER, ge=1, description="Trials of one study that a further worker is wanted for."
    )
    poll_seconds: float = Field(5.0, gt=0, description="How often the queue is looked at.")
    grace_seconds: float = Field(
        120.0, gt=0, description="How long workers that are stopped may take to save their lanes and give them back."
    )
    cpus: int = Field(1, ge=1, description="CPU cores of a worker.")
    gpus: float = Field(0.0, ge=0, le=1, description="0, 1, or 1/n of a GPU where n workers are to share it: 0.5, 0.25 …")
    devices_per_trial: int = Field(
        1,
        ge=1,
        le=MOST_DEVICES,
        description="Devices of a worker, for studies of `model.devices`: GPUs, or CPU processes.",
    )
    memory_mb: int | None = Field(None, ge=LEAST_MEMORY_MB, description="Memory of a worker, in MiB; default: the engine's.")
    env: Names = Field({}, description="Further environment variables of the workers.")

    @model_validator(mode="after")
    def _whole(self) -> Profile:
        if self.min > self.max:
            raise ValueError(f"min: must not be above max, which is {self.max}, not {self.min}")
        if self.gpus and abs(1 / self.gpus - round(1 / self.gpus)) > 0.05:
            raise ValueError(f"gpus: must be 0, 1 or 1/n for n workers that share a GPU, not {self.gpus:g}")
        devices = self.devices_per_trial
        if devices > 1 and self.gpus not in (0, 1):
            raise ValueError(f"gpus: must be 0 or 1 where a worker has several devices, whole ones, not {self.gpus:g}")
        if self.cpus < devices:
            raise ValueError(f"cpus: must be {devices} or more, a core for each of the devices_per_trial, not {self.cpus}")
        if self.memory_mb is not None and self.memory_mb < devices * LEAST_MEMORY_MB:
            least = f"{devices * LEAST_MEMORY_MB} or more, {LEAST_MEMORY_MB} for each of the devices_per_trial"
            raise ValueError(f"memory_mb: must be {least}, not {self.memory_mb}")
        return self

    @property
    def gpus_per_worker(self) -> float:
        """A part of one, or one for each device."""
        return self.gpus * self.devices_per_trial

    @property
    def workers_per_gpu(self) -> int:
        """How many workers share a GPU; 1 where none is asked for."""
        return round(1 / self.gpus) if self.gpus else 1


def read_profile(kind: type[P], path: Path | None, options: dict[str, Any]) -> P:
    """The profile in a YAML file, with ``options`` in place of some of its values.

    Raises:
        CannotLaunch: The file can't be read, or a value can't be; the message names it.
    """
    given: Any = {}
    if path is not None:
        try:
            given = YAML(typ="safe", pure=True).load(path.read_text()) or {}
        except (OSError, YAMLError, UnicodeDecodeError) as error:
            raise CannotLaunch(f"{path}: {error}") from None
        if not isinstance(given, dict):
            raise CannotLaunch(f"{path}: must be a mapping such as `max: 8`, not {given!r}")
    try:
        return kind.model_validate(given | options)
    except ValidationError as error:
        raise CannotLaunch("\n".join(_line(kind, issue) for issue in error.errors())) from None


def _line(kind: type[Profile], issue: Any) -> str:
    message = issue["msg"].removeprefix("Value error, ")
    if not issue["loc"]:
        return str(message)
    where = ".".join(map(str, issue["loc"]))
    if issue["type"] == "extra_forbidden":
        return f"{where}: there is no such value; there are {', '.join(kind.model_fields)}"
    return f"{where}: {message}, not {issue['input']!r}"
