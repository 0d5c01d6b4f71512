//! `switchboard load`: puts load on a deployment, as its clients would, and prints what they met.
//!
//! Each user has one WebSocket and one room. Messages are due at fixed times, whatever the deployment does: a latency counts
//! from the time at which its message was due, so that a slow answer delays no later measurement (no coordinated omission).

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser, value_parser};

use super::{
    outcome::{Failure, Outcome, block_on, print},
    server_url::ServerUrl,
};
use crate::config::Sources;

mod generator;
mod plan;
mod report;
mod rooms;
mod speech;
mod tally;
mod tokens;
mod user;

use plan::{Arrivals, Plan};
use speech::Speech;
use tokens::Tokens;

/// Defines the command's own flags; `with_settings` adds those of settings.
pub(super) fn command() -> Command {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("NUMBER").default_value(default).help(help)
    };
    Command::new("load")
        .about("Put load on a deployment, as its clients would, and print latencies, losses and refusals")
        .after_help(
            "The rooms are created for the run, and their messages are stored: run it against a deployment whose database may \
             grow. Exit code: 0, or 1 if a connection failed or was lost, or a stored message did not reach every listener \
             exactly once.",
        )
        .args([
            Arg::new("url").long("url").value_name("URL").required(true).help(
                "The deployment, ws://HOST:PORT, or wss://HOST with TLS. There is no default: load needs a named target",
            ),
            number("users", "100", "Users, each with one connection").value_parser(value_parser!(u32).range(1..=1_000_000)),
            number("rooms", "10", "Rooms that share the users").value_parser(value_parser!(u32).range(1..=1_000_000)),
            number("rate", "10", "Messages per second in all rooms together; 0: idle connections")
                .value_parser(value_parser!(u32).range(0..=1_000_000)),
            number("seconds", "30", "Length of the measurement").value_parser(value_parser!(u32).range(1..=86_400)),
            number("warm-up", "5", "Seconds of the same load before the measurement")
                .value_parser(value_parser!(u32).range(0..=3_600)),
            number("connects", "200", "Connects per second").value_parser(value_parser!(u32).range(1..=100_000)),
            number("bytes", "100", "Length of a message's text").value_parser(value_parser!(u32).range(40..=5_000)),
            Arg::new("arrivals")
                .long("arrivals")
                .default_value("even")
                .value_parser(PossibleValuesParser::new(Arrivals::NAMES))
                .help("Times of the messages: at even intervals, or each at a random time, as people write"),
            Arg::new("dialect")
                .long("dialect")
                .default_value("native")
                .value_parser(PossibleValuesParser::new(Speech::NAMES))
                .help("Dialect of the connections"),
            Arg::new("tokens").long("tokens").value_name("FILE").value_parser(value_parser!(PathBuf)).help(
                "A file with one token per line, each of another user, for deployments whose tokens can't be minted here; \
                 default: mint them with JWT_SECRET",
            ),
            Arg::new("dev").long("dev").action(ArgAction::SetTrue).help("Mint the tokens with the secret of switchboard dev"),
            Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print the result as JSON"),
        ])
}

/// Runs the load and prints the result.
pub(super) fn run(matches: &ArgMatches, sources: &Sources) -> Result<Outcome, Failure> {
    let number = |name| matches.get_one::<u32>(name).copied().unwrap_or_default();
    let text = |name| matches.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let Some(speech) = Speech::of(text("dialect")) else { return Ok(Outcome::Failed) };
    let tokens = match matches.get_one::<PathBuf>("tokens") {
        Some(file) => Tokens::read(file).map_err(Failure::Runtime)?,
        None => {
            // Longer than the connects, the run and its end take.
            let lifetime = Duration::from_secs(u64::from(
                number("users") / number("connects").max(1) + number("seconds") + number("warm-up") + 600,
            ));
            Tokens::minted(matches.get_flag("dev"), sources, lifetime)?
        }
    };
    let plan = Plan {
        target: ServerUrl::parse(text("url")).map_err(Failure::Runtime)?,
        speech,
        users: number("users"),
        rooms: number("rooms"),
        rate: number("rate"),
        seconds: number("seconds"),
        warm_up: number("warm-up"),
        connects: number("connects"),
        bytes: number("bytes"),
        arrivals: Arrivals::of(text("arrivals"), number("rate")),
    };
    plan.check(tokens.limit()).map_err(Failure::Runtime)?;
    let result = block_on(generator::run(Arc::new(plan), tokens))?.map_err(Failure::Runtime)?;
    let text = if matches.get_flag("json") { result.json() } else { result.text() };
    print(&text)?;
    Ok(if result.is_clean() { Outcome::Done } else { Outcome::Failed })
}
