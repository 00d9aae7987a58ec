"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


# SQLite numbers rows by itself only where the key is an INTEGER.
_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _runs()
    _frames()
    _derived()
    _findings()


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("group_name", sa.Text),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("last_step", sa.BigInteger),
        sa.Column("total_steps", sa.BigInteger),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("updated_at", sa.Float(53), nullable=False),
        sa.Column("ended_at", sa.Float(53)),
        sa.Column("deleted_at", sa.Float(53)),
        sa.Column("about", sa.Text, nullable=False),
    )
    op.create_index("runs_by_age", "runs", ["started_at"])
    op.create_table(
        "attempts",
        sa.Column("run", sa.String(16), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("launch", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("start_step", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.UniqueConstraint("run", "launch", "generation", name="attempts_by_launch"),
    )
    op.create_table(
        "writers",
        sa.Column("id", _ROW_ID, primary_key=True),
        sa.Column("key", sa.String(32), nullable=False, unique=True),
        sa.Column("run", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("rank", sa.BigInteger, nullable=False),
        sa.Column("launch", sa.Text, nullable=False),
        sa.Column("norm_type", sa.Float(53), nullable=False),
        sa.Column("start_step", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("first_step", sa.BigInteger),
        sa.Column("last_step", sa.BigInteger),
        sa.Column("steps_span", sa.BigInteger, nullable=False),
        sa.Column("scalars_span", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.Float(53), nullable=False),
        sa.Column("ended_at", sa.Float(53)),
    )
    op.create_index("writers_by_run", "writers", ["run", "attempt", "rank"])


def _frames() -> None:
    op.create_table(
        "frames",
        sa.Column("writer", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("crc", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("first_step", sa.BigInteger),
        sa.Column("last_step", sa.BigInteger),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_index("frames_by_step", "frames", ["writer", "kind", "first_step", "last_step"])
    op.create_table(
        "layer_tables",
        sa.Column("writer", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("base", sa.String(64)),
        sa.Column("layers", sa.Text, nullable=False),
        sa.Column("columns", sa.Text, nullable=False),
    )
    op.create_table(
        "run_layers",
        sa.Column("run", sa.String(16), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("shape", sa.Text, nullable=False),
        sa.Column("numel", sa.BigInteger, nullable=False),
        sa.Column("execution_order", sa.Integer, nullable=False),
        sa.UniqueConstraint("run", "name", name="run_layers_by_name"),
    )
    op.create_table(
        "user_series",
        sa.Column("run", sa.String(16), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
    )


def _derived() -> None:
    op.create_table(
        "rollups",
        sa.Column("writer", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("level", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("bucket", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "dirty",
        sa.Column("writer", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("level", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("bucket", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "rule_states",
        sa.Column("writer", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
    )


def _findings() -> None:
    op.create_table(
        "events",
        sa.Column("id", _ROW_ID, primary_key=True),
        sa.Column("key", sa.String(80), nullable=False, unique=True),
        sa.Column("run", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("time", sa.Float(53), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_index("events_by_step", "events", ["run", "step"])
    op.create_table(
        "alerts",
        sa.Column("id", _ROW_ID, primary_key=True),
        sa.Column("fingerprint", sa.String(120), nullable=False, unique=True),
        sa.Column("run", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("rule", sa.String(32), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("first_step", sa.BigInteger, nullable=False),
        sa.Column("last_step", sa.BigInteger, nullable=False),
        sa.Column("layers", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("updated_at", sa.Float(53), nullable=False),
        sa.Column("notified", sa.String(16), nullable=False),
        sa.Column("notify_tries", sa.Integer, nullable=False),
        sa.Column("notify_after", sa.Float(53), nullable=False),
    )
    op.create_index("alerts_by_run", "alerts", ["run", "state"])
    op.create_index("alerts_to_notify", "alerts", ["notified", "notify_after"])
    if op.get_bind().dialect.name == "postgresql":
        # Frames are packed numbers: PostgreSQL's own compression costs time and gains next to nothing.
        op.execute("ALTER TABLE frames ALTER COLUMN data SET STORAGE EXTERNAL")
        op.execute("ALTER TABLE rollups ALTER COLUMN data SET STORAGE EXTERNAL")
