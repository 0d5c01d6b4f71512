-- Threads: the replies to a message.
CREATE INDEX log_replies ON log (log, target, seq) WHERE kind = 0 AND target IS NOT NULL;

-- Archiving: a member puts a conversation out of sight.
ALTER TABLE members ADD COLUMN archived INTEGER NOT NULL DEFAULT 0;

-- Search: the words of what messages say now. A row of words has the number that its message has here.
CREATE TABLE worded (
    id INTEGER PRIMARY KEY,
    log TEXT NOT NULL,
    seq INTEGER NOT NULL,
    UNIQUE (log, seq)
);
CREATE VIRTUAL TABLE words USING fts5 (content, tokenize = 'unicode61 remove_diacritics 0');
INSERT INTO worded (log, seq) SELECT log, seq FROM log WHERE kind = 0 AND NOT deleted;
INSERT INTO words (rowid, content) SELECT w.id, l.content FROM worded w JOIN log l ON l.log = w.log AND l.seq = w.seq;

CREATE TRIGGER log_said AFTER INSERT ON log WHEN new.kind = 0 BEGIN
    INSERT INTO worded (log, seq) VALUES (new.log, new.seq);
    INSERT INTO words (rowid, content)
    SELECT id, new.content FROM worded WHERE log = new.log AND seq = new.seq;
END;
CREATE TRIGGER log_said_anew AFTER UPDATE OF content ON log WHEN new.kind = 0 BEGIN
    UPDATE words SET content = new.content
    WHERE rowid = (SELECT id FROM worded WHERE log = new.log AND seq = new.seq);
END;
