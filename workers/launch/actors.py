"""Workers as actors on an existing Ray cluster.

An actor is a process on some node that keeps one worker process; it asks Ray for the worker's cores, memory and share of a
GPU, so that Ray's autoscaler sees what is wanted and packs workers onto GPUs. Ray brings the actors of a lost node back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from workers.launch.command import handed_on, worker_arguments, worker_environment
from workers.launch.profile import Amounts, CannotLaunch, Profile
from workers.launch.scaler import Census

log = logging.getLogger(__name__)

ANSWER_SECONDS = 2.0
"""How long an actor may take to tell how its worker is, before it counts as away."""


class RayProfile(Profile):
    """Workers on Ray."""

    address: str = Field("auto", description="The cluster: auto (on one of its nodes), HOST:PORT, or ray://HOST:10001.")
    resources: Amounts = Field({}, description="Custom resources that a worker takes, by name.")
    preemptible: bool = Field(
        False, description="Only on nodes that may be taken back at any time, which Ray labels `ray.io/market-type: spot`."
    )
    notice: Literal["aws", "gcp", "azure"] | None = Field(
        None, description="Cloud of spot machines: a worker gives its lanes back when it tells that it takes one away."
    )
    image: str | None = Field(None, description="Container image of the actors, where the cluster runs containers.")


class Keeper:
    """An actor: starts a worker process on its node, and tells how it is."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        # The worker gives its lanes back if this process ends, on a node that is taken away, too.
        command = [sys.executable, *arguments, "--parent", str(os.getpid())]
        self._process = subprocess.Popen(command, env=handed_on(environment), start_new_session=True)

    def look(self) -> int | None:
        """The exit code, once it has ended."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to save its lanes, give them back, and end."""
        if self._process.poll() is None:
            self._process.terminate()


@dataclass
class _Member:
    """An actor as this process knows it; ``asked`` is the answer that is waited for."""

    handle: Any
    stays: bool
    asked: Any
    begun: bool = False


class RayEngine:
    """Starts and counts actors. They end with this process, which owns them."""

    unit = 1

    def __init__(self, profile: RayProfile, settings: dict[str, str]) -> None:
        """Connect to the cluster.

        Raises:
            CannotLaunch: Ray is not installed, or there is no cluster.
        """
        try:
            import ray
        except ImportError:
            raise CannotLaunch("Ray is not installed here: pip install 'regsearch[ray]'") from None
        self._ray = ray
        self._profile = profile
        self._environment = worker_environment(profile, settings)
        self._members: list[_Member] = []
        self._stopping = False
        try:
            ray.init(address=profile.address, namespace="regsearch", log_to_driver=False, logging_level=logging.WARNING)
        except (OSError, RuntimeError, ValueError) as error:  # no cluster, another Ray, an address that is none
            last = str(error).strip().splitlines()[-1]
            raise CannotLaunch(f"no Ray cluster answers at address {profile.address!r}: {last}") from None

    def options(self) -> dict[str, Any]:
        """What an actor asks Ray for."""
        p = self._profile
        asked: dict[str, Any] = {
            "num_cpus": p.cpus,
            "num_gpus": p.gpus_per_worker,
            "max_restarts": -1,
            "scheduling_strategy": "SPREAD",
        }
        if p.memory_mb is not None:
            asked["memory"] = p.memory_mb * 2**20
        if p.resources:
            asked["resources"] = p.resources
        if p.preemptible:
            asked["label_selector"] = {"ray.io/market-type": "spot"}
        if p.image is not None:
            asked["runtime_env"] = {"image_uri": p.image}
        return asked

    def start(self, count: int, *, stays: bool) -> None:
        """Create actors; those for which there is no room wait, as demand that the autoscaler sees."""
        made: Any = self._ray.remote(Keeper).options(**self.options())
        notice = [] if self._profile.notice is None else ["--notice", self._profile.notice]
        arguments = [*worker_arguments(self._profile, stays=stays), *notice]
        for _ in range(count):
            handle: Any = made.remote(arguments, self._environment)
            self._members.append(_Member(handle, stays, handle.look.remote()))

    def census(self) -> Census:
        """Ask every actor how its worker is."""
        asked = [member.asked for member in self._members]
        if asked:
            self._ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS)
        failed = sum([self._look(member) for member in [*self._members]])
        running = sum(member.begun for member in self._members)
        staying = sum(member.stays for member in self._members)
        return Census(running, len(self._members) - running, staying, failed)

    def _look(self, member: _Member) -> bool:
        """Take one actor's answer, if it is there; returns whether its worker failed."""
        if not self._ray.wait([member.asked], timeout=0)[0]:
            return False
        try:
            code = self._ray.get(member.asked)
        except self._ray.exceptions.ActorUnavailableError:
            if member.begun:
                log.warning("a worker was lost with its node; Ray brings it back")
            member.begun = False
            if self._stopping:  # the next one has been told nothing
                member.handle.stop.remote()
            member.asked = member.handle.look.remote()
            return False
        except self._ray.exceptions.RayError as error:
            log.warning("a worker is lost: %s", str(error).strip().splitlines()[0])
            self._members.remove(member)
            return False
        if code is None:
            member.begun = True
            member.asked = member.handle.look.remote()
            return False
        self._end(member)
        if code != 0:
            log.warning("a worker ended with code %d; its log is in Ray's dashboard", code)
        return bool(code != 0)

    def withdraw(self, count: int) -> None:
        """Take back actors that wait for room."""
        waiting = sorted((member for member in self._members if not member.begun), key=lambda member: member.stays)
        for member in waiting[:count]:
            self._end(member)

    def drain(self) -> None:
        """Stop every worker; actors that wait for room are taken back."""
        self._stopping = True
        self.withdraw(len(self._members))
        for member in self._members:
            member.handle.stop.remote()

    def kill(self) -> None:
        """End every actor, and with it its worker."""
        for member in [*self._members]:
            self._end(member)

    def _end(self, member: _Member) -> None:
        self._members.remove(member)
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(member.handle)
