//! Running other programs, and where things are.

use crate::Outcome;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The workspace's root: the parent of this crate's folder.
pub(crate) fn root() -> PathBuf {
    // Cargo says at run time where the package is; what it said at build time serves a program started by hand.
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let own = Path::new(&own);
    own.parent().unwrap_or(own).to_path_buf()
}

/// The folder `target` below the root, which holds the links that `setup` makes. Cargo's own output may stand
/// elsewhere (`CARGO_TARGET_DIR`); see [`build`].
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// A command that runs in the workspace's root.
pub(crate) fn command<S: AsRef<OsStr>>(program: S, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// Cargo itself, by the path that started this task.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), arguments)
}

/// The command as a user would type it.
pub(crate) fn spelled(command: &Command) -> String {
    let shown = |word: &OsStr| {
        let word = word.to_string_lossy();
        if word.is_empty() || word.contains([' ', '|', '\n', '*', '"']) {
            format!("'{word}'")
        } else {
            word.into_owned()
        }
    };
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program).chain(command.get_args()).map(shown).collect::<Vec<_>>().join(" ")
}

/// Runs a command with this process's own streams.
pub(crate) fn run(mut command: Command) -> Outcome {
    let status =
        command.status().map_err(|error| format!("cannot start `{}`: {error}", spelled(&command)))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed ({status})", spelled(&command)).into()) }
}

/// Runs a command and returns its standard output; its standard error goes through.
pub(crate) fn output(mut command: Command) -> Outcome<String> {
    command.stderr(Stdio::inherit()).stdin(Stdio::null());
    let out = command.output().map_err(|error| format!("cannot start `{}`: {error}", spelled(&command)))?;
    if !out.status.success() {
        return Err(format!("`{}` failed ({})", spelled(&command), out.status).into());
    }
    Ok(String::from_utf8(out.stdout)?)
}

/// Runs a command whose output is both shown and kept: standard output and standard error as one text, line by
/// line in the order of each stream. The text is returned with whether the command succeeded.
pub(crate) fn watched(mut command: Command) -> Outcome<(bool, String)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().map_err(|error| format!("cannot start `{}`: {error}", spelled(&command)))?;
    let (sender, lines) = std::sync::mpsc::channel();
    let streams: [Option<Box<dyn std::io::Read + Send>>; 2] =
        [child.stdout.take().map(|s| Box::new(s) as _), child.stderr.take().map(|s| Box::new(s) as _)];
    for stream in streams.into_iter().flatten() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            // A line need not be UTF-8: a test may print what it likes.
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
    }
    drop(sender);
    let mut text = String::new();
    for line in lines {
        println!("{line}");
        text.push_str(&line);
        text.push('\n');
    }
    Ok((child.wait()?.success(), text))
}

/// Builds a package's program and returns its path, from the messages in which Cargo says it.
pub(crate) fn build(package: &str, program: &str, release: bool) -> Outcome<PathBuf> {
    let mut build = cargo(&[
        "build",
        "--quiet",
        "--package",
        package,
        "--bin",
        program,
        "--message-format=json-render-diagnostics",
    ]);
    if release {
        build.arg("--release");
    }
    for line in output(build)?.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        if message["target"]["name"] == program
            && let Some(path) = message["executable"].as_str()
        {
            return Ok(path.into());
        }
    }
    Err(format!("cargo build --package {package} named no program `{program}`").into())
}

/// The value of `--name VALUE` or `--name=VALUE`, taken out of the arguments.
pub(crate) fn take_value(arguments: &mut Vec<String>, name: &str) -> Outcome<Option<String>> {
    let prefix = format!("{name}=");
    if let Some(at) = arguments.iter().position(|a| a.starts_with(&prefix)) {
        return Ok(Some(arguments.remove(at).split_off(prefix.len())));
    }
    let Some(at) = arguments.iter().position(|a| a == name) else { return Ok(None) };
    arguments.remove(at);
    if at == arguments.len() {
        return Err(format!("{name} needs a value").into());
    }
    Ok(Some(arguments.remove(at)))
}

/// Whether the flag was among the arguments, from which it is taken out.
pub(crate) fn take_flag(arguments: &mut Vec<String>, name: &str) -> bool {
    let before = arguments.len();
    arguments.retain(|a| a != name);
    arguments.len() != before
}

/// An error if an argument is left that no one took.
pub(crate) fn done(arguments: &[String]) -> Outcome {
    match arguments.first() {
        Some(left) => Err(format!("unknown argument `{left}`; see `cargo xtask help`").into()),
        None => Ok(()),
    }
}

/// All files below a folder, sorted by path; no links are followed.
pub(crate) fn files_below(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let mut pending = vec![folder.to_path_buf()];
    let mut files = Vec::new();
    while let Some(folder) = pending.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_taken_once() {
        let mut arguments: Vec<String> =
            ["--runs", "3", "--gib=2", "--peers", "rest"].map(String::from).to_vec();
        assert_eq!(take_value(&mut arguments, "--runs").unwrap().as_deref(), Some("3"));
        assert_eq!(take_value(&mut arguments, "--gib").unwrap().as_deref(), Some("2"));
        assert!(take_flag(&mut arguments, "--peers"));
        assert!(!take_flag(&mut arguments, "--peers"));
        assert!(done(&arguments).unwrap_err().to_string().contains("rest"));
        assert!(take_value(&mut vec!["--runs".into()], "--runs").is_err());
    }

    #[test]
    fn both_streams_are_kept_and_failure_is_told() {
        let (ok, text) = watched(command("sh", &["-c", "echo out; echo err >&2; exit 3"])).unwrap();
        assert!(!ok);
        assert!(text.contains("out\n") && text.contains("err\n"));
    }
}
