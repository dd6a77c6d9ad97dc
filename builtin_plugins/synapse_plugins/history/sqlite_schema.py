"""
The tables of the SQLite store, as a list of steps: each leads from one version to the next.

What is in a step never changes once it was released: files of that version exist. Times are microseconds
since the Unix epoch; bodies are JSON as msgspec writes it.

A run is one row, since each page that a transaction touches is a write of its own. One covering index, newest
first, answers every listing. `open` is 1 for a run that its owner has, 0 for one that was taken for crashed,
NULL for one with an outcome; 2 and 3 for one that goes on elsewhere, because its owner is dead or has given
it up. `body` is what never changes of a run.
"""

from __future__ import annotations

APPLICATION_ID = 0x53594E4B
"""What says that a file is ours, in its header: ``SYNK``."""

_V1 = (
    """
    CREATE TABLE owners (
      key INTEGER PRIMARY KEY,
      token TEXT NOT NULL UNIQUE,
      host TEXT NOT NULL,
      pid INTEGER NOT NULL,
      started TEXT NOT NULL,
      boot TEXT NOT NULL,
      namespace TEXT NOT NULL,
      seen INTEGER NOT NULL,
      ticks INTEGER NOT NULL,
      gone INTEGER NOT NULL DEFAULT 0
    )
    """,
    """
    CREATE TABLE runs (
      key INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      created INTEGER NOT NULL,
      kind TEXT NOT NULL,
      action TEXT NOT NULL,
      parent TEXT,
      root TEXT NOT NULL,
      node TEXT,
      status TEXT NOT NULL,
      attempt INTEGER NOT NULL,
      started INTEGER,
      finished INTEGER,
      last_seq INTEGER NOT NULL DEFAULT 0,
      touched INTEGER NOT NULL DEFAULT 0,
      open INTEGER,
      owner INTEGER NOT NULL REFERENCES owners (key),
      error TEXT,
      body BLOB,
      reusable INTEGER,
      outcome BLOB
    )
    """,
    "CREATE INDEX runs_listed ON runs (created DESC, id, status, action, kind, parent)",
    "CREATE INDEX runs_of_parent ON runs (parent) WHERE parent IS NOT NULL",
    "CREATE INDEX runs_open ON runs (open, owner) WHERE open IS NOT NULL",
    # What is too large to be written anew with each change of its run.
    "CREATE TABLE details (run INTEGER PRIMARY KEY, body BLOB, definition BLOB)",
    """
    CREATE TABLE events (
      position INTEGER PRIMARY KEY,
      run INTEGER NOT NULL,
      kind TEXT NOT NULL,
      body BLOB NOT NULL
    )
    """,
    "CREATE INDEX events_of_run ON events (run)",
    """
    CREATE TABLE checkpoints (
      position INTEGER PRIMARY KEY,
      scope TEXT NOT NULL,
      key TEXT NOT NULL,
      value BLOB NOT NULL,
      UNIQUE (scope, key)
    )
    """,
    "CREATE TABLE environments (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
)

# Filters by tag, and requests to cancel a run of another process.
_V2 = (
    "CREATE TABLE tags (run INTEGER NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (run, tag)) WITHOUT ROWID",
    "CREATE INDEX tags_by_name ON tags (tag, run)",
    """
    INSERT OR IGNORE INTO tags (run, tag)
    SELECT runs.key, tag.value
    FROM runs LEFT JOIN details ON details.run = runs.key,
      json_each(CAST(coalesce(runs.body, details.body) AS TEXT), '$.tags') AS tag
    """,
    "CREATE TABLE cancels (run INTEGER PRIMARY KEY, reason TEXT NOT NULL)",
)

# Whose a value is that lies in a scope of its own, such as a result that pipelines keep for others.
_V3 = (
    "ALTER TABLE checkpoints ADD COLUMN run TEXT",
    """
    UPDATE checkpoints SET run = json_extract(CAST(value AS TEXT), '$.run_id')
    WHERE scope = 'cache' AND json_valid(CAST(value AS TEXT))
    """,
    "DELETE FROM checkpoints WHERE run IS NOT NULL AND run NOT IN (SELECT id FROM runs)",
    "CREATE INDEX checkpoints_by_run ON checkpoints (run) WHERE run IS NOT NULL",
)

# The values 2 and 3 of `open`, which an older version would take for an end.
_V4 = ()

MIGRATIONS = (_V1, _V2, _V3, _V4)
VERSION = len(MIGRATIONS)
