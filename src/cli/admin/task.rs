//! [`Task`]: what a subcommand of `switchboard admin` asks for.

use clap::ArgMatches;

use crate::{
    cli::outcome::Failure,
    model::{InvalidTokenId, RestrictionRequest, TokenId, UserId},
};

/// Number of users on a page of `blocked`.
pub(super) const PAGE: i64 = 100;

/// The answer to a task.
pub(super) struct Answer {
    /// For people.
    pub(super) text: String,
    /// As REST has it; null if nothing was to be done.
    pub(super) json: serde_json::Value,
}

/// The task of a subcommand.
pub(super) enum Task {
    /// Change the restrictions of a user.
    Change(UserId, RestrictionRequest),
    /// Show whether a user is blocked.
    Show(UserId),
    /// List the blocked users.
    List,
}

impl Task {
    /// Reads the subcommand.
    pub(super) fn of(matches: &ArgMatches) -> Result<Self, Failure> {
        let unknown = || Failure::Runtime("a subcommand is missing".to_owned());
        let (name, matches) = matches.subcommand().ok_or_else(unknown)?;
        let user = matches.get_one::<UserId>("user").cloned();
        let request = match name {
            "disconnect" => RestrictionRequest::Disconnect,
            "revoke" => match matches.get_one::<Result<TokenId, InvalidTokenId>>("jti") {
                Some(Ok(token)) => RestrictionRequest::RevokeToken(token.clone()),
                Some(Err(error)) => return Err(Failure::Runtime(format!("--jti: {error}"))),
                None => RestrictionRequest::RevokeIssued(matches.get_one("issued-until").copied()),
            },
            "block" => RestrictionRequest::Block,
            "unblock" => RestrictionRequest::Unblock,
            _ => return Ok(user.map_or(Self::List, Self::Show)),
        };
        Ok(Self::Change(user.ok_or_else(unknown)?, request))
    }
}
