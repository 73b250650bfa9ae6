//! `cargo xtask features`: clippy over each feature alone, none, and all, so that no combination rots.

use crate::Outcome;
use crate::command::{cargo, done, root, run as run_command};
use crate::native;
use std::fs;

/// The crates whose features users choose, with their folders.
const CRATES: &[(&str, &str)] = &[
    ("weighbridge-formats", "crates/formats"),
    ("weighbridge-model", "crates/model"),
    ("weighbridge-export", "crates/export"),
    ("weighbridge-runtime", "crates/runtime"),
    ("weighbridge-trust", "crates/trust"),
    ("weighbridge", "crates/weighbridge"),
    ("weighbridge-cli", "crates/cli"),
];

/// The task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    done(arguments)?;
    for (package, folder) in CRATES {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml"))?;
        let mut features = names(&manifest);
        if features.is_empty() {
            return Err(format!("{folder}/Cargo.toml: no features found").into());
        }
        if !native::HERE && features.iter().any(|f| f == "tch") {
            println!(
                "!!!! features: {package}: tch is left out: no libtorch is laid out on this system !!!!"
            );
            features.retain(|f| f != "tch");
        }
        let all = features.join(",");
        println!("features: {package}: none; {}; all", features.join("; "));
        let mut ways: Vec<Vec<&str>> = vec![vec!["--no-default-features"]];
        ways.extend(features.iter().map(|f| vec!["--no-default-features", "--features", f.as_str()]));
        ways.push(vec!["--features", &all]);
        for way in ways {
            let mut clippy = cargo(&["clippy", "--quiet", "--locked", "--package", package]);
            clippy.args(way).args(["--", "-D", "warnings"]);
            run_command(clippy)?;
        }
    }
    Ok(())
}

/// The names in a manifest's `[features]`, `default` left out.
fn names(manifest: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|l| l.trim() != "[features]").skip(1);
    let lines = lines.take_while(|l| !l.starts_with('['));
    let name = |l: &str| {
        let (name, value) = l.split_once('=')?;
        (value.trim_start().starts_with('[') && !l.starts_with('#')).then(|| name.trim().to_owned())
    };
    lines.filter_map(name).filter(|n| n != "default").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_read_from_the_manifest() {
        let manifest = "[package]\nname = \"x\"\n[features]\ndefault = [\"a\"]\n# b = []\na = []\nc-d = [\n  \"a\",\n]\n\n[dependencies]\ne = [\"no\"]\n";
        assert_eq!(names(manifest), ["a", "c-d"]);
        for (_, folder) in CRATES {
            let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
            assert!(
                names(&manifest)
                    .iter()
                    .any(|n| ["torch", "tokenizers", "tch", "ort", "sign"].contains(&n.as_str())),
                "{folder}"
            );
        }
    }
}
