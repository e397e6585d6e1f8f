"""Workbooks, Arrow files, and images in folders by class, from their description to the rows of a study and of a model."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from service.datasets import images, inspect, read_frame
from service.datasets.images import pictures_in
from service.datasets.uploads import file_format
from service.errors import InvalidInput
from service.spec import ValidationSpec
from workers.data import DataSource, load_table, make_split, prepare
from workers.plain.files import read_rows
from workers.plain.images import ENDINGS, pixels
from workers.plain.preprocessing import CannotPredict, features


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    made = pd.DataFrame(
        {
            "size": rng.normal(size=60).round(3),
            "count": rng.integers(0, 9, 60),
            "town": rng.choice(["Ulm", "Bonn", "NA"], 60),
            "day": pd.date_range("2024-01-01", periods=60),
            "class": rng.choice(["yes", "no"], 60),
        }
    )
    made.loc[3, "size"] = np.nan
    made.loc[5, "town"] = None
    return made


@pytest.mark.parametrize("ending", ["xlsx", "feather", "csv"])
def test_a_table_is_the_same_in_every_format(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    made = frame()
    if ending == "xlsx":
        made.to_excel(path, index=False)
    elif ending == "feather":
        made.to_feather(path)
    else:
        made.to_csv(path, index=False, sep="\t")
    info = inspect(path, ending)
    assert [column.kind for column in info.columns] == ["numeric", "numeric", "categorical", "date", "categorical"]
    assert [column.missing for column in info.columns] == [1, 0, 1, 0, 0]
    assert set(read_frame(path, ending)["town"].dropna()) == {"Ulm", "Bonn", "NA"}
    loaded = load_table(DataSource("classification", path=path, format=ending, target="class"))
    assert list(loaded.features.columns)[3] == "day: days"
    np.testing.assert_allclose(loaded.features["day: days"], 19723 + np.arange(60))
    np.testing.assert_allclose(loaded.features["size"], made["size"])


def test_the_loader_knows_the_same_images() -> None:
    assert images.ENDINGS == ENDINGS


def test_endings_name_formats() -> None:
    given = {"a.TSV": "csv", "a.tsv.gz": "csv", "a.arrow": "feather", "a.xlsx": "xlsx", "cats.zip": "zip"}
    assert {name: file_format(name, "file") for name in given} == given


@pytest.mark.parametrize("ending", ["xlsx", "feather", "zip"])
def test_files_that_are_none_of_it_are_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    for content in (b"", b"PK\x03\x04 nothing", b"a,b\n1,2\n"):
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match="file: cannot be read as"):
            inspect(path, ending)


def image(value: int, size: tuple[int, int] = (8, 6), mode: str = "RGB", form: str = "PNG") -> bytes:
    rng = np.random.default_rng(value)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    noise = rng.integers(0, 30, shape)
    made = Image.fromarray((noise + (200 if value % 2 else 20)).astype(np.uint8))
    out = io.BytesIO()
    made.save(out, form)
    return out.getvalue()


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path


def cats_and_dogs(path: Path, **options: Any) -> Path:
    files = {f"{'cat' if row % 2 else 'dog'}/{row:03}.png": image(row, **options) for row in range(60)}
    return archive(path, files | {"__MACOSX/cat/._001.png": b"", "cat/notes.txt": b"no image"})


def test_folders_by_class_are_classes(tmp_path: Path) -> None:
    path = cats_and_dogs(tmp_path / "pets.zip")
    info = inspect(path, "zip")
    assert (info.rows, info.shape) == (60, (6, 8, 3))
    assert info.columns[1].levels == {"cat": 30, "dog": 30}
    loaded = load_table(DataSource("classification", path=path, format="zip", layout="image"))
    assert loaded.labels == ("cat", "dog")
    assert loaded.arrays is not None
    assert loaded.arrays.shape == (60, 6, 8, 3)
    assert loaded.arrays.dtype == np.uint8
    bright = loaded.arrays[:].reshape(60, -1).mean(1) > 100
    np.testing.assert_array_equal(bright, loaded.target == 0)
    fold = prepare(loaded, make_split(loaded, ValidationSpec(method="holdout"), 0), 0)
    expected = features({"x": loaded.arrays}, fold.preprocessor)
    assert expected.shape == (60, 3, 6, 8)
    np.testing.assert_array_equal(features(read_rows(path, fold.preprocessor["image"]), fold.preprocessor), expected)
    with zipfile.ZipFile(path) as files:
        files.extractall(tmp_path / "folder")
    found = read_rows(tmp_path / "folder", fold.preprocessor["image"])
    np.testing.assert_array_equal(features(found, fold.preprocessor), expected)
    assert list(found["y"][:2]) == ["cat", "cat"]
    one = read_rows(tmp_path / "folder" / "cat" / "001.png", fold.preprocessor["image"])
    np.testing.assert_array_equal(features(one, fold.preprocessor), expected[:1])
    with pytest.raises(CannotPredict, match="has no images"):
        read_rows(archive(tmp_path / "none.zip", {"a.txt": b""}), {"size": [6, 8], "mode": "RGB"})


def test_images_of_many_sizes_and_kinds_become_one(tmp_path: Path) -> None:
    files = {f"a/{row}.png": image(row, (20, 10)) for row in range(12)}
    files |= {f"b/{row}.webp": image(row, (30 + row, 40), form="WEBP") for row in range(5)}
    files |= {"b/grey.png": image(1, (20, 10), "L"), "b/wide.jpg": image(1, (900, 20), form="JPEG")}
    path = archive(tmp_path / "mixed.zip", files)
    found = pictures_in(path)
    assert (found.size, found.mode) == ((10, 20), "RGB")
    loaded = load_table(DataSource("classification", path=path, format="zip", layout="image", image_size=16))
    assert loaded.arrays is not None
    assert loaded.arrays.shape == (19, 16, 16, 3)
    grey = archive(tmp_path / "grey.zip", {f"{row % 2}/{row}.png": image(row, (300, 600), "L") for row in range(4)})
    assert pictures_in(grey).shape == (224, 112)


def test_folders_may_divide_images_into_parts(tmp_path: Path) -> None:
    files = {f"{part}/{'ab'[row % 2]}/{row}.png": image(row) for part in ("train", "test") for row in range(6)}
    loaded = load_table(
        DataSource("classification", path=archive(tmp_path / "parts.zip", files), format="zip", layout="image")
    )
    assert loaded.part is not None
    assert sorted(loaded.part.tolist()) == [0] * 6 + [2] * 6
    assert loaded.labels == ("a", "b")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": b"x"}, "contains no images"),
        ({"a.png": image(0)}, "in no folder"),
        ({"a/1.png": image(0), "b/2.png": b"no image"}, "an image that can't be read"),
        ({"a/1.png": image(0)[:60]}, "can't be read"),
    ],
)
def test_other_zip_files_are_refused_with_the_image(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    path = archive(tmp_path / "bad.zip", files)
    with pytest.raises(InvalidInput, match=message):
        inspect(path, "zip")


def test_images_are_upright_and_deep_ones_are_scaled() -> None:
    lying = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    lying.save(out, "PNG", exif=exif)
    np.testing.assert_array_equal(pixels(out.getvalue(), (4, 3), "L"), np.rot90(np.arange(12).reshape(3, 4), -1))
    deep = Image.fromarray(np.array([[0, 1000], [2000, 4000]], dtype=np.uint16))
    out = io.BytesIO()
    deep.save(out, "PNG")
    np.testing.assert_array_equal(pixels(out.getvalue(), (2, 2), "L"), [[0, 63], [127, 255]])
