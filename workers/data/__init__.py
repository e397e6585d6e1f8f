"""From a data source to the arrays that a stack trains on: raw table, split, preprocessing. NumPy, pandas, scikit-learn.

`locked` is the only module that touches test rows.
"""

from workers.data.fitting import Fitted, PrepareOptions
from workers.data.prepare import Features, Fold, Lazy, TargetScale, prepare, prepare_alike, prepare_all
from workers.data.split import Division, Split, divide_all, make_split, nested_splits, split_rows
from workers.data.table import DataSource, RawTable, load_table

__all__ = [
    "DataSource",
    "Division",
    "Features",
    "Fitted",
    "Fold",
    "Lazy",
    "PrepareOptions",
    "RawTable",
    "Split",
    "TargetScale",
    "divide_all",
    "load_table",
    "make_split",
    "nested_splits",
    "prepare",
    "prepare_alike",
    "prepare_all",
    "split_rows",
]
