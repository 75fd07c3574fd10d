//! The prose of the generated documents: Markdown templates with placeholders, in `templates/`.

use anyhow::Result;
use minijinja::{Environment, UndefinedBehavior, Value};

/// Includes a template by its file name without the extension.
macro_rules! template {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/templates/", $name, ".md"))
    };
}
pub(crate) use template;

/// Fills in the placeholders of a template. A placeholder is a value, such as `{{ rounds }}`, or a
/// number with a count of decimals, such as `{{ seconds | fixed(2) }}`. The result has no newline at
/// its end.
///
/// # Errors
/// If a placeholder has no value, or the template has a syntax error.
pub fn render(template: &str, values: Value) -> Result<String> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_filter("fixed", |number: f64, decimals: usize| format!("{number:.decimals$}"));
    Ok(environment.render_str(&unwrapped(template), values)?)
}

/// The template with each paragraph and each list item on a line of its own. In the files, long
/// lines are wrapped; the generated documents have one line per paragraph.
fn unwrapped(template: &str) -> String {
    let mut text = String::new();
    let mut last = "";
    for line in template.lines() {
        let starts = line.is_empty() || line.starts_with(['|', '#']) || line.starts_with("- ");
        let ends = last.is_empty() || last.starts_with(['|', '#']);
        if !text.is_empty() {
            text.push(if starts || ends { '\n' } else { ' ' });
        }
        text.push_str(line.trim_start());
        last = line;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::docs;
    use minijinja::context;

    #[test]
    fn paragraphs_and_list_items_are_unwrapped() {
        let template = "# Title\n\nOne\nparagraph.\n\n| a |\n|---|\n{{ rows }}\n\n- item\n  goes on\n- other\n";
        let text = render(template, context! { rows => "| 1 |\n| 2 |" }).unwrap();
        assert_eq!(text, "# Title\n\nOne paragraph.\n\n| a |\n|---|\n| 1 |\n| 2 |\n\n- item goes on\n- other");
    }

    #[test]
    fn numbers_have_their_decimals_and_missing_values_are_errors() {
        let values = context! { seconds => 1.234, price => 0.0004, goal => 1.3, count => 3_000_000_u64 };
        let text = render("{{ seconds | fixed(2) }} {{ price }} {{ goal }} {{ count }} {{ count | fixed(0) }}", values);
        assert_eq!(text.unwrap(), "1.23 0.0004 1.3 3000000 3000000");
        assert!(render("{{ missing }}", context! {}).is_err());
    }

    /// Whether the text between the placeholders of a template occurs in the document, in this
    /// order.
    fn occurs(template: &str, document: &str) -> Result<(), String> {
        let template = unwrapped(template);
        let mut rest = document;
        for piece in template.split("{{") {
            let literal = piece.split_once("}}").map_or(piece, |(_, literal)| literal).trim_end_matches('\n');
            let at = rest.find(literal).ok_or_else(|| literal.to_owned())?;
            rest = &rest[at + literal.len()..];
        }
        Ok(())
    }

    #[test]
    fn the_committed_documents_have_the_text_of_the_templates() {
        let read = |name: &str| std::fs::read_to_string(docs().join(name)).unwrap();
        let (performance, benchmarks) = (read("performance.md"), read("benchmarks.md"));
        for (template, document) in [
            (template!("performance"), &performance),
            (template!("performance_push"), &performance),
            (template!("performance_missed_blob"), &performance),
            (template!("memory"), &performance),
            (template!("memory"), &benchmarks),
            (template!("benchmarks"), &benchmarks),
            (template!("layer_sizes"), &benchmarks),
            (template!("push"), &benchmarks),
            (template!("pull"), &benchmarks),
            (template!("pull_cpu_budget"), &benchmarks),
            (template!("start_storm"), &benchmarks),
            (template!("s3_faults"), &benchmarks),
            (template!("eviction"), &benchmarks),
            (template!("eviction_pull_through"), &benchmarks),
            (template!("growth"), &benchmarks),
            (template!("cost"), &benchmarks),
        ] {
            occurs(template, document).unwrap();
        }
    }
}
