//! Named points at which a test lets the process die as `kill -9` would. Nothing of it is in a released node: without
//! the feature `crash-points`, [`point`] is empty.

/// Dies here if the environment variable `ENTREPOT_CRASH_AT` names this point.
#[cfg(feature = "crash-points")]
pub fn point(name: &str) {
    if std::env::var("ENTREPOT_CRASH_AT").is_ok_and(|chosen| chosen == name) {
        // Abort runs no destructor and flushes nothing: what is on disk now is what a kill leaves.
        std::process::abort();
    }
}

/// Nothing, in a released node.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn point(_name: &str) {}

/// Every point there is, so that the test of crashes leaves none out. Each lies between two steps of a flow.
pub const POINTS: &[&str] = &[
    "upload.session-created",
    "upload.bytes-appended",
    "upload.record-written",
    "upload.bytes-given-up",
    "upload.verified",
    "upload.journaled",
    "upload.adopted",
    "upload.session-removed",
    "replicate.data-headed",
    "replicate.multipart-begun",
    "replicate.part-sent",
    "replicate.parts-sent",
    "replicate.data-written",
    "replicate.link-written",
    "replicate.journal-removed",
    "manifest.data-written",
    "manifest.revision-written",
    "manifest.references-checked",
    "manifest.referrer-written",
    "manifest.tag-written",
    "delete.history-removed",
    "delete.tag-removed",
    "delete.tags-removed",
    "delete.link-removed",
    "delete.blob-unlinked",
];
