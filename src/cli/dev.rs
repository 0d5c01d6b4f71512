//! `switchboard dev`: everything in one process. It prints a page that says how to try it, when it has started and again when
//! Enter is pressed; `--page` prints that of one that runs.

use std::{
    fs,
    io::{IsTerminal, Read, stdin},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    Failure, Outcome, block_on, complain,
    page::Page,
    print,
    running::{Running, none_runs},
    start_logging,
};
use crate::{
    app::{self, RunError},
    auth::{Auth, Grant},
    broker::Broker,
    config::{self, Config, Sources},
    model::{Clock, UserId},
};

/// How long a running dev may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How long the keyboard is left alone while the terminal is another program's.
const REST: Duration = Duration::from_millis(500);

/// Its flags, beside those of settings.
pub(super) fn command() -> Command {
    Command::new("dev").about("Run on this machine alone, with nothing to install").arg(
        Arg::new("page")
            .long("page")
            .action(ArgAction::SetTrue)
            .help("Print the page of the dev that runs with this DATA_DIR, with fresh tokens, and end"),
    )
}

/// Runs it, or prints the page of one that runs.
pub(super) fn run(matches: &ArgMatches, sources: &Sources) -> Result<Outcome, Failure> {
    let folder = config::data_folder(sources)?;
    if matches.get_flag("page") {
        return show_page(&folder, sources);
    }
    let config = Config::load(true, sources)?;
    start_logging(&config.log);
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    let mut running = None;
    let ready = |broker: &Broker, clients: &[SocketAddr], admins: &[SocketAddr]| {
        let Some(address) = clients.first().copied() else { return };
        let page = Page { config: broker.config.clone(), clients: address, admin: admins.first().copied() };
        let announced = Running { pid: std::process::id(), clients: address, admin: page.admin };
        match announced.announce(&folder) {
            Ok(()) => running = Some(announced),
            Err(error) => tracing::warn!(%error, "switchboard chat won't find this dev without --url"),
        }
        show(&page);
        if stdin().is_terminal() {
            thread::spawn(move || show_on_enter(&page));
        }
    };
    let ended = block_on(app::run(config, ready))?;
    if let Some(running) = running {
        running.withdraw(&folder);
    }
    ended.map(|()| Outcome::Done).map_err(|error| {
        let taken = matches!(&error, RunError::Listen { error, .. } if error.kind() == std::io::ErrorKind::AddrInUse);
        let hint = if taken { "\nIf that is a switchboard dev: switchboard dev --page shows its page" } else { "" };
        Failure::Runtime(format!("{error}{hint}"))
    })
}

fn show(page: &Page) {
    match page.text() {
        Ok(text) => print(&text),
        Err(error) => tracing::warn!(%error, "no tokens to try"),
    }
}

/// Prints the page of the dev that runs with this data folder.
fn show_page(folder: &Path, sources: &Sources) -> Result<Outcome, Failure> {
    let running = Running::find(folder).map_err(Failure::Runtime)?;
    // Where dev ran there is a secret, so none is made.
    let config = Arc::new(Config::load(true, sources)?);
    let auth = Auth::new(&config.auth, Clock::system()).map_err(Failure::runtime)?;
    block_on(check(&running, &auth, folder))??;
    let page = Page { config, clients: running.clients, admin: running.admin };
    print(&page.text().map_err(Failure::runtime)?);
    Ok(Outcome::Done)
}

/// Asks whether the dev that left this note still runs, and takes tokens that are made here.
async fn check(running: &Running, auth: &Auth, folder: &Path) -> Result<(), Failure> {
    let user = UserId::parse("alice").map_err(Failure::runtime)?;
    let grant = Grant { user: &user, name: None, role: None, tier: None };
    let token = auth.mint(grant, TIMEOUT, None).map_err(Failure::runtime)?.token;
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().map_err(Failure::runtime)?;
    let url = format!("http://{}/api/connections/info", running.clients);
    let answer = client.get(url).bearer_auth(token).send().await;
    match answer.map(|answer| answer.status()) {
        Ok(status) if status.is_success() => Ok(()),
        Ok(_) => Err(Failure::Runtime(format!(
            "what listens at {} is not the switchboard dev of {}, or has another JWT_SECRET",
            running.clients,
            folder.display()
        ))),
        Err(_) => Err(Failure::Runtime(none_runs(folder))),
    }
}

/// Prints the page whenever Enter is pressed. The terminal is read only while this program is in its foreground: a read from
/// the background would stop the whole process.
fn show_on_enter(page: &Page) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let watched = runtime.and_then(|runtime| {
        runtime.block_on(async {
            #[expect(
                deprecated,
                reason = "it asks for a descriptor that stays open: standard input is never closed here"
            )]
            let input = AsyncFd::with_interest(stdin(), Interest::READABLE)?;
            loop {
                let mut ready = input.readable().await?;
                if is_in_foreground() {
                    let mut line = [0_u8; 1_024];
                    if stdin().lock().read(&mut line)? == 0 {
                        return Ok(());
                    }
                    show(page);
                }
                ready.clear_ready();
                tokio::time::sleep(REST).await;
            }
        })
    });
    let watched: std::io::Result<()> = watched;
    if let Err(error) = watched {
        complain(format!("Enter does not show the page again: {error}"));
    }
}

/// Whether the terminal's foreground is this program's. Where the system doesn't tell, it is not.
fn is_in_foreground() -> bool {
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return false };
    // Behind the name: the state, the parent, the group, the session, the terminal, the terminal's foreground group.
    let fields: Vec<&str> = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    matches!(fields[..], [_, _, group, _, _, foreground, ..] if group == foreground)
}
