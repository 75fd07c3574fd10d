//! Why a pass could not do all of its work: one failure for each thing that failed, for the others go on.

use super::build::{Child, Kind};
use std::fmt;

/// Longer messages are cut: an API server's answer may hold the whole object.
const LONGEST: usize = 2000;

/// One thing that could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A look at something.
    #[error("cannot {what}: {}", words(.source))]
    Look { what: String, source: Box<kube::Error> },
    /// A write of a child, a volume or the status.
    #[error("cannot {what}: {}", words(.source))]
    Write { what: String, source: Box<kube::Error> },
    /// Something of that name is there and belongs to somebody else.
    #[error("{0} exists and does not belong to this RegistryCluster")]
    Taken(String),
    /// The API server knows no such kind.
    #[error("cannot apply {0}: its definition is not installed in this cluster")]
    NoDefinition(String),
    /// A child waits for others that failed.
    #[error("{0} is left as it is until what it depends on is applied")]
    Waits(String),
    /// An object of this cluster is not of the form of its kind.
    #[error("{0}; volumes and pods are left as they are until it can be")]
    Unreadable(String),
    #[error("an object is not of its own form: {0}")]
    Form(serde_json::Error),
}

/// The API server's own words, where it answered.
pub(crate) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("the API server answers {}", status.code),
        other => other.to_string(),
    }
}

impl Failure {
    /// A look at something failed.
    pub fn look(what: &'static str) -> impl Fn(kube::Error) -> Failure {
        move |source| Failure::Look { what: what.to_owned(), source: Box::new(source) }
    }

    /// A write of something failed.
    pub fn write(verb: &str, label: &str) -> impl Fn(kube::Error) -> Failure {
        let what = format!("{verb} {label}");
        move |source| Failure::Write { what: what.clone(), source: Box::new(source) }
    }

    /// An apply of a child failed.
    pub(super) fn applying(child: &Child) -> impl Fn(kube::Error) -> Failure {
        let (kind, label) = (child.kind, child.label());
        move |source| match &source {
            // Every other kind is a part of Kubernetes.
            kube::Error::Api(status) if status.code == 404 && kind == Kind::ServiceMonitor => {
                Failure::NoDefinition(label.clone())
            }
            _ => Failure::write("apply", &label)(source),
        }
    }

    /// Whether it will be the same next time, unless somebody changes something. A conflict passes, and so does an API
    /// server, or a webhook behind it, that is overloaded or away.
    fn is_final(&self) -> bool {
        match self {
            Failure::Look { source, .. } | Failure::Write { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => (400..500).contains(&status.code) && !matches!(status.code, 409 | 429),
                _ => false,
            },
            // As what it waits for.
            Failure::Waits(_) => false,
            Failure::Taken(_) | Failure::NoDefinition(_) | Failure::Unreadable(_) | Failure::Form(_) => true,
        }
    }
}

/// Everything that failed in a pass.
#[derive(Debug, Default)]
pub struct Failures {
    all: Vec<Failure>,
    /// Which of them keep the nodes from being as the spec says.
    nodes: Vec<usize>,
}

impl Failures {
    /// Takes note of something beside which the nodes serve as the spec says.
    pub fn push(&mut self, failure: Failure) {
        self.all.push(failure);
    }

    /// Takes note of something without which the nodes are not as the spec says.
    pub fn push_of_nodes(&mut self, failure: Failure) {
        self.nodes.push(self.all.len());
        self.all.push(failure);
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether the nodes are as the spec says, as far as writes go.
    pub fn spare_nodes(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether a user is told at once, and not only if it fails again: it is for somebody to change.
    pub fn are_final(&self) -> bool {
        self.all.iter().any(Failure::is_final)
    }

    /// What a user is told of all of them.
    pub fn message(&self) -> Option<String> {
        (!self.all.is_empty()).then(|| shortened(self.to_string()))
    }

    /// What a user is told of those that are about the nodes.
    pub fn message_of_nodes(&self) -> Option<String> {
        let told: Vec<_> = self.nodes.iter().filter_map(|at| self.all.get(*at)).map(Failure::to_string).collect();
        (!told.is_empty()).then(|| shortened(told.join("; ")))
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl From<Failure> for Failures {
    fn from(failure: Failure) -> Failures {
        Failures { all: vec![failure], nodes: Vec::new() }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<_> = self.all.iter().map(Failure::to_string).collect();
        f.write_str(&told.join("; "))
    }
}

/// A pass that could not be finished.
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
    fn what_somebody_must_change_is_final_and_what_passes_is_not() {
        let is_final = |code| Failure::write("apply", "Service a")(answered(code, "")).is_final();
        assert!([400, 403, 404, 405, 413, 422].into_iter().all(is_final));
        assert!(![409, 429, 500, 503, 504].into_iter().any(is_final));
        assert!(!Failure::look("look")(kube::Error::LinesCodecMaxLineLengthExceeded).is_final());
    }

    #[test]
    fn all_of_it_is_told_and_what_is_about_nodes_apart() {
        let mut failures = Failures::default();
        assert_eq!((failures.message(), failures.message_of_nodes()), (None, None));
        failures.push(Failure::NoDefinition("ServiceMonitor a".into()));
        assert_eq!(failures.message_of_nodes(), None);
        failures.push_of_nodes(Failure::write("apply", "StatefulSet a")(answered(500, "a webhook is away")));
        assert_eq!(failures.message_of_nodes().as_deref(), Some("cannot apply StatefulSet a: a webhook is away"));
        let all = failures.message().unwrap();
        assert!(all.contains("definition is not installed") && all.contains("a webhook is away"), "{all}");
        assert!(failures.are_final());
        failures.push(Failure::Unreadable("é".repeat(9000)));
        assert_eq!(failures.message().unwrap().chars().count(), LONGEST + 1);
    }
}
