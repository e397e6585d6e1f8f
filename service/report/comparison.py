"""Several studies beside each other: their best values, test scores, recipes and curves; over REST and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.report.axes import Scale, bottom_axis, left_axis, number, robust_range
from service.report.charts_scores import WIDTH, legend
from service.report.content import Block, Figure, Report, Section, Table, Text, objective
from service.report.recipe import formatted
from service.report.scene import Dot, Drawing, Line, Role
from service.result import Result
from service.result.external import ExternalResult
from service.search import values
from service.spec import StudySpec
from service.spec.external import any_spec
from service.spec.recipe import Recipe
from service.store.records import StudyRecord, TrialRecord

_ROLES: tuple[Role, ...] = ("winner", "baseline", "good", "other", "ink")
_LEFT, _TOP, _BOTTOM, _RIGHT = 52.0, 44.0, 276.0, WIDTH - 12


@dataclass(frozen=True)
class Estimate:
    """A score, with the ends of its 95 % interval where there is one."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Compared:
    """A study in a comparison. ``recipe`` is the winner's, or that of the best trial so far; ``best`` has its curves."""

    study: StudyRecord
    best: TrialRecord | None
    recipe: Mapping[str, Any]
    verdict: str | None = None
    validation: float | None = None
    test: Estimate | None = None
    baseline: Estimate | None = None

    @property
    def name(self) -> str:
        """Short, for charts and columns."""
        return f"study {self.study.id}"

    @property
    def curve(self) -> Sequence[float]:
        """The best trial's value after each epoch."""
        return ((self.best.curve or {}) if self.best else {}).get(self.study.metric, [])


@dataclass(frozen=True)
class Difference:
    """A setting in which recipes differ, with its value in each study that has one; None where it does not apply."""

    setting: str
    values: Sequence[Any]


def compared(study: StudyRecord, result: Result | ExternalResult | None, best: TrialRecord | None) -> Compared:
    """A study with what is known of it."""
    if result is None:
        return Compared(study, best, _recipe_of(study, best))
    valid = result.winner.valid.mean if result.winner.valid else None
    if isinstance(result, ExternalResult):
        told = [each.test if each else None for each in (result.winner, result.baseline)]
        means = [Estimate(each.mean) if each else None for each in told]
        return Compared(study, best, dict(result.winner.params), result.verdict, valid, *means)
    tests = [each.test for each in (result.winner, result.baseline)]
    scores = [Estimate(each.mean, each.low, each.high) if each else None for each in tests]
    return Compared(study, best, _whole(result.winner.recipe), result.verdict, valid, *scores)


def _recipe_of(study: StudyRecord, best: TrialRecord | None) -> Mapping[str, Any]:
    if best is None:
        return {}
    spec = any_spec(study.spec)
    found = values(spec, best.params)
    return _whole(found) if isinstance(spec, StudySpec) else found


def _whole(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the neutral values of settings that are not in it."""
    known = {name: value for name, value in found.items() if name in Recipe({}) or name == "widths"}
    return {**found, **Recipe(known)}


def differences(found: Sequence[Compared]) -> list[Difference]:
    """The settings in which the recipes differ, those with regularizers of the first study first."""
    known = [each for each in found if each.recipe]
    names = dict.fromkeys(name for each in known for name in each.recipe)
    made = [Difference(name, [each.recipe.get(name) for each in found]) for name in names]
    return [each for each in made if len({formatted(each.values[found.index(one)]) for one in known}) > 1]


def doubts(found: Sequence[Compared]) -> Iterator[str]:
    """Why values of the studies may not be compared."""
    metrics = dict.fromkeys(each.study.metric for each in found)
    if len(metrics) > 1:
        yield f"The studies have different metrics ({', '.join(map(objective, metrics))}): their values can't be compared."
    data = [_data(each.study) for each in found]
    if any(each != data[0] for each in data):
        yield "The studies differ in their data or its division: differences of scores may come from that alone."


def _data(study: StudyRecord) -> object:
    spec = study.spec
    return spec.get("data"), spec.get("validation"), spec.get("seed"), spec.get("executor")


def build_comparison(found: Sequence[Compared]) -> Report:
    """The page of a comparison."""
    names = [each.name for each in found]
    sections = [
        Section("Scores", [*map(Text, doubts(found)), _scores(found)]),
        Section("Curves of the best trials", list(_curves(found))),
        Section("Where the recipes differ", list(_recipes(found))),
    ]
    return Report(
        title=f"{', '.join(names[:-1])} and {names[-1]}".capitalize() if len(names) > 1 else names[0].capitalize(),
        subtitle="; ".join(f"{each.name}: {each.study.name}" for each in found),
        verdict="Studies compared",
        tiles=[],
        sections=[section for section in sections if section.blocks],
        links={"all studies": "/", **{each.name: f"/studies/{each.study.id}" for each in found}},
    )


def _scores(found: Sequence[Compared]) -> Table:
    head = ("study", "state", "metric", "best of the search", "winner, validation", "winner, test", "unregularized, test")
    rows = [
        (
            f"{each.study.id} {each.study.name}",
            f"{each.study.state}, {each.study.counts.finished} of {each.study.budget_trials} trials",
            f"{objective(each.study.metric)}, {each.study.direction}d",
            number(each.study.best.value if each.study.best else None),
            number(each.validation),
            _estimate(each.test),
            _estimate(each.baseline),
        )
        for each in found
    ]
    return Table(head, rows)


def _estimate(found: Estimate | None) -> str:
    if found is None or found.low is None or found.high is None:
        return number(found.mean if found else None)
    return f"{number(found.mean)} ({number(found.low)} to {number(found.high)})"


def _curves(found: Sequence[Compared]) -> Iterator[Block]:
    for metric in dict.fromkeys(each.study.metric for each in found):
        drawn = [each for each in found if each.study.metric == metric and len(each.curve) > 0]
        if drawn:
            caption = "Validation values of each study's best trial by epoch; a dot where its weights were kept."
            head = ("study", "trial", "epochs", "kept at", "value")
            rows = [
                (
                    each.name,
                    str(each.best.number),
                    str(len(each.curve)),
                    str((each.best.best_step or 0) + 1),
                    number(each.best.value),
                )
                for each in drawn
                if each.best
            ]
            yield Figure(_drawing(drawn, objective(metric)), caption, Table(head, rows))


def _drawing(found: Sequence[Compared], metric: str) -> Drawing:
    drawing = Drawing(
        WIDTH, 320.0, f"Validation {metric} by epoch, of the best trials of {', '.join(each.name for each in found)}"
    )
    y = Scale.around(robust_range([value for each in found for value in each.curve], 0.9), _BOTTOM, _TOP)
    x = Scale(0.0, float(max(len(each.curve) for each in found)), _LEFT, _RIGHT)
    left_axis(drawing, y, _LEFT, "", right=_RIGHT)
    bottom_axis(drawing, x, _BOTTOM, f"epoch; validation {metric}", top=_TOP)
    for place, each in enumerate(found):
        role, dash = _ROLES[place % len(_ROLES)], place >= len(_ROLES)
        drawing.add(Line([(x(step + 1), y(value)) for step, value in enumerate(each.curve)], role, 2.0, dash=dash))
        if each.best and each.best.best_step is not None and each.best.value is not None:
            at = (x(each.best.best_step + 1), y(each.best.value))
            drawing.add(Dot(*at, 4, role, tooltip=f"{each.name}: trial {each.best.number}, {number(each.best.value)}"))
        column, line = place % 4, place // 4
        legend(drawing, [(each.name, role, dash)], _LEFT + 100 * column, 14.0 + 14 * line)
    return drawing


def _recipes(found: Sequence[Compared]) -> Iterator[Block]:
    differing = differences(found)
    if differing:
        cells = [
            (each.setting, *("–" if value is None else formatted(value) for value in each.values)) for each in differing
        ]
        yield Table(("setting", *(each.name for each in found)), cells)
    elif sum(bool(each.recipe) for each in found) > 1:
        yield Text("All recipes are the same.")
