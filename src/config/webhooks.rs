//! Webhooks: where personas answer, and where notifications go.

use std::{net::IpAddr, time::Duration};

use super::{
    parse,
    secret::Secret,
    settings::{self as set, Setting},
    source::Reader,
};

/// A webhook: where it is, and how it is asked.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// Where requests go; may hold credentials.
    pub url: Secret,
    /// What they are signed with.
    pub secret: Option<Secret>,
    /// How long one may take, retries included.
    pub timeout: Duration,
    /// Further tries after one that failed.
    pub retries: u32,
    /// How many run at a time.
    pub concurrency: usize,
    /// How many may wait.
    pub queue: usize,
}

/// How members who are away hear of messages.
#[derive(Debug, Clone)]
pub struct NotificationConfig {
    /// Where notifications go; none: into the store and to inboxes alone.
    pub webhook: Option<WebhookConfig>,
    /// Conversations that may wait until their away members are noted (10,000).
    pub queue: usize,
}

/// The settings of one webhook.
struct Names {
    url: &'static Setting,
    secret: &'static Setting,
    timeout: &'static Setting,
    concurrency: &'static Setting,
    queue: &'static Setting,
}

const PERSONA: Names = Names {
    url: &set::PERSONA_WEBHOOK_URL,
    secret: &set::PERSONA_WEBHOOK_SECRET,
    timeout: &set::PERSONA_TIMEOUT,
    concurrency: &set::PERSONA_CONCURRENCY,
    queue: &set::PERSONA_QUEUE,
};

const NOTIFICATION: Names = Names {
    url: &set::NOTIFICATION_WEBHOOK_URL,
    secret: &set::NOTIFICATION_WEBHOOK_SECRET,
    timeout: &set::NOTIFICATION_TIMEOUT,
    concurrency: &set::NOTIFICATION_CONCURRENCY,
    queue: &set::NOTIFICATION_QUEUE,
};

/// Where personas answer, and how notifications go.
pub(super) fn read_webhooks(
    reader: &mut Reader<'_>,
    notes: &mut Vec<String>,
) -> (Option<WebhookConfig>, NotificationConfig) {
    let personas = read_webhook(reader, &PERSONA, notes);
    let webhook = read_webhook(reader, &NOTIFICATION, notes);
    (personas, NotificationConfig { webhook, queue: reader.number(&set::NOTIFICATION_QUEUE) })
}

fn read_webhook(reader: &mut Reader<'_>, names: &Names, notes: &mut Vec<String>) -> Option<WebhookConfig> {
    let url = reader.read(names.url, webhook_url);
    let secret = reader.text(names.secret).map(Secret::new);
    // All are read, also where there is no URL: what is bad must be said.
    let timeout = reader.duration(names.timeout);
    let retries = reader.number(&set::WEBHOOK_RETRIES);
    let concurrency = reader.number(names.concurrency);
    let queue = reader.number(names.queue);
    let url = url?;
    if secret.is_none() {
        let (url, secret) = (names.url.name, names.secret.name);
        notes.push(format!("{url} is set without {secret}: whoever is asked can't tell that it is us who ask"));
    }
    Some(WebhookConfig { url, secret, timeout, retries, concurrency, queue })
}

/// A URL that what people write may be sent to: https, or http where nobody is in between.
fn webhook_url(text: &str) -> Result<Secret, String> {
    let text = parse::url(text, &["https", "http"])?;
    let url = reqwest::Url::parse(&text).map_err(|_| "must be a URL")?;
    if url.scheme() == "https" || url.host_str().is_some_and(is_near) {
        Ok(Secret::new(text))
    } else {
        Err("must be https; http is for localhost, loopback and private addresses alone".to_owned())
    }
}

/// Whether a URL's host is this machine, or an address of a private network.
fn is_near(host: &str) -> bool {
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
        let near = [
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
        for url in near {
            assert_eq!(webhook_url(url).unwrap().reveal(), url);
        }
        let far = [
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
        for url in far {
            assert!(webhook_url(url).is_err(), "{url}");
        }
    }
}
