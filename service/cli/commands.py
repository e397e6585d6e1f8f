"""The application of the command line, and the commands that start processes; others are in modules by purpose."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from service.cli import administration, changing, context, databases, doctor, local, render, studies
from service.cli.context import settings_of
from service.cli.options import Home, Port
from service.client.connection import Refused
from service.errors import RegsearchError
from service.settings import load_settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find the regularization that makes a neural network generalize.",
)


def main() -> None:
    """Run the command line; every expected failure is one clear message and an exit code."""
    try:
        with context.resources:
            app()
    except Refused as error:
        context.err.print(render.refusal(error))
        sys.exit(2)
    except (RegsearchError, OSError) as error:
        context.err.print(str(error), style="red", highlight=False, soft_wrap=True)
        sys.exit(1)


@app.command()
def up(
    workers: Annotated[int | None, typer.Option(min=0, help="Number of workers; default: one per device.")] = None,
    workers_per_device: Annotated[
        int, typer.Option(min=1, max=64, help="Workers on each device, with a share of its memory each.")
    ] = 1,
    port: Port = None,
    home: Home = None,
) -> None:
    """Start the API, the dashboard and one worker per device; Ctrl-C stops all of them."""
    if workers is not None and workers_per_device > 1:
        raise typer.BadParameter(
            f"can't be combined with --workers {workers}; give one of the two", param_hint="--workers-per-device"
        )
    local.up(settings_of(home, port), context.out, workers, workers_per_device)


@app.command()
def serve(port: Port = None, home: Home = None) -> None:
    """Start the API and the dashboard only."""
    local.serve(settings_of(home, port))


@app.command()
def worker(
    device: Annotated[str | None, typer.Option(help="cpu, cuda:0, …; default: the first device.")] = None,
    devices_per_trial: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes, a device each, for networks that want several.")
    ] = None,
) -> None:
    """Start one worker in the foreground."""
    local.work(device, devices_per_trial or load_settings().devices_per_trial)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False)
def launch(given: typer.Context) -> None:
    """Start workers on Ray, Slurm or Kubernetes as the queue wants them: `regsearch launch ray --help`."""
    local.launch(given.args)


@app.command()
def warm(
    datasets: Annotated[
        list[str] | None, typer.Argument(metavar="DATASET", help="Built-in data sets; default: all.")
    ] = None,
) -> None:
    """Compile the programs of studies with all defaults now, so that the first one need not wait for them."""
    local.warm(datasets or [])


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running afterwards.")] = False,
    trials: Annotated[int, typer.Option(min=10, max=10_000, help="Trials of the study.")] = 60,
) -> None:
    """Search a real data set, from start to result, in about a minute."""
    local.demo(settings_of(), context.out, keep=keep, trials=trials)


@app.command("doctor")
def examine(port: Port = None, home: Home = None) -> None:
    """Check database, schema, devices, disk and port."""
    if not doctor.examine(settings_of(home, port), context.out):
        raise typer.Exit(1)


for part in (studies.app, changing.app, administration.app, databases.app):
    app.add_typer(part)
