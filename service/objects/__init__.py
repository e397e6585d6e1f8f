"""Files that the API and workers share: data sets, checkpoints of trials, trained models, weights to begin with.

    objects = open_objects(settings)
    with objects.reading("datasets/0123456789abcdef.csv", "0123456789abcdef") as path: ...

A folder (`LocalObjects`), or a store such as S3 (`RemoteObjects`), from which a worker keeps copies (`Cache`). Names have
one folder and, where the content never changes, a hash of it. Knows nothing of what the files hold, nor of the database.
"""

from service.objects.base import Objects, ObjectsUnavailable, OtherContent
from service.objects.choosing import open_objects
from service.objects.states import states_of, sweep_states

__all__ = ["Objects", "ObjectsUnavailable", "OtherContent", "open_objects", "states_of", "sweep_states"]
