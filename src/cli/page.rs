//! The page that `switchboard dev` prints: commands to try. Each command works when it is pasted into bash, in any
//! folder.

use std::{
    fmt::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    auth::{Auth, Grant},
    config::{AuthKey, Config, DEV_ADMIN_TOKEN_FILE, DEV_SECRET_FILE, StoreBackend},
    model::{Clock, Reject, UserId},
    restrictions::Restrictions,
};

/// Lifetime of the tokens on the page.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3_600);
/// Users of the tokens on the page: id, display name and role.
const USERS: [(&str, &str, Option<&str>); 3] =
    [("alice", "Alice", None), ("bob", "Bob", None), ("carol", "Carol", Some("admin"))];

/// Facts about a running dev, for its page.
#[derive(Clone)]
pub(super) struct Page {
    pub(super) config: Arc<Config>,
    /// Address of the clients' listener.
    pub(super) clients: SocketAddr,
    /// Address of the admin listener, which has the metrics.
    pub(super) admin: Option<SocketAddr>,
}

impl Page {
    /// The page's text, with fresh tokens.
    ///
    /// # Errors
    /// Tokens can't be minted, as with a public key.
    pub(super) fn text(&self) -> Result<String, Reject> {
        let auth = Auth::new(&self.config.auth, Clock::system(), Restrictions::none())
            .map_err(|error| Reject::Invalid(error.to_string()))?;
        let tokens = USERS.iter().map(|(user, name, role)| {
            let id = UserId::parse(user).map_err(|error| Reject::Invalid(error.to_string()))?;
            let grant = Grant { user: &id, name: Some(name), role: *role, tier: None };
            auth.mint(grant, TOKEN_TTL, None).map(|minted| (*user, *role, minted.token))
        });
        let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
        let [(_, _, alice), (_, _, bob), ..] = &tokens[..] else { return Ok(String::new()) };

        let mut text = String::from("\nSwitchboard, DEVELOPMENT MODE: for this machine only, not for production.\n");
        // Writing to a String can't fail.
        let _ = write!(text, "{}{}{}", self.addresses(), self.chat(&tokens), self.others(alice, bob));
        Ok(text)
    }

    fn addresses(&self) -> String {
        let Self { config, clients, admin } = self;
        let mut text = format!(
            "\n  Open       http://{clients}/  (Alice and Bob side by side, in a browser on this machine)\n\n  WebSocket  ws://{clients}/v1/ws\n  REST       http://{clients}/api/…\n  Health     http://{clients}/api/health\n"
        );
        if let Some(admin) = admin {
            let _ = writeln!(text, "  Metrics    http://{admin}/metrics");
            if let Some(token) = own_admin_token(config) {
                let _ = writeln!(text, "  Console    http://{admin}/admin/ (token {token})");
            }
        }
        let _ = writeln!(text, "  Data       {} (delete it to start over)", self.folder().display());
        if let Some(secret) = own_secret(config) {
            let _ = writeln!(text, "  Secret     {secret} (HS256; JWT_SECRET sets another)");
        }
        text
    }

    /// The commands for `switchboard chat`, and the tokens.
    fn chat(&self, tokens: &[(&str, Option<&str>, String)]) -> String {
        let program = quoted(&program().to_string_lossy());
        let folder = quoted(&self.folder().to_string_lossy());
        let mut text = format!(
            "\nChat, in two terminals:\n\n{program} chat --data-dir {folder} --user alice --room lobby\n\
             \n{program} chat --data-dir {folder} --user bob --room lobby\n\
             \nTokens, good for a day. For more:\n\n{program} token --dev --data-dir {folder} --ttl 1d --user dave\n"
        );
        for (user, role, token) in tokens {
            let role = role.map_or_else(String::new, |role| format!(" ({role})"));
            let _ = write!(text, "\n  {user}{role}\n  {token}\n");
        }
        text
    }

    /// The commands for a browser, Python and curl.
    fn others(&self, alice: &str, bob: &str) -> String {
        let (clients, venv) = (self.clients, quoted(&self.folder().join("python").to_string_lossy()));
        let (program, folder) = (quoted(&program().to_string_lossy()), quoted(&self.folder().to_string_lossy()));
        let room = format!("ws://{clients}/ws/lobby?token=");
        let messages = format!("http://{clients}/api/chat/conversations/lobby/messages");
        format!(
            "\nBrowser (open http://{clients}/api/health, then F12, Console):\n\n\
             ws = new WebSocket(\"{room}{bob}\"); \
             ws.onmessage = (event) => console.log(event.data); \
             ws.onopen = () => ws.send(JSON.stringify({{type: \"send_message\", data: {{content: \"hello from a browser\"}}}}))\n\
             \nPython (on Debian: apt install python3-venv):\n\n\
             python3 -m venv {venv} && {venv}/bin/pip install --quiet websockets && {venv}/bin/python - <<'EOF'\n\
             import json\n\
             from websockets.sync.client import connect\n\
             with connect(\"{room}{bob}\") as ws:\n    \
                 ws.send(json.dumps({{\"type\": \"send_message\", \"data\": {{\"content\": \"hello from Python\"}}}}))\n    \
                 while json.loads(frame := ws.recv())[\"type\"] != \"message_sent\":\n        \
                     print(frame)\n    \
                 print(frame)\n\
             EOF\n\
             \ncurl (the chat command first makes alice a member of the room):\n\n\
             {program} chat --data-dir {folder} --user alice --room lobby </dev/null && \
             curl -sS -H 'Authorization: Bearer {alice}' -H 'Content-Type: application/json' \
             -d '{{\"content\": \"hello from curl\"}}' {messages}\n\
             \ncurl -sS -H 'Authorization: Bearer {alice}' '{messages}?limit=10'\n\
             \nThis page again: Enter, or {program} dev --page --data-dir {folder}\n\n",
        )
    }

    /// The data folder, as an absolute path.
    fn folder(&self) -> PathBuf {
        let StoreBackend::Sqlite { path } = &self.config.store.backend else { return PathBuf::new() };
        let folder = path.parent().unwrap_or(Path::new("."));
        std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
    }
}

/// The secret if dev generated it; a configured secret must not be printed.
fn own_secret(config: &Config) -> Option<&str> {
    let (StoreBackend::Sqlite { path }, AuthKey::Secret { secret, .. }) = (&config.store.backend, &config.auth.key)
    else {
        return None;
    };
    let own = std::fs::read_to_string(path.with_file_name(DEV_SECRET_FILE)).ok()?;
    (own.trim() == secret.reveal()).then(|| secret.reveal())
}

/// The console's token if dev generated it.
fn own_admin_token(config: &Config) -> Option<&str> {
    let (StoreBackend::Sqlite { path }, Some(console)) = (&config.store.backend, &config.console) else { return None };
    let own = std::fs::read_to_string(path.with_file_name(DEV_ADMIN_TOKEN_FILE)).ok()?;
    (own.trim() == console.token.reveal()).then(|| console.token.reveal())
}

/// An absolute path of this program, which works from any folder.
fn program() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "switchboard".into())
}

/// Quotes a word for bash.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Sources;

    #[test]
    fn the_page_has_valid_tokens_and_the_bound_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let flags = BTreeMap::from([("DATA_DIR".to_owned(), folder.path().to_str().unwrap().to_owned())]);
        let sources = Sources { flags, environment: Box::new(|_| None), dotenv: BTreeMap::new(), open_files: None };
        let config = Arc::new(Config::load(true, &sources).unwrap());
        let auth = Auth::new(&config.auth, Clock::system(), Restrictions::none()).unwrap();
        let page = Page { config, clients: "127.0.0.1:4711".parse().unwrap(), admin: None };
        let text = page.text().unwrap();
        assert!(text.contains("DEVELOPMENT") && text.contains("ws://127.0.0.1:4711/v1/ws"));
        assert!(text.contains(&format!("--data-dir {}", folder.path().display())));
        let tokens = text.lines().filter_map(|line| auth.verify(line.trim()).ok());
        let users: Vec<String> = tokens.map(|identity| identity.user.to_string()).collect();
        assert_eq!(users, ["alice", "bob", "carol"]);
        assert!(!text.contains("TOKEN") && !text.contains("8000"), "{text}");
    }

    #[test]
    fn words_are_quoted_for_bash() {
        assert_eq!(quoted("/usr/bin/switchboard"), "/usr/bin/switchboard");
        assert_eq!(quoted("/home/a b/it's"), r"'/home/a b/it'\''s'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("~/$x"), "'~/$x'");
    }
}
