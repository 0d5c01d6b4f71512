//! A curve: costs over a size, each with the exponent by which it grows.

use serde::{Deserialize, Serialize};

/// By how much a fitted exponent may exceed that of the work before the table marks it. Less is noise on a busy machine.
const TOLERANCE: f64 = 0.15;

/// The growth of the work itself with the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// The work is the same at every size: an exponent of 0.
    Constant,
    /// The work grows with the size, such as deliveries to each member: an exponent of 1.
    Linear,
}

impl Work {
    pub fn exponent(self) -> f64 {
        match self {
            Self::Constant => 0.0,
            Self::Linear => 1.0,
        }
    }
}

/// Costs over a size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Curve {
    pub name: String,
    /// Name of the size, with its unit.
    pub size: String,
    pub lines: Vec<Line>,
    /// Remarks for the reader of the figures.
    pub notes: Vec<String>,
}

/// One cost over the size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    pub what: String,
    pub unit: String,
    pub work: f64,
    /// True if the picture shows this line.
    pub drawn: bool,
    /// Size and cost.
    pub points: Vec<(f64, f64)>,
    /// Exponent of cost against size over all points.
    pub exponent: Option<f64>,
    /// The same between the last two points. Where a cost has a fixed part, this one is closer to what follows.
    pub last_exponent: Option<f64>,
}

/// A cost at one size.
pub struct Cost {
    what: String,
    unit: &'static str,
    work: Work,
    value: f64,
    drawn: bool,
}

impl Cost {
    /// CPU of a unit of work, in µs.
    pub fn cpu(what: impl Into<String>, work: Work, micros: f64) -> Self {
        Self { what: what.into(), unit: "µs", work, value: micros, drawn: true }
    }

    /// A latency, in ms.
    pub fn latency(what: impl Into<String>, work: Work, millis: f64) -> Self {
        Self { what: what.into(), unit: "ms", work, value: millis, drawn: true }
    }

    /// A number of bytes.
    pub fn bytes(what: impl Into<String>, work: Work, bytes: f64) -> Self {
        Self { what: what.into(), unit: "bytes", work, value: bytes, drawn: true }
    }

    /// Leaves the line out of the picture.
    pub fn not_drawn(self) -> Self {
        Self { drawn: false, ..self }
    }
}

impl Curve {
    pub fn new(name: &str, size: &str) -> Self {
        Self { name: name.into(), size: size.into(), lines: Vec::new(), notes: Vec::new() }
    }

    /// Adds the costs at one size, and fits the exponents again.
    pub fn add(&mut self, size: u64, costs: Vec<Cost>) {
        for Cost { what, unit, work, value, drawn } in costs {
            let found = self.lines.iter().position(|line| line.what == what);
            let at = found.unwrap_or_else(|| {
                let (unit, work, points) = (unit.into(), work.exponent(), Vec::new());
                self.lines.push(Line { what, unit, work, drawn, points, exponent: None, last_exponent: None });
                self.lines.len() - 1
            });
            let line = &mut self.lines[at];
            line.points.push((size as f64, value));
            line.exponent = exponent(&line.points);
            line.last_exponent = exponent(&line.points[line.points.len().saturating_sub(2)..]);
        }
    }

    /// The curve as a table.
    pub fn table(&self) -> String {
        let mut sizes: Vec<f64> = self.lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
        sizes.sort_by(f64::total_cmp);
        sizes.dedup();
        let heads: String = sizes.iter().map(|size| format!("{size:>10}")).collect();
        let mut table = format!("\nGrowth with {}\n  {:<58}{heads}  exponent   last  work\n", self.size, "");
        for line in &self.lines {
            let cells: String = sizes.iter().map(|size| cell(line, *size)).collect();
            let shown = |exponent: Option<f64>| exponent.map_or("–".into(), |exponent| format!("{exponent:.2}"));
            let grows = [line.exponent, line.last_exponent].into_iter().flatten().any(|at| at > line.work + TOLERANCE);
            table += &format!(
                "  {:<58}{cells}  {:>8} {:>6} {:>5}{}\n",
                format!("{} ({})", line.what, line.unit),
                shown(line.exponent),
                shown(line.last_exponent),
                line.work,
                if grows { "  faster than its work" } else { "" }
            );
        }
        table += &self.notes.iter().map(|note| format!("  {note}\n")).collect::<String>();
        table
    }
}

fn cell(line: &Line, size: f64) -> String {
    let value = line.points.iter().find(|point| point.0 == size).map(|point| point.1);
    match value {
        None => format!("{:>10}", "–"),
        Some(value) if value.abs() >= 100.0 => format!("{value:>10.0}"),
        Some(value) if value.abs() >= 1.0 => format!("{value:>10.1}"),
        Some(value) => format!("{value:>10.3}"),
    }
}

/// Least squares of log cost against log size. A cost that was too small to be measured (0 or less) is left out; `None`
/// with fewer than two sizes.
fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<(f64, f64)> = points
        .iter()
        .filter(|(size, cost)| *size > 0.0 && *cost > 0.0)
        .map(|(size, cost)| (size.ln(), cost.ln()))
        .collect();
    let count = logs.len() as f64;
    let (x, y) = (logs.iter().map(|log| log.0).sum::<f64>() / count, logs.iter().map(|log| log.1).sum::<f64>() / count);
    let spread: f64 = logs.iter().map(|log| (log.0 - x).powi(2)).sum();
    let slope = logs.iter().map(|log| (log.0 - x) * (log.1 - y)).sum::<f64>() / spread;
    slope.is_finite().then_some(slope)
}
