//! The file of access statistics: when and how often content was requested, and which links and
//! tags were seen.
//!
//! It may be lost at any time. It makes a restarted node as fast as before and keeps its eviction
//! order; correctness never depends on it. A damaged file is deleted and created again, and a node
//! also works without the file.

use super::folders::remove_file;
use super::frequency::Frequency;
use super::link_cache::LinkKind;
use super::link_cache::LinkSeen;
use super::tag_cache::{KnownTag, TagName};
use entrepot_bucket::ETag;
use entrepot_oci::{Digest, Repository, Tag};
use entrepot_runtime::clock::{Timestamp, Uptime, boot};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Time when a link was seen, in milliseconds since the boot of the machine, its kind, and its
/// repository.
type LinkRow<'a> = (u64, u8, &'a str);
/// Last use in milliseconds since the epoch, the bits of the frequency, and links.
type ContentRow<'a> = (u64, u64, Vec<LinkRow<'a>>);
/// Digest, ETag, and the time when they were seen, in milliseconds since the boot of the machine.
type TagRow<'a> = (&'a str, &'a str, u64);

// A change of a row's type changes the table's name, so another version of the node starts with an
// empty table.
const CONTENT: TableDefinition<&str, ContentRow> = TableDefinition::new("content-3");
const TAGS: TableDefinition<(&str, &str), TagRow> = TableDefinition::new("tags-2");
/// The value of the request clock, in the only row.
const REQUESTS: TableDefinition<(), u64> = TableDefinition::new("requests-1");

/// The boot ID of the machine that wrote the file, in the only row. Times from another boot are
/// meaningless, so links and tags are then forgotten.
const BOOT: TableDefinition<(), &str> = TableDefinition::new("boot-1");

/// Page cache of the database, in bytes. The file is read once and written in batches, so more
/// memory gains nothing.
const CACHE: usize = 8 << 20;

/// The access statistics of one stored item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContentRecord {
    pub(super) digest: Digest,
    pub(super) used: Timestamp,
    pub(super) frequency: Frequency,
    pub(super) links: Vec<LinkSeen>,
}

impl ContentRecord {
    fn without_links(self) -> ContentRecord {
        ContentRecord { links: Vec::new(), ..self }
    }
}

/// The whole content of the file.
#[derive(Default)]
pub(super) struct Known {
    /// The bits of the request clock.
    pub(super) requests: u64,
    pub(super) content: Vec<ContentRecord>,
    pub(super) tags: Vec<(TagName, KnownTag)>,
}

/// The changes since the last batch.
#[derive(Default)]
pub(super) struct Batch {
    /// The request clock, not older than any of the frequencies.
    pub(super) requests: u64,
    /// Content that is not stored any more. Applied before `content`, because it may have been
    /// stored again.
    pub(super) removed: Vec<Digest>,
    pub(super) content: Vec<ContentRecord>,
    /// `None`: the tag was forgotten.
    pub(super) tags: Vec<(TagName, Option<KnownTag>)>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.content.is_empty() && self.tags.is_empty()
    }
}

/// The open statistics file.
pub(super) struct Records {
    file: Database,
}

impl Records {
    /// Opens the file and reads it. `None` if that is impossible, which is logged. Blocking.
    pub(super) fn open(path: &Path) -> Option<(Records, Known)> {
        let damage = match Records::try_open(path) {
            Ok(opened) => return Some(opened),
            Err(damage) => damage,
        };
        tracing::warn!(file = %path.display(), %damage,
            "cannot read the access statistics; starting with an empty file");
        let begun = remove_file(path).map_err(|error| error.to_string()).and_then(|()| Records::try_open(path));
        begun
            .inspect_err(|error| {
                tracing::warn!(file = %path.display(), error,
                    "continuing without access statistics; the eviction order is lost at a restart");
            })
            .ok()
    }

    fn try_open(path: &Path) -> Result<(Records, Known), String> {
        let open = || -> Result<(Records, Known), redb::Error> {
            let records = Records { file: Database::builder().set_cache_size(CACHE).create(path)? };
            let known = records.read()?;
            Ok((records, known))
        };
        // The library panics on some kinds of damage. This file must never prevent a node from
        // starting.
        match catch_unwind(AssertUnwindSafe(open)) {
            Ok(opened) => opened.map_err(|error| error.to_string()),
            Err(_) => Err("reading it panicked".to_owned()),
        }
    }

    fn read(&self) -> Result<Known, redb::Error> {
        let mut known = Known::default();
        let transaction = self.file.begin_read()?;
        // The first batch creates all tables, so a file without a table is empty.
        let content = match transaction.open_table(CONTENT) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(known),
            opened => opened?,
        };
        let this_boot = transaction.open_table(BOOT)?.get(())?.is_some_and(|row| row.value() == boot());
        for row in content.iter()? {
            let (digest, row) = row?;
            let record = read_content(digest.value(), row.value());
            known.content.extend(record.map(|record| if this_boot { record } else { record.without_links() }));
        }
        if this_boot {
            for row in transaction.open_table(TAGS)?.iter()? {
                let (name, row) = row?;
                known.tags.extend(read_tag(name.value(), row.value()));
            }
        }
        known.requests = transaction.open_table(REQUESTS)?.get(())?.map_or(0, |row| row.value());
        Ok(known)
    }

    /// Writes a batch: afterwards either all of it is on disk, or nothing. If the file holds more
    /// than `most` tags, those for which `keeps` returns false are dropped. Blocking.
    pub(super) fn write(&self, batch: &Batch, most: u64, keeps: impl Fn(&TagName) -> bool) -> Result<(), redb::Error> {
        let transaction = self.file.begin_write()?;
        {
            transaction.open_table(REQUESTS)?.insert((), batch.requests)?;
            transaction.open_table(BOOT)?.insert((), boot().as_str())?;
            let mut table = transaction.open_table(CONTENT)?;
            for digest in &batch.removed {
                table.remove(digest.to_string().as_str())?;
            }
            for record in &batch.content {
                let links = record.links.iter().map(|link| (link.seen.0, number(link.kind), link.repository.as_str()));
                let row = (record.used.0, record.frequency.to_bits(), links.collect());
                table.insert(record.digest.to_string().as_str(), row)?;
            }
            let mut table = transaction.open_table(TAGS)?;
            for ((repository, tag), known) in &batch.tags {
                let name = (repository.as_str(), tag.as_str());
                match known {
                    Some(known) => {
                        table.insert(name, (known.digest.to_string().as_str(), known.etag.0.as_str(), known.seen.0))?
                    }
                    None => table.remove(name)?,
                };
            }
            if table.len()? > most {
                table.retain(|name, _| tag_name(name).is_some_and(|name| keeps(&name)))?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

fn read_content(digest: &str, (used, frequency, links): ContentRow) -> Option<ContentRecord> {
    let link = |(seen, kind, repository): LinkRow| {
        let (kind, repository) = (kind_of(kind)?, Repository::parse(repository).ok()?);
        Some(LinkSeen { repository, kind, seen: Uptime(seen) })
    };
    Some(ContentRecord {
        digest: Digest::parse(digest).ok()?,
        used: Timestamp(used),
        frequency: Frequency::from_bits(frequency),
        links: links.into_iter().filter_map(link).collect(),
    })
}

fn read_tag(name: (&str, &str), (digest, etag, seen): TagRow) -> Option<(TagName, KnownTag)> {
    let digest = Digest::parse(digest).ok()?;
    Some((tag_name(name)?, KnownTag { digest, etag: ETag(etag.to_owned()), seen: Uptime(seen) }))
}

fn tag_name((repository, tag): (&str, &str)) -> Option<TagName> {
    Some((Repository::parse(repository).ok()?, Tag::parse(tag).ok()?))
}

fn number(kind: LinkKind) -> u8 {
    match kind {
        LinkKind::Layer => 0,
        LinkKind::Revision => 1,
    }
}

fn kind_of(number: u8) -> Option<LinkKind> {
    [LinkKind::Layer, LinkKind::Revision].into_iter().find(|kind| self::number(*kind) == number)
}
