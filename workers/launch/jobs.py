"""Workers as job arrays of Slurm: submitted by sbatch, counted by squeue, stopped by scancel.

Some time before its limit a job is told; its workers save their lanes and give them back, and the job is requeued. A job
that Slurm preempts or whose node fails is requeued by Slurm.
"""

from __future__ import annotations

import logging
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from workers.launch.command import handed_on, worker_arguments, worker_environment
from workers.launch.profile import CannotLaunch, Profile
from workers.launch.scaler import Census, EngineTrouble

log = logging.getLogger(__name__)

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol")
ANSWER_SECONDS = 60.0
MOST_IN_AN_ARRAY = 500
STAYS = "stays"
RUNNING = ("RUNNING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
ENDING = ("COMPLETING",)
"""Still on a node, and pending next if requeued: a worker asked for in place of it would be one too many."""
PENDING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT")
FAILED = ("FAILED", "OUT_OF_MEMORY", "BOOT_FAIL")
PASSING = ("contact slurm controller", "timed out", "temporarily", "Unable to establish", "Zero Bytes")
"""Parts of messages of a Slurm that may answer later."""

SCRIPT = """#!/bin/bash
# A job of {unit} of regsearch's workers.
{setup}
pids=()
for _ in $(seq {unit}); do
  {command} &
  pids+=($!)
done
again=no
stop() {{ kill -TERM "${{pids[@]}}" 2>/dev/null; }}
trap 'again=yes; stop' USR1  # the time limit is near
trap stop TERM  # the launcher stops it, or Slurm, which requeues by itself what it preempts
code=0
for pid in "${{pids[@]}}"; do
  while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done  # a trap ends the wait, not the worker
  wait "$pid" || code=$?
done
if [ "$again" = yes ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
"""


class SlurmProfile(Profile):
    """Workers on Slurm."""

    name: str = Field("regsearch", pattern=r"^[\w.-]+$", description="Name of the jobs: what tells them from others.")
    partition: str | None = Field(None, description="Partition of the jobs; a preemptible one, too.")
    account: str | None = Field(None, description="Account that is charged.")
    priority: str | None = Field(None, description="Quality of service (QOS) of the jobs.")
    constraint: str | None = Field(None, description="Features that a node must have.")
    time_minutes: int | None = Field(None, ge=1, description="Time limit of a job; default: the partition's.")
    notice_seconds: int = Field(90, ge=1, le=65535, description="How long before its limit a job saves and gives back.")
    image: str | None = Field(None, description="Apptainer image that the workers run in; default: this Python.")
    setup: str = Field("", description="Lines of shell that a job begins with, such as `module load cuda`.")
    options: tuple[str, ...] = Field((), description="Further options of sbatch, such as --options=--nice=100.")


@dataclass(frozen=True)
class _Job:
    """One job of an array, as squeue tells."""

    id: str
    state: str
    stays: bool


class SlurmEngine:
    """Submits and counts jobs, each of as many workers as share a GPU. They outlive this process."""

    def __init__(self, profile: SlurmProfile, settings: dict[str, str]) -> None:
        """Find Slurm's commands.

        Raises:
            CannotLaunch: They are not here.
        """
        missing = [name for name in COMMANDS if shutil.which(name) is None]
        if missing:
            raise CannotLaunch(f"there is no {', '.join(missing)} here: run this on a login node of the Slurm cluster")
        self.unit = profile.workers_per_gpu
        self._profile = profile
        self._environment = worker_environment(profile, settings)
        self._logs = Path(settings["REGSEARCH_HOME"]) / "logs"
        self._seen: set[str] | None = None
        """Failed jobs that have been counted; None before the first look, which takes those before it as such."""

    def options(self) -> dict[str, Any]:
        """The options of sbatch, and the script of a job."""
        return {"sbatch": self._options(1, stays=False), "script": self.script(stays=False)}

    def script(self, *, stays: bool) -> str:
        """What a job runs."""
        p = self._profile
        inside = [] if p.image is None else ["apptainer", "exec", *(["--nv"] if p.gpus else []), p.image]
        python = sys.executable if p.image is None else "python"
        command = shlex.join([*inside, python, *worker_arguments(p, stays=stays)])
        return SCRIPT.format(unit=self.unit, setup=p.setup, command=command)

    def _options(self, jobs: int, *, stays: bool) -> list[str]:
        p, unit = self._profile, self.unit
        named = {
            "job-name": p.name,
            "comment": STAYS if stays else "",
            "array": f"0-{jobs - 1}",
            "ntasks": 1,
            "cpus-per-task": p.cpus * unit,
            "gres": f"gpu:{p.devices_per_trial}" if p.gpus else None,
            "mem": None if p.memory_mb is None else p.memory_mb * unit,
            "partition": p.partition,
            "account": p.account,
            "qos": p.priority,
            "constraint": p.constraint,
            "time": p.time_minutes,
            "signal": f"B:USR1@{p.notice_seconds}",
            "output": self._logs / f"{p.name}-%A_%a.log",
            "open-mode": "append",
            "export": "ALL",
        }
        given = [f"--{name}={value}" for name, value in named.items() if value not in (None, "")]
        return [*given, "--requeue", *p.options]

    def start(self, count: int, *, stays: bool) -> None:
        """Submit an array."""
        self._logs.mkdir(parents=True, exist_ok=True)
        jobs = -(-count // self.unit)
        while jobs > 0:
            some = min(jobs, MOST_IN_AN_ARRAY)
            words = ("sbatch", "--parsable", *self._options(some, stays=stays))
            log.info("submitted array %s", self._run(*words, script=self.script(stays=stays)).strip())
            jobs -= some

    def census(self) -> Census:
        """Count the jobs of our name."""
        jobs = self._jobs()
        failed = {job.id for job in jobs if job.state in FAILED}
        fresh = set() if self._seen is None else failed - self._seen
        self._seen = failed
        running = [job for job in jobs if job.state in (*RUNNING, *ENDING)]
        pending = [job for job in jobs if job.state in PENDING]
        staying = sum(job.stays for job in (*running, *pending))
        counts = (len(running), len(pending), staying, len(fresh))
        return Census(*(self.unit * number for number in counts))

    def withdraw(self, count: int) -> None:
        """Cancel jobs that are pending still."""
        pending = sorted((job for job in self._jobs() if job.state in PENDING), key=lambda job: job.stays)
        self._cancel((job.id for job in pending[: count // self.unit]), "--state=PENDING")

    def drain(self) -> None:
        """Cancel what is pending, and tell what runs to stop."""
        self._cancel((job.id for job in self._jobs() if job.state in PENDING), "--state=PENDING")
        self._cancel((job.id for job in self._jobs() if job.state in RUNNING), "--signal=TERM", "--batch")

    def kill(self) -> None:
        """Cancel all."""
        self._cancel(job.id for job in self._jobs())

    def _cancel(self, ids: Iterable[str], *options: str) -> None:
        chosen = [*ids]
        if chosen:
            self._run("scancel", "--quiet", *options, *chosen)  # some may have ended meanwhile

    def _jobs(self) -> list[_Job]:
        words = ("squeue", "--me", "--noheader", "--array", "--states=all", f"--name={self._profile.name}")
        lines = self._run(*words, "--format=%i|%T|%k").splitlines()
        return [_Job(id_, state, comment.strip() == STAYS) for id_, state, comment in (line.split("|", 2) for line in lines)]

    def _run(self, *words: str, script: str | None = None) -> str:
        """Run a command of Slurm; returns its output.

        Raises:
            EngineTrouble: Slurm does not answer.
            CannotLaunch: It refuses what is asked for.
        """
        environment = handed_on(self._environment)
        try:
            done = subprocess.run(
                words, input=script, env=environment, capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise EngineTrouble(f"{words[0]} does not answer") from None
        if done.returncode == 0:
            return done.stdout
        told = done.stderr.strip() or f"{words[0]} ended with code {done.returncode}"
        if any(each in told for each in PASSING):
            raise EngineTrouble(told)
        raise CannotLaunch(told)
