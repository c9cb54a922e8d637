-- The journal file, format 1. An SQLite database in WAL mode; FORMAT.md is its specification.
--
--   application_id   0x504A534A ("PJSJ")
--   user_version     1, the format version
--   auto_vacuum      INCREMENTAL, so that pruning can give space back in small steps
--
-- To ask questions, use the views. The tables under them are small on purpose: ids, kinds and
-- times are integers, and events are found by following links instead of by indexes, which would
-- have to be written on every append.

-- Facts about the file.
--   journal_id           the identity of the journal, a UUID; with a position, that of an event
--   created_at           RFC 3339, UTC
--   library_version      the version of journal that created the file
--   min_reader_version   the lowest format version that a program must know in order to read it
CREATE TABLE meta (
    key    TEXT NOT NULL PRIMARY KEY,
    value  TEXT NOT NULL
);

-- The kinds of event in this file.
CREATE TABLE kind (
    code    INTEGER PRIMARY KEY,        -- stands for the kind in event.kind
    name    TEXT    NOT NULL UNIQUE,    -- the event_type on the wire
    fields  TEXT                        -- JSON array of the names of the values in event.data, a
                                        -- dot between a nested object and its key; NULL for a kind
                                        -- that the writer did not know: its data is the event's
                                        -- whole JSON text
);

-- The sessions, each with the head of the chain of its events.
CREATE TABLE session (
    id           INTEGER PRIMARY KEY,    -- stands for the session in this file, and only here
    uuid         BLOB    NOT NULL UNIQUE,-- sixteen bytes, big-endian
    last_seq     INTEGER NOT NULL,       -- position of its latest event
    event_count  INTEGER NOT NULL        -- how many events it has: its version
);

-- The streams, likewise.
CREATE TABLE stream (
    id           INTEGER PRIMARY KEY,
    uuid         BLOB    NOT NULL UNIQUE,
    last_seq     INTEGER NOT NULL,
    event_count  INTEGER NOT NULL
);

-- The events, in append order. Rows are added and never changed.
CREATE TABLE event (
    seq           INTEGER PRIMARY KEY,   -- the position: 1, 2, 3, ... without gaps
    kind          INTEGER NOT NULL,      -- kind.code
    session       INTEGER NOT NULL,      -- session.id
    stream        INTEGER,               -- stream.id; NULL for an event of the session itself
    timestamp     INTEGER NOT NULL,      -- nanoseconds since 1970-01-01T00:00:00Z
    data          TEXT,                  -- see kind.fields; NULL where the kind has no fields
    session_prev  INTEGER,               -- position of the event before, of the same session
    stream_prev   INTEGER                -- position of the event before, of the same stream
);

-- The events in ranges of at most 1000 positions, each range with a digest of what its events
-- mean. A block is sealed once and for all at every thousandth position, or earlier when its data
-- reaches a mebibyte. The one at the end may be open: it covers what was there when the journal was
-- last closed, and is replaced when there is more.
CREATE TABLE block (
    first_seq      INTEGER PRIMARY KEY,  -- position of its first event
    last_seq       INTEGER NOT NULL,     -- position of its last event, inclusive
    min_timestamp  INTEGER NOT NULL,     -- smallest event.timestamp in it
    max_timestamp  INTEGER NOT NULL,     -- largest
    digest         TEXT    NOT NULL,     -- SHA-256, 64 hexadecimal digits, over the digest of the
                                         -- block before (64 zeros before the first) and the JSON
                                         -- text of the events: the statement is in FORMAT.md
    sealed         INTEGER NOT NULL      -- 1, or 0 while the block is open
);

-- Finds the blocks that hold anything later than a given instant.
CREATE INDEX block_max_timestamp ON block (max_timestamp);

-- The idempotency keys that were used in appending, for ever.
CREATE TABLE append_key (
    key        TEXT NOT NULL PRIMARY KEY,-- as the caller gave it
    first_seq  INTEGER,                  -- positions of the events that it stands for,
    last_seq   INTEGER,                  -- both NULL for an empty append
    digest     TEXT NOT NULL             -- SHA-256 of their canonical JSON, a line feed after each
);

CREATE TRIGGER event_is_never_updated BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'events never change'); END;

CREATE TRIGGER event_is_never_deleted BEFORE DELETE ON event
BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;

-- Every event, readable.
--   position, event_type, session_id, stream_id   stream_id is NULL for session events
--   timestamp      UTC, always nine fraction digits, so that the text sorts like the time
--   timestamp_ns   the same as nanoseconds since 1970
--   data           JSON object of whatever else it carries, NULL for nothing more; of a kind that
--                  the writer did not know, the whole event as it came
CREATE VIEW events AS
SELECT
    e.seq AS position,
    k.name AS event_type,
    lower(substr(hex(s.uuid), 1, 8) || '-' || substr(hex(s.uuid), 9, 4) || '-'
        || substr(hex(s.uuid), 13, 4) || '-' || substr(hex(s.uuid), 17, 4) || '-'
        || substr(hex(s.uuid), 21)) AS session_id,
    CASE WHEN e.stream IS NOT NULL THEN
        lower(substr(hex(t.uuid), 1, 8) || '-' || substr(hex(t.uuid), 9, 4) || '-'
        || substr(hex(t.uuid), 13, 4) || '-' || substr(hex(t.uuid), 17, 4) || '-'
        || substr(hex(t.uuid), 21)) END AS stream_id,
    strftime('%Y-%m-%dT%H:%M:%S', e.timestamp / 1000000000 - (e.timestamp % 1000000000 < 0),
        'unixepoch')
        || printf('.%09dZ', (e.timestamp % 1000000000 + 1000000000) % 1000000000) AS timestamp,
    e.timestamp AS timestamp_ns,
    CASE k.name
        WHEN 'session_timed_out' THEN json_object(
            'original_state', e.data -> '$[0]',
            'timeout_duration', e.data -> '$[1]')
        WHEN 'session_timeout_extended' THEN json_object(
            'additional_seconds', e.data -> '$[0]',
            'new_expires_at', e.data -> '$[1]')
        WHEN 'stream_failed' THEN json_object(
            'error', e.data -> '$[0]')
        WHEN 'skeleton_generated' THEN json_object(
            'frame_size_bytes', e.data -> '$[0]')
        WHEN 'patch_frames_generated' THEN json_object(
            'frame_count', e.data -> '$[0]',
            'total_bytes', e.data -> '$[1]',
            'highest_priority', e.data -> '$[2]')
        WHEN 'frames_batched' THEN json_object(
            'frame_count', e.data -> '$[0]')
        WHEN 'priority_threshold_adjusted' THEN json_object(
            'old_threshold', e.data -> '$[0]',
            'new_threshold', e.data -> '$[1]',
            'reason', e.data -> '$[2]')
        WHEN 'performance_metrics_recorded' THEN json_object(
            'metrics', json_object(
                'frames_per_second', e.data -> '$[0]',
                'bytes_per_second', e.data -> '$[1]',
                'average_frame_size', e.data -> '$[2]',
                'priority_distribution', json_object(
                    'critical_frames', e.data -> '$[3]',
                    'high_frames', e.data -> '$[4]',
                    'medium_frames', e.data -> '$[5]',
                    'low_frames', e.data -> '$[6]',
                    'background_frames', e.data -> '$[7]'),
                'latency_ms', e.data -> '$[8]'))
        ELSE e.data
    END AS data
FROM event AS e
    JOIN kind AS k ON k.code = e.kind
    JOIN session AS s ON s.id = e.session
    LEFT JOIN stream AS t ON t.id = e.stream;
