//! Finds the rules of a caller without looking at all of them: by subject, then by the first part of
//! the name.

use super::{Grant, subjects};
use crate::Caller;
use entrepot_config::{Part, Subject};
use std::collections::{BTreeMap, HashMap};

/// Grants by subject.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// By the text of the subject.
    plain: HashMap<Subject, Grants>,
    /// Subjects that have to be matched one by one, because of a `*` within a name.
    wild: BTreeMap<Subject, Grants>,
}

/// The grants of one subject.
#[derive(Debug, Default)]
struct Grants {
    /// By the first part of the names, of patterns that begin with text.
    by_part: HashMap<String, Vec<Grant>>,
    /// Patterns that begin with a wildcard or a claim.
    others: Vec<Grant>,
}

impl Index {
    pub(super) fn insert(&mut self, grant: Grant) {
        let who = grant.who.clone();
        let grants = if subjects::is_plain(&who) {
            self.plain.entry(who).or_default()
        } else {
            self.wild.entry(who).or_default()
        };
        grants.insert(grant);
    }

    /// The grants of a caller for names with this first part, or for all names. Their patterns and
    /// claims are not checked yet.
    pub(super) fn candidates<'a>(
        &'a self,
        caller: &'a Caller,
        part: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Grant> + 'a {
        let plain = subjects::of(caller).into_iter().filter_map(|who| self.plain.get(&who));
        let wild = self.wild.iter().filter(|(who, _)| subjects::is(who, caller)).map(|(_, grants)| grants);
        plain.chain(wild).flat_map(move |grants| grants.for_part(part))
    }

    /// All subjects of the rules.
    pub(super) fn subjects(&self) -> impl Iterator<Item = &Subject> {
        self.plain.keys().chain(self.wild.keys())
    }
}

impl Grants {
    fn insert(&mut self, grant: Grant) {
        match grant.pattern.parts().first() {
            Some(Part::Text(text)) if !text.contains('*') => {
                self.by_part.entry(text.clone()).or_default().push(grant);
            }
            _ => self.others.push(grant),
        }
    }

    fn for_part<'a>(&'a self, part: Option<&str>) -> impl Iterator<Item = &'a Grant> + use<'a> {
        let (one, all) = match part {
            Some(part) => (self.by_part.get(part), None),
            None => (None, Some(self.by_part.values().flatten())),
        };
        self.others.iter().chain(one.into_iter().flatten()).chain(all.into_iter().flatten())
    }
}
