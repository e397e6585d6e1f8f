"""Learning-rate schedules as lines of Python, for the snippet: each sets `factor`.

The lines may use `epoch` (behind the warmup), `epochs`, `update`, `updates` and, for plateau, `scale`. They say what
`workers.stack.schedules` does; a test compares both, rate by rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from service.spec import Recipe


@dataclass(frozen=True)
class ScheduleCode:
    """The settings that belong to a schedule, and its lines."""

    settings: Sequence[str]
    lines: Callable[[Recipe], Sequence[str]]


def _formula(code: str, *settings: str) -> ScheduleCode:
    """A schedule of one expression, in which a setting's name in braces stands for its value."""
    return ScheduleCode(
        settings,
        lambda recipe: [
            *(["share = epoch / epochs"] if "share" in code else []),
            f"factor = {code.format(**{name: _n(recipe, name) for name in settings})}",
        ],
    )


def _n(recipe: Recipe, name: str) -> str:
    value = recipe.number(name)
    return repr(int(value)) if isinstance(recipe[name], int) else repr(value)


def _warm_restarts(recipe: Recipe) -> Sequence[str]:
    floor = _n(recipe, "cosine_floor")
    return [
        f"period = {_n(recipe, 'restart_period')}",
        "while epoch >= period:",
        f"    epoch, period = epoch - period, period * {_n(recipe, 'restart_mult')}",
        f"factor = {floor} + (1 - {floor}) * (1 + math.cos(math.pi * epoch / period)) / 2",
    ]


def _one_cycle(recipe: Recipe) -> Sequence[str]:
    return [
        f"start, done, total = 1 / {_n(recipe, 'one_cycle_divisor')}, epoch * updates + update, epochs * updates",
        f"top = max(0.0, {_n(recipe, 'one_cycle_rise')} * total - 1)",
        "if done <= top:",
        "    factor = 1 + (start - 1) * (1 + math.cos(math.pi * done / max(top, 1e-9))) / 2",
        "else:",
        "    down = (done - top) / max(total - 1 - top, 1e-9)",
        "    factor = start / 1e4 + (1 - start / 1e4) * (1 + math.cos(math.pi * min(down, 1.0))) / 2",
    ]


_COSINE = "{cosine_floor} + (1 - {cosine_floor}) * (1 + math.cos(math.pi * share)) / 2"
_LINEAR = "max(0.0, (1 - share{noise}) * (1 + math.cos(2 * math.pi * {linear_cosine_periods} * share)) / 2 + 0.001)"
_NOISE = " + random.gauss(0.0, math.sqrt({noise_variance} / (1 + epoch) ** {noise_decay}))"
_MILESTONES = "((share >= {piecewise_first}) + (share >= {piecewise_second}))"

SCHEDULES: Mapping[str, ScheduleCode] = {
    "constant": _formula("1.0"),
    "step": _formula("{step_gamma} ** (epoch // {step_every})", "step_gamma", "step_every"),
    "piecewise": _formula("{piecewise_gamma} ** " + _MILESTONES, "piecewise_gamma", "piecewise_first", "piecewise_second"),
    "polynomial": _formula("(1 - share) ** {polynomial_power}", "polynomial_power"),
    "exponential": _formula("{exponential_gamma} ** epoch", "exponential_gamma"),
    "natural_exponential": _formula("math.exp(-{decay_rate} * share)", "decay_rate"),
    "inverse_time": _formula("1 / (1 + {decay_rate} * share)", "decay_rate"),
    "cosine": _formula(_COSINE, "cosine_floor"),
    "linear_cosine": _formula(_LINEAR.replace("{noise}", ""), "linear_cosine_periods"),
    "noisy_linear_cosine": _formula(
        _LINEAR.replace("{noise}", _NOISE), "linear_cosine_periods", "noise_variance", "noise_decay"
    ),
    "warm_restarts": ScheduleCode(("restart_period", "restart_mult", "cosine_floor"), _warm_restarts),
    "one_cycle": ScheduleCode(("one_cycle_rise", "one_cycle_divisor"), _one_cycle),
    "plateau": ScheduleCode(("plateau_patience", "plateau_factor"), lambda recipe: ["factor = scale"]),
}
