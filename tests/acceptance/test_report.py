"""The report in a real browser: light, dark, on a phone, printed; and the way to it from the dashboard."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from pypdfium2 import PdfDocument

from service.report import build_report, to_html
from tests.acceptance.conftest import Service
from tests.results import result
from tests.unit.report.sources import classified, source

pytestmark = pytest.mark.browser

# Contrast after WCAG 2.1 of everything that is written or drawn against what is behind it.
CONTRAST = """
() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
  };
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const found = {};
  for (const element of document.querySelectorAll("h1, h2, p, td, th, figcaption, summary, a, b, span, code, svg .winner, "
      + "svg .baseline, svg .other, svg text.ink, svg text.soft")) {
    const name = element.closest("svg") ? "svg " + element.tagName + " " + element.classList : element.tagName;
    found[name] = Math.min(found[name] ?? 99, ratio(parse(getComputedStyle(element).color), behind(element)));
  }
  return found;
}
"""


def pages() -> list[str]:
    """A regression's report, and a classification's with a text that is no friend of layouts."""
    long = "a_very_long_name_without_any_space_" * 4
    names = result(pictures=classified(), verdict=f"Test accuracy 0.9 with {long}", ties=(long,))
    return [to_html(build_report(source())), to_html(build_report(source(names, name=long)))]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_is_readable(scheme: Any, page: Page) -> None:
    page.emulate_media(color_scheme=scheme)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    for content in pages():
        page.set_content(content)
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", dark)[:3])) < 200) == (scheme == "dark")
        contrasts = page.evaluate(CONTRAST)
        assert len(contrasts) > 12
        for name, ratio in contrasts.items():
            drawn = name.startswith("svg") and "text" not in name
            assert ratio > (3.0 if drawn else 4.5), name
    assert [url for url in requests if not url.startswith(("data:", "about:"))] == []


@pytest.mark.parametrize("width", [320, 390, 768])
def test_it_fits_a_narrow_screen(width: int, page: Page) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for content in pages():
        page.set_content(content)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        sizes = page.evaluate("[...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height)")
        assert min(sizes) >= (7 if width < 400 else 8)
        wide = page.evaluate("[...document.querySelectorAll('figure, .tile, p')].map(e => e.getBoundingClientRect().right)")
        assert max(wide) <= width


def test_figures_say_their_numbers_to_those_who_do_not_see_them(page: Page) -> None:
    page.set_content(pages()[1])
    figures = page.locator("figure")
    assert figures.count() >= 9
    for index in range(figures.count()):
        assert figures.nth(index).locator("svg").get_attribute("aria-label")
        expect(figures.nth(index).locator("figcaption")).not_to_be_empty()
    page.locator("summary").first.click()
    expect(page.locator("details table").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_prints_whole_and_dark_on_light(scheme: Any, page: Page) -> None:
    page.emulate_media(color_scheme=scheme)
    for content in pages():
        page.set_content(content)
        captions = page.locator("figcaption").all_inner_texts()
        page.emulate_media(media="print", color_scheme=scheme)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        printed = PdfDocument(page.pdf(format="A4"))
        said = ""
        for sheet in printed:
            text = sheet.get_textpage()
            width, height = sheet.get_size()
            for index in range(text.count_rects()):
                left, bottom, right, top = text.get_rect(index)
                assert left > 20
                assert right < width - 20
                assert bottom > 20
                assert top < height - 20
            said += text.get_text_bounded()
            text.close()
        printed.close()
        squeezed = "".join(said.split())
        for caption in captions:
            assert "".join(caption.split()) in squeezed
        assert "trained=train(network,RECIPE,split(x,y,SEED),epochs=EPOCHS)" in squeezed


def test_the_dashboard_leads_to_the_report(service: Service, study: dict[str, Any], page: Page) -> None:
    page.goto(f"{service.url}{study['links']['dashboard']}/note")
    page.get_by_role("link", name="Report").first.click()
    expect(page.get_by_role("heading", name="Which regularizers helped")).to_be_visible()
    assert page.url == f"{service.url}/v1/studies/{study['id']}/report"
    verdict = service.client.get(f"/v1/studies/{study['id']}/result")["verdict"]
    expect(page.get_by_text(verdict)).to_be_visible()
    for name in ("What it predicts", "How the search went", "The recipe", "How this was measured"):
        expect(page.get_by_role("heading", name=name)).to_be_visible()
    for format_ in ("html", "markdown", "pdf"):
        path = service.home.parent / f"report.{format_}"
        done = service.run("report", str(study["id"]), "--format", format_, "--out", str(path))
        assert done.returncode == 0, done.stderr
        assert path.stat().st_size > 5000
