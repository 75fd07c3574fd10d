//! Pages of a listing, built from ordered keys.

use super::{ListOptions, Page};
use crate::Key;

/// Folds keys, which must be in ascending order, into one page. Reads no further than the first key
/// of the next page.
pub(super) fn page_of(options: &ListOptions, keys: impl IntoIterator<Item = impl AsRef<str>>) -> Page {
    let mut page = Page::default();
    let mut last = String::new();
    for key in keys {
        let key = key.as_ref();
        let Some(rest) = key.strip_prefix(&options.prefix) else {
            if key > options.prefix.as_str() {
                break;
            }
            continue;
        };
        let folded = rest.find('/').filter(|_| options.delimiter);
        let entry = folded.map_or(key, |slash| &key[..=options.prefix.len() + slash]);
        let is_before = options.after.as_deref().is_some_and(|after| entry <= after);
        if is_before || (folded.is_some() && page.prefixes.last().is_some_and(|last| last == entry)) {
            continue;
        }
        if page.keys.len() + page.prefixes.len() == options.max.max(1) {
            page.next = Some(last);
            break;
        }
        last = entry.to_owned();
        match folded {
            Some(_) => page.prefixes.push(entry.to_owned()),
            None => page.keys.push(Key::new(entry)),
        }
    }
    page
}
