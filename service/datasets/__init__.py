"""Data sets as files: which are built in, how an upload is stored, what columns a table has. No torch, no scikit-learn.

The API uses it to validate a study at submit; `workers.data` reads the same files with the same functions.
"""

from service.datasets.builtin import BUILTIN
from service.datasets.files import FORMATS, Column, TableInfo, infer_task, inspect, read_arrays, read_frame
from service.datasets.uploads import StoredFile, resolve_path, save_upload, stored_path

__all__ = [
    "BUILTIN",
    "FORMATS",
    "Column",
    "StoredFile",
    "TableInfo",
    "infer_task",
    "inspect",
    "read_arrays",
    "read_frame",
    "resolve_path",
    "save_upload",
    "stored_path",
]
