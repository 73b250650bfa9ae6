//! TensorFlow Lite files: the operators that are not TensorFlow Lite's own.
//!
//! A file is a FlatBuffer: tables point to vectors and strings by offsets, which are followed here for the operators
//! only. The numbers of fields are those of the schema, version 3.

use weighbridge_formats::{Error, Result, Source};

use super::super::report::{Severity, Verdict};
use super::super::subject::{Role, Sink, Subject};
use super::operators::judge;

/// The operator code that stands for one of another library.
const CUSTOM: i64 = 32;
/// The most operators.
const MOST: u64 = 10_000;
/// Custom operators that the library brings along.
const BROUGHT: &[&str] = &[
    "AudioSpectrogram",
    "HashtableLookup",
    "Mfcc",
    "NumericVerify",
    "Relu1",
    "TFLite_Detection_PostProcess",
    "Convolution2DTransposeBias",
    "MaxPoolingWithArgmax2D",
    "MaxUnpooling2D",
];

/// Whether a subject has the format's mark.
pub(crate) fn fits(subject: &Subject<'_>) -> bool {
    subject.role == Role::Anything && subject.head.get(4..8) == Some(b"TFL3")
}

/// Looks at a file.
pub(crate) fn inspect(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let file = File(subject.source);
    let root = file.number(0, 4)?;
    let Some(codes) = file.field(root, 1)?.map(|at| file.follow(at)).transpose()? else { return Ok(()) };
    let count = file.number(codes, 4)?;
    if count > MOST {
        return Err(Error::limit(format!("{count} operators")).at_offset(codes));
    }
    for i in 0..count {
        let code = file.follow(codes + 4 + 4 * i)?;
        let old = file.field(code, 0)?.map(|at| file.number(at, 1)).transpose()?.unwrap_or_default() as i8;
        let new = file.field(code, 3)?.map(|at| file.number(at, 4)).transpose()?.unwrap_or_default() as i32;
        let name = file.field(code, 1)?.map(|at| file.text(at)).transpose()?;
        // Newer files have the number twice, since one byte did not do; the larger one counts.
        if i64::from(new).max(old.into()) != CUSTOM && name.is_none() {
            continue;
        }
        let name = name.unwrap_or_default();
        if BROUGHT.contains(&name.as_str()) {
            continue;
        }
        let (verdict, why) = match name.strip_prefix("Flex").map(judge) {
            Some(None) => continue,
            Some(Some(found)) => found,
            None => (Verdict::Unknown, "it is not TensorFlow Lite's; what runs it is a library of someone's"),
        };
        let what = format!("the graph has the operator {name:?}: {why}");
        let mut found = subject.finding("tensorflow-operator", verdict, what).at(code).callable(name);
        if verdict == Verdict::Unknown {
            found.severity = Severity::Medium;
        }
        sink.finding(found);
    }
    Ok(())
}

/// A FlatBuffer.
struct File<'a>(&'a Source);

impl File<'_> {
    fn number(&self, at: u64, len: usize) -> Result<u64> {
        let mut bytes = [0; 8];
        let part = bytes.get_mut(..len).unwrap_or_default();
        self.0.reader().read_at(at, part)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Where an offset leads.
    fn follow(&self, at: u64) -> Result<u64> {
        Ok(at.saturating_add(self.number(at, 4)?))
    }

    /// Where a field of a table is, if it has it.
    fn field(&self, table: u64, number: u64) -> Result<Option<u64>> {
        let back = self.number(table, 4)? as u32 as i32;
        let fields = table.checked_add_signed(-i64::from(back));
        let fields = fields.ok_or_else(|| Error::malformed("a table without its fields").at_offset(table))?;
        if 4 + 2 * number >= self.number(fields, 2)? {
            return Ok(None);
        }
        let offset = self.number(fields.saturating_add(4 + 2 * number), 2)?;
        Ok((offset != 0).then(|| table.saturating_add(offset)))
    }

    fn text(&self, at: u64) -> Result<String> {
        let start = self.follow(at)?;
        let len = self.number(start, 4)?.min(200);
        let mut bytes = vec![0; len as usize];
        self.0.reader().read_at(start.saturating_add(4), &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
