-- Edits by their message: a deletion removes the texts of all edits of its message, and read every later entry of the log for them.
-- On a large database, make this index before the upgrade: CREATE INDEX CONCURRENTLY with the same name and columns. Appends wait
-- while it is made here.
CREATE INDEX IF NOT EXISTS log_edits ON log (log, target) WHERE kind = 1;
