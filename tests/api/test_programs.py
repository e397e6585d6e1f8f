"""Studies that programs run, over REST: ask, report, tell, heartbeat, release, and the answer at the end."""

from __future__ import annotations

import math
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.external.conductor import seed_of
from service.spec.external import ExternalSpec
from service.store import Store

ME, OTHER = "program-one", "program-two"
SPEC: dict[str, Any] = {
    "executor": "external",
    "name": "theirs",
    "metric": "val_loss",
    "direction": "minimize",
    "space": {
        "weight_decay": {"low": 1e-4, "high": 1, "log": True, "off": True},
        "custom": {"hidden": {"low": 8, "high": 64}},
    },
    "pruner": {"name": "median", "startup_trials": 4, "warmup_epochs": 1},
    "budget": {"trials": 12, "epochs": 6, "finalists": 2, "seeds": 3, "max_retries": 1},
}


def submit(client: TestClient, **changes: Any) -> int:
    answer = client.post("/v1/studies", json={**SPEC, **changes})
    assert answer.status_code == 201, answer.text
    found: int = answer.json()["id"]
    return found


def send(client: TestClient, study_id: int, verb: str, program: str = ME, **body: Any) -> Any:
    answer = client.post(f"/v1/studies/{study_id}/trials:{verb}", json={"client": program, **body})
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


def ask(client: TestClient, study_id: int, program: str = ME, **body: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = send(client, study_id, "ask", program, **body)["trials"]
    return found


def value(trial: dict[str, Any], step: int = 5) -> float:
    """A loss that a weight decay of 0.01 makes best, worse without any; seeds matter little."""
    decay = trial["params"]["weight_decay"]
    return 0.1 * (math.log10(decay) + 2) ** 2 + 1 / (1 + step) + 1e-3 * (trial["seed"] % 7) if decay else 3.0


def run(client: TestClient, study_id: int, program: str = ME, **told: Any) -> list[dict[str, Any]]:
    """A whole study, by one program."""
    seen = []
    while not (answer := send(client, study_id, "ask", program, n=3))["over"]:
        assert answer["trials"], answer
        for trial in answer["trials"]:
            seen.append(trial)
            state, rest = "complete", {"value": value(trial)}
            if trial["purpose"] == "search":
                rest = {}
                for step in range(6):
                    given = {"trial": trial["trial"], "step": step, "value": value(trial, step)}
                    (decision,) = send(client, study_id, "report", program, values=[given])
                    if decision["decision"] != "continue":
                        state = "pruned" if decision["decision"] == "prune" else "complete"
                        break
            else:
                rest |= told
            ended = {"trial": trial["trial"], "state": state, **rest}
            assert send(client, study_id, "tell", program, trials=[ended])["refused"] == []
    return seen


def test_a_program_runs_a_study_to_its_answer(client: TestClient) -> None:
    study_id = submit(client)
    seen = run(client, study_id, test=0.5)
    study = client.get(f"/v1/studies/{study_id}").json()
    assert study["state"] == "finished"
    assert study["trials"]["finished"] == study["trials"]["budget"] == 12
    assert study["trials"]["pruned"] > 0
    purposes = [trial["purpose"] for trial in seen]
    assert purposes[:12] == ["search"] * 12
    assert purposes[12:18] == ["finalist"] * 6
    assert "baseline" in purposes[18:]
    result = client.get(f"/v1/studies/{study_id}/result").json()
    assert result["executor"] == "external"
    assert result["gain"]["low"] > 0
    assert result["winner"]["params"]["weight_decay"] > 0
    assert result["baseline"]["params"]["weight_decay"] == 0
    assert result["test_record"][0]["purpose"].startswith("test scores of the winner")
    assert client.get(f"/v1/studies/{study_id}/model").status_code == 409


def test_finals_have_the_same_seeds_for_all_settings(client: TestClient) -> None:
    study_id = submit(client)
    finals = [trial for trial in run(client, study_id) if trial["purpose"] != "search"]
    by_setting: dict[str, list[int]] = {}
    for trial in finals:
        by_setting.setdefault(trial["setting"], []).append(trial["seed"])
    assert len(by_setting) >= 3
    assert len({tuple(seeds) for seeds in by_setting.values()}) == 1
    assert len(set(next(iter(by_setting.values())))) == 3


@pytest.mark.parametrize("form", ["html", "markdown", "pdf"])
def test_its_report_has_the_answer(client: TestClient, form: str) -> None:
    study_id = submit(client, name="<b>theirs</b>")
    assert client.get(f"/v1/studies/{study_id}/report").status_code == 409
    run(client, study_id, test=0.5)
    answer = client.get(f"/v1/studies/{study_id}/report", params={"format": form})
    assert answer.status_code == 200
    if form == "pdf":
        assert answer.content.startswith(b"%PDF")
        return
    for part in ("unregularized", "weight", "Student", "test data"):
        assert part in answer.text
    assert "<b>theirs" not in answer.text


def test_a_trial_that_is_worse_is_pruned_and_one_at_the_end_stopped(client: TestClient) -> None:
    study_id = submit(client)
    good = ask(client, study_id, n=4)
    for trial in good:
        for step in range(6):
            given = {"trial": trial["trial"], "step": step, "value": 1.0 - 0.1 * step}
            (decision,) = send(client, study_id, "report", values=[given])
        assert (decision["decision"], decision["reason"]) == ("stop", "budget.epochs: 6 steps are done")
        send(client, study_id, "tell", trials=[{"trial": trial["trial"]}])
    (bad,) = ask(client, study_id)
    decisions = [
        send(client, study_id, "report", values=[{"trial": bad["trial"], "step": step, "value": 5.0}])[0] for step in (0, 1)
    ]
    assert [each["decision"] for each in decisions] == ["continue", "prune"]
    send(client, study_id, "tell", trials=[{"trial": bad["trial"], "state": "pruned"}])
    record = client.get(f"/v1/studies/{study_id}/trials/{bad['number']}").json()
    assert (record["state"], record["value"], record["epochs"]) == ("pruned", 5.0, 2)
    first = client.get(f"/v1/studies/{study_id}/trials/0").json()
    assert (first["value"], first["best_step"], first["epochs"]) == (0.5, 5, 6)


def test_a_trial_that_somebody_stops_is_told_so_when_it_reports(client: TestClient) -> None:
    study_id = submit(client)
    first, second = ask(client, study_id, n=2)
    assert client.post(f"/v1/studies/{study_id}/trials/{first['trial']}/stop").json()["stopping"]
    given = [{"trial": each["trial"], "step": 0, "value": 0.5} for each in (first, second)]
    decided = send(client, study_id, "report", values=given)
    assert [(each["decision"], each["reason"]) for each in decided] == [("stop", "stopped"), ("continue", None)]
    send(client, study_id, "tell", trials=[{"trial": first["trial"], "reason": "stopped"}])
    trial = client.get(f"/v1/studies/{study_id}/trials/{first['trial']}").json()
    assert (trial["state"], trial["value"], trial["stop_reason"]) == ("complete", 0.5, "stopped")


def test_a_trial_without_improvement_has_converged(client: TestClient) -> None:
    study_id = submit(client, early_stopping={"patience": 2}, pruner="none")
    (trial,) = ask(client, study_id)
    given = [{"trial": trial["trial"], "step": step, "value": 1.0 + step} for step in range(3)]
    (decision,) = send(client, study_id, "report", values=given)
    assert decision["decision"] == "stop"
    assert "no improvement for 2 steps" in decision["reason"]


def test_what_is_no_number_is_reported_as_null(client: TestClient) -> None:
    study_id = submit(client, pruner="none")
    (trial,) = ask(client, study_id)
    given = [{"trial": trial["trial"], "step": 0, "value": 2.0}, {"trial": trial["trial"], "step": 2, "value": None}]
    assert send(client, study_id, "report", values=given)[0]["decision"] == "continue"
    send(client, study_id, "tell", trials=[{"trial": trial["trial"]}])
    record = client.get(f"/v1/studies/{study_id}/trials/0").json()
    assert (record["value"], record["epochs"]) == (2.0, 3)


def test_the_same_key_gives_the_same_trials_and_telling_twice_is_harmless(client: TestClient) -> None:
    study_id = submit(client)
    first = ask(client, study_id, n=2, key="once")
    assert ask(client, study_id, n=2, key="once") == first
    ended = [{"trial": trial["trial"], "value": 1.0} for trial in first]
    for _ in range(2):
        assert send(client, study_id, "tell", trials=ended)["refused"] == []
    study = client.get(f"/v1/studies/{study_id}").json()
    assert (study["trials"]["complete"], study["trials"]["running"]) == (2, 0)


def test_trials_of_a_lost_program_are_asked_again(client: TestClient, store: Store) -> None:
    study_id = submit(client)
    lost = ask(client, study_id, n=3)
    store.leases.expire(ME)
    again = ask(client, study_id, OTHER, n=3)
    assert [(each["number"], each["params"], each["attempt"]) for each in again] == [
        (each["number"], each["params"], 1) for each in lost
    ]
    (decision,) = send(client, study_id, "report", values=[{"trial": lost[0]["trial"], "step": 0, "value": 1.0}])
    assert decision["decision"] == "lost"
    (refused,) = send(client, study_id, "tell", trials=[{"trial": lost[0]["trial"], "value": 1.0}])["refused"]
    assert "does not run under this program's lease" in refused["reason"]
    assert client.post(f"/v1/studies/{study_id}/trials:heartbeat", json={"client": ME}).status_code == 409
    store.leases.expire(OTHER)
    ask(client, study_id, n=1)
    assert client.get(f"/v1/studies/{study_id}").json()["trials"]["fail"] == 3  # max_retries: 1


def test_what_is_released_is_asked_again_and_loses_no_attempt(client: TestClient) -> None:
    study_id = submit(client)
    (first,) = ask(client, study_id)
    assert send(client, study_id, "heartbeat")["state"] == "running"
    for _ in range(2):
        send(client, study_id, "release")
    (again,) = ask(client, study_id, OTHER)
    assert (again["number"], again["attempt"]) == (first["number"], 0)


def test_two_programs_share_a_study(client: TestClient) -> None:
    study_id = submit(client)
    mine, others = ask(client, study_id, n=2), ask(client, study_id, OTHER, n=2)
    assert len({trial["number"] for trial in (*mine, *others)}) == 4
    (refused,) = send(client, study_id, "tell", OTHER, trials=[{"trial": mine[0]["trial"], "value": 1.0}])["refused"]
    assert refused["trial"] == mine[0]["trial"]


def test_a_paused_or_cancelled_study_stops_its_programs(client: TestClient) -> None:
    study_id = submit(client)
    (trial,) = ask(client, study_id)
    client.post(f"/v1/studies/{study_id}/pause")
    (decision,) = send(client, study_id, "report", values=[{"trial": trial["trial"], "step": 0, "value": 1.0}])
    assert decision["decision"] in ("stop", "lost")
    answer = send(client, study_id, "ask")
    assert (answer["state"], answer["trials"], answer["over"]) == ("paused", [], False)
    assert answer["retry_after"] > 0
    client.post(f"/v1/studies/{study_id}/resume")
    assert ask(client, study_id)
    client.post(f"/v1/studies/{study_id}/cancel")
    (decision,) = send(client, study_id, "report", values=[{"trial": trial["trial"], "step": 1, "value": 1.0}])
    assert (decision["decision"], decision["reason"]) == ("lost", "the study is cancelled")
    assert send(client, study_id, "ask")["over"]


def test_a_failed_trial_has_its_reason(client: TestClient) -> None:
    study_id = submit(client, budget={**SPEC["budget"], "max_failed_trials": 1})
    for trial in ask(client, study_id, n=2):
        send(client, study_id, "tell", trials=[{"trial": trial["trial"], "state": "fail", "reason": "CUDA out of memory"}])
    assert client.get(f"/v1/studies/{study_id}/trials/0").json()["stop_reason"] == "CUDA out of memory"
    study = client.get(f"/v1/studies/{study_id}").json()
    assert (study["state"], study["reason"]) == (
        "failed",
        "2 trials failed, at most 1 may fail; most often: CUDA out of memory",
    )


def test_a_study_whose_finalists_all_fail_has_failed(client: TestClient) -> None:
    study_id = submit(client, budget={"trials": 1, "finalists": 1, "seeds": 2})
    (trial,) = ask(client, study_id)
    send(client, study_id, "tell", trials=[{"trial": trial["trial"], "value": 1.0}])
    for each in ask(client, study_id, n=9):
        send(client, study_id, "tell", trials=[{"trial": each["trial"], "state": "fail", "reason": "no disk"}])
    study = client.get(f"/v1/studies/{study_id}").json()
    assert (study["state"], study["reason"]) == ("failed", "no run of a finalist was completed: no disk")


def test_further_objectives_are_told_at_the_end(client: TestClient) -> None:
    study_id = submit(client, also={"size": "minimize"}, pruner="none", finals=False)
    (trial,) = ask(client, study_id)
    for also, message in (({}, "lacks size"), ({"size": 1.0, "speed": 2.0}, "speed is no objective")):
        body = {"client": ME, "trials": [{"trial": trial["trial"], "value": 1.0, "also": also}]}
        answer = client.post(f"/v1/studies/{study_id}/trials:tell", json=body)
        assert answer.status_code == 422
        assert message in answer.json()["errors"][0]["message"]
    send(client, study_id, "tell", trials=[{"trial": trial["trial"], "value": 1.0, "also": {"size": 3.0}}])
    for place, each in enumerate(ask(client, study_id, n=20)):
        rest = {"value": 2.0 + place, "also": {"size": 2.0 - 0.1 * place}}
        send(client, study_id, "tell", trials=[{"trial": each["trial"], **rest}])
    result = client.get(f"/v1/studies/{study_id}/result").json()
    assert result["winner"]["name"] == "trial 0"
    assert len(result["front"]) == 12
    assert client.get(f"/v1/studies/{study_id}/report").status_code == 200


def test_a_finished_study_can_be_extended(client: TestClient) -> None:
    study_id = submit(client)
    run(client, study_id)
    assert client.post(f"/v1/studies/{study_id}/extend", json={"trials": 3}).status_code == 200
    seen = run(client, study_id)
    assert [trial["number"] for trial in seen[:3]] == [12, 13, 14]
    assert client.get(f"/v1/studies/{study_id}").json()["state"] == "finished"


def test_a_process_that_comes_later_goes_on(client: TestClient, store: Store, settings: Any) -> None:
    study_id = submit(client)
    known = [trial["params"] for trial in ask(client, study_id, n=5)]
    with TestClient(create_app(store, settings), base_url="http://localhost") as second:
        later = ask(second, study_id, n=5)
        assert [trial["number"] for trial in later] == [5, 6, 7, 8, 9]
        assert [trial["params"] for trial in later] != known
        send(second, study_id, "tell", trials=[{"trial": "0", "value": 1.0}, {"trial": "9", "value": 2.0}])
    assert client.get(f"/v1/studies/{study_id}").json()["trials"]["complete"] == 2


def test_the_first_process_proposes_by_the_seed_alone(client: TestClient) -> None:
    first, second = (submit(client, seed=5) for _ in range(2))
    assert ask(client, first, n=6) == ask(client, second, n=6)
    spec = ExternalSpec.model_validate({**SPEC, "seed": 5})
    assert ask(client, first)[0]["seed"] == seed_of(spec, 6)


BAD = [
    ("ask", {"client": "short"}, "client"),
    ("ask", {"client": "spaces are not allowed"}, "client"),
    ("ask", {"n": 0}, "n"),
    ("ask", {"lease_seconds": 0.1}, "lease_seconds"),
    ("ask", {"lease": 5}, "lease"),
    ("report", {"values": []}, "values"),
    ("report", {"values": [{"trial": "first", "step": 0, "value": 1}]}, "values.0.trial"),
    ("report", {"values": [{"trial": "0", "step": -1, "value": 1}]}, "values.0.step"),
    ("report", {"values": [{"trial": "0", "step": 0}]}, "values.0.value"),
    ("tell", {"trials": [{"trial": "0", "state": "done"}]}, "trials.0.state"),
    ("tell", {"trials": [{"trial": "0", "test": 0.5, "value": 1}]}, "test"),
    ("tell", {"trials": [{"trial": "final-0"}]}, "value"),
    ("tell", {"trials": [{"trial": "0"}, {"trial": "00"}]}, "trials"),
    ("tell", {"trials": [{"trial": "0"}]}, "value"),
]


@pytest.mark.parametrize(("verb", "body", "field"), BAD)
def test_what_is_wrong_is_told_with_its_field(client: TestClient, verb: str, body: dict[str, Any], field: str) -> None:
    study_id = submit(client)
    ask(client, study_id)
    answer = client.post(f"/v1/studies/{study_id}/trials:{verb}", json={"client": ME, **body})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field


def test_only_external_studies_have_programs(client: TestClient) -> None:
    answer = client.post("/v1/studies", json={"data": {"dataset": "diabetes"}})
    asked = client.post(f"/v1/studies/{answer.json()['id']}/trials:ask", json={"client": ME})
    assert asked.status_code == 409
    assert "run by the workers" in asked.json()["detail"]
    tuned = {"data": {"dataset": "diabetes"}, "model": {"start_from": submit(client)}}
    assert client.post("/v1/studies", json=tuned).json()["errors"][0]["field"] == "model.start_from"
    assert client.post("/v1/studies/99/trials:ask", json={"client": ME}).status_code == 404
    assert client.post(f"/v1/studies/{submit(client)}/replay").status_code == 409


def test_a_dry_run_submits_nothing(client: TestClient) -> None:
    answer = client.post("/v1/studies/dry-run", json=SPEC)
    assert answer.status_code == 200
    assert answer.json()["plan"] == {"searched": ["weight_decay", "hidden"], "most_trial_epochs": 72}
    assert client.get("/v1/studies").json()["total"] == 0


def test_a_grid_with_fewer_points_than_trials_is_refused(client: TestClient) -> None:
    spec = {**SPEC, "space": {"dropout": [0.0, 0.1]}, "sampler": "grid"}
    answer = client.post("/v1/studies", json=spec)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "budget.trials"
