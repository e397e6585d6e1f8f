"""The command line of a launched worker, the same with every engine."""

from __future__ import annotations

import os

from workers.launch.profile import Profile


def worker_arguments(profile: Profile, *, stays: bool) -> list[str]:
    """The arguments after `python`; a worker that ``stays`` does not end when it has been idle."""
    gpu = profile.gpus > 0
    arguments = ["-m", "workers", "--device", "cuda:0" if gpu else "cpu", "--threads", str(profile.cpus)]
    if 0 < profile.gpus < 1:
        arguments += ["--memory-share", f"{1 / profile.workers_per_gpu:.4g}"]
    if profile.devices_per_trial > 1:
        arguments += ["--devices-per-trial", str(profile.devices_per_trial)]
    return arguments if stays else [*arguments, "--idle-seconds", f"{profile.idle_seconds:g}"]


def worker_environment(profile: Profile, settings: dict[str, str]) -> dict[str, str]:
    """The variables that a worker needs: the ``settings`` of this process, then the profile's."""
    memory = {}
    if profile.memory_mb is not None:  # the setting is for each process of a worker
        memory["REGSEARCH_WORKER_MEMORY_MB"] = str(profile.memory_mb // profile.devices_per_trial)
    return {**settings, **memory, "OMP_NUM_THREADS": str(profile.cpus), **profile.env}


def handed_on(environment: dict[str, str]) -> dict[str, str]:
    """The environment of this process, for one that it starts, with ``environment`` over it.

    A setting that was read from a file, `REGSEARCH_…_FILE`, must not be given twice.
    """
    files = {f"{name}_FILE" for name in environment}
    return {name: value for name, value in os.environ.items() if name not in files} | environment
