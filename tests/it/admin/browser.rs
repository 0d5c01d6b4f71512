//! A page in real Chromium, driven over the protocol of its developer tools.

use std::{path::Path, process::Command};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Client, Process, Signal, eventually};

const CHROMIUM: &str = "/usr/bin/chromium";

/// A page, and all that it reported: exceptions, messages of its console, requests.
pub struct Browser {
    tools: Client,
    last: u64,
    /// Exceptions, violations of the page's policy and failed loads.
    pub faults: Vec<String>,
    /// URLs of all requests.
    pub requests: Vec<String>,
    _chromium: Process,
    _profile: TempDir,
}

impl Browser {
    /// Opens a page; `None` if this machine has no Chromium.
    pub async fn open(url: &str) -> Option<Self> {
        if !Path::new(CHROMIUM).exists() {
            eprintln!("skipped: there is no {CHROMIUM}");
            return None;
        }
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new(CHROMIUM);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        command.args(["--window-size=1280,900", "--remote-debugging-port=0"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let chromium = Process::spawn("chromium", &mut command, Signal::Kill);
        let listens = |line: &str| line.strip_prefix("DevTools listening on ws://").map(str::to_owned);
        let address = chromium.line("the address of the developer tools", listens).await.unwrap();
        let targets = format!("http://{}/json/list", address.split('/').next().unwrap());
        let opened = async || {
            let targets: Value = reqwest::get(&targets).await.ok()?.json().await.ok()?;
            let page = targets.as_array()?.iter().find(|target| target["type"] == "page")?;
            page["webSocketDebuggerUrl"].as_str().map(str::to_owned)
        };
        let tools = Client::connect(&eventually("the page in Chromium", opened).await).await;
        let (faults, requests) = (Vec::new(), Vec::new());
        let mut browser = Self { tools, last: 0, faults, requests, _chromium: chromium, _profile: profile };
        for domain in ["Runtime", "Log", "Network", "Page"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser.call("Page.navigate", json!({"url": url})).await;
        Some(browser)
    }

    /// Calls a method of the tools, and collects what the page reports meanwhile.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        self.tools.send(&json!({"id": self.last, "method": method, "params": params})).await;
        loop {
            let frame = self.tools.recv().await;
            if frame["id"] == self.last {
                assert!(frame["error"].is_null(), "{method}: {frame}");
                return frame["result"].clone();
            }
            let params = &frame["params"];
            match frame["method"].as_str().unwrap_or_default() {
                "Runtime.exceptionThrown" => self.faults.push(params.to_string()),
                "Log.entryAdded" if params["entry"]["level"] == "error" => {
                    self.faults.push(params["entry"].to_string())
                }
                "Network.requestWillBeSent" => {
                    self.requests.push(params["request"]["url"].as_str().unwrap_or_default().to_owned());
                }
                _ => {}
            }
        }
    }

    /// The value of an expression in the page; promises are awaited.
    pub async fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", params).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub async fn until(&mut self, expression: &str) {
        let began = std::time::Instant::now();
        while self.value(&format!("Boolean({expression})")).await != true {
            let seen = self.value("document.body?.innerText.slice(0, 2000)").await;
            assert!(began.elapsed() < crate::support::DEADLINE, "{expression} in {seen}; {:?}", self.faults);
            tokio::task::yield_now().await;
        }
    }

    /// Waits until the page shows a text.
    pub async fn shows(&mut self, text: &str) {
        self.until(&format!("document.body?.innerText.includes({})", json!(text))).await;
    }

    /// Presses a key, as a person at a keyboard does.
    pub async fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            "Escape" => (27, ""),
            " " => (32, " "),
            _ => panic!("{key}"),
        };
        let event = |kind: &str| json!({"type": kind, "key": key, "code": if key == " " { "Space" } else { key }, "windowsVirtualKeyCode": code, "text": text});
        let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        self.call("Input.dispatchKeyEvent", event(down)).await;
        self.call("Input.dispatchKeyEvent", event("keyUp")).await;
    }

    /// Types a text into what has the focus.
    pub async fn types(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Presses Tab until the element with this text, or this name, has the focus.
    pub async fn tab_to(&mut self, label: &str) {
        const AT: &str = "(document.activeElement?.innerText || document.activeElement?.name || '').trim()";
        for _ in 0..60 {
            if self.value(AT).await == label {
                return;
            }
            self.press("Tab").await;
        }
        panic!("Tab does not reach {label}");
    }

    /// Clicks the first button with this text.
    pub async fn click(&mut self, text: &str) {
        let find = format!("[...document.querySelectorAll('button')].find((one) => one.innerText === {})", json!(text));
        self.until(&find).await;
        self.value(&format!("{find}.click()")).await;
    }
}
