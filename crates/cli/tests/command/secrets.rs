//! Keys, passphrases and passwords by every way that they are taken: none is in what is printed or in what others can see of
//! the process, and what is secret is its owner's whatever the umask says.

use std::process::Stdio;

use crate::{Folder, Run, command, run};

const PASSPHRASE: &str = "Zebra-Passphrase-4711";
const KEY_PASSPHRASE: &str = "Walrus-Key-Words-0815";
const PASSWORD: &str = "Otter-Password-1234";

/// Runs with variables of the environment, and gives what was printed and what `/proc` showed of the process's arguments,
/// of all its threads, while it ran.
fn watched(args: &[&str], env: &[(&str, &str)]) -> (Run, String) {
    let mut command = command(args);
    let mut child = command
        .envs(env.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let process = format!("/proc/{}", child.id());
    let mut seen = String::new();
    let mut looks = 0;
    loop {
        for part in ["cmdline", "comm", "status"] {
            let text = std::fs::read(format!("{process}/{part}")).unwrap_or_default();
            seen.push_str(&String::from_utf8_lossy(&text));
        }
        for task in std::fs::read_dir(format!("{process}/task")).into_iter().flatten().flatten() {
            seen.push_str(&std::fs::read_to_string(task.path().join("comm")).unwrap_or_default());
        }
        looks += 1;
        if child.try_wait().expect("it can be waited for").is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(looks > 0 && (!cfg!(target_os = "linux") || !seen.is_empty()));
    let output = child.wait_with_output().expect("it has ended");
    let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
    let code = output.status.code().expect("an exit code");
    (Run { code, stdout: text(output.stdout), stderr: text(output.stderr) }, seen)
}

/// Everything that was said or could be seen, in which no secret may be.
#[derive(Default)]
struct Said(String);

impl Said {
    #[track_caller]
    fn keep(&mut self, args: &[&str], env: &[(&str, &str)], code: i32) {
        let (run, seen) = watched(args, env);
        let run = run.expect(code);
        for text in [&run.stdout, &run.stderr, &seen] {
            self.0.push_str(&text.to_lowercase());
        }
    }

    fn check(&self, secrets: &[&str]) {
        for secret in secrets {
            assert!(secret.len() > 10, "{secret:?} could stand anywhere");
            assert!(!self.0.contains(&secret.to_lowercase()), "{secret} is in {}", self.0);
        }
    }
}

#[test]
fn no_way_to_give_a_key_or_passphrase_shows_it() {
    let folder = Folder::new();
    let mut said = Said::default();
    let source = folder.write("x.bin", vec![7; 70_000]);
    let key = folder.path("key.txt");
    let public = run(&["encrypt", "--generate-identity", &key]).expect(0).stdout.trim().to_owned();
    let secret = std::fs::read_to_string(&key).expect("a key").lines().nth(1).expect("a line").to_owned();
    let (words, locked) = (folder.write("words", format!("{PASSPHRASE}\n")), folder.path("locked.txt"));
    let key_words = folder.write("key-words", format!("{KEY_PASSPHRASE}\n"));
    let out = folder.path("out");
    // A key that is itself an encrypted file, made by a variable.
    said.keep(&["encrypt", &key, &locked, "--json"], &[("WEIGHBRIDGE_PASSPHRASE", KEY_PASSPHRASE)], 0);
    let sealed = folder.path("x.age");
    said.keep(&["encrypt", &source, &sealed, "-r", &public, "--json"], &[], 0);
    let locked_key = ["decrypt", &sealed, &out, "-i", &locked, "--force"];
    said.keep(&locked_key, &[("WEIGHBRIDGE_IDENTITY_PASSPHRASE", KEY_PASSPHRASE)], 0);
    said.keep(&[&locked_key[..], &["--identity-passphrase-file", &key_words, "--json"]].concat(), &[], 0);
    said.keep(&[&locked_key[..], &["--identity-passphrase-file", &words]].concat(), &[], 2);
    said.keep(&locked_key, &[], 2);
    // A passphrase by a file; the other commands that take one.
    let by_words = folder.path("w.age");
    said.keep(&["encrypt", &source, &by_words, "--passphrase-file", &words], &[], 0);
    said.keep(&["hash", &by_words, "--passphrase-file", &key_words, "--json"], &[], 2);
    said.keep(&["decrypt", &by_words, &out, "--force"], &[("WEIGHBRIDGE_PASSPHRASE", PASSPHRASE)], 0);
    // Keys that are damaged, unreadable or of another kind.
    let damaged = folder.write("damaged", format!("{}\n", secret.replace("1", "2")));
    let half = folder.write("half", &secret[..40]);
    let binary = folder.write("binary", [secret.as_bytes(), &[0xff, 0xfe]].concat());
    for key in
        [&damaged, &half, &binary, &folder.path("missing"), &folder.0.to_str().expect("UTF-8").to_owned()]
    {
        for more in [&[][..], &["--json"]] {
            said.keep(&[&["decrypt", &sealed, &out, "-i", key], more].concat(), &[], 2);
            said.keep(&[&["inspect", &sealed, "-i", key], more].concat(), &[], 2);
            said.keep(&[&["encrypt", &source, &out, "-R", key], more].concat(), &[], 2);
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o000)).expect("permissions");
        // Who may read everything reads this too.
        let code = if std::fs::read(&key).is_ok() { 0 } else { 2 };
        said.keep(&["decrypt", &sealed, &out, "-i", &key, "--force", "--json"], &[], code);
    }
    said.check(&[PASSPHRASE, KEY_PASSPHRASE, &secret, &secret[16..40]]);
}

#[test]
fn no_way_to_give_a_signing_key_or_password_shows_it() {
    let folder = Folder::new();
    let mut said = Said::default();
    let model = folder.write("model.bin", "weights");
    let (open, locked, signature) =
        (folder.path("open.pem"), folder.path("locked.pem"), folder.path("m.sig"));
    let password = folder.write("password", format!("{PASSWORD}\n"));
    let variable = [("WEIGHBRIDGE_KEY_PASSWORD", PASSWORD)];
    said.keep(&["sign", "--generate-key", &open, "--json"], &[], 0);
    said.keep(&["sign", "--generate-key", &locked, "--json"], &variable, 0);
    said.keep(&["sign", "--generate-key", &folder.path("two.pem"), "--password-file", &password], &[], 0);
    let body = |path: &str| {
        let text = std::fs::read_to_string(path).expect("a key");
        text.lines().nth(1).expect("a line").to_owned()
    };
    let wrong = folder.write("wrong", "Another-Password-99\n");
    let text = std::fs::read_to_string(&open).expect("a key");
    let damaged = folder.write("damaged.pem", text.replace(&body(&open)[8..12], "AAAA"));
    let cut = folder.write("cut.pem", &text[..text.len() / 2]);
    let with = |key: &str, more: &[&str], env: &[(&str, &str)], code: i32, said: &mut Said| {
        for json in [&[][..], &["--json"]] {
            let args = [&["sign", &model, "--key", key, "--signature", &signature, "--no-cache"], more, json];
            said.keep(&args.concat(), env, code);
        }
    };
    with(&open, &[], &[], 0, &mut said);
    with(&locked, &[], &variable, 0, &mut said);
    with(&locked, &["--password-file", &password], &[], 0, &mut said);
    with(&locked, &["--password-file", &wrong], &[], 2, &mut said);
    with(&locked, &["--password-file", &folder.path("missing")], &[], 2, &mut said);
    with(&locked, &[], &[], 2, &mut said);
    with(&damaged, &[], &[], 2, &mut said);
    with(&cut, &[], &[], 2, &mut said);
    with(&folder.path("missing"), &[], &variable, 2, &mut said);
    // A private key where a public one, a certificate or a signature is wanted.
    for args in [
        ["verify", &model, "--signature", &signature, "--public-key", &open],
        ["verify", &model, "--signature", &open, "--public-key", &open],
        ["verify", &model, "--signature", &signature, "--certificate-chain", &open],
    ] {
        said.keep(&args, &[], 2);
    }
    said.check(&[PASSWORD, "Another-Password-99", &body(&open), &body(&locked), &body(&damaged)[20..]]);
}

/// The modes of everything that is made, under the umask that takes nothing away and the one that leaves only the owner.
#[cfg(unix)]
#[test]
fn what_is_secret_is_its_owners_under_every_umask() {
    use std::os::unix::fs::PermissionsExt;
    for (umask, public, folder_mode) in [("000", 0o666, 0o777), ("077", 0o600, 0o700), ("022", 0o644, 0o755)]
    {
        let folder = Folder::new();
        let masked = |args: &[&str]| {
            let status = std::process::Command::new("sh")
                .args([
                    "-c",
                    &format!("umask {umask} && exec \"$@\""),
                    "sh",
                    env!("CARGO_BIN_EXE_weighbridge"),
                ])
                .args(args)
                .stdout(Stdio::null())
                .status();
            assert!(status.expect("it runs").success(), "{umask}: {args:?}");
        };
        let mode = |name: &str| {
            std::fs::metadata(folder.path(name)).expect("it is there").permissions().mode() & 0o777
        };
        let at = |name: &str| folder.path(name);
        let source = folder.write("x.bin", vec![7; 1000]);
        std::fs::create_dir_all(at("model/sub")).expect("a folder");
        folder.write("model/sub/a", "a");
        masked(&["encrypt", "--generate-identity", &at("key.txt")]);
        masked(&["sign", "--generate-key", &at("key.pem")]);
        assert_eq!((mode("key.txt"), mode("key.pem")), (0o600, 0o600), "{umask}");
        let key = std::fs::read_to_string(at("key.txt")).expect("a key");
        let recipient = key.lines().find_map(|l| l.split_once("age1")).map(|(_, rest)| format!("age1{rest}"));
        let recipient = recipient.expect("a public key");
        masked(&["encrypt", &source, &at("x.age"), "-r", &recipient]);
        masked(&["encrypt", &at("model"), &at("m.age"), "-r", &recipient]);
        masked(&["sign", &at("model"), "--key", &at("key.pem"), "--signature", &at("m.sig"), "--no-cache"]);
        assert_eq!((mode("x.age"), mode("m.age"), mode("m.sig")), (public, public, public), "{umask}");
        masked(&["decrypt", &at("x.age"), &at("y.bin"), "-i", &at("key.txt")]);
        masked(&["decrypt", &at("m.age"), &at("out"), "-i", &at("key.txt")]);
        assert_eq!((mode("y.bin"), mode("out/sub/a")), (0o600, 0o600), "{umask}");
        assert_eq!((mode("out"), mode("out/sub")), (0o700, 0o700), "{umask}");
        // A chosen mode is honoured, as far as the umask leaves it.
        masked(&["decrypt", &at("x.age"), &at("z.bin"), "-i", &at("key.txt"), "--mode", "664"]);
        masked(&["decrypt", &at("m.age"), &at("open"), "-i", &at("key.txt"), "--mode", "666"]);
        assert_eq!(mode("z.bin"), 0o664 & public, "{umask}");
        assert_eq!((mode("open/sub/a"), mode("open/sub")), (public, folder_mode), "{umask}");
        masked(&["encrypt", &source, &at("p.age"), "-r", &recipient, "--mode", "600"]);
        assert_eq!(mode("p.age"), 0o600, "{umask}");
        // A manifest and its temporary folder.
        let weights = folder
            .write("w.safetensors", crate::safetensors(&[("a", "F32", &[1], &1.5f32.to_le_bytes())], &[]));
        masked(&["convert", &weights, &at("v.safetensors"), "--manifest", "--mode", "600"]);
        assert_eq!(
            (mode("v.safetensors"), mode("v.safetensors.weighbridge.json")),
            (0o600, 0o600),
            "{umask}"
        );
    }
}
