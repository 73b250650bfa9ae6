//! Writers that are killed, and disks that fill up: each in a child process, which is this test binary again.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use weighbridge_formats::write::{ExecuteOptions, FilePlan, Observer, WritePlan, execute};
use weighbridge_formats::{Data, ReadAt, Result};

/// Tells a child what to do: a mode and a folder.
const CHILD: &str = "WEIGHBRIDGE_WRITE_CHILD";

const LEN: u64 = 6 << 20;

/// Bytes that are all the same.
struct Version(u8, u64);

impl ReadAt for Version {
    fn len(&self) -> u64 {
        self.1
    }

    fn read_at(&self, _: u64, buf: &mut [u8]) -> Result<()> {
        buf.fill(self.0);
        Ok(())
    }
}

/// A file whose every byte says which version it is of, and which ends in the checksum of its data.
fn version(v: u8, len: u64) -> WritePlan<'static> {
    let mut file = FilePlan::new("target");
    file.push_fixed(vec![v; 1000]).unwrap();
    let segment = file.push_data(Data::lazy(Version(v, len)), "w", true).unwrap();
    file.push_late(4, Box::new(move |d| Ok(d.crc32(segment)?.to_le_bytes().to_vec()))).unwrap();
    WritePlan { files: vec![file], notes: Vec::new() }
}

/// Fills the file system when the write begins, after it was found to have room.
struct FillDisk(PathBuf);

impl Observer for FillDisk {
    fn started(&self, _: u64) {
        let mut other = std::fs::File::create(&self.0).unwrap();
        while std::io::Write::write_all(&mut other, &[1; 4096]).is_ok() {}
    }
}

/// What the children do.
#[test]
#[ignore = "a child process of the other tests"]
fn child() {
    let task = std::env::var(CHILD).expect("only the other tests of this file run this one");
    let (mode, folder) = task.split_once(' ').unwrap();
    let folder = Path::new(folder);
    let mut options = ExecuteOptions::default();
    (options.fsync, options.overwrite, options.threads) = (false, true, Some(2));
    let filler = FillDisk(folder.join("filler"));
    match mode {
        "forever" => {
            for v in (1..=250).cycle() {
                options.fsync = v % 8 == 0;
                execute(version(v, LEN), folder, &options).unwrap();
                if v == 1 {
                    std::fs::write(folder.join("begun"), "").unwrap();
                }
            }
        }
        "once" => {}
        "fill" => options.observer = Some(&filler),
        other => panic!("unknown mode {other:?}"),
    }
    match execute(version(7, LEN), folder, &options) {
        Ok(_) => println!("OUTCOME written"),
        Err(e) => println!("OUTCOME {e}; HINT {:?}", e.hint()),
    }
}

/// A command that runs the child, through a shell script if one is given, which ends in `exec "$0" "$@"`.
fn child_command(mode: &str, folder: &Path, shell: &[&str]) -> Command {
    let binary = std::env::current_exe().unwrap();
    let mut command = match shell.split_first() {
        None => Command::new(&binary),
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(&binary);
            command
        }
    };
    command.args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, format!("{mode} {}", folder.display())).stdin(Stdio::null());
    command
}

fn outcome(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let at = text
        .find("OUTCOME ")
        .unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)));
    text[at..].lines().next().unwrap_or_default().to_owned()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Asserts that a file is one version, complete, and returns which.
fn check_version(bytes: &[u8], context: &str) -> u8 {
    assert_eq!(bytes.len() as u64, 1000 + LEN + 4, "{context}");
    let (data, sum) = bytes.split_at(bytes.len() - 4);
    assert!(data.iter().all(|&b| b == data[0]), "{context}: two versions in one file");
    assert_eq!(sum, crc32fast::hash(&data[1000..]).to_le_bytes(), "{context}");
    data[0]
}

#[test]
fn a_killed_writer_leaves_the_old_file_or_the_new_one() {
    let (mut interrupted, mut versions) = (0, std::collections::BTreeSet::new());
    for round in 0..20u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut child = child_command("forever", dir.path(), &[])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begin = std::time::Instant::now();
        while !dir.path().join("begun").exists() {
            assert!(begin.elapsed() < Duration::from_secs(60), "the child does not begin");
            assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        // Anywhere within a few writes; what the machine is busy with makes it random enough.
        std::thread::sleep(Duration::from_micros(round * 1771));
        child.kill().unwrap();
        child.wait().unwrap();
        let bytes = std::fs::read(dir.path().join("target")).unwrap();
        versions.insert(check_version(&bytes, &format!("round {round}")));
        let others: Vec<_> =
            names(dir.path()).into_iter().filter(|n| n != "target" && n != "begun").collect();
        assert!(others.iter().all(|n| n.starts_with(".target.") && n.ends_with(".tmp")), "{others:?}");
        assert!(others.len() <= 1, "{others:?}");
        interrupted += others.len();
    }
    assert!(interrupted > 0, "no kill came while a file was being written");
    assert!(versions.len() > 1, "all kills came at the same moment");
}

#[test]
fn a_file_over_the_size_limit_is_an_error_and_leaves_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("target"), "old").unwrap();
    let script = r#"trap "" XFSZ; ulimit -f 2000; exec "$0" "$@""#;
    let output = child_command("once", dir.path(), &["sh", "-c", script]).output().unwrap();
    let outcome = outcome(&output);
    assert!(outcome.contains("larger than the system or its limits allow"), "{outcome}");
    assert!(outcome.contains(&(1000 + LEN + 4).to_string()) && outcome.contains("target"), "{outcome}");
    assert!(outcome.contains("ulimit -f"), "{outcome}");
    assert_eq!(names(dir.path()), ["target"]);
    assert_eq!(std::fs::read(dir.path().join("target")).unwrap(), b"old");
}

/// A small file system needs a mount, in a namespace of its own so that nothing is left behind. Whether the
/// system lets this process have one is asked first, so that a refusal is not taken for the engine's fault.
fn may_mount() -> bool {
    let probe = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    probe.is_ok_and(|o| o.status.success())
}

#[test]
fn a_full_disk_is_an_error_and_leaves_the_old_file() {
    assert!(
        may_mount() || std::env::var_os("WEIGHBRIDGE_NO_NAMESPACES").is_some(),
        "this test mounts a small tmpfs in a namespace of its own, which this system does not allow; \
         set WEIGHBRIDGE_NO_NAMESPACES=1 to go without it"
    );
    if std::env::var_os("WEIGHBRIDGE_NO_NAMESPACES").is_some() {
        eprintln!("NOT TESTED: a full disk");
        return;
    }
    // Once with too little room from the start, and once with room that another program takes.
    for (mode, size, message) in [
        ("once", "4m", "the disk is full: 6292460 bytes are to be written"),
        ("fill", "8m", "writing: the disk is full"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().display();
        let script = format!(
            "mount -t tmpfs -o size={size} none {folder} && echo old > {folder}/target && \"$0\" \"$@\" && \
             echo LEFT $(ls -A {folder}) && echo CONTENT $(cat {folder}/target)"
        );
        let output =
            child_command(mode, dir.path(), &["unshare", "-rm", "sh", "-c", &script]).output().unwrap();
        let outcome = outcome(&output);
        assert!(outcome.contains(message) && outcome.contains("make room"), "{mode}: {outcome}");
        assert!(outcome.contains("6292460"), "{mode}: {outcome}");
        let text = String::from_utf8_lossy(&output.stdout);
        let left = if mode == "fill" { "LEFT filler target\n" } else { "LEFT target\n" };
        assert!(text.contains(left) && text.contains("CONTENT old\n"), "{mode}: {text}");
    }
}
