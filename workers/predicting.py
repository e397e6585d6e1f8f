"""`python -m workers.predicting model.zip rows.csv`: predicts with the code that is installed here.

An archive has a loader of its own, for people without regsearch. `regsearch predict` does not run it: of what a server
sends, only numbers and texts are read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from service.errors import RegsearchError
from workers.archive.read import read_archive
from workers.plain.foreign import ModuleFault, imported
from workers.plain.loader import Model, predict_file
from workers.plain.preprocessing import CannotPredict


def main() -> int:
    """Parse the arguments and predict; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers.predicting", description=__doc__)
    parser.add_argument("archive", type=Path, help="the archive of a model")
    parser.add_argument("rows", help="a CSV file with the columns of the training data, or an NPZ file with the array x")
    parser.add_argument("--out", default="-", help="where the predictions go; default: standard output")
    parser.add_argument("--module", help="package.module:Class, to be imported: the network, if it is one of your own")
    given = parser.parse_args()
    try:
        if given.module is not None:
            imported(given.module)
        predict_file(Model.of(*read_archive(given.archive.read_bytes())), given.rows, given.out)
    except (CannotPredict, ModuleFault, RegsearchError, OSError) as error:
        return _told(str(error))
    except Exception as error:  # of a broken archive, whatever it breaks
        first, *_ = f"{type(error).__name__}: {error}".splitlines()
        return _told(f"{given.archive.name} is no archive of a model: {first}")
    return 0


def _told(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
