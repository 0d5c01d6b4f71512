//! Personas: a message may name a persona. The broker posts it to a webhook and appends the answer to the conversation.
//!
//! Which personas exist is configured. The message is stored and acked like any other, without waiting for the answer;
//! the persona is stored with it. A persona is asked only what is stored: if the sender repeats the message, its text as
//! it is stored now is asked, and nothing is asked if the answer is stored. If the node dies, another one
//! asks the pending questions again ([`watch`](super::notifications::watch)).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::{
    command::{Begun, Caller, CommandReply},
    connection::Connection,
    router::Router,
};
use crate::{
    metrics::Metrics,
    model::{
        Body, ClientId, Content, ConversationId, Data, Entry, EntryId, Ephemeral, HistoryRange, InvalidContent,
        InvalidData, LogId, NewMessage, Page, PageLimit, Reject, Reply, Sent, Seq, Timestamp, UserId,
    },
    outbox::Signal,
    store::{AppendError, Authority, MessagesPage, NewEntry, Store, StoreError, Writer},
    supervise::{Supervisor, TaskName, checkpoint},
    webhook::{Backoff, Queue, QueueReceiver, Webhook, WebhookError},
};

/// Earlier messages that the request to a persona contains.
const HISTORY: PageLimit = PageLimit::at_most(20);
/// Maximum number of tries to store an answer, and the first and the longest pause between them.
const STORE_TRIES: u32 = 6;
const STORE_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Pause until a question that a dead node left is tried again, if the queue is full.
const QUEUE_PAUSE: Duration = Duration::from_millis(500);

/// A stored message that waits for a persona's answer.
pub(super) struct Question {
    /// None for a repeated send: the stored message says what is asked.
    asked: Option<Asked>,
    sent: Sent,
    sender: UserId,
    sender_name: Arc<str>,
    /// The socket that is informed if there is no answer.
    connection: Option<Arc<Connection>>,
}

/// The part of a message that its persona gets, and the persona.
#[derive(Clone)]
pub(super) struct Asked {
    persona: UserId,
    content: Arc<str>,
    data: Option<Data>,
}

impl Asked {
    /// None if the message names no persona.
    pub(super) fn of(message: &NewMessage) -> Option<Self> {
        let NewMessage { content, data, persona, .. } = message;
        Some(Self { persona: persona.clone()?, content: content.clone().into(), data: data.clone() })
    }
}

/// Reason why there is no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("the queue of messages for personas is full")]
    QueueFull,
    #[error("the persona webhook failed: {0}")]
    Webhook(#[from] WebhookError),
    /// The error does not quote the response, because it may contain users' text.
    #[error("the persona webhook must answer with JSON {{\"content\": …}}")]
    Unreadable,
    #[error("the answer is not a valid message: {0}")]
    Content(#[from] InvalidContent),
    #[error("the answer is not a valid message: {0}")]
    Data(#[from] InvalidData),
    #[error("the data of the answer is longer than MAX_DATA_BYTES")]
    DataTooLong,
    #[error("earlier messages can't be read: {0}")]
    History(#[from] StoreError),
    #[error("the answer can't be stored: {0}")]
    Append(#[from] AppendError),
    #[error("a panic of this program")]
    Panicked,
}

impl NoAnswer {
    /// The label in metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Webhook(_) => "webhook_failed",
            Self::Unreadable | Self::Content(_) | Self::Data(_) | Self::DataTooLong => "bad_answer",
            Self::History(_) | Self::Append(_) => "store_failed",
            Self::Panicked => "panicked",
        }
    }
}

/// The metrics label of a message that was answered.
const ANSWERED: &str = "answered";

/// The request to the webhook.
#[derive(Serialize)]
struct Request<'a> {
    persona_id: &'a UserId,
    conversation_id: &'a ConversationId,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Data>,
    message_id: EntryId,
    seq: Seq,
    sender_id: &'a UserId,
    sender_name: &'a str,
    created_at: Timestamp,
    history: Vec<HistoryMessage<'a>>,
}

/// An earlier message of the conversation.
#[derive(Serialize)]
struct HistoryMessage<'a> {
    id: EntryId,
    seq: Seq,
    sender_id: &'a UserId,
    sender_name: &'a str,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Data>,
    is_ai: bool,
    created_at: Timestamp,
}

impl<'a> HistoryMessage<'a> {
    /// None if the message was deleted.
    fn of(entry: &'a Entry) -> Option<Self> {
        let Body::Message { content, data, is_ai, deleted: false, .. } = &entry.body else { return None };
        let (id, seq, sender_id, sender_name) = (entry.id(), entry.seq, &entry.sender, &*entry.sender_name);
        let (data, is_ai, created_at) = (data.as_ref(), *is_ai, entry.at);
        Some(Self { id, seq, sender_id, sender_name, content, data, is_ai, created_at })
    }
}

/// The response of the webhook.
#[derive(Deserialize)]
struct Response<'a> {
    #[serde(default)]
    content: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// An answer of a persona, checked.
struct Answer {
    content: Content,
    data: Option<Data>,
}

impl Answer {
    /// Checks the response of the webhook; its data may have `data_bytes`.
    fn parse(response: &[u8], data_bytes: usize) -> Result<Self, NoAnswer> {
        let Response { content, data } = serde_json::from_slice(response).map_err(|_| NoAnswer::Unreadable)?;
        let data = Data::given(data)?;
        if data.as_ref().is_some_and(|data| data.bytes() > data_bytes) {
            return Err(NoAnswer::DataTooLong);
        }
        Ok(Self { content: Content::beside(data.as_ref(), &content)?, data })
    }
}

/// Posts questions to the persona webhook, and stores the answers.
pub(super) struct Personas {
    webhook: Arc<Webhook>,
    questions: Queue<Question>,
    /// The messages whose questions wait or are asked, each with the time since when. The queue bounds their number.
    pending: Mutex<HashMap<(LogId, Seq), Instant>>,
    store: Arc<dyn Store>,
    writer: Arc<Writer>,
    router: Arc<Router>,
    metrics: Arc<Metrics>,
    supervisor: Supervisor,
    ids: Arc<[UserId]>,
    /// Maximum length of the data of an answer.
    data_bytes: usize,
}

impl Personas {
    /// Creates the queue. Questions are answered only while [`Personas::run`] runs with it.
    pub(super) fn new(
        (ids, webhook, data_bytes): (Arc<[UserId]>, Arc<Webhook>, usize),
        store: Arc<dyn Store>,
        writer: Arc<Writer>,
        router: Arc<Router>,
        metrics: Arc<Metrics>,
        supervisor: Supervisor,
    ) -> (Arc<Self>, QueueReceiver<Question>) {
        let (questions, queued) = webhook.queue(&supervisor);
        let pending = Mutex::default();
        let personas =
            Self { webhook, questions, pending, store, writer, router, metrics, supervisor, ids, data_bytes };
        (Arc::new(personas), queued)
    }

    /// True if the id is one of the configured personas.
    pub(super) fn has(&self, persona: &UserId) -> bool {
        self.ids.contains(persona)
    }

    /// Enqueues a question for the persona once the send in `begun` is stored. A repeated send asks what is stored.
    pub(super) fn enqueue_after(self: &Arc<Self>, asked: Asked, caller: Caller, begun: Begun) -> Begun {
        let Begun::Pending(answer) = begun else { return begun };
        let (stored, result) = oneshot::channel();
        let personas = self.clone();
        // A separate task, because the socket may close before the commit completes.
        self.supervisor.spawn_job(TaskName::Personas, async move {
            let answer = answer.await;
            if let Ok(CommandReply { reply: Reply::Sent(sent), .. }) = &answer {
                let asked = if sent.duplicate { None } else { Some(asked) };
                let identity = &caller.identity;
                let (sender, sender_name) = (identity.user.clone(), identity.name.clone());
                let connection = caller.connection.clone();
                let question = Question { asked, sent: sent.clone(), sender, sender_name, connection };
                personas.enqueue(question, Instant::now());
            }
            let _gone = stored.send(answer);
        });
        Begun::Pending(async move { result.await.unwrap_or(Err(Reject::Unknown)) }.boxed())
    }

    fn enqueue(&self, question: Question, since: Instant) {
        self.pending().entry(key(&question)).or_insert(since);
        if let Err(question) = self.questions.push(question) {
            self.pending().remove(&key(&question));
            self.report_failure(&question, &NoAnswer::QueueFull);
        }
    }

    /// Asks what a stored message asks, unless its answer is stored or this node asks it already. Waits while the queue is
    /// full. The message was stored after `since`.
    pub(super) async fn ask_again(&self, entry: &Entry, since: Instant) {
        let Body::Message { persona: Some(persona), deleted: false, .. } = &entry.body else { return };
        if !self.has(persona) || self.pending().contains_key(&(entry.log.clone(), entry.seq)) {
            return;
        }
        while !self.questions.has_room() {
            sleep(QUEUE_PAUSE).await;
        }
        let (log, seq, at, client_id) = (entry.log.clone(), entry.seq, entry.at, entry.client_id.clone());
        let sent = Sent { log, recipient: None, seq, at, client_id, duplicate: true };
        let (sender, sender_name) = (entry.sender.clone(), entry.sender_name.clone());
        self.enqueue(Question { asked: None, sent, sender, sender_name, connection: None }, since);
    }

    /// The time since when the oldest question waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.pending().values().min().copied()
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<(LogId, Seq), Instant>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers queued questions, several concurrently, until its task is stopped.
    pub(super) async fn run(&self, questions: &mut QueueReceiver<Question>) {
        let answer = async |question: Question| {
            let answered = self.supervisor.guard(TaskName::Personas, self.answer(&question)).await;
            self.pending().remove(&key(&question));
            match answered.unwrap_or(Err(NoAnswer::Panicked)) {
                Ok(()) => self.metrics.persona_messages.with_label_values(&[ANSWERED]).inc(),
                Err(why) => self.report_failure(&question, &why),
            }
        };
        questions.each(answer).await;
    }

    async fn answer(&self, question: &Question) -> Result<(), NoAnswer> {
        let sent = &question.sent;
        checkpoint(TaskName::Personas, || question.asked.as_ref().map_or("", |asked| &asked.content));
        let Some(conversation) = sent.log.conversation() else { return Ok(()) };
        let Asked { persona, content, data } = &match &question.asked {
            Some(asked) => asked.clone(),
            None => match self.stored_question(question).await? {
                Some(asked) if !self.was_answered(&conversation, &asked.persona, sent).await? => asked,
                _ => return Ok(()),
            },
        };
        let page = MessagesPage { range: HistoryRange::before(sent.seq), page: Page::first(HISTORY), thread: None };
        let mut before = self.store.messages(&conversation, persona, page).await?.messages;
        before.reverse();
        let request = Request {
            persona_id: persona,
            conversation_id: &conversation,
            message: content,
            data: data.as_ref(),
            message_id: sent.id(),
            seq: sent.seq,
            sender_id: &question.sender,
            sender_name: &question.sender_name,
            created_at: sent.at,
            history: before.iter().filter_map(|message| HistoryMessage::of(&message.entry)).collect(),
        };
        let typing = |active| Ephemeral::Typing { user: persona.clone(), name: persona.as_str().into(), active };
        self.router.send_ephemeral(&sent.log, None, [typing(true)]);
        let answer = self.webhook.post(&request).await;
        self.router.send_ephemeral(&sent.log, None, [typing(false)]);
        self.append_answer(persona, sent, Answer::parse(&answer?, self.data_bytes)?).await
    }

    /// The question in the stored message of a repeated send; none if the message names no persona, or was deleted.
    async fn stored_question(&self, Question { sent, sender, .. }: &Question) -> Result<Option<Asked>, StoreError> {
        let stored = self.store.entries(&sent.log, sent.seq - 1, 1).await?;
        Ok(stored.into_iter().next().and_then(|entry| match entry.body {
            Body::Message { content, data, persona: Some(persona), deleted: false, .. }
                if entry.seq == sent.seq && entry.sender == *sender && self.has(&persona) =>
            {
                Some(Asked { persona, content, data })
            }
            _ => None,
        }))
    }

    /// True if the answer to an earlier send of the same message is stored.
    async fn was_answered(
        &self,
        conversation: &ConversationId,
        persona: &UserId,
        sent: &Sent,
    ) -> Result<bool, StoreError> {
        let page = MessagesPage { thread: Some(sent.seq), page: Page::first(HISTORY), ..MessagesPage::default() };
        let replies = self.store.messages(conversation, persona, page).await?.messages;
        let answers = |entry: &Entry| {
            entry.sender == *persona
                && matches!(entry.body, Body::Message { reply_to: Some(seq), is_ai: true, .. } if seq == sent.seq)
        };
        Ok(replies.iter().any(|reply| answers(&reply.entry)))
    }

    /// Appends an answer. Its `dedupe` id stores it once, even if another send asked for the same message.
    async fn append_answer(&self, persona: &UserId, sent: &Sent, answer: Answer) -> Result<(), NoAnswer> {
        let entry = NewEntry {
            log: sent.log.clone(),
            sender: persona.clone(),
            sender_name: persona.as_str().into(),
            dedupe: answer_id(&sent.log, sent.seq),
            client_gave_id: false,
            authority: Authority::System,
            body: Body::Message {
                content: answer.content.into(),
                data: answer.data,
                reply_to: Some(sent.seq),
                is_ai: true,
                persona: None,
                edited_at: None,
                deleted: false,
            },
        };
        let mut backoff = Backoff::new(STORE_PAUSES.0, STORE_PAUSES.1);
        let mut tries = 1;
        loop {
            match self.writer.append(entry.clone(), None).await {
                Err(AppendError::Unavailable | AppendError::Unknown) if tries < STORE_TRIES => {
                    tries += 1;
                    tokio::time::sleep(backoff.pause()).await;
                }
                appended => return Ok(appended.map(drop)?),
            }
        }
    }

    /// Logs and counts a missing answer, and signals it to the sender's socket.
    fn report_failure(&self, Question { asked, sent, connection, .. }: &Question, why: &NoAnswer) {
        self.metrics.persona_messages.with_label_values(&[why.label()]).inc();
        let persona = asked.as_ref().map(|asked| asked.persona.as_str());
        tracing::warn!(persona, log = %sent.log, seq = sent.seq, error = %why, "a persona did not answer");
        if let Some(connection) = connection {
            let client_id = sent.client_id.clone();
            connection.outbox.signal(Signal::Failed { client_id, reject: Reject::PersonaFailed });
        }
    }
}

fn key(question: &Question) -> (LogId, Seq) {
    (question.sent.log.clone(), question.sent.seq)
}

/// The `dedupe` id of the answer to a message.
#[expect(clippy::expect_used, reason = "an entry's id is a UUID, whose characters are valid in a client id")]
fn answer_id(log: &LogId, seq: Seq) -> ClientId {
    ClientId::parse(&format!("answer:{}", EntryId::of(log, seq))).expect("a valid client id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_own_id() {
        let log = LogId::parse("team").unwrap();
        assert_eq!(answer_id(&log, 7), answer_id(&log, 7));
        assert_ne!(answer_id(&log, 7), answer_id(&log, 8));
        assert_ne!(answer_id(&log, 7), answer_id(&LogId::parse("other").unwrap(), 7));
    }
}
