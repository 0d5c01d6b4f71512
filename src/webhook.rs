//! Webhooks: signed JSON posted to a URL of the operator's, with bounded time, tries, answers and concurrency.
//!
//! What is posted, and what is made of the answer, is `chat`'s business. URLs (which may hold credentials) and secrets
//! never reach a log. A request may arrive more than once: a try whose answer was lost is repeated.

use std::{error::Error, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use bytes::Bytes;
use reqwest::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
    redirect::Policy,
};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    config::{Config, WebhookConfig},
    metrics::Metrics,
};

mod backoff;
mod hook;
mod queue;

pub use backoff::Backoff;
pub use hook::Hook;
pub use queue::{Queue, Queued};

/// The header that says who asks.
const SIGNATURE: &str = "x-switchboard-signature";
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes: the longest message, each character escaped, and as much again.
const MAX_ANSWER: usize = 128 * 1_024;
/// Between the first try and the second one, and at most between two.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Why a webhook gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It can't be reached, or the connection broke.
    #[error("it can't be reached: {0}")]
    Unreachable(String),
    /// It answered that it did not do it.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// It answered too much.
    #[error("its answer is larger than {MAX_ANSWER} bytes")]
    TooLarge,
    /// It took too long.
    #[error("it took too long")]
    Timeout,
    /// What was to be said can't be written as JSON: a fault of this program.
    #[error("the request can't be written: {0}")]
    Unwritable(serde_json::Error),
}

impl Failure {
    /// The label in metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Status(status) if is_passing(*status) => "unavailable",
            Self::Status(_) => "refused",
            Self::TooLarge => "too_large",
            Self::Timeout => "timeout",
            Self::Unwritable(_) => "unwritable",
        }
    }

    /// Whether another try may succeed.
    fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Status(status) => is_passing(*status),
            Self::TooLarge | Self::Timeout | Self::Unwritable(_) => false,
        }
    }
}

fn is_passing(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// The webhooks of a node.
#[derive(Default)]
pub struct Webhooks {
    /// Where personas answer.
    pub persona: Option<Webhook>,
    /// Where notifications go.
    pub notification: Option<Webhook>,
}

impl Webhooks {
    /// Makes those that are configured ready; nothing is sent yet.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub fn new(config: &Config, metrics: &Arc<Metrics>) -> reqwest::Result<Self> {
        let webhook = |hook, settings: &Option<WebhookConfig>| {
            settings.as_ref().map(|settings| Webhook::new(hook, settings.clone(), metrics.clone())).transpose()
        };
        Ok(Self {
            persona: webhook(Hook::Persona, &config.personas)?,
            notification: webhook(Hook::Notification, &config.notifications.webhook)?,
        })
    }
}

/// One webhook.
pub struct Webhook {
    hook: Hook,
    settings: WebhookConfig,
    key: Option<hmac::Key>,
    client: reqwest::Client,
    metrics: Arc<Metrics>,
}

impl Webhook {
    /// A webhook with these settings.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub fn new(hook: Hook, settings: WebhookConfig, metrics: Arc<Metrics>) -> reqwest::Result<Self> {
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(Policy::none())
            .user_agent(concat!("switchboard/", env!("CARGO_PKG_VERSION")))
            .pool_max_idle_per_host(settings.concurrency);
        if settings.url.reveal().starts_with("http:") {
            // It was allowed since nobody is in between: a proxy would be.
            client = client.no_proxy();
        }
        let key = settings.secret.as_ref().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes()));
        Ok(Self { hook, settings, key, client: client.build()?, metrics })
    }

    /// A queue for what is to be posted: as long, and worked off by as many, as the settings say.
    pub fn queue<J>(&self) -> (Queue<J>, Queued<J>) {
        let WebhookConfig { queue, concurrency, .. } = self.settings;
        queue::queue(queue, concurrency, self.hook, &self.metrics)
    }

    /// Posts something as JSON, with retries, and returns the body of the answer.
    ///
    /// # Errors
    /// There was none in time.
    pub async fn post(&self, what: &impl Serialize) -> Result<Bytes, Failure> {
        let body = Bytes::from(serde_json::to_vec(what).map_err(Failure::Unwritable)?);
        let Ok(answer) = timeout(self.settings.timeout, self.persist(body)).await else {
            self.count(Failure::Timeout.label());
            return Err(Failure::Timeout);
        };
        answer
    }

    /// Tries until there is an answer, or no further try is left or would come in time.
    async fn persist(&self, body: Bytes) -> Result<Bytes, Failure> {
        let begun = Instant::now();
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        let mut retries = self.settings.retries;
        loop {
            let (failure, wished) = match self.try_once(body.clone()).await {
                Ok(answer) => {
                    self.count("ok");
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            self.count(failure.label());
            let pause = wished.unwrap_or_default().max(backoff.pause());
            if !failure.is_passing() || retries == 0 || begun.elapsed() + pause >= self.settings.timeout {
                return Err(failure);
            }
            retries -= 1;
            tracing::debug!(hook = self.hook.label(), error = %failure, ?pause, "a webhook is tried again");
            sleep(pause).await;
        }
    }

    /// One request. With a failure comes the pause that the other side wishes for.
    async fn try_once(&self, body: Bytes) -> Result<Bytes, (Failure, Option<Duration>)> {
        let unreachable = |error: reqwest::Error| (Failure::Unreachable(causes(error)), None);
        let _timer = self.metrics.webhook_seconds.with_label_values(&[self.hook.label()]).start_timer();
        let mut request = self.client.post(self.settings.url.reveal()).header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(SIGNATURE, signature(key, jiff::Timestamp::now().as_second(), &body));
        }
        let mut answer = request.body(body).send().await.map_err(unreachable)?;
        if !answer.status().is_success() {
            return Err((Failure::Status(answer.status()), retry_after(answer.headers())));
        }
        let mut read = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if read.len() + chunk.len() > MAX_ANSWER {
                return Err((Failure::TooLarge, None));
            }
            read.extend_from_slice(&chunk);
        }
        Ok(read.into())
    }

    fn count(&self, result: &str) {
        self.metrics.webhook_requests.with_label_values(&[self.hook.label(), result]).inc();
    }
}

/// What an error says, and what lies behind it; never the URL.
fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let behind = std::iter::successors(error.source(), |error| (*error).source());
    behind.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The value of the signature header: the time, and the HMAC-SHA256 of time and body, so that neither can be changed
/// nor an old request be sent again much later.
fn signature(key: &hmac::Key, seconds: i64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(format!("{seconds}.").as_bytes());
    context.update(body);
    let hex = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("t={seconds},v1={hex}")
}

/// The pause that an answer asks for, in seconds or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(at.duration_since(jiff::Timestamp::now()).try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use reqwest::header::HeaderValue;

    use super::*;
    use crate::config::Secret;

    #[tokio::test]
    async fn what_can_t_be_reached_is_tried_again_and_says_why_but_not_where() {
        // Nobody listens there once the listener is gone.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = WebhookConfig {
            url: Secret::new(format!("http://user:planted@{address}/planted")),
            secret: None,
            timeout: Duration::from_secs(30),
            retries: 1,
            concurrency: 1,
            queue: 1,
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        let webhook = Webhook::new(Hook::Persona, settings, metrics.clone()).unwrap();
        let failure = webhook.post(&"hello").await.unwrap_err().to_string();
        assert!(failure.contains("refused") && !failure.contains("planted"), "{failure}");
        assert_eq!(metrics.webhook_requests.with_label_values(&["persona", "unreachable"]).get(), 2);
    }

    #[test]
    fn a_signature_is_over_time_and_body() {
        // From: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let expected = "t=1700000000,v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";
        assert_eq!(signature(&key, 1_700_000_000, br#"{"a":1}"#), expected);
        assert_ne!(signature(&key, 1_700_000_001, br#"{"a":1}"#), expected);
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_as_a_date() {
        let asked =
            |value: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value.parse::<HeaderValue>().unwrap())]));
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO), "it is over");
        let far = asked("Wed, 21 Oct 2122 07:28:00 GMT").unwrap();
        assert!(far > Duration::from_secs(86_400), "{far:?}");
        assert_eq!((asked("soon"), asked("-1"), retry_after(&HeaderMap::new())), (None, None, None));
    }
}
