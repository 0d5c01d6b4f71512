//! `switchboard dev`: a complete node in one process. It prints a page of commands to try, once after the start and
//! again at each Enter. `dev --page` prints the page of a running dev.

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
    outcome::{Failure, Outcome, block_on, print, print_error, start_logging, with_causes},
    page::Page,
    running::{Running, lock_folder, not_running_message},
};
use crate::{
    app::{self, RunError},
    auth::{Auth, Grant},
    broker::Broker,
    config::{self, Config, Sources},
    model::{Clock, UserId},
    restrictions::Restrictions,
};

/// Maximum time for a running dev to answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Interval between two checks of the keyboard; the program may be in the terminal's background meanwhile.
const KEYBOARD_INTERVAL: Duration = Duration::from_millis(500);

/// Defines the command's own flags; `with_settings` adds those of settings.
pub(super) fn command() -> Command {
    Command::new("dev").about("Run a node for this machine only; it needs no Redis and no PostgreSQL").arg(
        Arg::new("page")
            .long("page")
            .action(ArgAction::SetTrue)
            .help("Print the page of the dev that runs with this DATA_DIR, with fresh tokens, and exit"),
    )
}

/// Runs dev, or prints the page of a running dev.
pub(super) fn run(matches: &ArgMatches, sources: &Sources) -> Result<Outcome, Failure> {
    let folder = config::data_folder(sources)?;
    if matches.get_flag("page") {
        return print_running_page(&folder, sources);
    }
    let config = Config::load(true, sources)?;
    let _locked = lock_folder(&folder).map_err(Failure::Runtime)?;
    start_logging(&config.log);
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    let mut running = None;
    let ready = |broker: &Broker, clients: &[SocketAddr], admins: &[SocketAddr]| {
        let Some(address) = clients.first().copied() else { return };
        let page = Page { config: broker.config.clone(), clients: address, admin: admins.first().copied() };
        let listening = Running { pid: std::process::id(), clients: address, admin: page.admin };
        match listening.write(&folder) {
            Ok(()) => running = Some(listening),
            Err(error) => {
                tracing::warn!(%error, "running.json can't be written: switchboard chat finds this dev only with --url")
            }
        }
        print_page(&page);
        if stdin().is_terminal() {
            thread::spawn(move || print_page_on_enter(&page));
        }
    };
    let ended = block_on(app::run(config, ready))?;
    if let Some(running) = running {
        running.remove(&folder);
    }
    ended.map(|()| Outcome::Done).map_err(|error| {
        let taken = matches!(&error, RunError::Listen { error, .. } if error.kind() == std::io::ErrorKind::AddrInUse);
        let hint = if taken {
            "\nIf that is a switchboard dev, this shows its page in the folder where it runs: switchboard dev --page"
        } else {
            ""
        };
        Failure::Runtime(format!("{}{hint}", with_causes(&error)))
    })
}

fn print_page(page: &Page) {
    match page.text() {
        Ok(text) => {
            if let Err(Failure::Runtime(error)) = print(&text) {
                tracing::warn!("the page is not shown: {error}");
            }
        }
        Err(error) => tracing::warn!(%error, "the page is not shown: tokens can't be minted"),
    }
}

/// Prints the page of the dev that runs with this data folder.
fn print_running_page(folder: &Path, sources: &Sources) -> Result<Outcome, Failure> {
    let running = Running::find(folder).map_err(Failure::Runtime)?;
    // The folder of a running dev has a secret already, so loading the configuration creates none.
    let config = Arc::new(Config::load(true, sources)?);
    let auth = Auth::new(&config.auth, Clock::system(), Restrictions::none()).map_err(Failure::runtime)?;
    block_on(verify_running(&running, &auth, folder))??;
    let page = Page { config, clients: running.clients, admin: running.admin };
    print(&page.text().map_err(Failure::runtime)?)?;
    Ok(Outcome::Done)
}

/// Checks that the dev of `running.json` still runs and accepts tokens minted with this configuration.
async fn verify_running(running: &Running, auth: &Auth, folder: &Path) -> Result<(), Failure> {
    let user = UserId::parse("alice").map_err(Failure::runtime)?;
    let grant = Grant { user: &user, name: None, role: None, tier: None };
    let token = auth.mint(grant, TIMEOUT, None).map_err(Failure::runtime)?.token;
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().map_err(Failure::runtime)?;
    let url = format!("http://{}/api/connections/info", running.clients);
    let answer = client.get(url).bearer_auth(token).send().await;
    match answer.map(|answer| answer.status()) {
        Ok(status) if status.is_success() => Ok(()),
        Ok(_) => Err(Failure::Runtime(format!(
            "the server at {} is not the switchboard dev of {}, or it has another JWT_SECRET",
            running.clients,
            folder.display()
        ))),
        Err(_) => Err(Failure::Runtime(not_running_message(folder))),
    }
}

/// Prints the page at each Enter. Reads the terminal only while this program is in its foreground, because a read from
/// the background would stop the whole process (SIGTTIN).
fn print_page_on_enter(page: &Page) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let watched = runtime.and_then(|runtime| {
        runtime.block_on(async {
            #[expect(deprecated, reason = "the descriptor must stay open, and nothing closes standard input here")]
            let input = AsyncFd::with_interest(stdin(), Interest::READABLE)?;
            loop {
                let mut ready = input.readable().await?;
                if is_in_foreground() {
                    let mut line = [0_u8; 1_024];
                    if stdin().lock().read(&mut line)? == 0 {
                        return Ok(());
                    }
                    print_page(page);
                }
                ready.clear_ready();
                tokio::time::sleep(KEYBOARD_INTERVAL).await;
            }
        })
    });
    let watched: std::io::Result<()> = watched;
    if let Err(error) = watched {
        print_error(format!("Enter does not show the page again: the keyboard can't be read: {error}"));
    }
}

/// True if this process is in the terminal's foreground; false if `/proc` doesn't tell.
fn is_in_foreground() -> bool {
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return false };
    // Fields after the name: state, parent, process group, session, terminal, the terminal's foreground group.
    let fields: Vec<&str> = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    matches!(fields[..], [_, _, group, _, _, foreground, ..] if group == foreground)
}
