"""A real Ray cluster of several nodes on this machine, whose nodes can be lost."""

from __future__ import annotations

from typing import Any

import psutil


class RayNodes:
    """A head without room for workers, and nodes with ``cpus`` cores each."""

    def __init__(self, nodes: int, cpus: int) -> None:
        from ray.cluster_utils import Cluster  # noqa: PLC0415  # optional, and slow to load

        self._cpus = cpus
        # A head that gives nodes up after seconds, not half a minute.
        quick = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
        quiet = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 * 2**20, "_system_config": quick}
        self._cluster: Any = Cluster(initialize_head=True, connect=False, head_node_args=quiet)
        self._nodes: list[Any] = []
        for _ in range(nodes):
            self.add()

    @property
    def address(self) -> str:
        """Of the head."""
        return str(self._cluster.address)

    def add(self) -> None:
        """One more node."""
        self._nodes.append(self._cluster.add_node(num_cpus=self._cpus, object_store_memory=80 * 2**20))

    def workers(self) -> list[list[psutil.Process]]:
        """Our worker processes on each node."""
        return [[each for each in self._descendants(node) if _is_worker(each)] for node in self._nodes]

    def lose(self, index: int) -> None:
        """A node is gone at once, with everything that ran on it."""
        node = self._nodes.pop(index)
        victims = self._descendants(node)
        for each in (*victims, *(each for child in victims for each in _children(child))):
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        self._cluster.remove_node(node, allow_graceful=False)

    def stop(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()

    @staticmethod
    def _descendants(node: Any) -> list[psutil.Process]:
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        return [raylet, *_children(raylet)]


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_worker(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "workers" in words and "--parent" in words
