"""The command line `regsearch`: talks to the service over HTTP and starts its processes."""

from service.cli.commands import main

__all__ = ["main"]
