"""A trained model as an archive that lives without the service: weights, recipe, preprocessing and a loader, no pickles."""

from workers.archive.build import Trained, build_archive

__all__ = ["Trained", "build_archive"]
