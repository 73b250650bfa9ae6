//! The error of a type's `Serialize` or `Deserialize`, with the path that it happened at.

use std::fmt;

use crate::{Error, ErrorKind};

/// What went wrong, and where.
#[derive(Debug)]
pub(super) struct Failure {
    kind: ErrorKind,
    text: String,
    /// The components of the path, the innermost first.
    path: Vec<String>,
}

/// The most components that an error shows.
const SHOWN: usize = 32;

impl Failure {
    pub(super) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), path: Vec::new() }
    }

    /// Says in which field or under which key of a map it was.
    pub(super) fn at_key(mut self, key: &str) -> Self {
        // A name begins the path, or stands behind a dot.
        let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_');
        self.path.push(if plain { format!(".{key}") } else { format!("[{key:?}]") });
        self
    }

    /// Says at which index of a sequence it was.
    pub(super) fn at_index(mut self, index: usize) -> Self {
        self.path.push(format!("[{index}]"));
        self
    }

    pub(super) fn into_error(self) -> Error {
        let path: String = self.path.iter().rev().take(SHOWN).map(String::as_str).collect();
        let path = path.strip_prefix('.').unwrap_or(&path);
        let more = if self.path.len() > SHOWN { "…" } else { "" };
        let text = if path.is_empty() { self.text } else { format!("{path}{more}: {}", self.text) };
        Error::new(self.kind, text).with_format("pickle")
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.message())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl serde::de::Error for Failure {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(ErrorKind::Mismatch, text.to_string())
    }
}

impl serde::ser::Error for Failure {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(ErrorKind::Unsupported, text.to_string())
    }
}
