"""The tables. JSON lies in TEXT columns as ASCII, because PostgreSQL's own JSON refuses NUL and SQLite has none."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# SQLite numbers rows by itself only where the type reads exactly INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

runs = Table(
    "runs",
    metadata,
    Column("id", String(16), primary_key=True),  # frames.run_id(project, run)
    Column("project", Text, nullable=False),
    Column("run", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("group_name", Text),
    Column("tags", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("attempt", Integer, nullable=False),
    Column("last_step", BigInteger),
    Column("total_steps", BigInteger),
    Column("started_at", Float(53), nullable=False),
    Column("updated_at", Float(53), nullable=False),
    Column("ended_at", Float(53)),
    Column("deleted_at", Float(53)),  # set: a tombstone, so that a live sender stops
    Column("about", Text, nullable=False),  # config, clip, norm_type, nonfinite, host, client of the newest hello
    Index("runs_by_age", "started_at"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("run", String(16), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("launch", Text, nullable=False),
    # A rank that says hello a second time in one launch (an elastic restart) opens the launch's next generation.
    Column("generation", Integer, nullable=False),
    Column("start_step", BigInteger, nullable=False),
    Column("started_at", Float(53), nullable=False),
    UniqueConstraint("run", "launch", "generation", name="attempts_by_launch"),
)

writers = Table(
    "writers",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("key", String(32), nullable=False, unique=True),
    Column("run", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("rank", BigInteger, nullable=False),
    Column("launch", Text, nullable=False),
    Column("norm_type", Float(53), nullable=False),
    Column("start_step", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("first_step", BigInteger),
    Column("last_step", BigInteger),
    # The widest step range of one steps frame, and of one of any other kind: it bounds how far left of a range its
    # first frame may begin.
    Column("steps_span", BigInteger, nullable=False),
    Column("scalars_span", BigInteger, nullable=False),
    Column("steps_to", BigInteger),  # the last step of its step frames; a logged value may lie far ahead of it
    # Layers of steps below this one were thinned to the pyramid.
    Column("thinned_to", BigInteger, nullable=False),
    Column("seen_at", Float(53), nullable=False),
    Column("ended_at", Float(53)),
    Index("writers_by_run", "run", "attempt", "rank"),
)

frames = Table(
    "frames",  # the hot log: frames as they came; those of steps and logged values until they are sealed
    metadata,
    Column("writer", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", SmallInteger, nullable=False),  # of samples with their metric: see sample_frames.py
    Column("crc", BigInteger, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("first_step", BigInteger),
    Column("last_step", BigInteger),
    Column("data", LargeBinary, nullable=False),
    Index("frames_by_step", "writer", "kind", "first_step", "last_step"),
)

layer_tables = Table(
    "layer_tables",
    metadata,
    Column("writer", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", String(64), primary_key=True),
    Column("position", Integer, nullable=False),  # order of arrival: it numbers the writer's layers
    Column("base", String(64)),
    Column("layers", Text, nullable=False),
    Column("columns", Text, nullable=False),
)

run_layers = Table(
    "run_layers",
    metadata,
    Column("run", String(16), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("shape", Text, nullable=False),
    Column("numel", BigInteger, nullable=False),
    Column("execution_order", Integer, nullable=False),
    UniqueConstraint("run", "name", name="run_layers_by_name"),
)

user_series = Table(
    "user_series",  # the names that monitor.log() gave
    metadata,
    Column("run", String(16), primary_key=True),
    Column("name", Text, primary_key=True),
)

tiles = Table(
    "tiles",  # sealed steps: see tiles.py
    metadata,
    Column("writer", BigInteger, primary_key=True, autoincrement=False),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("first", BigInteger, primary_key=True, autoincrement=False),  # step at which the block, or the 16, begin
    Column("last", BigInteger, nullable=False),
    Column("time", Float(53)),  # of the last step in it
    Column("data", LargeBinary, nullable=False),
)

sealed = Table(
    "sealed",  # which frames have gone into tiles: see sealed.py
    metadata,
    Column("writer", BigInteger, primary_key=True, autoincrement=False),
    Column("first_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

pyramid = Table(
    "pyramid",  # see pyramid.py
    metadata,
    Column("writer", BigInteger, primary_key=True, autoincrement=False),
    Column("level", BigInteger, primary_key=True, autoincrement=False),  # steps in a bucket: 64, 256, 1024, ...
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("first", BigInteger, primary_key=True, autoincrement=False),  # the first bucket it may hold
    Column("packed", SmallInteger, primary_key=True, autoincrement=False),  # 0: fresh
    Column("data", LargeBinary, nullable=False),
)

dirty = Table(
    "dirty",  # what the sealer has to do: its durable cursor, see sealer.py
    metadata,
    Column("writer", BigInteger, primary_key=True, autoincrement=False),
    Column("level", BigInteger, primary_key=True, autoincrement=False),
    Column("bucket", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),  # grows with every change, so that none is cleared unseen
)

rule_states = Table(
    "rule_states",
    metadata,
    Column("writer", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),  # the next frame the rules have not judged
    Column("state", Text, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("key", String(80), nullable=False, unique=True),
    Column("run", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("time", Float(53), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("text", Text, nullable=False),
    Index("events_by_step", "run", "step"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("fingerprint", String(120), nullable=False, unique=True),
    Column("run", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("rule", String(32), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("first_step", BigInteger, nullable=False),
    Column("last_step", BigInteger, nullable=False),
    Column("layers", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("updated_at", Float(53), nullable=False),
    Column("notified", String(16), nullable=False),  # none | pending | sent | failed
    Column("notify_tries", Integer, nullable=False),
    Column("notify_after", Float(53), nullable=False),
    Index("alerts_by_run", "run", "state"),
    Index("alerts_to_notify", "notified", "notify_after"),
)
