//! [`Record`]: the figures of a part that are kept and compared with those of other runs.

use serde::{Deserialize, Serialize};

/// Part of a value by which two runs of the same program differ on one machine, by kind of figure.
mod noise {
    pub const CPU: f64 = 0.2;
    pub const MEDIAN: f64 = 0.4;
    pub const TAIL: f64 = 0.6;
    pub const RATE: f64 = 0.15;
    pub const BYTES: f64 = 0.05;
    pub const COMMANDS: f64 = 0.05;
}

/// CPU seconds that a measurement may be off: Linux counts in ticks of 10 ms, at its begin and at its end, for each process.
const TICKS: f64 = 0.05;

/// A figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub part: String,
    pub name: String,
    pub value: f64,
    pub unit: String,
    pub lower_is_better: bool,
    /// A smaller difference to another run, in the figure's unit, says nothing.
    pub noise: f64,
}

/// The figures of a part.
#[derive(Debug, Clone)]
pub struct Record {
    part: &'static str,
    pub figures: Vec<Figure>,
}

impl Record {
    /// An empty record of a part.
    pub fn of(part: &'static str) -> Self {
        Self { part, figures: Vec::new() }
    }

    /// Adds a figure; `noise` is in its unit. A figure that could not be measured is left out.
    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &str, noise: f64) {
        if value.is_finite() && noise.is_finite() {
            let (part, name, unit) = (self.part.to_owned(), name.into(), unit.to_owned());
            self.figures.push(Figure { part, name, value, unit, lower_is_better: true, noise });
        }
    }

    /// Adds the CPU of `units` of work, in seconds, as µs of each.
    pub fn cpu(&mut self, name: impl Into<String>, seconds: f64, units: u64) {
        let units = units.max(1) as f64;
        let noise = (seconds * noise::CPU).max(TICKS);
        self.add(name, seconds * 1e6 / units, "µs of CPU", noise * 1e6 / units);
    }

    /// Adds the 50th and the 99th percentile of a latency, in ms.
    pub fn latency(&mut self, name: &str, p50: f64, p99: f64) {
        self.add(format!("{name} p50"), p50, "ms", p50 * noise::MEDIAN);
        self.add(format!("{name} p99"), p99, "ms", p99 * noise::TAIL);
    }

    /// Adds CPU of this program as a multiple of its floor's in the same run.
    pub fn cpu_ratio(&mut self, name: impl Into<String>, own: f64, floor: f64) {
        self.add(name, own / floor, "ratio", own / floor * noise::CPU);
    }

    /// Adds a 99th percentile as a multiple of its floor's in the same run.
    pub fn tail_ratio(&mut self, name: impl Into<String>, own: f64, floor: f64) {
        self.add(name, own / floor, "ratio", own / floor * noise::TAIL);
    }

    /// Adds a rate, of which more is better.
    pub fn rate(&mut self, name: impl Into<String>, per_second: f64) {
        self.add(name, per_second, "per second", per_second * noise::RATE);
        if let Some(figure) = self.figures.last_mut().filter(|_| per_second.is_finite()) {
            figure.lower_is_better = false;
        }
    }

    /// Adds a number of bytes.
    pub fn bytes(&mut self, name: impl Into<String>, bytes: f64) {
        self.add(name, bytes, "bytes", bytes.abs() * noise::BYTES);
    }

    /// Adds a number of Redis commands.
    pub fn commands(&mut self, name: impl Into<String>, commands: f64) {
        self.add(name, commands, "commands", commands * noise::COMMANDS);
    }

    /// Adds a number of something that should not be: any difference counts.
    pub fn faults(&mut self, name: impl Into<String>, count: u64) {
        self.add(name, count as f64, "count", 0.0);
    }
}
