//! Objects in the bucket whose bytes did not match their digest when this node read them.
//!
//! A marked object is not served from the bucket before all of it was verified, and the next push
//! of the same content overwrites it. A mark is removed when the object has changed, when a
//! download of it matches, or when a push through this node replaced it. Marks are kept in memory
//! only; without a mark, the next read of the object finds the damage again.

use entrepot_bucket::ObjectMeta;
use entrepot_oci::Digest;
use entrepot_runtime::Clock;
use entrepot_runtime::clock::Uptime;
use quick_cache::sync::Cache;
use std::time::Duration;

/// Number of objects remembered, about 200 bytes each. Forgetting one costs one more read of it.
const MAX_MARKS: usize = 10_000;

/// How often the bucket is asked whether a damaged object has changed.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Pause after the second mismatch of one object before it is read again. It doubles with each
/// further mismatch, so frequent requests for a large damaged object cost little. After the first
/// mismatch the object is read again at once, because the damage may have occurred in transit.
const PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The objects that are known to be damaged.
pub struct Damaged {
    marks: Cache<Digest, Mark>,
    clock: Clock,
}

#[derive(Clone)]
struct Mark {
    /// The version whose bytes did not match; `None` if the object changed while it was read.
    version: Option<ObjectMeta>,
    mismatches: u32,
    seen: Uptime,
    asked: Option<Uptime>,
}

/// What this node knows about an object without asking the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// No damage is known.
    Sound,
    /// The object is damaged, and the bucket confirmed a moment ago that it has not changed.
    Damaged,
    /// The object was damaged. The caller must ask the bucket whether it has changed, and pass the
    /// answer to [`Damaged::look`].
    Unknown,
}

/// What to do with an object that was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// The object has changed: read it as any other.
    Read,
    /// Read it, and serve nothing of it before all of it is verified.
    Verify,
    /// Do not read it; the last read is too recent.
    Refuse,
}

impl Damaged {
    /// No object is known to be damaged.
    pub fn new(clock: Clock) -> Damaged {
        Damaged { marks: Cache::new(MAX_MARKS), clock }
    }

    /// Marks an object that did not match its digest. `version`: the object that was read, if it
    /// did not change meanwhile.
    pub fn mark(&self, digest: &Digest, version: Option<ObjectMeta>) {
        let before = self.marks.get(digest).filter(|before| before.version == version);
        let mismatches = before.map_or(0, |before| before.mismatches).saturating_add(1);
        self.marks.insert(*digest, Mark { version, mismatches, seen: self.clock.uptime(), asked: None });
    }

    /// Whether the object was damaged when it was last read.
    pub fn is_damaged(&self, digest: &Digest) -> bool {
        self.marks.contains_key(digest)
    }

    /// Removes the mark: the object was replaced by matching content, or was read and matched.
    pub fn repaired(&self, digest: &Digest) {
        if self.marks.remove(digest).is_some() {
            tracing::info!(%digest, "a damaged object in the bucket was repaired");
        }
    }

    /// What this node knows about an object.
    pub fn condition(&self, digest: &Digest) -> Condition {
        let Some(mark) = self.marks.get(digest) else { return Condition::Sound };
        let now = self.clock.uptime();
        let asked_lately = mark.asked.is_some_and(|asked| now.since(asked) < ASK_EVERY);
        if asked_lately && !is_due(&mark, now) { Condition::Damaged } else { Condition::Unknown }
    }

    /// Decides with the current state of the object in the bucket; `None`: it does not exist.
    pub fn look(&self, digest: &Digest, now: Option<&ObjectMeta>) -> Course {
        let Some(mark) = self.marks.get(digest) else { return Course::Read };
        if mark.version.is_some() && mark.version.as_ref() != now {
            self.repaired(digest);
            return Course::Read;
        }
        let time = self.clock.uptime();
        let course = if is_due(&mark, time) { Course::Verify } else { Course::Refuse };
        self.marks.insert(*digest, Mark { asked: Some(time), ..mark });
        course
    }
}

/// Whether an object may be read again.
fn is_due(mark: &Mark, now: Uptime) -> bool {
    let doublings = mark.mismatches.saturating_sub(2).min(16);
    let pause = if mark.mismatches < 2 { Duration::ZERO } else { PAUSE.saturating_mul(1 << doublings) };
    now.since(mark.seen) >= pause.min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_bucket::ETag;
    use entrepot_oci::Algorithm;
    use entrepot_runtime::clock::Timestamp;

    fn version(etag: &str) -> ObjectMeta {
        ObjectMeta { size: 7, etag: ETag(etag.into()) }
    }

    fn marked() -> (Damaged, Clock, Digest) {
        let clock = Clock::manual(Timestamp(1_000_000));
        let (damaged, digest) = (Damaged::new(clock.clone()), Digest::of(Algorithm::Sha256, b"x"));
        assert_eq!((damaged.condition(&digest), damaged.is_damaged(&digest)), (Condition::Sound, false));
        damaged.mark(&digest, Some(version("a")));
        (damaged, clock, digest)
    }

    #[test]
    fn a_damaged_object_is_verified_once_more_at_once_and_then_less_and_less_often() {
        let (damaged, clock, digest) = marked();
        assert_eq!(damaged.condition(&digest), Condition::Unknown);
        assert_eq!(damaged.look(&digest, Some(&version("a"))), Course::Verify);
        for pause in [10, 20, 40] {
            damaged.mark(&digest, Some(version("a")));
            assert_eq!(damaged.look(&digest, Some(&version("a"))), Course::Refuse);
            assert_eq!(damaged.condition(&digest), Condition::Damaged, "the bucket is not asked");
            clock.advance(Duration::from_secs(5));
            assert_eq!(damaged.condition(&digest), Condition::Unknown, "it may have been replaced");
            assert_eq!(damaged.look(&digest, Some(&version("a"))), Course::Refuse);
            clock.advance(Duration::from_secs(pause - 5));
            assert_eq!(damaged.look(&digest, Some(&version("a"))), Course::Verify, "after {pause} s");
        }
    }

    #[test]
    fn another_object_is_not_known_to_be_damaged() {
        for now in [Some(version("b")), None] {
            let (damaged, _, digest) = marked();
            assert_eq!(damaged.look(&digest, now.as_ref()), Course::Read);
            assert_eq!((damaged.condition(&digest), damaged.is_damaged(&digest)), (Condition::Sound, false));
        }
        let (damaged, _, digest) = marked();
        damaged.repaired(&digest);
        assert!(!damaged.is_damaged(&digest));
    }

    #[test]
    fn the_memory_of_damaged_objects_is_bounded() {
        let (damaged, ..) = marked();
        let digests = (0..2 * MAX_MARKS).map(|number| Digest::of(Algorithm::Sha256, &number.to_be_bytes()));
        digests.for_each(|digest| damaged.mark(&digest, None));
        assert!(damaged.marks.len() <= MAX_MARKS);
    }

    #[test]
    fn an_object_that_changed_while_it_was_read_is_always_verified() {
        let (damaged, _, digest) = marked();
        damaged.mark(&digest, None);
        assert_eq!(damaged.look(&digest, Some(&version("b"))), Course::Verify);
    }
}
