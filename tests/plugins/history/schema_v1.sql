-- What the first schema made, as it was; with the runs of the time. Never to be changed.
PRAGMA application_id = 1398361675;
CREATE TABLE owners (
  key INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE, host TEXT NOT NULL, pid INTEGER NOT NULL,
  started TEXT NOT NULL, boot TEXT NOT NULL, namespace TEXT NOT NULL, seen INTEGER NOT NULL,
  ticks INTEGER NOT NULL, gone INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE runs (
  key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, kind TEXT NOT NULL,
  action TEXT NOT NULL, parent TEXT, root TEXT NOT NULL, node TEXT, status TEXT NOT NULL,
  attempt INTEGER NOT NULL, started INTEGER, finished INTEGER, last_seq INTEGER NOT NULL DEFAULT 0,
  touched INTEGER NOT NULL DEFAULT 0, open INTEGER, owner INTEGER NOT NULL REFERENCES owners (key),
  error TEXT, body BLOB, reusable INTEGER, outcome BLOB
);
CREATE INDEX runs_listed ON runs (created DESC, id, status, action, kind, parent);
CREATE INDEX runs_of_parent ON runs (parent) WHERE parent IS NOT NULL;
CREATE INDEX runs_open ON runs (open, owner) WHERE open IS NOT NULL;
CREATE TABLE details (run INTEGER PRIMARY KEY, body BLOB, definition BLOB);
CREATE TABLE events (
  position INTEGER PRIMARY KEY, run INTEGER NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX events_of_run ON events (run);
CREATE TABLE checkpoints (
  position INTEGER PRIMARY KEY, scope TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
  UNIQUE (scope, key)
);
CREATE TABLE environments (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;

INSERT INTO owners VALUES (1, 'old', 'box', 4242, '17', 'some boot', 'pid:[1]', 1767268800000000, 0, 1);
INSERT INTO runs VALUES (
  1, 'r1', 1767268800000000, 'action', 'train', NULL, 'r1', NULL, 'succeeded', 1, 1767268801000000,
  1767268860000000, 1, 0, NULL, 1, NULL,
  CAST('{"run_id":"r1","action":"train","target":"./plugin","created":"2026-01-01T12:00:00Z","root":"r1",'
       || '"params":{"epochs":3},"tags":["nightly","ünï"]}' AS BLOB),
  1, CAST('{"result":{"path":"/a"}}' AS BLOB)
);
INSERT INTO runs VALUES (
  2, 'r2', 1767268801000000, 'action', 'train', 'r1', 'r1', 'n', 'failed', 2, NULL, 1767268870000000, 0, 0,
  NULL, 1, 'ValueError: no', NULL, 1, CAST('{"result":null}' AS BLOB)
);
INSERT INTO details VALUES (
  2, CAST('{"run_id":"r2","action":"train","target":"./plugin","created":"2026-01-01T12:00:01Z",'
          || '"parent":"r1","root":"r1","node":"n","tags":["nightly"]}' AS BLOB), NULL
);
INSERT INTO events VALUES (
  1, 1, 'state', CAST('{"kind":"state","run_id":"r1","seq":1,"time":1767268801.0,"action":"train","step":null,'
                      || '"state":"running","attempt":1,"detail":null}' AS BLOB)
);
INSERT INTO checkpoints VALUES (1, 'r2', 'epoch', CAST('3' AS BLOB));
INSERT INTO environments VALUES ('e1', CAST('{"id":"e1","python":"3.11","platform":"Linux"}' AS BLOB));
