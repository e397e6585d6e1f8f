"""Table files: their form, their description in chunks compared with pandas on the whole table, and refusals."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.atomic import sweep_parts
from service.datasets import (
    csvfile,
    describe,
    file_format,
    files,
    held,
    infer_task,
    inspect,
    load_arrays,
    read_frame,
    save_upload,
)
from service.datasets.sheet import notes_on
from service.datasets.uploads import uploaded
from service.errors import InvalidInput, StorageFull
from service.objects.local import LocalObjects


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a small table in many chunks."""
    monkeypatch.setattr(files, "_CELLS_PER_CHUNK", 1)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


BAD_FORMS = {
    "short line": ("a,b,c\n1,2,3\n4,5\n", "line 3 has 2 fields, the header has 3"),
    "all lines long": ("a,b\n1,2,3\n4,5,6\n", "line 2 has 3 fields, the header has 2"),
    "one column": ("a\n1\n", "at least two columns"),
    "open quote": ('a,b\n1,"2\n3,4\n', "cannot be read as csv: .*EOF inside string"),
    "only spaces": ("  \n\n", "at least two columns"),
}


@pytest.mark.parametrize("case", BAD_FORMS)
def test_csv_of_bad_form_is_refused_not_repaired(tmp_path: Path, case: str) -> None:
    text, message = BAD_FORMS[case]
    path = written(tmp_path / "bad.csv", text)
    for read in (inspect, read_frame):
        with pytest.raises(InvalidInput, match=message) as caught:
            read(path, "csv")
        assert caught.value.issues[0].field == "file"


def test_csv_with_quotes_and_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    text = '\ufeffa, "b b",c\n1,"x, ""y""\nz",2.5\n\n2,,\n'
    frame = read_frame(written(tmp_path / "good.csv", text), "csv")
    assert list(frame.columns) == ["a", "b b", "c"]
    assert frame["b b"].tolist()[0] == 'x, "y"\nz'
    assert frame.isna().sum().tolist() == [0, 1, 1]


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("a,b\né,1\n".encode("latin-1"))
    with pytest.raises(InvalidInput, match="not UTF-8"):
        inspect(path, "csv")


def test_compressed_csv_is_csv_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a,b\n" + "1,2\n" * 500
    with gzip.open(tmp_path / "data.csv.gz", "wt") as out:
        out.write(text)
    with (tmp_path / "data.csv.gz").open("rb") as stream:
        stored = save_upload(stream, "DATA.CSV.GZ", tmp_path / "store", 1000)
    assert (stored.format, stored.path.suffix) == ("csv", ".csv")
    assert inspect(stored.path, "csv") == inspect(written(tmp_path / "plain.csv", text), "csv")
    (tmp_path / "cut.csv").write_bytes(stored.path.read_bytes()[:-12])
    with pytest.raises(InvalidInput, match="cannot be read as csv"):
        inspect(tmp_path / "cut.csv", "csv")
    monkeypatch.setattr(csvfile, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(InvalidInput, match="unpacks to more than 1000 bytes"):
        inspect(stored.path, "csv")
    with pytest.raises(InvalidInput, match="ending 'gz'"):
        file_format("data.parquet.gz", "file")


def mixed(rows: int = 3000) -> pd.DataFrame:
    """Columns whose kind is determined late: text or a fraction only in the last row."""
    rng = np.random.default_rng(0)
    late = [str(value) for value in rng.integers(0, 50, rows - 1)] + ["word"]
    fraction = [*np.arange(rows - 1, dtype=float), 0.5]
    gaps = np.where(np.arange(rows) < rows - 5, np.nan, 3.0)
    flags = [None if row % 7 == 0 else bool(row % 3) for row in range(rows)]
    return pd.DataFrame({"late": late, "fraction": fraction, "gaps": gaps, "flags": flags, "k": rng.integers(0, 4, rows)})


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_in_chunks_is_described_like_the_whole_table(tmp_path: Path, ending: str, small_chunks: None) -> None:
    path = tmp_path / f"data.{ending}"
    made = mixed()
    write: Callable[..., object] = made.to_csv if ending == "csv" else made.to_parquet
    write(path, index=False)
    info = inspect(path, ending)
    whole = read_frame(path, ending)
    assert info.rows == len(whole)
    for column in info.columns:
        series = whole[column.name]
        assert column.kind == ("categorical" if describe.is_categorical(series) else "numeric")
        assert (column.missing, column.distinct) == (series.isna().sum(), series.nunique()), column.name
    assert [column.kind for column in info.columns] == ["categorical", "numeric", "numeric", "categorical", "numeric"]
    assert [column.whole for column in info.columns] == [False, False, True, False, True]


def test_many_distinct_values_are_estimated(tmp_path: Path, small_chunks: None) -> None:
    rows = 40_000
    path = tmp_path / "data.csv"
    pd.DataFrame({"id": np.arange(rows), "half": np.arange(rows) // 2, "few": np.arange(rows) % 8000}).to_csv(
        path, index=False
    )
    distinct = {column.name: column.distinct for column in inspect(path, "csv").columns}
    assert distinct["few"] == 8000
    assert distinct["half"] == pytest.approx(rows / 2, rel=0.04)
    assert rows * 0.96 < distinct["id"] <= rows


def test_parquet_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    made = pd.DataFrame(
        {
            "price": [Decimal("1.50"), None, Decimal("2.25")],
            "count": pd.array([1, None, 3], dtype="Int64"),
            "level": pd.Categorical(["a", "b", "a"]),
            "void": pd.Series([None] * 3, index=["r1", "r2", "r3"], dtype="str"),
            "day": np.array(["2020-01-01", "2020-01-02", "NaT"], dtype="datetime64[ns]"),
        },
        index=pd.Index(["r1", "r2", "r3"], name="label"),
    )
    made.to_parquet(path)
    info = inspect(path, "parquet")
    assert [column.name for column in info.columns] == ["price", "count", "level", "void", "day"]
    assert [column.kind for column in info.columns] == ["numeric"] * 2 + ["categorical"] * 3, (
        "two days are too few to be times"
    )
    assert [column.missing for column in info.columns] == [1, 1, 0, 3, 1]
    frame = read_frame(path, "parquet")
    assert list(frame.columns) == [column.name for column in info.columns]
    assert frame["price"].tolist()[0] == 1.5


def test_parquet_that_is_not_a_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pd.DataFrame({"a": [[1], [2]], "b": [1, 2]}).to_parquet(path)
    with pytest.raises(InvalidInput, match="lists or records") as caught:
        inspect(path, "parquet")
    assert caught.value.issues[0].value == ["a"]
    pd.DataFrame({"a": [1.0]}).to_parquet(path)
    with pytest.raises(InvalidInput, match="at least two columns"):
        inspect(path, "parquet")
    pd.DataFrame({"a": [1.0], "b": [1.0]}).iloc[:0].to_parquet(path)
    with pytest.raises(InvalidInput, match="no rows"):
        inspect(path, "parquet")


def test_invalid_paths_are_refused_like_any_other(tmp_path: Path) -> None:
    loop = tmp_path / "loop.csv"
    loop.symlink_to(loop)
    for bad in ("\0", "a" * 5000, str(loop), "", str(tmp_path)):
        with pytest.raises(InvalidInput, match=r"data\.path"), held(bad, [tmp_path]):
            pass


def test_describing_a_large_table_takes_little_memory(tmp_path: Path) -> None:
    """70 MB of CSV and 63 MB of arrays are described with little more memory than pandas itself takes."""
    some = pd.DataFrame(np.random.default_rng(0).random((2000, 200))).to_csv(index=False)
    names, lines = some.split("\n", 1)
    written(tmp_path / "data.csv", f"{names}\n{lines * 10}")
    np.savez(tmp_path / "data.npz", x=np.zeros((10_000, 28, 28)), y=np.arange(10_000) % 10)
    code = (
        "import sys, resource, pandas, pyarrow.parquet\n"
        "from pathlib import Path\n"
        "from service.datasets import inspect\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before = peak()\n"
        "for ending in ('csv', 'npz'): inspect(Path(sys.argv[1]) / f'data.{ending}', ending)\n"
        "print(peak() - before)\n"
    )
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, cwd=root, env=environment
    )
    assert float(done.stdout) < 60


def test_importing_the_package_does_not_import_pandas() -> None:
    root = Path(__file__).parents[3]
    code = "import sys, service.datasets; print(sorted({'pandas', 'pyarrow', 'sklearn', 'torch'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, env=environment
    )
    assert done.stdout.strip() == "[]"


def test_a_target_with_few_distinct_integers_has_classes(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv", "x,y\n" + "".join(f"{i * 0.5},{i % 3}\n" for i in range(300)))
    info = inspect(path, "csv")
    tasks = {column.name: infer_task(column, info.rows) for column in info.columns}
    assert tasks == {"x": "regression", "y": "classification"}


WORDS = "name,size,note\n" + "".join(
    f"{('Ann', 'None', 'NA', '')[row % 4]},{row if row % 5 else 'NA'},{row if row % 6 else '?'}\n" for row in range(40)
)


def test_words_are_missing_in_columns_of_numbers_alone(tmp_path: Path, small_chunks: None) -> None:
    path = written(tmp_path / "words.csv", WORDS)
    name, size, note = inspect(path, "csv").columns
    assert (name.kind, name.missing, name.distinct) == ("categorical", 10, 3)
    assert (size.kind, size.missing) == ("numeric", 8)
    assert (note.kind, note.missing, note.words) == ("categorical", 0, ("?",))
    frame = read_frame(path, "csv")
    assert frame.isna().sum().to_dict() == {"name": 10, "size": 8, "note": 0}
    assert set(frame["name"].dropna()) == {"Ann", "None", "NA"}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_further_words_are_missing_where_the_user_says_so(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path / "words.csv", WORDS)
    if ending == "parquet":
        path = tmp_path / "words.parquet"
        read_frame(tmp_path / "words.csv", "csv").astype({"note": str}).to_parquet(path)
    missing = ("?", "None")
    frame = read_frame(path, ending, missing)
    assert frame["note"].isna().sum() == 7
    assert set(frame["name"].dropna()) == {"Ann", "NA"}
    found = {column.name: column for column in inspect(path, ending, missing).columns}
    assert found["note"].missing == 7
    assert found["name"].missing == 20
    if ending == "csv":
        assert (found["note"].kind, found["note"].words) == ("numeric", ())


def test_arrays_of_the_other_byte_order_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    x = np.arange(12.0).reshape(6, 2)
    np.savez(path, X=x.astype(">f8"), y=np.arange(6).astype(">i4"))
    arrays = load_arrays(path)
    np.testing.assert_array_equal(arrays.x, x)
    assert (arrays.x.dtype, arrays.y.dtype) == (np.dtype("f8"), np.dtype("i4"))
    assert inspect(path, "npz").column("x").missing == 0  # type: ignore[union-attr]


def test_uploads_that_broke_off_are_removed_and_others_are_not(tmp_path: Path) -> None:
    old, young, whole, parts = (tmp_path / name for name in ("a.part", "b.part", "c.csv", "d.part"))
    parts.mkdir()
    for path in (old, young, whole, parts / "0.parquet"):
        path.touch()
    for path in (old, whole, parts):
        os.utime(path, (0, 0))
    sweep_parts(tmp_path)
    assert sorted(tmp_path.iterdir()) == [young, whole]


def test_a_file_that_was_changed_or_lost_after_its_upload_is_refused(tmp_path: Path) -> None:
    with written(tmp_path / "rows.csv", "a,y\n1,2\n").open("rb") as stream:
        stored = save_upload(stream, "rows.csv", tmp_path / "datasets", 1000)
    objects = LocalObjects(tmp_path)
    with uploaded(objects, stored.id, "csv") as path:
        assert path == stored.path
    stored.path.write_text("a,y\n1,3\n")
    with (
        pytest.raises(InvalidInput, match=r"data\.dataset: is not what was uploaded"),
        uploaded(objects, stored.id, "csv"),
    ):
        pass
    stored.path.unlink()
    with (
        pytest.raises(InvalidInput, match=r"data\.dataset: can't be read: No such file"),
        uploaded(objects, stored.id, "csv"),
    ):
        pass


@pytest.mark.parametrize(
    ("header", "told"),
    [("0.5,1,2.25", True), ("5.1,3.5,yes", True), ("0,1,2", False), ("a,1990,2.5", True), ("a,b,3", False)],
)
def test_a_first_line_that_may_be_a_row_is_told(tmp_path: Path, header: str, told: bool) -> None:
    path = written(tmp_path / "rows.csv", f"{header}\n" + "1,2,3\n4,5,6\n")
    assert any(note.topic == "header" for note in notes_on(inspect(path, "csv"))) == told


def test_an_upload_to_a_full_disk_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_a_full_disk(**_: object) -> tuple[int, str]:
        (tmp_path / "kept" / "x.part").symlink_to("/dev/full")
        return os.open("/dev/full", os.O_WRONLY), str(tmp_path / "kept" / "x.part")

    monkeypatch.setattr("tempfile.mkstemp", on_a_full_disk)
    with (
        written(tmp_path / "rows.csv", "a,y\n1,2\n").open("rb") as stream,
        pytest.raises(StorageFull, match="no room for the file; nothing was stored"),
    ):
        save_upload(stream, "rows.csv", tmp_path / "kept", 1000)
    assert list((tmp_path / "kept").iterdir()) == []
