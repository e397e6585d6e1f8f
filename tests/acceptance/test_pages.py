"""The pages for people in a real Chromium: they follow what happens, a study is submitted, on a phone and in the dark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from service.cli.supervisor import free_port
from service.client import Client
from tests.api.conftest import Serving
from tests.api.test_programs import SPEC

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("pages")
    running = Serving(folder / "home", free_port(), data_prefixes=json.dumps([f"file://{folder}/data/"]))
    yield running
    running.stop()


def watched(page: Page) -> list[str]:
    """What goes wrong in a page."""
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    return wrong


def test_the_reference_of_the_api_needs_nothing_from_elsewhere(serving: Serving, page: Page) -> None:
    wrong, asked = watched(page), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{serving.url}/docs")
    expect(page.get_by_text("/v1/studies/{study_id}/result", exact=True)).to_be_visible()
    assert not [url for url in asked if not url.startswith((serving.url, "data:"))]
    assert not wrong


def test_the_pages_follow_a_study(serving: Serving, page: Page) -> None:
    wrong = watched(page)
    with Client(serving.url) as client:
        study = client.study({**SPEC, "name": "followed", "finals": False})
        page.goto(serving.url)
        line = page.locator("li", has_text="followed")
        expect(line).to_contain_text("0 of 12 trials")
        trials = study.trials()
        for number in range(3):
            next(trials).tell(1.0 + number)
        expect(line).to_contain_text("3 of 12 trials")
        page.get_by_role("link", name="followed").click()
        expect(page.locator(".verdict")).to_have_text("3 of 12 trials are done; the study is running.")
        for number in range(9):
            next(trials).tell(2.0 + number)
        expect(page.locator(".verdict")).to_contain_text("Trial 0 has the best val_loss")
        expect(page.get_by_role("link", name="report")).to_be_visible()
        trials.close()
    assert wrong == []


def test_a_file_is_uploaded_and_searched(serving: Serving, page: Page, tmp_path: Path) -> None:
    wrong = watched(page)
    rows = tmp_path / "people.csv"
    rows.write_text("age,city,income\n" + "".join(f"{20 + n % 50},{'abc'[n % 3]},{n * 7 % 90}\n" for n in range(200)))
    page.goto(f"{serving.url}/new")
    page.get_by_label("or upload a file").set_input_files(rows)
    expect(page.get_by_label("Column to predict")).to_have_value("income")
    expect(page.get_by_role("status")).to_contain_text("200 rows; regression, by rmse")
    page.get_by_label("Column to predict").select_option("city")
    expect(page.get_by_role("status")).to_contain_text("classification, by accuracy")
    page.get_by_label("Preset").select_option("minimal")
    page.get_by_label("Trials").fill("0")
    page.get_by_label("Name").press("Tab")
    expect(page.get_by_role("status")).to_contain_text("budget.trials: must be")
    expect(page.get_by_role("button", name="Submit")).to_be_disabled()
    page.get_by_label("Trials").fill("7")
    page.get_by_label("Name").press("Tab")
    expect(page.get_by_role("status")).to_contain_text("7 trials search weight_decay, dropout")
    page.get_by_role("button", name="Submit").press("Enter")
    page.wait_for_url("**/studies/*")
    expect(page.locator("h1")).to_have_text("people")
    expect(page.locator(".verdict")).to_have_text("The study waits for a worker.")
    assert [each for each in wrong if "422" not in each] == []


def test_a_file_is_fetched_from_an_address(serving: Serving, page: Page) -> None:
    wrong = watched(page)
    folder = serving.home.parent / "data"
    folder.mkdir()
    (folder / "people.csv").write_text("age,income\n" + "".join(f"{20 + n % 50},{n * 7 % 90}\n" for n in range(200)))
    page.goto(f"{serving.url}/new")
    page.get_by_label("or fetch it from an address").fill(f"file://{folder.parent}/people.csv")
    page.get_by_label("or fetch it from an address").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("REGSEARCH_DATA_PREFIXES")
    page.get_by_label("or fetch it from an address").fill(f"file://{folder}/people.csv")
    page.get_by_label("or fetch it from an address").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("200 rows; regression, by rmse", timeout=30_000)
    expect(page.get_by_label("Name")).to_have_value("people")
    assert page.url.endswith("/new")
    assert [each for each in wrong if "422" not in each] == []


@pytest.mark.parametrize("path", ["/", "/new", "/studies/1"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_on_a_phone(serving: Serving, browser: Browser, path: str, scheme: str) -> None:
    with Client(serving.url) as client:
        client.study({**SPEC, "name": "a_name_without_any_blank_that_is_far_too_long_for_the_width_of_a_phone_" * 2})
    opened = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)  # type: ignore[arg-type]
    opened.goto(f"{serving.url}{path}")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    dark = opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark == (scheme == "dark")
    opened.close()
