"""A trained model as an archive that lives without the service: weights, recipe, preprocessing and a loader, no pickles."""

from workers.archive.build import CannotExport, Trained, build_archive

__all__ = ["CannotExport", "Trained", "build_archive"]
