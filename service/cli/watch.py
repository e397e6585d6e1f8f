"""The live progress bar of a study; without a terminal, a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from service.cli.render import number, seconds
from service.client.connection import HttpClient, Refused, Unreachable, is_outage
from service.client.study import ENDED

_LINE_SECONDS = 5.0
_POLL_SECONDS = 0.25
OUTAGE_SECONDS = 30.0
"""How long a service may be unreachable, as during a restart, before watching it fails."""


def watch(client: HttpClient, study_id: int, console: Console, alive: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Show a study's progress until it has ended or is paused; returns it. ``alive`` is called before every poll.

    Raises:
        Refused: The study does not exist, or the service returns server errors for more than `OUTAGE_SECONDS`.
        Unreachable: The service is unreachable at the start, or for more than `OUTAGE_SECONDS`.
    """
    study: dict[str, Any] = client.get(f"/v1/studies/{study_id}")
    with Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=30),
        Counts(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(f"study {study_id}", total=None, study=None)
        printed = 0.0
        while True:
            trials = study["trials"]
            label = "finalists" if study["state"] == "finalizing" else f"study {study_id}"
            progress.update(task, completed=trials["finished"], total=trials["budget"], study=study, description=label)
            ended = study["state"] in (*ENDED, "paused")
            if not console.is_terminal and (ended or time.monotonic() - printed > _LINE_SECONDS):
                console.print(line(study), highlight=False)
                printed = time.monotonic()
            if ended:
                return study
            time.sleep(_POLL_SECONDS)
            study = _poll(client, study_id, alive)


def _poll(client: HttpClient, study_id: int, alive: Callable[[], None]) -> dict[str, Any]:
    """The study as it is now; an outage is waited out."""
    give_up = time.monotonic() + OUTAGE_SECONDS
    while True:
        alive()
        try:
            study: dict[str, Any] = client.get(f"/v1/studies/{study_id}")
        except (Unreachable, Refused) as error:
            if not is_outage(error) or time.monotonic() > give_up:
                raise
            time.sleep(1.0)
        else:
            return study


def line(study: Mapping[str, Any]) -> str:
    """A study's progress in one line."""
    trials, best = study["trials"], study["best"]
    parts = [
        f"{trials['finished']}/{trials['budget']} finished",
        f"{trials['running']} running",
        f"{trials['pruned']} pruned",
    ]
    if trials["fail"]:
        parts.append(f"{trials['fail']} failed")
    if best:
        parts.append(f"best {study['metric']} {number(best['value'])}")
    if study["state"] == "running":
        parts.append(f"{seconds(study['remaining_seconds'])} left")
    elif study["state"] != "finished":
        parts.append(study["state"])
    return " · ".join(parts)


class Counts(ProgressColumn):
    """Finished, running and pruned trials, the best value, the time left."""

    def render(self, task: Task) -> Text:
        """The column for a study; "waiting" before the first poll."""
        study = task.fields.get("study")
        return Text(line(study) if study else "waiting")
