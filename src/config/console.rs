//! Reads the settings of the admin console.

use std::net::SocketAddr;

use super::{
    addresses::read_addresses,
    dev, parse,
    secret::{Secret, check_secret_length},
    settings as set,
    source::{ConfigFaults, Reader, Sources},
    values::ConsoleConfig,
};

/// The address of the console of a node with these settings on this machine, and its token, if they are known.
///
/// # Errors
/// As [`Config::load`](super::Config::load).
pub fn admin_access(dev: bool, sources: &Sources) -> Result<(Option<SocketAddr>, Option<Secret>), ConfigFaults> {
    let mut reader = Reader::new(sources, dev);
    let (_, admin) = read_addresses(&mut reader);
    let token = match reader.given(&set::ADMIN_TOKEN) {
        true => reader.read(&set::ADMIN_TOKEN, check_secret_length),
        false if dev => dev::admin_token(&mut reader),
        false => None,
    };
    reader.finish(Some((admin, token.map(Secret::new))))
}

/// Reads the settings of the console. Without a token, or without an address, it is off.
pub(super) fn read_console(
    reader: &mut Reader<'_>,
    listen: Option<SocketAddr>,
    notes: &mut Vec<String>,
) -> Option<ConsoleConfig> {
    let token = match reader.given(&set::ADMIN_TOKEN) {
        true => reader.read(&set::ADMIN_TOKEN, check_secret_length),
        false if reader.dev && listen.is_some() => dev::admin_token(reader),
        false => None,
    };
    let hosts = reader.read(&set::ADMIN_HOSTS, parse::hosts).unwrap_or_default();
    let (guesses, tail_events) = (reader.number(&set::ADMIN_TOKEN_GUESSES), reader.number(&set::ADMIN_TAIL_EVENTS));
    let (watchers, deliveries) = (reader.number(&set::ADMIN_WATCHERS), reader.number(&set::ADMIN_DELIVERIES));
    let token = token?;
    for other in [&set::JWT_SECRET, &set::JWT_PREVIOUS_SECRET] {
        if reader.find(other).is_some_and(|other| other.value == token) {
            reader.fault(
                set::ADMIN_TOKEN.name,
                format!("is the same as {}: give the console a token of its own", other.name),
            );
        }
    }
    let Some(listen) = listen else {
        notes.push("ADMIN_TOKEN is set, but there is no console: ADMIN_LISTEN is off".to_owned());
        return None;
    };
    if !listen.ip().is_loopback() {
        notes.push(format!(
            "the admin console is on at {listen}, not only for this machine: whoever reaches it can try tokens, and on the way \
             the token is not encrypted (docs/operations/console.md)"
        ));
    }
    Some(ConsoleConfig { token: Secret::new(token), hosts, guesses, tail_events, watchers, deliveries })
}
