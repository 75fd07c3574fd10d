//! Password hashes of the users file.

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc;
use argon2::{Argon2, Params};
use secrecy::{ExposeSecret, SecretString};

/// The highest cost of bcrypt. Each step doubles the time: 12 takes a quarter of a second, 16 four
/// seconds.
const MAX_BCRYPT_COST: u32 = 16;

/// Bounds of argon2id: 256 MiB for each core, and RFC 9106's recommendations with room above them.
const MAX_ARGON2_KIBIBYTES: u32 = 256 * 1024;
const MAX_ARGON2_PASSES: u32 = 16;
const MAX_ARGON2_LANES: u32 = 16;

/// A password hash, of one of the kinds that are still safe. The debug output does not contain it.
#[derive(Clone, Debug)]
pub(super) struct PasswordHash {
    text: SecretString,
    cost: Cost,
}

/// What a verification costs. Hashes of the same cost take the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cost {
    Bcrypt { cost: u32 },
    Argon2id { kibibytes: u32, passes: u32, lanes: u32 },
}

/// Why a text is not a hash. No message contains the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// It is of another kind.
    #[error("is neither bcrypt ($2y$, $2b$, $2a$) nor argon2id; write it with `htpasswd -B`")]
    Kind,
    /// It is cut off, or has a wrong character.
    #[error("is malformed")]
    Malformed,
    /// It would take too long or too much memory.
    #[error(
        "costs too much: at most cost {MAX_BCRYPT_COST} of bcrypt, and m={MAX_ARGON2_KIBIBYTES}, t={MAX_ARGON2_PASSES}, p={MAX_ARGON2_LANES} of argon2id"
    )]
    Cost,
}

impl PasswordHash {
    pub(super) fn parse(text: &str) -> Result<PasswordHash, HashError> {
        let cost = if ["$2y$", "$2b$", "$2a$"].iter().any(|kind| text.starts_with(kind)) {
            bcrypt_cost(text)?
        } else if text.starts_with("$argon2id$") {
            argon2id_cost(text)?
        } else {
            return Err(HashError::Kind);
        };
        Ok(PasswordHash { text: text.to_owned().into(), cost })
    }

    pub(super) fn cost(&self) -> Cost {
        self.cost
    }

    /// Whether this is the hash of the password. Takes as long as the cost says: a blocking call.
    pub(super) fn verify(&self, password: &SecretString) -> bool {
        let (password, text) = (password.expose_secret().as_bytes(), self.text.expose_secret());
        match self.cost {
            // Only the first 72 bytes count, as in every implementation.
            Cost::Bcrypt { .. } => bcrypt::verify(password, text).unwrap_or(false),
            Cost::Argon2id { .. } => Argon2::default().verify_password(password, text).is_ok(),
        }
    }
}

fn bcrypt_cost(text: &str) -> Result<Cost, HashError> {
    let cost = text.parse::<bcrypt::HashParts>().map_err(|_| HashError::Malformed)?.get_cost();
    match cost {
        4..=MAX_BCRYPT_COST => Ok(Cost::Bcrypt { cost }),
        0..4 => Err(HashError::Malformed),
        _ => Err(HashError::Cost),
    }
}

fn argon2id_cost(text: &str) -> Result<Cost, HashError> {
    let hash = phc::PasswordHash::new(text).map_err(|_| HashError::Malformed)?;
    let parameters = Params::try_from(&hash).map_err(|_| HashError::Malformed)?;
    let version = hash.version.is_none_or(|version| version == 0x10 || version == 0x13);
    if hash.salt.is_none() || hash.hash.is_none() || !version {
        return Err(HashError::Malformed);
    }
    let (kibibytes, passes, lanes) = (parameters.m_cost(), parameters.t_cost(), parameters.p_cost());
    if kibibytes > MAX_ARGON2_KIBIBYTES || passes > MAX_ARGON2_PASSES || lanes > MAX_ARGON2_LANES {
        return Err(HashError::Cost);
    }
    Ok(Cost::Argon2id { kibibytes, passes, lanes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the test vectors of crypt_blowfish and of argon2's reference implementation.
    const BCRYPT: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    const ARGON2ID: &str = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    #[test]
    fn hashes_of_other_implementations_are_verified() {
        let others = [BCRYPT.replace("$2a$", "$2y$"), BCRYPT.replace("$2a$", "$2b$")];
        for (hash, password) in
            others.iter().map(|hash| (hash.as_str(), "U*U")).chain([(BCRYPT, "U*U"), (ARGON2ID, "password")])
        {
            let hash = PasswordHash::parse(hash).unwrap();
            assert!(hash.verify(&password.into()));
            assert!(!hash.verify(&format!("{password} ").into()) && !hash.verify(&"".into()));
        }
    }

    #[test]
    fn unsafe_malformed_and_expensive_hashes_are_refused() {
        for (text, error) in [
            ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", HashError::Kind),
            ("$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00", HashError::Kind),
            ("rqXexS6ZhobKA", HashError::Kind),
            ("$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", HashError::Kind),
            ("$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", HashError::Kind),
            ("plain", HashError::Kind),
            ("", HashError::Kind),
            ("$2y$05$CCCC", HashError::Malformed),
            ("$2y$03$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", HashError::Malformed),
            ("$2y$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", HashError::Cost),
            ("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ", HashError::Malformed),
            (
                "$argon2id$v=18$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
                HashError::Malformed,
            ),
            (
                "$argon2id$v=19$m=1048576,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
                HashError::Cost,
            ),
        ] {
            assert_eq!(PasswordHash::parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn debug_output_has_no_hash() {
        let told = format!("{:?}", PasswordHash::parse(BCRYPT).unwrap());
        assert!(!told.contains("CCCC"), "{told}");
    }
}
