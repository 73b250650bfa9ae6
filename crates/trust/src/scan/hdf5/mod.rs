//! HDF5 files (Keras' .h5 and .weights.h5, PyTables, pandas): what they refer to, what they declare, and what is in them.
//!
//! The walk goes from the root group over every object once, reads object headers and attributes, and no element of a
//! dataset but those that may be pickles. What it reads is bounded (`file`), so a file that leads in circles or claims
//! much ends early, with a finding that says so.

mod file;
mod group;
mod header;
mod heap;
mod object;
mod tree;
mod value;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use weighbridge_formats::{Error, ErrorKind, Result, Source, words};

use super::keras;
use super::report::{Severity, Verdict};
use super::subject::{Role, Sink, Subject};
use file::{Cursor, File};
use group::Target;
use header::{Message, kind};
use heap::GlobalHeap;
use object::{Dataset, Layout};
use value::{Attribute, Class};

/// The most objects that are looked at.
const MOST_OBJECTS: usize = 100_000;
/// The longest path of an object that is kept; the beginning of longer ones is left out.
const MOST_PATH: usize = 200;
/// The most faults of objects that are findings of their own.
const MOST_FAULTS: usize = 20;
/// What deflate makes of zeros at best, and a little more.
const MOST_RATIO: u64 = 1100;
/// Declared bytes below which a dataset that is not stored is nothing to speak of.
const SMALL: u64 = 16 << 20;
/// How much of a file is searched for global heaps.
const MOST_SEARCHED: u64 = 512 << 20;
/// The most values of global heaps that are looked at as pickles.
const MOST_VALUES: usize = 10_000;
/// Filters that the library has, and registered ones that only compress.
const KNOWN_FILTERS: &[u16] = &[
    1, 2, 3, 4, 5, 6, 305, 307, 32000, 32001, 32004, 32008, 32013, 32015, 32019, 32024, 32026, 32028, 32029,
    32030,
];

/// Whether a subject has HDF5's mark, behind a user block too.
pub(crate) fn fits(subject: &Subject<'_>) -> bool {
    subject.head.starts_with(file::SIGNATURE)
        || (subject.has_extension(&["h5", "hdf5", "hdf", "keras", "he5"]) || subject.head.len() >= 512)
            && file::signature(subject.source).is_some()
}

/// Looks at an HDF5 file.
pub(crate) fn inspect(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let file = File::open(subject.source)?;
    let mut walk = Walk {
        subject,
        sink,
        root: file.root,
        file,
        heap: GlobalHeap::default(),
        seen: HashSet::new(),
        queue: VecDeque::new(),
        pytables: false,
        declared: 0,
        heaps_matter: false,
        faults: 0,
    };
    walk.run()
}

struct Walk<'a, 's, 'k> {
    subject: &'a Subject<'s>,
    sink: &'a mut Sink<'k>,
    file: File<'s>,
    root: u64,
    heap: GlobalHeap,
    seen: HashSet<u64>,
    queue: VecDeque<(u64, String)>,
    /// Whether PyTables wrote it, which unpickles attributes.
    pytables: bool,
    /// The bytes that the datasets declare together.
    declared: u64,
    /// Whether a dataset has values in global heaps that may be pickles.
    heaps_matter: bool,
    faults: usize,
}

impl Walk<'_, '_, '_> {
    fn run(&mut self) -> Result<()> {
        self.queue.push_back((self.root, String::new()));
        while let Some((address, path)) = self.queue.pop_front() {
            if !self.seen.insert(address) {
                continue;
            }
            if self.seen.len() > MOST_OBJECTS {
                return Err(Error::limit(format!("more than {MOST_OBJECTS} objects")));
            }
            if let Err(error) = self.object(address, &path) {
                // What is spent stays spent: nothing behind it could be read either.
                if error.kind() == ErrorKind::LimitExceeded && error.offset().is_none() {
                    return Err(error);
                }
                self.fault(&path, &error);
            }
        }
        let length = self.subject.source.len();
        if self.declared > length.saturating_mul(MOST_RATIO).max(SMALL) {
            let (all, there) = (words::size(self.declared), words::size(length));
            let what = format!("its datasets declare {all} together, and the file has {there}");
            self.sink.finding(self.subject.finding("hdf5-lies", Verdict::Dangerous, what));
        }
        if self.heaps_matter { self.search_heaps() } else { Ok(()) }
    }

    fn fault(&mut self, path: &str, error: &Error) {
        self.faults += 1;
        if self.faults > MOST_FAULTS {
            return;
        }
        let what = format!("the HDF5 object {:?} cannot be read: {}", shown(path), error.message());
        let mut finding = self.subject.finding("unreadable", Verdict::Unknown, what);
        finding.place.offset = error.offset();
        self.sink.finding(finding);
    }

    fn object(&mut self, address: u64, path: &str) -> Result<()> {
        let messages = header::messages(&mut self.file, address)?;
        // One part that cannot be read does not hide the others.
        for message in messages.iter().filter(|m| m.kind == kind::ATTRIBUTE) {
            let done = match message.shared {
                true => Err(Error::unsupported("an attribute in the file's table of shared messages")),
                false => self.attribute(path, &message.body, message.address),
            };
            self.note(path, done)?;
        }
        let done = self.dense_attributes(path, &messages);
        self.note(path, done)?;
        let links = group::links(&mut self.file, &messages);
        match links {
            Ok(links) => links.into_iter().for_each(|link| self.link(path, link)),
            Err(error) => self.note(path, Err(error))?,
        }
        if let Some(dataset) = object::dataset(&mut self.file, &mut self.heap, &messages)? {
            self.dataset(path, &dataset)?;
        }
        Ok(())
    }

    fn note(&mut self, path: &str, done: Result<()>) -> Result<()> {
        match done {
            Err(error) if error.kind() == ErrorKind::LimitExceeded && error.offset().is_none() => Err(error),
            Err(error) => {
                self.fault(path, &error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn dense_attributes(&mut self, path: &str, messages: &[Message]) -> Result<()> {
        for message in messages.iter().filter(|m| m.kind == kind::ATTRIBUTE_INFO) {
            let mut c = Cursor::new(&message.body, message.address);
            c.skip(1)?;
            let flags = c.u8()?;
            c.skip(if flags & 1 != 0 { 2 } else { 0 })?;
            let (heap, names) = (c.number(self.file.offset_size)?, c.number(self.file.offset_size)?);
            if self.file.is_undefined(heap) {
                continue;
            }
            let records = tree::records(&mut self.file, names)?;
            let mut heap = heap::FractalHeap::open(&mut self.file, heap)?;
            for record in records {
                let done = match record.get(..8) {
                    Some(id) => heap
                        .object(&mut self.file, id)
                        .and_then(|(address, body)| self.attribute(path, &body, address)),
                    None => Err(Error::malformed("an attribute's record is too short")),
                };
                self.note(path, done)?;
            }
        }
        Ok(())
    }

    fn link(&mut self, path: &str, link: group::Link) {
        let below = join(path, &link.name);
        match link.target {
            // One more than are looked at, so that there being too many is noticed.
            Target::Hard(address) if !self.seen.contains(&address) && self.queue.len() <= MOST_OBJECTS => {
                self.queue.push_back((address, below));
            }
            Target::Hard(_) => {}
            Target::Soft(_) => {}
            Target::External { file, path: inside } => {
                let what = format!("the link {:?} leads to {inside:?} in the file {file:?}", shown(&below));
                self.external(what, &file);
            }
            Target::Other(number) => {
                let what = format!("the link {:?} is of the unknown kind {number}", shown(&below));
                self.sink.finding(self.subject.finding("hdf5-external", Verdict::Unknown, what));
            }
        }
    }

    /// A reference to another file. Opening the link or dataset opens that file, wherever it is.
    fn external(&mut self, what: String, file: &str) {
        let mut finding = self.subject.finding("hdf5-external", Verdict::Dangerous, what);
        finding.arguments = Some(file.to_owned());
        self.sink.finding(finding);
    }

    fn attribute(&mut self, path: &str, body: &[u8], address: u64) -> Result<()> {
        let attribute = value::attribute(&mut self.file, &mut self.heap, body, address)?;
        let root = path.is_empty();
        if root && attribute.name == "PYTABLES_FORMAT_VERSION" {
            self.pytables = true;
            self.sink.kind("pytables");
        }
        let text = attribute.texts.first().map(Vec::as_slice).unwrap_or_default();
        match attribute.name.as_str() {
            "keras_version" => self.sink.kind("keras"),
            "model_config" | "training_config" => {
                self.sink.kind("keras");
                let place = self.subject.inside(format!("attribute {}", join(path, &attribute.name)));
                return keras::inspect_text(trim_nuls(text), &place, self.sink);
            }
            "PSEUDOATOM" if text.starts_with(b"object") => {
                self.heaps_matter = true;
                let what =
                    format!("{:?} is an array of Python objects: PyTables unpickles each row", shown(path));
                let finding = self.subject.finding("pickle-unknown-class", Verdict::Clean, what);
                self.sink.finding(finding.severity(Severity::Info));
            }
            _ => {}
        }
        self.pickles(path, &attribute);
        Ok(())
    }

    /// Attributes that are pickles: PyTables keeps what is no NumPy value so.
    fn pickles(&mut self, path: &str, attribute: &Attribute) {
        for (i, text) in attribute.texts.iter().enumerate() {
            let text = if attribute.class == Class::Text { trim_nuls(text) } else { text };
            if !may_be_pickle(text) {
                continue;
            }
            let role = if self.pytables && text.ends_with(b".") { Role::Pickle } else { Role::Guess };
            let mut name = format!("attribute {}", join(path, &attribute.name));
            if attribute.texts.len() > 1 {
                name = format!("{name} [{i}]");
            }
            let place = self.subject.inside(name.clone());
            if !self.sink.nested_as(role, name, Source::from_bytes(text), place) {
                break;
            }
        }
    }

    fn dataset(&mut self, path: &str, dataset: &Dataset) -> Result<()> {
        for name in &dataset.external {
            let what = format!("the bytes of {:?} are in the file {name:?}", shown(path));
            self.external(what, name);
        }
        if let Layout::Virtual(sources) = &dataset.layout {
            let mut names: Vec<_> = sources.iter().map(|(file, _)| file).filter(|f| *f != ".").collect();
            names.sort();
            names.dedup();
            for name in names {
                let what = format!("{:?} is put together from datasets of the file {name:?}", shown(path));
                self.external(what, name);
            }
        }
        for filter in dataset.filters.iter().filter(|f| !KNOWN_FILTERS.contains(f)) {
            let what = format!("{:?} needs the filter {filter}, which is no known compression", shown(path));
            let mut finding = self.subject.finding("hdf5-external", Verdict::Unknown, what);
            finding.why = "HDF5 loads a library from the machine's plugin folder to read it".into();
            self.sink.finding(finding.severity(Severity::Low).callable(format!("filter {filter}")));
        }
        self.sizes(path, dataset);
        self.values(path, dataset)
    }

    /// What a dataset declares against what is stored.
    fn sizes(&mut self, path: &str, dataset: &Dataset) {
        let length = self.subject.source.len();
        let size = u64::from(dataset.datatype.size);
        let bytes = value::elements(&dataset.dims).and_then(|n| n.checked_mul(size));
        let shape = shape_text(&dataset.dims);
        let Some(bytes) = bytes else {
            return self
                .lie(format!("{:?} declares {shape} elements of {size} bytes, past 64 bits", shown(path)));
        };
        let declared = words::size(bytes);
        match dataset.layout {
            Layout::Compact(stored) if stored < bytes => {
                self.lie(format!(
                    "{:?} declares {shape}, {declared}, and {stored} bytes are stored",
                    shown(path)
                ));
            }
            Layout::Contiguous(Some(address), stored) if dataset.external.is_empty() => {
                let stored = if stored == u64::MAX { bytes } else { stored };
                let end = self.file.base.saturating_add(address).saturating_add(stored);
                if stored < bytes {
                    self.lie(format!(
                        "{:?} declares {shape}, {declared}, and {stored} bytes are stored",
                        shown(path)
                    ));
                } else if end > length {
                    let what =
                        format!("the bytes of {:?} end at {end}, and the file at {length}", shown(path));
                    self.lie(what);
                }
                return;
            }
            _ => {}
        }
        // What no byte is stored of is made up when it is read; so is what a filter unpacks.
        let most = if dataset.filters.is_empty() { length } else { length.saturating_mul(MOST_RATIO) };
        if bytes > most.max(SMALL) && dataset.external.is_empty() {
            let there = words::size(length);
            let text = format!("{:?} declares {shape}, {declared}, in a file of {there}", shown(path));
            return self.lie(text);
        }
        self.declared = self.declared.saturating_add(bytes);
    }

    fn lie(&mut self, what: String) {
        self.sink.finding(self.subject.finding("hdf5-lies", Verdict::Dangerous, what));
    }

    /// Elements that may be pickles: opaque ones, bytes, sequences of bytes.
    fn values(&mut self, path: &str, dataset: &Dataset) -> Result<()> {
        let kind = dataset.datatype;
        match kind.class {
            Class::Sequence | Class::VariableText => self.heaps_matter |= kind.base == 1,
            Class::Opaque | Class::Text => {}
            Class::Plain if kind.size == 1 => {}
            _ => return Ok(()),
        }
        let packed = matches!(dataset.layout, Layout::Chunked) && kind.class == Class::Opaque;
        if packed {
            let what = format!("{:?} has opaque elements in chunks, which were not looked at", shown(path));
            self.sink.finding(self.subject.finding("unreadable", Verdict::Unknown, what));
        }
        let Layout::Contiguous(Some(address), len) = dataset.layout else { return Ok(()) };
        if !dataset.external.is_empty() || matches!(kind.class, Class::Sequence | Class::VariableText) {
            return Ok(());
        }
        let at = self.file.base.saturating_add(address);
        let rest = self.subject.source.len().saturating_sub(at);
        let len = len.min(rest);
        let mut head = vec![0; len.min(64) as usize];
        self.file.source().reader().read_at(at, &mut head)?;
        if may_be_pickle(&head) {
            let slice = self.file.source().slice(at, len)?;
            let place = self.subject.inside(format!("dataset {}", shown(path)));
            let source = Source::from_reader(Arc::new(slice));
            self.sink.nested_as(Role::Guess, shown(path), source, place);
        }
        Ok(())
    }

    /// Looks for global heaps in the whole file, since the chunks that refer to them may be packed, and at what in them
    /// begins as a pickle does.
    fn search_heaps(&mut self) -> Result<()> {
        const STEP: u64 = 1 << 20;
        let source = self.file.source();
        let mut found = 0;
        let mut at = 0;
        let end = source.len().min(MOST_SEARCHED);
        let mut window = vec![0; STEP.min(end) as usize];
        let mut heaps = Vec::new();
        while at < end {
            let len = STEP.min(end - at);
            let Some(part) = window.get_mut(..len as usize) else { break };
            source.reader().read_at(at, part)?;
            let marks = part.chunks(8).enumerate().filter(|(_, c)| c.starts_with(b"GCOL\x01\0\0\0"));
            heaps.extend(marks.map(|(i, _)| at + 8 * i as u64).take(MOST_VALUES));
            if heaps.len() > MOST_VALUES {
                break;
            }
            at += len;
        }
        for heap in heaps {
            let address = heap.saturating_sub(self.file.base);
            // A mark among numbers is no heap, and no fault.
            for (index, start, len) in self.heap.list(&mut self.file, address).unwrap_or_default().to_vec() {
                let mut head = vec![0; len.min(64) as usize];
                let start = self.file.base.saturating_add(start);
                if source.reader().read_at(start, &mut head).is_err() || !may_be_pickle(&head) {
                    continue;
                }
                found += 1;
                if found > MOST_VALUES {
                    return Err(Error::limit(format!("more than {MOST_VALUES} values that may be pickles")));
                }
                let Ok(slice) = source.slice(start, len) else { continue };
                let name = format!("heap {heap} object {index}");
                let place = self.subject.inside(name.clone());
                let role = if self.pytables { Role::Pickle } else { Role::Guess };
                if !self.sink.nested_as(role, name, Source::from_reader(Arc::new(slice)), place) {
                    return Ok(());
                }
            }
        }
        if source.len() > end || at < end {
            let what = format!("only the first {} were searched for variable-length values", words::size(at));
            self.sink.finding(self.subject.finding("unreadable", Verdict::Unknown, what));
        }
        Ok(())
    }
}

/// Without the NULs that fill a text of fixed length.
fn trim_nuls(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
    text.get(..end).unwrap_or_default()
}

/// Whether bytes may be a pickle that does something: they have the mark of protocols 2 and up, or name something as the
/// older ones do, or are no text.
fn may_be_pickle(text: &[u8]) -> bool {
    if matches!(text, [0x80, 0..=5, ..]) {
        return true;
    }
    let plain = |b: &u8| b.is_ascii_graphic() || b.is_ascii_whitespace() || *b >= 0x80;
    let lines = text.split(|&b| b == b'\n').collect::<Vec<_>>();
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || b"_.".contains(b);
    // GLOBAL and INST: an opcode before a module's name, the end of the line, and a line that is a name.
    let named = lines.windows(2).any(|w| {
        let [first, second] = w else { return false };
        let run = first.iter().rev().take_while(|&b| is_name(b)).count();
        let module = first.get(first.len() - run..).unwrap_or_default();
        let before = module.split_last().map(|(_, rest)| rest).unwrap_or_default();
        !second.is_empty() && second.iter().all(is_name) && before.iter().any(|b| b"ci".contains(b))
    });
    named || text.ends_with(b".") && text.len() > 2 && !text.iter().all(plain)
}

/// A path below another, its beginning left out where it is long.
fn join(path: &str, name: &str) -> String {
    let joined = format!("{path}/{name}");
    if joined.len() <= MOST_PATH {
        return joined;
    }
    let from =
        (joined.len() - MOST_PATH..=joined.len()).find(|&i| joined.is_char_boundary(i)).unwrap_or_default();
    format!("…{}", joined.get(from..).unwrap_or_default())
}

/// A path as it is shown.
fn shown(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// A shape, cut where it is long.
fn shape_text(dims: &[u64]) -> String {
    let text = dims.iter().take(8).map(u64::to_string).collect::<Vec<_>>().join("×");
    if dims.is_empty() { "one".into() } else { text + if dims.len() > 8 { "×…" } else { "" } }
}

#[cfg(test)]
mod tests;
