//! Which names a pattern matches. A claim is text here, never a pattern.
//!
//! The matcher is ours and not globset's: claims are put into a pattern at each request, and a
//! pattern that is compiled at each request costs more than the match.

use entrepot_config::{NamePattern, Part};
use entrepot_oci::Repository;

/// A part of a pattern whose claims are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Any number of parts.
    Any,
    /// One part, which is this text.
    Literal(&'a str),
    /// One part, in which `*` stands for any characters.
    Wild(&'a str),
}

/// Replaces the claims of a pattern. `None` if a claim is missing, or is neither a part of a
/// repository name nor a path of them.
pub(super) fn expand<'a>(pattern: &'a NamePattern, claim: impl Fn(&str) -> Option<&'a str>) -> Option<Vec<Step<'a>>> {
    let mut steps = Vec::with_capacity(pattern.parts().len());
    for part in pattern.parts() {
        match part {
            Part::Any => steps.push(Step::Any),
            Part::Text(text) if text.contains('*') => steps.push(Step::Wild(text)),
            Part::Text(text) => steps.push(Step::Literal(text)),
            Part::Claim(name) => {
                let value = claim(name)?;
                Repository::parse(value).ok()?;
                steps.extend(value.split('/').map(Step::Literal));
            }
        }
    }
    Some(steps)
}

/// Whether a name of these parts matches.
pub(super) fn matches(steps: &[Step], parts: &[&str]) -> bool {
    reached(steps, parts).last() == Some(&true)
}

/// Whether a name that begins with these parts may match.
pub(super) fn may_match_below(steps: &[Step], parts: &[&str]) -> bool {
    reached(steps, parts).contains(&true)
}

/// For each position in the steps, whether the parts can end there. The time is bounded by the
/// number of steps times the number of parts, for any pattern.
fn reached(steps: &[Step], parts: &[&str]) -> Vec<bool> {
    let mut here = vec![false; steps.len() + 1];
    here[0] = true;
    skip_any(steps, &mut here);
    for part in parts {
        let mut next = vec![false; steps.len() + 1];
        for (position, step) in steps.iter().enumerate().filter(|(position, _)| here[*position]) {
            match step {
                Step::Any => next[position] = true,
                Step::Literal(text) if text == part => next[position + 1] = true,
                Step::Wild(pattern) if wild(pattern, part) => next[position + 1] = true,
                Step::Literal(_) | Step::Wild(_) => {}
            }
        }
        skip_any(steps, &mut next);
        here = next;
    }
    here
}

/// `**` also stands for no part.
fn skip_any(steps: &[Step], reached: &mut [bool]) {
    for (position, step) in steps.iter().enumerate() {
        if reached[position] && *step == Step::Any {
            reached[position + 1] = true;
        }
    }
}

/// The text with which all names that match begin.
pub(super) fn literal_prefix(steps: &[Step]) -> String {
    let mut prefix = String::new();
    for (number, step) in steps.iter().enumerate() {
        let text = match step {
            Step::Any => break,
            Step::Literal(text) | Step::Wild(text) => text,
        };
        if number > 0 {
            prefix.push('/');
        }
        let (literal, is_wild) = text.split_once('*').map_or((*text, false), |(literal, _)| (literal, true));
        prefix.push_str(literal);
        if is_wild {
            break;
        }
    }
    prefix
}

/// Whether a text matches a pattern in which `*` stands for any characters. On a mismatch, only the
/// last `*` takes one more character, so the time is bounded by the product of the lengths.
pub(super) fn wild(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // The position after the last `*`, and where in the text it continues.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        // `*` is tested first: a name may contain it too.
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, t));
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(pattern: &str, name: &str) -> bool {
        let pattern = NamePattern::parse(pattern).unwrap();
        let parts = name.split('/').collect::<Vec<_>>();
        matches(&expand(&pattern, |_| None).unwrap(), &parts)
    }

    #[test]
    fn a_star_stays_within_its_part_and_two_stars_stand_for_any_number_of_parts() {
        for (pattern, name) in [
            ("**", "a/b/c"),
            ("a/**", "a"),
            ("a/**", "a/b/c"),
            ("**/x", "x"),
            ("**/x", "a/b/x"),
            ("a/*/b", "a/x/b"),
            ("a/web-*", "a/web-1"),
            ("*-*/**/b*", "a-b/c/d/bx"),
        ] {
            assert!(names(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("a/**", "ab"), ("a/*", "a"), ("a/*", "a/b/c"), ("*", "a/b"), ("**/x", "a/xx"), ("a", "a/b"), ("a/b", "a")]
        {
            assert!(!names(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn all_names_that_match_begin_with_the_literal_prefix() {
        for (pattern, prefix) in
            [("**", ""), ("a/b", "a/b"), ("a/**", "a"), ("a/b*c/d", "a/b"), ("a/*", "a/"), ("*/a", ""), ("a/**/b", "a")]
        {
            let pattern = NamePattern::parse(pattern).unwrap();
            assert_eq!(literal_prefix(&expand(&pattern, |_| None).unwrap()), prefix, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn stars_match_as_the_regular_expression_does(pattern in "[ab*]{0,6}", text in "[ab*]{0,8}") {
            let regex = regex::Regex::new(&format!("\\A{}\\z", regex::escape(&pattern).replace("\\*", ".*"))).unwrap();
            prop_assert_eq!(wild(&pattern, &text), regex.is_match(&text), "{} {}", pattern, text);
        }
    }
}
