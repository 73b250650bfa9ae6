//! Which names a model and an alias may have: they become names of folders and files on every system.

use weighbridge_formats::source::is_device;
use weighbridge_formats::{Error, Result};

/// The longest name of a model, in bytes.
const LONGEST: usize = 96;

/// Checks the name of a model: ASCII letters, digits, `-`, `_` and `.`, with a letter or digit at both ends, at most
/// 96 bytes, and none that a system keeps for a device.
///
/// # Errors
/// `InvalidOptions`, with the rule that is broken.
pub fn check_model_name(name: &str) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::invalid_options(format!("{name:?} is no name for a model: {why}"))
            .with_hint("letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit"))
    };
    let ends = [name.bytes().next(), name.bytes().next_back()];
    if name.is_empty() {
        refuse("it is empty")
    } else if name.len() > LONGEST {
        refuse(&format!("it has {} bytes, and {LONGEST} are allowed", name.len()))
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        refuse("only ASCII letters, digits, `-`, `_` and `.` may stand in it")
    } else if !ends.iter().flatten().all(u8::is_ascii_alphanumeric) {
        refuse("it must begin and end with a letter or digit")
    } else if is_device(name) {
        refuse("Windows keeps it for a device")
    } else {
        Ok(())
    }
}

/// Checks the name of an alias: lower-case ASCII letters, digits, `-` and `_`, beginning with a letter, at most 64
/// bytes; not `latest`, which follows the versions, nothing that reads as a version, and no device.
///
/// Lower case alone makes two names of one file impossible where case does not count.
///
/// # Errors
/// `InvalidOptions`, with the rule that is broken.
pub fn check_alias(name: &str) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::invalid_options(format!("{name:?} is no name for an alias: {why}"))
            .with_hint("lower-case letters, digits, `-` and `_`, beginning with a letter: `production`, say"))
    };
    let rest = name.strip_prefix('v').unwrap_or_default();
    if !name.bytes().next().is_some_and(|b| b.is_ascii_lowercase()) {
        refuse("it must begin with a lower-case letter")
    } else if name.len() > 64 {
        refuse(&format!("it has {} bytes, and 64 are allowed", name.len()))
    } else if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    {
        refuse("only lower-case letters, digits, `-` and `_` may stand in it")
    } else if name == crate::LATEST {
        refuse("`latest` always is the highest release")
    } else if rest.bytes().next().is_some_and(|b| b.is_ascii_digit()) {
        refuse("it reads as a version")
    } else if is_device(name) {
        refuse("Windows keeps it for a device")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge_formats::ErrorKind;

    #[test]
    fn names_that_some_system_cannot_have_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "../x",
            "a\0b",
            "C:",
            "-x",
            "x.",
            ".x",
            "ü",
            "a b",
            "CON",
            "nul.txt",
            "com1",
            &"a".repeat(97),
        ] {
            assert_eq!(check_model_name(bad).unwrap_err().kind(), ErrorKind::InvalidOptions, "{bad:?}");
        }
        for good in ["minilm", "all-MiniLM-L6-v2", "Llama-3.1_8B", "a", "7", "console", "com0", "comet"] {
            check_model_name(good).unwrap();
        }
    }

    #[test]
    fn aliases_are_lower_case_and_no_versions() {
        for bad in
            ["", "latest", "v1", "v2-old", "1", "Prod", "a.b", "a/b", "..", "nul", "ü", "-a", &"a".repeat(65)]
        {
            assert_eq!(check_alias(bad).unwrap_err().kind(), ErrorKind::InvalidOptions, "{bad:?}");
        }
        for good in ["production", "staging-2", "v", "vision", "best_f1"] {
            check_alias(good).unwrap();
        }
    }
}
