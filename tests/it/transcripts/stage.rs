//! Execution of a transcript: its servers, nodes and clients.

use std::{collections::HashMap, fmt::Write, time::Duration};

use reqwest::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{
    document::{Channel, Direction, Document},
    pattern::{Known, check, fill, fill_path},
    script::{Act, Order, Request, Script, Step, TokenIn},
    socket::{NoFrame, Socket},
};
use crate::support::{
    HookResponse, Link, Node, NodeBuilder, Postgres, Proxy, Receiver, RedisServer, Signal, token_with,
};

/// Maximum time for a frame or an awaited state.
const PATIENCE: Duration = Duration::from_secs(15);

/// A client of a transcript.
struct Actor {
    socket: Socket,
    channel: Channel,
    ignored: Vec<String>,
    /// Frames on its socket in both directions.
    heard: Vec<String>,
}

/// A transcript under way.
pub(crate) struct Stage {
    document: &'static Document,
    claims: std::collections::BTreeMap<String, Value>,
    redis: RedisServer,
    store: Proxy,
    webhook: Option<Receiver>,
    /// Number of webhook requests checked so far.
    posted: usize,
    nodes: HashMap<String, Node>,
    actors: HashMap<String, Actor>,
    known: Known,
}

/// Runs a transcript to its end.
///
/// # Panics
/// If the nodes behave differently.
pub(crate) async fn play(script: &Script) {
    let mut stage = Stage::set(script).await;
    let mut steps = script.steps.iter().peekable();
    while let Some(step) = steps.next() {
        let mut group = vec![step];
        while let Some(next) = steps.next_if(|next| crosses(step, next)) {
            group.push(next);
        }
        if let Err(why) = stage.step(&group).await {
            panic!("{}", stage.report(&script.name, step, &why));
        }
    }
    if let Err(why) = stage.leave().await {
        panic!("{}: at the end: {why}", script.name);
    }
}

/// True if a frame may arrive before the frame of the step before it.
fn crosses(step: &Step, next: &Step) -> bool {
    match (&step.act, &next.act) {
        (Act::Receive { client, order: Order::Any, .. }, Act::Receive { client: other, order: Order::Any, .. }) => {
            client == other
        }
        _ => false,
    }
}

impl Stage {
    async fn set(script: &Script) -> Self {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let server = database.rsplit_once('/').and_then(|(rest, _)| rest.rsplit_once('@')).expect("a database's URL").1;
        let store = Proxy::to(server).await;
        let webhook = match &script.webhook {
            Some(answer) => Some(answering(answer.to_string()).await),
            None => None,
        };
        let mut nodes = HashMap::new();
        let with = |node: NodeBuilder| {
            let node = match &webhook {
                Some(receiver) => node.set("PERSONA_WEBHOOK_URL", receiver.url()).set("PERSONA_IDS", "persona-uuid"),
                None => node,
            };
            let set = |node: NodeBuilder, (name, value): &(String, String)| node.set(name, value);
            script.settings.iter().fold(node, set)
        };
        for name in &script.nodes {
            let node = with(Node::serve(&redis.url(), &store.url(&database)).set("NODE_ID", name));
            nodes.insert(name.clone(), node.start().await);
        }
        for name in &script.dev {
            nodes.insert(name.clone(), with(Node::dev()).start().await);
        }
        let document = Document::get();
        let claims = script.claims.clone();
        Self { document, claims, redis, store, webhook, posted: 0, nodes, actors: HashMap::new(), known: Known::new() }
    }

    /// Does one step, or several that may happen in any order.
    async fn step(&mut self, group: &[&Step]) -> Result<(), String> {
        match &group[0].act {
            Act::Open { client, node, path, token_in } => self.open(client, node, path, *token_in).await,
            Act::Send { client, frame } => {
                self.know_tokens(&frame.to_string());
                let frame = fill(frame, &self.known);
                self.send_text(client, frame.to_string()).await
            }
            Act::SendText { client, text } => self.send_text(client, text.clone()).await,
            Act::Receive { client, frame, order: Order::Later } => self.until(client, frame).await,
            Act::Receive { client, .. } => self.receive(client, group).await,
            Act::Ignore { client, kinds } => {
                self.actor(client)?.ignored.clone_from(kinds);
                Ok(())
            }
            Act::Closed { client, code, reason } => self.closed(client, *code, reason.as_deref()).await,
            Act::Close { client } => self.actors.remove(client).ok_or("no such client")?.socket.close(PATIENCE).await,
            Act::Silent { client } => self.silent(client).await,
            Act::Rest { user, request, status, answer, eventually } => {
                self.rest(user, request, *status, answer.as_ref(), *eventually).await
            }
            Act::Redis { words, answer } => self.ask_redis(words, answer).await,
            Act::Store { breaks } => {
                self.store.set(if *breaks { Link::Cut } else { Link::Open });
                Ok(())
            }
            Act::RedisServer { dies: true } => {
                self.redis.kill().await;
                Ok(())
            }
            Act::RedisServer { dies: false } => {
                self.redis.restart().await;
                Ok(())
            }
            Act::Webhook { asked } => {
                let receiver = self.webhook.as_ref().ok_or("there is no webhook")?;
                let posted = receiver.request(self.posted).await;
                self.posted += 1;
                check(asked, &posted.json, &mut self.known)
            }
            Act::End { node } => {
                self.nodes.get(node).ok_or("no such node")?.signal(Signal::Terminate);
                Ok(())
            }
        }
    }

    async fn open(&mut self, name: &str, node: &str, path: &str, token_in: TokenIn) -> Result<(), String> {
        let user = user_of(name);
        self.know_tokens(&format!("{path} $token({user})"));
        let own = self.known[&format!("token({user})")].clone();
        self.known.insert("token".into(), own.clone());
        let path = fill_path(path, &self.known);
        let node = self.nodes.get(node).ok_or("no such node")?;
        let mut request = format!("{}{path}", node.ws()).into_client_request().map_err(|error| error.to_string())?;
        let token = own.as_str().unwrap_or_default();
        let (header, value) = match token_in {
            TokenIn::Path => (None, String::new()),
            TokenIn::Header => (Some(AUTHORIZATION), format!("Bearer {token}")),
            TokenIn::Subprotocol => (Some(SEC_WEBSOCKET_PROTOCOL), format!("switchboard, bearer.{token}")),
        };
        if let Some(header) = header {
            request.headers_mut().insert(header, value.parse().expect("a token is a header's value"));
        }
        let socket = Socket::open(request).await?;
        let channel = Channel::of(&path, user);
        self.actors.insert(name.into(), Actor { socket, channel, ignored: Vec::new(), heard: Vec::new() });
        Ok(())
    }

    /// Mints the tokens that a text names: `$token(bob)`.
    fn know_tokens(&mut self, text: &str) {
        for part in text.split("$token(").skip(1) {
            let person = part.split(')').next().unwrap_or_default();
            let name = format!("token({person})");
            if !self.known.contains_key(&name) {
                let mut claims = self.claims.get(person).cloned().unwrap_or_else(|| json!({}));
                if let Some(seconds) = claims.get("expires_in").and_then(Value::as_i64) {
                    claims["exp"] = (jiff::Timestamp::now().as_second() + seconds).into();
                }
                self.known.insert(name, token_with(person, claims).into());
            }
        }
    }

    fn actor(&mut self, name: &str) -> Result<&mut Actor, String> {
        self.actors.get_mut(name).ok_or_else(|| format!("no client {name}"))
    }

    async fn send_text(&mut self, client: &str, text: String) -> Result<(), String> {
        let actor = self.actor(client)?;
        actor.heard.push(format!("> {}", shortened(&text)));
        actor.socket.send(text).await
    }

    async fn receive(&mut self, client: &str, group: &[&Step]) -> Result<(), String> {
        let mut wanted: Vec<&Value> = group
            .iter()
            .filter_map(|step| if let Act::Receive { frame, .. } = &step.act { Some(frame) } else { None })
            .collect();
        while !wanted.is_empty() {
            let frame = self.next(client).await?.map_err(|(code, reason)| format!("closed {code} {reason:?}"))?;
            let faults: Vec<_> = wanted.iter().map(|pattern| check(pattern, &frame, &mut self.known)).collect();
            match faults.iter().position(Result::is_ok) {
                Some(at) => drop(wanted.remove(at)),
                None => {
                    return Err(faults.into_iter().filter_map(Result::err).collect::<Vec<_>>().join("\n  or "));
                }
            }
        }
        Ok(())
    }

    /// Skips frames up to one that matches.
    async fn until(&mut self, client: &str, wanted: &Value) -> Result<(), String> {
        loop {
            let frame = self.next(client).await?.map_err(|(code, reason)| format!("closed {code} {reason:?}"))?;
            if check(wanted, &frame, &mut self.known).is_ok() {
                return Ok(());
            }
        }
    }

    /// Returns the next frame that isn't ignored, checked against its schema; or the close.
    async fn next(&mut self, client: &str) -> Result<Result<Value, (u16, String)>, String> {
        let document = self.document;
        let actor = self.actor(client)?;
        loop {
            match actor.socket.next(PATIENCE).await {
                Err(NoFrame::Nothing) => return Err(format!("nothing came within {PATIENCE:?}")),
                Err(NoFrame::Closed(code, reason)) => {
                    actor.heard.push(format!("closed {code} {reason:?}"));
                    return Ok(Err((code, reason)));
                }
                Ok(frame) => {
                    actor.hear(document, &frame)?;
                    if !actor.ignores(&frame) {
                        return Ok(Ok(frame));
                    }
                }
            }
        }
    }

    async fn closed(&mut self, client: &str, code: u16, reason: Option<&str>) -> Result<(), String> {
        match self.next(client).await? {
            Ok(frame) => Err(format!("a frame came instead: {frame}")),
            Err((given, why)) if given == code && reason.is_none_or(|reason| reason == why) => {
                self.actors.remove(client);
                Ok(())
            }
            Err((given, why)) => Err(format!("closed {given} {why:?}")),
        }
    }

    async fn silent(&mut self, client: &str) -> Result<(), String> {
        let document = self.document;
        let actor = self.actor(client)?;
        let mut unwanted = Vec::new();
        for frame in actor.rest().await? {
            actor.hear(document, &frame)?;
            if !actor.ignores(&frame) {
                unwanted.push(frame.to_string());
            }
        }
        if unwanted.is_empty() { Ok(()) } else { Err(format!("more came: {}", unwanted.join("\n  "))) }
    }

    async fn rest(
        &mut self,
        user: &str,
        request: &Request,
        status: u16,
        wanted: Option<&Value>,
        eventually: bool,
    ) -> Result<(), String> {
        let Request { method, node, path, body } = request;
        self.know_tokens(&format!("$token({user})"));
        let token = self.known[&format!("token({user})")].as_str().map(ToOwned::to_owned).filter(|_| user != "nobody");
        let (path, body) = (fill_path(path, &self.known), body.as_ref().map(|body| fill(body, &self.known)));
        let node = self.nodes.get(node).ok_or("no such node")?;
        let begun = std::time::Instant::now();
        loop {
            let answer = node.request(method.clone(), &path, token.as_deref(), body.as_ref()).await;
            let outcome = if answer.status.as_u16() == status {
                wanted.map_or(Ok(()), |wanted| check(wanted, &answer.json, &mut self.known))
            } else {
                Err(format!("got {}", answer.status))
            };
            match outcome {
                Ok(()) => return Ok(()),
                Err(_) if eventually && begun.elapsed() < PATIENCE => pause().await,
                Err(why) => return Err(format!("{why}\nthe answer: {}", answer.text)),
            }
        }
    }

    async fn ask_redis(&mut self, words: &[String], wanted: &Value) -> Result<(), String> {
        let words: Vec<String> = words.iter().map(|word| fill_path(word, &self.known)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let begun = std::time::Instant::now();
        loop {
            let answer = shown(&self.redis.command(&words).await);
            match check(wanted, &answer, &mut self.known) {
                Ok(()) => return Ok(()),
                Err(_) if begun.elapsed() < PATIENCE => pause().await,
                Err(why) => return Err(format!("{why}\nthe answer: {answer}")),
            }
        }
    }

    /// Closes all clients' sockets; frames that came until then are checked against their schemas.
    async fn leave(&mut self) -> Result<(), String> {
        for (name, mut actor) in self.actors.drain() {
            for frame in actor.rest().await.map_err(|why| format!("{name}: {why}"))? {
                actor.hear(self.document, &frame).map_err(|why| format!("{name}: {why}"))?;
            }
        }
        Ok(())
    }

    fn report(&self, name: &str, step: &Step, why: &str) -> String {
        let mut text = format!("tests/transcripts/{name}:{}: {}\n\n{why}\n", step.line, step.text);
        for (name, actor) in &self.actors {
            let _ = write!(text, "\n{name} ({:?}):\n  {}\n", actor.channel, actor.heard.join("\n  "));
        }
        let known: std::collections::BTreeMap<_, _> =
            self.known.iter().filter(|(name, _)| !name.starts_with("token")).collect();
        let _ = write!(text, "\nknown: {known:?}");
        text
    }
}

impl Actor {
    /// All frames that have come and were not yet expected.
    async fn rest(&mut self) -> Result<Vec<Value>, String> {
        self.socket.rest(PATIENCE).await.map_err(|why| match why {
            NoFrame::Closed(code, reason) => format!("closed {code} {reason:?}"),
            NoFrame::Nothing => "no answer to a ping".into(),
        })
    }

    /// Records a frame, after a check that the document describes it.
    fn hear(&mut self, document: &Document, frame: &Value) -> Result<(), String> {
        self.heard.push(format!("< {}", shortened(&frame.to_string())));
        document.check(self.channel, Direction::ToClient, frame)
    }

    fn ignores(&self, frame: &Value) -> bool {
        self.ignored.iter().any(|kind| frame["type"] == **kind)
    }
}

/// Starts a webhook that always answers this.
async fn answering(answer: String) -> Receiver {
    Receiver::start(move |_, _| {
        let answer = answer.clone();
        async move { HookResponse::body(answer) }
    })
    .await
}

/// Interval between two polls of a state that has no event.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// User of a client: `alice.phone` belongs to alice.
pub(crate) fn user_of(client: &str) -> &str {
    client.split_once('.').map_or(client, |(user, _)| user)
}

/// Shortens long texts for reports.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(600) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// Redis' answer as JSON; texts that are JSON are parsed.
fn shown(value: &redis::Value) -> Value {
    match value {
        redis::Value::Nil => Value::Null,
        redis::Value::Int(number) => (*number).into(),
        redis::Value::BulkString(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            serde_json::from_str(&text).ok().filter(Value::is_object).unwrap_or_else(|| text.into())
        }
        redis::Value::Array(all) | redis::Value::Set(all) => all.iter().map(shown).collect(),
        redis::Value::SimpleString(text) => text.clone().into(),
        other => panic!("a Redis answer of a kind that no transcript uses: {other:?}"),
    }
}
