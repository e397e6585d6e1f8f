"""Reading the archive of a study that somebody has sent: nothing of it is trusted, and nothing is unpacked to a path.

First the names and sizes of the files, then their hashes, then their content, each by its model. Errors are those of the
field ``file``, and name the file of the archive.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any, BinaryIO, NoReturn, TypeVar

from optuna.distributions import BaseDistribution, json_to_distribution
from pydantic import BaseModel, ValidationError

from service.api.bodies import storable
from service.datasets.tables import FORMATS
from service.errors import InvalidInput, TooLarge
from service.result import Result
from service.result.external import ExternalResult
from service.result.portable import (
    ADVICE,
    DATA_FOLDER,
    FORMAT,
    MANIFEST,
    MODEL,
    ONNX,
    RESULT,
    SPEC,
    STUDY,
    TRIALS,
    VERSION,
    Manifest,
    StudyPart,
    TrialPart,
)
from service.spec import StudySpec
from service.spec.external import ExternalSpec
from service.store.portable import StudyParts

T = TypeVar("T", bound=BaseModel)

MAX_DOCUMENT = 32 << 20
"""Bytes of a document that is read as a whole."""
MAX_LINE = 16 << 20
"""Bytes of one trial."""
MAX_RATIO = 100
"""Times that a file may be as large as it is packed, from a megabyte on."""
MAX_TRIALS_FILE = 4 << 30
MAX_DEPTH = 64
_CHUNK, _SMALL = 1 << 20, 1 << 20
_DOCUMENTS = (MANIFEST, STUDY, SPEC, RESULT, ADVICE)
_NEEDED = (MANIFEST, STUDY, SPEC, TRIALS)
_DATA = re.compile(rf"{DATA_FOLDER}([0-9a-f]{{16}})\.({'|'.join(FORMATS)})")
_SHOWN = re.compile(r"study:metric_names|dashboard:note_(str:\d{1,4}|ver)")
"""System attributes that ours write; with others optuna-dashboard would be made to show what somebody has put there."""
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError)
"""What `zipfile` raises for a file that is damaged, encrypted or packed in another way."""


class StudyArchive:
    """An open archive whose names, sizes and hashes have been checked.

    Args:
        whole: The ZIP file.
        max_model: Largest size of a model, in bytes.
        max_data: Largest size of a data set, in bytes.

    Raises:
        InvalidInput: It is not what an archive of a study is.
        TooLarge: A part is larger than that.
    """

    def __init__(self, whole: zipfile.ZipFile, max_model: int, max_data: int) -> None:
        self._whole = whole
        self._entries = _checked_entries(whole, max_model, max_data)
        text = self._bytes(MANIFEST)
        self.digest = hashlib.sha256(text).hexdigest()
        self.manifest = _manifest(text)
        self._check_hashes()
        if (self.manifest.data is None) != (self.data is None):
            bad(f"{MANIFEST} and the data do not go together")

    @property
    def data(self) -> str | None:
        """The name of the file with the data set, if there is one."""
        return next((name for name in self._entries if _DATA.fullmatch(name)), None)

    @property
    def models(self) -> list[str]:
        """The names of the files with models."""
        return [name for name in (MODEL, ONNX) if name in self._entries]

    def open(self, name: str) -> BinaryIO:
        """A file of the archive, to be read."""
        return self._whole.open(self._entries[name])  # type: ignore[return-value]

    @cached_property
    def spec(self) -> StudySpec | ExternalSpec:
        """The spec.

        Raises:
            InvalidInput: It is none that this version can read.
        """
        document = self._json(SPEC)
        external = isinstance(document, Mapping) and document.get("executor") == "external"
        spec = self._valid(ExternalSpec, SPEC, document) if external else self._valid(StudySpec, SPEC, document)
        if spec.metric is None or (isinstance(spec, StudySpec) and spec.task is None):
            bad(f"{SPEC} is not the spec of a study that was queued: it lacks its metric or its task")
        return spec

    def parts(self) -> StudyParts:
        """Everything but trials, models and data.

        Raises:
            InvalidInput: A document is not what it should be.
        """
        study = self._valid(StudyPart, STUDY, self._json(STUDY))
        others = [key for key in study.shown if not _SHOWN.fullmatch(key)]
        if others:
            bad(f"{STUDY} has system attributes that a study does not have", value=others[:5])
        for texts in (study.attributes, study.shown):
            _check_texts(STUDY, texts)
        if (study.state == "finished") != (RESULT in self._entries):
            bad(f"{RESULT} does not go with a study that is {study.state}")
        if RESULT in self._entries:
            kind = ExternalResult if isinstance(self.spec, ExternalSpec) else Result
            self._valid(kind, RESULT, self._json(RESULT))
        if (MODEL in self._entries) != (study.model is not None) or (ONNX in self._entries and study.model is None):
            bad(f"{STUDY} and {MODEL} do not go together")
        if study.model is not None:
            with self.open(MODEL) as file:
                _check_model(file, self._entries[MODEL].file_size)
        return StudyParts(
            origin=self.manifest.study,
            study=study,
            spec=self._text(SPEC) or "",
            result=self._text(RESULT),
            advice=self._text(ADVICE),
            onnx=ONNX in self._entries,
        )

    def trials(self) -> Iterator[TrialPart]:
        """The trials by number.

        Raises:
            InvalidInput: A line is no trial.
        """
        with self.open(TRIALS) as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    bad(f"{TRIALS} has a line of more than {MAX_LINE} bytes", value=number)
                try:
                    trial = TrialPart.model_validate_json(line)
                except ValidationError as error:
                    _refuse_model(f"{TRIALS}, line {number + 1}", error)
                if trial.number != number:
                    bad(f"{TRIALS} has a trial {trial.number} where trial {number} should be", value=trial.number)
                number += 1
                yield trial

    def counts(self, study: StudyPart) -> dict[str, int]:
        """How many trials ended how; checks that they go with the study.

        Raises:
            InvalidInput: A trial is not sound, or they don't.
        """
        found: Counter[str] = Counter(complete=0, pruned=0, fail=0)
        told: set[int] = set()
        epochs, best = 0, None
        known: dict[str, BaseDistribution] = {}
        objectives = len(self.spec.objectives)
        for trial in self.trials():
            _check_trial(trial, objectives, known)
            found[trial.state] += 1
            told.add(trial.seq)
            epochs += trial.epochs
            if study.best is not None and trial.number == study.best.number and trial.state == "complete":
                best = trial.value
        total = sum(found.values())
        if told != set(range(1, total + 1)):
            bad(f"the order in which the {total} trials of {TRIALS} were told is not whole")
        if total > study.budget_trials:
            bad(f"{TRIALS} has {total} trials, more than the budget of {STUDY}", allowed=study.budget_trials)
        if (study.best is None) != (found["complete"] == 0) or (study.best is not None and best != study.best.value):
            bad(f"the best trial of {STUDY} is not in {TRIALS}")
        if epochs != study.epochs:
            bad(f"{TRIALS} has {epochs} epochs, not as many as {STUDY}", allowed=study.epochs)
        return dict(found)

    def _check_hashes(self) -> None:
        files = self.manifest.files
        if set(files) != set(self._entries) - {MANIFEST}:
            odd = sorted(set(files) ^ (set(self._entries) - {MANIFEST}))
            bad(f"its files are not those that {MANIFEST} names", value=odd[:5])
        for name, expected in files.items():
            digest, size = hashlib.sha256(), 0
            with self.open(name) as file:
                while piece := file.read(_CHUNK):
                    digest.update(piece)
                    size += len(piece)
            if (size, digest.hexdigest()) != (expected.bytes, expected.sha256):
                bad(f"{name} is not what {MANIFEST} tells of it: the archive is damaged or was changed", value=name)

    def _bytes(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def _json(self, name: str) -> Any:
        try:
            document = json.loads(self._bytes(name))
        except (ValueError, RecursionError) as error:
            bad(f"{name} is not JSON: {error}")
        _check_plain(name, document)
        return document

    def _text(self, name: str) -> str | None:
        """A document as the store keeps it."""
        return json.dumps(self._json(name), separators=(",", ":")) if name in self._entries else None

    def _valid(self, kind: type[T], name: str, document: Any) -> T:
        try:
            return kind.model_validate(document)
        except ValidationError as error:
            _refuse_model(f"{name} of regsearch {self.manifest.versions.get('regsearch')}", error)


@contextmanager
def opened(file: BinaryIO, max_model: int, max_data: int) -> Iterator[StudyArchive]:
    """The archive in a file that somebody has sent; see `StudyArchive`.

    Raises:
        InvalidInput: It is no sound ZIP file, or see there.
    """
    with ExitStack() as open_files:
        try:
            archive = StudyArchive(open_files.enter_context(zipfile.ZipFile(file)), max_model, max_data)
        except _BROKEN as error:
            bad(f"is not a ZIP file that can be read: {error}", allowed="an archive of a study")
        yield archive


def bad(message: str, *, value: object = None, allowed: object = None) -> NoReturn:
    """Refuse an archive.

    Raises:
        InvalidInput: Always.
    """
    raise InvalidInput.one("file", message, value=value, allowed=allowed)


def _refuse_model(where: str, error: ValidationError) -> NoReturn:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    bad(f"{where} can't be read by this version: {place}: {first['msg']}")


def _manifest(text: bytes) -> Manifest:
    try:
        document = json.loads(text)
        found = document["format"], document["version"]
    except (ValueError, RecursionError, KeyError, TypeError):
        bad(f"{MANIFEST} is not that of an archive of a study", allowed=FORMAT)
    if found[0] != FORMAT:
        bad("is not an archive of a study", value=found[0], allowed=FORMAT)
    if found[1] != VERSION:
        bad("is an archive of another version of this format", value=found[1], allowed=VERSION)
    _check_plain(MANIFEST, document)
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        _refuse_model(MANIFEST, error)


def _checked_entries(whole: zipfile.ZipFile, max_model: int, max_data: int) -> dict[str, zipfile.ZipInfo]:
    """The files by name, if all of them may be there and none is too large, packed or not."""
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in whole.infolist():
        name = entry.filename
        if name in found or not (name in (*_DOCUMENTS, TRIALS, MODEL, ONNX) or _DATA.fullmatch(name)):
            bad("has a file that an archive of a study does not have, or has it twice", value=name)
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            bad(f"{name} is encrypted, or packed in another way than by deflate", value=name)
        most = _largest(name, max_model, max_data)
        if entry.file_size > most:
            raise TooLarge.one("file", f"{name} is larger than {most} bytes", value=entry.file_size, allowed=most)
        if entry.file_size > max(_SMALL, MAX_RATIO * entry.compress_size):
            bad(f"{name} is more than {MAX_RATIO} times as large as it is packed", value=entry.file_size)
        found[name] = entry
    lacking = [name for name in _NEEDED if name not in found]
    if lacking:
        bad("is not an archive of a study: it lacks files", value=lacking)
    if sum(_DATA.fullmatch(name) is not None for name in found) > 1:
        bad("has several data sets", allowed="one")
    return found


def _largest(name: str, max_model: int, max_data: int) -> int:
    if name in _DOCUMENTS:
        return MAX_DOCUMENT
    return {TRIALS: MAX_TRIALS_FILE, MODEL: max_model, ONNX: max_model}.get(name, max_data)


def _check_model(content: BinaryIO, packed: int) -> None:
    """Check that a model is a ZIP file of a few plain files that are not far larger than its ``packed`` bytes."""
    try:
        with zipfile.ZipFile(content) as files:
            entries = files.infolist()
    except _BROKEN as error:
        bad(f"{MODEL} is not a ZIP file: {error}")
    names = [entry.filename for entry in entries]
    odd = [name for name in names if not re.fullmatch(r"[A-Za-z0-9_][\w./-]{0,199}", name) or ".." in name]
    if odd or len(set(names)) != len(names) or len(names) > 500:
        bad(f"{MODEL} has files with names that a model does not have", value=odd[:5])
    size = sum(entry.file_size for entry in entries)
    if size > max(_SMALL, MAX_RATIO * packed):
        bad(f"{MODEL} is more than {MAX_RATIO} times as large as it is packed", value=size)


def _check_trial(trial: TrialPart, objectives: int, known: dict[str, BaseDistribution]) -> None:
    """Check what no type tells; ``known`` are the distributions that were read before, by their text."""
    where = f"{TRIALS}, trial {trial.number}"
    if trial.state == "complete" and (trial.value is None or len(trial.values) != objectives):
        bad(f"{where} is complete without a value for each objective", value=trial.values, allowed=objectives)
    if len(trial.values) > objectives:
        bad(f"{where} has more values than the study has objectives", allowed=objectives)
    if len({param.name for param in trial.params}) != len(trial.params):
        bad(f"{where} has a parameter twice")
    for param in trial.params:
        try:
            if param.distribution not in known:
                known[param.distribution] = json_to_distribution(param.distribution)
            known[param.distribution].to_external_repr(param.value)
        except Exception:  # of whatever kind: the text is somebody's
            bad(f"{where} has a parameter {param.name!r} whose value or distribution Optuna can't read")
    for texts in (trial.attributes, trial.shown):
        _check_texts(where, texts)
    words = [trial.stop_reason or "", *(param.name for param in trial.params), *(trial.curve or ()), *(trial.also or ())]
    if not all(map(storable, words)):
        bad(f"{where} has text with NUL or a lone surrogate")


def _check_texts(where: str, texts: Mapping[str, str]) -> None:
    """Check that texts by key are JSON that both databases can keep."""
    for key, text in texts.items():
        try:
            _check_plain(f"{where}, attribute {key[:50]!r}", [key, json.loads(text)])
        except (ValueError, RecursionError):
            bad(f"{where} has an attribute that is not JSON", value=key[:50])


def _check_plain(where: str, value: Any, depth: int = 0) -> None:
    """Check that no text of a document is one that no database can keep, and that it is not nested too deeply."""
    if depth > MAX_DEPTH:
        bad(f"{where} is nested too deeply", allowed=MAX_DEPTH)
    match value:
        case str():
            if not storable(value):
                bad(f"{where} has text with NUL or a lone surrogate")
        case list():
            for each in value:
                _check_plain(where, each, depth + 1)
        case dict():
            for key, each in value.items():
                _check_plain(where, key, depth + 1)
                _check_plain(where, each, depth + 1)
