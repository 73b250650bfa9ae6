//! The fuzz targets ([`targets`]) and what they share: limits that keep one input quick, reading everything, and comparing two archives.

pub mod bytes;
pub mod folder;
pub mod targets;

use weighbridge_formats::{
    Archive, Data, ErrorKind, Limits, ReadAt, ReadOptions, Registry, Result, Source, Value, ValueId, Values,
};

/// Limits under which no input keeps the fuzzer busy: what is within them must be quick.
pub fn options() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.limits = Limits {
        values: 200_000,
        header_bytes: 16 << 20,
        expanded_bytes: 1 << 20,
        inflated_bytes: 1 << 20,
        unpacked_bytes: 4 << 20,
        declared_bytes: 64 << 20,
        ..Limits::default()
    };
    options
}

/// Opens bytes with the reader of a format, or by their content.
pub fn open(format: Option<&str>, bytes: &[u8]) -> Result<Box<dyn Archive>> {
    let registry = Registry::builtin();
    let source = Source::from_bytes(bytes);
    match format {
        Some(format) => registry.deserializer(format)?.open(source, &options()),
        None => registry.open(source, &options()),
    }
}

/// A tensor's bytes through a small buffer, as a checksum.
pub fn digest(data: &Data<'_>) -> Result<u64> {
    let (mut at, mut sum) = (0, 0xcbf2_9ce4_8422_2325u64);
    let mut buffer = [0; 4096];
    while at < data.len() {
        let step = (data.len() - at).min(4096) as usize;
        data.read_at(at, &mut buffer[..step])?;
        for &byte in &buffer[..step] {
            sum = (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        at += step as u64;
    }
    data.finish()?;
    Ok(sum)
}

/// Asks an archive for everything that it has.
pub fn exhaust(archive: &dyn Archive) {
    let _ = (archive.variety(), archive.notes().len(), archive.metadata().len(), archive.files());
    for (i, info) in archive.tensors().iter().enumerate() {
        if let Ok(data) = archive.data(i) {
            assert_eq!(data.len(), info.bytes(), "{}", info.name());
            let _ = digest(&data);
        }
    }
    for i in 0..archive.storages().len() {
        if let Ok(data) = archive.storage_data(i) {
            assert_eq!(data.len(), archive.storages()[i].bytes);
        }
    }
    if let Some((values, root)) = archive.values().and_then(|v| Some((v, v.root()?))) {
        let tensors = archive.tensors().len();
        let reachable = values.reachable(root);
        for (id, value) in values.iter() {
            if let Value::Tensor(i) = value
                && reachable[id.index()]
            {
                assert!((*i as usize) < tensors, "a value names tensor {i} of {tensors}");
            }
        }
    }
}

/// Whether two graphs of values are the same, node by node from the roots; how far sharing goes is not looked at.
pub fn same_values(a: &Values, b: &Values) -> bool {
    let (Some(x), Some(y)) = (a.root(), b.root()) else { return a.root().is_none() == b.root().is_none() };
    let mut seen = std::collections::HashSet::new();
    let mut stack = vec![(x, y)];
    while let Some((x, y)) = stack.pop() {
        if !seen.insert((x, y)) {
            continue;
        }
        // Pairs multiply where both share much: what was compared so far has to do.
        if seen.len() > 100_000 {
            return true;
        }
        if !same_leaf(a.get(x), b.get(y)) {
            return false;
        }
        let parts = |values: &Values, id: ValueId| {
            let mut parts = Vec::new();
            values.parts(id, |p| parts.push(p));
            parts
        };
        let (p, q) = (parts(a, x), parts(b, y));
        if p.len() != q.len() {
            return false;
        }
        stack.extend(p.into_iter().zip(q));
    }
    true
}

fn same_leaf(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(x), Value::Float(y)) => x.to_bits() == y.to_bits(),
        (Value::Complex(p, q), Value::Complex(r, s)) => {
            p.to_bits() == r.to_bits() && q.to_bits() == s.to_bits()
        }
        (Value::Dict(x), Value::Dict(y)) => x.kind == y.kind,
        (Value::Object(x), Value::Object(y)) => x.construct == y.construct,
        (Value::List(_), Value::List(_))
        | (Value::Tuple(_), Value::Tuple(_))
        | (Value::Set(_), Value::Set(_))
        | (Value::FrozenSet(_), Value::FrozenSet(_))
        | (Value::Persistent(_), Value::Persistent(_)) => true,
        (x, y) => x == y,
    }
}

/// The kinds of error that writing something odd may have; any other is a fault of the writer.
pub fn is_refusal(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidOptions
            | ErrorKind::UnsafeContent
            | ErrorKind::Unsupported
            | ErrorKind::LimitExceeded
            | ErrorKind::Malformed
            | ErrorKind::Mismatch
            | ErrorKind::NotFound
    )
}
