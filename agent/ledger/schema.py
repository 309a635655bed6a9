"""The ledger's tables, as numbered steps; a step and its number are applied in one transaction.

A strip is in exactly one state:

    waiting    begun, not judged yet               } pending
    judged     its result waits for the broker     }
    ok, anomalous, invalid                           acknowledged by the broker
    skipped                                          by the backlog rule
    dropped                                          by the outbox limit

`counters` is kept by triggers, so that the status costs the same whatever the ledger holds, and so that the audit has
a second, independent count to compare the rows with.
"""

from __future__ import annotations

from agent.ledger.schema_folders import FOLDERS
from agent.ledger.schema_looks import LOOKS
from agent.ledger.schema_reviews import REVIEWS
from agent.ledger.schema_scores import SCORES
from agent.ledger.searching import FOR_SEARCHING

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

    CREATE TABLE cameras (name TEXT PRIMARY KEY, first_scan_ms INTEGER NOT NULL) WITHOUT ROWID;

    CREATE TABLE strips (
        id             INTEGER PRIMARY KEY,
        strip_id       TEXT NOT NULL UNIQUE,
        camera         TEXT NOT NULL,
        path           BLOB NOT NULL,               -- raw bytes, relative to the camera's folder
        size_bytes     INTEGER NOT NULL,
        mtime_ns       INTEGER NOT NULL,
        ctime_ns       INTEGER NOT NULL,
        occurrence     INTEGER NOT NULL,            -- above 0: same size and mtime, other content
        digest         TEXT NOT NULL DEFAULT '',    -- sha256 of the bytes that were judged
        lane           INTEGER NOT NULL,            -- 0 live, 1 there at the first scan of a run
        state          TEXT NOT NULL,
        attempts       INTEGER NOT NULL DEFAULT 0,  -- workers lost on it
        half_written   INTEGER NOT NULL DEFAULT 0,  -- its file was found incomplete and may still grow
        requeued_after INTEGER NOT NULL DEFAULT 0,  -- the newest strip when it was put back
        revision       INTEGER NOT NULL DEFAULT 1,
        seen_ms        INTEGER NOT NULL,
        disposal       TEXT NOT NULL DEFAULT '',    -- '' | after_ack | due | done | gone | replaced
        UNIQUE (camera, path, size_bytes, mtime_ns, occurrence)
    );
    CREATE INDEX strips_waiting ON strips (camera, lane, mtime_ns, path) WHERE state = 'waiting' AND attempts = 0;
    CREATE INDEX strips_again ON strips (camera, requeued_after) WHERE state = 'waiting' AND attempts > 0;
    CREATE INDEX strips_oldest_waiting ON strips (id) WHERE state = 'waiting';
    CREATE INDEX strips_unpublished ON strips (id) WHERE state IN ('waiting', 'judged', 'skipped', 'dropped');
    CREATE INDEX strips_disposal ON strips (camera, id) WHERE disposal = 'due';

    CREATE TABLE results (
        seq             INTEGER PRIMARY KEY,
        strip           INTEGER NOT NULL REFERENCES strips (id) ON DELETE CASCADE,
        camera          TEXT NOT NULL,              -- the strip's, to find a camera's newest picture
        revision        INTEGER NOT NULL,
        committed_ms    INTEGER NOT NULL,
        captured_ts_ms  INTEGER NOT NULL,
        verdict         TEXT NOT NULL,
        reason          TEXT NOT NULL,
        score           REAL NOT NULL,
        model_sha256    TEXT NOT NULL,
        heatmap_bytes   INTEGER NOT NULL,           -- 0: none was written, or it has been removed
        delivery_ended  INTEGER NOT NULL DEFAULT 0, -- 1: its message is acknowledged or dropped (by a trigger)
        UNIQUE (strip, revision)
    );
    CREATE INDEX results_heatmaps ON results (committed_ms) WHERE heatmap_bytes > 0 AND delivery_ended = 1;
    CREATE INDEX results_newest ON results (camera, captured_ts_ms);

    CREATE TABLE outbox (
        id         INTEGER PRIMARY KEY AUTOINCREMENT,
        topic      TEXT NOT NULL,
        payload    BLOB NOT NULL,
        seq        INTEGER,                          -- of the result; NULL for other events
        queued_ms  INTEGER NOT NULL,
        state      TEXT NOT NULL DEFAULT 'pending',  -- pending | acknowledged | parked | dropped
        ended_ms   INTEGER NOT NULL DEFAULT 0,
        note       TEXT NOT NULL DEFAULT ''
    );
    CREATE UNIQUE INDEX outbox_seq ON outbox (seq) WHERE seq IS NOT NULL;
    CREATE INDEX outbox_pending ON outbox (id) WHERE state = 'pending';
    CREATE INDEX outbox_events ON outbox (queued_ms) WHERE seq IS NULL;

    CREATE TABLE models (
        slot          TEXT NOT NULL,
        key           TEXT NOT NULL,     -- the sha256; file:<name> where the file, not the bytes, was refused
        sha256        TEXT NOT NULL,     -- '' where the file could not be read
        state         TEXT NOT NULL,     -- active | previous | accepted | rejected | withdrawn | superseded
        file          TEXT NOT NULL,     -- name in the inbox, for people only
        model_id      TEXT NOT NULL DEFAULT '',
        version       INTEGER NOT NULL DEFAULT 0,
        first_seen_ms INTEGER NOT NULL,
        changed_ms    INTEGER NOT NULL,
        reason        TEXT NOT NULL DEFAULT '',
        detail        TEXT NOT NULL DEFAULT '',
        facts         TEXT NOT NULL DEFAULT '{}',  -- JSON: the measured numbers
        PRIMARY KEY (slot, key)
    ) WITHOUT ROWID;

    CREATE TABLE activations (           -- results with after_seq < seq <= until_seq may be this model's
        id        INTEGER PRIMARY KEY,
        slot      TEXT NOT NULL,
        sha256    TEXT NOT NULL,
        since_ms  INTEGER NOT NULL,
        after_seq INTEGER NOT NULL,
        until_ms  INTEGER,               -- NULL: it still scores
        until_seq INTEGER
    );
    CREATE INDEX activations_model ON activations (sha256);

    CREATE TABLE purged (
        day    TEXT NOT NULL,            -- UTC date of `begin`
        camera TEXT NOT NULL,
        state  TEXT NOT NULL,
        n      INTEGER NOT NULL,
        PRIMARY KEY (day, camera, state)
    ) WITHOUT ROWID;

    CREATE TABLE counters (kind TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, n INTEGER NOT NULL,
                           PRIMARY KEY (kind, name, state)) WITHOUT ROWID;

    CREATE TRIGGER strip_begun AFTER INSERT ON strips BEGIN
        INSERT INTO counters VALUES ('seen', NEW.camera, '', 1) ON CONFLICT DO UPDATE SET n = n + 1;
        INSERT INTO counters VALUES ('strip', NEW.camera, NEW.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
    END;
    CREATE TRIGGER strip_moved AFTER UPDATE OF state ON strips WHEN OLD.state <> NEW.state BEGIN
        UPDATE counters SET n = n - 1 WHERE kind = 'strip' AND name = OLD.camera AND state = OLD.state;
        INSERT INTO counters VALUES ('strip', NEW.camera, NEW.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
    END;
    CREATE TRIGGER strip_purged AFTER DELETE ON strips BEGIN
        UPDATE counters SET n = n - 1 WHERE kind = 'strip' AND name = OLD.camera AND state = OLD.state;
        INSERT INTO purged VALUES (strftime('%Y-%m-%d', OLD.seen_ms / 1000, 'unixepoch'), OLD.camera, OLD.state, 1)
            ON CONFLICT DO UPDATE SET n = n + 1;
    END;
    CREATE TRIGGER result_purged AFTER DELETE ON results BEGIN
        INSERT INTO counters VALUES ('purged_results', '', '', 1) ON CONFLICT DO UPDATE SET n = n + 1;
        UPDATE counters SET n = n - OLD.heatmap_bytes WHERE kind = 'heatmap_bytes';
    END;
    CREATE TRIGGER heatmaps_saved AFTER INSERT ON results WHEN NEW.heatmap_bytes > 0 BEGIN
        INSERT INTO counters VALUES ('heatmap_bytes', '', '', NEW.heatmap_bytes)
            ON CONFLICT DO UPDATE SET n = n + NEW.heatmap_bytes;
    END;
    CREATE TRIGGER heatmaps_removed AFTER UPDATE OF heatmap_bytes ON results BEGIN
        UPDATE counters SET n = n + NEW.heatmap_bytes - OLD.heatmap_bytes WHERE kind = 'heatmap_bytes';
    END;
    CREATE TRIGGER delivery_ended AFTER UPDATE OF state ON outbox WHEN NEW.seq IS NOT NULL BEGIN
        UPDATE results SET delivery_ended = NEW.state IN ('acknowledged', 'dropped') WHERE seq = NEW.seq;
    END;
    CREATE TRIGGER message_queued AFTER INSERT ON outbox BEGIN
        INSERT INTO counters VALUES ('outbox', '', NEW.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
    END;
    CREATE TRIGGER message_purged AFTER DELETE ON outbox BEGIN
        UPDATE counters SET n = n - 1 WHERE kind = 'outbox' AND state = OLD.state;
    END;
    CREATE TRIGGER message_moved AFTER UPDATE OF state ON outbox WHEN OLD.state <> NEW.state BEGIN
        UPDATE counters SET n = n - 1 WHERE kind = 'outbox' AND state = OLD.state;
        INSERT INTO counters VALUES ('outbox', '', NEW.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
    END;
    """,
    """
    -- Of one mtime the one that was begun first comes first: `begin` takes files in the natural order of their names.
    DROP INDEX strips_waiting;
    CREATE INDEX strips_waiting ON strips (camera, lane, mtime_ns, id) WHERE state = 'waiting' AND attempts = 0;
    CREATE INDEX strips_path ON strips (camera, path);  -- the newest version of a file

    -- Only to tell a waiting file whose times changed from one that another took the place of.
    ALTER TABLE strips ADD COLUMN inode INTEGER NOT NULL DEFAULT 0;

    -- disposal: '' | after_ack | due | going (begun) | done | gone | replaced | stays (nothing that may be touched)
    ALTER TABLE strips ADD COLUMN disposal_note TEXT NOT NULL DEFAULT '';
    DROP INDEX strips_disposal;
    CREATE INDEX strips_disposal ON strips (camera, id) WHERE disposal IN ('due', 'going');
    CREATE INDEX strips_staying ON strips (camera, id) WHERE disposal = 'stays';

    -- outbox.state: also superseded: parked or dropped, but the broker has a newer result of the strip
    DROP TRIGGER delivery_ended;
    CREATE TRIGGER delivery_ended AFTER UPDATE OF state ON outbox WHEN NEW.seq IS NOT NULL BEGIN
        UPDATE results SET delivery_ended = NEW.state IN ('acknowledged', 'dropped', 'superseded') WHERE seq = NEW.seq;
    END;
    CREATE INDEX outbox_delivery ON outbox (seq, state) WHERE seq IS NOT NULL;

    -- counters.kind judged_by: the strips whose newest result is of the model `name`
    INSERT INTO counters SELECT 'judged_by', model_sha256, '', count(*) FROM results AS r WHERE NOT EXISTS
        (SELECT 1 FROM results AS newer WHERE newer.strip = r.strip AND newer.revision > r.revision)
        GROUP BY model_sha256;
    CREATE TRIGGER result_counted AFTER INSERT ON results BEGIN
        UPDATE counters SET n = n - 1 WHERE kind = 'judged_by' AND state = '' AND name = (SELECT model_sha256
            FROM results WHERE strip = NEW.strip AND revision < NEW.revision ORDER BY revision DESC LIMIT 1);
        INSERT INTO counters VALUES ('judged_by', NEW.model_sha256, '', 1) ON CONFLICT DO UPDATE SET n = n + 1;
    END;
    CREATE TRIGGER result_discounted AFTER DELETE ON results WHEN NOT EXISTS
        (SELECT 1 FROM results WHERE strip = OLD.strip AND revision > OLD.revision) BEGIN
        UPDATE counters SET n = n - 1 WHERE kind = 'judged_by' AND name = OLD.model_sha256;
    END;

    ALTER TABLE models DROP COLUMN first_seen_ms;
    """,
    """
    CREATE TABLE alarms (            -- those that subscribers have been told of and that are not cleared
        name     TEXT PRIMARY KEY,   -- as state/health names it
        code     TEXT NOT NULL CHECK (code <> ''),
        source   TEXT NOT NULL CHECK (source <> ''),
        priority TEXT NOT NULL CHECK (priority IN ('low', 'medium', 'high', 'critical')),
        text     TEXT NOT NULL,
        since_ms INTEGER NOT NULL CHECK (since_ms BETWEEN 0 AND 253402300799999)  -- what can be written as a date
    ) WITHOUT ROWID;
    CREATE INDEX outbox_pending_events ON outbox (id) WHERE state = 'pending' AND seq IS NULL;
    """,
    """
    ALTER TABLE results ADD COLUMN detail TEXT NOT NULL DEFAULT '';  -- the reason as a sentence, with what was found
    """,
    """
    -- The newest result of a camera is its last entry: the rows' numbers are the order within a camera.
    DROP INDEX results_newest;
    CREATE INDEX results_camera ON results (camera);
    -- The audit counts them; with strips_unpublished it has all states that exist.
    CREATE INDEX strips_acknowledged ON strips (camera, state) WHERE state IN ('ok', 'anomalous', 'invalid');
    """,
    """
    CREATE TABLE replays (           -- results that somebody asked for again, in the order of sending
        id  INTEGER PRIMARY KEY AUTOINCREMENT,
        seq INTEGER NOT NULL UNIQUE REFERENCES results (seq) ON DELETE CASCADE
    );
    """,
    """
    CREATE TABLE commands (          -- those that change something, and who asked
        id          INTEGER PRIMARY KEY AUTOINCREMENT,
        way         TEXT NOT NULL CHECK (way IN ('mqtt', 'sparkplug', 'command_line')),
        sender      TEXT NOT NULL CHECK (sender <> ''),
        request     TEXT NOT NULL,                -- the sender's id of it; '' when it has none
        fingerprint TEXT NOT NULL,
        command     TEXT NOT NULL CHECK (command <> ''),
        arguments   TEXT NOT NULL,                -- JSON; long lists are cut
        begun_ms    INTEGER NOT NULL,
        ended_ms    INTEGER NOT NULL DEFAULT 0,   -- 0: it is being done, or the agent was ended meanwhile
        error       TEXT NOT NULL DEFAULT '',
        detail      TEXT NOT NULL DEFAULT '',
        count       INTEGER NOT NULL DEFAULT 0,
        result      TEXT NOT NULL DEFAULT ''      -- JSON, for some minutes, in case it is asked again
    );
    CREATE INDEX commands_begun ON commands (begun_ms);
    CREATE INDEX commands_unfinished ON commands (id) WHERE ended_ms = 0;
    CREATE INDEX commands_results ON commands (ended_ms) WHERE result <> '';

    CREATE TABLE paused (                         -- cameras whose strips are not judged for now
        camera   TEXT PRIMARY KEY,
        since_ms INTEGER NOT NULL,
        sender   TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE thresholds (                     -- set by an operator, in the unit of the method's scores
        camera   TEXT PRIMARY KEY,
        value    REAL NOT NULL,
        method   TEXT NOT NULL,
        since_ms INTEGER NOT NULL,
        sender   TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    -- When a message was handed over each way (mqtt.payload), in Unix milliseconds; 0: not yet. It is acknowledged when
    -- every way that is configured has it, and a replay is done with then.
    ALTER TABLE outbox ADD COLUMN json_ms INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE outbox ADD COLUMN sparkplug_ms INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX outbox_for_json ON outbox (id) WHERE state = 'pending' AND json_ms = 0;
    CREATE INDEX outbox_for_sparkplug ON outbox (id) WHERE state = 'pending' AND sparkplug_ms = 0;
    ALTER TABLE replays ADD COLUMN json_ms INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE replays ADD COLUMN sparkplug_ms INTEGER NOT NULL DEFAULT 0;
    """,
    REVIEWS,
    """
    -- What a shadow model said of strips whose results were published. It decides nothing: it is not brought over from
    -- a damaged ledger, goes with the result that it is compared with, and only the newest rows are kept.
    CREATE TABLE shadow_results (
        id            INTEGER PRIMARY KEY AUTOINCREMENT,
        slot          TEXT NOT NULL,
        seq           INTEGER NOT NULL REFERENCES results (seq) ON DELETE CASCADE,
        shadow_sha256 TEXT NOT NULL,
        judged_ms     INTEGER NOT NULL,
        score         REAL NOT NULL,               -- -1.0 where it did not judge
        threshold     REAL NOT NULL,               -- the one that the shadow would have been held to
        verdict       TEXT NOT NULL CHECK (verdict IN ('ok', 'anomalous', 'invalid')),
        reason        TEXT NOT NULL,               -- of an invalid one
        inference_ms  REAL NOT NULL,
        disagrees     INTEGER NOT NULL             -- 1: another verdict than the published one
    );
    CREATE INDEX shadow_results_seq ON shadow_results (seq);
    CREATE INDEX shadow_disagreements ON shadow_results (id) WHERE disagrees = 1;

    CREATE TABLE shadow_totals (                   -- of everything, also of rows that are not kept any more
        slot             TEXT NOT NULL,
        shadow_sha256    TEXT NOT NULL,
        active_sha256    TEXT NOT NULL,            -- whose results it was compared with
        compared         INTEGER NOT NULL DEFAULT 0,
        agreed           INTEGER NOT NULL DEFAULT 0,
        to_anomalous     INTEGER NOT NULL DEFAULT 0, -- published ok, the shadow says anomalous
        to_ok            INTEGER NOT NULL DEFAULT 0,
        invalid          INTEGER NOT NULL DEFAULT 0, -- the shadow did not judge
        missed           INTEGER NOT NULL DEFAULT 0, -- not compared: the file was gone, or too much was to be done
        shift_sum        REAL NOT NULL DEFAULT 0,  -- shadow's score minus published one
        shift_abs_sum    REAL NOT NULL DEFAULT 0,
        inference_ms_sum REAL NOT NULL DEFAULT 0,
        first_ms         INTEGER NOT NULL,
        last_ms          INTEGER NOT NULL,
        PRIMARY KEY (slot, shadow_sha256, active_sha256)
    ) WITHOUT ROWID;
    CREATE TABLE shadow_progress (                 -- how far the shadow of a slot has come
        slot      TEXT PRIMARY KEY,
        sha256    TEXT NOT NULL,
        since_ms  INTEGER NOT NULL,                -- when it became the shadow
        after_seq INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
    FOR_SEARCHING,
    LOOKS,
    SCORES,
    FOLDERS,
)
