//! The users file: lines of `name:hash`, as `htpasswd -B` writes them.

use super::hash::{Cost, HashError, PasswordHash};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// The longest name of a user in bytes, as in `htpasswd`.
pub(super) const MAX_NAME: usize = 255;

/// The most hashes of one name. A rotation needs two, and each wrong password is hashed with all.
const MAX_HASHES: usize = 4;

/// The users of a file. The debug output contains no hash.
#[derive(Clone, Default)]
pub struct Users {
    by_name: HashMap<String, Vec<PasswordHash>>,
    /// A hash of the most common cost, to hash the passwords of unknown names with.
    dummy: Option<PasswordHash>,
}

/// Why a text is not a users file. No message contains a hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsersFileError {
    /// A line has no colon.
    #[error("line {line} must have the form name:hash")]
    Form {
        /// The number of the line, from 1.
        line: usize,
    },
    /// A name is empty, too long, or has control characters.
    #[error("the name in line {line} must have 1 to {MAX_NAME} bytes and no control characters")]
    Name {
        /// The number of the line, from 1.
        line: usize,
    },
    /// A hash cannot be used.
    #[error("the hash in line {line} {reason}")]
    Hash {
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong.
        reason: HashError,
    },
    /// A name has too many lines.
    #[error("the name in line {line} has more than {MAX_HASHES} hashes")]
    TooMany {
        /// The number of the line, from 1.
        line: usize,
    },
}

impl Users {
    /// Parses a users file. Several lines may have the same name: each has a password of that user.
    /// Empty lines and lines that begin with `#` are ignored.
    ///
    /// # Errors
    /// If a line has another form or a hash that is not safe. The error names the line.
    pub fn parse(text: &str) -> Result<Users, UsersFileError> {
        let mut by_name: HashMap<String, Vec<PasswordHash>> = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let (line, content) = (number + 1, line.trim());
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let (name, hash) = content.split_once(':').ok_or(UsersFileError::Form { line })?;
            if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
                return Err(UsersFileError::Name { line });
            }
            let hash = PasswordHash::parse(hash.trim()).map_err(|reason| UsersFileError::Hash { line, reason })?;
            let hashes = by_name.entry(name.to_owned()).or_default();
            if hashes.len() == MAX_HASHES {
                return Err(UsersFileError::TooMany { line });
            }
            hashes.push(hash);
        }
        let dummy = most_common(by_name.values().flatten());
        Ok(Users { by_name, dummy })
    }

    /// Whether there is a user of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The number of users.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are no users.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The hashes to verify a password with. An unknown name has a hash too, so that it takes the
    /// same time.
    pub(super) fn candidates(&self, name: &str) -> Candidates {
        match self.by_name.get(name) {
            Some(hashes) => Candidates { hashes: hashes.clone(), known: true },
            None => Candidates { hashes: self.dummy.iter().cloned().collect(), known: false },
        }
    }
}

/// The hashes that a password of a name is verified with.
pub(super) struct Candidates {
    pub(super) hashes: Vec<PasswordHash>,
    /// Whether the name has them. If not, no password is right.
    pub(super) known: bool,
}

fn most_common<'a>(hashes: impl Iterator<Item = &'a PasswordHash>) -> Option<PasswordHash> {
    let mut counts: BTreeMap<Cost, (usize, &PasswordHash)> = BTreeMap::new();
    for hash in hashes {
        counts.entry(hash.cost()).or_insert((0, hash)).0 += 1;
    }
    counts.into_values().max_by_key(|(count, _)| *count).map(|(_, hash)| hash.clone())
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("count", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

    #[test]
    fn a_file_of_htpasswd_is_read() {
        let expensive = HASH.replace("$05$", "$12$");
        let text = format!("# users\nalice:{HASH}\r\n\n  bob:{HASH}\nalice:{expensive}\nc d:{HASH}\n");
        let users = Users::parse(&text).unwrap();
        assert_eq!(users.len(), 3);
        assert!(users.contains("alice") && users.contains("c d") && !users.contains("Alice"));
        let (alice, nobody) = (users.candidates("alice"), users.candidates("nobody"));
        assert_eq!((alice.hashes.len(), alice.known), (2, true));
        assert_eq!((nobody.hashes.len(), nobody.known), (1, false));
        assert_eq!(nobody.hashes[0].cost(), Cost::Bcrypt { cost: 5 });
        assert!(Users::parse("").unwrap().candidates("a").hashes.is_empty());
    }

    #[test]
    fn an_error_names_the_line_and_not_its_text() {
        let form = UsersFileError::Form { line: 2 };
        let kind = UsersFileError::Hash { line: 1, reason: HashError::Kind };
        for (text, error) in [
            (format!("a:{HASH}\nhunter2"), form),
            (format!(":{HASH}"), UsersFileError::Name { line: 1 }),
            (format!("{}:{HASH}", "a".repeat(256)), UsersFileError::Name { line: 1 }),
            (format!("a\u{7}b:{HASH}"), UsersFileError::Name { line: 1 }),
            ("a:hunter2".to_owned(), kind.clone()),
            ("a:$apr1$hunter2$eIMz/iKDkbtys/uU7LEK00".to_owned(), kind),
            (format!("a:{HASH}\n").repeat(5), UsersFileError::TooMany { line: 5 }),
        ] {
            let refused = Users::parse(&text).unwrap_err();
            assert_eq!(refused, error);
            assert!(!format!("{refused} {refused:?}").contains("hunter2"));
        }
        assert!(!format!("{:?}", Users::parse(&format!("a:{HASH}")).unwrap()).contains("CCCC"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(text in "([a-z]{0,3}:?[$2yab0-9./A-Z]{0,70}\\n|\\PC{0,20}){0,5}") {
            let _ = Users::parse(&text);
        }
    }
}
