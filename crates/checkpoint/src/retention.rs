//! Rotation: which checkpoints stay, and deleting the others.

use std::path::{Path, PathBuf};

use weighbridge_formats::{Error, ReadOptions, Result};

use crate::list::{Found, Skipped, list, resume};
use crate::stage;

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Smaller is better, as with a loss.
    Min,
    /// Larger is better, as with an accuracy.
    Max,
}

/// Which checkpoints stay. A checkpoint stays if any of the rules wants it; without a rule all stay.
///
/// The newest that verifies always stays, and so does every damaged one, which only a person should delete, and what
/// is of another kind than the newest: the files of another program in the same folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The newest so many.
    pub last: Option<usize>,
    /// The best so many by a metric. Of equal ones the newer is better; one without the metric, or with NaN, is none
    /// of the best.
    pub best: Vec<(String, Goal, usize)>,
    /// Every so manyth save: those whose number in the manifest is a multiple. Checkpoints of others, which have no
    /// number, count by their place in the list.
    pub every: Option<u64>,
}

impl Retention {
    /// Whether there is no rule, so that all stay.
    pub fn keeps_all(&self) -> bool {
        self.last.is_none() && self.best.is_empty() && self.every.is_none()
    }

    /// The rules that want each of `found` (the oldest first): empty for one that may go.
    fn wanted(&self, found: &[Found]) -> Vec<Vec<String>> {
        let mut why: Vec<Vec<String>> = vec![Vec::new(); found.len()];
        let whole: Vec<usize> = (0..found.len()).filter(|&i| found[i].damage.is_none()).collect();
        if self.keeps_all() {
            whole.iter().for_each(|&i| why[i].push("no rule".into()));
        }
        for &i in whole.iter().rev().take(self.last.unwrap_or(0)) {
            why[i].push("among the last".into());
        }
        for (name, goal, count) in &self.best {
            let metric = |i: usize| found[i].metric(name).filter(|x| !x.is_nan());
            let mut ranked: Vec<(usize, f64)> = whole.iter().filter_map(|&i| Some((i, metric(i)?))).collect();
            ranked.sort_by(|(i, a), (j, b)| {
                let order = match goal {
                    Goal::Min => a.total_cmp(b),
                    Goal::Max => b.total_cmp(a),
                };
                order.then(j.cmp(i))
            });
            for (i, x) in ranked.into_iter().take(*count) {
                why[i].push(format!("among the best by {name} ({x})"));
            }
        }
        if let Some(every) = self.every.filter(|&n| n > 0) {
            for (place, &i) in whole.iter().enumerate() {
                if found[i].number.unwrap_or(place as u64 + 1).is_multiple_of(every) {
                    why[i].push(format!("one of every {every}"));
                }
            }
        }
        for (i, f) in found.iter().enumerate() {
            if f.damage.is_some() {
                why[i].push("damaged: nothing is deleted that is not understood".into());
            }
        }
        why
    }
}

/// What rotation did, or would do.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// What stays, and why.
    pub kept: Vec<(PathBuf, String)>,
    /// What was deleted, or would be.
    pub deleted: Vec<PathBuf>,
    /// Newer checkpoints than the newest that verifies, and what is wrong with them.
    pub skipped: Vec<Skipped>,
    /// What processes that are gone had left unfinished, and is removed.
    pub cleaned: Vec<PathBuf>,
}

/// Deletes the checkpoints of a folder that no rule wants, and what processes that are gone left in it.
///
/// First the newest checkpoint that verifies is found, by reading it; it stays whatever the rules say. Each one that
/// goes is renamed aside and then removed, so that a kill leaves it whole or gone.
///
/// # Errors
/// `Mismatch` if no checkpoint of the folder verifies: then nothing is deleted. `Io` for what the system refuses.
pub fn prune(root: &Path, rules: &Retention, dry_run: bool) -> Result<Pruned> {
    let options = ReadOptions::default();
    let newest = resume(root, &options)?;
    let found = list(root, &options)?;
    let Some(newest_good) = newest.checkpoint.map(|c| c.path) else {
        if found.is_empty() {
            return Ok(Pruned::default());
        }
        return Err(Error::mismatch(format!(
            "none of the {} checkpoints verifies, so none is deleted",
            found.len()
        ))
        .with_path(root)
        .with_hint("`checkpoint verify` says what is wrong with each"));
    };
    let (kept, deleted) = decide(rules, &found, &newest_good, &newest.skipped);
    let mut cleaned = Vec::new();
    if !dry_run {
        cleaned = stage::clean(root)?;
        stage::delete(root, &deleted, true)?;
    }
    Ok(Pruned { kept, deleted, skipped: newest.skipped, cleaned })
}

/// Parts a list into what stays and what goes. `good` is known to verify.
pub(crate) fn decide(
    rules: &Retention,
    found: &[Found],
    good: &Path,
    damaged: &[Skipped],
) -> (Vec<(PathBuf, String)>, Vec<PathBuf>) {
    let (mut kept, mut deleted) = (Vec::new(), Vec::new());
    // Damage that only reading found counts as any other.
    let mut found = found.to_vec();
    for f in &mut found {
        if let Some(skipped) = damaged.iter().find(|s| s.path == f.path) {
            f.damage.get_or_insert_with(|| skipped.reason.clone());
        }
    }
    let place = found.iter().position(|f| f.path == good);
    let kind = place.and_then(|p| found.get(p)).map(|f| f.kind);
    for (i, (f, mut why)) in found.iter().zip(rules.wanted(&found)).enumerate() {
        if f.path == good {
            why.push("the newest that verifies".into());
        }
        if Some(f.kind) != kind {
            why.push("of another kind than the newest that verifies".into());
        }
        // What is newer than the good one was saved after it was looked for.
        if place.is_none_or(|p| i > p) {
            why.push("newer than the newest that was verified".into());
        }
        match why.is_empty() {
            true => deleted.push(f.path.clone()),
            false => kept.push((f.path.clone(), why.join(", "))),
        }
    }
    (kept, deleted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Kind;

    fn found(number: u64, loss: Option<f64>, damaged: bool) -> Found {
        Found {
            path: PathBuf::from(number.to_string()),
            kind: Kind::Native,
            number: Some(number),
            step: Some(number * 10),
            epoch: None,
            metrics: loss.map(|x| ("loss".to_owned(), x)).into_iter().collect(),
            bytes: 1,
            damage: damaged.then(|| "cut".to_owned()),
        }
    }

    fn deleted(rules: &Retention, found: &[Found], good: u64) -> Vec<String> {
        let (kept, deleted) = decide(rules, found, Path::new(&good.to_string()), &[]);
        assert_eq!(kept.len() + deleted.len(), found.len());
        deleted.into_iter().map(|p| p.display().to_string()).collect()
    }

    #[test]
    fn each_rule_keeps_what_it_says() {
        let losses = [Some(0.5), Some(0.1), None, Some(f64::NAN), Some(0.1), Some(0.9)];
        let all: Vec<Found> = losses.iter().zip(1..).map(|(x, n)| found(n, *x, false)).collect();
        let rules = |last, best: &[(Goal, usize)], every| Retention {
            last,
            best: best.iter().map(|(g, n)| ("loss".to_owned(), *g, *n)).collect(),
            every,
        };
        assert!(deleted(&rules(None, &[], None), &all, 6).is_empty(), "without a rule all stay");
        assert_eq!(deleted(&rules(Some(2), &[], None), &all, 6), ["1", "2", "3", "4"]);
        // Of the two with 0.1 the newer is better.
        assert_eq!(deleted(&rules(None, &[(Goal::Min, 1)], None), &all, 6), ["1", "2", "3", "4"]);
        assert_eq!(deleted(&rules(None, &[(Goal::Max, 2)], None), &all, 6), ["2", "3", "4", "5"]);
        assert_eq!(deleted(&rules(Some(1), &[], Some(3)), &all, 6), ["1", "2", "4", "5"]);
        assert_eq!(deleted(&rules(Some(1), &[(Goal::Min, 2)], Some(4)), &all, 6), ["1", "3"]);
        assert!(deleted(&rules(Some(0), &[], None), &all[..1], 1).is_empty(), "the last good one stays");
    }

    #[test]
    fn damaged_ones_count_for_nothing_and_stay() {
        let all = [found(1, None, false), found(2, None, false), found(3, None, true), found(4, None, true)];
        let rules = Retention { last: Some(1), ..Retention::default() };
        assert_eq!(deleted(&rules, &all, 2), ["1"]);
        // Of another kind: a torch file beside the folders.
        let mut other = found(9, None, false);
        other.kind = Kind::Torch;
        let all_and = [&[other][..], &all].concat();
        assert_eq!(deleted(&rules, &all_and, 2), ["1"]);
        // Newer than what was verified: not touched.
        assert!(deleted(&Retention { last: Some(0), ..rules }, &all, 1).is_empty());
    }
}
