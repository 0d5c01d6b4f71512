//! [`Trend`]: whether a series of samples is flat.

/// A line through samples of a quantity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    pub mean: f64,
    /// Growth per hour, in the quantity's unit.
    pub per_hour: f64,
    /// Standard error of `per_hour`: how much of it the scatter of the samples may explain.
    pub error: f64,
}

/// A growth of fewer standard errors may be chance.
const SURE: f64 = 3.0;
/// A smaller growth over the samples, as a part of the mean, is flat.
const FLAT: f64 = 0.05;

impl Trend {
    /// The line with the least squares through points of (seconds, value); none through fewer than three points.
    pub fn of(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (middle, mean) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|(at, _)| (at - middle).powi(2)).sum();
        if points.len() < 3 || spread == 0.0 {
            return None;
        }
        let slope = points.iter().map(|(at, value)| (at - middle) * (value - mean)).sum::<f64>() / spread;
        let rest = |(at, value): &(f64, f64)| (value - mean - slope * (at - middle)).powi(2);
        let error = (points.iter().map(rest).sum::<f64>() / (count - 2.0) / spread).sqrt();
        Some(Self { mean, per_hour: slope * 3_600.0, error: error * 3_600.0 })
    }

    /// Growth per hour as a part of the mean; none if the mean is 0.
    pub fn part_per_hour(self) -> Option<f64> {
        Some(self.per_hour / self.mean).filter(|part| part.is_finite())
    }

    /// True if the quantity grew over these seconds by more than chance and more than a little.
    pub fn grows(self, seconds: f64) -> bool {
        self.per_hour > SURE * self.error && self.per_hour * seconds / 3_600.0 > FLAT * self.mean
    }
}

/// The mean of each whole `span` of seconds, at its middle, from `from` on. What comes and goes within a span is no trend.
pub fn averaged(points: &[(f64, f64)], from: f64, span: f64) -> Vec<(f64, f64)> {
    let last = points.last().map_or(from, |(at, _)| *at);
    let spans = ((last - from) / span).round() as usize;
    let mean = |number: usize| {
        let begin = from + number as f64 * span;
        let within = points.iter().filter(|(at, _)| (begin..begin + span).contains(at)).map(|(_, value)| *value);
        let (sum, count) = within.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
        (count > 0.0).then(|| (begin + span / 2.0, sum / count))
    };
    (0..spans).filter_map(mean).collect()
}

/// The values as a line of bars, from the least to the greatest; runs of values share a bar if there are more than `width`.
pub fn sparkline(values: &[f64], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shared: Vec<f64> = values
        .chunks(values.len().div_ceil(width).max(1))
        .map(|run| run.iter().sum::<f64>() / run.len() as f64)
        .collect();
    let (least, most) = shared.iter().fold((f64::MAX, f64::MIN), |(low, high), one| (low.min(*one), high.max(*one)));
    let bar = |value: &f64| {
        let height = if most > least { (value - least) / (most - least) } else { 0.0 };
        BARS[((height * BARS.len() as f64) as usize).min(BARS.len() - 1)]
    };
    shared.iter().map(bar).collect()
}
