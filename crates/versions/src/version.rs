//! Versions: which comes after another, and what `name@…` chooses.

use std::fmt;

use semver::{BuildMetadata, Prerelease, VersionReq};
use weighbridge_formats::{Error, Result};

use crate::names::check_alias;
pub use semver::Version;

/// What of a version goes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bump {
    /// Only what is no part of the computation changed: the card, remarks in the config.
    Patch,
    /// The weights changed, or a setting that their outputs depend on.
    Minor,
    /// Shapes, architecture or vocabulary changed: what was made for the old version may not work with the new.
    Major,
}

impl Bump {
    /// `major`, `minor` or `patch`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Patch => "patch",
            Self::Minor => "minor",
            Self::Major => "major",
        }
    }

    /// The version after `from`. A pre-release that leads up to such a version becomes that version: 2.0.0-rc.1 by
    /// any bump is 2.0.0.
    ///
    /// # Errors
    /// `LimitExceeded` if a number would pass 64 bits.
    pub fn after(self, from: &Version) -> Result<Version> {
        let up = |n: u64| {
            let next = n.checked_add(1);
            next.ok_or_else(|| {
                Error::limit(format!("there is no version after {from}: its numbers are full"))
            })
        };
        let (major, minor, patch) = (from.major, from.minor, from.patch);
        let leads_up = !from.pre.is_empty()
            && match self {
                Self::Patch => true,
                Self::Minor => patch == 0,
                Self::Major => patch == 0 && minor == 0,
            };
        Ok(match self {
            _ if leads_up => Version::new(major, minor, patch),
            Self::Patch => Version::new(major, minor, up(patch)?),
            Self::Minor => Version::new(major, up(minor)?, 0),
            Self::Major => Version::new(up(major)?, 0, 0),
        })
    }

    /// The version that is suggested after `from` for such a change. Before 1.0.0 everything is one place further
    /// right, as semantic versioning is used there: 0.3.1 becomes 0.4.0 where 1.3.1 would become 2.0.0.
    ///
    /// # Errors
    /// As [`Bump::after`].
    pub fn suggested_after(self, from: &Version) -> Result<Version> {
        match self {
            Self::Major if from.major == 0 => Self::Minor.after(from),
            Self::Minor if from.major == 0 => Self::Patch.after(from),
            bump => bump.after(from),
        }
    }
}

impl fmt::Display for Bump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads a version, with or without a `v` before it.
///
/// Build metadata (`1.0.0+linux`) is refused: it does not order versions, so two such would be the same one.
///
/// # Errors
/// `InvalidOptions`, saying what is wrong with the text.
pub fn parse_version(text: &str) -> Result<Version> {
    let refuse = |why: String| {
        Error::invalid_options(format!("{text:?} is no version: {why}"))
            .with_hint("three numbers, and a pre-release if wanted: `1.2.0`, `2.0.0-rc.1`")
    };
    if text.len() > 100 {
        return Err(Error::invalid_options(format!("a version of {} bytes; 100 are allowed", text.len())));
    }
    let version =
        Version::parse(text.strip_prefix('v').unwrap_or(text)).map_err(|e| refuse(e.to_string()))?;
    if version.build != BuildMetadata::EMPTY {
        return Err(refuse("build metadata does not order versions".into()));
    }
    Ok(version)
}

/// The name of a version's folder: `v1.2.0`.
pub(crate) fn folder_name(version: &Version) -> String {
    format!("v{version}")
}

/// The version whose folder has this name.
pub(crate) fn of_folder_name(name: &str) -> Option<Version> {
    let version = parse_version(name.strip_prefix('v')?).ok()?;
    (folder_name(&version) == name).then_some(version)
}

/// Which version is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selector {
    /// The highest release; where there is none, the highest pre-release.
    Latest,
    /// Exactly this one.
    Exact(Version),
    /// The highest that fits: `1`, `1.2`, `^1`, `~1.2.3`, `>=1, <3`, `*`.
    Fitting(VersionReq),
    /// The one that an alias names.
    Alias(String),
}

impl Selector {
    /// Reads what stands after the `@`.
    ///
    /// A full version means exactly that one. `1` and `1.2` mean the highest version that begins so; for "at least,
    /// and compatible" there is `^1.2`. What begins with a letter is `latest` or an alias, except `v1` and its like.
    ///
    /// # Errors
    /// `InvalidOptions` for what is none of these.
    pub fn parse(text: &str) -> Result<Self> {
        let bare =
            text.strip_prefix('v').filter(|t| t.starts_with(|c: char| c.is_ascii_digit())).unwrap_or(text);
        if text == crate::LATEST {
            return Ok(Self::Latest);
        }
        if text.starts_with(|c: char| c.is_ascii_alphabetic()) && bare == text {
            check_alias(text)?;
            return Ok(Self::Alias(text.to_owned()));
        }
        if text.len() > 200 {
            return Err(Error::invalid_options(format!(
                "a requirement of {} bytes; 200 are allowed",
                text.len()
            )));
        }
        if let Ok(version) = parse_version(bare) {
            return Ok(Self::Exact(version));
        }
        if text.contains('+') {
            let what = format!("{text:?} chooses no version: build metadata does not order versions");
            return Err(Error::invalid_options(what));
        }
        let part = bare.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let requirement = if part { format!("={bare}") } else { bare.to_owned() };
        VersionReq::parse(&requirement).map(Self::Fitting).map_err(|e| {
            Error::invalid_options(format!("{text:?} chooses no version: {e}"))
                .with_hint("`1.2.0`, `1.2`, `^1`, `latest`, or an alias")
        })
    }

    /// The highest of `versions` that fits; `None` for an alias, which the versions alone do not tell.
    pub(crate) fn choose<'v>(&self, versions: impl Iterator<Item = &'v Version>) -> Option<&'v Version> {
        match self {
            Self::Latest => versions.max_by_key(|v| (v.pre == Prerelease::EMPTY, *v)),
            Self::Exact(wanted) => versions.into_iter().find(|v| *v == wanted),
            Self::Fitting(requirement) => versions.filter(|v| requirement.matches(v)).max(),
            Self::Alias(_) => None,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str(crate::LATEST),
            Self::Exact(version) => version.fmt(f),
            Self::Fitting(requirement) => requirement.fmt(f),
            Self::Alias(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        parse_version(text).unwrap()
    }

    #[test]
    fn bumps_go_up_and_finish_pre_releases() {
        for (from, major, minor, patch) in [
            ("1.2.3", "2.0.0", "1.3.0", "1.2.4"),
            ("0.2.3", "1.0.0", "0.3.0", "0.2.4"),
            ("2.0.0-rc.1", "2.0.0", "2.0.0", "2.0.0"),
            ("2.1.0-rc.1", "3.0.0", "2.1.0", "2.1.0"),
            ("2.1.1-rc.1", "3.0.0", "2.2.0", "2.1.1"),
        ] {
            let bumped = [Bump::Major, Bump::Minor, Bump::Patch].map(|b| b.after(&v(from)).unwrap());
            assert_eq!(bumped, [v(major), v(minor), v(patch)], "{from}");
        }
        assert_eq!(Bump::Major.suggested_after(&v("0.3.1")).unwrap(), v("0.4.0"));
        assert_eq!(Bump::Minor.suggested_after(&v("0.3.1")).unwrap(), v("0.3.2"));
        assert_eq!(Bump::Major.suggested_after(&v("1.3.1")).unwrap(), v("2.0.0"));
        assert!(Bump::Major.after(&Version::new(u64::MAX, 0, 0)).is_err());
    }

    #[test]
    fn selectors_choose_the_highest_that_fits() {
        let all = ["1.0.0", "1.2.0", "1.2.7", "1.10.0", "2.0.0-rc.1"].map(v);
        let choose = |text: &str| {
            let selector = Selector::parse(text).unwrap();
            selector.choose(all.iter()).map(ToString::to_string)
        };
        for (text, wanted) in [
            ("latest", "1.10.0"),
            ("1.2", "1.2.7"),
            ("v1.2", "1.2.7"),
            ("1", "1.10.0"),
            ("^1", "1.10.0"),
            ("~1.2", "1.2.7"),
            ("*", "1.10.0"),
            (">=1.0.0, <1.10", "1.2.7"),
            ("1.2.0", "1.2.0"),
            ("v2.0.0-rc.1", "2.0.0-rc.1"),
            ("^2.0.0-rc.0", "2.0.0-rc.1"),
        ] {
            assert_eq!(choose(text).as_deref(), Some(wanted), "{text}");
        }
        for text in ["3", "^2", "1.3", "1.2.1"] {
            assert_eq!(choose(text), None, "{text}");
        }
        assert_eq!(Selector::parse("production").unwrap(), Selector::Alias("production".into()));
        let only_pre = [v("1.0.0-a"), v("1.0.0-b")];
        assert_eq!(Selector::Latest.choose(only_pre.iter()), Some(&only_pre[1]));
        for bad in ["", "1.2.3+linux", "../x", "Prod", "1..2", "^", &"1".repeat(300)] {
            assert!(Selector::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn folders_of_versions_have_one_spelling() {
        assert_eq!(of_folder_name("v1.2.0"), Some(v("1.2.0")));
        for other in ["1.2.0", "v1.2", "v01.2.0", "vv1.2.0", "v1.2.0+x", "latest", "v"] {
            assert_eq!(of_folder_name(other), None, "{other}");
        }
        assert!(parse_version("1.0.0+a").is_err() && parse_version(&"1".repeat(101)).is_err());
    }
}
