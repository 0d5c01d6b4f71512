//! A real Prometheus that scrapes nodes and evaluates the alerts.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use super::{Node, Process, Signal, free_port, guard};

/// A running Prometheus; dropping it ends the process.
#[derive(Debug)]
pub struct Prometheus {
    port: u16,
    // Declared before the folder: the process must end before its folder is removed.
    _process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes these nodes and itself twice a second. Its own series stand for those of other
    /// programs.
    pub async fn start(nodes: &[&Node]) -> Self {
        let folder = guard::folder("switchboard-prometheus-");
        let targets: Vec<_> = nodes.iter().map(|node| node.admin().replace("http://", "")).collect();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/rules.yaml");
        let port = free_port();
        let itself = format!("127.0.0.1:{port}");
        let config = serde_json::json!({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [rules],
            "scrape_configs": [
                {"job_name": "switchboard", "static_configs": [{"targets": targets}]},
                {"job_name": "prometheus", "static_configs": [{"targets": [itself]}]},
            ],
        });
        // Every JSON text is YAML.
        let path = folder.path().join("prometheus.yml");
        fs::write(&path, config.to_string()).expect("the folder takes files");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", path.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let process = Process::spawn(format!("prometheus :{port}"), &mut command, Signal::Kill);
        let ready = |line: &str| line.contains("Server is ready to receive web requests").then_some(());
        process.line("its ready line", ready).await.expect("Prometheus starts");
        Self { port, _process: process, _folder: folder }
    }

    /// Address on which it listens and scrapes itself.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Calls the HTTP API and returns `data`.
    pub async fn api_get(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut url = reqwest::Url::parse(&format!("http://{}/api/v1/{path}", self.address())).expect("a URL");
        url.query_pairs_mut().extend_pairs(parameters);
        let answer = reqwest::get(url).await.expect("Prometheus answers").text().await.expect("all of it");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["status"], "success", "{path} {parameters:?}: {answer}");
        answer["data"].clone()
    }

    /// Evaluates a query now; returns each series with its value.
    pub async fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let data = self.api_get("query", &[("query", query)]).await;
        let value = |one: &Value| one["value"][1].as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
        let series = data["result"].as_array().cloned().unwrap_or_default();
        series.iter().map(|one| (one["metric"].clone(), value(one))).collect()
    }
}
