//! Measurements, and numbers in the form in which people read them.

pub const MIB: f64 = 1_048_576.0;
pub const GIB: f64 = 1024.0 * MIB;

/// Measurements of one quantity, one for each round.
#[derive(Clone, Debug, Default)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        f64::midpoint(middle(sorted.len().saturating_sub(1) / 2), middle(sorted.len() / 2))
    }

    /// The minimum and the maximum.
    pub fn bounds(&self) -> (f64, f64) {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    /// The median, followed by the minimum and the maximum in parentheses.
    pub fn shown(&self, unit: &str) -> String {
        let (least, most) = self.bounds();
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        format!("{}{unit} ({}–{})", number(self.median()), number(least), number(most))
    }
}

/// The value with about three significant digits.
pub fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
