"""ZIP files of images in folders by class: `cat/1.png`, or `train/cat/1.png` and `test/cat/2.png`.

Only the headers of the images are read here; `workers.data.pictures` decodes them. The name of the folder that an image
lies in is its class. Folders of further levels may divide the images in two or three parts (train, valid, test). Images are
of one size then: that of most of them, or the median of all, at most `MOST_PIXELS` on a side.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Literal

from service.datasets.tables import MAX_UNPACKED_BYTES, PARTS, Column, TableInfo, refuse

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MOST_PIXELS = 224
_LARGEST = 50_000_000
"""Pixels of one image."""
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "F")
_MOST_LEVELS = 50


@dataclass(frozen=True)
class Pictures:
    """``names`` of the images, sorted, with their ``labels`` and ``parts``; ``size`` is (height, width)."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    parts: tuple[int, ...] | None
    size: tuple[int, int]
    mode: Literal["L", "RGB"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image, grey or with channels last."""
        return self.size if self.mode == "L" else (*self.size, 3)

    def resized(self, side: int | None) -> Pictures:
        """The same as squares of ``side`` pixels; as they are if it is None."""
        return self if side is None else Pictures(self.names, self.labels, self.parts, (side, side), self.mode)


def inspect_images(path: Path) -> TableInfo:
    """Describe a ZIP file of images as a table with the columns `x` and `y`.

    Raises:
        InvalidInput: See `pictures_in`.
    """
    found = pictures_in(path)
    levels = Counter(found.labels)
    few = dict(levels.most_common()) if len(levels) <= _MOST_LEVELS else None
    single = sum(count == 1 for count in levels.values())
    target = Column("y", "categorical", 0, len(levels), whole=False, levels=few, single=single)
    return TableInfo(len(found.names), (Column("x", "numeric", 0, 0, False), target), found.shape)


def pictures_in(path: Path) -> Pictures:
    """The images of a ZIP file.

    Raises:
        InvalidInput: It is none, an image can't be read or lies in no folder, or together they are too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(_images(archive))
            if not names:
                refuse("contains no images", allowed=f"folders by class with {', '.join(ENDINGS)}")
            sizes, grey = zip(*(_header(archive, name) for name in names), strict=True)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:
        refuse(f"cannot be read as a ZIP file of images: {error}")
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    alone = [name for name, folder in zip(names, folders, strict=True) if not folder]
    if alone:
        refuse("has images in no folder, whose names are the classes", value=alone[:5], allowed="CLASS/IMAGE.png")
    size = _size(sizes)
    mode: Literal["L", "RGB"] = "L" if all(grey) else "RGB"
    taken = len(names) * size[0] * size[1] * (1 if mode == "L" else 3)
    if taken > MAX_UNPACKED_BYTES:
        refuse(f"unpacks to {taken} bytes", value=taken, allowed=f"at most {MAX_UNPACKED_BYTES}")
    return Pictures(tuple(names), tuple(folder[-1] for folder in folders), _parts(folders), size, mode)


def _images(archive: zipfile.ZipFile) -> Iterator[str]:
    for entry in archive.infolist():
        name = PurePosixPath(entry.filename)
        hidden = name.name.startswith(".") or "__MACOSX" in name.parts
        if not entry.is_dir() and not hidden and name.suffix.lower() in ENDINGS:
            yield entry.filename


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, int], bool]:
    """(height, width) of an image, and whether it is grey."""
    from PIL import Image, UnidentifiedImageError  # slow, and only needed for images

    try:
        content = io.BytesIO(archive.read(name))
        with Image.open(content) as image:
            if image.width * image.height > _LARGEST:
                refuse(f"has an image of {image.width} × {image.height} pixels", value=name, allowed=f"at most {_LARGEST}")
            image.verify()  # that it is complete, as far as its format can tell
        with Image.open(content) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # the orientation says that it lies on its side
            size = (image.width, image.height) if turned else (image.height, image.width)
            return size, image.mode in _GREY
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        refuse(f"has an image that can't be read: {error}", value=name)


def _size(sizes: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    usual, count = Counter(sizes).most_common(1)[0]
    height, width = usual if 2 * count > len(sizes) else (median(side) for side in zip(*sizes, strict=True))
    shrink = min(1.0, MOST_PIXELS / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def _parts(folders: list[tuple[str, ...]]) -> tuple[int, ...] | None:
    """The parts that the first folders are, if all are."""
    words = [folder[0].lower() for folder in folders if len(folder) > 1]
    if len(words) < len(folders) or not {*words} <= {*PARTS}:
        return None
    return tuple(PARTS[word] for word in words)
