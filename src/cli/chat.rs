//! `switchboard chat`: a chat client for a terminal, or for scripts. It speaks the native dialect
//! (docs/protocol/native.md).

use std::io::{Write, stderr};

use clap::{Arg, ArgMatches, Command};
use jiff::tz::TimeZone;

use super::outcome::{Failure, Outcome, block_on, output_failure};
use crate::{
    config::Sources,
    model::{ConversationId, UserId},
};

mod access;
mod frames;
mod lines;
mod link;
mod liveness;
mod outgoing;
mod room;
mod screen;
mod talk;

use access::{Access, AccessOptions, TOKEN_VARIABLE};
use room::{Room, Style};
use screen::Screen;
use talk::{Ended, Talk};

/// Default number of earlier messages shown after joining, at a terminal.
const BACKLOG: u32 = 10;
/// Maximum number of earlier messages shown after joining.
const BACKLOG_MAX: u32 = 100;

/// Defines the command's own flags; `with_settings` adds those of settings.
pub(super) fn command() -> Command {
    let text = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    Command::new("chat")
        .about("Chat in this terminal: with the switchboard dev of this machine, or with any server (--url)")
        .after_help(
            "At the end of its input it waits until all lines are stored. Exit code: 0, or 1 if one was not stored.",
        )
        .args([
            text("user", "NAME")
                .help("Your user id; required unless you give a token")
                .value_parser(|text: &str| UserId::parse(text).map_err(|error| error.to_string())),
            text("name", "TEXT").help("Your display name; default: the user's"),
            text("room", "NAME")
                .help("The conversation")
                .default_value("lobby")
                .value_parser(|text: &str| ConversationId::parse(text).map_err(|error| error.to_string())),
            text("url", "URL")
                .help("The server, ws://HOST:PORT, or wss://HOST with TLS; default: the switchboard dev of DATA_DIR"),
            text("token", "TOKEN").help(format!(
                "Your token [env {TOKEN_VARIABLE}]; without it, one is minted with JWT_SECRET or dev's secret"
            )),
            text("history", "NUMBER")
                .help(format!(
                    "Earlier messages to show, at most {BACKLOG_MAX}; default: {BACKLOG} at a terminal, else 0"
                ))
                .value_parser(clap::value_parser!(u32).range(0..=i64::from(BACKLOG_MAX))),
        ])
}

/// Runs the client until the user leaves or an error ends it.
pub(super) fn run(matches: &ArgMatches, sources: &Sources) -> Result<Outcome, Failure> {
    let text = |name| matches.get_one::<String>(name).map(String::as_str);
    let user = matches.get_one::<UserId>("user");
    let Some(room) = matches.get_one::<ConversationId>("room").cloned() else { return Ok(Outcome::Failed) };
    let options = AccessOptions { url: text("url"), token: text("token"), user, name: text("name") };
    let access = Access::resolve(&options, sources)?;
    let screen = Screen::of_process();
    let backlog = matches.get_one("history").copied().unwrap_or(if screen.is_terminal() { BACKLOG } else { 0 });
    let style = Style { shows_own: !screen.is_terminal(), backlog };
    let room = Room::new(room, user.cloned(), style, TimeZone::system());
    let mut talk = Talk::new(access, room, screen, screen::typed_lines());
    let ended = block_on(talk.run())?;
    screen.end();
    let unsent = talk.room.outgoing.drain();
    for text in &unsent {
        // If printing fails, the exit code still reports it.
        let _ = writeln!(stderr(), "switchboard: NOT SENT, or not confirmed: {}", lines::clean(text));
    }
    match ended {
        Ended::Failed(why) => Err(Failure::Runtime(why)),
        Ended::Left if unsent.is_empty() && (screen.is_terminal() || talk.room.failed == 0) => Ok(Outcome::Done),
        Ended::Left => Ok(Outcome::Failed),
        Ended::Unread(error) => output_failure(&error).map_or(Ok(Outcome::Failed), Err),
    }
}
