//! [`Advice`]: what a refusal means to the people who set the server up, in one sentence that names the setting to change.
//!
//! The sentence has one source, here. The log says it, the answer over HTTP says it where there is one, and the demo of
//! `switchboard dev` shows it. It names no user and holds no token.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    admission::Refusal,
    model::{CloseReason, Reject},
};

/// Time until the same sentence is told again, and the same under `dev`, where a person waits for it.
const INTERVAL: Duration = Duration::from_secs(60);
const DEV_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum number of sentences that are told within an interval: clients choose the origins that sentences name.
const MAX_SENTENCES: usize = 64;
/// Number of the last sentences that the demo can show.
const KEPT: usize = 32;
/// Maximum number of characters of an origin or a host in a sentence.
const MAX_NAME_CHARS: usize = 120;

/// A sentence that was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its number; numbers count from 1.
    pub number: u64,
    /// The sentence.
    pub sentence: String,
    /// When it was told.
    pub at: Instant,
}

/// Tells sentences, each at most once per interval.
#[derive(Debug)]
pub struct Advice {
    interval: Duration,
    /// True if a user who is no member may miss OPEN_CONVERSATIONS: under `dev` without it.
    closed: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When a sentence was told last.
    last: HashMap<String, Instant>,
    kept: VecDeque<Told>,
    count: u64,
}

impl Advice {
    /// Tells each sentence once a minute; under `dev`, more often. `open` is OPEN_CONVERSATIONS, which dev has by default.
    pub fn new(dev: bool, open: bool) -> Self {
        let interval = if dev { DEV_INTERVAL } else { INTERVAL };
        Self { interval, closed: dev && !open, state: Mutex::default() }
    }

    /// Logs a sentence and keeps it for the demo, unless it was told a moment ago.
    pub fn tell(&self, sentence: &str) {
        if self.record(sentence, Instant::now()) {
            tracing::warn!("{sentence}");
        }
    }

    /// Tells what a refused command or connection means, if a setting decides it.
    pub fn tell_reject(&self, reject: &Reject) {
        if let Some(sentence) = of_reject(reject) {
            self.tell(&sentence);
        } else if self.closed && matches!(reject, Reject::NotMember | Reject::NotFound("Conversation")) {
            self.tell("Not a member of this conversation: with OPEN_CONVERSATIONS=true, joining creates it, and lets everyone in");
        }
    }

    /// Tells what a close means, if a setting decides it.
    pub fn tell_close(&self, reason: &CloseReason) {
        if let CloseReason::Refused(reject) = reason {
            self.tell_reject(reject);
        } else if let Some(sentence) = of_close(reason) {
            self.tell(&sentence);
        }
    }

    /// The kept sentences with a number above `after`, oldest first.
    pub fn since(&self, after: u64) -> Vec<Told> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.kept.iter().filter(|told| told.number > after).cloned().collect()
    }

    /// Records a sentence. Returns false if it was told within the interval, or too many others were.
    fn record(&self, sentence: &str, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let interval = self.interval;
        let is_recent = |at: &Instant| now.duration_since(*at) < interval;
        if state.last.get(sentence).is_some_and(is_recent) {
            return false;
        }
        if state.last.len() >= MAX_SENTENCES {
            state.last.retain(|_, at| is_recent(at));
            if state.last.len() >= MAX_SENTENCES {
                return false;
            }
        }
        state.last.insert(sentence.to_owned(), now);
        state.count += 1;
        let told = Told { number: state.count, sentence: sentence.to_owned(), at: now };
        state.kept.push_back(told);
        if state.kept.len() > KEPT {
            state.kept.pop_front();
        }
        true
    }
}

/// The sentence about a refused handshake or request; `None` if no setting decides it. `subject` is the request's `Origin` for
/// [`Refusal::Origin`], and its `Host` for [`Refusal::Host`].
pub fn of_refusal(refusal: Refusal, subject: Option<&str>) -> Option<String> {
    let subject = printable(subject.unwrap_or_default());
    let sentence = match refusal {
        Refusal::Full | Refusal::Dropped => {
            "This node has as many connections as it takes: MAX_CONNECTIONS limits them".to_owned()
        }
        Refusal::Crowded | Refusal::Displaced => {
            "Too many connections without a token just now: MAX_UNAUTHENTICATED limits them".to_owned()
        }
        Refusal::AddressFull => "Too many connections from this address: MAX_CONNECTIONS_PER_IP limits them, and \
             MAX_UNAUTHENTICATED_PER_IP those without a token"
            .to_owned(),
        Refusal::HandshakeRate => "Too many new connections just now: HANDSHAKES_PER_SECOND limits them".to_owned(),
        Refusal::Origin => format!("Pages of {subject} may not connect: add {subject} to ALLOWED_ORIGINS"),
        Refusal::Host => format!(
            "switchboard dev serves this machine only, and was called {subject}: call it localhost or 127.0.0.1, or list \
             the host in ALLOWED_ORIGINS"
        ),
        Refusal::Draining
        | Refusal::Handshake
        | Refusal::HeadTooLarge
        | Refusal::ProxyHeader
        | Refusal::Silent
        | Refusal::Slow => return None,
    };
    Some(sentence)
}

/// The sentence about a refused command or connection; `None` if no setting decides it.
pub fn of_reject(reject: &Reject) -> Option<String> {
    let sentence = match reject {
        // Each flaw that a setting decides names it.
        Reject::InvalidToken(flaw) | Reject::InvalidTokenExplained(flaw) => format!("Invalid token: {flaw}"),
        Reject::RateLimited { limit, setting, .. } => {
            format!("Rate limit exceeded: {setting} is {limit} {}", per(setting))
        }
        Reject::TooManyReads { .. } => format!("{reject}: HEAVY_READS_PER_USER limits them"),
        Reject::TooManyConnections | Reject::TooManyConnectionsMaybe => "Too many connections of one user: \
             MAX_CONNECTIONS_PER_USER limits them, and MAX_SOCKETS_PER_USER all of its sockets"
            .to_owned(),
        Reject::TooManyConversations => format!("{reject}: MAX_CONVERSATIONS_PER_CONNECTION limits them"),
        Reject::AuthTimeout => format!("{reject}: a socket without a token has AUTH_TIMEOUT to send one"),
        Reject::Overloaded { .. } => format!("{reject}: STORE_QUEUE is full, because the store is too slow"),
        Reject::PersonaFailed => format!("{reject}: see the log before this line, and PERSONA_WEBHOOK_URL"),
        Reject::NoPersonas => reject.to_string(),
        Reject::NotFound("Persona") => format!("{reject}: PERSONA_IDS lists them"),
        Reject::Invalid(_)
        | Reject::UnknownType(_)
        | Reject::TokenExpired
        | Reject::TokenRevoked
        | Reject::Blocked
        | Reject::NotMember
        | Reject::Forbidden(_)
        | Reject::NotFound(_)
        | Reject::Conflict(_)
        | Reject::TooManyReactions
        | Reject::ReadTooSlow { .. }
        | Reject::Unavailable
        | Reject::Unknown
        | Reject::Unsupported(_) => return None,
    };
    Some(sentence)
}

/// The unit of a rate's setting.
fn per(setting: &str) -> &'static str {
    if setting == "MAX_EVENTS_PER_RECEIVER" { "events a second" } else { "a minute for each user" }
}

/// The sentence about a close; `None` if no setting decides it.
pub fn of_close(reason: &CloseReason) -> Option<String> {
    let sentence = match reason {
        CloseReason::TooLarge => "Message too large: MAX_FRAME_BYTES limits it",
        CloseReason::TooManyFragments => "Too many fragments: MAX_FRAGMENTS limits them",
        CloseReason::Flood => "Too many frames: MAX_FRAMES_PER_SECOND limits them",
        CloseReason::TooSlow => {
            "A client read too slowly: OUTBOX_BYTES limits what waits for it, and SLOW_READER_TIMEOUT how long it may take none"
        }
        // `of_reject` has them.
        CloseReason::Refused(_)
        | CloseReason::ClientLeft
        | CloseReason::TokenExpired
        | CloseReason::Disconnected
        | CloseReason::Silent
        | CloseReason::NotUtf8
        | CloseReason::Protocol
        | CloseReason::Binary
        | CloseReason::Internal
        | CloseReason::Restart(_) => return None,
    };
    Some(sentence.to_owned())
}

/// A name that the client chose, cut, and without characters that could forge a line of the log.
fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TokenFlaw;

    #[test]
    fn a_sentence_is_told_once_per_interval() {
        let (advice, now) = (Advice::new(false, false), Instant::now());
        assert!(advice.record("one", now));
        assert!(!advice.record("one", now + INTERVAL / 2));
        assert!(advice.record("two", now + INTERVAL / 2));
        assert!(advice.record("one", now + INTERVAL));
        let told: Vec<_> = advice.since(1).into_iter().map(|told| (told.number, told.sentence)).collect();
        assert_eq!(told, [(2, "two".to_owned()), (3, "one".to_owned())]);
    }

    #[test]
    fn clients_can_neither_fill_the_memory_nor_the_log() {
        let (advice, now) = (Advice::new(true, true), Instant::now());
        let told = (0..10 * MAX_SENTENCES).filter(|n| advice.record(&n.to_string(), now)).count();
        assert_eq!((told, advice.since(0).len()), (MAX_SENTENCES, KEPT));
        assert!(advice.record("later", now + DEV_INTERVAL), "the others are forgotten");
        let sentence = of_refusal(Refusal::Origin, Some(&format!("https://a\n{}", "b".repeat(10_000)))).unwrap();
        assert!(!sentence.contains('\n') && sentence.len() < 400, "{sentence}");
    }

    /// Every capitalised name in a sentence is a setting.
    #[test]
    fn sentences_name_settings_that_exist() {
        let rejects = [
            Reject::InvalidToken(TokenFlaw::Signature),
            Reject::RateLimited { sent: 1, limit: 1, setting: "MESSAGE_RATE_LIMIT", retry_after: Duration::ZERO },
            Reject::RateLimited { sent: 1, limit: 1, setting: "MAX_EVENTS_PER_RECEIVER", retry_after: Duration::ZERO },
            Reject::TooManyReads { retry_after: Duration::ZERO },
            Reject::TooManyConnections,
            Reject::TooManyConversations,
            Reject::AuthTimeout,
            Reject::Overloaded { retry_after: Duration::ZERO },
            Reject::PersonaFailed,
            Reject::NoPersonas,
            Reject::NotFound("Persona"),
        ];
        let closes = [CloseReason::TooLarge, CloseReason::TooManyFragments, CloseReason::Flood, CloseReason::TooSlow];
        let refusals = [
            Refusal::Full,
            Refusal::Crowded,
            Refusal::AddressFull,
            Refusal::HandshakeRate,
            Refusal::Origin,
            Refusal::Host,
        ];
        let sentences = rejects.iter().map(of_reject).chain(closes.iter().map(of_close));
        for sentence in sentences.chain(refusals.iter().map(|refusal| of_refusal(*refusal, Some("https://a.example"))))
        {
            let sentence = sentence.unwrap();
            let words =
                sentence.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).filter(|word| word.contains('_'));
            let names: Vec<&str> = words.collect();
            assert!(!names.is_empty(), "{sentence}");
            for name in names {
                let known = crate::config::settings::ALL.iter().any(|setting| setting.name == name);
                assert!(known, "{name} in: {sentence}");
            }
        }
    }
}
