//! Whether two archives hold the same: tensors to the byte, values with what they share.

use std::collections::HashMap;

use weighbridge_formats::value::{Construct, DictKind};
use weighbridge_formats::{Archive, Data, ErrorKind, ReadAt, Result, TensorInfo, Value, ValueId, Values};

/// All bytes of a tensor, read in pieces, with the check at the end.
///
/// # Errors
/// What reading says.
pub fn bytes_of(data: &Data<'_>) -> Result<Vec<u8>> {
    data.read_all()
}

/// Reads all bytes of a tensor through one small buffer and forgets them; returns their checksum.
///
/// # Errors
/// What reading says.
pub fn digest_of(data: &Data<'_>) -> Result<u64> {
    let (len, mut at, mut sum) = (data.len(), 0u64, 0xcbf2_9ce4_8422_2325u64);
    let mut buffer = vec![0; len.min(64 << 10) as usize];
    while at < len {
        let step = (len - at).min(buffer.len() as u64) as usize;
        data.read_at(at, &mut buffer[..step])?;
        for chunk in buffer[..step].chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
        }
        at += step as u64;
    }
    data.finish()?;
    Ok(sum ^ len)
}

/// What a tensor is, for a comparison: name, dtype, shape, and a digest of its bytes.
pub type Summary = (String, String, Vec<u64>, u64);

/// A summary of every tensor, sorted by name: all bytes are read. A tensor that its file describes and has no data
/// for (one on torch's meta device) has a digest of 0.
///
/// # Errors
/// What reading says.
pub fn summary(archive: &dyn Archive) -> Result<Vec<Summary>> {
    let mut out = Vec::with_capacity(archive.tensors().len());
    for (i, info) in archive.tensors().iter().enumerate() {
        let digest = match archive.data(i) {
            Ok(data) => digest_of(&data)?,
            Err(e) if e.kind() == ErrorKind::Unsupported => 0,
            Err(e) => return Err(e),
        };
        out.push((info.name().to_owned(), info.dtype().to_string(), info.shape().to_vec(), digest));
    }
    out.sort();
    Ok(out)
}

/// Asserts that two archives have the same tensors by name.
///
/// # Panics
/// If they have not, naming the first that differs; and if one cannot be read.
pub fn assert_same_tensors(a: &dyn Archive, b: &dyn Archive, what: &str) {
    let index: HashMap<&str, usize> = b.tensors().iter().enumerate().map(|(i, t)| (t.name(), i)).collect();
    assert_eq!(a.tensors().len(), b.tensors().len(), "{what}: the number of tensors");
    for (i, info) in a.tensors().iter().enumerate() {
        let Some(&j) = index.get(info.name()) else { panic!("{what}: {:?} is gone", info.name()) };
        assert_same_tensor(a, i, b, j, what);
    }
}

fn assert_same_tensor(a: &dyn Archive, i: usize, b: &dyn Archive, j: usize, what: &str) {
    let (x, y) = (&a.tensors()[i], &b.tensors()[j]);
    let described = |t: &TensorInfo| (t.dtype(), t.shape().to_vec(), t.elements(), t.bytes());
    assert_eq!(described(x), described(y), "{what}: {:?}", x.name());
    let read = |archive: &dyn Archive, at: usize| {
        archive.data(at).and_then(|d| bytes_of(&d)).unwrap_or_else(|e| panic!("{what}: {e:?}"))
    };
    assert!(read(a, i) == read(b, j), "{what}: {:?} has other bytes", x.name());
}

/// Asserts that the values of two archives describe the same graph, and that the tensors in it are the same,
/// whatever their names.
///
/// # Panics
/// If they do not.
pub fn assert_same_values(a: &dyn Archive, b: &dyn Archive, what: &str) {
    let (Some(x), Some(y)) = (a.values(), b.values()) else {
        panic!("{what}: one archive has no values");
    };
    let (Some(from), Some(to)) = (x.root(), y.root()) else { panic!("{what}: no root") };
    // Two graphs are the same if walking them together never meets a difference, and never meets one node of the
    // one beside two nodes of the other where sharing can be seen: in what can be changed.
    let (mut there, mut back) = (HashMap::new(), HashMap::new());
    let mut stack = vec![(from, to)];
    while let Some((from, to)) = stack.pop() {
        match there.get(&from) {
            Some(known) if *known == to => continue,
            Some(_) if is_mutable(x.get(from)) => panic!("{what}: a shared value became two"),
            _ => {}
        }
        there.insert(from, to);
        if let Some(known) = back.insert(to, from)
            && known != from
            && is_mutable(y.get(to))
        {
            panic!("{what}: two values became one");
        }
        if let (&Value::Tensor(i), &Value::Tensor(j)) = (x.get(from), y.get(to)) {
            assert_same_tensor(a, i as usize, b, j as usize, what);
            continue;
        }
        let (mine, theirs) = (node(x, from), node(y, to));
        assert_eq!(mine.0, theirs.0, "{what}");
        assert_eq!(mine.1.len(), theirs.1.len(), "{what}: the parts of {}", mine.0);
        stack.extend(mine.1.into_iter().zip(theirs.1));
    }
}

fn is_mutable(value: &Value) -> bool {
    matches!(value, Value::List(_) | Value::Dict(_) | Value::Set(_) | Value::Object(_))
}

/// A value without its parts, as text, and its parts.
fn node(values: &Values, id: ValueId) -> (String, Vec<ValueId>) {
    let mut parts = Vec::new();
    values.parts(id, |part| parts.push(part));
    let text = match values.get(id) {
        Value::List(_) => "list".into(),
        Value::Tuple(_) => "tuple".into(),
        Value::Set(_) => "set".into(),
        Value::FrozenSet(_) => "frozenset".into(),
        Value::Dict(d) => {
            let kind = match d.kind {
                DictKind::Dict => "dict",
                DictKind::Ordered => "ordered dict",
                DictKind::Counter => "counter",
            };
            format!("{kind}, attributes: {}", d.attributes.is_some())
        }
        Value::Persistent(_) => "persistent id".into(),
        Value::Object(o) => {
            let how = match o.construct {
                Construct::Call => "call",
                Construct::New => "new",
                Construct::NewEx => "newex",
                Construct::Extension => "extension",
            };
            format!(
                "{how}, kwargs {}, state {}, {} items, {} entries",
                o.kwargs.is_some(),
                o.state.is_some(),
                o.items.len(),
                o.entries.len()
            )
        }
        // A NaN is not equal to itself; its bits are.
        Value::Float(x) => format!("float {:016x}", x.to_bits()),
        Value::Complex(re, im) => format!("complex {:016x} {:016x}", re.to_bits(), im.to_bits()),
        other => format!("{other:?}"),
    };
    (text, parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge_formats::MemoryArchive;

    fn with_list(parts: impl FnOnce(&mut Values) -> Vec<ValueId>) -> MemoryArchive<'static> {
        let mut values = Values::new();
        let parts = parts(&mut values);
        let root = values.push(Value::List(parts)).unwrap();
        values.set_root(root);
        MemoryArchive::new([]).unwrap().with_values(values)
    }

    fn shared() -> MemoryArchive<'static> {
        with_list(|v| {
            let inner = v.push(Value::List(vec![])).unwrap();
            vec![inner, inner]
        })
    }

    fn apart() -> MemoryArchive<'static> {
        with_list(|v| vec![v.push(Value::List(vec![])).unwrap(), v.push(Value::List(vec![])).unwrap()])
    }

    #[test]
    fn equal_graphs_are_equal() {
        assert_same_values(&shared(), &shared(), "shared");
        assert_same_values(&apart(), &apart(), "apart");
    }

    #[test]
    #[should_panic(expected = "a shared value became two")]
    fn splitting_is_seen() {
        assert_same_values(&shared(), &apart(), "test");
    }

    #[test]
    #[should_panic(expected = "two values became one")]
    fn joining_is_seen() {
        assert_same_values(&apart(), &shared(), "test");
    }

    #[test]
    #[should_panic(expected = "float")]
    fn the_sign_of_zero_is_seen() {
        let zero = |x| with_list(|v| vec![v.push(Value::Float(x)).unwrap()]);
        assert_same_values(&zero(0.0), &zero(-0.0), "test");
    }
}
