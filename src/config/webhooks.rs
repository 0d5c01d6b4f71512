//! Settings of the webhooks for personas and notifications.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    parse,
    secret::Secret,
    settings::{self as set, Setting},
    source::Reader,
};
use crate::model::UserId;

/// The receiver of a webhook's requests.
#[derive(Debug, Clone)]
pub enum WebhookTarget {
    /// A program of the operator's, at this URL, which may hold credentials.
    Url(Secret),
    /// The persona of `switchboard dev`, inside this program, which answers with what it was told.
    Echo,
}

/// Settings of one webhook.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// The receiver of requests.
    pub target: WebhookTarget,
    /// The secret that signs requests; `None`: they are not signed.
    pub secret: Option<Secret>,
    /// Maximum time for one request, including retries.
    pub timeout: Duration,
    /// Maximum number of retries.
    pub retries: u32,
    /// Maximum number of concurrent requests.
    pub concurrency: usize,
    /// Maximum number of jobs that wait.
    pub queue: usize,
}

/// Settings of personas.
#[derive(Debug, Clone)]
pub struct PersonaConfig {
    /// The ids of the personas; at least one.
    pub ids: Arc<[UserId]>,
    /// The webhook that answers for them.
    pub webhook: WebhookConfig,
}

/// Settings of notifications for members who are away.
#[derive(Debug, Clone)]
pub struct NotificationConfig {
    /// The webhook; `None`: notifications go only to the store and to inboxes.
    pub webhook: Option<WebhookConfig>,
    /// Maximum number of requests to the webhook that wait over all nodes, and of conversations of this node that wait until
    /// their away members are determined (10,000).
    pub queue: usize,
    /// Time after which a request that never succeeded is given up (24 h).
    pub max_age: Duration,
}

/// The settings that describe one webhook.
struct WebhookSettings {
    url: &'static Setting,
    secret: &'static Setting,
    timeout: &'static Setting,
    concurrency: &'static Setting,
    queue: &'static Setting,
}

const PERSONA: WebhookSettings = WebhookSettings {
    url: &set::PERSONA_WEBHOOK_URL,
    secret: &set::PERSONA_WEBHOOK_SECRET,
    timeout: &set::PERSONA_TIMEOUT,
    concurrency: &set::PERSONA_CONCURRENCY,
    queue: &set::PERSONA_QUEUE,
};

const NOTIFICATION: WebhookSettings = WebhookSettings {
    url: &set::NOTIFICATION_WEBHOOK_URL,
    secret: &set::NOTIFICATION_WEBHOOK_SECRET,
    timeout: &set::NOTIFICATION_TIMEOUT,
    concurrency: &set::NOTIFICATION_CONCURRENCY,
    queue: &set::NOTIFICATION_QUEUE,
};

/// Reads the settings of both webhooks.
pub(super) fn read_webhooks(
    reader: &mut Reader<'_>,
    notes: &mut Vec<String>,
) -> (Option<PersonaConfig>, NotificationConfig) {
    let ids = read_persona_ids(reader);
    if reader.given(PERSONA.url) && ids.is_empty() {
        reader.fault(set::PERSONA_IDS.name, "is required with PERSONA_WEBHOOK_URL: the ids of the personas");
    }
    let has_echo = reader.dev && !reader.given(&set::PERSONA_IDS);
    let echo = has_echo.then_some(WebhookTarget::Echo);
    let personas = read_webhook(reader, &PERSONA, echo, notes).map(|webhook| PersonaConfig { ids, webhook });
    let webhook = read_webhook(reader, &NOTIFICATION, None, notes);
    let (queue, max_age) = (reader.number(&set::NOTIFICATION_QUEUE), reader.duration(&set::NOTIFICATION_MAX_AGE));
    (personas, NotificationConfig { webhook, queue, max_age })
}

/// Reads the ids of the personas. They are reserved with and without a webhook.
pub(super) fn read_persona_ids(reader: &mut Reader<'_>) -> Arc<[UserId]> {
    reader.read(&set::PERSONA_IDS, persona_ids).unwrap_or_default().into()
}

fn persona_ids(text: &str) -> Result<Vec<UserId>, String> {
    parse::items(text).map(|id| UserId::parse(id).map_err(|error| error.to_string())).collect()
}

/// Reads the settings of a webhook. Without a URL it has the receiver `otherwise`, if there is one.
fn read_webhook(
    reader: &mut Reader<'_>,
    settings: &WebhookSettings,
    otherwise: Option<WebhookTarget>,
    notes: &mut Vec<String>,
) -> Option<WebhookConfig> {
    let url = reader.read(settings.url, webhook_url);
    let secret = reader.text(settings.secret).map(Secret::new);
    // Read all settings even without a URL, so that bad values are reported.
    let timeout = reader.duration(settings.timeout);
    let retries = reader.number(&set::WEBHOOK_RETRIES);
    let concurrency = reader.number(settings.concurrency);
    let queue = reader.number(settings.queue);
    let target = url.map(WebhookTarget::Url).or(otherwise)?;
    if secret.is_none() && matches!(target, WebhookTarget::Url(_)) {
        let (url, secret) = (settings.url.name, settings.secret.name);
        notes
            .push(format!("{url} is set without {secret}: requests are not signed, so the receiver can't verify them"));
    }
    Some(WebhookConfig { target, secret, timeout, retries, concurrency, queue })
}

/// Parses a URL to which messages may be sent: https, or http where no third party is on the way.
fn webhook_url(text: &str) -> Result<Secret, String> {
    let text = parse::url(text, &["https", "http"])?;
    let url = reqwest::Url::parse(&text).map_err(|_| "must be a URL")?;
    if url.scheme() == "https" || url.host_str().is_some_and(is_local_or_private) {
        Ok(Secret::new(text))
    } else {
        Err("must be https; http is allowed only to localhost, loopback and private addresses".to_owned())
    }
}

/// True if a URL's host is this machine, or an address of a private network.
fn is_local_or_private(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address.map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_stays_on_this_machine_or_in_private_networks() {
        let allowed = [
            "https://ai.example.com/hook?key=1",
            "https://user:password@ai.example.com",
            "http://localhost:9000/hook",
            "http://ai.localhost",
            "http://127.1.2.3",
            "http://0x7f.1",
            "http://10.1.2.3",
            "http://172.31.0.1:80",
            "http://192.168.1.1",
            "http://[::1]:9000",
            "http://[fd00::1]",
            "http://[::ffff:10.0.0.1]",
        ];
        for url in allowed {
            assert_eq!(webhook_url(url).unwrap().reveal(), url);
        }
        let refused = [
            "http://ai.example.com",
            "http://ai",
            "http://localhost.example.com",
            "http://8.8.8.8",
            "http://172.32.0.1",
            "http://169.254.169.254",
            "http://[2001:db8::1]",
            "http://[fe80::1]",
            "http://[::ffff:8.8.8.8]",
            "http://127.0.0.1.example.com",
            "ftp://10.0.0.1",
            "10.0.0.1",
            "https://",
        ];
        for url in refused {
            assert!(webhook_url(url).is_err(), "{url}");
        }
    }
}
