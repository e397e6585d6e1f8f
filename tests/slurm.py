"""A real Slurm of one node on this machine: slurmctld and slurmd of Debian's slurm-wlm, with their own configuration."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from service.cli.supervisor import free_port

NEEDED = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
CONF = """
ClusterName=regsearch
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
# Neither munge nor control groups, which a container may not have.
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
UnkillableStepTimeout=600
MinJobAge=60
OverTimeLimit=0
NodeName={host} NodeAddr=127.0.0.1 Port={daemon} CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP
"""


def is_installed() -> bool:
    """Whether Slurm's programs are here."""
    return all(_found(name) for name in NEEDED)


class Slurm:
    """The controller and a node with ``cpus`` cores."""

    def __init__(self, cpus: int) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="regsearch-slurm-"))
        for name in ("state", "spool"):
            (self.place / name).mkdir()
        self._conf = self.place / "slurm.conf"
        values = {"host": socket.gethostname().split(".")[0], "user": getpass.getuser(), "place": self.place, "cpus": cpus}
        self._conf.write_text(CONF.format(**values, controller=free_port(), daemon=free_port()))
        self._processes = [self._start("slurmctld", "-D", "-i"), self._start("slurmd", "-D")]
        self._wait()

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's commands need to find it."""
        return {"SLURM_CONF": str(self._conf)}

    def run(self, *words: str) -> str:
        """The output of one of Slurm's commands."""
        done = subprocess.run(words, env=os.environ | self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def stop(self) -> None:
        """End all jobs, and both processes."""
        subprocess.run(
            ["scancel", "--signal=KILL", "--full", "--me"],
            env=os.environ | self.environment,
            capture_output=True,
            check=False,
        )
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:  # it waits for a job
                process.kill()
                process.wait()
        shutil.rmtree(self.place, ignore_errors=True)

    def _start(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        program = _found(name)
        assert program is not None
        with (self.place / f"{name}.out").open("wb") as out:
            return subprocess.Popen([program, "-f", str(self._conf), *options], stdout=out, stderr=out)

    def _wait(self) -> None:
        give_up = time.monotonic() + 120
        environment = os.environ | self.environment
        while True:
            done = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False)
            if done.stdout.strip() == "idle":
                return
            if time.monotonic() > give_up:
                logs = "\n".join(path.read_text()[-1500:] for path in self.place.glob("*.log"))
                self.stop()
                raise AssertionError(f"Slurm does not start: {done.stdout} {done.stderr}\n{logs}")
            time.sleep(0.2)


def _found(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
