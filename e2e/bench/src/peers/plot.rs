//! Bar charts as SVG files.

use super::systems::ENTREPOT;
use crate::samples::number;
use anyhow::Result;
use plotters::prelude::*;
use std::path::Path;

/// A bar chart.
pub struct Plot {
    /// Name of the SVG file without its extension.
    pub name: &'static str,
    pub title: String,
    pub unit: &'static str,
    /// The label and the value of each bar.
    pub bars: Vec<(String, f64)>,
}

impl Plot {
    /// Writes the SVG file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn draw(&self, folder: &Path) -> Result<()> {
        let path = folder.join(format!("{}.svg", self.name));
        let height = 60 + 26 * u32::try_from(self.bars.len())?;
        let area = SVGBackend::new(&path, (760, height)).into_drawing_area();
        let most = self.bars.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        area.fill(&WHITE)?;
        let label = ("sans-serif", 14).into_font();
        area.draw(&Text::new(format!("{}, {}", self.title, self.unit), (10, 12), ("sans-serif", 16).into_font()))?;
        for (line, (name, value)) in self.bars.iter().enumerate() {
            let top = 42 + 26 * i32::try_from(line)?;
            // The longest bar has 380 pixels. Rounding to a pixel is exact enough.
            let length = (value / most.max(f64::MIN_POSITIVE) * 380.0).round() as i32;
            let colour = if name.starts_with(ENTREPOT) { RGBColor(31, 119, 180) } else { RGBColor(170, 170, 170) };
            area.draw(&Text::new(name.clone(), (10, top + 2), label.clone()))?;
            area.draw(&Rectangle::new([(290, top), (290 + length.max(1), top + 18)], colour.filled()))?;
            area.draw(&Text::new(number(*value), (296 + length, top + 2), label.clone()))?;
        }
        area.present()?;
        Ok(())
    }
}
