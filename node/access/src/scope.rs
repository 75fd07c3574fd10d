//! The rights that a client asks for a token: `repository:team-a/web:pull,push`
//! (<https://distribution.github.io/distribution/spec/auth/scope/>).

use entrepot_config::Action;
use entrepot_oci::Repository;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// The most scopes of one token. Clients that keep a union of all scopes, such as BuildKit, ask for
/// a few dozen.
const MAX_SCOPES: usize = 64;

/// The most bytes of the scopes of one token. Many proxies refuse headers above 8 KiB, and base64
/// makes 4 KiB of this.
const MAX_BYTES: usize = 3 * 1024;

/// Rights on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// `registry:catalog:*`: the list of repositories.
    Catalog,
    /// `repository:NAME:ACTION,...`: actions on one repository.
    Repository {
        /// The repository.
        repository: Repository,
        /// The actions. It is never empty.
        actions: BTreeSet<Action>,
    },
}

/// The rights of one token, as an upper bound: which of them the caller has is decided at each
/// request. Cheap to clone, bounded in number and length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(Arc<[Scope]>);

impl Scopes {
    /// Parses the values of `scope` parameters, each with any number of scopes separated by spaces.
    /// Scopes of the same repository are merged. Unknown types and actions and invalid names are
    /// ignored, as the specification of the token service demands. If there are too many scopes, the
    /// first ones are ignored, because clients append what they need now to what they needed before.
    pub fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Scopes {
        let texts: Vec<&str> = values.flat_map(|value| value.split_ascii_whitespace()).collect();
        let mut kept = Kept::default();
        for scope in texts.into_iter().rev().filter_map(Scope::parse) {
            if !kept.add(scope) {
                break;
            }
        }
        kept.finish()
    }

    /// Whether the scopes contain this action or one that includes it: `push` includes `pull`, and
    /// `delete` includes both, as in rules.
    #[must_use]
    pub fn covers(&self, action: Action, repository: &Repository) -> bool {
        self.iter().any(|scope| match scope {
            Scope::Repository { repository: of, actions } => {
                of == repository && actions.last().is_some_and(|highest| *highest >= action)
            }
            Scope::Catalog => false,
        })
    }

    /// Whether the scopes contain the list of repositories.
    #[must_use]
    pub fn covers_catalog(&self) -> bool {
        self.0.contains(&Scope::Catalog)
    }

    /// The scopes that are in both. A token that is issued to the holder of a token is good for
    /// nothing more than that one.
    #[must_use]
    pub fn within(&self, limit: &Scopes) -> Scopes {
        let limited = |scope: &Scope| match scope {
            Scope::Catalog => limit.covers_catalog().then_some(Scope::Catalog),
            Scope::Repository { repository, actions } => {
                let actions: BTreeSet<_> =
                    actions.iter().copied().filter(|action| limit.covers(*action, repository)).collect();
                (!actions.is_empty()).then(|| Scope::Repository { repository: repository.clone(), actions })
            }
        };
        Scopes(self.0.iter().filter_map(limited).collect())
    }

    /// Whether there are none, as in the token of a login.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The scopes: at most one of each repository.
    pub fn iter(&self) -> std::slice::Iter<'_, Scope> {
        self.0.iter()
    }
}

/// Merges scopes up to the bounds.
#[derive(Default)]
struct Kept {
    catalog: bool,
    repositories: BTreeMap<Repository, BTreeSet<Action>>,
    bytes: usize,
}

impl Kept {
    /// Returns `false` if there is no space for the scope.
    fn add(&mut self, scope: Scope) -> bool {
        let bytes = self.bytes + scope.longest_text();
        let full = self.repositories.len() + usize::from(self.catalog) >= MAX_SCOPES || bytes > MAX_BYTES;
        match scope {
            Scope::Catalog if self.catalog => true,
            Scope::Repository { repository, actions } if self.repositories.contains_key(&repository) => {
                self.repositories.entry(repository).or_default().extend(actions);
                true
            }
            _ if full => false,
            Scope::Catalog => {
                (self.catalog, self.bytes) = (true, bytes);
                true
            }
            Scope::Repository { repository, actions } => {
                self.repositories.insert(repository, actions);
                self.bytes = bytes;
                true
            }
        }
    }

    fn finish(self) -> Scopes {
        let catalog = self.catalog.then_some(Scope::Catalog);
        let repositories =
            self.repositories.into_iter().map(|(repository, actions)| Scope::Repository { repository, actions });
        Scopes(catalog.into_iter().chain(repositories).collect())
    }
}

impl Scope {
    /// Parses `type ["(" class ")"] ":" name ":" action *("," action)`. The name is what is between
    /// the first and the last colon, because it may contain the port of a host.
    fn parse(text: &str) -> Option<Scope> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let kind = match kind.split_once('(') {
            Some((kind, class)) if class.ends_with(')') => kind,
            Some(_) => return None,
            None => kind,
        };
        match kind {
            "registry" => {
                (name == "catalog" && actions.split(',').any(|action| action == "*")).then_some(Scope::Catalog)
            }
            "repository" => {
                let repository = Repository::parse(name).ok()?;
                let actions: BTreeSet<_> = actions.split(',').flat_map(actions_of).copied().collect();
                (!actions.is_empty()).then_some(Scope::Repository { repository, actions })
            }
            _ => None,
        }
    }

    /// The length of the text with all actions and a separator, so that a later merge needs no more.
    fn longest_text(&self) -> usize {
        match self {
            Scope::Catalog => "registry:catalog:* ".len(),
            Scope::Repository { repository, .. } => "repository::pull,push,delete ".len() + repository.as_str().len(),
        }
    }
}

fn actions_of(word: &str) -> &'static [Action] {
    match word {
        "pull" => &[Action::Pull],
        "push" => &[Action::Push],
        "delete" => &[Action::Delete],
        "*" => &[Action::Pull, Action::Push, Action::Delete],
        _ => &[],
    }
}

fn word_of(action: Action) -> &'static str {
    match action {
        Action::Pull => "pull",
        Action::Push => "push",
        Action::Delete => "delete",
    }
}

/// The text of a `scope` parameter or of a challenge.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Catalog => f.write_str("registry:catalog:*"),
            Scope::Repository { repository, actions } => {
                let words: Vec<_> = actions.iter().copied().map(word_of).collect();
                write!(f, "repository:{repository}:{}", words.join(","))
            }
        }
    }
}

/// The scopes, separated by spaces.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, scope) in self.iter().enumerate() {
            let space = if number == 0 { "" } else { " " };
            write!(f, "{space}{scope}")?;
        }
        Ok(())
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scopes, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Scopes::parse(std::iter::once(text.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Scopes {
        Scopes::parse(std::iter::once(text))
    }

    fn name(text: &str) -> Repository {
        Repository::parse(text).unwrap()
    }

    #[test]
    fn what_clients_send_is_understood() {
        for (sent, understood) in [
            ("repository:a/b:pull", "repository:a/b:pull"),
            ("repository:a/b:push,pull", "repository:a/b:pull,push"),
            ("repository:a:pull repository:a:pull,push", "repository:a:pull,push"),
            ("repository:b:pull  repository:a:*", "repository:a:pull,push,delete repository:b:pull"),
            ("repository(plugin):a:pull", "repository:a:pull"),
            ("registry:catalog:*", "registry:catalog:*"),
            ("", ""),
        ] {
            assert_eq!(parse(sent).to_string(), understood, "{sent}");
        }
        let twice = Scopes::parse(["repository:a:pull", "repository:b:push"].into_iter());
        assert_eq!(twice.to_string(), "repository:a:pull repository:b:push");
    }

    #[test]
    fn what_is_unknown_is_ignored_and_the_rest_stays() {
        for sent in [
            "artifact:a:pull",
            "repository:a:mirror",
            "repository:a:",
            "repository::pull",
            "repository:A:pull",
            "repository:../a:pull",
            "repository(plugin:a:pull",
            "registry:catalog:pull",
            "registry:other:*",
            "repository:a",
            "::",
            // A host with a port is legal in the grammar, but no repository of this registry.
            "repository:host:5000/a:pull",
        ] {
            assert!(parse(sent).is_empty(), "{sent}");
            assert_eq!(parse(&format!("{sent} repository:b:pull,fly")).to_string(), "repository:b:pull", "{sent}");
        }
    }

    #[test]
    fn an_action_covers_those_that_it_includes_on_its_repository_alone() {
        let scopes = parse("repository:a/b:push");
        assert!(scopes.covers(Action::Pull, &name("a/b")) && scopes.covers(Action::Push, &name("a/b")));
        assert!(!scopes.covers(Action::Delete, &name("a/b")));
        assert!(!scopes.covers(Action::Pull, &name("a")) && !scopes.covers(Action::Pull, &name("a/b/c")));
        assert!(!scopes.covers_catalog() && parse("registry:catalog:*").covers_catalog());
        assert!(!parse("repository:a:pull").covers(Action::Push, &name("a")));
        assert!(!Scopes::default().covers(Action::Pull, &name("a")));
    }

    #[test]
    fn of_too_many_scopes_the_last_ones_are_kept() {
        let many: Vec<_> = (0..500).map(|number| format!("repository:n{number}:pull")).collect();
        let scopes = parse(&many.join(" "));
        assert_eq!(scopes.iter().count(), MAX_SCOPES);
        assert!(scopes.covers(Action::Pull, &name("n499")) && !scopes.covers(Action::Pull, &name("n0")));
        let long: Vec<_> = (0..50).map(|number| format!("repository:{}{number}:pull", "a".repeat(250))).collect();
        assert!(parse(&long.join(" ")).to_string().len() <= MAX_BYTES);
    }

    proptest! {
        #[test]
        fn any_text_gives_bounded_scopes_that_are_read_as_they_were_written(
            text in "((repository|registry|x)(\\(c\\))?:[a-c/:A]{0,8}:(pull|push|delete|\\*|x|,){0,5} ?){0,100}"
        ) {
            let scopes = parse(&text);
            prop_assert!(scopes.iter().count() <= MAX_SCOPES && scopes.to_string().len() <= MAX_BYTES);
            prop_assert_eq!(&parse(&scopes.to_string()), &scopes);
            let json = serde_json::to_string(&scopes).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Scopes>(&json).unwrap(), &scopes);
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }
    }
}
