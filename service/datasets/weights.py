"""Files of trained weights that fine-tuning begins with: safetensors, of which the API reads the header only.

Format: eight bytes with the length of a JSON header (little-endian), the header with a shape and a type for each name, data.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from service.datasets.uploads import held
from service.errors import InvalidInput
from service.objects import Objects

WEIGHTS = "weights"
_WEIGHTS_OBJECT = re.compile(rf"{WEIGHTS}/([0-9a-f]{{64}})\.safetensors")
_FIELD = "model.weights"
_MOST_HEADER = 100_000_000


def sweep_weights(objects: Objects, unused: Callable[[list[str]], Sequence[str]], most: int) -> int:
    """Delete the files of weights, ``most`` at most, that ``unused`` selects from their hashes; returns their number.

    A folder has none: workers read the operator's own files, which may lie there.
    """
    if not objects.remote:
        return 0
    of = {found[1]: name for name in objects.names(WEIGHTS) if (found := _WEIGHTS_OBJECT.fullmatch(name))}
    gone = unused(sorted(of))[:most]
    for sha256 in gone:
        objects.delete(of[sha256])
    return len(gone)


@contextmanager
def held_weights(path: str, roots: Sequence[Path]) -> Iterator[Path]:
    """The file at a path that a user gives, which must be in one of the operator's directories; see `held`.

    Raises:
        InvalidInput: It is elsewhere, or not a file, on `model.weights`.
    """
    with ExitStack() as stack:
        try:
            found = stack.enter_context(held(path, roots, "REGSEARCH_WEIGHTS_ROOTS"))
        except InvalidInput as error:
            (issue,) = error.issues
            raise InvalidInput.one(_FIELD, issue.message, value=path, allowed=issue.allowed) from None
        yield found


def weights_object(sha256: str) -> str:
    """The name of a file of weights among all objects."""
    return f"{WEIGHTS}/{sha256}.safetensors"


def hash_of_weights(path: Path, given: str) -> str:
    """SHA-256 of a file, which has to be of safetensors; ``given`` is what the user called it.

    Raises:
        InvalidInput: It is not.
    """
    allowed = "a safetensors file"
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _MOST_HEADER:
                raise ValueError("its header has no length")
            header = json.loads(file.read(length))
            if not isinstance(header, dict) or not any(name != "__metadata__" for name in header):
                raise ValueError("it has no tensors")
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (ValueError, RecursionError) as error:
        reason = "its header is no JSON" if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) else str(error)
        raise InvalidInput.one(_FIELD, f"is no safetensors file: {reason}", value=given, allowed=allowed) from None
    except OSError as error:
        raise InvalidInput.one(_FIELD, f"can't be read: {error.strerror}", value=given, allowed=allowed) from None
