//! A figure of a node, its reference and its goal.

use crate::samples::{Samples, number};

/// The goal of a figure.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// At least this multiple of the reference.
    Ratio(f64),
    AtLeast(f64),
    Below(f64),
}

/// One figure of the node, and the reference with which it is compared.
#[derive(Clone, Debug)]
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    pub node: Samples,
    /// The name of the reference and its measurements.
    pub reference: Option<(&'static str, Samples)>,
    pub goal: Goal,
    /// Further measurements of the same run, as a sentence for the document.
    pub note: Option<String>,
}

impl Figure {
    fn ratio(&self) -> Option<f64> {
        self.reference.as_ref().map(|(_, reference)| self.node.median() / reference.median())
    }

    fn is_reached(&self) -> bool {
        match self.goal {
            Goal::Ratio(least) => self.ratio().is_some_and(|ratio| ratio >= least),
            Goal::AtLeast(least) => self.node.median() >= least,
            Goal::Below(most) => self.node.median() < most,
        }
    }

    /// A row of the table.
    pub fn row(&self) -> String {
        let goal = match self.goal {
            Goal::Ratio(least) => format!("≥ {least} ×"),
            Goal::AtLeast(least) => format!("≥ {} {}", number(least), self.unit),
            Goal::Below(most) => format!("< {} {}", number(most), self.unit),
        };
        let reference = self
            .reference
            .as_ref()
            .map_or("–".to_owned(), |(what, samples)| format!("{what}: {}", samples.shown(self.unit)));
        let ratio = self.ratio().map_or("–".to_owned(), |ratio| format!("{ratio:.2} ×"));
        let verdict = if self.is_reached() { "reached" } else { "**missed**" };
        format!("| {} | {} | {reference} | {ratio} | {goal} | {verdict} |", self.name, self.node.shown(self.unit))
    }
}
