//! Pages of keys.

use super::{BucketError, ListOptions, Operation, Page, S3};
use crate::Key;

impl S3 {
    pub(super) async fn list_objects(&self, options: ListOptions) -> Result<Page, BucketError> {
        let max = options.max.clamp(1, 1000);
        let is_later = |entry: &str| options.after.as_deref().is_none_or(|after| entry > after);
        let (mut page, mut token) = (Page::default(), None::<String>);
        loop {
            let request = self
                .client()
                .await
                .list_objects_v2()
                .bucket(&self.name)
                .prefix(&options.prefix)
                .set_delimiter(options.delimiter.then(|| "/".to_owned()))
                .set_start_after(options.after.clone().filter(|_| token.is_none()))
                .set_continuation_token(token.take())
                .max_keys(i32::try_from(max).unwrap_or(1000));
            let request = self.answer(Operation::List, &options.prefix, request.send());
            let listed = request.await.map_err(|failed| failed.error)?;
            let keys = listed.contents.unwrap_or_default().into_iter().filter_map(|object| object.key);
            let prefixes = listed.common_prefixes.unwrap_or_default().into_iter().filter_map(|folder| folder.prefix);
            page.keys.extend(keys.filter(|key| is_later(key)).map(Key::new));
            // A key after `after` may be in a directory that is not after it; S3 then returns the
            // directory.
            page.prefixes.extend(prefixes.filter(|prefix| is_later(prefix)));
            token = listed.next_continuation_token.filter(|_| listed.is_truncated == Some(true));
            // MinIO reports a full page as the last one if there was one more key and `after` is
            // itself a key.
            let is_full = page.keys.len() + page.prefixes.len() >= max;
            let last = page.keys.last().map(Key::as_str).max(page.prefixes.last().map(String::as_str));
            match last {
                Some(last) if token.is_some() || is_full => page.next = Some(last.to_owned()),
                // Nothing on this page is after `after`: request the next one.
                None if token.is_some() => continue,
                _ => {}
            }
            return Ok(page);
        }
    }
}
