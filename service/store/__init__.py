"""The store: all persistent state, in one database next to Optuna's schema. The only package that contains SQL.

    store = open_store("sqlite:///regsearch.db", create=True)
    study_id = store.studies.submit(spec)
    lease = store.leases.claim(worker_id, seconds=30)

Thread-safe; one `Store` per process.
"""

from __future__ import annotations

from optuna.storages import RDBStorage
from sqlalchemy.exc import DBAPIError

from service.errors import DatabaseUnavailable
from service.settings import DIRECT, Connections
from service.store import records
from service.store.archives import ModelArchives
from service.store.audit import Audit
from service.store.conclusions import Conclusions
from service.store.datasets import Datasets
from service.store.demand import Demands
from service.store.engine import Database, normalize
from service.store.events import Events
from service.store.finals import Finals
from service.store.history import History
from service.store.leases import Leases
from service.store.logins import Logins
from service.store.modules import Modules
from service.store.place import file_of
from service.store.portable import Portable
from service.store.provenance import Provenances
from service.store.records import StudyState
from service.store.retention import Retention
from service.store.rows import STOPPED
from service.store.schema import check_schema, close_storage, create_schema, optuna_storage
from service.store.sharing import Sharing
from service.store.stops import Stops
from service.store.studies import Studies
from service.store.tokens import Tokens
from service.store.trials import Trials
from service.store.usage import Usage
from service.store.utilization import Utilization
from service.store.webhooks import Webhooks
from service.store.workers import Workers

__all__ = ["STOPPED", "Store", "StudyState", "open_store", "records"]

PING_SECONDS = 2.0
"""How long a ping waits for a database that does not respond."""


class Store:
    """All operations on one database, grouped by subject."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._optuna: RDBStorage | None = None
        self.studies = Studies(database)
        self.trials = Trials(database)
        self.stops = Stops(database)
        self.history = History(database)
        self.finals = Finals(database)
        self.leases = Leases(database)
        self.demand = Demands(database)
        self.provenance = Provenances(database)
        self.conclusions = Conclusions(database)
        self.utilization = Utilization(database)
        self.workers = Workers(database)
        self.modules = Modules(database)
        self.datasets = Datasets(database)
        self.archives = ModelArchives(database)
        self.portable = Portable(database)
        self.sharing = Sharing(database)
        self.retention = Retention(database)
        self.tokens = Tokens(database)
        self.logins = Logins(database, self.tokens)
        self.audit = Audit(database)
        self.events = Events(database)
        self.webhooks = Webhooks(database)
        self.usage = Usage(database)

    def ping(self) -> None:
        """Check that the database responds promptly and has the current schema.

        Raises:
            DatabaseUnavailable: It does not respond within `PING_SECONDS`, or has another schema.
        """
        try:
            check_schema(self.database, patience_seconds=PING_SECONDS)
        except DBAPIError as error:
            raise DatabaseUnavailable(f"the database does not respond: {error.orig}") from error

    def optuna_storage(self) -> RDBStorage:
        """Optuna's stock storage on the same database, for readers such as the dashboard."""
        if self._optuna is None:
            self._optuna = optuna_storage(self.database)
        return self._optuna

    def close(self) -> None:
        """Close every connection."""
        if self._optuna is not None:
            close_storage(self._optuna)
        self.database.close()


def open_store(url: str, connections: Connections = DIRECT, *, create: bool = False) -> Store:
    """Open the database at an SQLAlchemy URL.

    Args:
        url: `sqlite:///file` or `postgresql://…`.
        connections: To PostgreSQL.
        create: Create or upgrade the schema first. The service does; workers do not.

    Raises:
        DatabaseUnavailable: It can't be reached, or its schema is not the one that this program needs.
    """
    database = Database(normalize(url), connections)
    try:
        if create:
            create_schema(database)
        elif (path := file_of(database.url)) is not None and not path.exists():
            raise DatabaseUnavailable(f"there is no database file {path}: start the service once to make it")
        check_schema(database)
    except BaseException as error:
        database.close()
        if isinstance(error, DBAPIError):
            raise DatabaseUnavailable(f"the database does not respond: {error.orig}") from error
        raise
    return Store(database)
