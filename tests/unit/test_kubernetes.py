"""The manifests for Kubernetes: valid by the schemas of Kubernetes and of KEDA, safe, and with a profile's values."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from cloudcoil.models.keda.v1alpha1 import ScaledJob, TriggerAuthentication
from ruamel.yaml import YAML

from workers.launch.manifests import BASE, KubernetesProfile, documents, render

VERSIONS = ("1.31", "1.37")
OTHER = {
    "namespace": "search",
    "postgres": "outside",
    "image": "registry.example/worker:1",
    "service_image": "registry.example/service:1",
    "min": 1,
    "max": 40,
    "trials_per_worker": 16,
    "cpus": 4,
    "gpus": 0.5,
    "memory_mb": 8192,
    "gpu_resource": "nvidia.com/gpu.shared",
    "preemptible": True,
    "priority": "low",
    "node_selector": {"pool": "spot"},
    "storage_class": "shared",
    "public_url": "https://search.example",
    "env": {"REGSEARCH_LOG_LEVEL": "debug"},
}
SEVERAL = {"devices_per_trial": 4, "cpus": 8, "gpus": 1, "memory_mb": 16384}
STORE = {"objects_secret": "regsearch-objects", "objects_port": 9000}
PROFILES = {
    name: KubernetesProfile.model_validate(each)
    for name, each in {"default": {}, "other": OTHER, "several": SEVERAL, "store": STORE}.items()
}


@pytest.fixture(params=PROFILES)
def rendered(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What is printed, read again."""
    return list(YAML(typ="safe", pure=True).load_all(render(PROFILES[request.param])))


def closed(schema: Any) -> Any:
    """A schema that knows no other keys than those it names."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    return {"additionalProperties": False, **found} if "properties" in found else found


KEDA = {kind.__name__: closed(kind.model_json_schema()) for kind in (ScaledJob, TriggerAuthentication)}
"""The schemas of KEDA's resources, as a package has them from its definitions."""


def pods(found: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The pod of each workload, by its name."""
    for each in found:
        if each["kind"] in ("Deployment", "StatefulSet"):
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]
        elif each["kind"] == "ScaledJob":
            yield each["metadata"]["name"], each["spec"]["jobTargetRef"]["template"]["spec"]


def test_every_manifest_is_valid(rendered: list[dict[str, Any]]) -> None:
    for each in rendered:
        if each["apiVersion"].startswith("keda.sh/"):
            jsonschema.validate(each, KEDA[each["kind"]])
            if each["kind"] == "ScaledJob":  # KEDA's own schema has a job's, of which a part is left open
                job = {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "metadata": {"name": "job"},
                    "spec": each["spec"]["jobTargetRef"],
                }
                for version in VERSIONS:
                    kubernetes_validate.validate(job, version, strict=True)
        else:
            for version in VERSIONS:
                kubernetes_validate.validate(each, version, strict=True)


def test_a_schema_finds_what_is_wrong() -> None:
    (api, *_) = [each for each in documents(KubernetesProfile()) if each["kind"] == "Deployment"]
    api["spec"]["template"]["spec"]["containers"][0]["imagePullpolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(api, VERSIONS[0], strict=True)
    (job,) = [each for each in documents(KubernetesProfile()) if each["kind"] == "ScaledJob"]
    job["spec"]["maxReplicas"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplicas"):
        jsonschema.validate(job, KEDA["ScaledJob"])


def test_every_pod_is_held_to_the_restricted_standard(rendered: list[dict[str, Any]]) -> None:
    found = dict(pods(rendered))
    assert {"regsearch-api", "regsearch-dashboard", "regsearch-worker"} <= found.keys()
    for pod in found.values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            allowed = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
            assert container["securityContext"] == allowed
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys() & container["resources"]["requests"].keys()
            writable = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert "/tmp" in writable
            for variable in container["env"]:
                if "PASSWORD" in variable["name"] or "DB_URL" in variable["name"]:
                    assert "secretKeyRef" in variable["valueFrom"]
    for name in ("regsearch-api", "regsearch-dashboard"):
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= found[name]["containers"][0].keys()


def test_every_pod_is_within_a_policy_and_every_selector_meets_its_pods(rendered: list[dict[str, Any]]) -> None:
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for each in rendered:
        by_kind.setdefault(each["kind"], []).append(each)
    labels = [
        each["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "StatefulSet")
        for each in by_kind.get(kind, [])
    ]
    labels.append(by_kind["ScaledJob"][0]["spec"]["jobTargetRef"]["template"]["metadata"]["labels"])
    (everything,) = [
        each
        for each in by_kind["NetworkPolicy"]
        if each["spec"]["podSelector"].keys() == {"matchLabels"} and each["spec"]["policyTypes"] == ["Ingress", "Egress"]
    ]
    for each in labels:
        assert everything["spec"]["podSelector"]["matchLabels"].items() <= each.items()
    budgets = [each["spec"]["selector"]["matchLabels"] for each in by_kind["PodDisruptionBudget"]]
    for selector in (*budgets, *(each["spec"]["selector"] for each in by_kind["Service"])):
        assert any(selector.items() <= each.items() for each in labels), selector
    claims = {each["metadata"]["name"] for each in by_kind.get("PersistentVolumeClaim", [])}
    accounts = {each["metadata"]["name"] for each in by_kind["ServiceAccount"]}
    for _, pod in pods(rendered):
        used = {each["persistentVolumeClaim"]["claimName"] for each in pod["volumes"] if "persistentVolumeClaim" in each}
        assert used <= claims
        assert pod["serviceAccountName"] in accounts


def test_a_profile_is_where_it_belongs() -> None:
    found = documents(PROFILES["other"])
    assert {each["metadata"].get("namespace", "search") for each in found} == {"search"}
    assert not [each for each in found if each["kind"] == "StatefulSet"]
    (scaled,) = [each for each in found if each["kind"] == "ScaledJob"]
    assert (scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]) == (1, 40)
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["url"] == "http://regsearch-api.search.svc.cluster.local:8000/v1/queue?trials_per_worker=16"
    pod = scaled["spec"]["jobTargetRef"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "registry.example/worker:1"
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "8192Mi", "nvidia.com/gpu.shared": "1"}
    assert {"name": "REGSEARCH_LOG_LEVEL", "value": "debug"} in container["env"]
    assert (pod["priorityClassName"], pod["nodeSelector"]) == ("low", {"pool": "spot"})
    assert "cloud.google.com/gke-spot" in {each["key"] for each in pod["tolerations"]}
    command = [sys.executable, *container["command"][1:], "--list-devices"]  # the worker knows all of these options
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().startswith("[")


def test_a_worker_of_several_devices_has_all_of_them_and_memory_in_common() -> None:
    (scaled,) = [each for each in documents(PROFILES["several"]) if each["kind"] == "ScaledJob"]
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["url"].endswith("/v1/queue?trials_per_worker=32&devices_per_trial=4")
    pod = scaled["spec"]["jobTargetRef"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][-4:] == ["--devices-per-trial", "4", "--idle-seconds", "60"]
    assert container["resources"]["limits"] == {"cpu": "8", "memory": "16384Mi", "nvidia.com/gpu": "4"}
    assert {"name": "REGSEARCH_WORKER_MEMORY_MB", "value": "4096"} in container["env"]
    assert {"name": "shared-memory", "emptyDir": {"medium": "Memory"}} in pod["volumes"]
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in container["volumeMounts"]


def test_a_store_takes_the_place_of_the_shared_data() -> None:
    found = documents(PROFILES["store"])
    assert not [each for each in found if each["kind"] == "PersistentVolumeClaim"]
    own = {name: pod for name, pod in pods(found) if name != "regsearch-postgres"}
    assert set(own) == {"regsearch-api", "regsearch-dashboard", "regsearch-worker"}
    for pod in own.values():
        assert {"name": "data", "emptyDir": {}} in pod["volumes"]
        assert [each["envFrom"] for each in pod["containers"]] == [[{"secretRef": {"name": "regsearch-objects"}}]]
    (policy,) = [each for each in found if each["metadata"]["name"] == "regsearch-asking"]
    assert {"ports": [{"port": 9000, "protocol": "TCP"}]} in policy["spec"]["egress"]


def test_the_base_lists_every_file_and_its_words_stay_strings() -> None:
    listed = YAML(typ="safe", pure=True).load((BASE / "kustomization.yaml").read_text())["resources"]
    assert {*listed, "kustomization.yaml"} == {path.name for path in BASE.iterdir()}
    assert 'value: "off"' in render(KubernetesProfile())  # a boolean in YAML 1.1
