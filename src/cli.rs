//! The command line: dev, chat, serve, migrate, token, admin, check, load, healthcheck.
//!
//! Data goes to standard output, everything else to standard error. Exit codes: 0 success, 1 failure, 2 wrong usage,
//! 78 bad configuration.

use std::{collections::BTreeMap, process::ExitCode};

use clap::{Arg, ArgAction, ArgMatches, Command};

mod admin;
mod chat;
mod check;
mod dev;
mod inspect;
mod load;
mod outcome;
mod page;
mod probe;
mod running;
mod server_url;
mod token;

use outcome::{Failure, Outcome, block_on, output_failure, print, print_error, start_logging};

use crate::{
    app::{self, RunError},
    backplane::StartError,
    config::{
        self, Config, ConfigFault, ConfigFaults, LogConfig, Sources, StoreConfig,
        settings::{self, Group, Setting},
    },
    metrics::COMMIT,
};

/// The exit code of bad configuration (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIGURATION: u8 = 78;

/// Runs the program: parses the command line, runs the command and returns the exit code.
pub fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let printed = error.print();
            // Wrong usage goes to standard error: if that fails, the exit code still reports it.
            let failure = printed.err().filter(|_| !error.use_stderr()).and_then(|error| output_failure(&error));
            return failure.map_or_else(|| ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)), report);
        }
    };
    install_crypto();
    raise_open_files();
    match run(&matches) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Err(failure) => report(failure),
    }
}

/// Prints the failure and returns its exit code.
fn report(failure: Failure) -> ExitCode {
    match failure {
        Failure::Runtime(message) => {
            print_error(message);
            ExitCode::FAILURE
        }
        Failure::Configuration(faults) => {
            print_error(faults);
            ExitCode::from(EXIT_CONFIGURATION)
        }
    }
}

/// Installs aws-lc as the crypto provider for tokens and TLS. A second installation fails harmlessly: it is the same
/// one.
fn install_crypto() {
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Raises the soft limit of open files to the hard limit; the soft limit is often 1,024, for programs that use
/// `select`. If that fails, the node lowers its connection limit and logs it.
fn raise_open_files() {
    let _ = rlimit::increase_nofile_limit(rlimit::INFINITY);
}

fn run(matches: &ArgMatches) -> Result<Outcome, Failure> {
    let Some((name, matches)) = matches.subcommand() else { return Ok(Outcome::Failed) };
    match name {
        "config-docs" => {
            print(&config::markdown())?;
            Ok(Outcome::Done)
        }
        "dev" => dev::run(matches, &sources(matches)?),
        "chat" => chat::run(matches, &sources(matches)?),
        "serve" => serve(&sources(matches)?),
        "migrate" => migrate(matches),
        "token" => token::run(matches, &sources(matches)?),
        "admin" => admin::run(matches, &sources(matches)?),
        "check" => check::run(&sources(matches)?),
        "load" => load::run(matches, &sources(matches)?),
        // "healthcheck": clap accepts no other name.
        _ => probe::run(matches, &sources(matches)?),
    }
}

fn serve(sources: &Sources) -> Result<Outcome, Failure> {
    let config = Config::load(false, sources)?;
    start_logging(&config.log);
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    block_on(app::run(config, |_, _, _| {}))?.map_err(start_failure)?;
    Ok(Outcome::Done)
}

/// The failure of a node that did not start, or ended.
fn start_failure(error: RunError) -> Failure {
    match error {
        RunError::Backplane(StartError::WrongForm(why)) => {
            let fault =
                ConfigFault { variable: settings::REDIS_URL.name.to_owned(), message: format!("does not fit: {why}") };
            Failure::Configuration(ConfigFaults(vec![fault]))
        }
        error => Failure::runtime(error),
    }
}

fn migrate(matches: &ArgMatches) -> Result<Outcome, Failure> {
    let sources = sources(matches)?;
    let store = StoreConfig::load(false, &sources)?;
    start_logging(&LogConfig::load(&sources)?);
    let count = block_on(app::migrate(&store))?.map_err(Failure::runtime)?;
    print(&format!("{count} migrations applied\n"))?;
    Ok(Outcome::Done)
}

/// Sources of the settings: the flags of this command, the process's environment and its files.
fn sources(matches: &ArgMatches) -> Result<Sources, ConfigFaults> {
    let names = settings::ALL.iter().flat_map(|s| std::iter::once(s.name.to_owned()).chain(s.file_name()));
    let flags = names.filter_map(|name| {
        let value = matches.try_get_one::<String>(&name).ok().flatten()?;
        Some((name, value.clone()))
    });
    Sources::of_process(flags.collect::<BTreeMap<_, _>>())
}

/// The definition of the command line.
fn command() -> Command {
    let every = |_: &Setting| true;
    let logs = |setting: &Setting| setting.group == Group::Logs;
    let tokens = |s: &Setting| s.group == Group::Tokens || *s == settings::DATA_DIR;
    let store = move |s: &Setting| (s.group == Group::Store && *s != settings::DATA_DIR) || logs(s);
    let database = |s: &Setting| {
        let named = [
            settings::DATABASE_URL,
            settings::DATABASE_CA_FILE,
            settings::DATA_DIR,
            settings::MAX_REVOCATIONS,
            settings::ADMIN_LISTEN,
            settings::ADMIN_TOKEN,
        ];
        named.contains(s)
    };
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
            with_settings(
                Command::new("migrate").about("Apply pending migrations to PostgreSQL; waits while it is away"),
                false,
                store,
            ),
            with_settings(token::command(), false, tokens),
            with_settings(admin::command(), false, database).mut_args(|arg| arg.global(true)),
            with_settings(
                Command::new("check")
                    .about("Check the configuration, Redis, PostgreSQL and keys, and report each result"),
                false,
                every,
            ),
            with_settings(load::command(), false, tokens),
            with_settings(probe::command(), false, addresses),
            Command::new("config-docs").about("Print docs/operations/configuration.md").hide(true),
        ])
}

/// Adds the flags of the chosen settings to a command.
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
    fn the_command_line_is_consistent() {
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
