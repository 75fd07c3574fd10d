//! Objects of the bucket whose bytes this node saw not to match their digest.
//!
//! What is marked is not served from the bucket before all of it was verified, and is overwritten by the next push of
//! it. A mark goes when the object is another one, when a fill of it matches, or when a push through this node replaced
//! it. It is in memory alone: without it, the next read of the object finds the damage again.

use super::bucket::ObjectMeta;
use crate::oci::Digest;
use crate::run::Clock;
use crate::run::clock::Uptime;
use quick_cache::sync::Cache;
use std::time::Duration;

/// Objects remembered, some 200 bytes each. Forgetting one costs reading it again.
const MAX_MARKS: usize = 10_000;

/// How often the bucket is asked whether a damaged object is still the same.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// After the second mismatch of one object it is not read again for this long, and for twice as long after each further
/// one: a large damaged object that is asked for all the time costs little. After the first it is read again at once,
/// because the damage may have been on the way.
const PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The objects known to be damaged.
pub struct Damaged {
    marks: Cache<Digest, Mark>,
    clock: Clock,
}

#[derive(Clone)]
struct Mark {
    /// The version whose bytes did not match; `None` when it changed while it was read.
    version: Option<ObjectMeta>,
    mismatches: u32,
    seen: Uptime,
    asked: Option<Uptime>,
}

/// What is known of an object without asking the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing speaks against it.
    Sound,
    /// It is damaged, and it was seen a moment ago that it is so still.
    Damaged,
    /// It was damaged: the bucket is to be asked whether it is still the same object, and
    /// [`Damaged::look`] to be told the answer.
    Unknown,
}

/// What is to be done with an object that was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It is another object now: read it as any other.
    Read,
    /// Read it, and give nothing of it away before all of it is verified.
    Verify,
    /// It was read too lately.
    Refuse,
}

impl Damaged {
    pub fn new(clock: Clock) -> Damaged {
        Damaged { marks: Cache::new(MAX_MARKS), clock }
    }

    /// The object did not match its digest. `version`: the object that was read, if it was one and the same.
    pub fn mark(&self, digest: &Digest, version: Option<ObjectMeta>) {
        let before = self.marks.get(digest).filter(|before| before.version == version);
        let mismatches = before.map_or(0, |before| before.mismatches).saturating_add(1);
        self.marks.insert(*digest, Mark { version, mismatches, seen: self.clock.uptime(), asked: None });
    }

    /// Whether the object was damaged when it was last read.
    pub fn is_damaged(&self, digest: &Digest) -> bool {
        self.marks.contains_key(digest)
    }

    /// The object was replaced by what its digest says, or was read and matched.
    pub fn repaired(&self, digest: &Digest) {
        if self.marks.remove(digest).is_some() {
            tracing::info!(%digest, "the damaged object in the bucket is repaired");
        }
    }

    /// What is known of an object.
    pub fn condition(&self, digest: &Digest) -> Condition {
        let Some(mark) = self.marks.get(digest) else { return Condition::Sound };
        let now = self.clock.uptime();
        let asked_lately = mark.asked.is_some_and(|asked| now.since(asked) < ASK_EVERY);
        if asked_lately && !is_due(&mark, now) { Condition::Damaged } else { Condition::Unknown }
    }

    /// The bucket has said what the object is now; `None`: it is gone.
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
    use crate::oci::Algorithm;
    use crate::run::clock::Timestamp;
    use crate::store::bucket::ETag;

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
    fn an_object_that_did_not_match_is_verified_once_more_and_then_ever_more_rarely() {
        let (damaged, clock, digest) = marked();
        assert_eq!(damaged.condition(&digest), Condition::Unknown);
        assert_eq!(damaged.look(&digest, Some(&version("a"))), Course::Verify);
        for pause in [10, 20, 40] {
            damaged.mark(&digest, Some(version("a")));
            assert_eq!(damaged.look(&digest, Some(&version("a"))), Course::Refuse);
            assert_eq!(damaged.condition(&digest), Condition::Damaged, "nothing is asked");
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
    fn an_object_that_changed_while_it_was_read_is_verified_whatever_it_is_now() {
        let (damaged, _, digest) = marked();
        damaged.mark(&digest, None);
        assert_eq!(damaged.look(&digest, Some(&version("b"))), Course::Verify);
    }
}
