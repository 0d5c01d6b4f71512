//! [`Outgoing`]: the queue of typed lines that the server has not confirmed yet. Each line has its own `client_id`, so
//! that a repeated send is stored once.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::frames::{Request, Tag};
use crate::model::{ClientId, ConversationId};

/// Maximum number of queued lines. At that number the client stops reading input.
const MAX_WAITING: usize = 64;
/// Maximum time for the server to confirm a line; after it the client reconnects.
const ACK_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum number of sends of one line after retryable refusals.
const MAX_TRIES: u32 = 30;
/// Pause after a retryable refusal without a retry delay.
const RETRY: Duration = Duration::from_secs(2);

/// State of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not sent yet on this connection.
    Waiting,
    /// To be sent again at this time.
    RetryAt(Instant),
    /// Sent on this connection at this time.
    Sent(Instant),
}

#[derive(Debug)]
struct Line {
    client_id: ClientId,
    text: String,
    tries: u32,
    state: State,
}

/// Outcome for a line that the server refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is sent again after this pause.
    Retry(Duration),
    /// It failed permanently; holds its text.
    Failed(String),
}

/// The lines, oldest first. Only the first is in flight at any time, so that the server stores them in their order.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    lines: VecDeque<Line>,
}

impl Outgoing {
    /// Appends a line.
    pub(super) fn push(&mut self, text: String) {
        self.lines.push_back(Line { client_id: ClientId::fresh(), text, tries: 0, state: State::Waiting });
    }

    /// True if another line may be queued.
    pub(super) fn has_room(&self) -> bool {
        self.lines.len() < MAX_WAITING
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The frame to send now, if any; marks its line as sent.
    pub(super) fn next(&mut self, room: &ConversationId, now: Instant) -> Option<String> {
        let line = self.lines.front_mut()?;
        match line.state {
            State::Sent(_) => return None,
            State::RetryAt(at) if at > now => return None,
            State::Waiting | State::RetryAt(_) => {}
        }
        line.state = State::Sent(now);
        line.tries += 1;
        let (content, client_id) = (line.text.as_str(), &line.client_id);
        Some(Request::Send { conversation_id: room, content, client_id, tag: Tag::Send }.text())
    }

    /// Time of the next action without an answer: a retry, or the timeout of the ack.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.lines.front()?.state {
            State::Waiting => None,
            State::RetryAt(at) => Some(at),
            State::Sent(at) => Some(at + ACK_TIMEOUT),
        }
    }

    /// True if a sent line was not confirmed within `ACK_TIMEOUT`.
    pub(super) fn is_ack_overdue(&self, now: Instant) -> bool {
        matches!(self.lines.front(), Some(Line { state: State::Sent(at), .. }) if *at + ACK_TIMEOUT <= now)
    }

    /// Handles the loss of the connection: a line without an answer is sent again on the next one.
    pub(super) fn connection_lost(&mut self) {
        if let Some(Line { state: state @ State::Sent(_), .. }) = self.lines.front_mut() {
            *state = State::Waiting;
        }
    }

    /// Removes a stored line and returns its text; `None` if the line is unknown or already confirmed.
    pub(super) fn confirm(&mut self, client_id: &ClientId) -> Option<String> {
        let at = self.lines.iter().position(|line| line.client_id == *client_id)?;
        self.lines.remove(at).map(|line| line.text)
    }

    /// Handles the server's refusal of the line in flight.
    pub(super) fn refuse(&mut self, retryable: bool, after: Option<Duration>, now: Instant) -> Option<Refused> {
        let line = self.lines.front_mut()?;
        if retryable && line.tries < MAX_TRIES {
            let after = after.unwrap_or(RETRY);
            line.state = State::RetryAt(now + after);
            return Some(Refused::Retry(after));
        }
        self.lines.pop_front().map(|line| Refused::Failed(line.text))
    }

    /// Removes the line in flight, because it made the server close the connection, and returns its text.
    pub(super) fn drop_sent(&mut self) -> Option<String> {
        let sent = matches!(self.lines.front(), Some(Line { state: State::Sent(_), .. }));
        sent.then(|| self.lines.pop_front().map(|line| line.text)).flatten()
    }

    /// Removes all remaining lines and returns their texts.
    pub(super) fn drain(&mut self) -> Vec<String> {
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
    fn lines_are_sent_one_at_a_time() {
        let (mut outgoing, now) = (Outgoing::default(), Instant::now());
        outgoing.push("one".into());
        outgoing.push("two".into());
        let (text, id) = sent(&mut outgoing, now).unwrap();
        assert_eq!(text, "one");
        assert_eq!(sent(&mut outgoing, now), None, "the first is not confirmed yet");
        assert_eq!(outgoing.confirm(&ClientId::parse(&id).unwrap()).as_deref(), Some("one"));
        assert_eq!(outgoing.confirm(&ClientId::parse(&id).unwrap()), None, "only once");
        assert_eq!(sent(&mut outgoing, now).unwrap().0, "two");
    }

    #[test]
    fn a_retry_keeps_the_client_id() {
        let (mut outgoing, now) = (Outgoing::default(), Instant::now());
        outgoing.push("one".into());
        let first = sent(&mut outgoing, now).unwrap();
        outgoing.connection_lost();
        assert_eq!(sent(&mut outgoing, now).unwrap(), first);
        let pause = Duration::from_secs(7);
        assert_eq!(outgoing.refuse(true, Some(pause), now), Some(Refused::Retry(pause)));
        assert_eq!(sent(&mut outgoing, now), None);
        assert_eq!(outgoing.due(), Some(now + pause));
        assert_eq!(sent(&mut outgoing, now + pause).unwrap(), first);
        assert!(!outgoing.is_ack_overdue(now + pause) && outgoing.is_ack_overdue(now + pause + ACK_TIMEOUT));
    }

    #[test]
    fn after_a_permanent_failure_the_next_line_is_sent() {
        let (mut outgoing, now) = (Outgoing::default(), Instant::now());
        outgoing.push("one".into());
        outgoing.push("two".into());
        sent(&mut outgoing, now).unwrap();
        assert_eq!(outgoing.refuse(false, None, now), Some(Refused::Failed("one".into())));
        for _ in 0..MAX_TRIES - 1 {
            let later = outgoing.due().unwrap_or(now);
            assert_eq!(sent(&mut outgoing, later).unwrap().0, "two");
            assert!(matches!(outgoing.refuse(true, None, later), Some(Refused::Retry(_))));
        }
        let later = outgoing.due().unwrap();
        sent(&mut outgoing, later).unwrap();
        assert_eq!(outgoing.refuse(true, None, later), Some(Refused::Failed("two".into())), "tries are bounded");
        assert!(outgoing.is_empty());
    }
}
