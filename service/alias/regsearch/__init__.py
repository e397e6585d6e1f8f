"""`from regsearch import Client`: the client under the project's name. See `service.client`."""

from service.client import *  # noqa: F403
from service.client import __all__ as __all__
