//! Webhooks: signed JSON posted to a URL of the operator's, with bounded time, retries, answer size and concurrency.
//!
//! `chat` builds the requests and interprets the answers. URLs (which may hold credentials) and secrets never reach a
//! log. A request may arrive more than once, since a try whose answer was lost is repeated.

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
    config::{Config, WebhookConfig, WebhookTarget},
    metrics::Metrics,
    supervise::Supervisor,
};

mod backoff;
mod deliveries;
mod echo;
mod hook;
mod queue;

pub use backoff::Backoff;
pub use deliveries::{Deliveries, Delivery};
pub use hook::Hook;
pub use queue::{Queue, QueueReceiver};

/// The header with the signature of the request.
const SIGNATURE: &str = "x-switchboard-signature";
/// Maximum time for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum length of an answer, in bytes: the longest message with each character escaped, and as much again.
const MAX_ANSWER: usize = 128 * 1_024;
/// Longest pause that an answer's Retry-After can ask for. Longer values count as this: they come from outside, and a
/// time that is added to another must not overflow.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// Pause between the first and the second try, and the longest pause between two tries.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Why a request to a webhook failed.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The webhook can't be reached, or the connection broke.
    #[error("the webhook can't be reached: {0}")]
    Unreachable(String),
    /// The webhook answered with an error status.
    #[error("the webhook answered {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The pause that the answer asks for.
        retry_after: Option<Duration>,
    },
    /// The answer is too large.
    #[error("the webhook's answer is larger than {MAX_ANSWER} bytes")]
    TooLarge,
    /// No answer in time.
    #[error("the webhook did not answer in time")]
    Timeout,
    /// The request can't be written as JSON: a fault of this program.
    #[error("the request can't be written as JSON: {0}")]
    Unwritable(serde_json::Error),
}

impl WebhookError {
    /// The label in metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Status { status, .. } if is_transient(*status) => "unavailable",
            Self::Status { .. } => "refused",
            Self::TooLarge => "too_large",
            Self::Timeout => "timeout",
            Self::Unwritable(_) => "unwritable",
        }
    }

    /// True if another try may succeed.
    fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Status { status, .. } => is_transient(*status),
            Self::TooLarge | Self::Timeout | Self::Unwritable(_) => false,
        }
    }

    /// True if the same request may succeed after some time.
    pub fn may_pass(&self) -> bool {
        self.is_transient() || matches!(self, Self::Timeout)
    }

    /// The pause that the answer asks for, if any.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Unreachable(_) | Self::TooLarge | Self::Timeout | Self::Unwritable(_) => None,
        }
    }
}

fn is_transient(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// The webhooks of a node.
#[derive(Clone, Default)]
pub struct Webhooks {
    /// The webhook for personas.
    pub persona: Option<Arc<Webhook>>,
    /// The webhook for notifications.
    pub notification: Option<Arc<Webhook>>,
}

impl Webhooks {
    /// Makes the configured webhooks; sends nothing yet.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub fn new(config: &Config, metrics: &Arc<Metrics>, deliveries: &Arc<Deliveries>) -> reqwest::Result<Self> {
        let webhook = |hook, settings: Option<&WebhookConfig>| {
            let make = |settings: &WebhookConfig| {
                Webhook::new(hook, settings.clone(), (metrics.clone(), deliveries.clone())).map(Arc::new)
            };
            settings.map(make).transpose()
        };
        Ok(Self {
            persona: webhook(Hook::Persona, config.personas.as_ref().map(|personas| &personas.webhook))?,
            notification: webhook(Hook::Notification, config.notifications.webhook.as_ref())?,
        })
    }

    /// The webhook of this purpose, if it is configured.
    pub fn of(&self, hook: Hook) -> Option<&Arc<Webhook>> {
        match hook {
            Hook::Persona => self.persona.as_ref(),
            Hook::Notification => self.notification.as_ref(),
        }
    }
}

/// One webhook.
pub struct Webhook {
    hook: Hook,
    settings: WebhookConfig,
    key: Option<hmac::Key>,
    client: reqwest::Client,
    metrics: Arc<Metrics>,
    deliveries: Arc<Deliveries>,
}

impl Webhook {
    /// A webhook with these settings.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub fn new(
        hook: Hook,
        settings: WebhookConfig,
        (metrics, deliveries): (Arc<Metrics>, Arc<Deliveries>),
    ) -> reqwest::Result<Self> {
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(Policy::none())
            .user_agent(concat!("switchboard/", env!("CARGO_PKG_VERSION")))
            .pool_max_idle_per_host(settings.concurrency);
        if matches!(&settings.target, WebhookTarget::Url(url) if url.reveal().starts_with("http:")) {
            // http is allowed only where no third party is on the way (see `webhook_url`); a proxy would be one.
            client = client.no_proxy();
        }
        let key = settings.secret.as_ref().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes()));
        Ok(Self { hook, settings, key, client: client.build()?, metrics, deliveries })
    }

    /// The settings of this webhook.
    pub fn settings(&self) -> &WebhookConfig {
        &self.settings
    }

    /// A queue for jobs of this webhook, with the length and concurrency of the settings.
    pub fn queue<J>(&self, supervisor: &Supervisor) -> (Queue<J>, QueueReceiver<J>) {
        let WebhookConfig { queue, concurrency, .. } = self.settings;
        queue::queue(queue, concurrency, self.hook, &self.metrics, supervisor)
    }

    /// Posts `payload` as JSON, with retries, and returns the body of the answer.
    ///
    /// # Errors
    /// No try succeeded in time.
    pub async fn post(&self, payload: &impl Serialize) -> Result<Bytes, WebhookError> {
        let body = Bytes::from(serde_json::to_vec(payload).map_err(WebhookError::Unwritable)?);
        let (started, mut tries) = (Instant::now(), 0);
        let answer = timeout(self.settings.timeout, self.post_with_retries(body.clone(), &mut tries)).await;
        let answer = answer.unwrap_or_else(|_| {
            self.count(WebhookError::Timeout.label());
            Err(WebhookError::Timeout)
        });
        self.record(&answer, (started, tries), None, body);
        answer
    }

    /// Posts the body of an earlier request again, once, within `most`. Returns the number of the new request, and its
    /// outcome; nobody acts on the answer.
    pub async fn repeat(&self, number: u64, body: Bytes, most: Duration) -> (u64, Result<Bytes, WebhookError>) {
        let started = Instant::now();
        let answer = timeout(most.min(self.settings.timeout), self.try_once(body.clone())).await;
        let answer = answer.unwrap_or(Err(WebhookError::Timeout));
        self.count(answer.as_ref().map_or_else(WebhookError::label, |_| "ok"));
        (self.record(&answer, (started, 1), Some(number), body), answer)
    }

    fn record(
        &self,
        answer: &Result<Bytes, WebhookError>,
        (started, tries): (Instant, u32),
        repeats: Option<u64>,
        body: Bytes,
    ) -> u64 {
        let failure = answer.as_ref().err().map(|error| (error.label(), error.to_string()));
        let (hook, took) = (self.hook, started.elapsed());
        self.deliveries.record(deliveries::Ended { hook, failure, tries, took, repeats, body })
    }

    /// Tries until there is an answer, no retry is left, or the next try would be too late. Counts the tries.
    async fn post_with_retries(&self, body: Bytes, tries: &mut u32) -> Result<Bytes, WebhookError> {
        let started = Instant::now();
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut retries = self.settings.retries;
        loop {
            *tries += 1;
            let failure = match self.try_once(body.clone()).await {
                Ok(answer) => {
                    self.count("ok");
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            self.count(failure.label());
            let pause = failure.retry_after().unwrap_or_default().max(backoff.pause());
            if !failure.is_transient()
                || retries == 0
                || started.elapsed().saturating_add(pause) >= self.settings.timeout
            {
                return Err(failure);
            }
            retries -= 1;
            tracing::debug!(hook = self.hook.label(), error = %failure, ?pause, "retrying a webhook request");
            sleep(pause).await;
        }
    }

    /// Sends one request.
    async fn try_once(&self, body: Bytes) -> Result<Bytes, WebhookError> {
        let unreachable = |error: reqwest::Error| WebhookError::Unreachable(error_chain(error));
        let _timer = self.metrics.webhook_seconds.with_label_values(&[self.hook.label()]).start_timer();
        let url = match &self.settings.target {
            WebhookTarget::Url(url) => url,
            WebhookTarget::Echo => return Ok(echo::answer(&body).await),
        };
        let mut request = self.client.post(url.reveal()).header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(SIGNATURE, signature(key, jiff::Timestamp::now().as_second(), &body));
        }
        let mut answer = request.body(body).send().await.map_err(unreachable)?;
        if !answer.status().is_success() {
            let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
            return Err(WebhookError::Status { status, retry_after });
        }
        let mut read = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if read.len() + chunk.len() > MAX_ANSWER {
                return Err(WebhookError::TooLarge);
            }
            read.extend_from_slice(&chunk);
        }
        Ok(read.into())
    }

    fn count(&self, result: &str) {
        self.metrics.webhook_requests.with_label_values(&[self.hook.label(), result]).inc();
    }
}

/// An error's text and those of its sources, without the URL.
fn error_chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let sources = std::iter::successors(error.source(), |error| (*error).source());
    sources.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The value of the signature header: the time, and the HMAC-SHA256 of time and body. It detects a changed time or
/// body, and lets the receiver reject an old request that is sent again.
fn signature(key: &hmac::Key, seconds: i64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(format!("{seconds}.").as_bytes());
    context.update(body);
    let hex = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("t={seconds},v1={hex}")
}

/// The pause in an answer's Retry-After, given in seconds or as a date; at most [`RETRY_AFTER_MAX`].
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number of seconds that doesn't fit is a long pause too.
        text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs)
    } else {
        let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        at.duration_since(jiff::Timestamp::now()).try_into().unwrap_or_default()
    };
    Some(pause.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use reqwest::header::HeaderValue;

    use super::*;
    use crate::config::Secret;

    #[tokio::test]
    async fn an_unreachable_webhook_is_retried_and_its_url_not_shown() {
        // No one listens on this port after the listener is dropped.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = WebhookConfig {
            target: WebhookTarget::Url(Secret::new(format!("http://user:planted@{address}/planted"))),
            secret: None,
            timeout: Duration::from_secs(30),
            retries: 1,
            concurrency: 1,
            queue: 1,
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        let deliveries = Deliveries::new(5, metrics.clone());
        let webhook = Webhook::new(Hook::Persona, settings, (metrics.clone(), deliveries.clone())).unwrap();
        let failure = webhook.post(&"hello").await.unwrap_err().to_string();
        assert!(failure.contains("refused") && !failure.contains("planted"), "{failure}");
        assert_eq!(metrics.webhook_requests.with_label_values(&["persona", "unreachable"]).get(), 2);
        let kept = deliveries.get(1).unwrap();
        assert_eq!((kept.result, kept.tries, kept.body.as_deref()), ("unreachable", 2, Some(&b"\"hello\""[..])));
        let (again, answer) = webhook.repeat(1, kept.body.unwrap(), Duration::from_secs(30)).await;
        assert!(answer.is_err() && deliveries.get(again).unwrap().repeats == Some(1));
        assert!(!format!("{deliveries:?}").contains("planted"));
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
    fn retry_after_is_read_in_seconds_or_as_a_date() {
        let asked =
            |value: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value.parse::<HeaderValue>().unwrap())]));
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO), "it is over");
        for far in [
            "3601",
            "18446744073709551615",
            "18446744073709551616",
            &"9".repeat(300),
            "Wed, 21 Oct 2122 07:28:00 GMT",
            "Wed, 29 Dec 9999 23:59:59 GMT",
        ] {
            assert_eq!(asked(far), Some(RETRY_AFTER_MAX), "{far}");
        }
        assert_eq!((asked("soon"), asked("-1"), retry_after(&HeaderMap::new())), (None, None, None));
        assert_eq!((asked(""), asked("1.5"), asked("Sun, 31 Dec 99999 23:59:59 GMT")), (None, None, None));
    }
}
