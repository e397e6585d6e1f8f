"""Loads the model of this archive and predicts; needs torch, safetensors and NumPy, and nothing of the service.

python loader.py new.csv --out predictions.csv

from loader import Model
model = Model.load("directory of the unpacked archive")
model.predict("new.csv")
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from plain.loader import CannotPredict, Model, main

__all__ = ["CannotPredict", "Model"]

if __name__ == "__main__":
    main(Path(__file__).parent)
