//! Named points at which a test ends the process as `kill -9` would. They are not part of a
//! released node: without the feature `crash-points`, [`point`] is empty.

/// Ends the process here if the environment variable `ENTREPOT_CRASH_AT` has this name.
#[cfg(feature = "crash-points")]
pub fn point(name: &str) {
    if std::env::var("ENTREPOT_CRASH_AT").is_ok_and(|chosen| chosen == name) {
        // Abort runs no destructor and flushes nothing: the disk is left as after a kill.
        std::process::abort();
    }
}

/// Does nothing in a released node.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn point(_name: &str) {}

/// All points, so that the crash test covers each of them. Each is between two steps of a flow.
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
