-- What a shipped file has for reading, and a live journal has not, which would have to write to all
-- of them at every append. They add half to three quarters to the file.

CREATE INDEX read_event_session ON event (session);

CREATE INDEX read_event_stream ON event (stream) WHERE stream IS NOT NULL;

CREATE INDEX read_event_timestamp ON event (timestamp);

CREATE INDEX read_stream_session ON projection_stream (session);

-- On the very expression by which the views show ids, so that SQLite finds the row of a session or
-- stream where a query has WHERE session_id = '...'.
CREATE INDEX read_session_id ON session (
    lower(substr(hex(uuid), 1, 8) || '-' || substr(hex(uuid), 9, 4) || '-' || substr(hex(uuid), 13, 4) || '-' || substr(hex(uuid), 17, 4) || '-' || substr(hex(uuid), 21))
);

CREATE INDEX read_stream_id ON stream (
    lower(substr(hex(uuid), 1, 8) || '-' || substr(hex(uuid), 9, 4) || '-' || substr(hex(uuid), 13, 4) || '-' || substr(hex(uuid), 17, 4) || '-' || substr(hex(uuid), 21))
);
