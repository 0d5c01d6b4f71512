//! `switchboard admin`: disconnects, revokes, blocks and unblocks users, and lists who is blocked. It writes to the store
//! of the configuration, so that it works without any node; with `--url` it asks a node's REST, with `--console` a node's
//! admin console. What only a console knows, it asks the console.

use std::sync::Arc;

use clap::ArgMatches;
use serde_json::{Value, json};

use super::outcome::{Failure, Outcome, block_on, print};
use crate::{
    config::{self, Sources, StoreBackend, StoreConfig},
    degrade::{Degrade, Fault},
    metrics::Metrics,
    model::{Clock, GivenNumber, Page, Restriction, RestrictionChange, RestrictionRequest, UserId},
    store::{RestrictOutcome, Store, StoreError},
};

mod console;
mod flags;
mod node;
mod shown;
mod task;

use console::ConsoleClient;
use node::NodeClient;
use task::{Answer, PAGE, Task};

/// Environment variable that holds the admin's token if `--token` is not given.
const TOKEN_VARIABLE: &str = "SWITCHBOARD_TOKEN";
/// The author that the store records for a change from the command line. No user id has a `~`.
const BY: &str = "~cli";

pub(super) use flags::command;

/// Runs a subcommand, through a node or on the store.
pub(super) fn run(matches: &ArgMatches, sources: &Sources) -> Result<Outcome, Failure> {
    let as_json = matches.get_flag("json");
    if let Some(question) = flags::question(matches)? {
        let console = ConsoleClient::new(matches, sources)?;
        block_on(console.ask(&question, as_json, print))??;
        return Ok(Outcome::Done);
    }
    let task = Task::of(matches)?;
    if let Task::Change(_, RestrictionRequest::RevokeIssued(Some(until))) = &task
        && *until > Clock::system().now()
    {
        return Err(Failure::Runtime(
            "--issued-until is in the future; to refuse tokens to come, block the user".to_owned(),
        ));
    }
    let answer = match matches.get_one::<String>("url") {
        _ if matches.contains_id("console") => block_on(ConsoleClient::new(matches, sources)?.node().answer(&task))??,
        Some(url) => block_on(NodeClient::new(url, token(matches, sources)?)?.answer(&task))??,
        None => {
            let by = matches.get_one::<UserId>("by").map_or_else(|| BY.to_owned(), |by| format!("{BY}:{by}"));
            let limit = config::max_revocations(sources)?;
            let store = open(matches.get_flag("dev"), sources)?;
            block_on(on_store(&*store, &task, &by, limit))??
        }
    };
    let text = if as_json { format!("{}\n", answer.json) } else { answer.text };
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

async fn on_store(store: &dyn Store, task: &Task, by: &str, limit: u32) -> Result<Answer, Failure> {
    store.start(false).await.map_err(failed)?;
    match task {
        Task::Change(user, request) => {
            let outcome = store.restrict(user, request, by, limit).await.map_err(failed)?;
            let json = match &outcome {
                RestrictOutcome::Changed(change) | RestrictOutcome::Unchanged(Some(change)) => json_of(change),
                RestrictOutcome::Unchanged(None) | RestrictOutcome::TooMany => Value::Null,
            };
            Ok(Answer { text: described(user, request, &outcome)?, json })
        }
        Task::Show(user) => {
            let block = store.block_of(user).await.map_err(failed)?;
            let mut json = json!({"user_id": user, "blocked": block.is_some()});
            if let Some(block) = &block {
                (json["at"], json["by"]) = (json!(block.at), json!(block.by));
            }
            let text = block.map_or_else(|| format!("{user} is not blocked\n"), |block| line(&block));
            Ok(Answer { text, json })
        }
        Task::List => {
            let mut all = Vec::new();
            let mut ends = "";
            loop {
                let offset = i64::try_from(all.len()).unwrap_or(i64::MAX);
                let Ok(page) = Page::given(Some(number(PAGE)), Some(number(offset))) else {
                    ends = "… more are blocked: query the table restriction_changes\n";
                    break;
                };
                let (blocks, total) = store.blocked_users(page).await.map_err(failed)?;
                let last = blocks.is_empty();
                all.extend(blocks);
                if last || i64::try_from(all.len()).is_ok_and(|shown| shown >= total) {
                    break;
                }
            }
            let text = all.iter().map(line).collect::<String>() + ends;
            Ok(Answer { text, json: json!({"blocks": all.iter().map(json_of).collect::<Vec<_>>()}) })
        }
    }
}

/// A change as REST has it.
fn json_of(change: &RestrictionChange) -> Value {
    let mut json = json!({"user_id": change.user, "at": change.at, "by": change.by});
    match &change.restriction {
        Restriction::Revoked { issued_until } => json["issued_until"] = json!(issued_until),
        Restriction::TokenRevoked(token) => json["jti"] = json!(token),
        Restriction::Disconnected | Restriction::Blocked | Restriction::Unblocked => {}
    }
    json
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
        (_, Restriction::Revoked { issued_until }) => {
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
