//! The rules of the configuration (`auth.rules`). A request is allowed if one rule allows it: rules
//! only allow, and their order does not matter. This module decides from memory and does no I/O.
//!
//! - `index`: finds the rules of a caller without looking at all of them.
//! - `subjects`: which subjects of rules a caller is.
//! - `names`: which names a pattern matches.
//! - `listable`: where the catalog of a caller has to look.

mod index;
mod listable;
mod names;
mod subjects;
#[cfg(test)]
mod tests;

pub use listable::Listable;

use crate::Caller;
use entrepot_config::{Action, Auth, NamePattern, Part, Subject};
use entrepot_oci::Repository;
use index::Index;
use names::{Step, expand};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// The rules of a configuration, indexed by subject. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rules(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    index: Index,
    claims: BTreeSet<String>,
}

/// What a rule gives one of its subjects on one of its patterns.
#[derive(Debug)]
struct Grant {
    who: Subject,
    /// The greatest of the actions. It includes the others.
    may: Action,
    pattern: NamePattern,
    claims: Arc<BTreeMap<String, Vec<String>>>,
    /// Made once, because each allowed request needs it.
    reference: RuleRef,
}

/// The rule that allows a request, for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// Position of the rule in `auth.rules`, from 0.
    pub index: usize,
    /// The position, and the part of the rule that applied: its subject, action and pattern.
    pub text: Arc<str>,
}

impl RuleRef {
    fn new(index: usize, who: &Subject, may: Action, pattern: &NamePattern) -> RuleRef {
        let action = match may {
            Action::Pull => "pull",
            Action::Push => "push",
            Action::Delete => "delete",
        };
        RuleRef { index, text: format!("auth.rules[{index}]: {who} may {action} in {pattern}").into() }
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Rules {
    /// Indexes the rules of a configuration.
    #[must_use]
    pub fn compile(auth: &Auth) -> Rules {
        let mut index = Index::default();
        let mut used = BTreeSet::new();
        for (position, rule) in auth.rules.iter().enumerate() {
            let Some(may) = rule.may.iter().copied().max() else { continue };
            let claims = Arc::new(rule.claims.clone());
            used.extend(rule.claims.keys().cloned());
            used.extend(rule.repositories.iter().flat_map(NamePattern::parts).filter_map(Part::claim).cloned());
            for who in &rule.who {
                for pattern in &rule.repositories {
                    let (who, pattern, claims) = (who.clone(), pattern.clone(), claims.clone());
                    let reference = RuleRef::new(position, &who, may, &pattern);
                    index.insert(Grant { who, may, pattern, claims, reference });
                }
            }
        }
        Rules(Arc::new(Compiled { index, claims: used }))
    }

    /// The rule that allows this. `None` if no rule does.
    #[must_use]
    pub fn allows(&self, caller: &Caller, action: Action, repository: &Repository) -> Option<RuleRef> {
        let name = repository.as_str();
        let parts = name.split('/').collect::<Vec<_>>();
        let mut candidates = self.0.index.candidates(caller, parts.first().copied());
        let grant = candidates.find(|grant| {
            grant.may >= action && grant.steps(caller).is_some_and(|steps| names::matches(&steps, &parts))
        })?;
        Some(grant.reference.clone())
    }

    /// Where the catalog of a caller has to look.
    #[must_use]
    pub fn listable(&self, caller: &Caller) -> Listable {
        Listable::new(self, caller)
    }

    /// Names of the claims that rules use. A token needs to contain only these.
    #[must_use]
    pub fn claims_used(&self) -> &BTreeSet<String> {
        &self.0.claims
    }

    /// Whether a rule is about members of this group. A token needs to contain only such groups.
    #[must_use]
    pub fn is_group_used(&self, group: &str) -> bool {
        self.0.index.subjects().any(|who| subjects::is_group(who, group))
    }
}

impl Grant {
    /// What the pattern matches for this caller. `None` if the caller does not have the claims.
    fn steps<'a>(&'a self, caller: &'a Caller) -> Option<Vec<Step<'a>>> {
        let claim = |name: &str| match caller {
            Caller::Known(identity) => identity.claims.get(name).map(String::as_str),
            Caller::Anonymous => None,
        };
        let has = |(name, values): (&String, &Vec<String>)| {
            claim(name).is_some_and(|value| values.iter().any(|accepted| accepted == value))
        };
        self.claims.iter().all(has).then(|| expand(&self.pattern, claim)).flatten()
    }
}
