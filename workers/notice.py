"""The notice that a cloud gives before it takes a spot machine away, as the machine's own metadata service tells it.

References: "Spot Instance interruption notices" (Amazon EC2), "Preemptible VM instances" (Google Compute Engine),
"Scheduled Events for Linux VMs" (Microsoft Azure). Ray runs workers on such machines without passing the notice on;
Kubernetes and Slurm turn it into SIGTERM themselves.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Literal, assert_never

import httpx

log = logging.getLogger(__name__)

Cloud = Literal["aws", "gcp", "azure"]
CLOUDS: tuple[Cloud, ...] = ("aws", "gcp", "azure")
SERVICE = "http://169.254.169.254"
"""The same address with all three."""
ASK_SECONDS = 5.0


def is_to_go(cloud: Cloud, client: httpx.Client) -> bool:
    """Whether this machine will be taken away; ``client`` has the service as its base.

    Raises:
        httpx.HTTPError: The service does not answer.
    """
    match cloud:
        case "aws":
            lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
            token = client.put("/latest/api/token", headers=lifetime).raise_for_status().text
            answer = client.get("/latest/meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token})
            return answer.status_code == httpx.codes.OK  # 404 until there is a notice
        case "gcp":
            answer = client.get("/computeMetadata/v1/instance/preempted", headers={"Metadata-Flavor": "Google"})
            return answer.raise_for_status().text.strip() == "TRUE"
        case "azure":
            answer = client.get("/metadata/scheduledevents?api-version=2020-07-01", headers={"Metadata": "true"})
            return any(event["EventType"] == "Preempt" for event in answer.raise_for_status().json()["Events"])
        case _:
            assert_never(cloud)


def watch(cloud: Cloud, then: Callable[[], None], service: str = SERVICE, seconds: float = ASK_SECONDS) -> threading.Thread:
    """Ask every ``seconds`` in a thread of its own, and call ``then`` once there is a notice. Returns the thread."""

    def ask() -> None:
        pause = threading.Event()
        with httpx.Client(base_url=service, timeout=2.0, trust_env=False) as client:
            while True:
                try:
                    if is_to_go(cloud, client):
                        log.warning("this machine will be taken away; giving lanes back")
                        then()
                        return
                except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                    log.debug("no word of this machine's end: %s", error)
                pause.wait(seconds)

    thread = threading.Thread(target=ask, name="notice", daemon=True)
    thread.start()
    return thread
