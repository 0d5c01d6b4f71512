-- How far a user was told.
CREATE INDEX notifications_told ON notifications (user_id, conversation, last_seq);
