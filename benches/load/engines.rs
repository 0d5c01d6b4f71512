//! Sends and deliveries beside one Redis and beside a cluster, in one run.

use crate::{
    BenchResult,
    args::{Args, Engine},
    deliveries,
    measure::{Cpu, World},
    record::Record,
    report, sends,
    stack::Stack,
    tasks::{Task, figures},
};

/// Costs beside one engine.
#[derive(Debug)]
pub struct Figures {
    pub engine: Engine,
    pub sends: sends::Figures,
    pub deliveries: deliveries::Figures,
    /// Number of masters; the servers after them are replicas.
    pub masters: usize,
}

impl Figures {
    fn add_to(&self, record: &mut Record) {
        let (name, sends, deliveries) = (self.engine.name(), &self.sends, &self.deliveries);
        record.rate(format!("{name}: acked"), sends.acked as f64 / sends.seconds);
        sends.cpu.add_to(record, &format!("{name}: a send"), sends.acked);
        deliveries.cpu.add_to(record, &format!("{name}: a message with its deliveries"), deliveries.messages);
        record.faults(format!("{name}: missing"), deliveries.missing);
        for (load, seconds, units) in
            [("a send", &sends.redis_each, sends.acked), ("a message", &deliveries.redis_each, deliveries.messages)]
        {
            if self.engine == Engine::Cluster {
                for (number, seconds) in seconds[..self.masters].iter().enumerate() {
                    record.cpu(format!("{name}: {load}: master {}", number + 1), *seconds, units);
                }
            }
        }
    }
}

/// Measures both engines, one after the other, with the first rate of deliveries.
pub async fn run(args: &Args) -> BenchResult<Record> {
    let rate = args.rates[0];
    let mut all = Vec::new();
    for engine in [Engine::Single, Engine::Cluster] {
        let args = Args { engine, ..args.clone() };
        let start = async || {
            let stack = Stack::start(&args).await;
            let world = stack.world();
            (stack, world)
        };
        let (stack, world) = start().await;
        let masters = world.redis_urls.len();
        let sends = figures(&Task::Sends(args.clone(), world))?;
        drop(stack);
        let (stack, world) = start().await;
        let deliveries = figures(&Task::Deliveries(args.clone(), world, rate))?;
        drop(stack);
        all.push(Figures { engine, sends, deliveries, masters });
    }
    report::engines(rate, &all);
    let mut record = Record::of("cluster");
    for figures in &all {
        figures.add_to(&mut record);
    }
    Ok(record)
}

/// CPU seconds that each server of Redis used so far.
pub fn each_server(world: &World) -> Vec<f64> {
    world.redis.iter().map(|pid| crate::support::cpu_seconds(*pid)).collect()
}

/// CPU seconds that each server of Redis used since `earlier`.
pub fn each_since(world: &World, earlier: &[f64]) -> Vec<f64> {
    each_server(world).iter().zip(earlier).map(|(now, before)| now - before).collect()
}

/// The CPU time of each server for one unit of work: µs of each master, and of all replicas together.
pub fn shares(seconds: &[f64], masters: usize, units: u64) -> (Vec<f64>, f64) {
    let each = |seconds: f64| Cpu { redis: seconds, ..Cpu::default() }.micros_per(units).redis;
    (seconds[..masters].iter().copied().map(each).collect(), each(seconds[masters..].iter().sum()))
}
