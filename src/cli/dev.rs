//! What `switchboard dev` says when it has started: how to try it.

use std::{fmt::Write, net::SocketAddr, time::Duration};

use crate::{
    auth::{Auth, Grant},
    config::{AuthKey, Config, DEV_SECRET_FILE, StoreBackend},
    model::{Reject, UserId},
};

/// How long the ready-made tokens live: a day's work.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3_600);
/// Whom they are for.
const USERS: [(&str, &str, Option<&str>); 3] =
    [("alice", "Alice", None), ("bob", "Bob", None), ("carol", "Carol", Some("admin"))];

/// The secret, where it is the one that dev made for itself: one that was configured is not shown.
fn own_secret(config: &Config) -> Option<&str> {
    let (StoreBackend::Sqlite { path }, AuthKey::Secret { secret, .. }) = (&config.store.backend, &config.auth.key)
    else {
        return None;
    };
    let own = std::fs::read_to_string(path.with_file_name(DEV_SECRET_FILE)).ok()?;
    (own.trim() == secret.reveal()).then(|| secret.reveal())
}

/// The text. `address` is where clients connect, `admin` where metrics are.
///
/// # Errors
/// Tokens can't be made, as with a public key alone.
pub(super) fn welcome(
    config: &Config,
    address: SocketAddr,
    admin: Option<SocketAddr>,
    auth: &Auth,
) -> Result<String, Reject> {
    let tokens = USERS.iter().map(|(user, name, role)| {
        let id = UserId::parse(user).map_err(|error| Reject::Invalid(error.to_string()))?;
        let grant = Grant { user: &id, name: Some(name), role: *role, tier: None };
        auth.mint(grant, TOKEN_TTL, None).map(|minted| (*user, *role, minted.token))
    });
    let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
    let alice = tokens.first().map_or("", |(_, _, token)| token.as_str());

    let mut text = String::from("\nSwitchboard, DEVELOPMENT MODE: for this machine alone, never for users.\n");
    // Writing to a String can't fail.
    let _ = writeln!(text, "\n  WebSocket  ws://{address}/v1/ws   ws://{address}/ws/ROOM?token=TOKEN");
    let _ = writeln!(text, "  REST       http://{address}/api/…");
    let _ = writeln!(text, "  Health     http://{address}/api/health");
    if let Some(admin) = admin {
        let _ = writeln!(text, "  Metrics    http://{admin}/metrics");
    }
    if let StoreBackend::Sqlite { path } = &config.store.backend {
        let _ = writeln!(text, "  Data       {} (delete it to begin anew)", path.display());
    }
    if let Some(secret) = own_secret(config) {
        let _ = writeln!(text, "  Secret     {secret} (HS256; JWT_SECRET sets another)");
    }
    let _ = writeln!(text, "\nTokens, good for a day (more: switchboard token --dev --user NAME):");
    for (user, role, token) in &tokens {
        let role = role.map_or_else(String::new, |role| format!(" ({role})"));
        let _ = writeln!(text, "\n  {user}{role}\n  {token}");
    }
    let _ = write!(
        text,
        "\nTry it in two terminals, as alice and as bob:\n\
         \n  websocat 'ws://{address}/ws/lobby?token={alice}'\n\
         \n  then type  {{\"type\":\"send_message\",\"data\":{{\"content\":\"hello\"}}}}\n\
         \nJavaScript:\n\
         \n  const ws = new WebSocket(\"ws://{address}/ws/lobby?token=TOKEN\")\
         \n  ws.onmessage = (event) => console.log(event.data)\
         \n  ws.onopen = () => ws.send(JSON.stringify({{type: \"send_message\", data: {{content: \"hello\"}}}}))\n\
         \nPython (pip install websockets):\n\
         \n  from websockets.sync.client import connect\
         \n  with connect(\"ws://{address}/ws/lobby?token=TOKEN\") as ws:\
         \n      print(ws.recv())\n\n",
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{config::Sources, model::Clock};

    #[test]
    fn the_tokens_are_good_and_the_url_is_the_one_that_was_bound() {
        let folder = tempfile::tempdir().unwrap();
        let flags = BTreeMap::from([("DATA_DIR".to_owned(), folder.path().to_str().unwrap().to_owned())]);
        let sources = Sources { flags, environment: Box::new(|_| None), dotenv: BTreeMap::new(), open_files: None };
        let config = Config::load(true, &sources).unwrap();
        let auth = Auth::new(&config.auth, Clock::system()).unwrap();
        let text = welcome(&config, "127.0.0.1:4711".parse().unwrap(), None, &auth).unwrap();
        assert!(text.contains("DEVELOPMENT") && text.contains("ws://127.0.0.1:4711/v1/ws"));
        let tokens = text.lines().filter_map(|line| auth.verify(line.trim()).ok());
        let users: Vec<String> = tokens.map(|identity| identity.user.to_string()).collect();
        assert_eq!(users, ["alice", "bob", "carol"]);
    }
}
