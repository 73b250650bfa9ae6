//! Every pair of formats over the golden files, there and back: the matrix that `cargo xtask roundtrip` prints.
//!
//! roundtrip GOLDEN [--formats A,B,…]
//!
//! For an ordered pair (A, B), each golden file of A is written as B, read, written as A again, read, and held against
//! the first reading: tensors by name, dtype, shape and bytes; the values around them; metadata; what shares storage;
//! which are parameters. A file's outcome is `equal`; or `equal, with a named loss`, if everything that differs was
//! told in a note of a writer; or `refused`, with the writer's reason. Anything else is a fault, and so is a format
//! without golden files. Formats come from the registry, so a new one appears by itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use weighbridge_formats::write::{ExecuteOptions, execute};
use weighbridge_formats::{
    Archive, Error, ErrorKind, NoteKind, ReadOptions, Registry, Value, ValueId, Values, ValuesPolicy,
    WriteOptions,
};

/// Notes of a pair, or reasons for refusing, that are shown with this many example files at most.
const EXAMPLES: usize = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (golden, only) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [golden] => (golden, None),
        [golden, "--formats", list] => (golden, Some(list)),
        _ => {
            eprintln!("roundtrip GOLDEN [--formats A,B,…]");
            return ExitCode::FAILURE;
        }
    };
    match run(Path::new(golden), only) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn run(golden: &Path, only: Option<&str>) -> Result<(), String> {
    let registry = Registry::builtin();
    let formats = chosen(&registry, only)?;
    let mut matrix = Matrix::default();
    for &from in &formats {
        let files = files(&golden.join(from))?;
        if files.is_empty() {
            matrix.faults.push(format!("{from}: tests/golden/{from} holds no file with a dump"));
        }
        for to in &formats {
            for path in &files {
                let shown = path.strip_prefix(golden).unwrap_or(path).display().to_string();
                let outcome = there_and_back(&registry, from, to, path);
                matrix.add(from, to, &shown, outcome);
            }
        }
    }
    print!("{}", matrix.text(&formats));
    let done: usize = matrix.cells.values().map(Cell::files).sum();
    if matrix.faults.is_empty() && done > 0 {
        println!("roundtrip: {done} files there and back, none changed without a word");
        return Ok(());
    }
    let faults = matrix.faults.join("\n");
    Err(if done == 0 { format!("no file was converted\n{faults}") } else { faults })
}

/// The ids of the formats that are compiled in and read, or those of them that the caller names.
fn chosen(registry: &Registry, only: Option<&str>) -> Result<Vec<&'static str>, String> {
    let known: Vec<_> =
        registry.formats().iter().filter(|f| f.compiled && f.reads()).map(|f| f.info.id).collect();
    let Some(only) = only else { return Ok(known) };
    only.split(',')
        .map(|name| {
            let found = known.iter().find(|id| **id == name.trim());
            found
                .copied()
                .ok_or_else(|| format!("no format `{name}` is compiled in; there are {}", known.join(", ")))
        })
        .collect()
}

/// The files of a golden folder that have a dump beside them; none if there is no such folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut pending = vec![folder.to_path_buf()];
    let mut found = BTreeSet::new();
    while let Some(folder) = pending.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for entry in entries {
            let path = entry.map_err(|e| e.to_string())?.path();
            if path.is_dir() {
                pending.push(path);
            } else {
                found.insert(path);
            }
        }
    }
    let dumped = |path: &&PathBuf| found.contains(Path::new(&format!("{}.json", path.display())));
    Ok(found.iter().filter(dumped).cloned().collect())
}

// --- One file, one pair ------------------------------------------------------------------------------

enum Outcome {
    Equal,
    /// What the writers said of it.
    Loss(String),
    Refused(String),
    Fault(String),
}

fn there_and_back(registry: &Registry, from: &str, to: &str, path: &Path) -> Outcome {
    let first = match open(registry, from, path) {
        Ok(archive) => archive,
        // A golden file is there to be read.
        Err(error) => return Outcome::Fault(format!("not read: {error}")),
    };
    let attempt = || -> Result<Outcome, Stop> {
        let folder = tempfile::tempdir().map_err(|e| Stop::Fault(e.to_string()))?;
        let (there, mut notes) = write(registry, to, &*first, folder.path(), "there")?;
        let second =
            open(registry, to, &there).map_err(|e| Stop::Fault(format!("written as {to}, not read: {e}")))?;
        let (back, more) = write(registry, from, &*second, folder.path(), "back")?;
        notes.extend(more);
        let third = open(registry, from, &back)
            .map_err(|e| Stop::Fault(format!("written as {from}, not read: {e}")))?;
        Ok(judge(&*first, &*third, &notes))
    };
    match attempt() {
        Ok(outcome) => outcome,
        Err(Stop::Refused(why)) => Outcome::Refused(why),
        Err(Stop::Fault(why)) => Outcome::Fault(why),
    }
}

enum Stop {
    Refused(String),
    Fault(String),
}

/// Opens a file as a user would, and insists on what its format is found to be.
fn open(registry: &Registry, format: &str, path: &Path) -> Result<Box<dyn Archive>, Error> {
    let archive = registry.open_path(path, &ReadOptions::default())?;
    if archive.format() == format {
        Ok(archive)
    } else {
        let what = format!("this is read as {}, not as {format}", archive.format());
        Err(Error::new(ErrorKind::Mismatch, what).with_path(path))
    }
}

/// Writes an archive, without loss if that is possible; returns the file that stands for it and what was said.
fn write(
    registry: &Registry,
    format: &str,
    archive: &dyn Archive,
    folder: &Path,
    stem: &str,
) -> Result<(PathBuf, Vec<(NoteKind, String)>), Stop> {
    let serializer = registry.serializer(format).map_err(|e| Stop::Refused(e.message().to_owned()))?;
    let extension = serializer.info().extensions.first().copied().unwrap_or("bin");
    let mut options = WriteOptions::default();
    options.file_name = format!("{stem}.{extension}");
    let mut plan = serializer.plan(archive, &options);
    // Then with leave to lose what the format cannot hold; then without the values around the tensors, which may be
    // what is not written, say the classes of a whole module.
    for values in [ValuesPolicy::Keep, ValuesPolicy::Drop] {
        let refused = |e: &Error| matches!(e.kind(), ErrorKind::InvalidOptions | ErrorKind::UnsafeContent);
        if plan.as_ref().is_err_and(refused) {
            options.allow_loss = true;
            options.values = values;
            plan = serializer.plan(archive, &options);
        }
    }
    let plan = plan.map_err(|error| match error.kind() {
        ErrorKind::InvalidOptions | ErrorKind::Unsupported | ErrorKind::UnsafeContent => {
            Stop::Refused(format!("as {format}: {}: {}", error.kind().as_str(), error.message()))
        }
        _ => Stop::Fault(format!("as {format}: {error}")),
    })?;
    let notes = plan.notes.iter().map(|n| (n.kind, n.text.clone())).collect();
    let mut how = ExecuteOptions::default();
    how.fsync = false;
    let written = execute(plan, folder, &how).map_err(|e| Stop::Fault(format!("as {format}: {e}")))?;
    // A sharded set is opened by its index, which is the last.
    let file = written
        .files
        .last()
        .cloned()
        .ok_or_else(|| Stop::Fault(format!("as {format}: no file was written")))?;
    Ok((file, notes))
}

/// Holds what came back against what was there.
fn judge(first: &dyn Archive, third: &dyn Archive, notes: &[(NoteKind, String)]) -> Outcome {
    let told: Vec<&str> = notes
        .iter()
        .filter(|(kind, _)| matches!(kind, NoteKind::Changed | NoteKind::Lost))
        .map(|(_, text)| text.as_str())
        .collect();
    let lost = notes.iter().any(|(kind, _)| *kind == NoteKind::Lost);
    let mut silent = match tensors(first, third, &told) {
        Ok(silent) => silent,
        Err(why) => return Outcome::Fault(why),
    };
    let every: Vec<&str> = notes.iter().map(|(_, text)| text.as_str()).collect();
    let mut changed = Vec::new();
    // What changed, and the words of which its note must use one.
    let mut found = |what: &'static str, words: &[&str]| {
        changed.push(what);
        if !every.iter().any(|text| words.iter().any(|word| text.contains(word))) {
            silent.push(format!("changed without a word: {what}"));
        }
    };
    if described(first) != described(third) {
        found(
            "the values around the tensors",
            &["values", "value that is no tensor", "tensors are left out", "everything but the tensors"],
        );
    }
    // A writer may add a line; and the line `format` names the library that a file is made for, so a writer sets
    // its own.
    let kept = metadata(third);
    if metadata(first).iter().any(|(key, text)| *key != "format" && kept.get(key) != Some(text)) {
        found("metadata", &["metadata"]);
    }
    if shared(first) != shared(third) {
        found("which tensors share storage", &["shared", "share storage", "share a storage"]);
    }
    let flags = [flags(first), flags(third)];
    if flags[0].iter().any(|(name, flag)| flags[1].get(name).is_some_and(|other| other != flag)) {
        found("which tensors are parameters", &["requires_grad"]);
    }
    if !silent.is_empty() {
        return Outcome::Fault(silent.join("; "));
    }
    if changed.is_empty() && !lost {
        return Outcome::Equal;
    }
    let what = if changed.is_empty() { String::new() } else { format!("{}: ", changed.join(", ")) };
    Outcome::Loss(format!("{what}{}", told.join("; ")))
}

/// Compares tensors by name. An error for one that differs; the texts of those that are gone without a word.
fn tensors(first: &dyn Archive, third: &dyn Archive, told: &[&str]) -> Result<Vec<String>, String> {
    let mut silent = Vec::new();
    let index: HashMap<&str, usize> =
        third.tensors().iter().enumerate().map(|(at, t)| (t.name(), at)).collect();
    for (at, tensor) in first.tensors().iter().enumerate() {
        let name = tensor.name();
        let Some(&other) = index.get(name) else {
            if !told.iter().any(|text| text.contains(name)) {
                silent.push(format!("the tensor {name} is gone without a word"));
            }
            continue;
        };
        let found = &third.tensors()[other];
        if tensor.dtype() != found.dtype() || tensor.shape() != found.shape() {
            return Err(format!("{name}: came back as {} {:?}", found.dtype().name(), found.shape()));
        }
        let bytes = |archive: &dyn Archive, at: usize| -> Result<Vec<u8>, String> {
            archive.data(at).and_then(|data| data.read_all()).map_err(|e| format!("{name}: {e}"))
        };
        if bytes(first, at)? != bytes(third, other)? {
            return Err(format!("{name}: came back with other bytes"));
        }
    }
    let known: BTreeSet<&str> = first.tensors().iter().map(|t| t.name()).collect();
    for tensor in third.tensors() {
        if !known.contains(tensor.name()) {
            return Err(format!("{}: came back and was not there", tensor.name()));
        }
    }
    Ok(silent)
}

fn metadata(archive: &dyn Archive) -> BTreeMap<&str, &str> {
    archive.metadata().iter().map(|(key, text)| (key.as_str(), text.as_str())).collect()
}

/// The groups of names that share a storage, in order of their first name.
fn shared(archive: &dyn Archive) -> BTreeSet<Vec<&str>> {
    let mut groups: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for tensor in archive.tensors() {
        if let Some(view) = tensor.view()
            && tensor.elements() > 0
        {
            groups.entry(u64::from(view.storage)).or_default().push(tensor.name());
        }
    }
    groups
        .into_values()
        .filter(|names| names.len() > 1)
        .map(|mut names| {
            names.sort_unstable();
            names
        })
        .collect()
}

fn flags(archive: &dyn Archive) -> BTreeMap<&str, (bool, bool)> {
    archive.tensors().iter().map(|t| (t.name(), (t.requires_grad(), t.is_parameter()))).collect()
}

/// The values as a list of lines, one a container in the order of reaching it, so that graphs with shared parts and
/// cycles compare. A flat mapping of the tensors by their own names says no more than the tensors do: it has no lines.
fn described(archive: &dyn Archive) -> Vec<String> {
    let Some((values, root)) = archive.values().and_then(|values| Some((values, values.root()?))) else {
        return Vec::new();
    };
    if is_plain(archive, values, root) {
        return Vec::new();
    }
    let mut numbers: HashMap<ValueId, usize> = HashMap::from([(root, 0)]);
    let mut queue = vec![root];
    let mut lines = Vec::new();
    while lines.len() < queue.len() {
        let id = queue[lines.len()];
        let value = values.get(id);
        let mut line = kind(value);
        if is_container(value) {
            values.parts(id, |part| {
                let inner = values.get(part);
                line.push(' ');
                if is_container(inner) {
                    let next = queue.len();
                    let number = *numbers.entry(part).or_insert_with(|| {
                        queue.push(part);
                        next
                    });
                    let _ = write!(line, "#{number}");
                } else {
                    line.push_str(&leaf(archive, inner));
                }
            });
        } else {
            line = leaf(archive, value);
        }
        lines.push(line);
    }
    lines
}

fn is_plain(archive: &dyn Archive, values: &Values, root: ValueId) -> bool {
    let Value::Dict(dict) = values.get(root) else { return false };
    let names_itself = |&(key, value): &(ValueId, ValueId)| match (values.get(key), values.get(value)) {
        (Value::Str(key), Value::Tensor(at)) => {
            archive.tensors().get(*at as usize).is_some_and(|tensor| tensor.name() == &**key)
        }
        _ => false,
    };
    dict.attributes.is_none() && dict.entries.iter().all(names_itself)
}

fn is_container(value: &Value) -> bool {
    matches!(
        value,
        Value::List(_)
            | Value::Tuple(_)
            | Value::Set(_)
            | Value::FrozenSet(_)
            | Value::Dict(_)
            | Value::Persistent(_)
            | Value::Object(_)
    )
}

/// What a container is, beside its parts: which parts an object or mapping has is told, since they come in one row.
fn kind(value: &Value) -> String {
    match value {
        Value::List(_) => "list".into(),
        Value::Tuple(_) => "tuple".into(),
        Value::Set(_) => "set".into(),
        Value::FrozenSet(_) => "frozenset".into(),
        Value::Dict(dict) => format!("{:?} attributes:{}", dict.kind, dict.attributes.is_some()),
        Value::Persistent(_) => "persistent".into(),
        Value::Object(object) => format!(
            "object {:?} kwargs:{} state:{} items:{} entries:{}",
            object.construct,
            object.kwargs.is_some(),
            object.state.is_some(),
            object.items.len(),
            object.entries.len()
        ),
        _ => "value".into(),
    }
}

fn leaf(archive: &dyn Archive, value: &Value) -> String {
    match value {
        Value::Tensor(at) => format!("tensor {:?}", archive.tensors().get(*at as usize).map(|t| t.name())),
        // A NaN is not equal to itself, its bits are.
        Value::Float(float) => format!("float {:016x}", float.to_bits()),
        Value::Complex(real, imaginary) => {
            format!("complex {:016x} {:016x}", real.to_bits(), imaginary.to_bits())
        }
        other => format!("{other:?}"),
    }
}

// --- The matrix --------------------------------------------------------------------------------------

#[derive(Default)]
struct Cell {
    equal: usize,
    /// The texts of losses and refusals with the files that they are about.
    losses: BTreeMap<String, Vec<String>>,
    refusals: BTreeMap<String, Vec<String>>,
    faults: usize,
}

impl Cell {
    fn count(texts: &BTreeMap<String, Vec<String>>) -> usize {
        texts.values().map(Vec::len).sum()
    }

    /// How many files were written there and back.
    fn files(&self) -> usize {
        self.equal + Self::count(&self.losses)
    }

    fn text(&self) -> String {
        let (losses, refusals) = (Self::count(&self.losses), Self::count(&self.refusals));
        let parts =
            [(self.equal, "equal"), (losses, "with loss"), (refusals, "refused"), (self.faults, "FAULTY")];
        let parts: Vec<String> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if parts.is_empty() { "no files".into() } else { parts.join(", ") }
    }
}

#[derive(Default)]
struct Matrix {
    cells: BTreeMap<(String, String), Cell>,
    faults: Vec<String>,
}

impl Matrix {
    fn add(&mut self, from: &str, to: &str, file: &str, outcome: Outcome) {
        let cell = self.cells.entry((from.to_owned(), to.to_owned())).or_default();
        match outcome {
            Outcome::Equal => cell.equal += 1,
            Outcome::Loss(text) => cell.losses.entry(text).or_default().push(file.to_owned()),
            Outcome::Refused(text) => cell.refusals.entry(text).or_default().push(file.to_owned()),
            Outcome::Fault(text) => {
                cell.faults += 1;
                self.faults.push(format!("{file} to {to} and back: {text}"));
            }
        }
    }

    fn text(&self, formats: &[&str]) -> String {
        let cell = |from: &str, to: &str| self.cells.get(&(from.to_owned(), to.to_owned()));
        let shown = |from: &str, to: &str| cell(from, to).map_or_else(|| "no files".to_owned(), Cell::text);
        let width =
            |to: &&str| formats.iter().map(|from| shown(from, to).len()).max().unwrap_or(0).max(to.len());
        let first = formats.iter().map(|f| f.len()).max().unwrap_or(0).max("from \\ to".len());
        let mut out = format!("{:first$}", "from \\ to");
        for to in formats {
            let _ = write!(out, "  {to:0$}", width(to));
        }
        for from in formats {
            let _ = write!(out, "\n{from:first$}");
            for to in formats {
                let _ = write!(out, "  {:1$}", shown(from, to), width(to));
            }
        }
        out.push('\n');
        for ((from, to), cell) in &self.cells {
            for (word, texts) in [("equal, with a named loss", &cell.losses), ("refused", &cell.refusals)] {
                for (text, files) in texts {
                    let few: Vec<&str> = files.iter().take(EXAMPLES).map(String::as_str).collect();
                    let more = files.len().saturating_sub(EXAMPLES);
                    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                    let _ = writeln!(out, "{from} to {to}: {word} ({text}): {}{more}", few.join(", "));
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge_formats::value::Dict;
    use weighbridge_formats::{DType, Data, MemoryArchive, Tensor, TensorInfo};

    fn archive<'a>(tensors: &[(&str, &'a [u8])]) -> MemoryArchive<'a> {
        let tensor = |(name, bytes): &(&str, &'a [u8])| Tensor {
            info: TensorInfo::new(*name, DType::U8, [bytes.len() as u64].as_slice()).unwrap(),
            data: Data::Borrowed(bytes),
        };
        MemoryArchive::new(tensors.iter().map(tensor)).unwrap()
    }

    fn fault(first: &dyn Archive, third: &dyn Archive, notes: &[(NoteKind, String)]) -> String {
        match judge(first, third, notes) {
            Outcome::Fault(text) => text,
            Outcome::Equal => "equal".into(),
            Outcome::Loss(text) => format!("loss: {text}"),
            Outcome::Refused(text) => format!("refused: {text}"),
        }
    }

    #[test]
    fn what_is_gone_must_be_told() {
        let (both, one) = (archive(&[("a", &[1]), ("b", &[2])]), archive(&[("a", &[1])]));
        assert_eq!(fault(&both, &both, &[]), "equal");
        assert!(fault(&both, &one, &[]).contains("b is gone without a word"));
        let note = |text: &str| [(NoteKind::Lost, text.to_owned())];
        assert!(fault(&both, &one, &note("the tensor x is left out")).contains("without a word"));
        assert_eq!(fault(&both, &one, &note("the tensor b is left out")), "loss: the tensor b is left out");
        assert!(fault(&one, &both, &note("b")).contains("was not there"));
    }

    #[test]
    fn other_bytes_and_shapes_are_faults_whatever_is_told() {
        let (first, other, longer) =
            (archive(&[("a", &[1])]), archive(&[("a", &[2])]), archive(&[("a", &[1, 1])]));
        let told = [(NoteKind::Lost, "a".to_owned())];
        assert!(fault(&first, &other, &told).contains("other bytes"));
        assert!(fault(&first, &longer, &told).contains("came back as U8 [2]"));
    }

    #[test]
    fn metadata_and_values_count() {
        let plain = || archive(&[("a", &[1])]);
        let noted = plain().with_metadata(vec![("k".into(), "v".into())]);
        assert!(fault(&noted, &plain(), &[]).contains("metadata"));
        let other = [(NoteKind::Changed, "something else is left out".to_owned())];
        assert!(fault(&noted, &plain(), &other).contains("without a word: metadata"));
        let told = [(NoteKind::Changed, "metadata is left out".to_owned())];
        assert!(fault(&noted, &plain(), &told).starts_with("loss: metadata"));

        let tree = |key: &str| {
            let mut values = Values::new();
            let key = values.push(Value::Str(key.into())).unwrap();
            let tensor = values.push(Value::Tensor(0)).unwrap();
            let dict = Dict { entries: vec![(key, tensor)], ..Dict::default() };
            let root = values.push(Value::Dict(Box::new(dict))).unwrap();
            values.set_root(root);
            plain().with_values(values)
        };
        assert_eq!(fault(&tree("a"), &plain(), &[]), "equal");
        assert!(fault(&tree("other"), &plain(), &[]).contains("the values around the tensors"));
    }

    #[test]
    fn cycles_are_described() {
        let cyclic = |twice: bool| {
            let mut values = Values::new();
            let list = values.push(Value::List(vec![])).unwrap();
            let parts = if twice { vec![list, list] } else { vec![list] };
            *values.get_mut(list) = Value::List(parts);
            values.set_root(list);
            archive(&[]).with_values(values)
        };
        assert_eq!(described(&cyclic(true)), ["list #0 #0"]);
        assert_ne!(described(&cyclic(true)), described(&cyclic(false)));
    }
}
