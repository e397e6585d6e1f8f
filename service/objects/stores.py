"""What is common to all that reads or writes stores by fsspec: packages by protocol, and errors in words.

No text of a library or server is told, for it may have a credential.
"""

from __future__ import annotations

from typing import Any

PACKAGES = {"s3": "'regsearch[addresses]'", "gs": "gcsfs", "abfs": "adlfs"}
"""What has to be installed, by the protocol of an address."""


def kind_of(error: Any) -> str:
    """The kind of a library's error, with the code that a store has answered."""
    cause = error if hasattr(error, "response") else error.__cause__
    response = getattr(cause, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return f"{type(error).__name__}, {code}" if isinstance(code, str) and code.isalnum() else type(error).__name__
