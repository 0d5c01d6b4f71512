//! [`Room`]: the client's state of its conversation. It turns each frame from the server into effects, and touches
//! neither the network nor the screen.
//!
//! Entries are shown in the order of their seq, each once. The server sends no copy of this socket's own messages;
//! their acks take their places. Therefore an entry waits until all entries before it have arrived. After a lost
//! connection the client resumes after the last entry that it has shown.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::tz::TimeZone;

use super::{
    frames::{Frame, Kind, Member, Request, Tag},
    lines,
    outgoing::{Outgoing, Refused},
};
use crate::model::{ConversationId, Seq, UserId};

/// Maximum number of messages in one page of history.
const PAGE: u32 = 100;
const SET_BACK: &str = "the server's log was set back: messages may be gone. /history shows it";
/// Maximum number of pages that are read after a resync.
const MAX_PAGES: u32 = 100;
/// Maximum number of entries that wait for an earlier one. The server sends entries in order, so only acks can be
/// missing.
const MAX_WAITING: usize = 10_000;

/// An action for the caller.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Show a line of the conversation.
    Show(String),
    /// Show a status line.
    Note(String),
    /// Send a frame.
    Send(String),
    /// Close this connection and reconnect, after the pause that the server advised, if any.
    Reconnect(Option<Duration>),
    /// The server will close the connection; reconnect after this pause.
    Restarting(Duration),
    /// End the client with this reason, because another try would fail too.
    Stop(String),
}
use Effect::{Note, Reconnect, Restarting, Send, Show, Stop};

/// A read of earlier messages in progress, page by page, newest first.
#[derive(Debug)]
struct Reading {
    /// Messages up to this seq are ignored.
    after: Seq,
    /// Newest entry of the read; later entries arrive live.
    head: Seq,
    /// Number of newest messages wanted; `None` for all after `after`.
    newest: Option<u32>,
    pages: u32,
    found: Vec<Frame>,
}

/// Display options.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// True if the user's own lines are shown once the server has stored them. At a terminal the typed line is visible
    /// already.
    pub(super) shows_own: bool,
    /// Number of earlier messages to show after the first join.
    pub(super) backlog: u32,
}

/// State of the client's conversation.
#[derive(Debug)]
pub(super) struct Room {
    id: ConversationId,
    style: Style,
    zone: TimeZone,
    me: Option<UserId>,
    my_name: String,
    /// User id given with `--user`; the token must be this user's.
    claimed: Option<UserId>,
    /// Seq of the last entry shown; `None` before the first join.
    cursor: Option<Seq>,
    /// The server's epoch. In another one, the cursor says nothing.
    epoch: Option<i64>,
    /// Lines of entries that wait for an earlier entry; `None` for an entry that is not shown.
    waiting: BTreeMap<Seq, Option<String>>,
    reading: Option<Reading>,
    /// Members of the last `/who`, for their names.
    who_members: Vec<Member>,
    /// Requests of the user on this connection that are not answered yet.
    open_requests: u32,
    /// True while the server accepts lines on this connection.
    joined: bool,
    pub(super) outgoing: Outgoing,
    /// Number of lines that failed permanently.
    pub(super) failed: u32,
}

impl Room {
    pub(super) fn new(id: ConversationId, claimed: Option<UserId>, style: Style, zone: TimeZone) -> Self {
        Self {
            id,
            style,
            zone,
            me: None,
            my_name: String::new(),
            claimed,
            cursor: None,
            epoch: None,
            waiting: BTreeMap::new(),
            reading: None,
            who_members: Vec::new(),
            open_requests: 0,
            joined: false,
            outgoing: Outgoing::default(),
            failed: 0,
        }
    }

    /// True after the join on this connection.
    pub(super) fn is_joined(&self) -> bool {
        self.joined
    }

    /// True if all typed lines are stored and all received entries are shown.
    pub(super) fn is_settled(&self) -> bool {
        let shown = self.reading.is_none() && self.waiting.is_empty();
        self.outgoing.is_empty() && self.joined && self.open_requests == 0 && shown
    }

    /// Resets the state that belongs to the lost connection.
    pub(super) fn connection_lost(&mut self) {
        self.joined = false;
        self.open_requests = 0;
        self.reading = None;
        self.outgoing.connection_lost();
    }

    /// Sends the next line if none is in flight; reconnects if an ack is overdue.
    pub(super) fn send_next(&mut self, now: Instant) -> Vec<Effect> {
        if !self.joined {
            return Vec::new();
        }
        if self.outgoing.is_ack_overdue(now) {
            return vec![Note("the server does not answer".to_owned()), Reconnect(None)];
        }
        self.outgoing.next(&self.id, now).map(Send).into_iter().collect()
    }

    /// Handles a frame from the server.
    pub(super) fn handle_frame(&mut self, frame: Frame, now: Instant) -> Vec<Effect> {
        let here = frame.conversation_id.as_deref() == Some(self.id.as_str());
        match frame.kind {
            Kind::Authenticated => self.authenticated(frame),
            Kind::Joined if frame.tag == Some(Tag::Join) => self.joined(frame.head.unwrap_or_default(), now),
            Kind::Resync if here => self.resync(frame.head.unwrap_or_default(), now),
            Kind::Left if here => vec![Stop(format!("you are no longer a member of {}", self.id))],
            Kind::Ack => self.acked(&frame, now),
            Kind::Error => self.refused(&frame, now),
            Kind::Restart => vec![Restarting(Duration::from_millis(frame.retry_after_ms.unwrap_or_default()))],
            Kind::History => self.history(frame),
            Kind::Conversations if frame.tag == Some(Tag::Who) => self.request_presence(frame),
            Kind::PresenceList if frame.tag == Some(Tag::Who) => {
                self.request_answered();
                vec![Show(lines::who(&self.who_members, &frame.users, self.me.as_ref()))]
            }
            Kind::UserJoined | Kind::UserLeft if here && frame.user_id != self.me => {
                lines::presence(&frame).map(Show).into_iter().collect()
            }
            _ if here => self.entry(&frame, now),
            _ => Vec::new(),
        }
    }

    /// Requests the members; their presence is requested next.
    pub(super) fn request_members(&mut self) -> Effect {
        self.open_requests += 1;
        Send(Request::Conversations { limit: PAGE, tag: Tag::Who }.text())
    }

    /// Requests the last messages.
    pub(super) fn request_history(&mut self, limit: u32) -> Effect {
        self.open_requests += 1;
        Send(Request::History { conversation_id: &self.id, before_seq: None, limit, tag: Tag::History }.text())
    }

    fn request_answered(&mut self) {
        self.open_requests = self.open_requests.saturating_sub(1);
    }

    fn authenticated(&mut self, frame: Frame) -> Vec<Effect> {
        if let (Some(claimed), Some(user)) = (&self.claimed, &frame.user_id)
            && claimed != user
        {
            return vec![Stop(format!(
                "the token is {user}'s, not {claimed}'s: leave out --user, or give another token"
            ))];
        }
        self.my_name = lines::clean(frame.name.as_deref().unwrap_or_default());
        self.me = frame.user_id;
        let mut effects = Vec::new();
        if self.cursor.is_some() && self.epoch != frame.epoch {
            (self.cursor, self.reading) = (None, None);
            self.waiting.clear();
            effects.push(Note(SET_BACK.to_owned()));
        }
        self.epoch = frame.epoch;
        effects.push(Send(
            Request::Join { conversation_id: &self.id, since_seq: self.cursor, roster: true, tag: Tag::Join }.text(),
        ));
        effects
    }

    fn joined(&mut self, head: Seq, now: Instant) -> Vec<Effect> {
        self.joined = true;
        let mut effects = Vec::new();
        if self.cursor.is_some() {
            effects.push(Note("reconnected".to_owned()));
        } else {
            effects.push(Note(format!("you are {} in {}; /help says what you can do", self.my_name, self.id)));
            match self.style.backlog {
                0 => self.cursor = Some(head),
                newest => effects.push(self.start_reading(0, head, Some(newest))),
            }
        }
        effects.extend(self.show_ready());
        effects.extend(self.send_next(now));
        effects
    }

    /// Handles a resync: too much was missed for a replay, or the server's log was set back.
    fn resync(&mut self, head: Seq, now: Instant) -> Vec<Effect> {
        self.joined = true;
        let mut effects = Vec::new();
        match self.cursor {
            Some(cursor) if cursor <= head => effects.push(self.start_reading(cursor, head, None)),
            Some(_) => {
                self.waiting.clear();
                self.cursor = Some(head);
                effects.push(Note(SET_BACK.to_owned()));
            }
            None => self.cursor = Some(head),
        }
        effects.extend(self.send_next(now));
        effects
    }

    /// Starts a read of the messages up to `head`.
    fn start_reading(&mut self, after: Seq, head: Seq, newest: Option<u32>) -> Effect {
        let reading = Reading { after, head, newest, pages: 0, found: Vec::new() };
        let page = self.page(head + 1, newest);
        self.reading = Some(reading);
        page
    }

    fn page(&self, before: Seq, newest: Option<u32>) -> Effect {
        let limit = newest.unwrap_or(PAGE).min(PAGE);
        let request =
            Request::History { conversation_id: &self.id, before_seq: Some(before), limit, tag: Tag::Reading };
        Send(request.text())
    }

    fn history(&mut self, frame: Frame) -> Vec<Effect> {
        if frame.tag == Some(Tag::History) {
            self.request_answered();
            let shown: Vec<_> =
                frame.messages.iter().rev().filter_map(|each| lines::dated_entry(each, &self.zone)).collect();
            return vec![Show(match shown.len() {
                0 => "* no messages yet".to_owned(),
                count => format!("* the last {count} messages:\n{}", shown.join("\n")),
            })];
        }
        let Some(mut reading) = self.reading.take() else { return Vec::new() };
        reading.pages += 1;
        // A server of an earlier version does not say whether there are more.
        let more = frame.next_before_seq.is_some() || frame.messages.len() as u64 >= u64::from(PAGE);
        let oldest = frame.messages.last().and_then(|message| message.seq);
        reading.found.extend(frame.messages);
        match oldest {
            Some(oldest) if reading.newest.is_none() && more && oldest > reading.after + 1 => {
                if reading.pages < MAX_PAGES {
                    self.reading = Some(reading);
                    return vec![self.page(oldest, None)];
                }
                let mut effects =
                    vec![Note("too many messages were missed: the oldest of them are not shown".to_owned())];
                effects.extend(self.finish_reading(reading));
                effects
            }
            _ => self.finish_reading(reading),
        }
    }

    /// Shows the messages that were read, then the entries that arrived meanwhile.
    fn finish_reading(&mut self, reading: Reading) -> Vec<Effect> {
        let mut effects = Vec::new();
        for message in reading.found.iter().rev().filter(|message| message.seq.is_some_and(|seq| seq > reading.after)) {
            let own = message.client_id.as_ref().and_then(|id| self.outgoing.confirm(id)).is_some();
            if reading.newest.is_some() {
                effects.extend(lines::dated_entry(message, &self.zone).map(Show));
            } else if !own || self.style.shows_own {
                effects.extend(lines::entry(message).map(Show));
            }
        }
        self.cursor = Some(reading.head);
        self.waiting.retain(|seq, _| *seq > reading.head);
        effects.extend(self.show_ready());
        effects
    }

    /// Handles an entry of the log, live or replayed.
    fn entry(&mut self, frame: &Frame, now: Instant) -> Vec<Effect> {
        let Some(seq) = frame.seq else { return Vec::new() };
        if frame.kind == Kind::MemberRemoved && frame.user_id == self.me {
            return vec![Stop(format!("you are no longer a member of {}", self.id))];
        }
        // If the ack was lost with a connection, the replayed entry confirms that the line is stored.
        let own = frame.client_id.as_ref().and_then(|id| self.outgoing.confirm(id)).is_some();
        let line = if own && !self.style.shows_own { None } else { lines::entry(frame) };
        let mut effects = self.insert_entry(seq, line);
        if own {
            effects.extend(self.send_next(now));
        }
        effects
    }

    fn acked(&mut self, frame: &Frame, now: Instant) -> Vec<Effect> {
        let Some(text) = frame.client_id.as_ref().and_then(|id| self.outgoing.confirm(id)) else { return Vec::new() };
        let line = self.style.shows_own.then(|| format!("{}: {}", self.my_name, lines::clean(&text)));
        let mut effects = frame.seq.map_or_else(Vec::new, |seq| self.insert_entry(seq, line));
        effects.extend(self.send_next(now));
        effects
    }

    /// Queues an entry by its seq, and shows the entries that are next in order.
    fn insert_entry(&mut self, seq: Seq, line: Option<String>) -> Vec<Effect> {
        if self.cursor.is_none_or(|cursor| seq > cursor) {
            self.waiting.entry(seq).or_insert(line);
        }
        let mut effects = self.show_ready();
        if self.waiting.len() > MAX_WAITING {
            self.waiting.clear();
            effects.push(Reconnect(None));
        }
        effects
    }

    /// Shows the waiting entries that follow the cursor without a gap.
    fn show_ready(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        let (Some(mut cursor), None) = (self.cursor, &self.reading) else { return effects };
        while let Some(line) = self.waiting.remove(&(cursor + 1)) {
            cursor += 1;
            effects.extend(line.map(Show));
        }
        self.cursor = Some(cursor);
        effects
    }

    fn refused(&mut self, frame: &Frame, now: Instant) -> Vec<Effect> {
        let message = lines::clean(frame.message.as_deref().unwrap_or("refused"));
        let after = frame.retry_after_ms.map(Duration::from_millis);
        match frame.tag {
            Some(Tag::Join | Tag::Reading) if frame.retryable => vec![Note(message), Reconnect(after)],
            Some(Tag::Join) => vec![Stop(self.join_refusal(frame.code.as_deref(), &message))],
            Some(Tag::Send) => match self.outgoing.refuse(frame.retryable, after, now) {
                Some(Refused::Retry(after)) => {
                    vec![Note(format!("{message}: your line is sent again in {} s", after.as_secs_f32().ceil()))]
                }
                Some(Refused::Failed(text)) => {
                    self.failed += 1;
                    let mut effects = vec![Note(format!("NOT SENT ({message}): {}", lines::clean(&text)))];
                    effects.extend(self.send_next(now));
                    effects
                }
                None => Vec::new(),
            },
            Some(Tag::Reading) => {
                let mut effects = vec![Note(format!("earlier messages can't be read: {message}"))];
                if let Some(reading) = self.reading.take() {
                    effects.extend(self.finish_reading(reading));
                }
                effects
            }
            tag => {
                if matches!(tag, Some(Tag::Who | Tag::History)) {
                    self.request_answered();
                }
                vec![Note(message)]
            }
        }
    }

    fn join_refusal(&self, code: Option<&str>, message: &str) -> String {
        let room = &self.id;
        match code {
            Some("not_member") => format!(
                "you are not a member of {room}, or there is no such conversation here. A member can add you: POST \
                 /api/chat/conversations/{room}/members"
            ),
            _ => format!("{room} can't be joined: {message}"),
        }
    }

    fn request_presence(&mut self, frame: Frame) -> Vec<Effect> {
        let Some(conversation) = frame.conversations.into_iter().find(|each| each.conversation_id == self.id) else {
            self.request_answered();
            return vec![Note(format!("{} is not among your {PAGE} conversations last active", self.id))];
        };
        self.who_members = conversation.members;
        let user_ids = self.who_members.iter().map(|member| &member.user_id).collect();
        vec![Send(Request::Presence { user_ids, tag: Tag::Who }.text())]
    }
}

#[cfg(test)]
mod tests;
