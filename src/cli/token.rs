//! `switchboard token`: mints a token. It prints nothing else to standard output.

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{
    inspect,
    outcome::{Failure, Outcome, print},
};
use crate::{
    auth::{Auth, Grant},
    config::{self, AuthConfig, Sources, settings},
    model::{Clock, UserId},
    restrictions::Restrictions,
};

/// Defines the command's own flags; `with_settings` adds those of settings.
pub(super) fn command() -> Command {
    let text = |name: &'static str, help: &'static str| Arg::new(name).long(name).value_name("TEXT").help(help);
    Command::new("token").about("Mint a token, or explain one").args([
        text("user", "The user's id, the token's sub")
            .required_unless_present("inspect")
            .value_parser(|text: &str| UserId::parse(text).map_err(|error| error.to_string())),
        text("name", "The user's display name"),
        text("role", "The user's role, such as admin"),
        text("tier", "The user's tier, which selects rate limits"),
        text("ttl", "The token's lifetime, such as 30m, 1h or 7d, from 1s to 365d; default TOKEN_TTL")
            .value_parser(|text: &str| config::duration_within(&settings::TOKEN_TTL, text)),
        Arg::new("dev").long("dev").action(ArgAction::SetTrue).help("Use the secret of switchboard dev"),
        Arg::new("inspect").long("inspect").value_name("TOKEN").allow_hyphen_values(true).help(
            "Explain this token instead: its claims, whether its signature matches the configured key, what is wrong \
             and what to do; - reads it from standard input. The signature and keys are not shown",
        ).conflicts_with_all(["user", "name", "role", "tier", "ttl"]),
    ])
}

/// Mints a token with JWT_SECRET, or with dev's secret, and prints it.
pub(super) fn run(matches: &ArgMatches, sources: &Sources) -> Result<Outcome, Failure> {
    if let Some(token) = matches.get_one::<String>("inspect") {
        return inspect::run(token, matches, sources);
    }
    let auth = AuthConfig::load(matches.get_flag("dev"), sources)?;
    let text = |name| matches.get_one::<String>(name).map(String::as_str);
    let Some(user) = matches.get_one::<UserId>("user") else { return Ok(Outcome::Failed) };
    let grant = Grant { user, name: text("name"), role: text("role"), tier: text("tier") };
    let ttl = matches.get_one("ttl").copied().unwrap_or(auth.token_ttl);
    let minted =
        Auth::new(&auth, Clock::system(), Restrictions::none()).map_err(Failure::runtime)?.mint(grant, ttl, None);
    print(&format!("{}\n", minted.map_err(Failure::runtime)?.token))?;
    Ok(Outcome::Done)
}
