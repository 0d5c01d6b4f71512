//! Every series that a dashboard or an alert asks for exists on a node that nobody has used yet: `rate` misses the event
//! with which a counter first appears, and an alert on an absent series never fires.

use std::{collections::BTreeSet, fs};

use crate::support::{Node, Postgres, RedisServer};

/// Files with queries.
const FILES: [&str; 3] = ["dashboards/on-call.json", "dashboards/capacity.json", "alerts/rules.yaml"];

/// A series in a query: its name, and the labels that must equal a value.
type Asked = (String, Vec<(String, String)>);

/// The series that a text of queries asks for.
fn asked(text: &str) -> BTreeSet<Asked> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("switchboard_") {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '/') {
            continue;
        }
        let rest = &text[at..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let selector =
            rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(selector, _)| selector);
        let label = |part: &str| {
            let (label, value) = part.trim().split_once('=')?;
            let value = value.trim_matches(['"', '\\']);
            let plain = !label.ends_with('!') && !value.starts_with(['~', '$']);
            // Prometheus adds these itself.
            (plain && !["job", "instance", "cluster", "namespace"].contains(&label))
                .then(|| (label.to_owned(), value.to_owned()))
        };
        found.insert((name.to_owned(), selector.split(',').filter_map(label).collect()));
    }
    found
}

#[tokio::test]
async fn every_series_of_dashboards_and_alerts_exists_from_the_start() {
    let asked: BTreeSet<Asked> = FILES.iter().flat_map(|file| asked(&fs::read_to_string(file).unwrap())).collect();
    assert!(asked.len() > 60, "{asked:?}");
    let database = Postgres::shared().await.database().await;
    let redis = RedisServer::start().await;
    let hooks = "http://127.0.0.1:9/";
    let node = Node::serve(&redis.url(), &database)
        .set("PERSONA_WEBHOOK_URL", hooks)
        .set("NOTIFICATION_WEBHOOK_URL", hooks)
        .set("PERSONA_WEBHOOK_SECRET", "a secret of webhooks with 32 characters")
        .set("NOTIFICATION_WEBHOOK_SECRET", "a secret of webhooks with 32 characters")
        .set("PERSONA_IDS", "guide")
        .start()
        .await;
    let text = node.admin_get("/metrics").await.text;
    let shown = |(name, labels): &&Asked| {
        text.lines().any(|line| {
            let series = line.split_once(['{', ' ']).map_or(line, |(series, _)| series);
            series == name && labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
        })
    };
    let absent: Vec<_> = asked.iter().filter(|one| !shown(one)).collect();
    assert!(absent.is_empty(), "{absent:#?}");
}
