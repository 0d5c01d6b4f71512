//! Syntax of a transcript, line by line. `README.md` beside the transcripts documents the format.

use std::{collections::BTreeMap, path::Path};

use reqwest::Method;
use serde_json::Value;

/// A transcript: its stage, and its steps.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// File name.
    pub(crate) name: String,
    /// Settings of every node.
    pub(crate) settings: Vec<(String, String)>,
    /// Nodes on one shared Redis and database.
    pub(crate) nodes: Vec<String>,
    /// Separate nodes under `dev`.
    pub(crate) dev: Vec<String>,
    /// Additional claims in a user's token.
    pub(crate) claims: BTreeMap<String, Value>,
    /// Response of the webhook, if the transcript has one.
    pub(crate) webhook: Option<Value>,
    /// Steps in order.
    pub(crate) steps: Vec<Step>,
}

/// One step.
#[derive(Debug)]
pub(crate) struct Step {
    /// Its first line.
    pub(crate) line: usize,
    /// Its text.
    pub(crate) text: String,
    /// Its action.
    pub(crate) act: Act,
}

/// Action of a step.
#[derive(Debug)]
pub(crate) enum Act {
    /// A client opens a WebSocket.
    Open { client: String, node: String, path: String, token_in: TokenIn },
    /// A client sends a frame.
    Send { client: String, frame: Value },
    /// A client sends text that may be invalid JSON.
    SendText { client: String, text: String },
    /// A client receives a frame.
    Receive { client: String, frame: Value, order: Order },
    /// From here on, frames of these types are skipped.
    Ignore { client: String, kinds: Vec<String> },
    /// The node closes the client's socket, without a frame before.
    Closed { client: String, code: u16, reason: Option<String> },
    /// The client closes its socket.
    Close { client: String },
    /// No further frame has come.
    Silent { client: String },
    /// An HTTP request. `eventually`: it is repeated until the response matches.
    Rest { user: String, request: Request, status: u16, answer: Option<Value>, eventually: bool },
    /// A Redis command, repeated until the answer matches.
    Redis { words: Vec<String>, answer: Value },
    /// The link between the nodes and the store breaks or is restored.
    Store { breaks: bool },
    /// Redis is killed, or started again empty.
    RedisServer { dies: bool },
    /// The next request to the webhook.
    Webhook { asked: Value },
    /// A node gets SIGTERM.
    End { node: String },
}

/// Position of an expected frame among a client's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The next one.
    Next,
    /// One of the next ones, in any order, together with the steps beside it.
    Any,
    /// A later one: frames before it are skipped.
    Later,
}

/// Place of a client's token, if it is not in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenIn {
    /// In the path, or nowhere.
    Path,
    /// In the `Authorization` header.
    Header,
    /// In the subprotocol.
    Subprotocol,
}

/// An HTTP request.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names are clear")]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) node: String,
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
}

impl Script {
    /// Reads a transcript.
    ///
    /// # Panics
    /// If a line doesn't follow the syntax.
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut script = Self { name, ..Self::default() };
        for (line, text) in joined(&text) {
            if let Err(why) = script.read_line(line, &text) {
                panic!("{}:{line}: {why}: {text}", script.name);
            }
        }
        if script.nodes.is_empty() && script.dev.is_empty() {
            script.nodes.push("one".into());
        }
        script
    }

    fn read_line(&mut self, line: usize, text: &str) -> Result<(), String> {
        let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
        let words = || rest.split_whitespace().map(ToOwned::to_owned);
        match first {
            "settings" => {
                for word in words() {
                    let (name, value) = word.split_once('=').ok_or("a setting is NAME=VALUE")?;
                    self.settings.push((name.into(), value.into()));
                }
            }
            "nodes" => self.nodes.extend(words()),
            "dev" => self.dev.extend(words()),
            "webhook" if rest.starts_with("answers ") => self.webhook = Some(json(&rest["answers ".len()..])?),
            "claims" => {
                let (person, claims) = rest.split_once(' ').ok_or("claims PERSON JSON")?;
                self.claims.insert(person.into(), json(claims)?);
            }
            _ => {
                let act = act(first, rest)?;
                self.steps.push(Step { line, text: text.to_owned(), act });
            }
        }
        Ok(())
    }
}

/// Returns the lines with content, each joined with its continuations, which begin with a blank.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match lines.last_mut().filter(|_| line.starts_with(' ')) {
            Some((_, begun)) => {
                begun.push('\n');
                begun.push_str(line);
            }
            None => lines.push((at + 1, line.to_owned())),
        }
    }
    lines
}

fn act(first: &str, rest: &str) -> Result<Act, String> {
    let (word, last) = rest.split_once(' ').unwrap_or((rest, ""));
    match (first, word) {
        ("redis", "dies" | "returns") => Ok(Act::RedisServer { dies: word == "dies" }),
        ("redis", _) => {
            let (words, answer) = rest.split_once(" → ").ok_or("redis COMMAND → JSON")?;
            Ok(Act::Redis { words: words.split_whitespace().map(Into::into).collect(), answer: json(answer)? })
        }
        ("store", "breaks" | "returns") => Ok(Act::Store { breaks: word == "breaks" }),
        ("webhook", "<") => Ok(Act::Webhook { asked: json(last)? }),
        (node, "ends") => Ok(Act::End { node: node.into() }),
        ("eventually", user) => {
            let (method, last) = last.split_once(' ').ok_or("eventually USER METHOD NODE PATH → STATUS")?;
            rest_call(user, method.parse().map_err(|_| "no method")?, last, true)
        }
        (user, "GET" | "POST" | "PUT" | "PATCH" | "DELETE") => {
            rest_call(user, word.parse().map_err(|_| "no method")?, last, false)
        }
        (client, _) => of_client(client.to_owned(), word, last),
    }
}

fn of_client(client: String, word: &str, rest: &str) -> Result<Act, String> {
    Ok(match word {
        "opens" => {
            let mut words = rest.split_whitespace();
            let (Some(node), Some(path)) = (words.next(), words.next()) else {
                return Err("CLIENT opens NODE PATH".into());
            };
            let token_in = match words.next() {
                None => TokenIn::Path,
                Some("header") => TokenIn::Header,
                Some("subprotocol") => TokenIn::Subprotocol,
                Some(_) => return Err("expected `token in a header` or `token in a subprotocol`".into()),
            };
            Act::Open { client, node: node.into(), path: path.into(), token_in }
        }
        ">" => Act::Send { client, frame: json(rest)? },
        ">>" => Act::SendText { client, text: rest.into() },
        "<" => Act::Receive { client, frame: json(rest)?, order: Order::Next },
        "<~" => Act::Receive { client, frame: json(rest)?, order: Order::Any },
        "<.." => Act::Receive { client, frame: json(rest)?, order: Order::Later },
        "ignores" => Act::Ignore { client, kinds: rest.split_whitespace().map(Into::into).collect() },
        "closed" => {
            let (code, reason) = rest.split_once(' ').map_or((rest, None), |(code, reason)| (code, Some(reason)));
            let reason = reason.map(serde_json::from_str).transpose().map_err(|_| "a reason must be in quotes")?;
            Act::Closed { client, code: code.parse().map_err(|_| "no code")?, reason }
        }
        "closes" => Act::Close { client },
        "silent" => Act::Silent { client },
        _ => return Err("no such step".into()),
    })
}

fn rest_call(user: &str, method: Method, rest: &str, eventually: bool) -> Result<Act, String> {
    let (asked, answered) = rest.rsplit_once(" → ").or_else(|| rest.rsplit_once("→ ")).ok_or("no → STATUS")?;
    let (node, asked) = asked.split_once(' ').ok_or("METHOD NODE PATH")?;
    let (path, body) = asked.split_once(char::is_whitespace).unwrap_or((asked, ""));
    let (status, answer) = answered.split_once(char::is_whitespace).unwrap_or((answered, ""));
    let optional = |text: &str| if text.trim().is_empty() { Ok(None) } else { json(text).map(Some) };
    Ok(Act::Rest {
        user: user.into(),
        request: Request { method, node: node.into(), path: path.into(), body: optional(body)? },
        status: status.parse().map_err(|_| "no status")?,
        answer: optional(answer)?,
        eventually,
    })
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}
