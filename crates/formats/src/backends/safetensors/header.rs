//! The header: one pass over its JSON, then the rules of the layout.
//!
//! Whatever the reference refuses is refused. Beyond that, these are errors here: a name given twice (the
//! reference keeps the last), a metadata key given twice, white space before the first brace, anything but spaces
//! behind the last one, and tensors described by a list or a dtype by an object, which serde would take. As in the
//! reference, unknown fields of a tensor are skipped, `"__metadata__": null` is no metadata, a name may be empty,
//! and the entries may stand in any order.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::MAX_HEADER;
use crate::account::{Account, TENSOR, block};
use crate::archive::Metadata;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::json::{Feed, Lexer};
use crate::limits::Limits;
use crate::source::{Source, TRUNCATED};
use crate::tensor::{Shape, TensorInfo};

/// What a header says.
pub(super) struct Header {
    /// The tensors by their offset in the file.
    pub(super) tensors: Vec<TensorInfo>,
    /// Where each tensor begins, counted from the first byte behind the header.
    pub(super) offsets: Vec<u64>,
    /// The metadata in the order of the file.
    pub(super) metadata: Metadata,
    /// Where the tensors' bytes begin in the file.
    pub(super) data_at: u64,
    /// What is left of the file's account.
    pub(super) account: Account,
}

/// The most dimensions of a tensor. torch has 64.
const MOST_DIMS: usize = 1024;
/// The most tensors for which room is made before they are met.
const MOST_RESERVED: usize = 1 << 16;

impl Header {
    /// Reads and checks the header of a file.
    pub(super) fn read(source: &Source, limits: &Limits) -> Result<Self> {
        let len = source.len();
        if len < 8 {
            let what = format!("the file has {len} bytes; a safetensors file begins with a length of 8");
            return Err(Error::malformed(what).with_hint(TRUNCATED));
        }
        let mut prefix = [0; 8];
        source.reader().read_at(0, &mut prefix)?;
        let header_len = u64::from_le_bytes(prefix);
        if header_len > MAX_HEADER {
            let what =
                format!("the header claims {header_len} bytes; the format allows at most {MAX_HEADER}");
            return Err(Error::malformed(what).at_offset(0));
        }
        if header_len > len - 8 {
            let what = format!("the header claims {header_len} bytes, and only {} follow", len - 8);
            return Err(Error::malformed(what).at_offset(0).with_hint(TRUNCATED));
        }
        if header_len > limits.header_bytes {
            let what = format!("the header claims {header_len} bytes; the limit is {}", limits.header_bytes);
            return Err(Error::limit(what).at_offset(0).with_hint("raise Limits::header_bytes"));
        }
        Self::parse(source, header_len, limits)
    }

    /// Parses the header, of so many bytes behind its length.
    fn parse(source: &Source, header_len: u64, limits: &Limits) -> Result<Self> {
        let data_at = 8 + header_len;
        let data_len = source.len() - data_at;
        let mut account = Account::of(limits, source.len());
        let reader = &**source.reader();
        let mut first = [0];
        if header_len > 0 {
            reader.read_at(8, &mut first)?;
        }
        if first != *b"{" {
            return Err(Error::malformed("the header does not begin with '{'").at_offset(8));
        }
        let mut feed = Feed::new(reader, 8, data_at, limits.memory / 4);
        let mut found = Entries::default();
        // A hundred bytes is a usual entry. A wrong guess costs a move.
        let guess = usize::try_from(header_len / 96).unwrap_or(0).min(MOST_RESERVED);
        found.tensors.reserve(guess);
        found.spans.reserve(guess);
        found.hashes.reserve(guess);
        let mut seen_metadata = false;
        let mut more = feed.open(b'{', b'}')?;
        while more {
            feed.blanks()?;
            let at = feed.offset();
            match feed.step(entry)? {
                Entry::Metadata => {
                    if std::mem::replace(&mut seen_metadata, true) {
                        return Err(Error::malformed("__metadata__ is given twice").at_offset(at));
                    }
                    found.metadata = metadata(&mut feed, &mut account)?;
                    more = feed.more(b'}')?;
                }
                Entry::Tensor(name, described, behind) => {
                    if found.tensors.len() as u64 >= limits.entries {
                        let what = format!("more than {} tensors", limits.entries);
                        return Err(Error::limit(what).at_offset(at));
                    }
                    let dims = if described.shape.spilled() { block(8 * described.shape.len()) } else { 0 };
                    account.charge(TENSOR + block(16 + name.len()) + dims).map_err(|e| e.at_offset(at))?;
                    found.add(&name, described).map_err(|e| e.with_tensor(&*name))?;
                    more = match behind {
                        Some(more) => more,
                        None => feed.more(b'}')?,
                    };
                }
            }
        }
        if feed.step(|lexer| Ok(lexer.rest().iter().any(|&b| b != b' ')))? || feed.blanks()?.is_some() {
            let what = "something other than spaces follows the header's last brace";
            return Err(Error::malformed(what).at_offset(feed.offset()));
        }
        found.sort();
        found.check(data_at, data_len)?;
        let offsets = found.spans.iter().map(|s| s.0).collect();
        Ok(Self { tensors: found.tensors, offsets, metadata: found.metadata, data_at, account })
    }
}

/// An entry of the header.
enum Entry {
    /// The key of the metadata, which follow.
    Metadata,
    /// A tensor; and whether another entry follows, where the comma or brace stands right behind it.
    Tensor(String, Described, Option<bool>),
}

/// What a tensor's entry says.
struct Described {
    dtype: DType,
    shape: Shape,
    span: (u64, u64),
    at: u64,
}

/// Takes an entry, but of the metadata no more than the key.
fn entry(lexer: &mut Lexer<'_>) -> Result<Entry> {
    let key = lexer.key()?;
    if key == "__metadata__" {
        return Ok(Entry::Metadata);
    }
    let described = described(lexer).map_err(|e| e.with_tensor(&*key))?;
    let more = match lexer.rest().first() {
        Some(b',' | b'}') => Some(lexer.more(b'}')?),
        _ => None,
    };
    Ok(Entry::Tensor(key.into_owned(), described, more))
}

/// `null`, or an object of strings.
fn metadata(feed: &mut Feed<'_>, account: &mut Account) -> Result<Metadata> {
    let mut out = Metadata::new();
    feed.blanks()?;
    if feed.step(|lexer| Ok(lexer.literal("null")))? {
        return Ok(out);
    }
    let mut keys: HashSet<u64> = HashSet::new();
    let hasher = RandomState::new();
    let mut more = feed.open(b'{', b'}')?;
    while more {
        feed.blanks()?;
        let at = feed.offset();
        let (key, value) = feed.step(|lexer| {
            let key = lexer.key()?;
            if lexer.peek() != Some(b'"') {
                return Err(lexer.error(format!("the metadata entry {key:?} is no string")));
            }
            Ok((key.into_owned(), lexer.string()?.into_owned()))
        })?;
        // Twice, for who prints or copies them.
        let taken = 2 * (block(key.len()) + block(value.len()) + size_of::<(String, String)>() as u64);
        account.charge(taken).map_err(|e| e.at_offset(at))?;
        if !keys.insert(hasher.hash_one(&key)) && out.iter().any(|(known, _)| *known == key) {
            return Err(Error::malformed(format!("the metadata entry {key:?} is given twice")).at_offset(at));
        }
        out.push((key, value));
        more = feed.more(b'}')?;
    }
    Ok(out)
}

#[derive(Default)]
struct Entries {
    tensors: Vec<TensorInfo>,
    spans: Vec<(u64, u64)>,
    /// Of the names, in the order of the file, by a key that the file's author cannot know.
    hashes: Vec<u64>,
    hasher: RandomState,
    metadata: Metadata,
}

/// Takes one tensor's description.
fn described(lexer: &mut Lexer<'_>) -> Result<Described> {
    {
        let at = lexer.offset();
        if let Some((dtype, shape, span)) = compact(lexer) {
            return Ok(Described { dtype, shape, span, at });
        }
        let (mut dtype, mut shape, mut span) = (None, None, None);
        if lexer.open(b'{', b'}')? {
            loop {
                let at = lexer.offset();
                let twice = match &*lexer.key()? {
                    "dtype" => {
                        let at = lexer.offset();
                        let text = lexer.string()?;
                        let known = DType::from_name(&text).filter(|d| d.in_safetensors());
                        let Some(known) = known else {
                            return Err(unknown_dtype(&text).at_offset(at));
                        };
                        dtype.replace(known).is_some()
                    }
                    "shape" => {
                        let mut dims = Shape::new();
                        if lexer.open(b'[', b']')? {
                            loop {
                                if dims.len() == MOST_DIMS {
                                    let what = format!("a shape has more than {MOST_DIMS} dimensions");
                                    return Err(Error::limit(what)
                                        .at_offset(lexer.offset())
                                        .with_hint("no tensor has so many: do not trust this file"));
                                }
                                dims.push(lexer.unsigned()?);
                                if !lexer.more(b']')? {
                                    break;
                                }
                            }
                        }
                        shape.replace(dims).is_some()
                    }
                    "data_offsets" => {
                        lexer.expect(b'[')?;
                        let begin = lexer.unsigned()?;
                        lexer.expect(b',')?;
                        let end = lexer.unsigned()?;
                        lexer.expect(b']')?;
                        span.replace((begin, end)).is_some()
                    }
                    _ => {
                        lexer.skip()?;
                        false
                    }
                };
                if twice {
                    return Err(Error::malformed("a field is given twice").at_offset(at));
                }
                if !lexer.more(b'}')? {
                    break;
                }
            }
        }
        let missing = |what: &'static str| Error::malformed(what).at_offset(at);
        let dtype = dtype.ok_or_else(|| missing("there is no dtype"))?;
        let shape = shape.ok_or_else(|| missing("there is no shape"))?;
        let span = span.ok_or_else(|| missing("there are no data_offsets"))?;
        Ok(Described { dtype, shape, span, at })
    }
}

/// Whether a shape's product is too large for a header. The reference multiplies from the left, and refuses an overflow even
/// where a zero follows.
pub(super) fn overflows(shape: &[u64]) -> bool {
    shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).is_none()
}

impl Entries {
    /// Keeps a tensor.
    fn add(&mut self, name: &str, described: Described) -> Result<()> {
        let Described { dtype, shape, span, at } = described;
        if overflows(&shape) {
            return Err(Error::malformed("the shape's product overflows").at_offset(at));
        }
        let info = TensorInfo::new(name, dtype, shape).map_err(|e| e.at_offset(at))?;
        self.hashes.push(self.hasher.hash_one(name));
        self.tensors.push(info);
        self.spans.push(span);
        Ok(())
    }

    /// Puts the tensors in the order of their bytes. Every known writer has them so already.
    fn sort(&mut self) {
        if self.spans.is_sorted() {
            return;
        }
        let tensors = std::mem::take(&mut self.tensors);
        let mut both: Vec<_> = std::mem::take(&mut self.spans).into_iter().zip(tensors).collect();
        both.sort_by_key(|(span, _)| *span);
        (self.spans, self.tensors) = both.into_iter().unzip();
    }

    /// Checks names, sizes, and that the tensors fill the data without holes or overlaps.
    fn check(&self, data_at: u64, data_len: u64) -> Result<()> {
        let mut end_before = 0u64;
        for (info, &(begin, end)) in self.tensors.iter().zip(&self.spans) {
            let place = |e: Error| e.with_tensor(info.name()).at_offset(data_at.saturating_add(begin));
            if begin != end_before {
                let what = if begin < end_before { "overlaps the tensor before" } else { "leaves a hole" };
                let text =
                    format!("data_offsets [{begin}, {end}] {what}: the bytes so far end at {end_before}");
                return Err(place(Error::malformed(text)));
            }
            if end.checked_sub(begin) != Some(info.bytes()) {
                let (shape, dtype, bytes) = (info.shape(), info.dtype(), info.bytes());
                let text = format!(
                    "data_offsets [{begin}, {end}] do not fit shape {shape:?} of {dtype}, which takes {bytes} bytes"
                );
                return Err(place(Error::malformed(text)));
            }
            end_before = end;
        }
        if end_before != data_len {
            let (wanted, found) = (data_at.saturating_add(end_before), data_at + data_len);
            let text = format!("the tensors take {wanted} bytes, header included, and the file has {found}");
            let error = Error::malformed(text).at_offset(wanted.min(found));
            return Err(if found < wanted { error.with_hint(TRUNCATED) } else { error });
        }
        if !has_repeats(&self.hashes) {
            return Ok(());
        }
        let mut names = HashSet::with_capacity(self.tensors.len());
        match self.tensors.iter().find(|t| !names.insert(t.name())) {
            Some(twice) => Err(Error::malformed("two tensors have this name").with_tensor(twice.name())),
            None => Ok(()),
        }
    }
}

/// Takes a description that is spelled as every known writer spells it, without white space or escapes and with its
/// fields in this order. For anything else nothing is taken.
fn compact(lexer: &mut Lexer<'_>) -> Option<(DType, Shape, (u64, u64))> {
    let mut ahead = lexer.clone();
    let text = |l: &mut Lexer<'_>, text: &str| l.take_text(text).then_some(());
    text(&mut ahead, "{\"dtype\":\"")?;
    let dtype = DType::from_name(ahead.take_word()?).filter(|d| d.in_safetensors())?;
    text(&mut ahead, ",\"shape\":[")?;
    let mut shape = Shape::new();
    if !ahead.take_text("]") {
        loop {
            if shape.len() == MOST_DIMS {
                return None;
            }
            shape.push(ahead.take_digits()?);
            if ahead.take_text("]") {
                break;
            }
            text(&mut ahead, ",")?;
        }
    }
    text(&mut ahead, ",\"data_offsets\":[")?;
    let begin = ahead.take_digits()?;
    text(&mut ahead, ",")?;
    let end = ahead.take_digits()?;
    text(&mut ahead, "]}")?;
    *lexer = ahead;
    Some((dtype, shape, (begin, end)))
}

/// Whether a number stands twice in a list of hashes. A table of bare hashes is a quarter of one of names, and most
/// of the time goes into reaching memory.
fn has_repeats(hashes: &[u64]) -> bool {
    let mask = (hashes.len() * 2).next_power_of_two() - 1;
    let mut table = vec![0u64; mask + 1];
    for &hash in hashes {
        let hash = hash | 1; // Zero marks an empty place.
        let mut at = (hash >> 1) as usize & mask;
        while table[at] != 0 {
            if table[at] == hash {
                return true;
            }
            at = (at + 1) & mask;
        }
        table[at] = hash;
    }
    false
}

#[cold]
fn unknown_dtype(text: &str) -> Error {
    let error = Error::malformed(format!("the dtype {text:?} is unknown"));
    match DType::parse(text).filter(|d| d.in_safetensors()) {
        Some(meant) => error.with_hint(format!("safetensors spells it {:?}", meant.name())),
        None => error,
    }
}
