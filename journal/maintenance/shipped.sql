-- What a shipped file has for people who have nothing but the file. FORMAT.md specifies it.

CREATE TABLE README (
    number  INTEGER PRIMARY KEY,
    topic   TEXT NOT NULL,
    text    TEXT NOT NULL               -- where topic begins with "Query: ", one that can be run
);

CREATE TABLE manifest (
    key    TEXT NOT NULL PRIMARY KEY,
    value  TEXT                         -- JSON where it is an array or an object
);

INSERT INTO README (topic, text) VALUES
('What this is',
 'A copy of a journal, made by "journal ship": the events that a program appended, in order, and what its sessions and streams had become by the last of them. It is complete up to its last position but for what the table absent names, it was checked when it was made, and it does not change any more.'),
('Where to begin',
 'Ask the views: events, sessions, streams and folded. The tables under them are small on purpose: ids, kinds and times are integers there. The table manifest says which journal this is, what the file holds and when it was made.'),
('Opening it',
 'It is one SQLite database and needs no other file beside it. It can be opened from read-only media, with mode=ro or immutable=1, by anything that reads SQLite 3.38 or newer: the sqlite3 shell, Python, Datasette, DuckDB (ATTACH ''FILE'' AS journal (TYPE sqlite, READ_ONLY)).'),
('View: events',
 'One row for each event. position: its number, 1 for the first one ever. event_type: its kind. session_id, stream_id: whose it is; stream_id is NULL for an event of the session itself. timestamp: UTC with nine fraction digits, so that the text sorts like the time; it is what the producer said, and need not rise with position. timestamp_ns: the same, in nanoseconds since 1970. data: a JSON object with what else the event says, NULL for nothing more. session_key, stream_key: small integers to join and group by.'),
('View: sessions',
 'One row for each session: its state (Initializing, Active, Completed, Failed), when it was activated, ended and will expire, how many events and streams it has, its latest metrics as JSON. anomalies: how many of its events the protocol could not have produced where they stand.'),
('View: streams',
 'One row for each stream: its session, its state (Preparing, Streaming, Completed, Failed, Cancelled), its error if it failed, its times, and how many frames and bytes were generated for it. A stream that was still active when its session ended is Cancelled.'),
('View: folded',
 'How far sessions and streams were made from the events: position is last_position where all are in.'),
('Table: projection_anomaly',
 'The events that the protocol could not have produced where they stand, with the reason.'),
('Table: absent',
 'The ranges of positions without events, and why: pruned, lost, or before delta. Where there is no row, there is no gap.'),
('Only what is new',
 'Where absent says "before delta", the file was made by "journal ship --after": the events before are in what was shipped earlier. Sessions and streams count what happened since then, unless it was made with --standalone; the view folded says from which position on.'),
('Table: block',
 'Digests of ranges of events, each chained to the one before. The head in manifest is the last of them: who noted it elsewhere can tell that no event was changed.'),
('Redacted texts',
 'Where redacted in manifest is not NULL, it says which texts were taken out of the events before they were shipped, and how: blank left nothing, mask its length, hash a digest under a secret key, so that equal texts are still equal. Its ranges are the positions of blocks that no longer prove what was appended.'),
('Table: origin',
 'Where the journal goes on from a copy of another one, or others were merged into it: which positions came from which journal. The view events then has origin_label, origin_journal_id, origin_branch and origin_position as well: where each event was appended first.'),
('What takes no time',
 'With read indexes (see read_indexes in manifest): session_id = ..., stream_id = ..., session_key, stream_key, position, and ranges of timestamp_ns; also stream_key IN (SELECT stream_key FROM streams WHERE ...), while stream_id IN (SELECT ...) reads every event. Grouping by session_key is quicker than by session_id. Times given as text are quicker as nanoseconds: strftime(''%s'', ''2026-01-31'') * 1000000000.'),
('Large integers',
 'Numbers in data have all their digits. Take them out with -> or ->>, and count on 64 bits with a sign: beyond them SQLite makes floats.'),
('Query: what happened, kind by kind',
 'SELECT event_type, count(*) AS events FROM events GROUP BY event_type ORDER BY events DESC'),
('Query: the latest events',
 'SELECT position, timestamp, event_type, session_id, stream_id, data FROM events ORDER BY position DESC LIMIT 10'),
('Query: all of one session',
 'SELECT position, timestamp, event_type, stream_id, data FROM events WHERE session_id = (SELECT session_id FROM sessions LIMIT 1) ORDER BY position'),
('Query: how sessions ended',
 'SELECT state, count(*) AS sessions, sum(event_count) AS events, sum(failed_streams) AS failed_streams FROM sessions GROUP BY state'),
('Query: streams that failed, and why',
 'SELECT stream_id, session_id, ended_at, error FROM streams WHERE state = ''Failed'' ORDER BY ended_at DESC LIMIT 20'),
('Query: the events of an hour',
 'SELECT position, timestamp, event_type, session_id FROM events WHERE timestamp_ns >= strftime(''%s'', ''2026-01-31 12:00'') * 1000000000 AND timestamp_ns < strftime(''%s'', ''2026-01-31 13:00'') * 1000000000 ORDER BY timestamp_ns'),
('Query: bytes of each stream of a session',
 'SELECT stream_id, state, frames, bytes FROM streams WHERE session_id = (SELECT session_id FROM sessions LIMIT 1)'),
('Query: a value out of data',
 'SELECT position, data ->> ''error'' AS error FROM events WHERE event_type = ''stream_failed'' LIMIT 20'),
('Query: what was expected of an event and did not happen',
 'SELECT position, event_type, state, reason FROM projection_anomaly ORDER BY position LIMIT 20'),
('More',
 'The package pjs-journal (Python) opens this file, too: journal info, journal sessions, journal events, and journal verify, which checks every event against its block. Its FORMAT.md specifies every table.');
