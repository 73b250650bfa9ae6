//! TensorFlow graphs: SavedModels, frozen graphs, meta graphs, and the Keras metadata beside them.
//!
//! A graph is a program. Which operators are in it, in its functions too, is all that is read; constants are passed over.

pub(crate) mod lite;
mod operators;

use std::collections::HashMap;

use weighbridge_formats::source::is_plain_relative;
use weighbridge_formats::{Error, Result};

use super::keras;
use super::protobuf::{Field, Reader};
use super::report::{Severity, Verdict};
use super::subject::{Sink, Subject};
pub(crate) use operators::{is_known_symbol, judge};

/// The longest name that is read.
const MOST_NAME: u64 = 1024;
/// The longest JSON text of a Keras object.
const MOST_METADATA: u64 = 8 << 20;
/// The most nodes of a graph whose names are remembered.
const MOST_CONSTANTS: usize = 200_000;

/// Whether a subject is a graph, by its name and the first byte.
pub(crate) fn fits(subject: &Subject<'_>) -> bool {
    let first = subject.head.first();
    subject.has_extension(&["pb"]) && matches!(first, Some(0x08 | 0x0A | 0x12))
        || subject.has_extension(&["meta"]) && first == Some(&0x0A)
        || subject.has_extension(&["pbtxt"])
        || subject.head.starts_with(b"\x08\x01\x12") && is_saved_model(subject)
}

/// A file of another name that begins as a SavedModel does, and whose second field goes to its end.
fn is_saved_model(subject: &Subject<'_>) -> bool {
    let mut reader = Reader::new(subject.source);
    let (mut at, all) = (0, reader.all());
    let second = reader.next(&mut at, &all).and_then(|_| reader.next(&mut at, &all));
    matches!(second, Ok(Some(Field { number: 2, is_bytes: true, end, .. })) if end == all.end)
}

/// What was found of one operator.
struct Found {
    verdict: Verdict,
    why: &'static str,
    count: u64,
    node: String,
    at: u64,
}

/// Looks at a graph.
pub(crate) fn inspect(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    if subject.has_extension(&["pbtxt"]) {
        return text(subject, sink);
    }
    let mut reader = Reader::new(subject.source);
    let mut graph = Graph { subject, sink, operators: HashMap::new(), order: Vec::new(), nodes: 0 };
    let all = reader.all();
    let name = subject.file_name();
    let read = match subject.head.first() {
        _ if name == "keras_metadata.pb" => graph.keras_metadata(&mut reader, &all),
        Some(0x08) => reader.each(&all, |r, field| match field.number {
            2 if field.is_bytes => graph.meta_graph(r, &field),
            _ => Ok(()),
        }),
        _ if name.ends_with(".meta") => graph.meta_graph(&mut reader, &all),
        _ => graph.graph(&mut reader, &all),
    };
    graph.report();
    read
}

struct Graph<'a, 's, 'k> {
    subject: &'a Subject<'s>,
    sink: &'a mut Sink<'k>,
    operators: HashMap<String, Found>,
    /// The operators' names in the order of the file.
    order: Vec<String>,
    nodes: u64,
}

impl Graph<'_, '_, '_> {
    fn meta_graph(&mut self, reader: &mut Reader<'_>, message: &Field) -> Result<()> {
        reader.each(message, |r, field| match field.number {
            2 if field.is_bytes => self.graph(r, &field),
            6 if field.is_bytes => self.asset(r, &field),
            7 if field.is_bytes => self.object_graph(r, &field),
            _ => Ok(()),
        })
    }

    fn graph(&mut self, reader: &mut Reader<'_>, message: &Field) -> Result<()> {
        self.nodes_of(reader, message, 1)?;
        reader.each(message, |r, field| {
            if field.number != 2 || !field.is_bytes {
                return Ok(());
            }
            r.each(&field, |r, function| match function.number {
                1 if function.is_bytes => self.nodes_of(r, &function, 3),
                _ => Ok(()),
            })
        })
    }

    /// The nodes that stand in the fields of a number.
    fn nodes_of(&mut self, reader: &mut Reader<'_>, message: &Field, number: u32) -> Result<()> {
        let mut constants = std::collections::HashSet::new();
        let mut savers = Vec::new();
        reader.each(message, |r, field| {
            if field.number != number || !field.is_bytes {
                return Ok(());
            }
            let (mut name, mut operator, mut input) = (String::new(), String::new(), None);
            r.each(&field, |r, part| {
                match part.number {
                    1 if part.is_bytes => name = r.text(&part, MOST_NAME)?,
                    2 if part.is_bytes => operator = r.text(&part, MOST_NAME)?,
                    3 if part.is_bytes && input.is_none() => input = Some(r.text(&part, MOST_NAME)?),
                    _ => {}
                }
                Ok(())
            })?;
            self.nodes += 1;
            if operator == "Const" && constants.len() < MOST_CONSTANTS {
                constants.insert(name.clone());
            }
            if operators::SAVERS.contains(&operator.as_str()) {
                savers.push((name, operator, input.unwrap_or_default(), field.start));
            } else if let Some((verdict, why)) = judge(&operator) {
                self.add(operator, (verdict, why), name, field.start);
            }
            Ok(())
        })?;
        for (name, operator, input, at) in savers {
            let source = input.trim_start_matches('^').split(':').next().unwrap_or_default();
            if constants.contains(source) {
                let why = "the file that it reads or writes is a constant of the graph";
                self.add(operator, (Verdict::Unknown, why), name, at);
            }
        }
        Ok(())
    }

    fn add(&mut self, operator: String, (verdict, why): (Verdict, &'static str), node: String, at: u64) {
        if !self.operators.contains_key(&operator) {
            self.order.push(operator.clone());
        }
        let new = Found { verdict, why, count: 0, node, at };
        self.operators.entry(operator).or_insert(new).count += 1;
    }

    fn report(&mut self) {
        for operator in &self.order {
            let Some(found) = self.operators.get(operator) else { continue };
            let times = if found.count > 1 { format!(", {} times", found.count) } else { String::new() };
            let what = format!(
                "the graph has the operator {operator:?} (node {:?}{times}): {}",
                found.node, found.why
            );
            let mut finding = self.subject.finding("tensorflow-operator", found.verdict, what).at(found.at);
            if found.verdict == Verdict::Unknown {
                finding.severity = Severity::Medium;
            }
            self.sink.finding(finding.callable(operator.clone()));
        }
    }

    /// A file that the loader hands to the graph.
    fn asset(&mut self, reader: &mut Reader<'_>, message: &Field) -> Result<()> {
        reader.each(message, |r, field| {
            if field.number != 2 || !field.is_bytes {
                return Ok(());
            }
            let name = r.text(&field, MOST_NAME)?;
            if !is_plain_relative(&name) {
                let what = format!("the graph's asset {name:?} lies outside of the model's folder");
                let mut finding =
                    self.subject.finding("path-escape", Verdict::Dangerous, what).at(field.start);
                finding.arguments = Some(name);
                self.sink.finding(finding);
            }
            Ok(())
        })
    }

    /// The objects of a SavedModel: older ones have Keras' description of each here.
    fn object_graph(&mut self, reader: &mut Reader<'_>, message: &Field) -> Result<()> {
        reader.each(message, |r, node| {
            if node.number != 1 || !node.is_bytes {
                return Ok(());
            }
            r.each(&node, |r, object| {
                if object.number != 4 || !object.is_bytes {
                    return Ok(());
                }
                r.each(&object, |r, part| if part.number == 3 { self.metadata(r, &part) } else { Ok(()) })
            })
        })
    }

    /// `keras_metadata.pb`: a description of each object.
    fn keras_metadata(&mut self, reader: &mut Reader<'_>, message: &Field) -> Result<()> {
        self.sink.kind("keras");
        reader.each(message, |r, node| {
            if node.number != 1 || !node.is_bytes {
                return Ok(());
            }
            r.each(&node, |r, part| if part.number == 5 { self.metadata(r, &part) } else { Ok(()) })
        })
    }

    fn metadata(&mut self, reader: &mut Reader<'_>, field: &Field) -> Result<()> {
        if !field.is_bytes || field.start == field.end {
            return Ok(());
        }
        if field.end - field.start > MOST_METADATA {
            let what = format!("the description of an object has {} bytes", field.end - field.start);
            return Err(Error::limit(what).at_offset(field.start));
        }
        let text = reader.bytes(field, MOST_METADATA)?;
        if text.first() == Some(&b'{') {
            let place = self.subject.inside(format!("object at {}", field.start));
            keras::inspect_text(&text, &place, self.sink)?;
        }
        Ok(())
    }
}

/// A graph as text: every line `op: "…"`, whatever it is in.
fn text(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    const MOST: u64 = 16 << 20;
    if subject.source.len() > MOST {
        return Err(Error::limit(format!("a graph as text of {} bytes", subject.source.len())));
    }
    let bytes = subject.source.read_vec(0, subject.source.len(), sink.limits)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut seen = std::collections::HashSet::new();
    for (at, _) in text.match_indices("op") {
        let before = text.get(..at).and_then(|t| t.bytes().last());
        let rest = text.get(at + 2..).unwrap_or_default().trim_start();
        let Some(rest) = rest.strip_prefix(':').map(str::trim_start) else { continue };
        let quote = rest.chars().next().filter(|c| "\"'".contains(*c));
        let Some(quote) = quote.filter(|_| before.is_none_or(|b| !b.is_ascii_alphanumeric() && b != b'_'))
        else {
            continue;
        };
        let operator = rest.get(1..).unwrap_or_default().split(quote).next().unwrap_or_default();
        if seen.len() > 10_000 || !seen.insert(operator) || operators::SAVERS.contains(&operator) {
            continue;
        }
        if let Some((verdict, why)) = judge(operator) {
            let name: String = operator.chars().take(100).collect();
            let what = format!("the graph has the operator {name:?}: {why}");
            let finding = subject.finding("tensorflow-operator", verdict, what).at(at as u64).callable(name);
            sink.finding(finding);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
