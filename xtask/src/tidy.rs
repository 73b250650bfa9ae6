//! `cargo xtask tidy`: the rules that no compiler checks, each reported with its file and line.
//!
//! A rule is a function from a file's path and text to what is wrong with it, so that its own test can show it a bad
//! sample. The words that a rule looks for are put together from parts here, or this file would break the rule.

use crate::Outcome;
use crate::command::{build, command, done, output, root};
use crate::fixtures;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The most lines of a source file, its unit tests not counted.
const MOST_LINES: usize = 700;

/// Longer files, and why they are.
const LONG: &[(&str, &str)] = &[];

/// Where `unsafe` code may stand, how many blocks and implementations of it, and for what. Clippy wants a comment on each
/// that says why it is sound; `docs/robustness.md` has this table.
const UNSAFE: &[(&str, usize, &str)] = &[
    ("crates/formats/src/memory.rs", 1, "asks the system for large pages"),
    ("crates/formats/src/source/map.rs", 1, "maps a file"),
    ("crates/formats/src/source/mod.rs", 1, "hands the promise of a mapped file on to the caller"),
    ("crates/formats/src/transform/kernels/simd.rs", 6, "calls loops compiled for what the machine has"),
    ("crates/formats/src/write/kernel.rs", 8, "calls `copy_file_range` and its kin"),
    ("crates/cli/src/heap.rs", 1, "sets the parameters of the C library's allocator"),
    ("crates/testkit/src/alloc.rs", 5, "counts what tests allocate"),
    ("benches/peers/src/main.rs", 2, "maps the benchmark's own files for other crates"),
];

/// The page with that table.
const UNSAFE_PAGE: &str = "docs/robustness.md";

/// What must not stand in any text of the repository, and why.
const WORDS: &[(&str, &str)] = &[
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/tmp/", "wt"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("py", "pi.org"), "a registry's host name"),
    (concat!("crates", ".io"), "a registry's host name"),
    (concat!("files.python", "hosted"), "a registry's host name"),
    (concat!("TO", "DO"), "work that is not done"),
    (concat!("FIX", "ME"), "work that is not done"),
];

/// Macros that stand for code that is not there, or that is there by mistake.
const MACROS: &[&str] = &[concat!("to", "do!"), concat!("unimple", "mented!"), concat!("db", "g!")];

/// Everything that is wrong, as `path:line: text`.
type Faults = Vec<String>;

/// The task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    done(arguments)?;
    let root = root();
    let files = tracked()?;
    let mut faults = Faults::new();
    for path in &files {
        let bytes = match fs::read(root.join(path)) {
            Ok(bytes) => bytes,
            // Deleted in the working tree, not yet in the index.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("{path}: {error}").into()),
        };
        match std::str::from_utf8(&bytes) {
            Ok(text) => {
                faults.extend(text_rules(path, text));
                faults.extend(links(path, text, &root));
            }
            Err(_) => faults.extend(binary_words(path, &bytes)),
        }
    }
    let page = fs::read_to_string(root.join(UNSAFE_PAGE))?;
    for (path, count, why) in UNSAFE {
        let row = format!("| `{path}` | {count} | {why} |");
        if !page.lines().any(|line| line == row) {
            faults.push(format!("{UNSAFE_PAGE}: lacks {row}"));
        }
    }
    for path in LONG.iter().map(|(path, _)| path).chain(UNSAFE.iter().map(|(path, ..)| path)) {
        if !files.iter().any(|f| f == path) {
            faults.push(format!("xtask/src/tidy.rs: its list names {path}, which is not there"));
        }
    }
    for folder in fixtures::folders()? {
        faults.extend(golden(&folder)?);
    }
    let weighbridge = build("weighbridge-cli", "weighbridge", false)?;
    let formats = output(command(weighbridge, &["formats", "--json"]))?;
    faults.extend(format_pages(&serde_json::from_str(&formats)?, &root)?);
    if faults.is_empty() {
        println!("tidy: {} files", files.len());
        return Ok(());
    }
    faults.sort();
    Err(format!("{} faults\n{}", faults.len(), faults.join("\n")).into())
}

/// The files that git tracks, and new ones that it does not ignore.
fn tracked() -> Outcome<Vec<String>> {
    let list = output(command("git", &["ls-files", "--cached", "--others", "--exclude-standard", "-z"]))?;
    let mut files: Vec<String> = list.split('\0').filter(|f| !f.is_empty()).map(String::from).collect();
    files.sort();
    files.dedup();
    if files.is_empty() { Err("git knows no file here".into()) } else { Ok(files) }
}

/// The rules over a text file's lines.
fn text_rules(path: &str, text: &str) -> Faults {
    let mut faults = words(path, text);
    if path.ends_with(".rs") {
        faults.extend(length(path, text));
        faults.extend(head(path, text));
        faults.extend(macros(path, text));
        faults.extend(unsafe_code(path, text));
    }
    faults
}

fn length(path: &str, text: &str) -> Faults {
    let tests = path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs");
    let exempt = tests || LONG.iter().any(|(p, _)| *p == path);
    let own = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let lines = own.lines().count();
    if exempt || lines <= MOST_LINES {
        return Faults::new();
    }
    vec![format!("{path}:{MOST_LINES}: {lines} lines; a file has one subject and at most {MOST_LINES}")]
}

fn head(path: &str, text: &str) -> Faults {
    if text.starts_with("//!") {
        Faults::new()
    } else {
        vec![format!("{path}:1: does not begin with a `//!` doc")]
    }
}

fn macros(path: &str, text: &str) -> Faults {
    let mut faults = Faults::new();
    for (line, code) in code_lines(text) {
        for name in MACROS {
            if contains_word(code, name) {
                faults.push(format!("{path}:{line}: {name}"));
            }
        }
    }
    faults
}

fn unsafe_code(path: &str, text: &str) -> Faults {
    if let Some((_, count, _)) = UNSAFE.iter().find(|(allowed, ..)| *allowed == path) {
        let blocks = ["{", "impl"].map(|next| format!("{} {next}", concat!("un", "safe")));
        let found: usize =
            code_lines(text).map(|(_, code)| blocks.iter().filter(|b| contains_word(code, b)).count()).sum();
        let told = format!("{path}:1: {found} blocks of unsafe code, where tidy lists {count}");
        return if found == *count { Faults::new() } else { vec![told] };
    }
    let starts =
        ["{", "fn", "impl", "extern", "trait"].map(|next| format!("{} {next}", concat!("un", "safe")));
    let allow = concat!("allow(un", "safe_code)");
    let mut faults = Faults::new();
    for (line, code) in code_lines(text) {
        if code.contains(allow) || starts.iter().any(|s| contains_word(code, s)) {
            faults.push(format!("{path}:{line}: unsafe code outside the files that tidy lists"));
        }
    }
    faults
}

/// The lines that are not wholly comments, with their numbers.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Whether `word` stands in the line with no letter, digit or underscore before it.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

fn words(path: &str, text: &str) -> Faults {
    // The lock file and files of the same kind name the registry that a package comes from.
    let mut faults = Faults::new();
    if path.ends_with("Cargo.lock") {
        return faults;
    }
    for (at, line) in text.lines().enumerate() {
        for (word, why) in WORDS {
            if line.contains(word) {
                faults.push(format!("{path}:{}: `{word}`: {why}", at + 1));
            }
        }
    }
    faults
}

fn binary_words(path: &str, bytes: &[u8]) -> Faults {
    let held = |word: &str| bytes.windows(word.len()).any(|window| window == word.as_bytes());
    let told = |(word, why): &(&str, &str)| format!("{path}: `{word}`: {why}");
    // Four letters may stand in data by chance; a path does not.
    WORDS.iter().filter(|(word, _)| word.len() > 5 && held(word)).map(told).collect()
}

/// Links of Markdown files, and of docs in Rust files, to files that are not there.
fn links(path: &str, text: &str, root: &Path) -> Faults {
    let mut faults = Faults::new();
    if !path.ends_with(".md") {
        return faults;
    }
    let folder = root.join(path).parent().map(Path::to_path_buf).unwrap_or_default();
    let mut fenced = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for (start, _) in line.match_indices("](") {
            let Some(link) = line[start + 2..].split(')').next() else { continue };
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            if !folder.join(file).exists() {
                faults.push(format!("{path}:{}: a link to {file}, which is not there", at + 1));
            }
        }
    }
    faults
}

/// A golden folder holds its script and at least one file with a dump, and no file without one.
fn golden(folder: &Path) -> Outcome<Faults> {
    let shown = folder.strip_prefix(root()).unwrap_or(folder).display().to_string();
    let mut faults = Faults::new();
    if !folder.join("make.py").is_file() {
        faults.push(format!("{shown}: no make.py, the script that writes its files"));
    }
    let dumped = fixtures::dumped(folder)?;
    if dumped.is_empty() {
        faults.push(format!("{shown}: no golden file with a dump"));
    }
    let dumps: Vec<PathBuf> = dumped.iter().map(|path| fixtures::dump_of(path)).collect();
    for path in crate::command::files_below(folder)? {
        let known = dumped.contains(&path) || dumps.contains(&path);
        let script = path.extension().is_some_and(|e| e == "py" || e == "pyc" || e == "md");
        // The external data of a model are in the model's own dump.
        let external = path.extension().is_some_and(|e| e == "data");
        if !known && !script && !external {
            faults.push(format!("{shown}: {} has no dump", path.strip_prefix(folder)?.display()));
        }
    }
    Ok(faults)
}

/// The formats in what `weighbridge formats --json` prints: an array, or one under `formats`, of objects with `id`.
pub(crate) fn format_ids(formats: &Value) -> Outcome<Vec<String>> {
    let list = formats.as_array().or_else(|| formats["formats"].as_array());
    let list = list.ok_or("`weighbridge formats --json` prints no list")?;
    let off =
        |f: &&Value| ["compiled", "enabled", "available"].iter().any(|key| f[*key] == Value::Bool(false));
    let mut ids = Vec::new();
    for format in list.iter().filter(|f| !off(f)) {
        ids.push(format["id"].as_str().ok_or("a format without an id")?.to_owned());
    }
    if ids.is_empty() { Err("`weighbridge formats --json` lists no format".into()) } else { Ok(ids) }
}

/// Every format that is compiled in has a page.
fn format_pages(formats: &Value, root: &Path) -> Outcome<Faults> {
    let mut faults = Faults::new();
    for id in format_ids(formats)? {
        let page = format!("docs/formats/{id}.md");
        if !root.join(&page).is_file() {
            faults.push(format!("{page}: the format {id} has no page"));
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xtask-tidy-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_good_file_has_no_fault() {
        let word = concat!("un", "safe");
        let good =
            format!("//! A subject.\n\n// {word} {{ }} in a comment\nfn f() {{ let x = \"safe\"; }}\n");
        assert_eq!(text_rules("crates/a/src/lib.rs", &good), Faults::new());
    }

    #[test]
    fn long_files_are_told_and_their_tests_are_not_counted() {
        let long = format!("//! x\n{}", "\n".repeat(MOST_LINES));
        assert_eq!(length("crates/a/src/b.rs", &long).len(), 1);
        assert_eq!(length("tests/b.rs", &long).len(), 0);
        assert_eq!(length("crates/a/src/b/tests.rs", &long).len(), 0);
        let tested = format!("//! x\n\n#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(MOST_LINES));
        assert_eq!(length("crates/a/src/b.rs", &tested).len(), 0);
    }

    #[test]
    fn a_file_without_a_head_is_told() {
        assert_eq!(head("a.rs", "fn f() {}\n"), ["a.rs:1: does not begin with a `//!` doc"]);
    }

    #[test]
    fn unfinished_code_is_told() {
        for name in MACROS {
            let text = format!("//! x\nfn f() {{ {name}() }}\n");
            assert_eq!(macros("a.rs", &text).len(), 1, "{name}");
            let comment = format!("//! x\n// {name}\n");
            assert_eq!(macros("a.rs", &comment).len(), 0, "{name}");
            let longer = format!("//! x\nfn f() {{ my_{name}() }}\n");
            assert_eq!(macros("a.rs", &longer).len(), 0, "{name}");
        }
    }

    #[test]
    fn unsafe_code_is_told_outside_its_files() {
        let word = concat!("un", "safe");
        for code in [
            format!("let x = {word} {{ 1 }};"),
            format!("{word} impl Send for X {{}}"),
            format!("#![allow({word}_code)]"),
        ] {
            let text = format!("//! x\n{code}\n");
            assert_eq!(unsafe_code("crates/a/src/b.rs", &text).len(), 1, "{code}");
        }
        let (listed, count, _) = UNSAFE[0];
        let blocks =
            |n: usize| format!("//! x\n#![allow({word}_code)]\n{}", format!("{word} {{ 1 }};\n").repeat(n));
        assert_eq!(unsafe_code(listed, &blocks(count)).len(), 0);
        assert_eq!(unsafe_code(listed, &blocks(count + 1)).len(), 1);
        assert_eq!(unsafe_code("a.rs", "let s = \"an unsafe pickle\";").len(), 0);
    }

    #[test]
    fn forbidden_words_are_told_in_text_and_in_binaries() {
        for (word, _) in WORDS {
            let line = format!("one\nsee {word} here\n");
            assert!(words("README.md", &line)[0].starts_with("README.md:2: "), "{word}");
            assert_eq!(words("Cargo.lock", &line).len(), 0);
        }
        let mut bytes = vec![0xff, 0xfe];
        bytes.extend(WORDS[0].0.as_bytes());
        assert_eq!(binary_words("x.pt", &bytes).len(), 1);
        assert_eq!(binary_words("x.pt", &[0xff; 40]).len(), 0);
    }

    #[test]
    fn broken_links_are_told() {
        let folder = folder("links");
        fs::write(folder.join("there.md"), "").unwrap();
        let text =
            "[a](there.md#x) [b](gone.md)\n[c](https://example.com/x) [d](#here)\n```\n[e](no.md)\n```\n";
        assert_eq!(links("x.md", text, &folder), ["x.md:1: a link to gone.md, which is not there"]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn golden_folders_need_a_script_files_and_dumps() {
        let folder = folder("golden");
        assert_eq!(golden(&folder).unwrap().len(), 2);
        fs::write(folder.join("make.py"), "").unwrap();
        fs::write(folder.join("a.pt"), "").unwrap();
        let told = golden(&folder).unwrap().join("\n");
        assert!(told.contains("a.pt has no dump") && told.contains("no golden file with a dump"), "{told}");
        fs::write(folder.join("a.pt.json"), "{}").unwrap();
        assert_eq!(golden(&folder).unwrap(), Faults::new());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn formats_need_a_page_each() {
        let folder = folder("pages");
        fs::create_dir_all(folder.join("docs/formats")).unwrap();
        fs::write(folder.join("docs/formats/torch.md"), "").unwrap();
        let formats =
            json!([{"id": "torch"}, {"id": "gguf", "compiled": false}, {"id": "pickle", "compiled": true}]);
        assert_eq!(
            format_pages(&formats, &folder).unwrap(),
            ["docs/formats/pickle.md: the format pickle has no page"]
        );
        assert!(format_pages(&json!([]), &folder).is_err());
        assert!(format_pages(&json!({"x": 1}), &folder).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
