//! Writing a model that was read: every byte is copied but for the initializers that get other elements, those whose
//! elements move, and the lengths around them.

use super::INFO;
use super::plan::{External, MAX_MESSAGE, Place, SMALL, check_options, pad, put_external};
use super::skeleton::{Initializer, Skeleton};
use super::wire::{Wire, put_key, put_len, put_message, put_varint, varint_len};
use crate::archive::{Archive, Note};
use crate::error::{Error, Result};
use crate::flat;
use crate::source::ReadAt;
use crate::tensor::{Data, TensorInfo};
use crate::traits::WriteOptions;
use crate::transform::{Cast, Overflow};
use crate::write::{FilePlan, WritePlan};

/// Lays out an existing model with other elements in some of its initializers: those whose names `weights` has. All
/// else stays byte for byte, unknown fields included. Initializers inside the model stay inside, those of external
/// data are in one file beside the new model (but see [`WriteOptions::external_data`]).
///
/// # Errors
/// `InvalidOptions` if `model` was not opened as ONNX, and if `weights` has nothing that the model has, or (without
/// [`WriteOptions::allow_loss`]) something that it has not; `Mismatch` for another shape or dtype; `Unsupported` for
/// a sparse initializer.
pub fn plan_into<'a>(
    model: &'a dyn Archive,
    weights: &'a dyn Archive,
    options: &WriteOptions,
) -> Result<WritePlan<'a>> {
    into(model, weights, options).map_err(|e| e.with_format(INFO.id))
}

/// The weights with their floats cast to the dtypes that the model's initializers of the same names have.
///
/// # Errors
/// `InvalidOptions` if `model` was not opened as ONNX. Reading the tensors fails with `InvalidOptions` for a number
/// that `overflow` refuses.
pub fn weights_for<'a>(
    model: &dyn Archive,
    weights: Box<dyn Archive + 'a>,
    overflow: Overflow,
) -> Result<Cast<'a>> {
    let dtypes: std::collections::HashMap<&str, _> =
        skeleton_of(model)?.infos.iter().map(|t| (t.name(), t.dtype())).collect();
    let wanted =
        |t: &TensorInfo| dtypes.get(t.name()).copied().filter(|d| d.kind() == crate::dtype::Kind::Float);
    Cast::by(weights, wanted, overflow, false)
}

fn skeleton_of(model: &dyn Archive) -> Result<&Skeleton> {
    let any = model.companion().map(|c| c as &dyn std::any::Any);
    any.and_then(|c| c.downcast_ref()).ok_or_else(|| {
        Error::invalid_options(format!("the model whose weights are to be replaced is {}", model.format()))
            .with_hint("name an ONNX model")
    })
}

fn into<'a>(
    model: &'a dyn Archive,
    weights: &'a dyn Archive,
    options: &WriteOptions,
) -> Result<WritePlan<'a>> {
    let skeleton = skeleton_of(model)?;
    let names: std::collections::HashMap<&str, usize> =
        skeleton.infos.iter().map(TensorInfo::name).zip(0..).collect();
    let mut replaced: Vec<Option<usize>> = vec![None; skeleton.infos.len()];
    let mut foreign = Vec::new();
    for (i, new) in weights.tensors().iter().enumerate() {
        let Some(&at) = names.get(new.name()) else {
            foreign.push(new.name().to_owned());
            continue;
        };
        let old = &skeleton.infos[at];
        let refuse = |what: &str, hint: &'static str| {
            Err(Error::mismatch(what.to_owned()).with_tensor(new.name()).with_hint(hint))
        };
        if old.shape() != new.shape() {
            let what = format!("its shape is {:?}, and {:?} in the model", new.shape(), old.shape());
            return refuse(&what, "leave it out, or give it the model's shape");
        }
        if old.dtype() != new.dtype() {
            let what = format!("its dtype is {}, and {} in the model", new.dtype(), old.dtype());
            return refuse(&what, "cast it to the model's dtype");
        }
        replaced[at] = Some(i);
    }
    let count = replaced.iter().flatten().count();
    if count == 0 {
        let (ours, theirs) = (
            flat::listed(skeleton.infos.iter().map(|t| t.name().to_owned())),
            flat::listed(weights.tensors().iter().map(|t| t.name().to_owned())),
        );
        let what = format!("no initializer of the model has the name of a tensor: {ours} against {theirs}");
        return Err(Error::invalid_options(what).with_hint("rename the tensors to the model's names"));
    }
    let mut notes = vec![Note::info(match skeleton.infos.len() - count {
        0 => format!("{count} initializers are replaced, all there are"),
        left => format!("{count} initializers are replaced, and {left} stay as they are"),
    })];
    if !foreign.is_empty() {
        let what = format!(
            "{} tensors have no initializer of their names in the model: {}",
            foreign.len(),
            flat::listed(foreign)
        );
        if !options.allow_loss {
            let hint = "leave them out by name, or allow the loss";
            return Err(Error::invalid_options(what).with_hint(hint));
        }
        notes.push(Note::lost(what));
    }
    let mut plan = rewrite(skeleton, options, &|tensor| match replaced.get(tensor).copied().flatten() {
        Some(new) => weights.data(new).map(Some),
        None => Ok(None),
    })?;
    notes.append(&mut plan.notes);
    plan.notes = notes;
    Ok(plan)
}

/// A piece of the model's file to be.
enum Piece<'a> {
    /// A span of the file that was read.
    Copy(u64, u64),
    Fixed(Vec<u8>),
    Data(Data<'a>, std::sync::Arc<str>),
}

impl Piece<'_> {
    fn len(&self) -> u64 {
        match self {
            Self::Copy(start, end) => end - start,
            Self::Fixed(bytes) => bytes.len() as u64,
            Self::Data(data, _) => ReadAt::len(data),
        }
    }
}

/// The pieces of a file; spans that follow each other become one.
#[derive(Default)]
struct Pieces<'a>(Vec<Piece<'a>>);

impl<'a> Pieces<'a> {
    fn copy(&mut self, start: u64, end: u64) {
        match self.0.last_mut() {
            _ if start == end => {}
            Some(Piece::Copy(_, last)) if *last == start => *last = end,
            _ => self.0.push(Piece::Copy(start, end)),
        }
    }

    fn fixed(&mut self, bytes: Vec<u8>) {
        match self.0.last_mut() {
            _ if bytes.is_empty() => {}
            Some(Piece::Fixed(last)) => last.extend_from_slice(&bytes),
            _ => self.0.push(Piece::Fixed(bytes)),
        }
    }

    fn append(&mut self, other: Self) {
        for piece in other.0 {
            match piece {
                Piece::Copy(start, end) => self.copy(start, end),
                Piece::Fixed(bytes) => self.fixed(bytes),
                data @ Piece::Data(..) => self.0.push(data),
            }
        }
    }

    fn len(&self) -> u64 {
        self.0.iter().fold(0, |n, p| n.saturating_add(p.len()))
    }
}

/// How many bytes of the file that was read are held in memory at most, for one piece.
const HELD: u64 = 64 << 10;

/// Lays out the model; `replace` gives a tensor's new elements.
pub(super) fn rewrite<'a>(
    skeleton: &'a Skeleton,
    options: &WriteOptions,
    replace: &dyn Fn(usize) -> Result<Option<Data<'a>>>,
) -> Result<WritePlan<'a>> {
    check_options(options)?;
    if skeleton.external_constants {
        let what =
            "a tensor in a node's attribute or a subgraph is external data, which is not carried along";
        return Err(Error::unsupported(what).with_hint("save the model with its data inside first"));
    }
    let mut writing = Writing {
        skeleton,
        options,
        store: External::new(&options.file_name),
        data: FilePlan::new(format!("{}.data", options.file_name)),
        notes: Vec::new(),
    };
    let (start, content, end) = skeleton.graph;
    let mut graph = Pieces::default();
    let mut at = content;
    for initializer in &skeleton.initializers {
        graph.copy(at, initializer.field.0);
        writing.initializer(initializer, replace, &mut graph)?;
        at = initializer.field.2;
    }
    graph.copy(at, end);
    let mut pieces = Pieces::default();
    writing.model_fields(0, start, &mut pieces);
    let len = graph.len();
    if len == end - content {
        // The length may be spelled longer than it must be, and stays so.
        pieces.copy(start, content);
    } else {
        let mut header = Vec::new();
        put_len(&mut header, 7, len);
        pieces.fixed(header);
    }
    pieces.append(graph);
    writing.model_fields(end, skeleton.source.len(), &mut pieces);
    for (key, value) in &options.metadata {
        let entry =
            super::proto::StringStringEntryProto { key: Some(key.clone()), value: Some(value.clone()) };
        let mut field = Vec::new();
        put_message(&mut field, 14, &entry);
        pieces.fixed(field);
    }
    writing.finish(pieces)
}

/// What is gathered while a model is laid out.
struct Writing<'a, 'o> {
    skeleton: &'a Skeleton,
    options: &'o WriteOptions,
    store: External,
    data: FilePlan<'a>,
    notes: Vec<Note>,
}

impl<'a> Writing<'a, '_> {
    /// The model's fields between two places, without the metadata that is given anew.
    fn model_fields(&self, start: u64, end: u64, pieces: &mut Pieces<'a>) {
        let mut at = start;
        for (key, from, to) in &self.skeleton.metadata {
            let given = self.options.metadata.iter().any(|(k, _)| k == key);
            if given && (start..end).contains(from) {
                pieces.copy(at, *from);
                at = *to;
            }
        }
        pieces.copy(at, end);
    }

    fn initializer(
        &mut self,
        of: &Initializer,
        replace: &dyn Fn(usize) -> Result<Option<Data<'a>>>,
        out: &mut Pieces<'a>,
    ) -> Result<()> {
        let (start, content, end) = of.field;
        let Some((info, index)) = of.tensor.and_then(|i| Some((self.skeleton.infos.get(i)?, i))) else {
            out.copy(start, end);
            return Ok(());
        };
        let new = replace(index).map_err(|e| e.with_tensor(info.name()))?;
        if let Some(new) = &new {
            let len = ReadAt::len(new);
            if len != info.bytes() {
                let what = format!("{len} bytes are given where dtype and shape take {}", info.bytes());
                return Err(Error::mismatch(what).with_tensor(info.name()));
            }
        }
        if of.sparse {
            if new.is_some() {
                let what = "the model's initializer is sparse, and is not replaced";
                return Err(Error::unsupported(what)
                    .with_tensor(&*of.name)
                    .with_hint("leave it out by name"));
            }
            out.copy(start, end);
            return Ok(());
        }
        let large = info.bytes() >= SMALL;
        let outside = match self.options.external_data {
            Some(wanted) => wanted && large,
            None => of.external.is_some(),
        };
        if !outside && of.external.is_none() {
            match (&new, of.raw) {
                (None, _) => {
                    out.copy(start, end);
                    return Ok(());
                }
                (Some(_), Some((raw, len))) if len == info.bytes() => {
                    out.copy(start, raw);
                    out.0.extend(new.map(|new| Piece::Data(new, info.shared_name())));
                    out.copy(raw + len, end);
                    return Ok(());
                }
                _ => {}
            }
        }
        let data = match new {
            Some(new) => new,
            None => self.skeleton.data.get(index).cloned().unwrap_or(Data::Borrowed(&[])),
        };
        let moved = if outside { Some(self.store(data.clone(), info, of)?) } else { None };
        let mut message = Pieces::default();
        let mut at = content;
        for (i, &(from, to)) in of.data_fields.iter().enumerate() {
            message.copy(at, from);
            at = to;
            if i == 0 {
                self.elements(&data, info, moved, &mut message);
            }
        }
        if of.data_fields.is_empty() {
            self.elements(&data, info, moved, &mut message);
        }
        message.copy(at, end);
        let mut header = Vec::new();
        put_len(&mut header, 5, message.len());
        out.fixed(header);
        out.append(message);
        Ok(())
    }

    /// Appends the field that holds the elements, or those that say where they are.
    fn elements(&self, data: &Data<'a>, info: &TensorInfo, moved: Option<Place>, out: &mut Pieces<'a>) {
        let mut field = Vec::new();
        match moved {
            Some(place) => {
                put_external(&mut field, &self.store.name, place);
                out.fixed(field);
            }
            None => {
                put_key(&mut field, 9, Wire::Bytes);
                put_varint(&mut field, info.bytes());
                out.fixed(field);
                out.0.push(Piece::Data(data.clone(), info.shared_name()));
            }
        }
    }

    /// Puts elements into the external data.
    fn store(&mut self, data: Data<'a>, info: &TensorInfo, of: &Initializer) -> Result<Place> {
        let place = self.store.place(info.bytes())?;
        pad(&mut self.data, place.offset)?;
        self.data.push_data(data, info.shared_name(), false)?;
        if of.external.as_ref().is_some_and(|e| e.has_checksum()) {
            let note = Note::changed("the checksums of the external data are left out: the file is another");
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        Ok(place)
    }

    fn finish(mut self, pieces: Pieces<'a>) -> Result<WritePlan<'a>> {
        let len = pieces.len();
        if len > MAX_MESSAGE {
            let what = format!("the model's file would have {len} bytes, and protobuf's parsers take 2 GiB");
            return Err(Error::invalid_options(what).with_hint("let the weights be external data"));
        }
        debug_assert!(varint_len(len) <= 5);
        let source = &self.skeleton.source;
        let mut file = FilePlan::new(&*self.options.file_name);
        for piece in pieces.0 {
            match piece {
                Piece::Copy(start, end) if end - start <= HELD => {
                    let mut bytes = vec![0; (end - start) as usize];
                    source.reader().read_at(start, &mut bytes)?;
                    file.push_fixed(bytes)?;
                }
                Piece::Copy(start, end) => {
                    let slice = source.slice(start, end - start)?;
                    file.push_data(Data::lazy(slice), "the graph", false)?;
                }
                Piece::Fixed(bytes) => {
                    file.push_fixed(bytes)?;
                }
                Piece::Data(data, label) => {
                    file.push_data(data, label, false)?;
                }
            }
        }
        let beside = self.data.len() > 0 || self.skeleton.initializers.iter().any(|i| i.external.is_some());
        if self.data.len() > 0 {
            let what = format!("the tensors' bytes are in {:?} beside the model", self.data.name);
            self.notes.push(Note::info(what));
        }
        let mut left: Vec<&str> = self
            .skeleton
            .initializers
            .iter()
            .filter_map(|i| i.external.as_ref())
            .map(super::external::External::location)
            .filter(|l| *l != self.store.name)
            .collect();
        left.sort_unstable();
        left.dedup();
        if beside && !left.is_empty() {
            let named = flat::listed(left.into_iter().map(str::to_owned));
            self.notes.push(Note::info(format!("the model that is written does not use {named}")));
        }
        let data = (self.data.len() > 0).then_some(self.data);
        // The model names the data, so it appears last.
        Ok(WritePlan { files: data.into_iter().chain(Some(file)).collect(), notes: self.notes })
    }
}
