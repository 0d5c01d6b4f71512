//! Every query of the dashboards is asked of a real Prometheus that scrapes two nodes with people on them, and has to
//! return data; and the alerts are at rest there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on must panic")]

mod support;

use std::{fs, time::Duration};

use serde_json::{Value, json};
use support::{Client, Node, Postgres, Prometheus, RedisServer, eventually, token};
use tokio::time::interval;

/// What Grafana would put in place of its variables. The interval holds several scrapes.
const VARIABLES: [(&str, &str); 4] =
    [("$__rate_interval", "6s"), ("$job", ".*"), ("$instance", ".*"), ("${datasource}", "prometheus")];

/// The title and the queries of each panel, those of folded rows among them.
fn panels(board: &Value) -> Vec<(String, Vec<String>)> {
    let rows = board["panels"].as_array().unwrap().iter();
    let every = rows.flat_map(|panel| {
        let folded = panel["panels"].as_array().cloned().unwrap_or_default();
        std::iter::once(panel.clone()).chain(folded)
    });
    let every = every.filter(|panel| panel["type"] != "row");
    every
        .map(|panel| {
            let queries = panel["targets"].as_array().unwrap().iter();
            let queries = queries.map(|target| target["expr"].as_str().unwrap().to_owned());
            (panel["title"].as_str().unwrap().to_owned(), queries.collect())
        })
        .collect()
}

fn filled(query: &str) -> String {
    VARIABLES.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value))
}

/// People who chat, come and go on both nodes, for as long as this is polled.
async fn bustle(one: &Node, two: &Node) {
    let mut alice = Client::native(one, "alice").await;
    let mut bob = Client::native(two, "bob").await;
    for client in [&mut alice, &mut bob] {
        client.join("team").await;
    }
    let mut ticks = interval(Duration::from_millis(50));
    for turn in 0_u64.. {
        ticks.tick().await;
        alice.say("team", "hello").await;
        bob.until("message").await;
        if turn % 5 == 0 {
            let mut late = Client::native(two, "late").await;
            late.send(&json!({"type": "join", "conversation_id": "team", "since_seq": turn, "ref": 1})).await;
            late.until("joined").await;
            late.close().await;
        }
    }
}

#[tokio::test]
async fn every_panel_has_data_and_no_alert_fires() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = Node::serve(&redis.url(), &database).start().await;
    let two = Node::serve(&redis.url(), &database).start().await;
    let prometheus = Prometheus::start(&[&one, &two]).await;
    tokio::select! {
        () = bustle(&one, &two) => unreachable!("it goes on"),
        () = look(&prometheus) => {}
    }
}

async fn look(prometheus: &Prometheus) {
    for name in ["on-call", "capacity"] {
        let board = fs::read_to_string(format!("dashboards/{name}.json")).unwrap();
        let board: Value = serde_json::from_str(&board).unwrap();
        for (title, queries) in panels(&board) {
            for query in queries.iter().map(|query| filled(query)) {
                assert!(!query.contains('$'), "{title}: {query}");
                let has_data = || async {
                    let series = prometheus.query(&query).await;
                    (!series.is_empty() && series.iter().any(|(_, value)| value.is_finite())).then_some(())
                };
                eventually(&format!("data for {name}, {title}: {query}"), has_data).await;
            }
        }
        for variable in board["templating"]["list"].as_array().unwrap().iter().skip(1) {
            let wanted = filled(variable["query"]["query"].as_str().unwrap());
            let (series, label) =
                wanted.trim_start_matches("label_values(").trim_end_matches(')').rsplit_once(", ").unwrap();
            let values = prometheus.ask(&format!("label/{label}/values"), &[("match[]", series)]).await;
            assert!(!values.as_array().unwrap().is_empty(), "{wanted}");
        }
    }
    let evaluated = || async {
        let groups = prometheus.ask("rules", &[]).await;
        let rules: Vec<Value> =
            groups["groups"].as_array()?.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect();
        rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules)
    };
    let rules = eventually("all alerts to be evaluated", evaluated).await;
    assert!(rules.len() > 10);
    for rule in rules {
        assert_eq!((&rule["health"], &rule["state"]), (&json!("ok"), &json!("inactive")), "{rule}");
    }
    let seen = prometheus.query("count(up == 1)").await;
    assert_eq!(seen.first().map(|(_, value)| *value), Some(2.0), "both nodes were scraped");
}

/// A node has few series, whatever happens on it: labels are enums.
#[tokio::test]
async fn a_busy_node_has_few_series() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&redis.url(), &database).start().await;
    for at in 0..20 {
        let mut client = Client::rooms(&node, &format!("room{at}"), &format!("user{at}")).await;
        client.send(&json!({"type": "send_message", "data": {"content": "hello"}})).await;
        client.until("message_sent").await;
        assert_eq!(node.get(&format!("/nowhere/{at}"), &token("alice")).await.status, 404);
    }
    let metrics = node.metrics().await.0;
    let series = metrics.lines().filter(|line| !line.starts_with('#')).count();
    let buckets = metrics.lines().filter(|line| line.contains("_bucket{")).count();
    assert!(series - buckets <= 500, "{series}");
}
