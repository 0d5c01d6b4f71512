//! Every series that a dashboard or an alert asks for exists on a node that nobody has used yet: `rate` misses the event
//! with which a counter first appears, and an alert on an absent series never fires.

use std::{collections::BTreeSet, fs};

use crate::support::{Node, Postgres, RedisServer};

/// Files with queries.
const FILES: [&str; 3] = ["dashboards/on-call.json", "dashboards/capacity.json", "alerts/rules.yaml"];

/// A series of each master of a Redis Cluster, which no other node has. Its query says what holds without it.
const OF_MASTERS: &str = "switchboard_redis_master_up";

/// A series in a query: its name, and the labels that must equal a value. A query that names alternatives of a label asks for a
/// series with each of them.
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
        let mut series = vec![Vec::new()];
        for (label, values) in selector.split(',').filter_map(label) {
            let with = |labels: &Vec<_>| {
                let each = values.split('|').map(|value| (label.to_owned(), value.to_owned()));
                each.map(|one| labels.iter().cloned().chain([one]).collect()).collect::<Vec<_>>()
            };
            series = series.iter().flat_map(with).collect();
        }
        found.extend(series.into_iter().map(|labels| (name.to_owned(), labels)));
    }
    found
}

/// A label of a selector, and its values with `|` between them; `None` if the selector excludes values, leaves them open, or
/// names a label that Prometheus adds.
fn label(part: &str) -> Option<(&str, &str)> {
    let (label, value) = part.trim().split_once('=')?;
    let value = value.trim_start_matches('~').trim_matches(['"', '\\']);
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let named = !label.ends_with('!') && value.split('|').all(|value| !value.is_empty() && value.chars().all(is_word));
    (named && !["job", "instance", "cluster", "namespace"].contains(&label)).then_some((label, value))
}

#[test]
fn alternatives_of_a_label_are_series_of_their_own() {
    let series = |labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
        ("switchboard_a_total".to_owned(), labels.collect())
    };
    let text = r#"rate(switchboard_a_total{kind="x", reason=~"b|c_d", job=~"$job", other!~"e|f", open=~".+"}[5m])"#;
    let both = [series(&[("kind", "x"), ("reason", "b")]), series(&[("kind", "x"), ("reason", "c_d")])];
    assert_eq!(asked(text), both.into());
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
    let asked = asked.into_iter().filter(|(name, _)| name != OF_MASTERS).collect();
    let absent = absent(&node, &asked).await;
    assert!(absent.is_empty(), "{absent:#?}");
}

#[tokio::test]
async fn they_also_exist_while_a_node_waits_for_its_store() {
    let redis = RedisServer::start().await;
    let node = Node::serve(&redis.url(), "postgres://postgres@127.0.0.1:1/none").start_without_store().await;
    let files = FILES.iter().map(|file| fs::read_to_string(file).unwrap());
    let asked: BTreeSet<Asked> = files.flat_map(|text| asked(&text)).filter(|(name, _)| is_of_store(name)).collect();
    assert!(asked.iter().any(|(name, _)| name == "switchboard_store_pool_wait_seconds_bucket"), "{asked:?}");
    let absent = absent(&node, &asked).await;
    assert!(absent.is_empty(), "{absent:#?}");
}

fn is_of_store(name: &str) -> bool {
    name.starts_with("switchboard_store_")
}

/// Those of the series that a node does not have.
async fn absent<'a>(node: &Node, asked: &'a BTreeSet<Asked>) -> Vec<&'a Asked> {
    let text = node.admin_get("/metrics").await.text;
    let shown = |(name, labels): &&Asked| {
        text.lines().any(|line| {
            let series = line.split_once(['{', ' ']).map_or(line, |(series, _)| series);
            series == name && labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
        })
    };
    asked.iter().filter(|one| !shown(one)).collect()
}
