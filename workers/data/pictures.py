"""ZIP files of images as arrays: of one size, uint8, decoded one after the other."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from service.datasets import Arrays
from service.datasets.images import Pictures, pictures_in
from service.errors import InvalidInput
from workers.plain.images import pixels


def load_pictures(path: Path, side: int | None) -> tuple[Arrays, Pictures]:
    """The images, as squares of ``side`` pixels or in the size that the file suggests, and what they are.

    Raises:
        InvalidInput: One can't be decoded.
    """
    found = pictures_in(path).resized(side)
    x = np.empty((len(found.names), *found.shape), dtype=np.uint8)
    with zipfile.ZipFile(path) as archive:
        for row, name in enumerate(found.names):
            try:
                x[row] = pixels(archive.read(name), found.size, found.mode)
            except (OSError, ValueError, zipfile.BadZipFile) as error:
                raise InvalidInput.one("file", f"has an image that can't be read: {error}", value=name) from None
    part = None if found.parts is None else np.array(found.parts, dtype=np.int8)
    return Arrays(x, np.array(found.labels), part=part), found
