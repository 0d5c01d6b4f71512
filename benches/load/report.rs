//! Prints the figures.

use crate::{
    bare_writes, connects, deliveries, engines, idle, macs,
    measure::{Cpu, Kept, Latency},
    ordinary::{self, Told},
    requests, sends,
};

/// Prints the cost of codes.
pub fn macs(figures: &[macs::Figures]) {
    println!("\nCodes that sign what goes into Redis (ns of one core)");
    for macs::Figures { what, bytes, sign, verify } in figures {
        println!("  {what:<28} {bytes:>6} bytes: sign {sign:>6.0}, verify {verify:>6.0}");
    }
}

/// Prints the bare write loop's figures.
pub fn floor(rate: u64, figures: &deliveries::Figures) {
    println!("\nBare write loop, target {rate}/s, frames of {} bytes", figures.sample.len());
    heading();
    row("bare write loop", figures);
}

fn heading() {
    println!("                     delivered/s    CPU all parts    p50     p99  spread p50    p99");
}

fn row(name: &str, figures: &deliveries::Figures) {
    let cpu = figures.cpu.micros_per(figures.deliveries);
    println!(
        "  {name:<18} {:>11.0} {:>6.2} {:>9.2} {:>6.2} {:>7.2} {:>11.2} {:>6.2}   load generator {:.2}",
        figures.deliveries as f64 / figures.seconds,
        cpu.node,
        cpu.node + cpu.redis + cpu.postgres,
        figures.latency.p50,
        figures.latency.p99,
        figures.spread.p50,
        figures.spread.p99,
        cpu.load,
    );
}

/// Prints the figures of one rate: the node beside the bare write loop.
pub fn deliveries(rate: u64, node: &deliveries::Figures, floor: &deliveries::Figures) {
    println!("\nDeliveries, target {rate}/s (CPU µs per delivery; latency in ms)");
    heading();
    row("bare write loop", floor);
    row("node", node);
    let (own, bare) = (node.cpu.micros_per(node.deliveries).node, floor.cpu.micros_per(floor.deliveries).node);
    println!("  node / bare write loop: CPU {:.2}, spread p99 {:.2}", own / bare, node.spread.p99 / floor.spread.p99);
    println!(
        "  the node's latency includes the durable commit; spread is the time from a message's first copy to its others"
    );
    println!("  frame of {} bytes, {} deliveries missing", node.sample.len(), node.missing);
    println!("  Redis commands per message, including those in scripts: {}", node.commands.top(node.messages as f64));
}

/// One engine's row of a table.
struct EngineRow<'a> {
    per_second: f64,
    cpu: Cpu,
    redis_each: &'a [f64],
    units: u64,
}

/// Prints the figures of both engines, with `rate` deliveries a second.
pub fn engines(rate: u64, all: &[engines::Figures]) {
    println!("\nDurable sends, at full speed (CPU µs per send)");
    engine_table(all, |engines::Figures { sends, .. }| EngineRow {
        per_second: sends.acked as f64 / sends.seconds,
        cpu: sends.cpu,
        redis_each: &sends.redis_each,
        units: sends.acked,
    });
    println!("\nMessages with their deliveries, target {rate} deliveries/s (CPU µs per message)");
    engine_table(all, |engines::Figures { deliveries, .. }| EngineRow {
        per_second: deliveries.messages as f64 / deliveries.seconds,
        cpu: deliveries.cpu,
        redis_each: &deliveries.redis_each,
        units: deliveries.messages,
    });
    for engines::Figures { engine, deliveries, .. } in all {
        let commands = deliveries.commands.top(deliveries.messages as f64);
        println!("  {}: Redis commands per message: {commands}", engine.name());
    }
}

fn engine_table(all: &[engines::Figures], row: impl Fn(&engines::Figures) -> EngineRow<'_>) {
    println!("                 per s    node  PostgreSQL   Redis: each master      replicas  all servers");
    for figures in all {
        let EngineRow { per_second, cpu, redis_each, units } = row(figures);
        let cpu = cpu.micros_per(units);
        let (masters, replicas) = engines::shares(redis_each, figures.masters, units);
        let masters: Vec<String> = masters.iter().map(|micros| format!("{micros:5.1}")).collect();
        println!(
            "  {:<10} {per_second:>9.0} {:>7.1} {:>11.1}   {:<22} {replicas:>8.1} {:>12.1}",
            figures.engine.name(),
            cpu.node,
            cpu.postgres,
            masters.join(" + "),
            cpu.redis
        );
    }
}

/// Prints the figures of durable sends.
pub fn sends(figures: &sends::Figures) {
    let Latency { p50, p90, p99, max } = figures.latency;
    println!("\nDurable sends, at full speed (fsync on)");
    println!(
        "  {:.0} messages/s acked; ack p50 {p50:.1} ms, p90 {p90:.1}, p99 {p99:.1}, max {max:.1}",
        figures.acked as f64 / figures.seconds
    );
    println!("  CPU µs per message: {}", parts(figures.cpu.micros_per(figures.acked)));
    let each = figures.acked.max(1) as f64;
    println!(
        "  Redis commands per message, including those in scripts: {:.2} ({})",
        figures.commands.sum() as f64 / each,
        figures.commands.top(each)
    );
    let Kept { redis, postgres, wal } = figures.kept_each;
    println!("  stored per message: PostgreSQL {postgres:.0} bytes (and {wal:.0} of WAL), Redis {redis:.1}");
    if !figures.errors.is_empty() {
        println!("  errors: {:?}", figures.errors);
    }
}

/// Prints the figures of sends at an ordinary rate, beside those of bare writes to the same server.
pub fn ordinary(rate: u64, node: &ordinary::Figures, floor: &bare_writes::Figures) {
    println!("\nDurable sends, {rate}/s in {} rooms (latency in ms, CPU in µs per message; fsync on)", ordinary::ROOMS);
    println!("                          p50     p99 | node  Redis  PostgreSQL");
    let (own, bare) = (node.cpu.micros_per(node.sent), floor.cpu.micros_per(floor.writes));
    let Latency { p50, p99, .. } = floor.latency;
    println!("  bare write         {p50:>8.1} {p99:>7.1} |  {:>16} {:>6.0}   by {}", "", bare.postgres, floor.by);
    let Told { sends, deliveries } = &node.told;
    println!(
        "  send until its ack {:>8.1} {:>7.1} | {:>4.0} {:>6.0} {:>11.0}   switchboard load {:.0}",
        sends.ack_ms.p50, sends.ack_ms.p99, own.node, own.redis, own.postgres, own.load
    );
    println!("  until its delivery {:>8.1} {:>7.1} |", deliveries.ms.p50, deliveries.ms.p99);
    println!(
        "  ack / bare write   {:>8.2} {:>7.2} | {:>23.2}",
        sends.ack_ms.p50 / floor.latency.p50,
        sends.ack_ms.p99 / floor.latency.p99,
        own.postgres / bare.postgres
    );
    println!(
        "  {:.0} sends/s, {} of {} acked, {} deliveries missing, {} repeated; Redis commands per message, including those in \
         scripts: {}",
        node.sent as f64 / node.seconds,
        sends.stored,
        sends.due,
        deliveries.missing,
        deliveries.repeated,
        node.commands.top(node.sent as f64)
    );
}

/// Prints the figures of single requests.
pub fn requests(figures: &[requests::Figures]) {
    println!("\nOne request at a time on an idle deployment (latency in ms, CPU in µs each; fsync on)");
    println!("                                     p50     p99 |   node  Redis  PostgreSQL    all");
    for requests::Figures { what, count, cpu, latency } in figures {
        let Cpu { node, redis, postgres, .. } = cpu.micros_per(*count);
        println!(
            "  {what:<30} {:>7.1} {:>7.1} | {node:>6.0} {redis:>6.0} {postgres:>11.0} {:>6.0}",
            latency.p50,
            latency.p99,
            node + redis + postgres
        );
    }
}

/// Prints the figures of idle connections.
pub fn idle(figures: &idle::Figures) {
    let each = figures.connections as f64;
    println!("\n{} idle connections", figures.connections);
    println!("  memory: {:.2} KiB each (resident)", figures.bytes_each / 1024.0);
    println!("  stored per connection (and user): Redis {:.0} bytes", figures.kept_each.redis);
    println!(
        "  connects: {:.0}/s; CPU µs each: {}",
        each / figures.connect_seconds,
        parts(figures.connect_cpu.micros_per(figures.connections))
    );
    println!(
        "  Redis commands per connect, including those in scripts: {:.2} ({})",
        figures.connect_commands.sum() as f64 / each,
        figures.connect_commands.top(each)
    );
    println!(
        "  idle: {:.1} Redis commands/s ({}); CPU % of a core: node {:.2}, Redis {:.2}, PostgreSQL {:.2}",
        figures.idle_commands.sum() as f64 / figures.idle_seconds,
        figures.idle_commands.top(figures.idle_seconds),
        100.0 * figures.idle_cpu.node / figures.idle_seconds,
        100.0 * figures.idle_cpu.redis / figures.idle_seconds,
        100.0 * figures.idle_cpu.postgres / figures.idle_seconds
    );
    if figures.lost > 0 {
        println!("  {} connections were lost", figures.lost);
    }
}

/// Prints the figures of connects: each dialect beside the bare handshake loop.
pub fn connects(bare: &connects::Figures, dialects: &[connects::Figures]) {
    println!("\nConnects of known users (CPU µs each)");
    let own = |figures: &connects::Figures| figures.cpu.micros_per(figures.connects);
    println!("  {:<20} {:>6.1}", bare.target.label(), own(bare).node);
    for figures in dialects {
        println!(
            "  {:<20} {:>6.0}/s, {}; node / bare handshake loop {:.1}",
            figures.target.label(),
            figures.connects as f64 / figures.seconds,
            parts(own(figures)),
            own(figures).node / own(bare).node
        );
    }
}

fn parts(cpu: Cpu) -> String {
    let Cpu { node, redis, postgres, load } = cpu;
    let sum = node + redis + postgres;
    format!("node {node:.1} + Redis {redis:.1} + PostgreSQL {postgres:.1} = {sum:.1} (load generator {load:.1})")
}
