//! Reading: the fields of the main graph are walked when a file is opened, initializers are found and not read; what
//! remains is decoded as the model without its tensors.

use std::collections::HashSet;
use std::path::PathBuf;

use prost::Message as _;

use super::INFO;
use super::cursor::{Cursor, Field};
use super::external::Files;
use super::proto::{
    AttributeProto, DataType, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto,
};
use super::schema::{self, Kind};
use super::skeleton::{Initializer, Skeleton, opsets};
use super::sparse::Dense;
use super::tensor::{Parts, Place, shape_of};
use super::typed::{Typed, strings};
use super::wire::Wire;
use crate::account::{Account, RAISE, TENSOR, block};
use crate::archive::{Archive, Companion, Metadata, Note, no_such_tensor};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::kept_values;
use crate::limits::Limits;
use crate::probe::{Confidence, Probe};
use crate::source::{ReadAt, Source};
use crate::tensor::{Data, TensorInfo};
use crate::traits::{Deserializer, FormatInfo, ReadOptions};
use crate::value::{Dict, Value, ValueId, Values};

/// Reads ONNX models.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnnxReader;

impl Deserializer for OnnxReader {
    fn info(&self) -> &'static FormatInfo {
        &INFO
    }

    fn sniff(&self, probe: &Probe<'_>) -> Confidence {
        sniff(probe)
    }

    fn open(&self, source: Source, options: &ReadOptions) -> Result<Box<dyn Archive>> {
        Ok(Box::new(open(&source, options)?))
    }
}

/// Opens a model: the message without its tensors (see [`Skeleton::model`]), and the archive of its tensors.
///
/// # Errors
/// As [`Deserializer::open`].
pub fn read_model(source: &Source, options: &ReadOptions) -> Result<(ModelProto, Box<dyn Archive>)> {
    let archive = open(source, options)?;
    Ok((archive.skeleton.model.clone(), Box::new(archive)))
}

fn open(source: &Source, options: &ReadOptions) -> Result<OnnxArchive> {
    Reading::new(source, &options.limits).model().map_err(|e| {
        let e = e.with_format(INFO.id);
        match source.path() {
            Some(path) => e.with_path(path),
            None => e,
        }
    })
}

/// The fields of a ModelProto, and how each is written.
fn known_field(field: &Field) -> bool {
    match field.number {
        1 | 5 => field.wire == Wire::Varint,
        2..=4 | 6..=8 | 14 | 20 | 25 | 26 => field.wire == Wire::Bytes,
        // A later version may have more.
        other => other > 26,
    }
}

/// There is no mark, so the fields are walked: those of a model, with a graph among them.
fn sniff(probe: &Probe<'_>) -> Confidence {
    const FIELDS: usize = 32;
    let (mut cursor, mut at, mut seen) = (Cursor::new(probe.source()), 0, 0u32);
    let by_name = || if probe.has_extension(INFO.extensions) { Confidence::Name } else { Confidence::No };
    // What begins like one and is cut off still is one, if a damaged one.
    let begins = matches!(probe.head(), [0x08, 1..=20, 0x12 | 0x1A | 0x22 | 0x3A | 0x42, ..]);
    let damaged = || if begins { Confidence::Likely } else { by_name() };
    for _ in 0..FIELDS {
        match cursor.field(at, probe.len()) {
            Ok(Some(field)) if known_field(&field) => {
                at = field.end;
                seen |= 1u32.checked_shl(field.number).unwrap_or(0);
            }
            Ok(None) => break,
            _ => return damaged(),
        }
    }
    let has = |number: u32| seen & 1 << number != 0;
    match (has(1), has(7)) {
        (true, true) => Confidence::Certain,
        (false, true) => Confidence::Likely,
        _ => damaged(),
    }
}

/// An opened model.
struct OnnxArchive {
    skeleton: Skeleton,
    metadata: Metadata,
    values: Option<Values>,
    notes: Vec<Note>,
    files: Vec<PathBuf>,
}

impl Archive for OnnxArchive {
    fn format(&self) -> &'static str {
        INFO.id
    }

    fn variety(&self) -> String {
        let model = &self.skeleton.model;
        format!("IR version {}, opsets: {}", model.ir_version(), opsets(model))
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.skeleton.infos
    }

    fn data(&self, index: usize) -> Result<Data<'_>> {
        self.skeleton.data.get(index).cloned().ok_or_else(|| no_such_tensor(index))
    }

    fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    fn values(&self) -> Option<&Values> {
        self.values.as_ref()
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn companion(&self) -> Option<&dyn Companion> {
        Some(&self.skeleton)
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }
}

/// What is gathered while a file is walked.
struct Reading<'a> {
    cursor: Cursor<'a>,
    limits: &'a Limits,
    files: Files,
    /// How many bytes may yet be read into memory beside tensors, and what all that is kept takes there.
    left: u64,
    account: Account,
    /// How many bytes all tensors may yet declare, and how many beyond what is stored.
    declared: u64,
    expanded: u64,
    /// What the fields that were walked over take at least once they are decoded.
    least: u64,
    /// The graph without its tensors.
    graph: Vec<u8>,
    initializers: Vec<Initializer>,
    names: HashSet<String>,
    infos: Vec<TensorInfo>,
    data: Vec<Data<'static>>,
    /// The names of the initializers that are strings, with them.
    strings: Vec<(String, Vec<Vec<u8>>)>,
    notes: Vec<Note>,
}

/// What an initializer takes in all, in bytes: beside [`TENSOR`], its place in the file and its name among the others.
const INITIALIZER: u64 = TENSOR + 320;

/// Elements of typed fields that take at most so many bytes of the file are decoded when it is opened, so that what is
/// wrong with them is found then.
const DECODED: u64 = 64 << 10;

impl<'a> Reading<'a> {
    fn new(source: &'a Source, limits: &'a Limits) -> Self {
        Self {
            cursor: Cursor::new(source),
            limits,
            files: Files::new(source),
            left: limits.header_bytes.min(limits.memory / 2),
            account: Account::of(limits, source.len()),
            declared: limits.declared_bytes,
            expanded: limits.expanded_bytes,
            least: 0,
            graph: Vec::new(),
            initializers: Vec::new(),
            names: HashSet::new(),
            infos: Vec::new(),
            data: Vec::new(),
            strings: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Copies a span of the file.
    fn keep(&mut self, start: u64, end: u64, out: &mut Vec<u8>) -> Result<()> {
        if start < end {
            self.account.charge(end - start)?;
            let bytes = self.cursor.bytes(start, end, self.left).map_err(|e| e.with_hint(RAISE))?;
            self.left -= bytes.len() as u64;
            if out.is_empty() {
                *out = bytes;
            } else {
                out.extend_from_slice(&bytes);
            }
        }
        Ok(())
    }

    fn model(mut self) -> Result<OnnxArchive> {
        let source = self.cursor.source();
        let (mut rest, mut at, mut kept) = (Vec::new(), 0, 0);
        let (mut graph, mut metadata) = (None, Vec::new());
        while let Some(field) = self.cursor.field(at, source.len())? {
            at = field.end;
            self.least(24)?;
            match field.number {
                7 => {
                    field.expect(Wire::Bytes, "graph")?;
                    if graph.replace((field.start, field.content, field.end)).is_some() {
                        return Err(Error::malformed("the model has two graphs").at_offset(field.start));
                    }
                    self.keep(kept, field.start, &mut rest)?;
                    kept = field.end;
                    self.graph(&field)?;
                }
                14 => {
                    field.expect(Wire::Bytes, "metadata_props")?;
                    let key = self.metadata_key(&field)?;
                    self.account.charge(256 + 2 * block(key.len()))?;
                    metadata.push((key, field.start, field.end));
                }
                _ => {}
            }
        }
        self.keep(kept, source.len(), &mut rest)?;
        let Some(graph) = graph else {
            return Err(Error::malformed("the model has no graph").with_hint(crate::source::TRUNCATED));
        };
        let model = self.decode(&rest)?;
        if model.ir_version() >= 3 && model.opset_import.is_empty() {
            let what =
                format!("the model names no operator sets, as IR version {} demands", model.ir_version());
            return Err(Error::malformed(what).with_hint(crate::source::TRUNCATED));
        }
        let skeleton = Skeleton {
            constants: 0,
            external_constants: false,
            model,
            source: source.clone(),
            graph,
            initializers: std::mem::take(&mut self.initializers),
            metadata,
            infos: std::mem::take(&mut self.infos),
            data: std::mem::take(&mut self.data),
        };
        let tensors = skeleton.infos.iter().fold(0u64, |n, t| n.saturating_add(t.bytes()));
        let beside =
            self.files.paths().into_iter().map(|path| std::fs::metadata(path).map_or(0, |m| m.len()));
        let stored = beside.fold(source.len(), u64::saturating_add);
        if !self.limits.allows_sharing(tensors, stored) {
            let what = format!("the tensors would take {tensors} bytes, of {stored} in the model's files");
            return Err(Error::limit(what).with_hint(RAISE));
        }
        self.archive(skeleton)
    }

    fn archive(mut self, mut skeleton: Skeleton) -> Result<OnnxArchive> {
        (skeleton.constants, skeleton.external_constants) = constants(&skeleton.model);
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let mut metadata: Metadata =
            skeleton.model.metadata_props.iter().map(|e| (text(&e.key), text(&e.value))).collect();
        let values = match kept_values::from_text(
            &skeleton.infos,
            &mut metadata,
            (self.limits, &mut self.account),
            &mut self.notes,
        ) {
            Some(values) => Some(values),
            None => self.string_values(&skeleton.infos)?,
        };
        let mut files: Vec<PathBuf> = skeleton.source.path().map(PathBuf::from).into_iter().collect();
        files.extend(self.files.paths());
        Ok(OnnxArchive { skeleton, metadata, values, notes: self.notes, files })
    }

    /// Decodes what was kept of the model and its graph.
    fn decode(&mut self, rest: &[u8]) -> Result<ModelProto> {
        schema::check(rest, Kind::Model, self.limits, &mut self.account)?;
        schema::check(&self.graph, Kind::Graph, self.limits, &mut self.account)?;
        let bad = |e: prost::DecodeError| Error::malformed("a message cannot be decoded").with_source(e);
        let mut model = ModelProto::decode(rest).map_err(bad)?;
        model.graph = Some(GraphProto::decode(&*self.graph).map_err(bad)?);
        Ok(model)
    }

    fn metadata_key(&mut self, field: &Field) -> Result<String> {
        let (mut key, mut at) = (String::new(), field.content);
        while let Some(inner) = self.cursor.field(at, field.end)? {
            at = inner.end;
            if inner.number == 1 {
                key = self.cursor.text(&inner, "metadata_props.key", self.left)?;
            }
        }
        Ok(key)
    }

    /// Counts a field that takes so many bytes once it is decoded, if nothing else: where they come to more than there
    /// are, the walk need not go to the end to see that.
    fn least(&mut self, bytes: u64) -> Result<()> {
        self.least += bytes;
        if self.least > self.account.left() { Err(self.account.exceeded()) } else { Ok(()) }
    }

    /// Walks the main graph.
    fn graph(&mut self, graph: &Field) -> Result<()> {
        let (mut at, mut kept, mut out) = (graph.content, graph.content, Vec::new());
        while let Some(field) = self.cursor.field(at, graph.end)? {
            at = field.end;
            if !matches!(field.number, 5 | 15) {
                self.least(if field.number == 1 { size_of::<NodeProto>() as u64 } else { 24 })?;
                continue;
            }
            field
                .expect(Wire::Bytes, if field.number == 5 { "initializer" } else { "sparse_initializer" })?;
            if self.initializers.len() as u64 >= self.limits.entries {
                let what = format!("the graph has more than {} initializers", self.limits.entries);
                return Err(Error::limit(what).at_offset(field.start));
            }
            let taken = if field.number == 5 { self.dense(&field)? } else { self.sparse(&field)? };
            if taken {
                self.keep(kept, field.start, &mut out)?;
                kept = field.end;
            }
        }
        self.keep(kept, graph.end, &mut out)?;
        self.graph = out;
        Ok(())
    }

    /// Takes an initializer; says whether it is a tensor of the archive now.
    fn dense(&mut self, field: &Field) -> Result<bool> {
        let parts = Parts::read(&mut self.cursor, field.content, field.end, &mut self.left)
            .map_err(|e| e.at_offset(field.start))?;
        let name = parts.name.clone();
        let texts = 3 * block(name.len()) + 2 * block(16 * parts.dims.len());
        self.account.charge(INITIALIZER + texts).map_err(|e| e.at_offset(field.start))?;
        self.initializer(field, parts).map_err(|e| e.with_tensor(name).at_offset(field.start))
    }

    fn initializer(&mut self, field: &Field, parts: Parts) -> Result<bool> {
        self.name(&parts.name)?;
        let data_type = parts.known_type()?;
        let mut initializer = Initializer {
            name: parts.name.clone(),
            field: (field.start, field.content, field.end),
            tensor: None,
            sparse: false,
            raw: None,
            data_fields: Vec::new(),
            external: None,
        };
        let Some(dtype) = data_type.dtype() else {
            self.strings(&parts)?;
            self.initializers.push(initializer);
            return Ok(false);
        };
        let Some(info) = self.info(&parts, dtype)? else {
            self.initializers.push(initializer);
            return Ok(false);
        };
        self.declare(info.bytes(), 0)?;
        let place = parts.place(dtype, info.bytes())?;
        if let Place::Here(..) = place {
            initializer.raw = parts.raw;
        }
        let (data, external) = self.content(place, dtype, info.bytes())?;
        initializer.external = external;
        initializer.tensor = Some(self.infos.len());
        initializer.data_fields = parts.data_fields;
        self.infos.push(info);
        self.data.push(data);
        self.initializers.push(initializer);
        Ok(true)
    }

    /// Describes a tensor; `None` for what no tensor here can be.
    fn info(&mut self, parts: &Parts, dtype: DType) -> Result<Option<TensorInfo>> {
        let shape = parts.shape()?;
        let elements = crate::tensor::element_count(&shape).unwrap_or(0);
        let odd = elements.checked_mul(dtype.bits()).is_some_and(|b| !b.is_multiple_of(8));
        if odd && !dtype.is_padded() {
            self.notes.push(Note::warning(format!(
                "{:?} has {elements} elements of {dtype}, which are no whole number of bytes: it stays with the \
                 graph, and is not among the tensors",
                parts.name
            )));
            return Ok(None);
        }
        TensorInfo::new(&*parts.name, dtype, shape).map(Some)
    }

    /// Takes a name, which no other initializer may have.
    fn name(&mut self, name: &str) -> Result<()> {
        if name.is_empty() {
            return Err(Error::malformed("an initializer has no name"));
        }
        if !self.names.insert(name.to_owned()) {
            return Err(Error::malformed("two initializers have this name"));
        }
        Ok(())
    }

    /// Counts the bytes of a tensor against the limits.
    fn declare(&mut self, bytes: u64, beyond: u64) -> Result<()> {
        let (declared, expanded) = (self.declared.checked_sub(bytes), self.expanded.checked_sub(beyond));
        let (Some(declared), Some(expanded)) = (declared, expanded) else {
            let what = format!("the tensors take more than {} bytes", self.limits.declared_bytes);
            let sparse = format!(
                "sparse tensors stand for more than {} bytes beyond what is stored of them",
                self.limits.expanded_bytes
            );
            return Err(Error::limit(if declared.is_none() { what } else { sparse }));
        };
        (self.declared, self.expanded) = (declared, expanded);
        Ok(())
    }

    /// The elements as data.
    fn content(
        &mut self,
        place: Place,
        dtype: DType,
        bytes: u64,
    ) -> Result<(Data<'static>, Option<super::external::External>)> {
        Ok(match place {
            Place::Here(start, len) => (Data::lazy(self.cursor.source().slice(start, len)?), None),
            Place::Typed(numbers) => {
                // A number is a byte of the file at least, and 8 bytes of a tensor at most.
                if bytes / 8 > numbers.end - numbers.start {
                    let there = numbers.end - numbers.start;
                    let what = format!("{there} bytes of numbers cannot be the {bytes} bytes of the tensor");
                    return Err(Error::malformed(what));
                }
                let typed = Typed::new(self.cursor.source(), numbers, dtype, bytes);
                if numbers.end - numbers.start <= DECODED {
                    self.account.charge(bytes)?;
                    let mut all = crate::tensor::zeroed(bytes)?;
                    typed.read_at(0, &mut all)?;
                    (Data::Owned(all.into()), None)
                } else {
                    (Data::lazy(typed), None)
                }
            }
            Place::External { location, offset, checksum } => {
                let external = self.files.span(&location, offset, bytes, checksum.as_deref())?;
                (external.data(), Some(external))
            }
        })
    }

    /// Takes the strings of an initializer.
    fn strings(&mut self, parts: &Parts) -> Result<()> {
        if parts.is_external || parts.raw.is_some_and(|r| r.1 > 0) {
            return Err(Error::malformed("strings are in `string_data`, and nowhere else"));
        }
        let elements = crate::tensor::element_count(&parts.shape()?).unwrap_or(0);
        let found = match &parts.numbers {
            Some(numbers) if numbers.field == super::typed::STRING_DATA => {
                strings(&mut self.cursor, numbers, &mut self.account)?
            }
            Some(numbers) => {
                let what = format!(
                    "the elements are in `{}`, and are strings",
                    super::typed::name_of(numbers.field)
                );
                return Err(Error::malformed(what));
            }
            None => Vec::new(),
        };
        if found.len() as u64 != elements {
            let what =
                format!("{} strings are there, and shape {:?} takes {elements}", found.len(), parts.dims);
            return Err(Error::malformed(what));
        }
        self.notes.push(Note::info(format!(
            "{:?}, of shape {:?}, holds strings: it is among the values, as a list",
            parts.name, parts.dims
        )));
        self.strings.push((parts.name.clone(), found));
        Ok(())
    }

    /// Takes a sparse initializer.
    fn sparse(&mut self, field: &Field) -> Result<bool> {
        let (mut values, mut indices, mut dims, mut at) = (None, None, Vec::new(), field.content);
        while let Some(inner) = self.cursor.field(at, field.end)? {
            at = inner.end;
            let twice = match inner.number {
                1 | 2 => {
                    inner.expect(Wire::Bytes, "values")?;
                    let parts = Parts::read(&mut self.cursor, inner.content, inner.end, &mut self.left)?;
                    let part = if inner.number == 1 { &mut values } else { &mut indices };
                    part.replace(parts).is_some()
                }
                3 if inner.wire == Wire::Varint => {
                    dims.push(inner.value as i64);
                    false
                }
                3 => {
                    let mut place = inner.content;
                    while place < inner.end {
                        let (dim, behind) = self.cursor.varint(place, inner.end)?;
                        dims.push(dim as i64);
                        place = behind;
                    }
                    false
                }
                _ => false,
            };
            if twice || dims.len() > 1024 {
                return Err(Error::malformed(
                    "a sparse tensor has two sets of values, or too many dimensions",
                )
                .at_offset(inner.start));
            }
        }
        let (Some(values), Some(indices)) = (values, indices) else {
            return Err(
                Error::malformed("a sparse tensor lacks its values or indices").at_offset(field.start)
            );
        };
        let name = values.name.clone();
        let texts =
            3 * block(name.len()) + 4 * block(16 * (values.dims.len() + indices.dims.len() + dims.len()));
        self.account.charge(INITIALIZER + texts)?;
        self.sparse_tensor(field, &values, &indices, &dims)
            .map_err(|e| e.with_tensor(name).at_offset(field.start))
    }

    fn sparse_tensor(
        &mut self,
        field: &Field,
        values: &Parts,
        indices: &Parts,
        dims: &[i64],
    ) -> Result<bool> {
        self.name(&values.name)?;
        let data_type = values.known_type()?;
        let shape = shape_of(dims)?;
        let mut initializer = Initializer {
            name: values.name.clone(),
            field: (field.start, field.content, field.end),
            tensor: None,
            sparse: true,
            raw: None,
            data_fields: Vec::new(),
            external: None,
        };
        let whole = data_type.dtype().and_then(|d| Some((d, d.size()?)));
        let Some((dtype, size)) = whole else {
            self.notes.push(Note::warning(format!(
                "the sparse {:?} of {} stays with the graph, and is not among the tensors",
                values.name,
                data_type.name()
            )));
            self.initializers.push(initializer);
            return Ok(false);
        };
        if indices.known_type()? != DataType::Int64 {
            return Err(Error::malformed("the indices of a sparse tensor are no INT64"));
        }
        let (held, index_info) = (values.shape()?, indices.shape()?);
        let rank = shape.len() as u64;
        let coordinates = match (&held[..], &index_info[..]) {
            ([n], [m]) if n == m => false,
            ([n], [m, r]) if n == m && *r == rank && rank > 0 => true,
            _ => {
                let what = format!(
                    "values of shape {:?} and indices of shape {:?} fit no tensor of {rank} dimensions",
                    values.dims, indices.dims
                );
                return Err(Error::malformed(what));
            }
        };
        let info = TensorInfo::new(&*values.name, dtype, shape.clone())?;
        let too_long = || Error::malformed("the bytes of a sparse tensor pass 64 bits");
        let stored =
            crate::tensor::element_count(&held).and_then(|n| n.checked_mul(size)).ok_or_else(too_long)?;
        let index_bytes =
            crate::tensor::element_count(&index_info).and_then(|n| n.checked_mul(8)).ok_or_else(too_long)?;
        self.declare(info.bytes(), info.bytes().saturating_sub(stored))?;
        let value_data = self.content(values.place(dtype, stored)?, dtype, stored)?;
        let index_data = self.content(indices.place(DType::I64, index_bytes)?, DType::I64, index_bytes)?;
        if value_data.1.is_some() || index_data.1.is_some() {
            return Err(Error::unsupported("the values or indices of a sparse tensor are external data"));
        }
        let dense = Dense::new(value_data.0, index_data.0, coordinates, shape, size, info.bytes());
        initializer.tensor = Some(self.infos.len());
        self.notes.push(Note::info(format!("{:?} is sparse: it is read as the dense tensor", values.name)));
        self.infos.push(info);
        self.data.push(Data::lazy(dense));
        self.initializers.push(initializer);
        Ok(true)
    }

    /// Strings as values: a mapping of every initializer's name.
    fn string_values(&mut self, infos: &[TensorInfo]) -> Result<Option<Values>> {
        if self.strings.is_empty() {
            return Ok(None);
        }
        let mut values = Values::new();
        let mut dict = Dict::default();
        for (info, number) in infos.iter().zip(0..) {
            let key = values.push(Value::Str(info.name().into()))?;
            dict.entries.push((key, values.push(Value::Tensor(number))?));
        }
        for (name, list) in std::mem::take(&mut self.strings) {
            let key = values.push(Value::Str(name.into()))?;
            let texts = list.into_iter().map(|bytes| {
                values.push(match String::from_utf8(bytes) {
                    Ok(text) => Value::Str(text.into()),
                    Err(e) => Value::Bytes(e.into_bytes().into()),
                })
            });
            let texts: Vec<ValueId> = texts.collect::<Result<_>>()?;
            dict.entries.push((key, values.push(Value::List(texts))?));
        }
        let root = values.push(Value::Dict(Box::new(dict)))?;
        values.set_root(root);
        Ok(Some(values))
    }
}

/// How many tensors are in attributes, subgraphs, functions and training graphs, and whether some are external.
fn constants(model: &ModelProto) -> (u64, bool) {
    let (mut count, mut external) = (0u64, false);
    let mut graphs: Vec<&GraphProto> = Vec::new();
    let mut nodes: Vec<&NodeProto> = model.functions.iter().flat_map(|f| &f.node).collect();
    let mut attributes: Vec<&AttributeProto> =
        model.functions.iter().flat_map(|f| &f.attribute_proto).collect();
    // The main graph's own initializers are the archive's.
    nodes.extend(model.graph.iter().flat_map(|g| &g.node));
    graphs.extend(model.training_info.iter().flat_map(|t| t.initialization.iter().chain(&t.algorithm)));
    let mut add = |tensors: &[TensorProto], sparse: &[SparseTensorProto]| {
        count += (tensors.len() + sparse.len()) as u64;
        let parts = sparse.iter().flat_map(|s| s.values.iter().chain(&s.indices));
        external |= tensors.iter().chain(parts).any(|t| t.data_location == Some(1));
    };
    loop {
        if let Some(attribute) = attributes.pop() {
            add(attribute.t.as_deref().map(std::slice::from_ref).unwrap_or_default(), &[]);
            add(&attribute.tensors, &attribute.sparse_tensors);
            add(&[], attribute.sparse_tensor.as_deref().map(std::slice::from_ref).unwrap_or_default());
            graphs.extend(attribute.g.as_deref().into_iter().chain(&attribute.graphs));
        } else if let Some(node) = nodes.pop() {
            attributes.extend(&node.attribute);
        } else if let Some(graph) = graphs.pop() {
            add(&graph.initializer, &graph.sparse_initializer);
            nodes.extend(&graph.node);
        } else {
            return (count, external);
        }
    }
}
