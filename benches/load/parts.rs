//! The parts of the benchmark, and a run of those that are wanted.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
};

use serde_json::Value;
use switchboard::metrics::COMMIT;
use tokio::task::LocalSet;

use crate::{
    BenchResult,
    args::{Args, Choice},
    bare_writes, compare, connects, deliveries, engines, growth, idle, macs, ordinary,
    record::Record,
    report, requests,
    run_file::Run,
    sends, soak,
    stack::{Stack, bare_handshake_loop, bare_write_loop},
    tasks::{Task, figures},
};

/// A part.
pub struct Part {
    name: &'static str,
    about: &'static str,
    /// False for a part that runs only if it is named.
    usual: bool,
    /// Measures, prints, and returns what is kept.
    measure: for<'a> fn(&'a Args) -> Measuring<'a>,
}

type Measuring<'a> = Pin<Box<dyn Future<Output = BenchResult<Record>> + 'a>>;

/// All parts, in the order in which they run.
pub const ALL: [Part; 11] = [
    Part { name: "macs", about: "Codes that sign what goes into Redis", usual: true, measure: |_| Box::pin(macs()) },
    Part {
        name: "floor",
        about: "The bare write loop alone; deliveries include it",
        usual: false,
        measure: |args| Box::pin(floor(args)),
    },
    Part { name: "idle", about: "Idle connections", usual: true, measure: |args| Box::pin(idle(args)) },
    Part { name: "connects", about: "Connects in each dialect", usual: true, measure: |args| Box::pin(connects(args)) },
    Part {
        name: "deliveries",
        about: "Deliveries in full rooms, beside a bare write loop",
        usual: true,
        measure: |args| Box::pin(deliveries(args)),
    },
    Part {
        name: "ordinary",
        about: "Sends at an ordinary rate, beside bare writes",
        usual: true,
        measure: |args| Box::pin(ordinary(args)),
    },
    Part { name: "sends", about: "Sends at full speed", usual: true, measure: |args| Box::pin(sends(args)) },
    Part {
        name: "requests",
        about: "Single requests on an idle deployment",
        usual: true,
        measure: |args| Box::pin(requests(args)),
    },
    Part {
        name: "cluster",
        about: "Sends and deliveries beside one Redis and beside a cluster",
        usual: false,
        measure: |args| Box::pin(engines::run(args)),
    },
    Part {
        name: "soak",
        about: "A long run with faults: what must be flat",
        usual: false,
        measure: |args| Box::pin(soak::measure(args)),
    },
    Part {
        name: "growth",
        about: "Costs over sizes, as curves with their exponents: half an hour, or some minutes with --quick",
        usual: false,
        measure: |args| Box::pin(growth(args)),
    },
];

impl Part {
    /// The part as an argument.
    pub fn choice(&self) -> Choice {
        Choice { name: self.name, about: self.about, usual: self.usual }
    }
}

/// Runs the wanted parts one after another, keeps their figures in a file and compares them.
pub fn run(args: &Args) -> BenchResult<()> {
    // Read first: a wrong name should not cost a run.
    let old = args.compare.as_deref().map(|path| Run::read(Path::new(path))).transpose()?;
    let cores = std::thread::available_parallelism()?.get();
    let Value::Object(arguments) = serde_json::to_value(args)? else { return Err("arguments are an object".into()) };
    let started_at = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut run = Run::begin(started_at, env!("CARGO_PKG_VERSION"), COMMIT, cores, arguments);
    let path = run.path(&folder());
    println!("{cores} cores, shared by the node, Redis, PostgreSQL and the load; {} s each", args.seconds);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for part in ALL.iter().filter(|part| args.wants(part.name)) {
        run.figures.extend(runtime.block_on((part.measure)(args))?.figures);
        // After each part, so that a later failure loses nothing.
        run.write(&path)?;
    }
    println!("\nThese figures are in {}", path.display());
    if let Some(old) = old {
        println!("\n{}", compare::table(&old, &run));
    }
    Ok(())
}

/// The folder of the files: `target/bench`.
fn folder() -> PathBuf {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    temporary.parent().unwrap_or(temporary).join("bench")
}

async fn macs() -> BenchResult<Record> {
    let figures = macs::measure();
    report::macs(&figures);
    Ok(macs::record(&figures))
}

async fn floor(args: &Args) -> BenchResult<Record> {
    let mut record = Record::of("floor");
    for &rate in &args.rates {
        let figures = bare_write_loop(args, rate, &deliveries::sample_frame()).await?;
        report::floor(rate, &figures);
        figures.add_to(&mut record, &format!("{rate}/s"));
    }
    Ok(record)
}

async fn growth(args: &Args) -> BenchResult<Record> {
    LocalSet::new().run_until(growth::run(args)).await
}

async fn idle(args: &Args) -> BenchResult<Record> {
    let stack = Stack::start(args).await;
    let figures: idle::Figures = figures(&Task::Idle(args.clone(), stack.world()))?;
    report::idle(&figures);
    Ok(figures.record())
}

async fn connects(args: &Args) -> BenchResult<Record> {
    let bare = bare_handshake_loop(args).await?;
    let stack = Stack::start(args).await;
    let dialects =
        connects::Target::DIALECTS.map(|target| figures(&Task::Connects(args.clone(), stack.world(), target)));
    let dialects = dialects.into_iter().collect::<BenchResult<Vec<_>>>()?;
    report::connects(&bare, &dialects);
    Ok(connects::record(&bare, &dialects))
}

async fn deliveries(args: &Args) -> BenchResult<Record> {
    let mut record = Record::of("deliveries");
    for &rate in &args.rates {
        let stack = Stack::start(args).await;
        let own: deliveries::Figures = figures(&Task::Deliveries(args.clone(), stack.world(), rate))?;
        drop(stack);
        let floor = bare_write_loop(args, rate, &own.sample).await?;
        report::deliveries(rate, &own, &floor);
        own.add_beside(&floor, &mut record, &format!("{rate}/s"));
    }
    Ok(record)
}

async fn ordinary(args: &Args) -> BenchResult<Record> {
    let stack = Stack::start(args).await;
    let own = ordinary::run(args, &stack.world()).await?;
    let world = stack.world();
    let Stack { node, postgres, .. } = stack;
    drop(node);
    let floor = match bare_writes::with_pgbench(args, &world, &postgres).await? {
        Some(figures) => figures,
        None => figures(&Task::BareWrites(args.clone(), world))?,
    };
    report::ordinary(args.sends, &own, &floor);
    Ok(own.record(&floor))
}

async fn sends(args: &Args) -> BenchResult<Record> {
    let stack = Stack::start(args).await;
    let figures: sends::Figures = figures(&Task::Sends(args.clone(), stack.world()))?;
    report::sends(&figures);
    Ok(figures.record())
}

async fn requests(args: &Args) -> BenchResult<Record> {
    let stack = Stack::start(args).await;
    let figures: Vec<requests::Figures> = figures(&Task::Requests(args.clone(), stack.world()))?;
    report::requests(&figures);
    Ok(requests::record(&figures))
}
