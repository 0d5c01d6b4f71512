//! Command line of the benchmark.

use clap::{Arg, ArgAction, Command, value_parser};
use serde::{Deserialize, Serialize};

/// Settings of a run. The defaults are the load behind the figures in the documentation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Args {
    /// Parts to run.
    pub only: Vec<String>,
    pub seconds: u64,
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
    /// Settings of the node, beside those of the benchmark.
    pub settings: Vec<(String, String)>,
}

/// All parts. `floor` runs only on request, because `deliveries` includes it.
const PARTS: [&str; 8] = ["macs", "idle", "connects", "deliveries", "ordinary", "sends", "requests", "floor"];

impl Args {
    /// Parses the command line.
    pub fn read() -> Self {
        let count = |name: &'static str, default: &'static str, help: &'static str| {
            Arg::new(name).long(name).default_value(default).help(help).value_parser(value_parser!(usize))
        };
        let command = Command::new("load")
            .about("Starts Redis, PostgreSQL and a node, puts load on them and prints the cost")
            .arg(Arg::new("parts").num_args(0..).value_parser(PARTS).help("Parts to run, all but floor by default"))
            .arg(Arg::new("only").long("only").value_delimiter(',').value_parser(PARTS).help("The same, with commas"))
            .arg(count("seconds", "10", "Length of each measurement").value_parser(value_parser!(u64)))
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
            .arg(count("senders", "200", "Sends: senders"))
            .arg(count("conversations", "100", "Sends: number of conversations"))
            .arg(count("depth", "16", "Sends: unacked messages per conversation"))
            .arg(count("connections", "10000", "Idle: connections"))
            .arg(count("connects", "3000", "Connects: number of sockets in each dialect"))
            // `cargo bench` passes this flag to every benchmark.
            .arg(Arg::new("bench").long("bench").action(ArgAction::SetTrue).hide(true));
        let found = command.get_matches();
        let number = |name: &str| found.get_one::<usize>(name).copied().unwrap_or_default().max(1);
        let named = |name: &str| found.get_many::<String>(name).into_iter().flatten().cloned();
        let only: Vec<String> = named("only").chain(named("parts")).collect();
        let usual = PARTS.iter().filter(|&&part| part != "floor").map(|&part| part.to_owned());
        Self {
            only: if only.is_empty() { usual.collect() } else { only },
            seconds: found.get_one("seconds").copied().unwrap_or(10),
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
            settings: found.get_many("set").into_iter().flatten().cloned().collect(),
        }
    }

    /// True if a part is to run.
    pub fn wants(&self, part: &str) -> bool {
        self.only.iter().any(|wanted| wanted == part)
    }
}

/// Splits `NAME=VALUE`.
fn setting(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
