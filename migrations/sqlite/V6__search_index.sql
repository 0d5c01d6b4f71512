-- A search reads the words from the newest row back and stops when it has enough, so rows must be in the order of time.
-- The second version filled them in the order of the logs.
DELETE FROM words;
DELETE FROM worded;
INSERT INTO worded (log, seq) SELECT log, seq FROM log WHERE kind = 0 AND NOT deleted ORDER BY created_at, log DESC, seq;
INSERT INTO words (rowid, content) SELECT w.id, l.content FROM worded w JOIN log l ON l.log = w.log AND l.seq = w.seq;
