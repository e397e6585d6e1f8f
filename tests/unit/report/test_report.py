"""The report says what the result says, whatever the result lacks, and no text of a user becomes markup."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from pypdfium2 import PdfDocument

from service.report import build_report, charts_front, to_html, to_markdown
from service.report.axes import Scale, number, robust_range
from service.report.charts_search import history, parallel, settings_of
from service.report.content import Figure
from service.report.pdf import to_pdf
from service.report.scene import Dot, Line, to_svg
from service.result import Result
from service.result.base import later
from tests.results import result, setting
from tests.unit.report.sources import HOSTILE, classified, source, traded, trial

VOID = {"meta", "link", "br"}


class Checker(HTMLParser):
    """Well-formed, and nothing in it that a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "iframe", "img", "object")
        for name, value in attrs:
            assert not name.startswith("on")
            assert name != "src"
            if name == "href" and tag != "a":
                assert value == "data:,"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("polyline", "circle", "rect")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(page: str) -> str:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert "url(" not in page
    assert "@import" not in page
    return " ".join(" ".join(checker.text).split())


def test_the_page_has_every_part_of_the_answer() -> None:
    said = checked(to_html(build_report(source())))
    for part in (
        "Test rmse 50 with dropout",
        "On validation rows, these settings can't be distinguished from the winner: trial 5.",
        "49 over new seeds on the same rows, 4 worse, and 50 on the test rows, 5 worse",
        "fANOVA",
        "266 for training, 88 for validation, 88 locked for testing. 2 rows repeat an earlier one",
        "sampler tpe and the pruner median",
        "2026-01-02 03:04 UTC worker 1 final score",
        "data hash cdcdcd",
        "versions torch 2.13",
        "SHA-256 of the archive abababababababab…",
    ):
        assert part in said


def test_classes_get_a_confusion_matrix_and_a_reliability_diagram() -> None:
    said = checked(to_html(build_report(source(result(pictures=classified())))))
    assert "Expected calibration error: 0.120" in said
    assert "no predicted as no: 40 of 42" in said


MAY_LACK = sorted(later(Result) | {"front", "discrimination"})


@pytest.mark.parametrize("missing", [*MAY_LACK, "all"])
def test_what_a_result_lacks_is_left_out(missing: str) -> None:
    kept = {name: part for name, part in result().to_json().items() if name != missing}
    if missing == "all":
        kept = {name: part for name, part in kept.items() if name not in MAY_LACK}
    report = build_report(source(Result.model_validate(kept), trials=[]))
    checked(to_html(report))
    to_markdown(report)


def test_several_objectives_have_a_picture_and_a_table_of_their_front() -> None:
    report = build_report(source(traded(), also=["gap"]))
    for said in (checked(to_html(report)), to_markdown(report)):
        for part in (
            "rmse, to be minimized, and generalization gap, to be minimized",
            "The 3 on the Pareto front are coloured: no other trial is at least as good in both and better in one",
            "settings of the Pareto front, which no other trial dominates in rmse and generalization gap",
            "dropout 0.25",
        ):
            assert part in said
    assert "| trial 12 | 52 | 5 | dropout 0.5 |" in to_markdown(report)
    assert "| trial 7 | 50 ± 0.5 | 8 ± 0.5 | 51 |" in to_markdown(report)
    (figure,) = next(section for section in report.sections if section.title == "Trade-offs between objectives").blocks[:1]
    assert isinstance(figure, Figure)
    ElementTree.fromstring(to_svg(figure.drawing))
    assert "front" not in to_markdown(build_report(source()))


def test_the_edge_of_a_front_goes_by_the_worse_of_both_values() -> None:
    """In a front of two, one objective to be minimized and one to be maximized; places on the sheet grow downwards."""
    trials = [(0, 1.0, 0.2), (1, 2.0, 0.6), (2, 3.0, 0.9), (3, 3.0, 0.1)]
    drawing = charts_front.front(trials, trials[:3], ("loss", "f1"), stairs=True, winner=1)
    (stairs,) = (shape.points for shape in drawing.shapes if isinstance(shape, Line) and shape.width == 1.5)
    dots = {shape.tooltip.split(":")[0]: shape for shape in drawing.shapes if isinstance(shape, Dot)}
    places = [(dots[f"trial {number}"].x, dots[f"trial {number}"].y) for number in range(3)]
    assert stairs == [
        places[0],
        (places[1][0], places[0][1]),
        places[1],
        (places[2][0], places[1][1]),
        places[2],
    ]
    assert (dots["trial 1"].role, dots["trial 1"].radius) == ("winner", 6.0)
    projected = charts_front.front(trials, trials[:3], ("loss", "f1"), stairs=False, winner=None)
    assert not [shape for shape in projected.shapes if isinstance(shape, Line) and shape.width == 1.5]


def test_a_baseline_that_did_not_train_is_left_out() -> None:
    untrained = setting("unregularized", 60.0, test=None, valid=None, train=None)
    checked(to_html(build_report(source(result(baseline=untrained)))))


def test_texts_of_users_stay_texts() -> None:
    found = result(verdict=HOSTILE, pictures=classified())
    report = build_report(source(found, name=HOSTILE))
    said = checked(to_html(report))
    assert said.count(HOSTILE) >= 3
    assert "49" not in said.split("regsearch")[0]
    markdown = to_markdown(report)
    assert "<script>" not in markdown.replace("\\<script\\>", "")
    for line in markdown.splitlines():
        if line.startswith("| true"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 4


def test_every_drawing_is_xml_with_a_name_and_stays_on_its_sheet() -> None:
    report = build_report(source(traded().model_copy(update={"pictures": classified()}), also=["gap"]))
    figures = [block for section in report.sections for block in section.blocks if isinstance(block, Figure)]
    assert len(figures) >= 10
    for figure in figures:
        drawing = figure.drawing
        element = ElementTree.fromstring(to_svg(drawing))
        assert element.attrib["aria-label"]
        for shape in drawing.shapes:
            points = shape.points if isinstance(shape, Line) else [(shape.x, shape.y)]
            for x, y in points:
                assert 0 <= x <= drawing.width
                assert 0 <= y <= drawing.height


def test_the_best_so_far_is_a_falling_staircase_to_the_best() -> None:
    trials = [trial(n) for n in range(40)]
    (line,) = [
        shape for shape in history(trials, "rmse", minimize=True, winner=None).shapes if getattr(shape, "width", 0) == 2
    ]
    assert isinstance(line, Line)
    heights = [y for _, y in line.points]
    assert heights == sorted(heights)  # down the sheet is lower
    dots = [shape.y for shape in history(trials, "rmse", minimize=True, winner=None).shapes if isinstance(shape, Dot)]
    assert heights[-1] == max(dots)


def test_parallel_lines_go_from_axis_to_axis() -> None:
    trials = [trial(n) for n in range(30)]
    drawing = parallel(trials, "rmse", minimize=True, winner=4)
    assert drawing is not None
    lines = [shape for shape in drawing.shapes if isinstance(shape, Line) and len(shape.points) == 4]
    assert len(lines) == 30
    assert sum(line.role == "winner" for line in lines) == 3
    assert [line.width for line in lines].count(3.0) == 1
    assert parallel([trial(1)], "rmse", minimize=True, winner=None) is None


def test_parameters_are_read_as_settings() -> None:
    assert settings_of({"use_l1": False, "use_l2": True, "l2": 0.1, "dropout_0": 0.2, "dropout_1": 0.4}) == {
        "l1": "off",
        "l2": 0.1,
        "dropout": pytest.approx(0.3),
    }


def test_scales_and_ticks() -> None:
    scale = Scale(0.0, 10.0, 100.0, 200.0)
    assert [scale(value) for value in (-5, 0, 5, 10, 50)] == [100, 100, 150, 200, 200]
    assert scale.ticks(5) == [0.0, 2.5, 5.0, 7.5, 10.0]
    assert Scale(0.13, 0.87, 0, 1).ticks(5) == [0.2, 0.4, 0.6, 0.8]
    log = Scale(1e-4, 1.0, 0.0, 100.0, log=True)
    assert log(1e-2) == pytest.approx(50.0)
    assert log.ticks() == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert Scale.around([3.0, 3.0, math.nan], 0, 1)(3.0) == 0.5
    low, high = robust_range([*range(100), 1e9])
    assert (low, high < 1000) == (0, True)
    assert [number(value) for value in (None, math.inf, 0.0, -1234.5, 1e-7, 0.12346)] == [
        "–",
        "–",
        "0",
        "−1234",
        "1e−7",
        "0.1235",
    ]


def test_the_pdf_has_the_same_words_and_stays_in_its_margins() -> None:
    report = build_report(source(result(pictures=classified()), name="Größe → łuk 漢"))
    content = to_pdf(report)
    assert content == to_pdf(report)
    document = PdfDocument(content)
    pages = [page.get_textpage() for page in document]
    said = " ".join(" ".join(page.get_text_bounded().split()) for page in pages)
    assert "Größe ? ?uk ?" in said
    assert "Test rmse 50 with dropout" in said
    assert "readings of the test part 1" in said
    assert "trained = train(network, RECIPE, split(x, y, SEED), epochs=EPOCHS)" in said
    for section in report.sections:
        assert section.title in said
    for sheet, page in zip(document, pages, strict=True):
        width, height = sheet.get_size()
        for index in range(page.count_rects()):
            left, bottom, right, top = page.get_rect(index)
            assert left > 40
            assert right < width - 40
            assert bottom > 20
            assert top < height - 40
    for page in pages:
        page.close()
    document.close()
