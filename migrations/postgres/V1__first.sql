-- Logs, conversations, members and users. Names compare byte by byte (COLLATE "C"): that is also the order of locks.

CREATE TABLE users (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    status smallint NOT NULL DEFAULT 0,
    last_seen timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE conversations (
    id text COLLATE "C" PRIMARY KEY,
    kind smallint NOT NULL,
    name text,
    description text,
    open boolean NOT NULL,
    -- Both users of a direct conversation, in order: it is unique by its unordered pair.
    direct_key text COLLATE "C" UNIQUE,
    created_by text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL
);

-- The end of each log: a conversation's, or a user's inbox (~user). Narrow and half empty, so that updates stay in place.
CREATE TABLE heads (
    log text COLLATE "C" PRIMARY KEY,
    seq bigint NOT NULL DEFAULT 0,
    message_no bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE members (
    conversation text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    joined_at timestamptz NOT NULL DEFAULT now(),
    delivered_seq bigint NOT NULL DEFAULT 0,
    read_seq bigint NOT NULL DEFAULT 0,
    -- Messages up to read_seq: unread is the head's message_no less this.
    read_no bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (conversation, user_id)
) WITH (fillfactor = 80);
CREATE INDEX members_by_user ON members (user_id);

-- Every log's entries. Two indexes in all: the position, and what makes a send idempotent.
CREATE TABLE log (
    log text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    message_no bigint NOT NULL,
    kind smallint NOT NULL,
    sender text COLLATE "C" NOT NULL,
    sender_name text NOT NULL,
    dedupe text COLLATE "C" NOT NULL,
    client_gave_id boolean NOT NULL,
    content text,
    -- The seq an entry is about: what is replied to, edited, deleted or reacted to.
    target bigint,
    -- The user, conversation or reaction an entry is about.
    subject text COLLATE "C",
    -- A reaction that stands; a message that a persona wrote.
    flag boolean NOT NULL DEFAULT false,
    edited_at timestamptz,
    deleted boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (log, seq),
    UNIQUE (log, sender, dedupe)
);

CREATE TABLE reactions (
    log text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    emoji text COLLATE "C" NOT NULL,
    PRIMARY KEY (log, seq, user_id, emoji)
);

-- One row per member per run of unread messages.
CREATE TABLE notifications (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL,
    conversation text COLLATE "C" NOT NULL,
    from_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    count bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    read_at timestamptz
);
CREATE UNIQUE INDEX notifications_open ON notifications (user_id, conversation) WHERE read_at IS NULL;
CREATE INDEX notifications_by_user ON notifications (user_id, id);

-- Who has got and read which message: a view over the members' marks.
CREATE VIEW message_status AS
SELECT l.log AS conversation, l.seq, m.user_id, m.delivered_seq >= l.seq AS delivered, m.read_seq >= l.seq AS read
FROM log l JOIN members m ON m.conversation = l.log
WHERE l.kind = 0 AND m.user_id <> l.sender;

-- Appends a batch of messages. Outcomes: 0 stored, 1 not a member, 2 no such log, 3 no such message to reply to,
-- 4 stored before.
--
-- The heads are locked first, in one order; what follows are new statements with fresh snapshots, so that a batch that
-- waited for another node's lock sees what that one committed. Only nested loops over indexes are right here whatever
-- the statistics say.
CREATE FUNCTION append_messages(
    p_log text[], p_sender text[], p_sender_name text[], p_dedupe text[], p_client_gave_id boolean[],
    p_must_be_member boolean[], p_content text[], p_reply_to bigint[], p_is_ai boolean[]
) RETURNS TABLE (o_outcome smallint, o_seq bigint, o_message_no bigint, o_at timestamptz)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    stamp timestamptz;
BEGIN
    PERFORM 1 FROM heads h WHERE h.log = ANY (p_log) ORDER BY h.log COLLATE "C" FOR NO KEY UPDATE;
    stamp := clock_timestamp();
    RETURN QUERY
    WITH judged AS (
        SELECT i.*, h.seq AS head, h.message_no AS head_no,
            old.seq AS old_seq, old.message_no AS old_no, old.created_at AS old_at,
            CASE
                WHEN h.log IS NULL THEN 2
                WHEN old.seq IS NOT NULL THEN 4
                WHEN i.must_be_member AND NOT EXISTS (
                    SELECT FROM members m WHERE m.conversation = i.log AND m.user_id = i.sender) THEN 1
                WHEN i.reply_to IS NOT NULL AND NOT EXISTS (
                    SELECT FROM log t WHERE t.log = i.log AND t.seq = i.reply_to AND t.kind = 0) THEN 3
                ELSE 0
            END AS outcome
        FROM unnest(p_log, p_sender, p_sender_name, p_dedupe, p_client_gave_id, p_must_be_member, p_content,
                p_reply_to, p_is_ai)
            WITH ORDINALITY AS i (log, sender, sender_name, dedupe, client_gave_id, must_be_member, content, reply_to,
                is_ai, place)
        LEFT JOIN heads h ON h.log = i.log
        LEFT JOIN log old ON old.log = i.log AND old.sender = i.sender AND old.dedupe = i.dedupe
    ), numbered AS MATERIALIZED (
        SELECT j.*, count(*) FILTER (WHERE j.outcome = 0) OVER (PARTITION BY j.log ORDER BY j.place) AS nth
        FROM judged j
    ), inserted AS (
        INSERT INTO log (log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, target,
            flag, created_at)
        SELECT n.log, n.head + n.nth, n.head_no + n.nth, 0, n.sender, n.sender_name, n.dedupe, n.client_gave_id,
            n.content, n.reply_to, n.is_ai, stamp
        FROM numbered n WHERE n.outcome = 0
    ), moved AS (
        UPDATE heads h SET seq = h.seq + added.count, message_no = h.message_no + added.count, updated_at = stamp
        FROM (SELECT n.log, max(n.nth) AS count FROM numbered n WHERE n.outcome = 0 GROUP BY n.log) added
        WHERE h.log = added.log
    )
    SELECT n.outcome::smallint,
        CASE n.outcome WHEN 0 THEN n.head + n.nth ELSE n.old_seq END,
        CASE n.outcome WHEN 0 THEN n.head_no + n.nth ELSE n.old_no END,
        CASE n.outcome WHEN 0 THEN stamp ELSE n.old_at END
    FROM numbered n ORDER BY n.place;
END
$$;

-- Appends one entry that is no message to a log whose head is locked.
CREATE FUNCTION append_entry(
    p_log text, p_kind smallint, p_sender text, p_sender_name text, p_dedupe text, p_client_gave_id boolean,
    p_content text, p_target bigint, p_subject text, p_flag boolean, p_at timestamptz
) RETURNS TABLE (o_seq bigint, o_message_no bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE heads SET seq = seq + 1, updated_at = p_at WHERE log = p_log RETURNING seq, message_no INTO o_seq, o_message_no;
    INSERT INTO log (log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, target, subject,
        flag, created_at)
    VALUES (p_log, o_seq, o_message_no, p_kind, p_sender, p_sender_name, p_dedupe, p_client_gave_id, p_content,
        p_target, p_subject, p_flag, p_at);
    RETURN NEXT;
END
$$;

-- Tells a user's inbox. Inboxes (~user) sort behind all conversations, and are locked after them.
CREATE FUNCTION append_to_inbox(
    p_user text, p_kind smallint, p_conversation text, p_target bigint, p_sender text, p_sender_name text, p_at timestamptz
) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    inbox text := '~' || p_user;
    result bigint;
BEGIN
    INSERT INTO heads (log) VALUES (inbox) ON CONFLICT DO NOTHING;
    PERFORM 1 FROM heads WHERE log = inbox FOR NO KEY UPDATE;
    SELECT o_seq INTO result FROM append_entry(inbox, p_kind, p_sender, p_sender_name, gen_random_uuid()::text, false,
        NULL, p_target, p_conversation, false, p_at);
    RETURN result;
END
$$;

-- Appends one entry that changes something. Authority: 0 member, 1 admin, 2 the broker itself. Outcomes as above, and
-- 5 not the sender's own, 6 nothing to change. o_inbox_seq: the entry it put into the subject's inbox.
CREATE FUNCTION append_change(
    p_log text, p_kind smallint, p_sender text, p_sender_name text, p_dedupe text, p_client_gave_id boolean,
    p_authority smallint, p_content text, p_target bigint, p_subject text, p_flag boolean
) RETURNS TABLE (o_outcome smallint, o_seq bigint, o_message_no bigint, o_at timestamptz, o_inbox_seq bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    head heads%ROWTYPE;
    about log%ROWTYPE;
BEGIN
    SELECT * INTO head FROM heads WHERE log = p_log FOR NO KEY UPDATE;
    IF NOT FOUND THEN o_outcome := 2; RETURN NEXT; RETURN; END IF;
    o_at := clock_timestamp();
    SELECT * INTO about FROM log WHERE log = p_log AND sender = p_sender AND dedupe = p_dedupe;
    IF FOUND THEN
        o_outcome := 4; o_seq := about.seq; o_message_no := about.message_no; o_at := about.created_at;
        RETURN NEXT; RETURN;
    END IF;
    IF p_authority = 0 AND NOT EXISTS (SELECT FROM members WHERE conversation = p_log AND user_id = p_sender) THEN
        o_outcome := 1; RETURN NEXT; RETURN;
    END IF;
    o_outcome := 0;
    IF p_kind IN (1, 2, 3) THEN
        SELECT * INTO about FROM log WHERE log = p_log AND seq = p_target AND kind = 0 AND NOT deleted;
        IF NOT FOUND THEN o_outcome := 3; RETURN NEXT; RETURN; END IF;
        IF p_kind <> 3 AND about.sender <> p_sender AND NOT (p_kind = 2 AND p_authority > 0) THEN
            o_outcome := 5; RETURN NEXT; RETURN;
        END IF;
    END IF;
    CASE p_kind
        WHEN 1 THEN
            UPDATE log SET content = p_content, edited_at = o_at WHERE log = p_log AND seq = p_target;
        WHEN 2 THEN
            UPDATE log SET content = '', deleted = true WHERE log = p_log AND seq = p_target;
            -- Earlier texts of it must not be read either.
            UPDATE log SET content = '' WHERE log = p_log AND seq > p_target AND kind = 1 AND target = p_target;
            DELETE FROM reactions WHERE log = p_log AND seq = p_target;
        WHEN 3 THEN
            IF p_flag THEN
                INSERT INTO reactions (log, seq, user_id, emoji) VALUES (p_log, p_target, p_sender, p_subject)
                ON CONFLICT DO NOTHING;
            ELSE
                DELETE FROM reactions WHERE log = p_log AND seq = p_target AND user_id = p_sender AND emoji = p_subject;
            END IF;
        WHEN 4 THEN
            INSERT INTO users (id, name) VALUES (p_subject, p_subject) ON CONFLICT DO NOTHING;
            INSERT INTO members (conversation, user_id, joined_at, delivered_seq, read_seq, read_no)
            VALUES (p_log, p_subject, o_at, head.seq, head.seq, head.message_no) ON CONFLICT DO NOTHING;
        WHEN 5 THEN
            DELETE FROM members WHERE conversation = p_log AND user_id = p_subject;
    END CASE;
    IF p_kind > 2 AND NOT FOUND THEN o_outcome := 6; RETURN NEXT; RETURN; END IF;
    SELECT e.o_seq, e.o_message_no INTO o_seq, o_message_no FROM append_entry(p_log, p_kind, p_sender, p_sender_name,
        p_dedupe, p_client_gave_id, p_content, p_target, p_subject, p_flag, o_at) e;
    IF p_kind IN (4, 5) THEN
        o_inbox_seq := append_to_inbox(p_subject, (p_kind + 2)::smallint, p_log, head.seq, p_sender, p_sender_name, o_at);
    END IF;
    RETURN NEXT;
END
$$;

-- Makes a conversation with its members and tells their inboxes: a row for each. No row where id or pair is taken.
CREATE FUNCTION create_conversation(
    p_id text, p_kind smallint, p_name text, p_description text, p_open boolean, p_direct_key text, p_creator text,
    p_members text[]
) RETURNS TABLE (o_user text, o_inbox_seq bigint, o_at timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    o_at := clock_timestamp();
    INSERT INTO conversations (id, kind, name, description, open, direct_key, created_by, created_at)
    VALUES (p_id, p_kind, p_name, p_description, p_open, p_direct_key, p_creator, o_at) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN RETURN; END IF;
    INSERT INTO heads (log, updated_at) VALUES (p_id, o_at);
    FOR o_user IN SELECT DISTINCT m COLLATE "C" FROM unnest(p_members) m ORDER BY 1 LOOP
        INSERT INTO users (id, name) VALUES (o_user, o_user) ON CONFLICT DO NOTHING;
        INSERT INTO members (conversation, user_id, joined_at) VALUES (p_id, o_user, o_at);
        o_inbox_seq := append_to_inbox(o_user, 6::smallint, p_id, 0, p_creator, p_creator, o_at);
        RETURN NEXT;
    END LOOP;
END
$$;

-- Notes that message p_seq waits for each user: opens a run, and tells the inbox, or counts on. A row for each opened.
CREATE FUNCTION notify_users(p_conversation text, p_seq bigint, p_users text[])
RETURNS TABLE (o_user text, o_inbox_seq bigint, o_at timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    o_at := clock_timestamp();
    FOR o_user IN SELECT DISTINCT u COLLATE "C" FROM unnest(p_users) u ORDER BY 1 LOOP
        UPDATE notifications SET count = count + 1, last_seq = p_seq
        WHERE user_id = o_user AND conversation = p_conversation AND read_at IS NULL AND last_seq < p_seq;
        IF FOUND THEN CONTINUE; END IF;
        INSERT INTO notifications (user_id, conversation, from_seq, last_seq, created_at)
        VALUES (o_user, p_conversation, p_seq, p_seq, o_at) ON CONFLICT DO NOTHING;
        IF FOUND THEN
            o_inbox_seq := append_to_inbox(o_user, 8::smallint, p_conversation, p_seq, o_user, o_user, o_at);
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;
