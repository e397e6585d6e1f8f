"""NPZ files: read, described, refused; images and sequences keep their shape."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.datasets import arrays, inspect, load_arrays, read_arrays
from service.errors import InvalidInput, TrialError
from service.spec import ValidationSpec
from workers.data import DataSource, Division, load_table, make_split, prepare, split_rows
from workers.plain.preprocessing import features


def saved(path: Path, **content: Any) -> Path:
    np.savez_compressed(path, **content)
    return path


def sequences(rows: int = 60, steps: int = 7, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, steps + 1, rows)
    x = rng.normal(5.0, 3.0, (rows, steps, 2)).astype(np.float32)
    x[np.arange(steps) >= lengths[:, None]] = 0.0
    return {"x": x, "y": np.arange(rows) % 3, "len": lengths}


def test_parts_of_a_file_are_put_below_each_other(tmp_path: Path) -> None:
    made = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)
    path = saved(
        tmp_path / "a.npz", X_train=made[:3], y_train=[0, 1, 0], X_val=made[3:4], y_val=[1], x_TEST=made[4:], Y_test=[0, 1]
    )
    found = load_arrays(path)
    np.testing.assert_array_equal(found.x, made)
    assert found.x.dtype == np.uint8
    np.testing.assert_array_equal(found.y, [0, 1, 0, 1, 0, 1])
    assert found.part is not None
    assert found.part.tolist() == [0, 0, 0, 1, 2, 2]
    info = inspect(path, "npz")
    assert (info.rows, info.shape) == (6, (2, 2))
    x, y = read_arrays(path)
    assert x.dtype == np.float32
    assert len(y) == 6


def test_missing_values_and_targets_of_every_type_are_described(tmp_path: Path) -> None:
    x = np.zeros((5, 3))
    x[[0, 2], 1] = np.nan
    info = inspect(saved(tmp_path / "a.npz", x=np.asfortranarray(x), y=np.array([1.0, 2.0, np.nan, 1.0, 2.0])), "npz")
    assert [(c.missing, c.distinct, c.whole, c.kind) for c in info.columns] == [
        (2, 0, False, "numeric"),
        (1, 2, True, "numeric"),
    ]
    for y in (np.array(["a", "b", "a", "b", "a"]), np.array([b"a", b"b", b"a", b"b", b"a"]), np.arange(5) % 2 == 0):
        target = inspect(saved(tmp_path / "a.npz", x=x, y=y), "npz").column("y")
        assert target is not None
        assert (target.kind, target.distinct) == ("categorical", 2)
    column = load_arrays(saved(tmp_path / "a.npz", x=x, y=np.arange(5)[:, None]))
    assert column.y.shape == (5,)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "pickle": ({"x": np.zeros((2, 2)), "y": np.zeros(2), "more": np.array([{}, None])}, "Python objects"),
    "one-dimensional": ({"x": np.zeros(3), "y": np.zeros(3)}, "do not fit"),
    "five-dimensional": ({"x": np.zeros((2, 1, 1, 1, 1)), "y": np.zeros(2)}, "do not fit"),
    "one-hot": ({"x": np.zeros((4, 2)), "y": np.eye(4)}, "one-hot"),
    "targets of parts": (
        {"x_train": np.zeros((3, 2)), "y_train": np.zeros((3, 2)), "x_test": np.zeros((3, 2)), "y_test": np.zeros(3)},
        "different numbers of targets",
    ),
    "targets of targets": ({"x": np.zeros((3, 2)), "y": np.zeros((3, 4, 2))}, "do not fit"),
    "no rows": ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, "do not fit"),
    "complex": ({"x": np.zeros((3, 2), dtype=complex), "y": np.zeros(3)}, "not numbers"),
    "dates": ({"x": np.zeros((3, 2)), "y": np.zeros(3, "datetime64[s]")}, "neither numbers nor text"),
    "twice": ({"x": np.zeros((3, 2)), "X": np.zeros((3, 2)), "y": np.zeros(3)}, "several arrays with the same name"),
    "lengths": ({"x": np.zeros((3, 2, 1)), "y": np.zeros(3), "len": np.zeros(2, int)}, "lengths that do not fit"),
    "shapes": (
        {"x_train": np.zeros((3, 2)), "y_train": np.zeros(3), "x_test": np.zeros((3, 4)), "y_test": np.zeros(3)},
        "parts of different shapes",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arrays_that_are_no_data_set_are_refused(tmp_path: Path, case: str) -> None:
    content, message = REFUSED[case]
    path = saved(tmp_path / "a.npz", **content)
    for read in (load_arrays, arrays.inspect_arrays):
        with pytest.raises(InvalidInput, match=message) as caught:
            read(path)
        assert caught.value.issues[0].field == "file"


def test_bombs_and_lies_are_refused_before_anything_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "bomb.npz", x=np.zeros((100_000, 10)), y=np.zeros(100_000))
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(arrays, "MAX_UNPACKED_BYTES", 1_000_000)
    with pytest.raises(InvalidInput, match="unpacks to 8800"):
        inspect(path, "npz")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 2)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
        archive.writestr("y.npy", header.getvalue())
    with pytest.raises(InvalidInput, match="differs from that in its header"):
        inspect(path, "npz")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", x=np.random.default_rng(0).random((500, 4)), y=np.zeros(500))
    content = bytearray(path.read_bytes())
    content[400:420] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="cannot be read as npz"):
        inspect(path, "npz")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"no array")
        archive.writestr("readme.txt", b"")
    with pytest.raises(InvalidInput, match="cannot be read as npz"):
        inspect(path, "npz")


def test_images_are_standardized_per_channel_by_training_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = (rng.random((50, 4, 5, 3)) * [10, 100, 250]).astype(np.uint8)
    x[..., 1] = 7
    table = load_table(
        DataSource("classification", path=saved(tmp_path / "a.npz", x=x, y=np.arange(50) % 2), format="npz", layout="image")
    )
    parts = make_split(table, ValidationSpec(), 0)
    fold = prepare(table, parts, 0)
    train, valid = parts.folds[0]
    assert fold.x_train.shape == (len(train), 3, 4, 5)
    assert fold.x_train.flags.c_contiguous
    mean, deviation = x[train].mean((0, 1, 2)), x[train].std((0, 1, 2))
    expected = (x[valid] - mean) / np.where(deviation > 0, deviation, 1.0)
    np.testing.assert_allclose(fold.x_valid, np.moveaxis(expected, -1, 1), rtol=1e-5, atol=1e-5)
    again = json.loads(json.dumps(fold.preprocessor))
    np.testing.assert_array_equal(features(x[valid], again), fold.x_valid)


def test_grey_images_have_one_channel_and_equal_images_are_copies(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((40, 6, 6)).astype(np.float32)
    x[30:] = x[:10]
    source = DataSource(
        "classification", path=saved(tmp_path / "a.npz", x=x, y=np.arange(40) % 2), format="npz", layout="image"
    )
    table = load_table(source)
    parts = make_split(table, ValidationSpec(), 0)
    assert parts.duplicates == 10
    assert prepare(table, parts, 0).x_train.shape[1:] == (1, 6, 6)


def test_channels_may_come_first(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 255, (40, 3, 6, 5), dtype=np.uint8)
    y = np.arange(40) % 2
    folds = []
    for number, made in enumerate((x, np.moveaxis(x, 1, -1))):
        path = saved(tmp_path / f"{number}.npz", x=made, y=y)
        table = load_table(DataSource("classification", path=path, format="npz", layout="image"))
        folds.append(prepare(table, make_split(table, ValidationSpec(test_fraction=0.1), 0), 0))
    assert folds[0].x_train.shape[1:] == (3, 6, 5)
    np.testing.assert_array_equal(folds[0].x_train, folds[1].x_train)


def test_padding_of_sequences_is_neither_counted_nor_moved(tmp_path: Path) -> None:
    made = sequences()
    made["x"][5, 0, 1] = np.nan
    source = DataSource("classification", path=saved(tmp_path / "a.npz", **made), format="npz", layout="sequence")
    table = load_table(source)
    parts = make_split(table, ValidationSpec(), 0)
    fold = prepare(table, parts, 0)
    train = parts.folds[0][0]
    real = np.arange(7) < made["len"][train][:, None]
    values = made["x"][train][real].astype(np.float64)
    scaled = (values - np.nanmean(values, 0)) / np.nanstd(values, 0)
    np.testing.assert_allclose(fold.x_train[real], np.nan_to_num(scaled), rtol=1e-4, atol=1e-5)
    assert np.isnan(fold.x_train[~real]).all()


def test_layouts_that_do_not_fit_are_errors_of_the_data(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", x=np.zeros((30, 4)), y=np.arange(30) % 2)
    for layout in ("image", "sequence"):
        with pytest.raises(TrialError, match=f"can't be read as {layout}"):
            load_table(DataSource("classification", path=path, format="npz", layout=layout))


def test_the_test_part_that_a_file_names_can_be_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((50, 3))
    x[45] = x[0]  # a copy of a training row among the test rows: the training one has to go
    parts = {"x_train": x[:30], "x_valid": x[30:40], "x_test": x[40:]}
    y = {name.replace("x", "y"): np.arange(len(part)) % 2 for name, part in parts.items()}
    table = load_table(DataSource("classification", path=saved(tmp_path / "a.npz", **parts, **y), format="npz"))
    split = split_rows(table, Division(0, given=True))
    assert split.test.tolist() == [0, *range(40, 50)]
    assert split.folds[0][0].tolist() == list(range(1, 30))
    assert split.folds[0][1].tolist() == list(range(30, 40))
    folded = split_rows(table, Division(0, given=True, folds=3))
    assert folded.test.tolist() == split.test.tolist()
    assert len(folded.folds) == 3
