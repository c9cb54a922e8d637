-- Projections: read models that are derived from the events and from nothing else. Every table here
-- can be emptied at any time; the library makes the rows again.

-- How far each projection has come. Its rows and this one change in the same transaction.
CREATE TABLE IF NOT EXISTS projection (
    name      TEXT    NOT NULL PRIMARY KEY,
    version   INTEGER NOT NULL,   -- of the fold; rows of another version are stale
    position  INTEGER NOT NULL    -- of the last event folded; 0 before the first
);

-- Times are nanoseconds since 1970, except expires_at, which may lie beyond them. Counters stop at
-- 9223372036854775807.
CREATE TABLE IF NOT EXISTS projection_session (
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

CREATE TABLE IF NOT EXISTS projection_stream (
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
CREATE TABLE IF NOT EXISTS projection_anomaly (
    position    INTEGER PRIMARY KEY,
    session     INTEGER NOT NULL,
    stream      INTEGER,
    event_type  TEXT    NOT NULL,
    state       TEXT,                     -- what the stream or session was in; NULL: it was not there
    reason      TEXT    NOT NULL
);

-- The states of an application's own projections, as JSON; key is '' for a global one.
CREATE TABLE IF NOT EXISTS projection_state (
    projection  TEXT NOT NULL,            -- projection.name
    key         TEXT NOT NULL,
    state       TEXT NOT NULL,
    PRIMARY KEY (projection, key)
) WITHOUT ROWID;

-- Every session as of the event at as_of_position. Times have nine fraction digits.
CREATE VIEW IF NOT EXISTS sessions AS
SELECT
    lower(substr(hex(s.uuid), 1, 8) || '-' || substr(hex(s.uuid), 9, 4) || '-'
        || substr(hex(s.uuid), 13, 4) || '-' || substr(hex(s.uuid), 17, 4) || '-'
        || substr(hex(s.uuid), 21)) AS session_id,
    p.state AS state,
    strftime('%Y-%m-%dT%H:%M:%S',
        p.activated_at / 1000000000 - (p.activated_at % 1000000000 < 0), 'unixepoch')
        || printf('.%09dZ', (p.activated_at % 1000000000 + 1000000000) % 1000000000)
        AS activated_at,
    strftime('%Y-%m-%dT%H:%M:%S',
        p.ended_at / 1000000000 - (p.ended_at % 1000000000 < 0), 'unixepoch')
        || printf('.%09dZ', (p.ended_at % 1000000000 + 1000000000) % 1000000000) AS ended_at,
    substr(p.expires_at, 1, 19) || '.'
        || substr(rtrim(substr(p.expires_at, 21), 'Z') || '000000000', 1, 9) || 'Z' AS expires_at,
    p.event_count AS event_count,
    p.total_streams AS total_streams,
    p.total_streams - p.completed_streams - p.failed_streams - p.cancelled_streams
        AS active_streams,
    p.completed_streams AS completed_streams,
    p.failed_streams AS failed_streams,
    p.cancelled_streams AS cancelled_streams,
    p.priority_threshold AS priority_threshold,
    p.batched_frames AS batched_frames,
    CASE WHEN p.metrics IS NOT NULL THEN json_object(
        'frames_per_second', p.metrics -> '$[0]',
        'bytes_per_second', p.metrics -> '$[1]',
        'average_frame_size', p.metrics -> '$[2]',
        'priority_distribution', json_object(
            'critical_frames', p.metrics -> '$[3]',
            'high_frames', p.metrics -> '$[4]',
            'medium_frames', p.metrics -> '$[5]',
            'low_frames', p.metrics -> '$[6]',
            'background_frames', p.metrics -> '$[7]'),
        'latency_ms', p.metrics -> '$[8]') END AS metrics,
    p.anomalies AS anomalies,
    b.position AS as_of_position
FROM projection AS b
    CROSS JOIN projection_session AS p
    JOIN session AS s ON s.id = p.session
WHERE b.name = 'sessions';

-- Every stream, likewise.
CREATE VIEW IF NOT EXISTS streams AS
SELECT
    lower(substr(hex(t.uuid), 1, 8) || '-' || substr(hex(t.uuid), 9, 4) || '-'
        || substr(hex(t.uuid), 13, 4) || '-' || substr(hex(t.uuid), 17, 4) || '-'
        || substr(hex(t.uuid), 21)) AS stream_id,
    lower(substr(hex(s.uuid), 1, 8) || '-' || substr(hex(s.uuid), 9, 4) || '-'
        || substr(hex(s.uuid), 13, 4) || '-' || substr(hex(s.uuid), 17, 4) || '-'
        || substr(hex(s.uuid), 21)) AS session_id,
    p.state AS state,
    p.error AS error,
    strftime('%Y-%m-%dT%H:%M:%S',
        p.created_at / 1000000000 - (p.created_at % 1000000000 < 0), 'unixepoch')
        || printf('.%09dZ', (p.created_at % 1000000000 + 1000000000) % 1000000000) AS created_at,
    strftime('%Y-%m-%dT%H:%M:%S',
        p.started_at / 1000000000 - (p.started_at % 1000000000 < 0), 'unixepoch')
        || printf('.%09dZ', (p.started_at % 1000000000 + 1000000000) % 1000000000) AS started_at,
    strftime('%Y-%m-%dT%H:%M:%S',
        p.ended_at / 1000000000 - (p.ended_at % 1000000000 < 0), 'unixepoch')
        || printf('.%09dZ', (p.ended_at % 1000000000 + 1000000000) % 1000000000) AS ended_at,
    p.event_count AS event_count,
    p.frames AS frames,
    p.bytes AS bytes,
    p.highest_priority AS highest_priority,
    p.config_updates AS config_updates,
    p.anomalies AS anomalies,
    b.position AS as_of_position
FROM projection AS b
    CROSS JOIN projection_stream AS p
    JOIN stream AS t ON t.id = p.stream
    JOIN session AS s ON s.id = p.session
WHERE b.name = 'streams';

-- The states of an application's own projections.
CREATE VIEW IF NOT EXISTS projection_states AS
SELECT b.name AS projection, p.key AS key, p.state AS state, b.position AS as_of_position
FROM projection AS b JOIN projection_state AS p ON p.projection = b.name;
