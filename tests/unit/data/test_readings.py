"""Columns in forms of their own: what is inferred, what may be asked for, and that new rows are read as training was."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.datasets import Column, inspect
from service.datasets.readings import ColumnType, read_as
from service.datasets.sheet import notes_on, notes_on_target
from service.errors import InvalidInput
from workers.data import DataSource, PrepareOptions, load_table
from workers.data.fitting import fit_array, fit_table
from workers.plain.doubts import doubts
from workers.plain.files import read_csv
from workers.plain.preprocessing import CannotPredict, features
from workers.plain.readings import days_by, derived, hashed, number_by

ROWS = 60


def table(tmp_path: Path, *columns: Sequence[object], names: Sequence[str] = ("a", "b"), sep: str = ",") -> Path:
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=sep)
        writer.writerow([*names[: len(columns)], "y"])
        writer.writerows([*cells, row % 7 + 0.5 * (row % 2)] for row, cells in enumerate(zip(*columns, strict=True)))
    return path


def described(path: Path, name: str = "a") -> Column:
    return next(column for column in inspect(path, "csv").columns if column.name == name)


NUMBERS = {
    "thousands that another column's decimals decide": ([f"{row + 1},{row * 13 % 1000:03}" for row in range(ROWS)], 1000.0),
    "thousands twice": ([f"{row + 1},000,000" for row in range(ROWS)], 1e6),
    "decimal commas": ([f"{row},5" for row in range(ROWS)], 0.5),
    "both, as in Germany": ([f"{row + 1}.000,25" for row in range(ROWS)], 1000.25),
    "apostrophes": ([f"{row + 1}'000" for row in range(ROWS)], 1000.0),
    "narrow spaces": ([f"{row + 1}\u202f000" for row in range(ROWS)], 1000.0),
    "a unit": ([f"{row} yrs" for row in range(ROWS)], 0.0),
    "a unit without a blank": ([f"{row}km" for row in range(ROWS)], 0.0),
    "a currency": ([f"-${row},500.10" if row else "-$500.10" for row in range(ROWS)], -500.1),
    "percents": ([f"{row}.5%" for row in range(ROWS)], 0.5),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_in_a_form_of_their_own_are_numbers(tmp_path: Path, case: str) -> None:
    cells, first = NUMBERS[case]
    path = table(tmp_path, cells)
    column = described(path)
    assert column.kind == "numeric", column
    loaded = load_table(DataSource("regression", path=path, target="y"))
    assert loaded.features["a"].iloc[0] == first
    assert loaded.features["a"].is_monotonic_increasing != (first < 0)


def test_a_column_that_is_left_out_still_shows_the_mark_of_decimals(tmp_path: Path) -> None:
    path = table(tmp_path, NUMBERS["thousands that another column's decimals decide"][0])
    path.write_text(path.read_text().replace("y\n", "y,z\n", 1).replace("\n", ",1\n").replace("y,z,1", "y,z", 1))
    assert described(path).kind == "numeric"
    loaded = load_table(DataSource("regression", path=path, target="z", drop=("y",)))
    assert loaded.features["a"].iloc[0] == 1000.0


TIMES = {
    "days": "%Y-%m-%d",
    "times": "%Y-%m-%dT%H:%M:%S",
    "slashes": "%m/%d/%Y",
    "points": "%d.%m.%Y",
    "with a clock": "%d/%m/%Y %H:%M",
    "with words": "%d %b %Y",
    "halves of the day": "%m/%d/%Y %I:%M %p",
}


@pytest.mark.parametrize("form", TIMES.values(), ids=list(TIMES))
def test_times_in_one_form_become_days_and_points_on_circles(tmp_path: Path, form: str) -> None:
    moments = [datetime(2021, 1, 25, 6) + timedelta(days=row, hours=row) for row in range(ROWS)]
    path = table(tmp_path, [moment.strftime(form) for moment in moments])
    assert described(path).kind == "date"
    made = load_table(DataSource("regression", path=path, target="y")).features
    clock = "%H" in form or "%I" in form
    assert list(made.columns) == [
        "a: days",
        *(f"a: {word} ({wave})" for word in ("year", "week", *(["day"] if clock else [])) for wave in ("sine", "cosine")),
    ]
    expected = [
        (datetime.strptime(each.strftime(form), form) - datetime(1970, 1, 1)) / timedelta(days=1) for each in moments
    ]
    np.testing.assert_allclose(made["a: days"], expected)
    np.testing.assert_allclose(made["a: year (sine)"] ** 2 + made["a: year (cosine)"] ** 2, 1.0)
    week = np.arctan2(made["a: week (sine)"], made["a: week (cosine)"]) % (2 * math.pi) / (2 * math.pi) * 7
    weekday = [each.weekday() + ((each.hour + each.minute / 60) / 24 if clock else 0) for each in moments]
    gap = np.abs(np.asarray(week) - weekday)
    np.testing.assert_allclose(np.minimum(gap, 7 - gap), 0, atol=1e-6)


def test_what_can_be_meant_in_two_ways_is_told_and_can_be_said(tmp_path: Path) -> None:
    days = [f"{row % 12 + 1:02}/{row * 5 % 12 + 1:02}/2024" for row in range(ROWS)]
    path = table(tmp_path, days)
    column = described(path)
    assert (column.kind, set(column.forms)) == ("categorical", {"month_first", "day_first"})
    assert "data.types can say" in column.doubts()[0]
    assert days_by(_form(column, "month_first"), "03/05/2024") - days_by(_form(column, "day_first"), "03/05/2024") == -59.0
    whole = table(tmp_path, [f"{row + 1},{row * 7 % 1000:03}" for row in range(ROWS)])
    whole.write_text(whole.read_text().replace(".0", "").replace(".5", ""))  # no column shows the mark of decimals
    column = described(whole)
    assert (column.kind, set(column.forms)) == ("categorical", {"decimal_point", "decimal_comma"})
    assert number_by(_form(column, "decimal_point"), "2,007") == 2007.0
    assert number_by(_form(column, "decimal_comma"), "2,007") == 2.007


def _form(column: Column, word: ColumnType) -> dict[str, object]:
    form = read_as(column, word).form
    assert form is not None
    return dict(form)


NEITHER: dict[str, list[object]] = {
    "names": [f"name {'abcdefghij'[row % 10]}" for row in range(ROWS)],
    "codes": [f"A{row}" for row in range(ROWS)],
    "versions": [f"1.{row}.3" for row in range(ROWS)],
    "addresses": [f"192.168.{row}.1" for row in range(ROWS)],
    "telephone numbers": [f"555-{row:04}" for row in range(ROWS)],
    "two units": [f"{row} kg" if row % 2 else f"{row} g" for row in range(ROWS)],
    "numbers and a word": [row if row % 9 else "none" for row in range(ROWS)],
    "days that are none": [f"2024-02-{row % 31 + 1:02}" for row in range(ROWS)],
    "two forms of days": [f"2024-01-{row % 28 + 1:02}" if row % 2 else f"1/{row % 28 + 1}/2024" for row in range(ROWS)],
}


@pytest.mark.parametrize("case", NEITHER)
def test_other_texts_stay_categories(tmp_path: Path, case: str) -> None:
    assert described(table(tmp_path, NEITHER[case])).kind == "categorical"


def test_sentences_are_hashed_and_equal_ones_are_equal(tmp_path: Path) -> None:
    texts = [f"the {row} quick foxes jump over lazy dog number {row * 7}" for row in range(ROWS)]
    path = table(tmp_path, texts)
    assert described(path).kind == "text"
    made = load_table(DataSource("regression", path=path, target="y")).features
    assert made.shape == (ROWS, 64)
    np.testing.assert_array_equal(made.iloc[0], hashed(texts[0], 64))
    np.testing.assert_array_equal(hashed("One two", 8), hashed("one, TWO!", 8))
    assert abs(hashed("one two", 8)).sum() == pytest.approx(3 / math.sqrt(3))
    assert not hashed(None, 8).any()


OVERRULED: list[tuple[Sequence[object], ColumnType, str]] = [
    ([row % 5 for row in range(ROWS)], "category", "categorical"),
    ([row if row % 9 else "none" for row in range(ROWS)], "number", "numeric"),
    ([f"2024-01-{row % 28 + 1:02}" for row in range(ROWS)], "category", "categorical"),
    ([20240101 + row % 28 for row in range(ROWS)], "date", "date"),
    ([f"name {row % 3}" for row in range(ROWS)], "text", "text"),
]


@pytest.mark.parametrize(("cells", "word", "kind"), OVERRULED)
def test_every_inference_can_be_overruled(tmp_path: Path, cells: Sequence[object], word: ColumnType, kind: str) -> None:
    path = table(tmp_path, cells)
    column = described(path)
    assert column.kind != kind
    assert read_as(column, word).kind == kind
    loaded = load_table(DataSource("regression", path=path, target="y", types={"a": word}))
    assert ("a" in loaded.categorical) == (kind == "categorical")
    if word == "number":
        assert loaded.features["a"].isna().sum() == sum(cell == "none" for cell in cells)
    if word == "date":
        assert loaded.features["a: days"].iloc[0] == (date(2024, 1, 1) - date(1970, 1, 1)).days


@pytest.mark.parametrize("word", ["date", "decimal_comma", "month_first"])
def test_what_a_column_is_not_is_refused_with_its_field(tmp_path: Path, word: ColumnType) -> None:
    column = described(table(tmp_path, [f"name {row % 3}" for row in range(ROWS)]))
    with pytest.raises(InvalidInput, match="'name 0'") as caught:
        read_as(column, word)
    assert caught.value.issues[0].field == "data.types.a"


def test_new_rows_are_read_as_those_of_training(tmp_path: Path) -> None:
    """From the file, from a frame, and from plain values; and a text without its unit is the same number."""
    ages = [f"{row} yrs" for row in range(ROWS)]
    days = [f"{row % 28 + 1:02}.0{row % 9 + 1}.2024" for row in range(ROWS)]
    path = table(tmp_path, ages, days, sep=";")
    loaded = load_table(DataSource("regression", path=path, target="y"))
    fitted = fit_table(loaded.features, loaded.categorical, PrepareOptions(), loaded.readings)
    expected = features(loaded.features, fitted)
    np.testing.assert_array_equal(features(read_csv(path), fitted), expected)
    np.testing.assert_array_equal(features(pd.read_csv(path, sep=";"), fitted), expected)
    plain = {"a": list(range(ROWS)), "b": [datetime.strptime(day, "%d.%m.%Y") for day in days]}
    np.testing.assert_array_equal(features(plain, fitted), expected)
    stamps = pd.DataFrame({"a": ages, "b": pd.to_datetime(pd.Series(days), format="%d.%m.%Y")})
    np.testing.assert_array_equal(features(stamps, fitted), expected)
    assert doubts(read_csv(path), fitted) == []


def test_what_training_never_saw_is_counted_and_told() -> None:
    train = pd.DataFrame({"job": ["cook", "pilot"] * 20, "age": np.arange(40.0), "paid": [f"{row},5" for row in range(40)]})
    reading = {"kind": "number", "pattern": r"([+-]?)(\d+(?:,\d+)?)", "thousands": "", "decimal": ","}
    fitted = fit_table(pd.DataFrame(derived(train, {"paid": reading})), ("job",), PrepareOptions(), {"paid": reading})
    rows = {"job": ["cook", "smith", None, "NA"], "age": ["1", "41 yrs", "", "inf"], "paid": ["2,5", 2.5, "2 1/2", None]}
    assert doubts(rows, fitted) == [
        "column 'age': 1 value is no numbers, such as '41 yrs', taken as missing",
        "column 'paid': 1 value is not in the form of training, such as '2 1/2', taken as missing",
        "column 'job': 1 value is unknown to training, such as 'smith', taken as an unknown category",
    ]


def sheet_of(frame: pd.DataFrame, tmp_path: Path, target: str = "y") -> dict[str | None, set[str]]:
    path = tmp_path / "sheet.csv"
    frame.to_csv(path, index=False)
    info = inspect(path, "csv")
    column = info.column(target)
    assert column is not None
    found: dict[str | None, set[str]] = {}
    for note in [*notes_on(info), *notes_on_target(info, column, classes=column.kind == "categorical")]:
        found.setdefault(note.column, set()).add(note.topic)
    return found


def test_the_sheet_tells_what_may_mislead(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=500)
    made = pd.DataFrame(
        {
            "customer_id": rng.permutation(500) + 70_000,
            "ssn": [f"s{value}" for value in rng.permutation(500)],
            "leak": 3 * y + 0.001 * rng.normal(size=500),
            "feature": y + rng.normal(size=500),
            "other": rng.normal(size=500),
            "one": 1,
            "nothing": np.nan,
            "town": rng.choice(["Ulm", "Ulm ", "Bonn"], 500),
            "huge": rng.integers(2**60, 2**62, 500) // 10**6 * 10**6 + 2**60,
            "y": y,
        }
    )
    found = sheet_of(made, tmp_path)
    expected = {"customer_id": "id", "ssn": "id", "leak": "copy", "one": "constant", "nothing": "empty", "town": "blanks"}
    assert {name: topics for name, topics in found.items() if name not in ("y", "huge")} == {
        name: {topic} for name, topic in expected.items()
    }
    assert "large" in found["huge"]


def test_an_id_in_the_order_of_the_classes_is_a_leak(tmp_path: Path) -> None:
    made = pd.DataFrame({"id": range(300), "x": np.random.default_rng(0).normal(size=300), "y": ["a"] * 100 + ["b"] * 200})
    assert sheet_of(made, tmp_path)["id"] == {"id", "copy"}


def test_rare_classes_and_equal_rows_are_told(tmp_path: Path) -> None:
    made = pd.DataFrame({"x": [row // 2 for row in range(200)], "y": ["a"] * 120 + ["b"] * 77 + ["c"] * 2 + ["d"]})
    found = sheet_of(made, tmp_path)
    assert found["y"] == {"rare"}
    assert found[None] == {"rows"}


@pytest.mark.parametrize(("channels", "count"), [("auto", 4), ("first", 4), ("last", 6)])
def test_it_can_be_said_where_images_have_their_channels(tmp_path: Path, channels: str, count: int) -> None:
    """Of the shape (4, 9, 6) either axis may be the one of the channels."""
    path = tmp_path / "images.npz"
    x = np.random.default_rng(0).normal(size=(30, 4, 9, 6))
    np.savez(path, x=x, y=np.arange(30) % 2)
    loaded = load_table(DataSource("classification", path=path, format="npz", layout="image", channels=channels))
    assert loaded.arrays is not None
    fitted = fit_array(loaded.arrays, np.arange(30), None, "image", loaded.channels)
    assert len(fitted["mean"]) == count
    made = features({"x": x}, fitted)
    assert made.shape == ((30, 6, 4, 9) if channels == "last" else (30, 4, 9, 6))
    np.testing.assert_allclose(made.mean(axis=(0, 2, 3)), 0.0, atol=1e-5)


def test_two_columns_of_one_name_are_refused_by_the_loader(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,a\n1,2\n")
    with pytest.raises(CannotPredict, match="several columns 'a'"):
        read_csv(path)
    fitted = fit_table(pd.DataFrame({"a": np.arange(10.0)}), (), PrepareOptions())
    frame = pd.DataFrame(np.zeros((2, 2)), columns=["a", "a"])
    with pytest.raises(CannotPredict, match="several columns of one name"):
        features(frame, fitted)
    with pytest.raises(CannotPredict, match="several columns of one name"):
        features(pd.DataFrame(np.zeros((2, 2)), columns=pd.Index([1, "1"])), fitted)
