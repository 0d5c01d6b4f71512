//! The command line of `switchboard admin`.

use std::io::Read;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;

use super::console::Question;
use crate::{
    cli::outcome::Failure,
    model::{RetentionDays, Timestamp, TokenId, UserId},
};

/// Maximum length of a token that is read from standard input, in bytes.
const MAX_INPUT_BYTES: u64 = 64 * 1_024;

fn user() -> Arg {
    Arg::new("user")
        .value_name("USER")
        .help("The user's id, the sub of their tokens")
        .value_parser(|text: &str| UserId::parse(text).map_err(|error| error.to_string()))
}

fn named(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).arg(user().required(true))
}

fn limit(default: &'static str) -> Arg {
    let range = value_parser!(u32).range(1..=100);
    Arg::new("limit")
        .long("limit")
        .value_name("NUMBER")
        .help("How many, 1 to 100")
        .value_parser(range)
        .default_value(default)
}

fn seq(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("SEQ").help(help).value_parser(value_parser!(i64).range(0..))
}

fn conversation() -> Arg {
    Arg::new("conversation").value_name("CONVERSATION").help("The conversation's id").required(true)
}

/// Defines the command and its subcommands.
pub(in crate::cli) fn command() -> Command {
    let text = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value).global(true);
    let switch =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    Command::new("admin")
        .about("Look after a deployment: keep users out, and see and do what the admin console shows")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .args([
            switch("dev", "Use the data folder of switchboard dev, or its console").global(true),
            text("by", "NAME")
                .help("Your name, for the records")
                .value_parser(|text: &str| UserId::parse(text).map_err(|error| error.to_string())),
            text("url", "URL")
                .help("Keep users out through this node, http://HOST:PORT or https://HOST; needs an admin's token")
                .conflicts_with_all(["dev", "by", "console"]),
            text("token", "TOKEN").help("The admin's token for --url [env SWITCHBOARD_TOKEN]").requires("url"),
            text("console", "URL").help(
                "Ask the admin console of this node, http://HOST:8001; by default that of this machine (ADMIN_LISTEN). \
                 Needs ADMIN_TOKEN",
            ),
            switch("json", "Print the answer as JSON").global(true),
        ])
        .subcommands(restrictions())
        .subcommands(questions(switch))
}

/// The commands that also work without a console: on the nodes' database, or through their REST.
fn restrictions() -> [Command; 5] {
    [
        named("disconnect", "End a user's sockets on all nodes; the user may come back"),
        named("revoke", "Revoke a user's tokens, or one of them").args([
            Arg::new("issued-until")
                .long("issued-until")
                .value_name("TIME")
                .help("Revoke the tokens issued up to this time (2026-11-21T09:31:07Z); default: now")
                .value_parser(time),
            Arg::new("jti")
                .long("jti")
                .value_name("ID")
                .help("Revoke only the token with this jti")
                .conflicts_with("issued-until")
                // The parser's own errors repeat the value, which may be a token by mistake.
                .value_parser(|text: &str| Ok::<_, String>(TokenId::parse(text))),
        ]),
        named("block", "Block a user: no token of theirs is accepted until unblock"),
        named("unblock", "End the block of a user"),
        Command::new("blocked").about("List the blocked users, or show whether one is blocked").arg(user()),
    ]
}

/// The commands that need a console.
fn questions(switch: impl Fn(&'static str, &'static str) -> Arg) -> [Command; 17] {
    let number = |name: &'static str, value: &'static str| Arg::new(name).value_name(value).required(true);
    [
        Command::new("overview").about("Console: nodes, load, latencies, and what is degraded since when"),
        Command::new("users").about("Console: users who are online").arg(limit("100")),
        named("user", "Console: a user's sockets on all nodes, presence and block"),
        named("connections", "Console: a user's sockets on all nodes"),
        named("conversations", "Console: a user's conversations with the user's marks").args([
            limit("50"),
            Arg::new("offset")
                .long("offset")
                .value_name("NUMBER")
                .help("Where the list goes on")
                .value_parser(value_parser!(u32))
                .default_value("0"),
        ]),
        Command::new("conversation").about("Console: members, marks and entries of a conversation").args([
            conversation(),
            seq("before", "The newest entries before this seq"),
            seq("after", "The oldest entries after this seq").conflicts_with("before"),
            limit("50"),
        ]),
        Command::new("delete")
            .about("Console: delete a message, as an admin of the conversation")
            .args([conversation(), number("message", "MESSAGE").help("The message's seq or id")]),
        Command::new("search").about("Console: search the messages of a conversation").args([
            conversation(),
            number("words", "WORDS").num_args(1..).help("The message must contain all these words"),
            limit("50"),
        ]),
        Command::new("tail")
            .about("Console: the newest connects, refusals and closes of the node, and how often which")
            .arg(switch("follow", "Go on with those to come")),
        Command::new("token")
            .about("Console: explain why a token is refused")
            .arg(number("text", "TOKEN").allow_hyphen_values(true).help("The token; - reads it from standard input")),
        Command::new("webhooks")
            .about("Console: the newest finished webhook requests of the node")
            .args([switch("failed", "Those that failed only"), limit("50")]),
        Command::new("replay")
            .about("Console: make a finished webhook request again")
            .arg(number("delivery", "NUMBER").value_parser(value_parser!(u64)).help("Its number in webhooks")),
        Command::new("retention").about("Console: show how long a conversation's entries are kept, or set it").args([
            conversation(),
            Arg::new("days")
                .long("days")
                .value_name("DAYS")
                .help("Keep entries for this many days; 0: for ever")
                .value_parser(value_parser!(u32).range(0..=i64::from(RetentionDays::MAX))),
            switch("default", "Keep them as RETENTION_DAYS says").conflicts_with("days"),
        ]),
        named("export", "Console: print all data of a user, a line of JSON for each record; > FILE keeps it"),
        named("erase", "Console: erase a user's data: what the user wrote, reactions, memberships, marks, the name")
            .arg(switch("yes", "It can't be undone: say that it is meant")),
        named("erasure", "Console: show how far the erasure of a user's data is"),
        Command::new("settings")
            .about("Console: the settings in force and where they come from; secrets are not shown"),
    ]
}

fn time(text: &str) -> Result<Timestamp, String> {
    serde_json::from_value(text.into()).map_err(|_| "must be a time such as 2026-11-21T09:31:07Z".to_owned())
}

/// The subcommand, if only a console answers it.
pub(super) fn question(matches: &ArgMatches) -> Result<Option<Question>, Failure> {
    let Some((name, matches)) = matches.subcommand() else { return Ok(None) };
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let limit = || matches.get_one("limit").copied().unwrap_or(100);
    let user = || matches.get_one::<UserId>("user").cloned();
    let question = match name {
        "overview" => Some(Question::Overview),
        "users" => Some(Question::Users { limit: limit() }),
        "user" => user().map(Question::User),
        "connections" => user().map(Question::Connections),
        "conversations" => {
            let offset = matches.get_one("offset").copied().unwrap_or(0);
            user().map(|user| Question::Conversations { user, limit: limit(), offset })
        }
        "conversation" => {
            let [before, after] = ["before", "after"].map(|name| matches.get_one::<i64>(name).copied());
            Some(Question::Conversation { id: text("conversation"), before, after, limit: limit() })
        }
        "delete" => Some(Question::Delete { id: text("conversation"), message: text("message") }),
        "search" => {
            let words: Vec<_> = matches.get_many::<String>("words").into_iter().flatten().cloned().collect();
            Some(Question::Search { id: text("conversation"), words: words.join(" "), limit: limit() })
        }
        "tail" => Some(Question::Tail { follow: matches.get_flag("follow") }),
        "token" => Some(Question::Token(given_token(&text("text"))?)),
        "webhooks" => Some(Question::Webhooks { failed: matches.get_flag("failed"), limit: limit() }),
        "replay" => matches.get_one::<u64>("delivery").copied().map(Question::Replay),
        "settings" => Some(Question::Settings),
        "export" => user().map(Question::Export),
        "erase" if !matches.get_flag("yes") => {
            return Err(Failure::Runtime(
                "this can't be undone: the user's messages, reactions, memberships, name and marks go. Say --yes"
                    .to_owned(),
            ));
        }
        "erase" => user().map(Question::Erase),
        "erasure" => user().map(Question::Erasure),
        "retention" => {
            let days = matches.get_one::<u32>("days").map(|days| json!({"days": days}));
            let change = days.or_else(|| matches.get_flag("default").then(|| json!({"days": null})));
            Some(Question::Retention { id: text("conversation"), change })
        }
        _ => None,
    };
    Ok(question)
}

/// The token of the command line, or the one on standard input.
fn given_token(text: &str) -> Result<String, Failure> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    let mut input = String::new();
    std::io::stdin().lock().take(MAX_INPUT_BYTES).read_to_string(&mut input).map_err(Failure::runtime)?;
    Ok(input.trim().to_owned())
}
