"""Images as arrays, of training and of new rows alike; needs Pillow.

Shapes: `h` and `w` pixels.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def pixels(content: bytes, size: Sequence[int], mode: str) -> NDArray[np.uint8]:
    """(h, w) of a grey image (``mode`` L) or (h, w, 3) of a coloured one (RGB), turned upright, of the ``size`` (h, w).

    Raises:
        OSError, ValueError: It is no image.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415  # only models of images need it

    with Image.open(io.BytesIO(content)) as image:
        upright = ImageOps.exif_transpose(image) or image
        if upright.mode.startswith("I") or upright.mode == "F":  # of 16 bits or more, which Pillow would cut off
            values = np.asarray(upright, dtype=np.float64)
            upright = Image.fromarray((values / max(1.0, values.max()) * 255.0).astype(np.uint8))
        made = upright.convert(mode)
        height, width = size
        if made.size != (width, height):
            made = made.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(made, dtype=np.uint8)


def read_images(path: Path, image: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The images of a ZIP file or a folder, in the order of their names, or a single one.

    `x` is (rows, h, w) or (rows, h, w, 3); `y` (rows,) are the names of the folders that they lie in.

    Args:
        path: Of the file or folder.
        image: ``size`` (h, w) and ``mode`` of training.

    Raises:
        OSError, ValueError: There is none, or one can't be read.
    """
    if path.is_dir():
        names = sorted(str(each.relative_to(path)) for each in path.rglob("*") if _is_image(each))
        contents = [(path / name).read_bytes() for name in names]
    elif path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if _is_image(Path(name)))
            contents = [archive.read(name) for name in names]
    else:
        names, contents = [path.name], [path.read_bytes()]
    if not contents:
        raise ValueError(f"{path} has no images")
    x = np.stack([pixels(content, image["size"], image["mode"]) for content in contents])
    return {"x": x, "y": np.array([Path(name).parent.name for name in names])}


def _is_image(name: Path) -> bool:
    return name.suffix.lower() in ENDINGS and not name.name.startswith(".") and "__MACOSX" not in name.parts
