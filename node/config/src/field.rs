//! Checks of one field.

use crate::ConfigError;
use std::path::Path;

pub(crate) fn refuse<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Value { field: field.into(), problem: problem.into() })
}

pub(crate) fn check_url(field: &str, url: &str, schemes: &[&str]) -> Result<(), ConfigError> {
    let parsed: http::Uri = match url.parse() {
        Ok(parsed) => parsed,
        Err(error) => return refuse(field, format!("{url:?} is not a valid URL: {error}")),
    };
    let known = parsed.scheme_str().is_some_and(|scheme| schemes.contains(&scheme));
    if !known || parsed.host().is_none_or(str::is_empty) {
        let forms: Vec<_> = schemes.iter().map(|scheme| format!("{scheme}://host:port")).collect();
        return refuse(field, format!("{url:?} must have the form {}", forms.join(" or ")));
    }
    Ok(())
}

pub(crate) fn check_path(field: impl Into<String>, path: &Path) -> Result<(), ConfigError> {
    if path.as_os_str().is_empty() { refuse(field, "must not be empty") } else { Ok(()) }
}
