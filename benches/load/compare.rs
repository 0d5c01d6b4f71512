//! Compares the figures of two runs.

use serde_json::Value;

use crate::{record::Figure, run_file::Run};

/// The direction in which a figure changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// By less than the noise of either run.
    Noise,
    Better,
    Worse,
}

/// A figure of both runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair<'a> {
    pub old: &'a Figure,
    pub new: &'a Figure,
}

impl Pair<'_> {
    /// The difference that says nothing.
    fn noise(&self) -> f64 {
        self.old.noise.max(self.new.noise)
    }

    /// The new value as a multiple of the old one; none of 0, nor of a cost below that of an idle deployment.
    pub fn ratio(&self) -> Option<f64> {
        (self.old.value > 0.0 && self.new.value >= 0.0).then(|| self.new.value / self.old.value)
    }

    pub fn change(&self) -> Change {
        let difference = self.new.value - self.old.value;
        if difference.abs() <= self.noise() {
            Change::Noise
        } else if (difference < 0.0) == self.new.lower_is_better {
            Change::Better
        } else {
            Change::Worse
        }
    }
}

/// The figures that both runs have, in the order of the new one.
pub fn pairs<'a>(old: &'a Run, new: &'a Run) -> Vec<Pair<'a>> {
    let of_old = |new: &Figure| {
        old.figures.iter().find(|old| (&old.part, &old.name, &old.unit) == (&new.part, &new.name, &new.unit))
    };
    new.figures.iter().filter_map(|new| of_old(new).map(|old| Pair { old, new })).collect()
}

/// The comparison as a table. What one run alone has measured is left out, except in parts of both.
pub fn table(old: &Run, new: &Run) -> String {
    let pairs = pairs(old, new);
    let mut lines = Vec::new();
    lines.push(format!("Compared with {} ({}, {}, {} cores)", old.started_at, old.version, old.commit, old.cores));
    for note in differences(old, new) {
        lines.push(format!("  {note}"));
    }
    if pairs.is_empty() {
        lines.push("  no figure is in both runs".to_owned());
        return lines.join("\n");
    }
    lines.push(format!("{:<58} {:>11} {:>11} {:>8}   noise", "", "old", "new", "new/old"));
    let mut part = "";
    for pair in &pairs {
        let Figure { name, value, unit, .. } = pair.new;
        if part != pair.new.part {
            part = &pair.new.part;
            lines.push(part.to_owned());
        }
        let ratio = pair.ratio().map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
        let mark = match pair.change() {
            Change::Noise => "",
            Change::Better => "  better",
            Change::Worse => "  WORSE",
        };
        lines.push(format!(
            "  {:<56} {:>11} {:>11} {ratio:>8}   ±{}{mark}",
            format!("{name} ({unit})"),
            rounded(pair.old.value),
            rounded(*value),
            rounded(pair.noise()),
        ));
    }
    let changed = |change| pairs.iter().filter(|pair| pair.change() == change).count();
    lines.push(format!(
        "{} figures: {} better, {} worse, the rest within the noise of one run",
        pairs.len(),
        changed(Change::Better),
        changed(Change::Worse)
    ));
    lines.join("\n")
}

/// The differences between two runs that make their comparison doubtful: other cores, other arguments, and figures that only one run has.
fn differences(old: &Run, new: &Run) -> Vec<String> {
    let mut notes = Vec::new();
    if old.cores != new.cores {
        notes.push(format!("the machines differ: {} cores, and {} now", old.cores, new.cores));
    }
    let names = new.arguments.keys().chain(old.arguments.keys().filter(|name| !new.arguments.contains_key(*name)));
    for name in names.filter(|name| *name != "only") {
        let value = |run: &Run| run.arguments.get(name).map_or("missing".to_owned(), Value::to_string);
        if value(old) != value(new) {
            notes.push(format!("the argument {name} differs: {}, and {} now", value(old), value(new)));
        }
    }
    for (run, other, which) in [(old, new, "old"), (new, old, "new")] {
        let shared = |figure: &&Figure| other.figures.iter().any(|one| one.part == figure.part);
        let known = |figure: &&Figure| {
            other
                .figures
                .iter()
                .any(|one| (&one.part, &one.name, &one.unit) == (&figure.part, &figure.name, &figure.unit))
        };
        for figure in run.figures.iter().filter(|figure| shared(figure) && !known(figure)) {
            notes.push(format!("only the {which} run has {}: {} ({})", figure.part, figure.name, figure.unit));
        }
    }
    notes
}

/// A value with three significant digits, or all digits before the point.
fn rounded(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        small if small < 10.0 => 2,
        small if small < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}
