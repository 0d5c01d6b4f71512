//! `switchboard admin`: disconnects, revokes, blocks and unblocks users, and lists who is blocked. It writes to the store
//! of the configuration, so that it works without any node; with `--url` it asks a node.

use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::outcome::{Failure, Outcome, block_on, print};
use crate::{
    config::{self, Sources, StoreBackend, StoreConfig},
    degrade::{Degrade, Fault},
    metrics::Metrics,
    model::{Clock, GivenNumber, Page, RestrictionChange, RestrictionRequest, Timestamp, TokenId, UserId},
    store::{RestrictOutcome, Store, StoreError},
};

mod node;
mod task;

use node::NodeClient;
use task::{PAGE, Task};

/// Environment variable that holds the admin's token if `--token` is not given.
const TOKEN_VARIABLE: &str = "SWITCHBOARD_TOKEN";
/// The author that the store records for a change from the command line. No user id has a `~`.
const BY: &str = "~cli";

/// Defines the command and its subcommands.
pub(super) fn command() -> Command {
    let user = || {
        Arg::new("user")
            .value_name("USER")
            .help("The user's id, the sub of their tokens")
            .value_parser(|text: &str| UserId::parse(text).map_err(|error| error.to_string()))
    };
    let named = |name: &'static str, about: &'static str| Command::new(name).about(about).arg(user().required(true));
    let text = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value).global(true);
    Command::new("admin")
        .about("Disconnect, revoke, block or unblock a user: in the nodes' database, or through a node (--url)")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .args([
            Arg::new("dev")
                .long("dev")
                .action(ArgAction::SetTrue)
                .global(true)
                .help("Use the data folder of switchboard dev"),
            text("by", "NAME")
                .help("Your name, for the record in the store")
                .value_parser(|text: &str| UserId::parse(text).map_err(|error| error.to_string())),
            text("url", "URL")
                .help("Ask this node instead, http://HOST:PORT or https://HOST; needs an admin's token")
                .conflicts_with_all(["dev", "by"]),
            text("token", "TOKEN").help("The admin's token for --url [env SWITCHBOARD_TOKEN]").requires("url"),
        ])
        .subcommands([
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
        ])
}

fn time(text: &str) -> Result<Timestamp, String> {
    serde_json::from_value(text.into()).map_err(|_| "must be a time such as 2026-11-21T09:31:07Z".to_owned())
}

/// Runs a subcommand, through a node or on the store.
pub(super) fn run(matches: &ArgMatches, sources: &Sources) -> Result<Outcome, Failure> {
    let task = Task::of(matches)?;
    if let Task::Change(_, RestrictionRequest::RevokeIssued(Some(until))) = &task
        && *until > Clock::system().now()
    {
        return Err(Failure::Runtime(
            "--issued-until is in the future; to refuse tokens to come, block the user".to_owned(),
        ));
    }
    let text = match matches.get_one::<String>("url") {
        Some(url) => {
            let node = NodeClient::new(url, token(matches, sources)?)?;
            block_on(node.run(&task))??
        }
        None => {
            let by = matches.get_one::<UserId>("by").map_or_else(|| BY.to_owned(), |by| format!("{BY}:{by}"));
            let limit = config::max_revocations(sources)?;
            let store = open(matches.get_flag("dev"), sources)?;
            block_on(on_store(&*store, &task, &by, limit))??
        }
    };
    print(&text)?;
    Ok(Outcome::Done)
}

fn token(matches: &ArgMatches, sources: &Sources) -> Result<String, Failure> {
    let variable = || (sources.environment)(TOKEN_VARIABLE).and_then(|value| value.into_string().ok());
    let given = matches.get_one::<String>("token").cloned().or_else(variable).map(|token| token.trim().to_owned());
    given.filter(|token| !token.is_empty()).ok_or_else(|| {
        Failure::Runtime(format!(
            "--url needs an admin's token: give one (--token or {TOKEN_VARIABLE}), for example from switchboard token \
             --user NAME --role admin; or leave --url out to write to the database"
        ))
    })
}

/// Opens the store of the configuration. It must exist: the command line makes none.
fn open(dev: bool, sources: &Sources) -> Result<Arc<dyn Store>, Failure> {
    let config = StoreConfig::load(dev, sources).map_err(|faults| match faults.0.iter().any(is_no_database) {
        true => Failure::Runtime(
            "which database? Set DATABASE_URL to that of the nodes, or give --dev for the data folder of switchboard dev, \
             or --url for a node"
                .to_owned(),
        ),
        false => faults.into(),
    })?;
    if let StoreBackend::Sqlite { path } = &config.backend
        && !path.exists()
    {
        return Err(Failure::Runtime(format!(
            "{} does not exist: start switchboard dev once, or name its folder: --data-dir FOLDER",
            path.display()
        )));
    }
    let metrics = Arc::new(Metrics::new().map_err(Failure::runtime)?);
    crate::app::open_store(&config, metrics, Degrade::unwatched()).map_err(Failure::runtime)
}

fn is_no_database(fault: &config::ConfigFault) -> bool {
    fault.variable == config::settings::DATABASE_URL.name && fault.message == "is required"
}

async fn on_store(store: &dyn Store, task: &Task, by: &str, limit: u32) -> Result<String, Failure> {
    store.start(false).await.map_err(failed)?;
    match task {
        Task::Change(user, request) => {
            let outcome = store.restrict(user, request, by, limit).await.map_err(failed)?;
            described(user, request, &outcome)
        }
        Task::Show(user) => {
            let block = store.block_of(user).await.map_err(failed)?;
            Ok(block.map_or_else(|| format!("{user} is not blocked\n"), |block| line(&block)))
        }
        Task::List => {
            let mut text = String::new();
            loop {
                let offset = i64::try_from(text.lines().count()).unwrap_or(i64::MAX);
                let page = Page::given(Some(number(PAGE)), Some(number(offset)));
                let Ok(page) = page else {
                    return Ok(text + "… more are blocked: query the table restriction_changes\n");
                };
                let (blocks, total) = store.blocked_users(page).await.map_err(failed)?;
                blocks.iter().for_each(|block| text.push_str(&line(block)));
                if blocks.is_empty() || i64::try_from(text.lines().count()).is_ok_and(|shown| shown >= total) {
                    return Ok(text);
                }
            }
        }
    }
}

fn number(number: i64) -> GivenNumber {
    GivenNumber::parse(&number.to_string())
}

/// One blocked user, as a line of output.
fn line(block: &RestrictionChange) -> String {
    format!("{} blocked at {} by {}\n", block.user, block.at, block.by)
}

/// Tells the result of a change.
fn described(user: &UserId, request: &RestrictionRequest, outcome: &RestrictOutcome) -> Result<String, Failure> {
    let (change, again) = match outcome {
        RestrictOutcome::Changed(change) => (change, ""),
        RestrictOutcome::Unchanged(Some(change)) => (change, " already"),
        RestrictOutcome::Unchanged(None) => return Ok(format!("{user} is not blocked\n")),
        RestrictOutcome::TooMany => {
            return Err(Failure::Runtime(
                "the maximum number of blocks and revocations stands (MAX_REVOCATIONS): end blocks that are not needed any \
                 more, or raise it here and on all nodes"
                    .to_owned(),
            ));
        }
    };
    let done = match (request, &change.restriction) {
        (_, crate::model::Restriction::Revoked { issued_until }) => {
            format!("the tokens issued until {issued_until} are{again} revoked")
        }
        (RestrictionRequest::RevokeToken(token), _) => format!("the token {} is{again} revoked", token.as_str()),
        (RestrictionRequest::Disconnect, _) => "the sockets end".to_owned(),
        (RestrictionRequest::Unblock, _) => "not blocked any more".to_owned(),
        _ => format!("{again} blocked").trim_start().to_owned(),
    };
    Ok(format!("{user}: {done} (at {} by {}). Nodes apply it within about a second.\n", change.at, change.by))
}

/// The failure of a call to the store, with the remedy.
fn failed(error: StoreError) -> Failure {
    let remedy = match &error {
        StoreError::Unavailable(cause)
            if matches!(cause.fault, Some(Fault::StoreLacksPart | Fault::StoreNotMigrated)) =>
        {
            ""
        }
        StoreError::Unavailable(_) | StoreError::Busy { .. } | StoreError::TooSlow => {
            ". Check DATABASE_URL and that the database runs, and try again; nothing was changed"
        }
        StoreError::Unknown(_) => ". Try again: a change that was stored already is not made twice",
        StoreError::Failed(_) => ". Nothing was changed; switchboard check names faults of the database",
    };
    Failure::Runtime(format!("{error}{remedy}"))
}
