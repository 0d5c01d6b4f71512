-- Search finds texts without spaces between words, and either form of an accented letter: the node computes the tokens of
-- a text (search_tokens), and compares candidate messages itself, so that every store finds the same.
DROP TRIGGER log_said;
DROP TRIGGER log_said_anew;
DROP TABLE words;
-- This tokenizer takes every character outside ASCII for a letter, and the tokens stand between blanks.
CREATE VIRTUAL TABLE words USING fts5 (content, tokenize = 'ascii');
INSERT INTO words (rowid, content)
SELECT w.id, search_tokens(l.content) FROM worded w JOIN log l ON l.log = w.log AND l.seq = w.seq ORDER BY w.id;

CREATE TRIGGER log_said AFTER INSERT ON log WHEN new.kind = 0 BEGIN
    INSERT INTO worded (log, seq) VALUES (new.log, new.seq);
    INSERT INTO words (rowid, content)
    SELECT id, search_tokens(new.content) FROM worded WHERE log = new.log AND seq = new.seq;
END;
CREATE TRIGGER log_said_anew AFTER UPDATE OF content ON log WHEN new.kind = 0 BEGIN
    UPDATE words SET content = search_tokens(new.content)
    WHERE rowid = (SELECT id FROM worded WHERE log = new.log AND seq = new.seq);
END;
