"""
The tables of the PostgreSQL store, as a list of steps: each leads from one version to the next.

The same as in `sqlite_schema`, in a schema of their own; text that is ordered or searched by its start is
compared code point by code point.
"""

from __future__ import annotations

APPLICATION = "synapse-kernel"
"""What the table `about` says that a schema is of."""

# Serialises those who make or change the tables.
LOCK = 0x53594E4B

_V1 = """
CREATE TABLE about (name text PRIMARY KEY, value text NOT NULL);

CREATE FUNCTION micros_now() RETURNS bigint LANGUAGE sql VOLATILE AS
  $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;
CREATE FUNCTION ticks_now() RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT 0::bigint $$;

CREATE TABLE owners (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  token text NOT NULL UNIQUE,
  host text NOT NULL,
  pid bigint NOT NULL,
  started text NOT NULL,
  boot text NOT NULL,
  namespace text NOT NULL,
  seen bigint NOT NULL,
  ticks bigint NOT NULL,
  gone integer NOT NULL DEFAULT 0
);

CREATE TABLE runs (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id text COLLATE "C" NOT NULL UNIQUE,
  created bigint NOT NULL,
  kind text NOT NULL,
  action text NOT NULL,
  parent text COLLATE "C",
  root text NOT NULL,
  node text,
  status text NOT NULL,
  attempt integer NOT NULL,
  started bigint,
  finished bigint,
  last_seq bigint NOT NULL DEFAULT 0,
  touched bigint NOT NULL DEFAULT 0,
  open integer,
  owner bigint NOT NULL REFERENCES owners (key),
  error text,
  body bytea,
  reusable integer,
  outcome bytea
);
CREATE INDEX runs_listed ON runs (created DESC, id);
CREATE INDEX runs_of_parent ON runs (parent) WHERE parent IS NOT NULL;
CREATE INDEX runs_open ON runs (open, owner) WHERE open IS NOT NULL;

CREATE TABLE details (run bigint PRIMARY KEY, body bytea, definition bytea);

CREATE TABLE events (
  position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run bigint NOT NULL,
  kind text NOT NULL,
  body bytea NOT NULL
);
CREATE INDEX events_of_run ON events (run, position);

CREATE TABLE checkpoints (
  position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  scope text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  value bytea NOT NULL,
  UNIQUE (scope, key)
);

CREATE TABLE environments (id text PRIMARY KEY, body bytea NOT NULL);

CREATE TABLE tags (run bigint NOT NULL, tag text NOT NULL, PRIMARY KEY (run, tag));
CREATE INDEX tags_by_name ON tags (tag, run);

CREATE TABLE cancels (run bigint PRIMARY KEY, reason text NOT NULL);
"""

# The start of a value is looked at as text whatever it holds: one that is no JSON is no error here.
_V2 = r"""
ALTER TABLE checkpoints ADD COLUMN run text COLLATE "C";
UPDATE checkpoints
  SET run = substring(encode(substring(value FROM 1 FOR 500), 'escape') FROM '^\{"run_id":"([^"\\]+)"')
  WHERE scope = 'cache';
DELETE FROM checkpoints WHERE run IS NOT NULL AND run NOT IN (SELECT id FROM runs);
CREATE INDEX checkpoints_by_run ON checkpoints (run) WHERE run IS NOT NULL;
"""

# The values 2 and 3 of `open`, which an older version would take for an end.
_V3 = "COMMENT ON COLUMN runs.open IS 'see sqlite_schema; 2 and 3: it goes on elsewhere'"

MIGRATIONS = (_V1, _V2, _V3)
VERSION = len(MIGRATIONS)
