//! Which subjects of rules a caller is.

use super::names::wild;
use crate::{Caller, Identity, Via};
use entrepot_config::Subject;

/// What `*` stands for alone: every name.
const EVERY: &str = "*";

/// Whether a subject is found by its text: each of its names has no `*`, or is `*`.
pub(super) fn is_plain(who: &Subject) -> bool {
    let plain = |name: &str| name == EVERY || !name.contains('*');
    match who {
        Subject::Anonymous | Subject::Authenticated => true,
        Subject::User(name) | Subject::Group(name) | Subject::Oidc(name) | Subject::Certificate(name) => plain(name),
        Subject::ServiceAccount { namespace, name } => plain(namespace) && plain(name),
    }
}

/// The plain subjects that a caller is. What is allowed without credentials is allowed to everyone,
/// because everyone can omit them.
pub(super) fn of(caller: &Caller) -> Vec<Subject> {
    let mut subjects = vec![Subject::Anonymous];
    let Caller::Known(identity) = caller else { return subjects };
    subjects.push(Subject::Authenticated);
    let mut both = |make: fn(String) -> Subject, name: &str| {
        subjects.push(make(name.to_owned()));
        subjects.push(make(EVERY.to_owned()));
    };
    match &identity.via {
        Via::File => both(Subject::User, &identity.name),
        Via::Oidc(issuer) => both(Subject::Oidc, issuer),
        Via::Certificate => both(Subject::Certificate, &identity.name),
        Via::Kubernetes => {}
    }
    for group in &identity.groups {
        subjects.push(Subject::Group(group.clone()));
    }
    if !identity.groups.is_empty() {
        subjects.push(Subject::Group(EVERY.to_owned()));
    }
    if let Some((namespace, name)) = service_account(identity) {
        for namespace in [namespace, EVERY] {
            for name in [name, EVERY] {
                subjects.push(Subject::ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() });
            }
        }
    }
    subjects
}

/// Whether a caller is this subject, in whose names `*` stands for any characters.
pub(super) fn is(who: &Subject, caller: &Caller) -> bool {
    let identity = match (who, caller) {
        (Subject::Anonymous, _) => return true,
        (_, Caller::Anonymous) => return false,
        (_, Caller::Known(identity)) => identity,
    };
    match (who, &identity.via) {
        (Subject::Authenticated, _) => true,
        (Subject::Group(_), _) => identity.groups.iter().any(|group| is_group(who, group)),
        (Subject::User(pattern), Via::File) | (Subject::Certificate(pattern), Via::Certificate) => {
            wild(pattern, &identity.name)
        }
        (Subject::Oidc(pattern), Via::Oidc(issuer)) => wild(pattern, issuer),
        (Subject::ServiceAccount { namespace, name }, Via::Kubernetes) => service_account(identity)
            .is_some_and(|(its_namespace, its_name)| wild(namespace, its_namespace) && wild(name, its_name)),
        _ => false,
    }
}

/// Whether a subject is this group.
pub(super) fn is_group(who: &Subject, group: &str) -> bool {
    matches!(who, Subject::Group(pattern) if wild(pattern, group))
}

/// Namespace and name of a service account. A user of another issuer can choose the same name, so
/// only the API server's word counts.
fn service_account(identity: &Identity) -> Option<(&str, &str)> {
    let account = identity.name.strip_prefix("system:serviceaccount:")?;
    account.split_once(':').filter(|_| identity.via == Via::Kubernetes)
}
