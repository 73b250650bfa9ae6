//! The tool `age`, which judges our encrypted files: Debian's package, laid out without installing it.
//!
//! `target/native/age` is a link to the folder with `age` and `age-keygen`. Where the system is not Debian, one that is
//! installed serves; where there is none either, setup says so, and the tests that need it fail until it is there.

use crate::Outcome;
use crate::command::{command, output, run as run_command, target};
use crate::setup::{point, sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// The package of Debian 12 on x86-64, and its SHA-256. Other releases have others, which apt checks by its own keys.
const PACKAGE: &str = "age_1.1.1-1+b3_amd64.deb";
const PACKAGE_SHA256: &str = "574664c44f1c69ec9cb8f6f25ae3eaba647c923f62b65cca5086c899c1c26e09";

/// Points `target/native/age` at the tool.
pub(crate) fn ensure(cache: &Path) -> Outcome {
    fs::create_dir_all(target().join("native"))?;
    let link = target().join("native/age");
    let folder = cache.join("age");
    let tool = folder.join("usr/bin");
    if !tool.join("age").exists() && runs("apt-get", &["--version"]) && runs("dpkg-deb", &["--version"]) {
        fetch(&folder)?;
    }
    if tool.join("age").exists() {
        return point(&link, &tool);
    }
    match installed() {
        Some(folder) => {
            println!("setup: the age in {} judges encryption; it is held against no hash", folder.display());
            point(&link, &folder)
        }
        None => {
            println!(
                "setup: the tool age is MISSING: this is no Debian, and none is installed; the tests of encryption that \
                 need it will fail"
            );
            Ok(())
        }
    }
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    output(command(program, arguments)).is_ok()
}

/// Has apt fetch the package, holds it against its hash, and unpacks it.
fn fetch(folder: &Path) -> Outcome {
    let partial = folder.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    println!("setup: fetching Debian's package age");
    let mut apt = command("apt-get", &["download", "age"]);
    apt.current_dir(&partial);
    run_command(apt).map_err(|error| format!("{error}\n  `apt-get update` may help, as root"))?;
    let package = fs::read_dir(&partial)?
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "deb"));
    let package = package.ok_or("apt-get has left no package")?;
    if package.file_name().is_some_and(|name| name == PACKAGE) {
        let found = sha256(&package)?;
        if found != PACKAGE_SHA256 {
            return Err(format!("{PACKAGE}: its SHA-256 is {found}, not {PACKAGE_SHA256} as pinned").into());
        }
    } else {
        println!("setup: {} is NOT held against a hash: that is of {PACKAGE}", package.display());
    }
    let at = |path: &Path| path.to_str().map(str::to_owned).ok_or("the cache folder's path is not UTF-8");
    run_command(command("dpkg-deb", &["-x", &at(&package)?, &at(&partial)?]))?;
    fs::remove_file(package)?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::rename(partial, folder)?;
    Ok(())
}

/// The folder of an `age` that is installed.
fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|folder| folder.join("age").is_file())
}
