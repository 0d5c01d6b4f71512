//! What this client knows of its conversation: how far it has read, what it has to send, and what each frame from the server
//! makes of that. It reaches neither the network nor the screen.
//!
//! Entries are shown in the order of their seq, each once. The server sends no copy of this socket's own messages: their
//! acks take their places. So an entry waits until all before it are there; after a connection is lost, what comes after the
//! last one shown is asked for again.

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

/// Messages that one page of history has at most.
const PAGE: u32 = 100;
/// Pages that are read of what was missed.
const MAX_PAGES: u32 = 100;
/// Entries that may wait for one before them. The server sends them in order, so only acks are ever missing.
const MAX_WAITING: usize = 10_000;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Show a line of the conversation.
    Show(String),
    /// Tell the user how things are.
    Note(String),
    /// Send a frame.
    Send(String),
    /// Give this connection up and come again after this long, where the server said how long.
    Reconnect(Option<Duration>),
    /// The server is about to close: come again after this long.
    Restarting(Duration),
    /// End: trying again is useless.
    Stop(String),
}
use Effect::{Note, Reconnect, Restarting, Send, Show, Stop};

/// Messages that are being read page by page, newest first.
#[derive(Debug)]
struct Reading {
    /// Only those after this one count.
    after: Seq,
    /// The newest entry that belongs to it: what follows comes live.
    head: Seq,
    /// How many are wanted, where not all are.
    newest: Option<u32>,
    pages: u32,
    found: Vec<Frame>,
}

/// How the conversation is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// The user's own lines are shown when the server has them. At a terminal they stand there as they were typed.
    pub(super) shows_own: bool,
    /// How many messages are shown of those that were said before.
    pub(super) backlog: u32,
}

/// The state.
#[derive(Debug)]
pub(super) struct Room {
    id: ConversationId,
    style: Style,
    zone: TimeZone,
    me: Option<UserId>,
    my_name: String,
    /// Whom the user said to be.
    claimed: Option<UserId>,
    /// All up to here was shown; none before the first time in.
    cursor: Option<Seq>,
    /// What came before its turn.
    waiting: BTreeMap<Seq, Option<String>>,
    reading: Option<Reading>,
    /// The members that `/who` asks about.
    asked_about: Vec<Member>,
    /// The server takes lines on this connection.
    joined: bool,
    pub(super) outgoing: Outgoing,
    /// Lines that failed for good.
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
            waiting: BTreeMap::new(),
            reading: None,
            asked_about: Vec::new(),
            joined: false,
            outgoing: Outgoing::default(),
            failed: 0,
        }
    }

    /// Whether the server lets this connection listen and speak.
    pub(super) fn is_joined(&self) -> bool {
        self.joined
    }

    /// Whether all that was typed is stored, and all that came was shown.
    pub(super) fn is_settled(&self) -> bool {
        self.outgoing.is_empty() && self.joined && self.reading.is_none() && self.waiting.is_empty()
    }

    /// The connection is gone.
    pub(super) fn connection_lost(&mut self) {
        self.joined = false;
        self.reading = None;
        self.outgoing.connection_lost();
    }

    /// What the next line to send makes necessary.
    pub(super) fn push_on(&mut self, now: Instant) -> Vec<Effect> {
        if !self.joined {
            return Vec::new();
        }
        if self.outgoing.is_late(now) {
            return vec![Note("the server does not answer".to_owned()), Reconnect(None)];
        }
        self.outgoing.next(&self.id, now).map(Send).into_iter().collect()
    }

    /// Takes a frame from the server.
    pub(super) fn take(&mut self, frame: Frame, now: Instant) -> Vec<Effect> {
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
            Kind::Conversations if frame.tag == Some(Tag::Who) => self.ask_who(frame),
            Kind::PresenceList if frame.tag == Some(Tag::Who) => {
                vec![Show(lines::who(&self.asked_about, &frame.users, self.me.as_ref()))]
            }
            Kind::UserJoined | Kind::UserLeft if here && frame.user_id != self.me => {
                lines::presence(&frame).map(Show).into_iter().collect()
            }
            _ if here => self.entry(&frame, now),
            _ => Vec::new(),
        }
    }

    /// Asks who is there.
    pub(super) fn who(&self) -> Effect {
        Send(Request::Conversations { limit: PAGE, tag: Tag::Who }.text())
    }

    /// Asks for the last messages.
    pub(super) fn last(&self, limit: u32) -> Effect {
        Send(Request::History { conversation_id: &self.id, before_seq: None, limit, tag: Tag::History }.text())
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
        vec![Send(Request::Join { conversation_id: &self.id, since_seq: self.cursor, tag: Tag::Join }.text())]
    }

    fn joined(&mut self, head: Seq, now: Instant) -> Vec<Effect> {
        self.joined = true;
        let mut effects = Vec::new();
        if self.cursor.is_some() {
            effects.push(Note("connected again".to_owned()));
        } else {
            effects.push(Note(format!("you are {} in {}; /help says what you can do", self.my_name, self.id)));
            match self.style.backlog {
                0 => self.cursor = Some(head),
                newest => effects.push(self.read(0, head, Some(newest))),
            }
        }
        effects.extend(self.settle());
        effects.extend(self.push_on(now));
        effects
    }

    /// Too much was missed to be sent by itself, or the server's log was set back.
    fn resync(&mut self, head: Seq, now: Instant) -> Vec<Effect> {
        self.joined = true;
        let mut effects = Vec::new();
        match self.cursor {
            Some(cursor) if cursor <= head => effects.push(self.read(cursor, head, None)),
            Some(_) => {
                self.waiting.clear();
                self.cursor = Some(head);
                effects.push(Note("the server's log was set back: messages may be gone. /history shows it".to_owned()));
            }
            None => self.cursor = Some(head),
        }
        effects.extend(self.push_on(now));
        effects
    }

    /// Begins to read messages up to `head`.
    fn read(&mut self, after: Seq, head: Seq, newest: Option<u32>) -> Effect {
        let reading = Reading { after, head, newest, pages: 0, found: Vec::new() };
        let page = self.page(head + 1, newest);
        self.reading = Some(reading);
        page
    }

    fn page(&self, before: Seq, newest: Option<u32>) -> Effect {
        let limit = newest.unwrap_or(PAGE).min(PAGE);
        let ask = Request::History { conversation_id: &self.id, before_seq: Some(before), limit, tag: Tag::Reading };
        Send(ask.text())
    }

    fn history(&mut self, frame: Frame) -> Vec<Effect> {
        if frame.tag == Some(Tag::History) {
            let shown: Vec<_> =
                frame.messages.iter().rev().filter_map(|each| lines::dated_entry(each, &self.zone)).collect();
            return vec![Show(match shown.len() {
                0 => "* nothing was said yet".to_owned(),
                count => format!("* the last {count} messages:\n{}", shown.join("\n")),
            })];
        }
        let Some(mut reading) = self.reading.take() else { return Vec::new() };
        reading.pages += 1;
        let full = frame.messages.len() as u64 >= u64::from(PAGE);
        let oldest = frame.messages.last().and_then(|message| message.seq);
        reading.found.extend(frame.messages);
        match oldest {
            Some(oldest) if reading.newest.is_none() && full && oldest > reading.after + 1 => {
                if reading.pages < MAX_PAGES {
                    self.reading = Some(reading);
                    return vec![self.page(oldest, None)];
                }
                let mut effects =
                    vec![Note("more was missed than can be shown: the oldest of it is left out".to_owned())];
                effects.extend(self.finish(reading));
                effects
            }
            _ => self.finish(reading),
        }
    }

    /// Shows what was read, and then what came meanwhile.
    fn finish(&mut self, reading: Reading) -> Vec<Effect> {
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
        effects.extend(self.settle());
        effects
    }

    /// An entry of the log, live or replayed.
    fn entry(&mut self, frame: &Frame, now: Instant) -> Vec<Effect> {
        let Some(seq) = frame.seq else { return Vec::new() };
        if frame.kind == Kind::MemberRemoved && frame.user_id == self.me {
            return vec![Stop(format!("you are no longer a member of {}", self.id))];
        }
        // Where the ack was lost with a connection, the replay says that the line is stored.
        let own = frame.client_id.as_ref().and_then(|id| self.outgoing.confirm(id)).is_some();
        let line = if own && !self.style.shows_own { None } else { lines::entry(frame) };
        let mut effects = self.arrive(seq, line);
        if own {
            effects.extend(self.push_on(now));
        }
        effects
    }

    fn acked(&mut self, frame: &Frame, now: Instant) -> Vec<Effect> {
        let Some(text) = frame.client_id.as_ref().and_then(|id| self.outgoing.confirm(id)) else { return Vec::new() };
        let line = self.style.shows_own.then(|| format!("{}: {}", self.my_name, lines::clean(&text)));
        let mut effects = frame.seq.map_or_else(Vec::new, |seq| self.arrive(seq, line));
        effects.extend(self.push_on(now));
        effects
    }

    /// Puts an entry in its place, and shows what has its turn.
    fn arrive(&mut self, seq: Seq, line: Option<String>) -> Vec<Effect> {
        if self.cursor.is_none_or(|cursor| seq > cursor) {
            self.waiting.entry(seq).or_insert(line);
        }
        let mut effects = self.settle();
        if self.waiting.len() > MAX_WAITING {
            self.waiting.clear();
            effects.push(Reconnect(None));
        }
        effects
    }

    fn settle(&mut self) -> Vec<Effect> {
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
            Some(Tag::Join) => vec![Stop(self.why_not_in(frame.code.as_deref(), &message))],
            Some(Tag::Send) => match self.outgoing.refuse(frame.retryable, after, now) {
                Some(Refused::Again(after)) => {
                    vec![Note(format!("{message}: your line is sent again in {} s", after.as_secs_f32().ceil()))]
                }
                Some(Refused::Failed(text)) => {
                    self.failed += 1;
                    let mut effects = vec![Note(format!("NOT SENT ({message}): {}", lines::clean(&text)))];
                    effects.extend(self.push_on(now));
                    effects
                }
                None => Vec::new(),
            },
            Some(Tag::Reading) => {
                let mut effects = vec![Note(format!("what was said before can't be read: {message}"))];
                if let Some(reading) = self.reading.take() {
                    effects.extend(self.finish(reading));
                }
                effects
            }
            _ => vec![Note(message)],
        }
    }

    fn why_not_in(&self, code: Option<&str>, message: &str) -> String {
        let room = &self.id;
        match code {
            Some("not_member") => format!(
                "you are not a member of {room}, or there is no such conversation here. A member can add you: POST \
                 /api/chat/conversations/{room}/members"
            ),
            _ => format!("{room} can't be joined: {message}"),
        }
    }

    fn ask_who(&mut self, frame: Frame) -> Vec<Effect> {
        let Some(about) = frame.conversations.into_iter().find(|each| each.conversation_id == self.id) else {
            return vec![Note(format!("{} is not among your {PAGE} conversations last active", self.id))];
        };
        self.asked_about = about.members;
        let user_ids = self.asked_about.iter().map(|member| &member.user_id).collect();
        vec![Send(Request::Presence { user_ids, tag: Tag::Who }.text())]
    }
}

#[cfg(test)]
mod tests;
