//! Runs every query of the dashboards in a real Prometheus that scrapes two nodes and another program: while the nodes
//! are idle, while users chat, and after a node has died. The alerts must not fire before that.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use tokio::time::interval;

use crate::support::{Client, Node, Postgres, Prometheus, RedisServer, eventually, token};

/// Upper bounds by unit: no panel may show more on two nodes that have just started.
const MAXIMUM_BY_UNIT: [(&str, f64); 4] = [("s", 3_600.0), ("short", 1e6), ("ops", 1e6), ("percentunit", 1.0)];

/// A panel's query as Grafana sends it, with the panel's unit and title.
#[derive(Debug)]
struct Query {
    panel: String,
    unit: String,
    text: String,
}

/// Every query of every panel, including panels in folded rows.
async fn queries(prometheus: &Prometheus) -> Vec<Query> {
    let mut every = Vec::new();
    for name in ["on-call", "capacity"] {
        let board: Value = fs::read_to_string(format!("dashboards/{name}.json")).unwrap().parse().unwrap();
        let variables = variables(prometheus, &board).await;
        let rows = board["panels"].as_array().unwrap().iter();
        let panels = rows.flat_map(|row| row["panels"].as_array().into_iter().flatten().chain([row]));
        for panel in panels.filter(|panel| panel["type"] != "row") {
            for target in panel["targets"].as_array().unwrap() {
                every.push(Query {
                    panel: format!("{name}, {}", panel["title"].as_str().unwrap()),
                    unit: panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap().to_owned(),
                    text: with_variables(target["expr"].as_str().unwrap(), &variables),
                });
            }
        }
    }
    every
}

/// Values of Grafana's variables while "All" is chosen: the board's own value, otherwise all values of the label.
async fn variables(prometheus: &Prometheus, board: &Value) -> Vec<(String, String)> {
    // The intervals hold several scrapes.
    let mut known = vec![("$__rate_interval".to_owned(), "6s".to_owned()), ("$__interval".to_owned(), "1s".to_owned())];
    for variable in board["templating"]["list"].as_array().unwrap().iter().skip(1) {
        let wanted = with_variables(variable["query"]["query"].as_str().unwrap(), &known);
        let (series, label) =
            wanted.trim_start_matches("label_values(").trim_end_matches(')').rsplit_once(", ").unwrap();
        let values = prometheus.api_get(&format!("label/{label}/values"), &[("match[]", series)]).await;
        let values: Vec<_> = values.as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect();
        assert!(!values.is_empty(), "{wanted}");
        let all = format!("({})", values.join("|").replace('.', r"\\."));
        let all = variable["allValue"].as_str().map_or(all, str::to_owned);
        known.push((format!("${}", variable["name"].as_str().unwrap()), all));
    }
    known
}

fn with_variables(query: &str, variables: &[(String, String)]) -> String {
    let filled = variables.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
    assert!(!filled.contains('$'), "{filled}");
    filled
}

/// Users chat, connect and disconnect on both nodes while this future is polled.
async fn chat_load(one: &Node, two: &Node) {
    let mut alice = Client::native(one, "alice").await;
    let mut bob = Client::native(two, "bob").await;
    for client in [&mut alice, &mut bob] {
        client.join("team").await;
    }
    let mut ticks = interval(Duration::from_millis(50));
    for turn in 0_u64.. {
        ticks.tick().await;
        alice.send_text("team", "hello").await;
        bob.until("message").await;
        if turn % 5 == 0 {
            let mut late = Client::native(two, "late").await;
            late.send(&json!({"type": "join", "conversation_id": "team", "since_seq": turn, "ref": 1})).await;
            late.until("joined").await;
            late.close().await;
        }
    }
}

/// Value that a panel shows now, by its title.
async fn panel_value(prometheus: &Prometheus, queries: &[Query], panel: &str) -> Option<f64> {
    let query = queries.iter().find(|query| query.panel == panel).expect("a panel with this title");
    prometheus.query(&query.text).await.first().map(|(_, value)| *value)
}

#[tokio::test]
async fn the_dashboards_show_an_idle_pair_a_busy_pair_and_a_dead_node() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = Node::serve(&redis.url(), &database).start().await;
    let two = Node::serve(&redis.url(), &database).start().await;
    let prometheus = Prometheus::start(&[&one, &two]).await;
    let scraped = async || {
        let series = prometheus.query("count(rate(process_cpu_seconds_total{job=\"switchboard\"}[6s]))").await;
        series.first().filter(|(_, nodes)| *nodes == 2.0).map(|_| ())
    };
    eventually("both nodes to be scraped twice", scraped).await;
    let queries = queries(&prometheus).await;
    assert_no_absurd_value(&prometheus, &queries).await;
    tokio::select! {
        () = chat_load(&one, &two) => unreachable!("the load never ends"),
        () = assert_every_panel_has_data(&prometheus, &queries) => {}
    }
    assert_no_alert_fires(&prometheus).await;
    two.kill().await;
    let told = async || {
        let ready = panel_value(&prometheus, &queries, "on-call, Nodes ready").await;
        let not_ready = panel_value(&prometheus, &queries, "on-call, Nodes not ready").await;
        ((ready, not_ready) == (Some(1.0), Some(1.0))).then_some(())
    };
    eventually("one node up and one down", told).await;
}

/// A division by a rate of 0 must give no value instead of an absurd one.
async fn assert_no_absurd_value(prometheus: &Prometheus, queries: &[Query]) {
    for Query { panel, unit, text } in queries {
        let limit = MAXIMUM_BY_UNIT.iter().find(|(of, _)| of == unit).map_or(f64::MAX, |(_, limit)| *limit);
        for (series, value) in prometheus.query(text).await {
            assert!(value.is_finite() && value <= limit, "{panel} shows {value} {unit}: {series} of {text}");
        }
    }
}

async fn assert_every_panel_has_data(prometheus: &Prometheus, queries: &[Query]) {
    for Query { panel, text, .. } in queries {
        let data = async || {
            let series = prometheus.query(text).await;
            series.iter().any(|(_, value)| value.is_finite()).then_some(series)
        };
        for (series, _) in eventually(&format!("data for {panel}: {text}"), data).await {
            let job = series["job"].as_str().unwrap_or("switchboard");
            assert_eq!(job, "switchboard", "{panel} shows another program: {text}");
            assert_ne!(series["instance"], json!(prometheus.address()), "{panel} shows another program: {text}");
        }
    }
}

async fn assert_no_alert_fires(prometheus: &Prometheus) {
    let evaluated = async || {
        let groups = prometheus.api_get("rules", &[]).await;
        let groups = groups["groups"].as_array()?.iter();
        let rules: Vec<Value> =
            groups.flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect();
        rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules)
    };
    let rules = eventually("all rules to be evaluated", evaluated).await;
    assert!(rules.len() > 10);
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert!(rule["type"] == "recording" || rule["state"] == "inactive", "{rule}");
    }
}

/// A node has few series under any load, because labels are enums.
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
