"""Our tables, next to Optuna's in the same database; ours begin with `rs_`, as Optuna uses names such as `studies`.

Times are in seconds since 1970 by the database's clock. The counters in `rs_studies` are updated in the transactions that
change what they count, so that reading a study never counts its trials.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    literal,
)
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import FromClause

from service.optuna_private import optuna_tables
from service.store.records import SEARCHED, StudyState

o_studies = optuna_tables["studies"]
o_directions = optuna_tables["study_directions"]
o_study_user = optuna_tables["study_user_attributes"]
o_study_system = optuna_tables["study_system_attributes"]
o_trials = optuna_tables["trials"]
o_params = optuna_tables["trial_params"]
o_values = optuna_tables["trial_values"]
o_steps = optuna_tables["trial_intermediate_values"]
o_trial_user = optuna_tables["trial_user_attributes"]
o_trial_system = optuna_tables["trial_system_attributes"]
o_heartbeats = optuna_tables["trial_heartbeats"]

metadata = MetaData()

_OFTEN_CHANGED = {"fillfactor": 50}
"""Pages with room: PostgreSQL writes what has changed beside what was there, and touches no index if none has the column."""

studies = Table(
    "rs_studies",
    metadata,
    Column("study_id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(220), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("spec", Text, nullable=False),
    Column("executor", String(16), nullable=False, server_default="workers"),
    Column("module", String(300)),
    Column("devices", Integer, nullable=False, server_default="1"),
    Column("owner", String(100), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("max_parallel", Integer),
    Column("max_retries", Integer, nullable=False),
    Column("max_failed", Integer),
    Column("max_lost", Integer, nullable=False),
    Column("dataset_id", String(64)),
    Column("metric", String(64), nullable=False),
    Column("direction", String(16), nullable=False),
    Column("budget_trials", Integer, nullable=False),
    Column("budget_seconds", Float),
    Column("waiting", Integer, nullable=False, default=0),
    Column("running", Integer, nullable=False, default=0),
    Column("complete", Integer, nullable=False, default=0),
    Column("pruned", Integer, nullable=False, default=0),
    Column("fail", Integer, nullable=False, default=0),
    Column("leases", Integer, nullable=False, default=0),
    Column("held", Integer, nullable=False, server_default="0"),
    Column("lost_leases", Integer, nullable=False, default=0),
    Column("lost_in_a_row", Integer, nullable=False, default=0),
    Column("revision", Integer, nullable=False, server_default="0"),
    Column("asked", Integer, nullable=False, default=0),
    Column("told", Integer, nullable=False, default=0),
    Column("epochs", Integer, nullable=False, default=0),
    Column("best_number", Integer),
    Column("best_value", Float(53)),
    Column("best_step", Integer),
    Column("result", Text),
    Column("advice", Text),
    Column("created_at", Float(53), nullable=False),
    Column("started_at", Float(53)),
    Column("served_at", Float(53)),
    Column("finished_at", Float(53)),
    Column("restored", String(64)),
    CheckConstraint("asked <= budget_trials", name="rs_budget_is_exact"),
    CheckConstraint("asked = waiting + running + complete + pruned + fail", name="rs_counts_add_up"),
    Index("rs_studies_queue", "state", "priority"),
    Index("rs_studies_restored_once", "owner", "restored", unique=True),
    postgresql_with=_OFTEN_CHANGED,
)
"""``restored`` is the SHA-256 of the manifest of the archive that a study is from; its trials are as they are for ever."""


def open_for_workers(table: FromClause) -> ColumnElement[bool]:
    """Whether workers may have to do with a study; values are part of the text, or partial indices could not be used."""
    states = table.c.state.in_([literal(each.value, literal_execute=True) for each in (*SEARCHED, StudyState.FINALIZING)])
    return and_(states, table.c.executor == literal("workers", literal_execute=True))


def timed(table: FromClause) -> ColumnElement[bool]:
    """Whether a study that is searched has a time budget, and has begun."""
    searched = table.c.state.in_([literal(each.value, literal_execute=True) for each in SEARCHED])
    return and_(searched, table.c.budget_seconds.is_not(None), table.c.started_at.is_not(None))


def leased(table: FromClause) -> ColumnElement[bool]:
    """Whether there are leases on a study."""
    return table.c.held > literal(0, literal_execute=True)


for _name, _columns, _where in (
    # What a claim looks for: of a priority and an owner, the study with the fewest leases, served the longest ago.
    ("rs_studies_next", ("priority", "owner", "held", "served_at", "study_id"), open_for_workers),
    ("rs_studies_timed", ("started_at",), timed),
    ("rs_studies_held", ("owner", "held"), leased),
):
    Index(_name, *(studies.c[each] for each in _columns), postgresql_where=_where(studies), sqlite_where=_where(studies))

trials = Table(
    "rs_trials",
    metadata,
    Column("trial_id", Integer, primary_key=True, autoincrement=False),
    Column("study_id", Integer, ForeignKey("rs_studies.study_id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("ask_key", String(32), nullable=False),
    Column("lease_token", Integer),
    Column("told_by", Integer),
    Column("attempt", Integer, nullable=False, default=0),
    Column("seq", Integer),
    Column("value", Float(53)),
    Column("best_step", Integer),
    Column("stop_reason", Text),
    Column("epochs", Integer, nullable=False, default=0),
    Column("curve", Text),
    Column("also", Text),
    Column("stop_asked_at", Float(53)),
    UniqueConstraint("study_id", "number", name="rs_numbers_are_dense"),
    UniqueConstraint("study_id", "seq", name="rs_told_once"),
    Index("rs_trials_lease", "lease_token"),
)

tags = Table(
    "rs_tags",
    metadata,
    Column(
        "study_id", Integer, ForeignKey("rs_studies.study_id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Column("tag", String(50), primary_key=True),
    Index("rs_tags_tag", "tag"),
)
"""The tags of studies, to find them by; their order is in the specs."""

changes = Table(
    "rs_changes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("study_id", Integer, ForeignKey("rs_studies.study_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("at", Float(53), nullable=False),
    Column("owner", String(100)),
    Column("token_id", Integer),
    Column("what", Text, nullable=False),
    sqlite_autoincrement=True,
)
"""What people have changed in studies; `rs_studies.revision` counts it."""

leases = Table(
    "rs_leases",
    metadata,
    Column("token", Integer, primary_key=True, autoincrement=True),
    Column("study_id", Integer, ForeignKey("rs_studies.study_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("worker_id", String(64), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("expires_at", Float(53), nullable=False),
    Column("seconds", Float),
    sqlite_autoincrement=True,
    postgresql_with=_OFTEN_CHANGED,
)

finals = Table(
    "rs_finals",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("study_id", Integer, ForeignKey("rs_studies.study_id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("name", String(200), nullable=False),
    Column("role", String(16), nullable=False),
    Column("trial", Integer),
    Column("seed_index", Integer, nullable=False),
    Column("params", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("lease_token", Integer, index=True),
    Column("ask_key", String(32)),
    Column("told_by", String(64)),
    Column("attempt", Integer, nullable=False, default=0),
    Column("value", Float(53)),
    Column("test", Float(53)),
    Column("reason", Text),
    UniqueConstraint("study_id", "number", name="rs_finals_are_dense"),
)
"""Runs of a program after the search: settings over seeds. `told_by` is the client, `test` is read for two settings only."""

workers = Table(
    "rs_workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("host", String(200), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("device", String(100), nullable=False),
    Column("started_at", Float(53), nullable=False),
    Column("seen_at", Float(53), nullable=False),
    Column("left_at", Float(53)),
    Column("stats", Text, nullable=False),
    Column("memory", BigInteger),
    Column("devices", Integer, nullable=False, server_default="1"),
    postgresql_with=_OFTEN_CHANGED,
)

modules = Table(
    "rs_modules",
    metadata,
    Column("worker_id", String(64), ForeignKey("rs_workers.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(300), primary_key=True),
    Column("document", Text, nullable=False),
    Column("usable", Integer, nullable=False),
)
"""What each worker has published; a study of a module goes to workers that have it, `usable` (1) or not (0)."""

audit = Table(
    "rs_audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float(53), nullable=False),
    Column("owner", String(100)),
    Column("token_id", Integer),
    Column("method", String(8), nullable=False),
    Column("route", String(200), nullable=False),
    Column("object", String(200), nullable=False),
    Column("status", Integer, nullable=False),
    Column("request_id", String(32), nullable=False),
    Index("rs_audit_owner", "owner", "id"),
    Index("rs_audit_object", "object", "id"),
    sqlite_autoincrement=True,
)
"""Who has asked for which change. It refers to nothing, so that it outlives what was changed."""

events = Table(
    "rs_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("seq", Integer, unique=True),
    Column("at", Float(53), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("study_id", Integer, nullable=False),
    Column("name", String(220), nullable=False),
    Column("owner", String(100), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("metric", String(64), nullable=False),
    Column("best_number", Integer),
    Column("best_value", Float(53)),
    sqlite_autoincrement=True,
)
"""What has happened to studies, as they were then. It refers to nothing, so that it outlives them. Ids are not in the order
of commits; ``seq`` is: it is given to rows that are committed (`Events.publish`)."""

webhooks = Table(
    "rs_webhooks",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("owner", String(100), nullable=False),
    Column("url", String(2000), nullable=False),
    Column("description", String(200), nullable=False),
    Column("events", Text, nullable=False),
    Column("everyone", Integer, nullable=False),
    Column("secret", String(100), nullable=False),
    Column("previous_secret", String(100)),
    Column("previous_until", Float(53)),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("failing_since", Float(53)),
    Column("created_at", Float(53), nullable=False),
    sqlite_autoincrement=True,
)
"""Who is told what happens; ``secret`` is what requests are signed by, so it can't be a digest."""

deliveries = Table(
    "rs_deliveries",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("webhook_id", Integer, ForeignKey("rs_webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("message", String(40), nullable=False, unique=True),
    Column("kind", String(32), nullable=False),
    Column("payload", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("next_at", Float(53)),
    Column("ended_at", Float(53)),
    Column("status", Integer),
    Column("error", Text),
    Column("ms", Float(53)),
    Index("rs_deliveries_due", "next_at"),
    Index("rs_deliveries_webhook", "webhook_id", "id"),
    sqlite_autoincrement=True,
)
"""What is sent to webhooks: the queue and the log."""

datasets = Table(
    "rs_datasets",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("filename", String(300), nullable=False),
    Column("format", String(16), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("shape", Text, nullable=False),
    Column("columns", Text, nullable=False),
    Column("sheet", Text),
    Column("created_at", Float(53), nullable=False),
    Column("sha256", String(64)),
)

dataset_owners = Table(
    "rs_dataset_owners",
    metadata,
    Column("dataset_id", String(64), ForeignKey("rs_datasets.id", ondelete="CASCADE"), primary_key=True),
    Column("owner", String(100), primary_key=True),
    Column("created_at", Float(53), nullable=False),
    Column("name", String(200)),
    Column("source", Text),
)
"""Who has a data set, under which name and from where: the same content is one data set, of all that have it."""

study_shares = Table(
    "rs_study_shares",
    metadata,
    Column(
        "study_id", Integer, ForeignKey("rs_studies.study_id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Column("owner", String(100), primary_key=True),
    Index("rs_study_shares_owner", "owner"),
)
"""Who may read a study of another owner's; an empty name stands for everybody."""

dataset_shares = Table(
    "rs_dataset_shares",
    metadata,
    Column("dataset_id", String(64), primary_key=True),
    Column("giver", String(100), primary_key=True),
    Column("owner", String(100), primary_key=True),
    ForeignKeyConstraint(
        ["dataset_id", "giver"], ["rs_dataset_owners.dataset_id", "rs_dataset_owners.owner"], ondelete="CASCADE"
    ),
    Index("rs_dataset_shares_owner", "owner"),
)
"""Who may use a data set that the ``giver`` has; an empty name stands for everybody."""

tokens = Table(
    "rs_tokens",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", String(200), nullable=False),
    Column("owner", String(100), nullable=False),
    Column("scope", String(16), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("created_at", Float(53), nullable=False),
    Column("expires_at", Float(53)),
    Column("used_at", Float(53)),
    Column("revoked_at", Float(53)),
    sqlite_autoincrement=True,
)

logins = Table(
    "rs_logins",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("device_digest", String(64), nullable=False, unique=True),
    Column("user_digest", String(64), nullable=False, unique=True),
    Column("device", String(100), nullable=False),
    Column("address", String(64), nullable=False),
    Column("scope", String(16)),
    Column("created_at", Float(53), nullable=False),
    Column("expires_at", Float(53), nullable=False, index=True),
    Column("polled_at", Float(53)),
    Column("pause", Float(53), nullable=False),
    Column("state", String(16), nullable=False),
    Column("token_id", Integer, ForeignKey("rs_tokens.id", ondelete="CASCADE")),
    Column("token_expires_at", Float(53)),
    sqlite_autoincrement=True,
)
"""Sign-ins that a device has begun; ``token_id`` is the token of whoever has confirmed it, whose the new one becomes."""

test_accesses = Table(
    "rs_test_accesses",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("study_id", Integer, ForeignKey("rs_studies.study_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("at", Float(53), nullable=False),
    Column("who", String(200), nullable=False),
    Column("purpose", Text, nullable=False),
)

writes = Table(
    "rs_writes",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("at", Float(53), nullable=False, index=True),
    Column("answer", Text, nullable=False),
)
"""Writes that must not be committed twice, with their return values (see `Database.write_once`)."""

model_archives = Table(
    "rs_model_archives",
    metadata,
    Column(
        "study_id", Integer, ForeignKey("rs_studies.study_id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Column("object", String(120)),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("onnx_object", String(120)),
    Column("onnx_sha256", String(64)),
    Column("onnx_size", BigInteger),
    Column("onnx_reason", Text),
    Column("onnx_begun_at", Float(53)),
)
"""Trained models, which are objects; without a name of one, the content is in `rs_model_blobs`. A worker makes ONNX models
afterwards: ``onnx_size`` tells that there is one, ``onnx_reason`` why there can be none."""

model_blobs = Table(
    "rs_model_blobs",
    metadata,
    Column(
        "study_id", Integer, ForeignKey("rs_studies.study_id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Column("content", LargeBinary, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("onnx", LargeBinary),
    Column("onnx_reason", Text),
    Column("onnx_begun_at", Float(53)),
)
"""Trained models as versions before 0022 kept them. They are only moved from here to the objects (`service.trained`)."""

strays = Table(
    "rs_strays",
    metadata,
    Column("name", String(120), primary_key=True),
    Column("condemned", Integer, nullable=False),
)
"""Objects that no row names: being written, or left by a process that has ended (0); or to be deleted now (1)."""
