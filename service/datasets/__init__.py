"""Data sets in files: built-in ones, storage of uploads, descriptions of tables. Imports neither torch nor scikit-learn.

The API uses it to validate a study when it is submitted; `workers.data` reads the same files with the same functions.
"""

from service.datasets.arrays import Arrays, load_arrays, read_arrays
from service.datasets.builtin import BUILTIN, BuiltinFacts
from service.datasets.files import inspect, read_chunks, read_frame, unpacked_bytes
from service.datasets.mapped import Mapped, Place
from service.datasets.tables import FORMATS, Column, TableInfo, infer_task
from service.datasets.uploads import StoredFile, file_format, held, object_name, save_upload, uploaded

__all__ = [
    "BUILTIN",
    "FORMATS",
    "Arrays",
    "BuiltinFacts",
    "Column",
    "Mapped",
    "Place",
    "StoredFile",
    "TableInfo",
    "file_format",
    "held",
    "infer_task",
    "inspect",
    "load_arrays",
    "object_name",
    "read_arrays",
    "read_chunks",
    "read_frame",
    "save_upload",
    "unpacked_bytes",
    "uploaded",
]
