"""Sealed tiles and the pyramid in the place of the roll-up; what lies in the hot log is sealed when the server runs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_BLOCK = 256  # steps
_ROLLED = 64  # steps in a bucket of the finest level there was
_AT_ONCE = 10_000


def upgrade() -> None:
    _create_tiles()
    _create_pyramid()
    op.add_column("writers", sa.Column("steps_to", sa.BigInteger))
    op.execute("UPDATE writers SET steps_to = last_step")
    op.add_column("writers", sa.Column("thinned_to", sa.BigInteger, nullable=False, server_default="0"))
    _mark_blocks()
    op.drop_table("rollups")
    if op.get_bind().dialect.name == "postgresql":
        # What is compressed already would only cost time to be compressed again.
        for table in ("frames", "tiles", "pyramid", "sealed"):
            op.execute(f"ALTER TABLE {table} ALTER COLUMN data SET STORAGE EXTERNAL")


def _create_tiles() -> None:
    op.create_table(
        "tiles",
        sa.Column("writer", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("time", sa.Float(53)),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "sealed",
        sa.Column("writer", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("first_seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def _create_pyramid() -> None:
    op.create_table(
        "pyramid",
        sa.Column("writer", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("level", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("packed", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def _mark_blocks() -> None:
    """Every block that holds anything is to be sealed: each had buckets in the roll-up, or a mark to get them."""
    connection = op.get_bind()
    held = " UNION ".join(
        f"SELECT writer, bucket / {_BLOCK // _ROLLED} AS block FROM {table} WHERE level = {_ROLLED}"
        for table in ("rollups", "dirty")
    )
    marks = connection.execute(sa.text(held)).all()
    connection.execute(sa.text("DELETE FROM dirty"))
    dirty = sa.table("dirty", *(sa.column(name) for name in ("writer", "level", "bucket", "version")))
    for start in range(0, len(marks), _AT_ONCE):
        some = marks[start : start + _AT_ONCE]
        values = [{"writer": writer, "level": _BLOCK, "bucket": block, "version": 1} for writer, block in some]
        connection.execute(dirty.insert(), values)
