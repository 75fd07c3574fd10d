//! Why a reconciliation is incomplete: one failure for each part that failed, because the other
//! parts continue.

use super::build::{Child, Kind};
use crate::api_error::message_of;
use std::fmt;

/// Maximum length of a message in characters. The API server's response may contain the whole
/// object.
const MAX_MESSAGE_LENGTH: usize = 2000;

/// One part that failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A read.
    #[error("cannot {what}: {}", message_of(.source))]
    Read { what: String, source: Box<kube::Error> },
    /// A write of an object, a volume or the status.
    #[error("cannot {what}: {}", message_of(.source))]
    Write { what: String, source: Box<kube::Error> },
    /// An object of that name exists and another owner has it.
    #[error("{0} already exists and is not owned by this RegistryCluster")]
    OwnedByOther(String),
    /// The API server does not know the kind.
    #[error(
        "cannot apply {0}: the ServiceMonitor CRD is not installed; install the Prometheus Operator or set \
            spec.monitoring.serviceMonitor to false"
    )]
    NoCrd(String),
    /// The objects that this one depends on failed.
    #[error("{0} is not changed until the objects that it depends on are applied")]
    DependencyFailed(String),
    /// An object of this cluster does not have the structure of its kind.
    #[error("{0}; volumes and pods are not changed until it is valid")]
    Unreadable(String),
    #[error("cannot decode object: {0}")]
    Decode(serde_json::Error),
}

impl Failure {
    /// A failed read; `what` is a verb with its object.
    pub fn read(what: &'static str) -> impl Fn(kube::Error) -> Failure {
        move |source| Failure::Read { what: what.to_owned(), source: Box::new(source) }
    }

    /// A failed read of what a field of the spec names.
    pub fn read_of(verb: &'static str, field: &'static str) -> impl Fn(kube::Error) -> Failure {
        move |source| Failure::Read { what: format!("{verb} {field}"), source: Box::new(source) }
    }

    /// A failed write.
    pub fn write(verb: &str, label: &str) -> impl Fn(kube::Error) -> Failure {
        let what = format!("{verb} {label}");
        move |source| Failure::Write { what: what.clone(), source: Box::new(source) }
    }

    /// A failed apply of a child.
    pub(super) fn apply(child: &Child) -> impl Fn(kube::Error) -> Failure {
        let (kind, label) = (child.kind, child.label());
        move |source| match &source {
            // All other kinds are built into Kubernetes.
            kube::Error::Api(status) if status.code == 404 && kind == Kind::ServiceMonitor => {
                Failure::NoCrd(label.clone())
            }
            _ => Failure::write("apply", &label)(source),
        }
    }

    /// Whether a retry will fail in the same way until somebody changes something. A conflict is
    /// transient, and so is an overloaded or unavailable API server or a webhook behind it.
    fn is_final(&self) -> bool {
        match self {
            Failure::Read { source, .. } | Failure::Write { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => (400..500).contains(&status.code) && !matches!(status.code, 409 | 429),
                _ => false,
            },
            // The failure that it waits for may be transient.
            Failure::DependencyFailed(_) => false,
            Failure::OwnedByOther(_) | Failure::NoCrd(_) | Failure::Unreadable(_) | Failure::Decode(_) => true,
        }
    }
}

/// All failures of one reconciliation; none if it succeeded.
#[derive(Debug, Default)]
pub struct Failures(Vec<Recorded>);

#[derive(Debug)]
struct Recorded {
    failure: Failure,
    /// Whether the nodes do not match the spec because of it.
    of_nodes: bool,
}

impl Failures {
    /// Adds a failure that does not keep the nodes from matching the spec.
    pub fn push(&mut self, failure: Failure) {
        self.0.push(Recorded { failure, of_nodes: false });
    }

    /// Adds a failure because of which the nodes do not match the spec.
    pub fn push_of_nodes(&mut self, failure: Failure) {
        self.0.push(Recorded { failure, of_nodes: true });
    }

    /// Adds all failures of a later step.
    pub fn add(&mut self, later: Failures) {
        self.0.extend(later.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether no write failed that the nodes depend on.
    pub fn nodes_are_unaffected(&self) -> bool {
        !self.0.iter().any(|recorded| recorded.of_nodes)
    }

    /// Whether to report at once, and not only if it fails again, because somebody has to change
    /// something.
    pub fn are_final(&self) -> bool {
        self.0.iter().any(|recorded| recorded.failure.is_final())
    }

    /// All failures as one message for the user.
    pub fn message(&self) -> Option<String> {
        message(self.0.iter())
    }

    /// The failures that concern the nodes as one message for the user.
    pub fn message_of_nodes(&self) -> Option<String> {
        message(self.0.iter().filter(|recorded| recorded.of_nodes))
    }
}

fn message<'a>(failures: impl Iterator<Item = &'a Recorded>) -> Option<String> {
    let messages = joined(failures);
    (!messages.is_empty()).then(|| shortened(messages))
}

fn joined<'a>(failures: impl Iterator<Item = &'a Recorded>) -> String {
    failures.map(|recorded| recorded.failure.to_string()).collect::<Vec<_>>().join("; ")
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(MAX_MESSAGE_LENGTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl From<Failure> for Failures {
    fn from(failure: Failure) -> Failures {
        let mut failures = Failures::default();
        failures.push(failure);
        failures
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(self.0.iter()))
    }
}

/// A reconciliation that is incomplete.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReconcileError(pub Failures);

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn answered(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status { code, message: message.into(), ..Status::default() }))
    }

    #[test]
    fn a_failure_that_needs_a_change_is_final_and_a_transient_one_is_not() {
        let is_final = |code| Failure::write("apply", "Service a")(answered(code, "")).is_final();
        assert!([400, 403, 404, 405, 413, 422].into_iter().all(is_final));
        assert!(![409, 429, 500, 503, 504].into_iter().any(is_final));
        assert!(!Failure::read("get")(kube::Error::LinesCodecMaxLineLengthExceeded).is_final());
    }

    #[test]
    fn the_message_has_all_failures_and_that_of_nodes_only_theirs() {
        let mut failures = Failures::default();
        assert_eq!((failures.message(), failures.message_of_nodes()), (None, None));
        failures.push(Failure::NoCrd("ServiceMonitor a".into()));
        assert_eq!(failures.message_of_nodes(), None);
        failures.push_of_nodes(Failure::write("apply", "StatefulSet a")(answered(500, "a webhook is unavailable")));
        assert_eq!(
            failures.message_of_nodes().as_deref(),
            Some("cannot apply StatefulSet a: a webhook is unavailable")
        );
        let all = failures.message().unwrap();
        assert!(all.contains("CRD is not installed") && all.contains("a webhook is unavailable"), "{all}");
        assert!(failures.are_final());
        failures.push(Failure::Unreadable("é".repeat(9000)));
        assert_eq!(failures.message().unwrap().chars().count(), MAX_MESSAGE_LENGTH + 1);
    }
}
