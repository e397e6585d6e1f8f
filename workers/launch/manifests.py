"""The manifests of `workers/launch/kubernetes` with a profile's values, and kubectl, which applies them.

The folder is a kustomize base that can be applied as it is. Here its documents are read, changed in a few places that a
profile names, and written again; nothing is rendered from text.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from workers.launch.command import worker_arguments
from workers.launch.profile import CannotLaunch, Names, Profile

BASE = Path(__file__).parent / "kubernetes"
CLUSTER_SCOPED = ("Namespace",)
SPOT_TAINTS = ("cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority", "karpenter.sh/capacity-type")
Document = dict[str, Any]


class KubernetesProfile(Profile):
    """The service on Kubernetes, with workers as jobs that KEDA starts."""

    namespace: str = Field("regsearch", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", description="Its namespace.")
    image: str = Field("regsearch-worker:0.1.0", description="Image of the workers (workers/Dockerfile).")
    service_image: str = Field("regsearch-service:0.1.0", description="Image of API and dashboard (service/Dockerfile).")
    postgres: Literal["inside", "outside"] = Field(
        "inside", description="Run PostgreSQL, too, or use one outside, which `db-url` of the secret leads to."
    )
    storage_class: str | None = Field(None, description="Storage class of the shared data (ReadWriteMany).")
    objects_secret: str | None = Field(
        None,
        description="Secret whose keys become variables of the environment: `REGSEARCH_OBJECTS`, the store that takes the "
        "place of the shared data, and what its client reads, such as `AWS_ACCESS_KEY_ID`.",
    )
    objects_port: int = Field(443, ge=1, le=65535, description="Port of that store, which pods may ask.")
    data_gb: int = Field(50, ge=1, description="Size of the shared data, in GiB.")
    database_gb: int = Field(20, ge=1, description="Size of the database inside, in GiB.")
    public_url: str | None = Field(None, description="URL under which users reach the API.")
    priority: str | None = Field(None, description="Priority class of the workers.")
    preemptible: bool = Field(
        False, description="Let workers run on spot nodes: tolerate the taints of GKE, AKS, Karpenter."
    )
    node_selector: Names = Field({}, description="Labels of the nodes that workers run on.")
    gpu_resource: str = Field(
        "nvidia.com/gpu",
        description="What a worker with a GPU asks for; where GPUs are shared, perhaps nvidia.com/gpu.shared.",
    )


def documents(profile: KubernetesProfile) -> list[Document]:
    """All manifests, the namespace first."""
    label = {"app.kubernetes.io/name": "regsearch", "pod-security.kubernetes.io/enforce": "restricted"}
    space: Document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": profile.namespace, "labels": label}}
    found = [space]
    for name in YAML(typ="safe", pure=True).load((BASE / "kustomization.yaml").read_text())["resources"]:
        if name == "postgres.yaml" and profile.postgres == "outside":
            continue
        for document in YAML(typ="safe", pure=True).load_all((BASE / name).read_text()):
            if document["kind"] == "PersistentVolumeClaim" and profile.objects_secret is not None:
                continue
            document["metadata"]["namespace"] = profile.namespace
            _adapt(document, profile)
            found.append(document)
    return found


class _Representer(SafeRepresenter):
    """Quotes the words that are booleans in YAML 1.1, which kubectl reads."""

    def text(self, text: str) -> ScalarNode:
        """A string."""
        style = '"' if text.lower() in ("y", "n", "yes", "no", "on", "off") else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Representer.add_representer(str, _Representer.text)


def render(profile: KubernetesProfile) -> str:
    """The manifests as one stream of YAML."""
    yaml: Any = YAML(typ="safe", pure=True)
    out = io.StringIO()
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.dump_all(documents(profile), out)
    return out.getvalue()


def apply(profile: KubernetesProfile) -> None:
    """Hand the manifests to kubectl, which has the address of the cluster.

    Raises:
        CannotLaunch: There is no kubectl, or it has failed.
    """
    if shutil.which("kubectl") is None:
        raise CannotLaunch("there is no kubectl here: without --apply the manifests are printed, to be applied elsewhere")
    done = subprocess.run(["kubectl", "apply", "-f", "-"], input=render(profile), text=True, check=False)
    if done.returncode != 0:
        raise CannotLaunch(f"kubectl ended with code {done.returncode}")


def _adapt(document: Document, profile: KubernetesProfile) -> None:
    """Put the profile's values into one manifest."""
    match document["kind"], document["metadata"]["name"]:
        case "PersistentVolumeClaim", _:
            _claim(document["spec"], profile.data_gb, profile.storage_class)
        case "StatefulSet", _:
            _claim(document["spec"]["volumeClaimTemplates"][0]["spec"], profile.database_gb, None)
        case "Deployment", _:
            _use_store(document["spec"]["template"]["spec"], profile)
            for container in document["spec"]["template"]["spec"]["containers"]:
                container["image"] = profile.service_image
                if profile.public_url is not None:
                    container["env"].append({"name": "REGSEARCH_PUBLIC_URL", "value": profile.public_url})
        case "ScaledJob", _:
            _scale(document["spec"], profile)
            _worker(document["spec"]["jobTargetRef"]["template"]["spec"], profile)
        case "NetworkPolicy", "regsearch-postgres" if profile.postgres == "outside":
            document["spec"]["ingress"] = []  # there are no such pods
        case "NetworkPolicy", "regsearch-asking" if profile.objects_secret is not None and profile.objects_port != 443:
            document["spec"]["egress"].append({"ports": [{"port": profile.objects_port, "protocol": "TCP"}]})
        case _:
            pass


def _use_store(pod: Document, profile: KubernetesProfile) -> None:
    """A store of objects in place of the shared data, of which each pod then has copies of its own."""
    if profile.objects_secret is None:
        return
    pod["volumes"] = [{"name": "data", "emptyDir": {}} if each["name"] == "data" else each for each in pod["volumes"]]
    for container in pod["containers"]:
        container["envFrom"] = [{"secretRef": {"name": profile.objects_secret}}]


def _claim(spec: Document, gigabytes: int, storage_class: str | None) -> None:
    spec["resources"]["requests"]["storage"] = f"{gigabytes}Gi"
    if storage_class is not None:
        spec["storageClassName"] = storage_class


def _scale(spec: Document, profile: KubernetesProfile) -> None:
    spec["pollingInterval"] = max(1, round(profile.poll_seconds))
    spec["minReplicaCount"], spec["maxReplicaCount"] = profile.min, profile.max
    host = f"regsearch-api.{profile.namespace}.svc.cluster.local:8000"
    query = f"trials_per_worker={profile.trials_per_worker}"
    if profile.devices_per_trial > 1:
        query += f"&devices_per_trial={profile.devices_per_trial}"
    url = f"http://{host}/v1/queue?{query}"
    spec["triggers"][0]["metadata"]["url"] = url


def _worker(pod: Document, profile: KubernetesProfile) -> None:
    """The pod of one worker."""
    _use_store(pod, profile)
    (container,) = pod["containers"]
    container["image"] = profile.image
    container["command"] = ["python", *worker_arguments(profile, stays=False)]
    container["env"] += [{"name": name, "value": value} for name, value in profile.env.items()]
    amounts = {"cpu": str(profile.cpus)}
    if profile.memory_mb is not None:
        amounts["memory"] = f"{profile.memory_mb}Mi"
    if profile.gpus:
        amounts[profile.gpu_resource] = str(profile.devices_per_trial)
    for kind in ("requests", "limits"):
        container["resources"][kind] |= amounts
    if profile.devices_per_trial > 1:  # its processes have this in common; what a container has of it is too small
        pod["volumes"].append({"name": "shared-memory", "emptyDir": {"medium": "Memory"}})
        container["volumeMounts"].append({"name": "shared-memory", "mountPath": "/dev/shm"})
        if profile.memory_mb is not None:
            each = str(profile.memory_mb // profile.devices_per_trial)
            container["env"].append({"name": "REGSEARCH_WORKER_MEMORY_MB", "value": each})
    pod["terminationGracePeriodSeconds"] = round(profile.grace_seconds)
    pod.update(_placement(profile))


def _placement(profile: KubernetesProfile) -> Iterator[tuple[str, Any]]:
    """Where a worker may run."""
    if profile.priority is not None:
        yield "priorityClassName", profile.priority
    if profile.node_selector:
        yield "nodeSelector", dict(profile.node_selector)
    taints = [*(SPOT_TAINTS if profile.preemptible else ()), *(["nvidia.com/gpu"] if profile.gpus else [])]
    if taints:
        yield "tolerations", [{"key": taint, "operator": "Exists", "effect": "NoSchedule"} for taint in taints]
