//! The bound on answers that clients don't read. An answer stays in memory until the socket has taken it: one that is long
//! counts for its user until then.

use std::{
    collections::{HashMap, hash_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;

use super::problem::{HttpResult, Payload, Problem};
use crate::{metrics::Metrics, model::UserId};

/// Shorter answers don't count: sockets, whose number has a bound, have larger buffers in the kernel.
const MIN_BYTES: usize = 16 * 1_024;

/// Marks the answer to a read of this user.
#[derive(Debug, Clone)]
pub(super) struct AnswerTo(pub(super) UserId);

/// The long answers of this node that wait for their readers.
#[derive(Debug)]
pub(super) struct UnreadAnswers {
    per_user: usize,
    total: usize,
    waiting: Mutex<Waiting>,
    metrics: Arc<Metrics>,
}

/// Bytes that wait: all, and those of each user who has some.
#[derive(Debug, Default)]
struct Waiting {
    all: usize,
    users: HashMap<UserId, usize>,
}

/// An answer that counts until it is dropped.
struct Counted {
    bytes: Bytes,
    user: UserId,
    answers: Arc<UnreadAnswers>,
}

impl UnreadAnswers {
    /// Allows this number of bytes for each user, and for all.
    pub(super) fn new(per_user: usize, total: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { per_user, total, waiting: Mutex::default(), metrics })
    }

    /// Counts a long answer to a read until its socket has taken it, or is closed.
    ///
    /// # Errors
    /// Too much waits for the user, or for all users.
    pub(super) async fn count(self: &Arc<Self>, mut response: Response<Payload>) -> HttpResult {
        let Some(AnswerTo(user)) = response.extensions_mut().remove() else { return Ok(response) };
        let (head, body) = response.into_parts();
        // The body is in memory, so collecting it neither waits nor fails.
        let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let bytes = if bytes.len() < MIN_BYTES { bytes } else { self.add(user, bytes)? };
        Ok(Response::from_parts(head, Payload::new(bytes)))
    }

    fn add(self: &Arc<Self>, user: UserId, bytes: Bytes) -> Result<Bytes, Problem> {
        let mut waiting = self.lock();
        let of_user = waiting.users.get(&user).copied().unwrap_or_default() + bytes.len();
        // A user to whom nothing waits gets an answer of any length.
        let refusal = if of_user > self.per_user.max(bytes.len()) {
            Some(Problem::unread_answers(self.per_user))
        } else {
            (waiting.all + bytes.len() > self.total.max(bytes.len())).then(Problem::too_many_unread_answers)
        };
        if let Some(problem) = refusal {
            self.metrics.unread_answers_refused.inc();
            return Err(problem);
        }
        waiting.all += bytes.len();
        waiting.users.insert(user.clone(), of_user);
        self.metrics.unread_answer_bytes.add(bytes.len() as i64);
        drop(waiting);
        Ok(Bytes::from_owner(Counted { bytes, user, answers: self.clone() }))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let (length, mut waiting) = (self.bytes.len(), self.answers.lock());
        waiting.all -= length;
        if let hash_map::Entry::Occupied(mut of_user) = waiting.users.entry(self.user.clone()) {
            *of_user.get_mut() -= length;
            if *of_user.get() == 0 {
                of_user.remove();
            }
        }
        self.answers.metrics.unread_answer_bytes.sub(length as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(answers: &Arc<UnreadAnswers>, user: &str, length: usize) -> Result<Response<Payload>, u16> {
        let mut response = Response::new(Payload::from(vec![b'x'; length]));
        response.extensions_mut().insert(AnswerTo(UserId::parse(user).unwrap()));
        answers.count(response).await.map_err(|problem| problem.status.as_u16())
    }

    #[tokio::test]
    async fn answers_count_for_their_user_and_in_total_until_they_are_gone() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let answers = UnreadAnswers::new(3 * MIN_BYTES, 5 * MIN_BYTES, metrics.clone());
        let first = read(&answers, "alice", 2 * MIN_BYTES).await.unwrap();
        assert_eq!(read(&answers, "alice", 2 * MIN_BYTES).await.unwrap_err(), 429);
        let _short = read(&answers, "alice", MIN_BYTES - 1).await.unwrap();
        let second = read(&answers, "bob", 2 * MIN_BYTES).await.unwrap();
        assert_eq!(read(&answers, "carol", 2 * MIN_BYTES).await.unwrap_err(), 503);
        assert_eq!(metrics.unread_answer_bytes.get(), 4 * MIN_BYTES as i64);
        assert_eq!(metrics.unread_answers_refused.get(), 2);

        let body = first.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), 2 * MIN_BYTES);
        assert_eq!(read(&answers, "alice", 2 * MIN_BYTES).await.unwrap_err(), 429, "the socket has the bytes still");
        drop(body);
        drop(read(&answers, "alice", 3 * MIN_BYTES).await.unwrap());
        drop(second);
        assert_eq!(metrics.unread_answer_bytes.get(), 0);
        assert!(answers.lock().users.is_empty());
        // One answer of any length passes where nothing waits.
        assert!(read(&answers, "alice", 9 * MIN_BYTES).await.is_ok());
    }

    #[tokio::test]
    async fn answers_to_nobody_do_not_count() {
        let answers = UnreadAnswers::new(1, 1, Arc::new(Metrics::new().unwrap()));
        let page = answers.count(Response::new(Payload::from(vec![0; MIN_BYTES]))).await.unwrap();
        assert_eq!((page.into_body().collect().await.unwrap().to_bytes().len(), answers.lock().all), (MIN_BYTES, 0));
    }
}
