-- Projections: read models that are derived from the events and from nothing else. Every table here
-- can be dropped at any time; the library makes it again. How far each projection is stands in the
-- table checkpoint of the file.

-- Times are nanoseconds since 1970, except expires_at, which may lie beyond them. Counters stop at
-- 9223372036854775807.
CREATE TABLE projection_session (
    session            INTEGER PRIMARY KEY,  -- session.id
    state              TEXT    NOT NULL,  -- Initializing, Active, Completed or Failed
    activated_at       INTEGER,
    ended_at           INTEGER,
    expires_at         TEXT,              -- RFC 3339
    event_count        INTEGER NOT NULL,
    total_streams      INTEGER NOT NULL,
    completed_streams  INTEGER NOT NULL,
    failed_streams     INTEGER NOT NULL,
    cancelled_streams  INTEGER NOT NULL,
    priority_threshold INTEGER,
    batched_frames     INTEGER NOT NULL,
    metrics            TEXT,              -- event.data of the latest performance_metrics_recorded
    anomalies          INTEGER NOT NULL,
    live_streams       TEXT               -- JSON array of stream.id: those Preparing or Streaming
);

CREATE TABLE projection_stream (
    stream             INTEGER PRIMARY KEY,  -- stream.id
    session            INTEGER NOT NULL,  -- session.id of the session that it belongs to
    state              TEXT    NOT NULL,  -- Preparing, Streaming, Completed, Failed or Cancelled
    error              TEXT,
    created_at         INTEGER,
    started_at         INTEGER,
    ended_at           INTEGER,
    event_count        INTEGER NOT NULL,
    frames             INTEGER NOT NULL,
    bytes              INTEGER NOT NULL,
    highest_priority   INTEGER,
    config_updates     INTEGER NOT NULL,
    anomalies          INTEGER NOT NULL
);

-- Events that the protocol could not have produced where they stand.
CREATE TABLE projection_anomaly (
    position    INTEGER PRIMARY KEY,
    session     INTEGER NOT NULL,
    stream      INTEGER,
    event_type  TEXT    NOT NULL,
    state       TEXT,                     -- what the stream or session was in; NULL: it was not there
    reason      TEXT    NOT NULL
);

-- The states of an application's own projections, as JSON; key is '' for a global one.
CREATE TABLE projection_state (
    projection  TEXT NOT NULL,            -- checkpoint.name
    key         TEXT NOT NULL,
    state       TEXT NOT NULL,
    PRIMARY KEY (projection, key)
) WITHOUT ROWID;

-- Every session as of the event at as_of_position. Times have nine fraction digits. It is
-- materialised so that a join by session_id has an index: SQLite makes one by itself.
CREATE VIEW sessions AS
WITH session_rows AS MATERIALIZED (
    SELECT
        lower(substr(hex(s.uuid), 1, 8) || '-' || substr(hex(s.uuid), 9, 4) || '-'
            || substr(hex(s.uuid), 13, 4) || '-' || substr(hex(s.uuid), 17, 4) || '-'
            || substr(hex(s.uuid), 21)) AS session_id,
        p.state AS state,
        strftime('%Y-%m-%dT%H:%M:%S', CAST(round(
            (p.activated_at - (p.activated_at % 1000000000 + 1000000000) % 1000000000) * 1e-9)
            AS INTEGER), 'unixepoch') || '.'
            || substr('000000000' || ((p.activated_at % 1000000000 + 1000000000) % 1000000000), -9) || 'Z'
            AS activated_at,
        strftime('%Y-%m-%dT%H:%M:%S', CAST(round(
            (p.ended_at - (p.ended_at % 1000000000 + 1000000000) % 1000000000) * 1e-9)
            AS INTEGER), 'unixepoch') || '.'
            || substr('000000000' || ((p.ended_at % 1000000000 + 1000000000) % 1000000000), -9) || 'Z'
            AS ended_at,
        substr(p.expires_at, 1, 19) || '.'
            || substr(rtrim(substr(p.expires_at, 21), 'Z') || '000000000', 1, 9) || 'Z'
            AS expires_at,
        p.event_count AS event_count,
        p.total_streams AS total_streams,
        p.total_streams - p.completed_streams - p.failed_streams - p.cancelled_streams
            AS active_streams,
        p.completed_streams AS completed_streams,
        p.failed_streams AS failed_streams,
        p.cancelled_streams AS cancelled_streams,
        p.priority_threshold AS priority_threshold,
        p.batched_frames AS batched_frames,
        -- made from the fields of performance_metrics_recorded:
        CASE WHEN p.metrics IS NOT NULL THEN json_object(/* metrics */) END AS metrics,
        p.anomalies AS anomalies,
        c.position AS as_of_position,
        p.session AS session_key
    FROM checkpoint AS c
        CROSS JOIN projection_session AS p
        JOIN session AS s ON s.id = p.session
    WHERE c.name = 'sessions'
)
SELECT session_id, state, activated_at, ended_at, expires_at, event_count, total_streams,
    active_streams, completed_streams, failed_streams, cancelled_streams, priority_threshold,
    batched_frames, metrics, anomalies, as_of_position, session_key
FROM session_rows;

-- Every stream, likewise.
CREATE VIEW streams AS
WITH stream_rows AS MATERIALIZED (
    SELECT
        lower(substr(hex(t.uuid), 1, 8) || '-' || substr(hex(t.uuid), 9, 4) || '-'
            || substr(hex(t.uuid), 13, 4) || '-' || substr(hex(t.uuid), 17, 4) || '-'
            || substr(hex(t.uuid), 21)) AS stream_id,
        lower(substr(hex(s.uuid), 1, 8) || '-' || substr(hex(s.uuid), 9, 4) || '-'
            || substr(hex(s.uuid), 13, 4) || '-' || substr(hex(s.uuid), 17, 4) || '-'
            || substr(hex(s.uuid), 21)) AS session_id,
        p.state AS state,
        p.error AS error,
        strftime('%Y-%m-%dT%H:%M:%S', CAST(round(
            (p.created_at - (p.created_at % 1000000000 + 1000000000) % 1000000000) * 1e-9)
            AS INTEGER), 'unixepoch') || '.'
            || substr('000000000' || ((p.created_at % 1000000000 + 1000000000) % 1000000000), -9) || 'Z'
            AS created_at,
        strftime('%Y-%m-%dT%H:%M:%S', CAST(round(
            (p.started_at - (p.started_at % 1000000000 + 1000000000) % 1000000000) * 1e-9)
            AS INTEGER), 'unixepoch') || '.'
            || substr('000000000' || ((p.started_at % 1000000000 + 1000000000) % 1000000000), -9) || 'Z'
            AS started_at,
        strftime('%Y-%m-%dT%H:%M:%S', CAST(round(
            (p.ended_at - (p.ended_at % 1000000000 + 1000000000) % 1000000000) * 1e-9)
            AS INTEGER), 'unixepoch') || '.'
            || substr('000000000' || ((p.ended_at % 1000000000 + 1000000000) % 1000000000), -9) || 'Z'
            AS ended_at,
        p.event_count AS event_count,
        p.frames AS frames,
        p.bytes AS bytes,
        p.highest_priority AS highest_priority,
        p.config_updates AS config_updates,
        p.anomalies AS anomalies,
        c.position AS as_of_position,
        p.stream AS stream_key,
        p.session AS session_key
    FROM checkpoint AS c
        CROSS JOIN projection_stream AS p
        JOIN stream AS t ON t.id = p.stream
        JOIN session AS s ON s.id = p.session
    WHERE c.name = 'streams'
)
SELECT stream_id, session_id, state, error, created_at, started_at, ended_at, event_count, frames,
    bytes, highest_priority, config_updates, anomalies, as_of_position, stream_key, session_key
FROM stream_rows;

-- The states of an application's own projections.
CREATE VIEW projection_states AS
SELECT c.name AS projection, p.key AS key, p.state AS state, c.position AS as_of_position
FROM checkpoint AS c JOIN projection_state AS p ON p.projection = c.name;
