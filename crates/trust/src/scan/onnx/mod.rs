//! ONNX models: the files that their tensors name, and the operators that are not ONNX's.
//!
//! The walk goes over the fields of the file and reads names only. Where the reader of the format refuses a model for
//! its external data, this says which tensor and path it is.

mod operators;

use std::collections::{HashMap, HashSet};

use weighbridge_formats::source::is_plain_relative;
use weighbridge_formats::{Error, ErrorKind, Result, Source};

use super::protobuf::{Field, Reader};
use super::report::{Severity, Verdict};
use super::subject::{Role, Sink, Subject};
use super::{template, tensorflow};

/// The longest name that is read.
const MOST_NAME: u64 = 4096;
/// The most operators that are told apart.
const MOST_OPERATORS: usize = 10_000;
/// The most files of external data that are looked at.
const MOST_FILES: usize = 4096;
/// How deep graphs may stand in each other; each level is three messages.
const MOST_DEPTH: usize = 10_000;

/// Whether a subject is an ONNX model: by its name, or by a first field that is a version.
pub(crate) fn fits(subject: &Subject<'_>) -> bool {
    let begins = matches!(subject.head, [0x08, 1..=20, 0x12 | 0x1A | 0x22 | 0x3A | 0x42, ..]);
    subject.role == Role::Anything
        && (begins
            || subject.has_extension(&["onnx"])
                && matches!(subject.head.first(), Some(0x08 | 0x3A | 0x12 | 0x42)))
        && !tensorflow::fits(subject)
}

/// Looks at a model.
pub(crate) fn inspect(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let mut reader = Reader::new(subject.source);
    let all = reader.all();
    let mut model = Model {
        subject,
        sink,
        open: Vec::new(),
        operators: HashMap::new(),
        order: Vec::new(),
        own: HashSet::new(),
        files: HashMap::new(),
    };
    let read = model.walk(&mut reader, &all);
    model.report();
    read
}

/// What a message that waits is.
#[derive(Clone, Copy)]
enum Message {
    Graph,
    Function,
    Node,
    Attribute,
    Tensor,
    Sparse,
}

struct Used {
    count: u64,
    node: String,
    at: u64,
}

struct Model<'a, 's, 'k> {
    subject: &'a Subject<'s>,
    sink: &'a mut Sink<'k>,
    /// Messages that are being walked: what each is, where the walk stands in it, and its span.
    open: Vec<(Message, u64, Field)>,
    /// Operators by domain and name.
    operators: HashMap<(String, String), Used>,
    order: Vec<(String, String)>,
    /// Functions of the model.
    own: HashSet<(String, String)>,
    /// The lengths of the files of external data, `None` for those that were refused.
    files: HashMap<String, Option<u64>>,
}

impl Model<'_, '_, '_> {
    fn walk(&mut self, reader: &mut Reader<'_>, all: &Field) -> Result<()> {
        let mut at = all.start;
        while let Some(field) = reader.next(&mut at, all)? {
            match field.number {
                7 if field.is_bytes => self.enter(Message::Graph, field)?,
                14 if field.is_bytes => self.metadata(reader, &field)?,
                // Training: graphs that initialise and step.
                20 if field.is_bytes => {
                    let mut inner = field.start;
                    while let Some(part) = reader.next(&mut inner, &field)? {
                        if matches!(part.number, 1 | 2) && part.is_bytes {
                            self.enter(Message::Graph, part)?;
                            self.drain(reader)?;
                        }
                    }
                }
                25 if field.is_bytes => {
                    self.function(reader, &field)?;
                    self.enter(Message::Function, field)?;
                }
                _ => {}
            }
            self.drain(reader)?;
        }
        Ok(())
    }

    /// Looks at what waits, innermost first: one place for each level of nesting is all that is kept.
    fn drain(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        while let Some((message, mut at, field)) = self.open.pop() {
            let Some(part) = reader.next(&mut at, &field)? else { continue };
            self.open.push((message, at, field));
            let next = match (message, part.number) {
                (Message::Graph, 1) => Some(Message::Node),
                (Message::Graph, 5) | (Message::Attribute, 5 | 10) | (Message::Sparse, 1 | 2) => {
                    Some(Message::Tensor)
                }
                (Message::Graph, 15) | (Message::Attribute, 22 | 23) => Some(Message::Sparse),
                (Message::Attribute, 6 | 11) => Some(Message::Graph),
                (Message::Node, 5) => Some(Message::Attribute),
                (Message::Function, 7) => Some(Message::Node),
                (Message::Function, 11) => Some(Message::Attribute),
                _ => None,
            };
            match next.filter(|_| part.is_bytes) {
                Some(Message::Tensor) => self.tensor(reader, &part)?,
                Some(next) => {
                    if matches!(next, Message::Node) {
                        self.node(reader, &part)?;
                    }
                    self.enter(next, part)?;
                }
                None => {}
            }
        }
        Ok(())
    }

    fn enter(&mut self, message: Message, field: Field) -> Result<()> {
        if self.open.len() >= MOST_DEPTH {
            return Err(
                Error::limit(format!("graphs nest deeper than {MOST_DEPTH} levels")).at_offset(field.start)
            );
        }
        self.open.push((message, field.start, field));
        Ok(())
    }

    fn function(&mut self, reader: &mut Reader<'_>, field: &Field) -> Result<()> {
        let (mut name, mut domain) = (String::new(), String::new());
        reader.each(field, |r, part| {
            match part.number {
                1 if part.is_bytes => name = r.text(&part, MOST_NAME)?,
                10 if part.is_bytes => domain = r.text(&part, MOST_NAME)?,
                _ => {}
            }
            Ok(())
        })?;
        if self.own.len() < MOST_OPERATORS {
            self.own.insert((domain, name));
        }
        Ok(())
    }

    fn node(&mut self, reader: &mut Reader<'_>, field: &Field) -> Result<()> {
        let (mut name, mut operator, mut domain) = (String::new(), String::new(), String::new());
        reader.each(field, |r, part| {
            match part.number {
                3 if part.is_bytes => name = r.text(&part, 200)?,
                4 if part.is_bytes => operator = r.text(&part, MOST_NAME)?,
                7 if part.is_bytes => domain = r.text(&part, MOST_NAME)?,
                _ => {}
            }
            Ok(())
        })?;
        let key = (domain, operator);
        if !self.operators.contains_key(&key) {
            if self.operators.len() >= MOST_OPERATORS {
                return Err(Error::limit(format!("more than {MOST_OPERATORS} operators")));
            }
            self.order.push(key.clone());
        }
        self.operators.entry(key).or_insert(Used { count: 0, node: name, at: field.start }).count += 1;
        Ok(())
    }

    fn report(&mut self) {
        for key in &self.order {
            let Some(used) = self.operators.get(key).filter(|_| !self.own.contains(key)) else { continue };
            let Some((verdict, why)) = operators::judge(&key.0, &key.1) else { continue };
            let name = if key.0.is_empty() { key.1.clone() } else { format!("{}.{}", key.0, key.1) };
            let name: String = name.chars().take(200).collect();
            let times = if used.count > 1 { format!(", {} times", used.count) } else { String::new() };
            let what = format!("the graph has the operator {name:?} (node {:?}{times}): {why}", used.node);
            let mut found =
                self.subject.finding("onnx-custom-operator", verdict, what).at(used.at).callable(name);
            if verdict == Verdict::Dangerous {
                found.severity = Severity::High;
            }
            self.sink.finding(found);
        }
    }

    fn metadata(&mut self, reader: &mut Reader<'_>, field: &Field) -> Result<()> {
        let (mut key, mut value) = (String::new(), None);
        reader.each(field, |r, part| {
            match part.number {
                1 if part.is_bytes => key = r.text(&part, 200)?,
                2 if part.is_bytes => value = Some(part),
                _ => {}
            }
            Ok(())
        })?;
        if let Some(value) = value.filter(|_| key.contains("chat_template")) {
            let text = reader.text(&value, 2 << 20)?;
            template::inspect(&text, &self.subject.inside(format!("metadata {key}")), 0, self.sink);
        }
        Ok(())
    }

    fn tensor(&mut self, reader: &mut Reader<'_>, field: &Field) -> Result<()> {
        let mut name = None;
        let mut entries = Vec::new();
        reader.each(field, |_, part| {
            match part.number {
                8 if part.is_bytes => name = Some(part),
                13 if part.is_bytes && entries.len() < 16 => entries.push(part),
                _ => {}
            }
            Ok(())
        })?;
        if entries.is_empty() {
            return Ok(());
        }
        let name = name.map(|n| reader.text(&n, 200)).transpose()?.unwrap_or_default();
        let (mut location, mut offset, mut length) = (None, 0u64, None);
        for entry in entries {
            let (mut key, mut value) = (String::new(), String::new());
            reader.each(&entry, |r, part| {
                match part.number {
                    1 if part.is_bytes => key = r.text(&part, 100)?,
                    2 if part.is_bytes => value = r.text(&part, MOST_NAME)?,
                    _ => {}
                }
                Ok(())
            })?;
            match key.as_str() {
                "location" => location = Some(value),
                // A number that is none is past every end.
                "offset" => offset = value.parse().unwrap_or(u64::MAX),
                "length" => length = Some(value.parse().unwrap_or(u64::MAX)),
                _ => {}
            }
        }
        let Some(location) = location else { return Ok(()) };
        let known = match self.files.get(&location) {
            Some(known) => *known,
            None if self.files.len() >= MOST_FILES => {
                return Err(Error::limit(format!("external data in more than {MOST_FILES} files")));
            }
            None => {
                let length = self.open(&name, &location, field.start);
                self.files.insert(location.clone(), length);
                length
            }
        };
        let end = offset.checked_add(length.unwrap_or_default());
        if let Some(file) = known.filter(|&file| end.is_none_or(|end| end > file)) {
            let what = format!(
                "the tensor {name:?} is {} bytes at {offset} of {location:?}, which ends at {file}",
                length.unwrap_or_default()
            );
            self.refuse(&location, field.start, Verdict::Dangerous, what);
        }
        Ok(())
    }

    fn refuse(&mut self, location: &str, at: u64, verdict: Verdict, what: String) {
        let mut found = self.subject.finding("onnx-external-path", verdict, what).at(at);
        found.arguments = Some(location.chars().take(300).collect());
        self.sink.finding(found);
    }

    /// The length of a file that a tensor names, if it may be looked at.
    fn open(&mut self, tensor: &str, location: &str, at: u64) -> Option<u64> {
        let shown: String = location.chars().take(300).collect();
        let subject = self.subject;
        let mut dangerous = |why: &str| {
            self.refuse(
                location,
                at,
                Verdict::Dangerous,
                format!("the tensor {tensor:?} is in {shown:?}, which {why}"),
            );
        };
        if location.starts_with("*/") {
            dangerous("stands for memory of the process");
            return None;
        }
        if !is_plain_relative(location) {
            dangerous("is outside of the model's folder");
            return None;
        }
        subject.source.path()?;
        match subject.source.sibling(location) {
            Ok(source) => {
                if let Some(names) = names_of(&source).filter(|&n| n > 1) {
                    let what = format!(
                        "the tensor {tensor:?} is in {shown:?}, a hard link: the file has {names} names"
                    );
                    self.refuse(location, at, Verdict::Unknown, what);
                }
                Some(source.len())
            }
            Err(error) => {
                match error.kind() {
                    ErrorKind::UnsafeContent => dangerous("is a link that leads out of the model's folder"),
                    ErrorKind::NotFound => {
                        let what = format!("the tensor {tensor:?} is in {shown:?}, which is not here");
                        let found = subject.finding("unreadable", Verdict::Clean, what).at(at);
                        self.sink.finding(found.severity(Severity::Info));
                    }
                    _ => dangerous("is no regular file"),
                }
                None
            }
        }
    }
}

/// How many names a file has in its file system.
#[cfg(unix)]
fn names_of(source: &Source) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    Some(source.reader().span(0, 0)?.file.metadata().ok()?.nlink())
}

#[cfg(not(unix))]
fn names_of(_: &Source) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests;
