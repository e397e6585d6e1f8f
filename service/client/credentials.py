"""The token of a client: from the environment, or from the file in which `regsearch login` keeps one for each service."""

from __future__ import annotations

import json
import os
from pathlib import Path

VARIABLE = "REGSEARCH_TOKEN"


def token_for(url: str) -> str | None:
    """The token for a service; None without one."""
    return os.environ.get(VARIABLE) or kept_token(url)


def kept_token(url: str) -> str | None:
    """The one that is kept for a service; None without one."""
    return _known().get(url.rstrip("/"))


def keep_token(url: str, token: str | None) -> Path:
    """Keep the token of a service, or forget it; returns the file, which only its owner can read."""
    path = _file()
    kept = {**_known(), url.rstrip("/"): token}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({place: value for place, value in kept.items() if value}, indent=2)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    path.chmod(0o600)  # of a file that was there before
    return path


def _file() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "regsearch" / "tokens.json"


def _known() -> dict[str, str]:
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(url): str(token) for url, token in found.items()} if isinstance(found, dict) else {}
