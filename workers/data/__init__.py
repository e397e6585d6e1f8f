"""From a data source to what a stack trains on: raw table, split, preprocessing. NumPy only, no torch.

`locked` is the only module that touches test rows.
"""

from workers.data.prepare import Fold, TargetScale, prepare
from workers.data.split import Split, make_split
from workers.data.table import DataSource, RawTable, load_table

__all__ = ["DataSource", "Fold", "RawTable", "Split", "TargetScale", "load_table", "make_split", "prepare"]
