//! What is different between the files that were signed and those that are there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::statement::FileDigests;

/// What happened to a file since a model was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It has other bytes.
    Changed,
    /// It has no bytes any more.
    Emptied,
    /// It was not signed.
    Added,
    /// It is not there.
    Removed,
    /// It is there under another name.
    Renamed {
        /// The name that it has now.
        to: String,
    },
    /// It has the bytes of another file, and that one has this one's.
    Swapped {
        /// The other file.
        with: String,
    },
    /// It is there and no plain file: "a symbolic link", "a device, pipe or socket".
    NoFile {
        /// What it is.
        is: &'static str,
        /// Whether a file of this name was signed.
        signed: bool,
    },
}

/// A file that is not as it was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name in the model's folder; `.` where the model is one file.
    pub name: String,
    /// What happened to it.
    pub change: Change,
}

impl Difference {
    /// One word for what happened: `changed`, `emptied`, `added`, `removed`, `renamed`, `swapped`, `not-a-file`.
    pub fn word(&self) -> &'static str {
        match self.change {
            Change::Changed => "changed",
            Change::Emptied => "emptied",
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Renamed { .. } => "renamed",
            Change::Swapped { .. } => "swapped",
            Change::NoFile { .. } => "not-a-file",
        }
    }
}

type Files = BTreeMap<String, FileDigests>;

/// Compares digests. `there` are the files with their lengths; `odd` what is no plain file; `actual` the digests of all
/// that were signed and are there, and of those that were added where some are missing.
pub(super) fn compare(
    signed: &Files,
    actual: &Files,
    there: &BTreeMap<&str, u64>,
    odd: &[(String, &'static str)],
) -> Vec<Difference> {
    let mut out = Vec::new();
    let mut put = |name: &str, change| out.push(Difference { name: name.to_owned(), change });
    for (name, is) in odd {
        put(name, Change::NoFile { is, signed: signed.contains_key(name) });
    }
    let wrong: BTreeMap<&str, (&FileDigests, &FileDigests)> = signed
        .iter()
        .filter_map(|(name, was)| Some((name.as_str(), (was, actual.get(name)?))))
        .filter(|(_, (was, is))| was != is)
        .collect();
    // The first file of each pair of digests: what was, and what is.
    let mut pairs = HashMap::new();
    for (name, pair) in &wrong {
        pairs.entry(*pair).or_insert(*name);
    }
    for (name, (was, is)) in &wrong {
        match pairs.get(&(*is, *was)) {
            Some(other) => put(name, Change::Swapped { with: (*other).to_owned() }),
            None if there.get(name) == Some(&0) => put(name, Change::Emptied),
            None => put(name, Change::Changed),
        }
    }
    let odd: HashSet<&str> = odd.iter().map(|(name, _)| name.as_str()).collect();
    let mut added: BTreeSet<&str> =
        there.keys().copied().filter(|name| !signed.contains_key(*name)).collect();
    // Empty files are all alike, so one that is new need not be one that is gone.
    let mut by_digests: HashMap<&FileDigests, Vec<&str>> = HashMap::new();
    for name in added.iter().rev().filter(|name| there.get(*name) != Some(&0)) {
        if let Some(digests) = actual.get(*name) {
            by_digests.entry(digests).or_default().push(name);
        }
    }
    let gone = |name: &str| !there.contains_key(name) && !odd.contains(name);
    for (name, digests) in signed.iter().filter(|(name, _)| gone(name)) {
        match by_digests.get_mut(digests).and_then(Vec::pop) {
            Some(to) => {
                added.remove(to);
                put(name, Change::Renamed { to: to.to_owned() });
            }
            None => put(name, Change::Removed),
        }
    }
    for name in added {
        put(name, Change::Added);
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, u8)]) -> Files {
        let of = |d: u8| FileDigests { size: None, digests: vec![vec![d]] };
        list.iter().map(|(name, d)| ((*name).to_owned(), of(*d))).collect()
    }

    fn found(
        signed: &[(&str, u8)],
        actual: &[(&str, u8)],
        odd: &[(&str, &'static str)],
    ) -> Vec<(String, Change)> {
        let (signed, now) = (files(signed), files(actual));
        // The digest 0 is that of an empty file here.
        let there = actual.iter().map(|(name, d)| (*name, u64::from(*d))).collect();
        let odd: Vec<_> = odd.iter().map(|(name, is)| ((*name).to_owned(), *is)).collect();
        compare(&signed, &now, &there, &odd).into_iter().map(|d| (d.name, d.change)).collect()
    }

    #[test]
    fn every_kind_of_change_has_its_name() {
        let name = |n: &str| n.to_owned();
        assert_eq!(found(&[("a", 1), ("b", 2)], &[("a", 1), ("b", 2)], &[]), []);
        assert_eq!(found(&[("a", 1)], &[("a", 2)], &[]), [(name("a"), Change::Changed)]);
        assert_eq!(found(&[("a", 1)], &[("a", 0)], &[]), [(name("a"), Change::Emptied)]);
        assert_eq!(found(&[("a", 1)], &[], &[]), [(name("a"), Change::Removed)]);
        assert_eq!(found(&[], &[("a", 1)], &[]), [(name("a"), Change::Added)]);
        assert_eq!(found(&[("a", 1)], &[("b", 1)], &[]), [(name("a"), Change::Renamed { to: name("b") })]);
        let swapped = |with: &str| Change::Swapped { with: name(with) };
        assert_eq!(
            found(&[("a", 1), ("b", 2)], &[("a", 2), ("b", 1)], &[]),
            [(name("a"), swapped("b")), (name("b"), swapped("a"))]
        );
        let link = |signed| Change::NoFile { is: "a link", signed };
        assert_eq!(
            found(&[("a", 1)], &[], &[("a", "a link"), ("x", "a link")]),
            [(name("a"), link(true)), (name("x"), link(false))]
        );
        // Three in a circle are no swap of two, and an empty file that is new is no renamed one.
        let round = found(&[("a", 1), ("b", 2), ("c", 3)], &[("a", 2), ("b", 3), ("c", 1)], &[]);
        assert!(round.len() == 3 && round.iter().all(|(_, c)| *c == Change::Changed));
        assert_eq!(
            found(&[("a", 0)], &[("b", 0)], &[]),
            [(name("a"), Change::Removed), (name("b"), Change::Added)]
        );
        // Of two copies one was renamed and one is gone.
        assert_eq!(
            found(&[("a", 1), ("b", 1)], &[("c", 1)], &[]),
            [(name("a"), Change::Renamed { to: name("c") }), (name("b"), Change::Removed)]
        );
    }

    #[test]
    fn many_changes_are_found_in_little_time() {
        let names: Vec<String> = (0..50_000).map(|i| format!("{i}")).collect();
        let signed: Vec<_> = names.iter().map(|n| (n.as_str(), 1)).collect();
        let actual: Vec<_> = names.iter().map(|n| (n.as_str(), 2)).collect();
        let begun = std::time::Instant::now();
        assert_eq!(found(&signed, &actual, &[]).len(), 50_000);
        assert!(begun.elapsed().as_secs() < 10);
    }
}
