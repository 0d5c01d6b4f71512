//! Command line of the benchmark.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command, builder::PossibleValue, parser::ValueSource, value_parser};
use serde::{Deserialize, Serialize};

/// The curves of `growth`.
pub const CURVES: [&str; 6] = ["members", "followed", "connections", "nodes", "log", "users"];

/// A kind of deployment of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    /// One server.
    Single,
    /// Three masters with a replica each.
    Cluster,
}

impl Engine {
    /// Its name as an argument.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Cluster => "cluster",
        }
    }

    /// The engine with this name.
    pub fn named(name: &str) -> Self {
        if name == Self::Cluster.name() { Self::Cluster } else { Self::Single }
    }
}

/// Settings of a run. The defaults are the load behind the figures in the documentation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Args {
    /// Parts to run.
    pub only: Vec<String>,
    pub seconds: u64,
    /// Length of the soak.
    pub soak_seconds: u64,
    pub rates: Vec<u64>,
    pub sockets: usize,
    pub rooms: usize,
    pub senders: usize,
    pub conversations: usize,
    pub depth: usize,
    pub connections: usize,
    pub connects: usize,
    pub sends: u64,
    pub repetitions: usize,
    /// Growth: the curves, smaller sizes, the largest log, and the file of the curves.
    pub curves: Vec<String>,
    pub quick: bool,
    pub log_entries: u64,
    pub curves_file: PathBuf,
    /// Settings of the node, beside those of the benchmark.
    pub settings: Vec<(String, String)>,
    /// Redis beside which all parts but `soak` and `cluster` are measured.
    pub engine: Engine,
    /// File of an earlier run.
    #[serde(skip)]
    pub compare: Option<String>,
}

/// Length of the soak, unless `--seconds` is given.
const SOAK_SECONDS: u64 = 180;

/// A part that may be named.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    pub name: &'static str,
    pub about: &'static str,
    /// True if it runs without being named.
    pub usual: bool,
}

impl Args {
    /// Parses the command line of this process; a mistake ends it with a message.
    pub fn read(parts: &[Choice]) -> Self {
        Self::parse(parts, std::env::args()).unwrap_or_else(|error| error.exit())
    }

    /// Parses a command line, the program's name included.
    ///
    /// # Errors
    /// The message for the user.
    pub fn parse(parts: &[Choice], words: impl IntoIterator<Item = String>) -> Result<Self, clap::Error> {
        let found = command(parts).try_get_matches_from(words)?;
        let number = |name: &str| found.get_one::<usize>(name).copied().unwrap_or_default().max(1);
        let named = |name: &str| found.get_many::<String>(name).into_iter().flatten().cloned();
        let only: Vec<String> = named("only").chain(named("parts")).collect();
        let seconds = found.get_one("seconds").copied().unwrap_or(10);
        let given = found.value_source("seconds") == Some(ValueSource::CommandLine);
        let usual = parts.iter().filter(|part| part.usual).map(|part| part.name.to_owned());
        Ok(Self {
            only: if only.is_empty() { usual.collect() } else { only },
            seconds,
            soak_seconds: if given { seconds } else { SOAK_SECONDS },
            rates: found.get_many("rates").into_iter().flatten().copied().collect(),
            sockets: number("sockets"),
            rooms: number("rooms"),
            senders: number("senders"),
            conversations: number("conversations"),
            depth: number("depth"),
            connections: number("connections"),
            connects: number("connects"),
            sends: found.get_one("rate").copied().unwrap_or(1_000),
            repetitions: number("repetitions"),
            curves: named("curves").collect(),
            quick: found.get_flag("quick"),
            log_entries: found.get_one("log-entries").copied().unwrap_or(10_000_000),
            curves_file: found.get_one("curves-file").cloned().unwrap_or_default(),
            settings: found.get_many("set").into_iter().flatten().cloned().collect(),
            engine: Engine::named(found.get_one::<String>("engine").map_or("", String::as_str)),
            compare: found.get_one("compare").cloned(),
        })
    }

    /// True if a part is to run.
    pub fn wants(&self, part: &str) -> bool {
        self.only.iter().any(|wanted| wanted == part)
    }
}

fn command(parts: &[Choice]) -> Command {
    let count = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).default_value(default).help(help).value_parser(value_parser!(usize))
    };
    let choices: Vec<PossibleValue> = parts.iter().map(|part| PossibleValue::new(part.name).help(part.about)).collect();
    let named: Vec<_> = parts.iter().filter(|part| !part.usual).map(|part| part.name).collect();
    let parts =
        |name: &'static str, help: String| Arg::new(name).value_delimiter(',').value_parser(choices.clone()).help(help);
    Command::new("load")
        .about("Starts Redis, PostgreSQL and a node, puts load on them, prints the cost and keeps it in a file")
        .arg(parts("parts", format!("Parts to run; by default all but {}", named.join(", "))).num_args(0..))
        .arg(parts("only", "The same".to_owned()).long("only"))
        .arg(
            count("seconds", "10", "Length of each measurement; of the soak, 180 unless this is given")
                .value_parser(value_parser!(u64)),
        )
        .arg(
            Arg::new("rates")
                .long("rates")
                .default_value("20000,100000")
                .value_delimiter(',')
                .value_parser(value_parser!(u64).range(1..))
                .help("Deliveries per second"),
        )
        .arg(count("sockets", "1000", "Deliveries: number of sockets"))
        .arg(count("rooms", "10", "Deliveries: number of rooms that share the sockets"))
        .arg(
            count("rate", "1000", "Ordinary rate: sends per second in 100 rooms of 10")
                .value_parser(value_parser!(u64).range(1..)),
        )
        .arg(count("repetitions", "200", "Requests: number of each kind, one at a time"))
        .arg(
            Arg::new("set")
                .long("set")
                .action(ArgAction::Append)
                .value_parser(setting)
                .help("A setting of the node, NAME=VALUE"),
        )
        .arg(
            Arg::new("engine")
                .long("engine")
                .default_value(Engine::Single.name())
                .value_parser([Engine::Single.name(), Engine::Cluster.name()])
                .help("Redis of all parts but soak and cluster: one server, or three masters with a replica each"),
        )
        .arg(count("senders", "200", "Sends: senders"))
        .arg(count("conversations", "100", "Sends: number of conversations"))
        .arg(count("depth", "16", "Sends: unacked messages per conversation"))
        .arg(count("connections", "10000", "Idle: connections"))
        .arg(count("connects", "3000", "Connects: number of sockets in each dialect"))
        .arg(
            Arg::new("compare")
                .long("compare")
                .value_name("FILE")
                .help("The file of an earlier run: prints each figure of both, and the ratio"),
        )
        .args(growth())
        // `cargo bench` passes this flag to every benchmark.
        .arg(Arg::new("bench").long("bench").action(ArgAction::SetTrue).hide(true))
}

/// The arguments of `growth`.
fn growth() -> [Arg; 4] {
    let curves = Arg::new("curves").long("curves").value_delimiter(',').value_parser(CURVES);
    let quick = Arg::new("quick").long("quick").action(ArgAction::SetTrue);
    let entries = Arg::new("log-entries").long("log-entries").default_value("10000000");
    let file = Arg::new("curves-file").long("curves-file").default_value("target/curves.json");
    [
        curves.help("Growth: curves to measure, all by default"),
        quick.help("Growth: smaller sizes and shorter measurements, to check that it works"),
        entries
            .value_parser(value_parser!(u64).range(10_000..))
            .help("Growth: entries of the largest log; 10 million take 3 GB of disk, and up to 8 GB of WAL"),
        file.value_parser(value_parser!(PathBuf)).help("Growth: file for the curves, which scripts/curves.py draws"),
    ]
}

/// Splits `NAME=VALUE`.
fn setting(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
