//! Results of a subcommand, and what every subcommand uses to run and to print.

use std::{
    error::Error,
    fmt::Display,
    future::Future,
    io::{self, ErrorKind, IsTerminal, Write, stderr, stdout},
};

use tracing::subscriber::set_global_default;
use tracing_subscriber::{fmt, layer::SubscriberExt};

use crate::config::{ConfigFaults, LogConfig, LogFormat};

/// Outcome of a command.
pub(super) enum Outcome {
    /// Success.
    Done,
    /// It failed and has already reported the reason.
    Failed,
}

/// Error of a command, to be reported by `cli::main`.
pub(super) enum Failure {
    /// The configuration is invalid.
    Configuration(ConfigFaults),
    /// An operation failed at run time.
    Runtime(String),
}

impl From<ConfigFaults> for Failure {
    fn from(faults: ConfigFaults) -> Self {
        Self::Configuration(faults)
    }
}

impl Failure {
    pub(super) fn runtime(error: impl Error) -> Self {
        Self::Runtime(with_causes(&error))
    }
}

/// The error and every cause in one line. A cause whose text is part of the line already is not repeated.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}

/// Prints to standard output.
///
/// # Errors
/// As [`output_failure`] says.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) => output_failure(&error).map_or(Ok(()), Err),
    }
}

/// The failure of a command that can't write to standard output, for example to a full disk; `None` for a closed pipe,
/// because its reader wants no more: `switchboard … | head -1` ends quietly.
pub(super) fn output_failure(error: &io::Error) -> Option<Failure> {
    (error.kind() != ErrorKind::BrokenPipe)
        .then(|| Failure::Runtime(format!("standard output can't be written: {error}")))
}

/// Runs a future on a new runtime.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    Ok(runtime.map_err(Failure::runtime)?.block_on(future))
}

pub(super) fn print_error(message: impl Display) {
    let _ = writeln!(stderr(), "switchboard: {message}");
}

pub(super) fn start_logging(config: &LogConfig) {
    let json = match config.format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(config.filter.clone());
    let lines = fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
    // Don't install the bridge from the `log` crate: libraries log frames and queries there, which contain messages and
    // tokens. A second call, in a test, keeps the first subscriber.
    let _ = if json {
        set_global_default(registry.with(lines.json().flatten_event(true).with_current_span(false)))
    } else {
        set_global_default(registry.with(lines.with_target(false)))
    };
    crate::supervise::log_panics();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    #[test]
    fn every_cause_is_in_the_line_once() {
        let layer = |text, cause: Layer| Layer(text, Some(Box::new(cause)));
        let error = layer("store: no connection", layer("no connection", Layer("connection refused", None)));
        assert_eq!(with_causes(&error), "store: no connection: connection refused");
    }
}
