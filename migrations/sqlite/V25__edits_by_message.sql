-- Edits by their message.
CREATE INDEX log_edits ON log (log, target) WHERE kind = 1;
