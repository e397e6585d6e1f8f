"""The command line: `regsearch …`. Talks to the service over HTTP, and starts its processes; trains nothing itself."""

from service.cli.commands import main

__all__ = ["main"]
