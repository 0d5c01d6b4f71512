//! The command line: dev, chat, serve, migrate, token, check, healthcheck.
//!
//! Data goes to standard output, everything else to standard error. Exit codes: 0 done, 1 it failed, 2 wrong usage,
//! 78 bad configuration.

use std::{
    collections::BTreeMap,
    fmt::Display,
    future::Future,
    io::{IsTerminal, Write, stderr, stdout},
    process::ExitCode,
    sync::Arc,
};

use clap::{Arg, ArgAction, ArgMatches, Command};
use tracing::subscriber::set_global_default;
use tracing_subscriber::{fmt, layer::SubscriberExt};

mod chat;
mod check;
mod dev;
mod page;
mod probe;
mod running;
mod token;

use crate::{
    app,
    config::{
        self, Config, ConfigFaults, LogConfig, LogFormat, Sources, StoreConfig,
        settings::{self, Group, Setting},
    },
    metrics::COMMIT,
    metrics::Metrics,
};

/// How a command ended.
enum Outcome {
    /// All went well.
    Done,
    /// It failed, and has said why.
    Failed,
}

/// Why a command could not do its work.
enum Failure {
    /// The configuration is bad.
    Configuration(ConfigFaults),
    /// Something failed while it ran.
    Runtime(String),
}

impl From<ConfigFaults> for Failure {
    fn from(faults: ConfigFaults) -> Self {
        Self::Configuration(faults)
    }
}

impl Failure {
    fn runtime(error: impl Display) -> Self {
        Self::Runtime(error.to_string())
    }
}

/// The exit code of bad configuration (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIGURATION: u8 = 78;

/// Runs the program: reads the command line, does what it says, and gives the exit code.
pub fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            // With nowhere to print to, the exit code still tells.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    install_crypto();
    raise_open_files();
    match run(&matches) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Err(Failure::Runtime(message)) => {
            complain(message);
            ExitCode::FAILURE
        }
        Err(Failure::Configuration(faults)) => {
            complain(faults);
            ExitCode::from(EXIT_CONFIGURATION)
        }
    }
}

/// Chooses one crypto library for tokens and TLS. Both refuse a second choice, which then was the same.
fn install_crypto() {
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Takes as many open files as the process may: the soft limit is often 1,024, for programs older than `epoll`. Where that
/// fails the node makes do with fewer connections, and says so.
fn raise_open_files() {
    let _ = rlimit::increase_nofile_limit(rlimit::INFINITY);
}

fn complain(message: impl Display) {
    let _ = writeln!(stderr(), "switchboard: {message}");
}

/// Prints to standard output. A reader that went away is no failure of ours.
fn print(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn run(matches: &ArgMatches) -> Result<Outcome, Failure> {
    let Some((name, matches)) = matches.subcommand() else { return Ok(Outcome::Failed) };
    match name {
        "config-docs" => {
            print(&config::markdown());
            Ok(Outcome::Done)
        }
        "dev" => dev::run(matches, &sources(matches)?),
        "chat" => chat::run(matches, &sources(matches)?),
        "serve" => serve(&sources(matches)?),
        "migrate" => migrate(matches),
        "token" => token::run(matches, &sources(matches)?),
        "check" => check::run(&sources(matches)?),
        // clap knows no other name.
        _ => probe::run(matches.get_flag("dev"), &sources(matches)?),
    }
}

fn serve(sources: &Sources) -> Result<Outcome, Failure> {
    let config = Config::load(false, sources)?;
    start_logging(&config.log);
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    block_on(app::run(config, |_, _, _| {}))?.map_err(Failure::runtime)?;
    Ok(Outcome::Done)
}

fn migrate(matches: &ArgMatches) -> Result<Outcome, Failure> {
    let sources = sources(matches)?;
    let store = StoreConfig::load(&sources)?;
    start_logging(&LogConfig::load(&sources)?);
    let metrics = Arc::new(Metrics::new().map_err(Failure::runtime)?);
    let applied = block_on(async { app::open_store(&store, metrics).await?.migrate().await })?;
    let count = applied.map_err(Failure::runtime)?;
    print(&format!("{count} migrations applied\n"));
    Ok(Outcome::Done)
}

/// Runs a future on a runtime of its own.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    Ok(runtime.map_err(Failure::runtime)?.block_on(future))
}

fn start_logging(config: &LogConfig) {
    let json = match config.format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(config.filter.clone());
    let lines = fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
    // Set without the bridge from the `log` crate: libraries log frames and queries there, with what users wrote and
    // with tokens. A second start of logging, in a test, keeps the first.
    let _ = if json {
        set_global_default(registry.with(lines.json().flatten_event(true).with_current_span(false)))
    } else {
        set_global_default(registry.with(lines.with_target(false)))
    };
}

/// What settings are read from: the flags of this command, and the process.
fn sources(matches: &ArgMatches) -> Result<Sources, ConfigFaults> {
    let names = settings::ALL.iter().flat_map(|s| std::iter::once(s.name.to_owned()).chain(s.file_name()));
    let flags = names.filter_map(|name| {
        let value = matches.try_get_one::<String>(&name).ok().flatten()?;
        Some((name, value.clone()))
    });
    Sources::of_process(flags.collect::<BTreeMap<_, _>>())
}

/// The whole command line.
fn command() -> Command {
    let every = |_: &Setting| true;
    let logs = |setting: &Setting| setting.group == Group::Logs;
    let tokens = |s: &Setting| s.group == Group::Tokens || *s == settings::DATA_DIR;
    let store = move |s: &Setting| (s.group == Group::Store && *s != settings::DATA_DIR) || logs(s);
    let addresses = |s: &Setting| *s == settings::LISTEN || *s == settings::ADMIN_LISTEN;
    let version = format!("{} ({COMMIT})", env!("CARGO_PKG_VERSION"));
    Command::new("switchboard")
        .version(version)
        .about("A connection broker for real-time chat")
        .after_long_help(config::summary())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .max_term_width(110)
        .subcommands([
            with_settings(dev::command(), true, every),
            with_settings(chat::command(), true, tokens),
            with_settings(Command::new("serve").about("Run a node"), false, every),
            with_settings(Command::new("migrate").about("Apply pending migrations to PostgreSQL"), false, store),
            with_settings(token::command(), false, tokens),
            with_settings(
                Command::new("check").about("Check the configuration, Redis, PostgreSQL and keys, and say what works"),
                false,
                every,
            ),
            with_settings(probe::command(), false, addresses),
            Command::new("config-docs").about("Print docs/operations/configuration.md").hide(true),
        ])
}

/// Gives a command the flags of those settings.
fn with_settings(command: Command, dev: bool, which: impl Fn(&Setting) -> bool) -> Command {
    let chosen = settings::ALL.iter().filter(|setting| which(setting));
    chosen.fold(command, |command, setting| {
        let command = command.arg(
            Arg::new(setting.name)
                .long(setting.flag())
                .value_name("VALUE")
                .help(config::flag_help(setting, dev))
                .help_heading(setting.group.title())
                .action(ArgAction::Set),
        );
        let Some(file) = setting.file_name() else { return command };
        command.arg(
            Arg::new(file.clone())
                .long(config::flag_of(&file))
                .value_name("FILE")
                .help(format!("A file to read {} from [env {file}]", setting.name))
                .help_heading(setting.group.title()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn unknown_flags_are_wrong_usage() {
        let error = command().try_get_matches_from(["switchboard", "serve", "--max-conections", "5"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn help_documents_every_setting_with_its_default_and_unit() {
        for name in ["serve", "dev"] {
            let error = command().try_get_matches_from(["switchboard", name, "--help"]).unwrap_err();
            assert_eq!(error.exit_code(), 0);
            // Lines are wrapped to the terminal's width; words are not.
            let help = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            for setting in settings::ALL {
                assert!(help.contains(&format!("--{}", setting.flag())), "{}", setting.name);
                let shown = config::flag_help(setting, name == "dev");
                assert!(help.contains(&shown), "{shown}");
            }
        }
    }

    #[test]
    fn flags_reach_the_sources() {
        let matches = command()
            .try_get_matches_from(["switchboard", "serve", "--max-connections", "5", "--jwt-secret-file", "/x"])
            .unwrap();
        let sources = sources(matches.subcommand().unwrap().1).unwrap();
        assert_eq!(sources.flags["MAX_CONNECTIONS"], "5");
        assert_eq!(sources.flags["JWT_SECRET_FILE"], "/x");
    }
}
