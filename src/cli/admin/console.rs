//! [`ConsoleClient`]: what a node's admin console answers, as JSON or as text for people.

use std::{net::SocketAddr, time::Duration};

use clap::ArgMatches;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Value, json};

use super::{node::NodeClient, shown};
use crate::{
    cli::{outcome::Failure, running::Running},
    config::{self, Sources},
    model::UserId,
};

/// Maximum time for one request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time for which the console waits for an event, in seconds.
const WAIT_SECONDS: u32 = 20;

/// The commands that need a console.
pub(super) enum Question {
    Overview,
    Users {
        limit: u32,
    },
    User(UserId),
    Connections(UserId),
    Conversations {
        user: UserId,
        limit: u32,
        offset: u32,
    },
    Conversation {
        id: String,
        before: Option<i64>,
        after: Option<i64>,
        limit: u32,
    },
    Delete {
        id: String,
        message: String,
    },
    Search {
        id: String,
        words: String,
        limit: u32,
    },
    Tail {
        follow: bool,
    },
    Token(String),
    Webhooks {
        failed: bool,
        limit: u32,
    },
    Replay(u64),
    Settings,
    /// Print everything that is stored of a user.
    Export(UserId),
    /// Erase what is stored of a user.
    Erase(UserId),
    /// Show how far that is.
    Erasure(UserId),
    /// Show how long a conversation's entries are kept, or set it first.
    Retention {
        id: String,
        change: Option<Value>,
    },
}

/// A console, and its token.
pub(super) struct ConsoleClient {
    node: NodeClient,
}

impl ConsoleClient {
    /// The console that the command line names, or that of this machine's node with these settings.
    pub(super) fn new(matches: &ArgMatches, sources: &Sources) -> Result<Self, Failure> {
        let dev = matches.get_flag("dev");
        let (listen, token) = config::admin_access(dev, sources)?;
        let running = || Running::find(&config::data_folder(sources).ok()?).ok()?.admin;
        let listen = if dev { running().or(listen) } else { listen };
        let base = match (matches.get_one::<String>("console"), listen) {
            (Some(url), _) => url.trim_end_matches('/').trim_end_matches("/admin").to_owned(),
            (None, Some(listen)) => format!("http://{}", reachable(listen)),
            (None, None) => {
                return Err(failure("ADMIN_LISTEN is off: name a node's admin address: --console http://HOST:8001"));
            }
        };
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(failure(format!("--console must be http://HOST:PORT or https://HOST, not {base:?}")));
        }
        let token = token.ok_or_else(|| {
            failure("the console needs its token: give the nodes' ADMIN_TOKEN (or ADMIN_TOKEN_FILE, or --dev for that of switchboard dev)")
        })?;
        // A redirect or a proxy could lead the token elsewhere.
        let http = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
        let http = if base.starts_with("http://") { http.no_proxy() } else { http };
        let by = matches.get_one::<UserId>("by").map(ToString::to_string);
        let token = token.reveal().to_owned();
        Ok(Self { node: NodeClient::console(http.build().map_err(Failure::runtime)?, base, token, by) })
    }

    /// Asks, and prints with `print` as answers come.
    pub(super) async fn ask(
        &self,
        question: &Question,
        as_json: bool,
        print: impl Fn(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let text = |value: &Value, shown: fn(&Value) -> String| match as_json {
            true => format!("{value}\n"),
            false => shown(value),
        };
        match question {
            Question::Overview => print(&text(&self.node.get("/overview").await?, shown::overview)),
            Question::Users { limit } => {
                print(&text(&self.node.get(&format!("/users?limit={limit}")).await?, shown::users))
            }
            Question::User(user) => print(&text(&self.node.get(&of_user(user, "")).await?, shown::user)),
            Question::Connections(user) => print(&text(&self.node.get(&of_user(user, "")).await?, shown::connections)),
            Question::Conversations { user, limit, offset } => {
                let path = of_user(user, &format!("/conversations?limit={limit}&offset={offset}"));
                print(&text(&self.node.get(&path).await?, shown::conversations))
            }
            Question::Conversation { id, before, after, limit } => {
                let found = self.conversation(id, *before, *after, *limit).await?;
                print(&text(&found, shown::conversation))
            }
            Question::Delete { id, message } => {
                self.node
                    .send(Method::DELETE, &format!("{}/messages/{}", of_conversation(id), encoded(message)), None)
                    .await?;
                print(&if as_json {
                    "{\"deleted\":true}\n".to_owned()
                } else {
                    format!("{id}: message {message} is deleted\n")
                })
            }
            Question::Search { id, words, limit } => {
                let path = format!("{}/search?q={}&limit={limit}", of_conversation(id), encoded(words));
                print(&text(&self.node.get(&path).await?, shown::found))
            }
            Question::Tail { follow } => self.tail(*follow, as_json, print).await,
            Question::Token(token) => {
                let explained = self.node.send(Method::POST, "/token", Some(&json!({"token": token}))).await?;
                print(&text(&explained, shown::token))
            }
            Question::Webhooks { failed, limit } => print(&text(
                &self.node.get(&format!("/deliveries?failed={failed}&limit={limit}")).await?,
                shown::deliveries,
            )),
            Question::Replay(number) => {
                let replayed = self.node.send(Method::POST, &format!("/deliveries/{number}/replay"), None).await?;
                print(&text(&replayed, shown::replayed))
            }
            Question::Retention { id, change } => {
                let path = format!("{}/retention", of_conversation(id));
                let method = if change.is_some() { Method::PUT } else { Method::GET };
                print(&text(&self.node.send(method, &path, change.as_ref()).await?, shown::retention))
            }
            Question::Export(user) => self.export(user, print).await,
            Question::Erase(user) => {
                let erasure = self.node.send(Method::POST, &of_user(user, "/erasure"), None).await?;
                print(&text(&erasure, shown::erasure))
            }
            Question::Erasure(user) => print(&text(&self.node.get(&of_user(user, "/erasure")).await?, shown::erasure)),
            Question::Settings => print(&text(&self.node.get("/settings").await?, shown::settings)),
        }
    }

    /// Prints the lines of an export as its pages come.
    async fn export(&self, user: &UserId, print: impl Fn(&str) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut cursor = None;
        loop {
            let query = cursor.map_or_else(String::new, |cursor: String| format!("?cursor={}", encoded(&cursor)));
            let page = self.node.fetch(Method::GET, &of_user(user, &format!("/export{query}")), None).await?;
            let (records, last) = page.trim_end().rsplit_once('\n').unwrap_or(("", page.trim_end()));
            if !records.is_empty() {
                print(&format!("{records}\n"))?;
            }
            let end: Value = serde_json::from_str(last).map_err(|_| failure("the export broke off"))?;
            match end["cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return print(&format!("{last}\n")),
            }
        }
    }

    /// The console as a node that does what REST does too.
    pub(super) fn node(&self) -> &NodeClient {
        &self.node
    }

    async fn conversation(
        &self,
        id: &str,
        before: Option<i64>,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Value, Failure> {
        let path = of_conversation(id);
        let position = before.map(|seq| format!("&before_seq={seq}"));
        let position = position.or_else(|| after.map(|seq| format!("&after_seq={seq}"))).unwrap_or_default();
        let conversation = self.node.get(&path).await?;
        let members = self.node.get(&format!("{path}/members?limit=100")).await?;
        let entries = self.node.get(&format!("{path}/entries?limit={limit}{position}")).await?;
        Ok(json!({"conversation": conversation, "members": members, "entries": entries}))
    }

    async fn tail(
        &self,
        follow: bool,
        as_json: bool,
        print: impl Fn(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut page = self.node.get("/tail?limit=100").await?;
        if !follow {
            return print(&if as_json { format!("{page}\n") } else { shown::tail(&page) });
        }
        loop {
            for event in page["events"].as_array().into_iter().flatten() {
                print(&if as_json { format!("{event}\n") } else { shown::event(event) })?;
            }
            let next = page["next"].as_u64().unwrap_or_default();
            page = self.node.get(&format!("/tail?limit=100&wait={WAIT_SECONDS}&after={next}")).await?;
        }
    }
}

fn failure(message: impl Into<String>) -> Failure {
    Failure::Runtime(message.into())
}

/// The address under which a node of this machine is reached that listens here.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port())
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn of_user(user: &UserId, rest: &str) -> String {
    format!("/users/{}{rest}", encoded(user.as_str()))
}

fn of_conversation(id: &str) -> String {
    format!("/conversations/{}", encoded(id))
}
