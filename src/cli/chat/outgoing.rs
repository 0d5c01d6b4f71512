//! What the user typed and the server has not confirmed yet: one line after the other, each with an id of its own, so that
//! a line that is sent again is stored once.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::frames::{Request, Tag};
use crate::model::{ClientId, ConversationId};

/// Lines that may wait; the keyboard, or the pipe, waits beyond that.
const MAX_WAITING: usize = 64;
/// How long the server may take to confirm a line. A connection that is silent for longer is given up.
const ACK_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a line is sent that the server can't take now.
const MAX_TRIES: u32 = 30;
/// How long a line waits that the server can't take now, where it doesn't say.
const RETRY: Duration = Duration::from_secs(2);

/// How far a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is to be sent.
    Waiting,
    /// It is to be sent again, then.
    Later(Instant),
    /// It was sent on this connection, then.
    Sent(Instant),
}

#[derive(Debug)]
struct Line {
    client_id: ClientId,
    text: String,
    tries: u32,
    state: State,
}

/// What becomes of a line that the server refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is sent again after this long.
    Again(Duration),
    /// It failed for good: its text.
    Failed(String),
}

/// The lines, oldest first. Only the first of them is ever under way: so the order stays as it was typed.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    lines: VecDeque<Line>,
}

impl Outgoing {
    /// Takes a line.
    pub(super) fn push(&mut self, text: String) {
        self.lines.push_back(Line { client_id: ClientId::fresh(), text, tries: 0, state: State::Waiting });
    }

    /// Whether more may wait.
    pub(super) fn has_room(&self) -> bool {
        self.lines.len() < MAX_WAITING
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The frame that is to be sent now, if one is.
    pub(super) fn next(&mut self, room: &ConversationId, now: Instant) -> Option<String> {
        let line = self.lines.front_mut()?;
        match line.state {
            State::Sent(_) => return None,
            State::Later(at) if at > now => return None,
            State::Waiting | State::Later(_) => {}
        }
        line.state = State::Sent(now);
        line.tries += 1;
        let (content, client_id) = (line.text.as_str(), &line.client_id);
        Some(Request::Send { conversation_id: room, content, client_id, tag: Tag::Send }.text())
    }

    /// When something is to be done, if nothing comes before: send again, or give the connection up.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.lines.front()?.state {
            State::Waiting => None,
            State::Later(at) => Some(at),
            State::Sent(at) => Some(at + ACK_TIMEOUT),
        }
    }

    /// Whether a line was sent and not confirmed in time.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        matches!(self.lines.front(), Some(Line { state: State::Sent(at), .. }) if *at + ACK_TIMEOUT <= now)
    }

    /// The connection is gone: what was sent on it without an answer is to be sent again.
    pub(super) fn connection_lost(&mut self) {
        if let Some(Line { state: state @ State::Sent(_), .. }) = self.lines.front_mut() {
            *state = State::Waiting;
        }
    }

    /// The server has a line: its text. None where the line is not ours, or was confirmed before.
    pub(super) fn confirm(&mut self, client_id: &ClientId) -> Option<String> {
        let at = self.lines.iter().position(|line| line.client_id == *client_id)?;
        self.lines.remove(at).map(|line| line.text)
    }

    /// The server refused the line under way.
    pub(super) fn refuse(&mut self, retryable: bool, after: Option<Duration>, now: Instant) -> Option<Refused> {
        let line = self.lines.front_mut()?;
        if retryable && line.tries < MAX_TRIES {
            let after = after.unwrap_or(RETRY);
            line.state = State::Later(now + after);
            return Some(Refused::Again(after));
        }
        self.lines.pop_front().map(|line| Refused::Failed(line.text))
    }

    /// The text of the line under way, which closed the connection and is not tried again.
    pub(super) fn drop_sent(&mut self) -> Option<String> {
        let sent = matches!(self.lines.front(), Some(Line { state: State::Sent(_), .. }));
        sent.then(|| self.lines.pop_front().map(|line| line.text)).flatten()
    }

    /// All that is left, given up.
    pub(super) fn give_up(&mut self) -> Vec<String> {
        self.lines.drain(..).map(|line| line.text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> ConversationId {
        ConversationId::parse("lobby").unwrap()
    }

    fn sent(outgoing: &mut Outgoing, now: Instant) -> Option<(String, String)> {
        let frame: serde_json::Value = serde_json::from_str(&outgoing.next(&room(), now)?).unwrap();
        let text = |name: &str| frame[name].as_str().unwrap().to_owned();
        Some((text("content"), text("client_id")))
    }

    #[test]
    fn lines_go_one_after_the_other() {
        let (mut outgoing, now) = (Outgoing::default(), Instant::now());
        outgoing.push("one".into());
        outgoing.push("two".into());
        let (text, id) = sent(&mut outgoing, now).unwrap();
        assert_eq!(text, "one");
        assert_eq!(sent(&mut outgoing, now), None, "the first is not confirmed yet");
        assert_eq!(outgoing.confirm(&ClientId::parse(&id).unwrap()).as_deref(), Some("one"));
        assert_eq!(outgoing.confirm(&ClientId::parse(&id).unwrap()), None, "once");
        assert_eq!(sent(&mut outgoing, now).unwrap().0, "two");
    }

    #[test]
    fn a_line_is_sent_again_with_the_id_it_had() {
        let (mut outgoing, now) = (Outgoing::default(), Instant::now());
        outgoing.push("one".into());
        let first = sent(&mut outgoing, now).unwrap();
        outgoing.connection_lost();
        assert_eq!(sent(&mut outgoing, now).unwrap(), first);
        let pause = Duration::from_secs(7);
        assert_eq!(outgoing.refuse(true, Some(pause), now), Some(Refused::Again(pause)));
        assert_eq!(sent(&mut outgoing, now), None);
        assert_eq!(outgoing.due(), Some(now + pause));
        assert_eq!(sent(&mut outgoing, now + pause).unwrap(), first);
        assert!(!outgoing.is_late(now + pause) && outgoing.is_late(now + pause + ACK_TIMEOUT));
    }

    #[test]
    fn a_line_fails_for_good_and_the_next_goes() {
        let (mut outgoing, now) = (Outgoing::default(), Instant::now());
        outgoing.push("one".into());
        outgoing.push("two".into());
        sent(&mut outgoing, now).unwrap();
        assert_eq!(outgoing.refuse(false, None, now), Some(Refused::Failed("one".into())));
        for _ in 0..MAX_TRIES - 1 {
            let later = outgoing.due().unwrap_or(now);
            assert_eq!(sent(&mut outgoing, later).unwrap().0, "two");
            assert!(matches!(outgoing.refuse(true, None, later), Some(Refused::Again(_))));
        }
        let later = outgoing.due().unwrap();
        sent(&mut outgoing, later).unwrap();
        assert_eq!(outgoing.refuse(true, None, later), Some(Refused::Failed("two".into())), "tries are bounded");
        assert!(outgoing.is_empty());
    }
}
