//! Where the catalog of a caller has to look: below the prefixes of the caller's patterns and
//! nowhere else. Which names it shows is the decision on a pull.

use super::{Rules, names};
use crate::Caller;
use entrepot_config::Action;
use entrepot_oci::Repository;
use std::collections::BTreeSet;

/// The names that a caller may pull by the rules.
#[derive(Clone, Debug)]
pub struct Listable {
    rules: Rules,
    caller: Caller,
    prefixes: Vec<String>,
}

impl Listable {
    pub(super) fn new(rules: &Rules, caller: &Caller) -> Listable {
        let grants = rules.0.index.candidates(caller, None);
        let steps = grants.filter_map(|grant| grant.steps(caller));
        let all = steps.map(|steps| names::literal_prefix(&steps)).collect::<BTreeSet<_>>();
        // In sorted order, a prefix comes directly before the texts that begin with it.
        let mut prefixes = Vec::<String>::new();
        for prefix in all {
            if !prefixes.last().is_some_and(|last| prefix.starts_with(last)) {
                prefixes.push(prefix);
            }
        }
        Listable { rules: rules.clone(), caller: caller.clone(), prefixes }
    }

    /// Texts with one of which every name begins, sorted. None of them begins with another. An empty
    /// list means that there is nothing to list; an empty prefix means all names.
    #[must_use]
    pub fn prefixes(&self) -> &[String] {
        &self.prefixes
    }

    /// Whether the caller may pull this repository.
    #[must_use]
    pub fn contains(&self, name: &Repository) -> bool {
        self.rules.allows(&self.caller, Action::Pull, name).is_some()
    }

    /// Whether the caller may pull a repository with this name or below it. A directory for which
    /// this is false does not need to be listed. The empty name is the directory of all.
    #[must_use]
    pub fn reaches(&self, folder: &str) -> bool {
        let folder = folder.trim_end_matches('/');
        let parts = folder.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>();
        let mut grants = self.rules.0.index.candidates(&self.caller, parts.first().copied());
        grants.any(|grant| grant.steps(&self.caller).is_some_and(|steps| names::may_match_below(&steps, &parts)))
    }
}
