"""The dashboard for Grafana: every query is valid PromQL, of metrics and labels that `/metrics` has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from service.api.operations import WORKER_GAUGES
from service.store import Store
from tests.api.test_routes import submit

PLACE = Path(__file__).parents[2] / "service" / "observability"
DASHBOARD: dict[str, Any] = json.loads((PLACE / "grafana.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.fixture
def exposed(client: TestClient, store: Store) -> dict[str, set[str]]:
    """The labels of every metric that a service with a study and a worker exposes."""
    submit(client)
    worker = store.workers.register(name="w", host="h", pid=1, device="cpu")
    store.workers.beat(worker, {**dict.fromkeys(WORKER_GAUGES, 1.0), "shares": {"training": 0.9}})
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_queries_are_of_what_is_exposed(query: str, exposed: dict[str, set[str]]) -> None:
    promql_parser.parse(query)
    names = re.findall(r"\bregsearch_\w+", query)
    assert names
    assert set(names) <= set(exposed)
    labels = {label for each in names for label in exposed[each]}
    used = {word for group in re.findall(r"by \(([^)]*)\)", query) for word in re.findall(r"\w+", group)}
    used |= set(re.findall(r"[{,]\s*(\w+)\s*[=!]", query))
    assert used <= labels


def test_legends_name_labels_of_their_queries() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), (panel["title"], label)


def test_panels_are_whole_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert all(0 <= x < 24 for x, _ in cells)
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_data_source_and_the_dashboard_are_provided_by_compose() -> None:
    def read(path: Path) -> Any:
        return YAML(typ="safe", pure=True).load(path.read_text())

    sources = {each["uid"]: each for each in read(PLACE / "datasources.yml")["datasources"]}
    targets = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert {target["datasource"]["uid"] for target in targets} <= set(sources)
    services = read(PLACE.parents[1] / "docker-compose.yml")["services"]
    for source in sources.values():
        assert re.match(r"http://(\w+):", source["url"])[1] in services  # type: ignore[index]
    (folder,) = (each["options"]["path"] for each in read(PLACE / "dashboards.yml")["providers"])
    mounted = dict(each.split(":")[:2] for each in services["grafana"]["volumes"])
    assert mounted["./service/observability/grafana.json"].startswith(f"{folder}/")
    assert all((PLACE.parents[1] / source).exists() for source in mounted)
    (target,) = read(PLACE / "prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target.split(":")[0] in services
    for name in ("prometheus", "grafana", "jaeger"):
        assert re.search(r":v?\d+\.\d+\.\d+$", services[name]["image"])
