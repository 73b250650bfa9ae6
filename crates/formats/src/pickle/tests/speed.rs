//! How long a pickle of a model with 20,000 tensors takes. Run with
//! `cargo test --release -p weighbridge-formats --features pickle speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use super::super::decode;
use crate::Limits;

/// The `data.pkl` that torch writes for a state dict of `n` vectors, each with a storage of its own.
pub(super) fn state_dict(n: u32) -> Vec<u8> {
    struct Out(Vec<u8>, u32);
    impl Out {
        fn raw(&mut self, bytes: &[u8]) {
            self.0.extend(bytes);
        }
        fn put(&mut self) {
            match u8::try_from(self.1) {
                Ok(i) => self.raw(&[b'q', i]),
                Err(_) => {
                    let i = self.1.to_le_bytes();
                    self.raw(b"r");
                    self.raw(&i);
                }
            }
            self.1 += 1;
        }
        fn text(&mut self, text: &str) {
            self.raw(b"X");
            self.raw(&(text.len() as u32).to_le_bytes());
            self.raw(text.as_bytes());
            self.put();
        }
    }
    let mut out = Out(b"\x80\x02}".to_vec(), 0);
    out.put();
    out.raw(b"(X\x07\0\0\0storageq\x01ctorch\nFloatStorage\nq\x02X\x03\0\0\0cpuq\x03");
    out.raw(b"ctorch._utils\n_rebuild_tensor_v2\nq\x04ccollections\nOrderedDict\nq\x051");
    out.1 = 6;
    out.raw(b"(");
    for i in 0..n {
        out.text(&format!("model.layers.{}.self_attn.q_proj.weight.{i}", i / 9));
        out.raw(b"h\x04((h\x01h\x02");
        out.text(&i.to_string());
        out.raw(b"h\x03M\x00\x10t");
        out.put();
        out.raw(b"QK\x00M\x00\x10\x85");
        out.put();
        out.raw(b"K\x01\x85");
        out.put();
        out.raw(b"\x89h\x05)R");
        out.put();
        out.raw(b"t");
        out.put();
        out.raw(b"R");
        out.put();
    }
    out.raw(b"u.");
    out.0
}

/// The shortest of twenty runs.
pub(super) fn best(mut run: impl FnMut()) -> Duration {
    (0..20)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}

#[test]
fn the_measured_pickle_is_what_it_says() {
    let decoded = decode(&state_dict(300), &Limits::default()).unwrap();
    assert_eq!(decoded.values.dict(decoded.values.root().unwrap()).unwrap().entries.len(), 300);
}

#[test]
#[ignore = "a measurement, meaningful in release builds only"]
fn twenty_thousand_tensors() {
    let pickle = state_dict(20_000);
    let mut values = 0;
    let with_drop = best(|| values = decode(&pickle, &Limits::default()).unwrap().values.len());
    let decoding = best(|| std::mem::forget(decode(&pickle, &Limits::default()).unwrap()));
    println!("{} bytes, {values} values: {decoding:?}, {with_drop:?} with dropping", pickle.len());
}

#[test]
#[ignore = "a measurement, meaningful in release builds only"]
fn twenty_thousand_tensors_encoded() {
    use super::super::{EncodeOptions, Encoder, encode};
    use crate::value::{Dict, DictKind};
    use crate::{Value, Values};

    let mut values = Values::new();
    let mut entries = Vec::new();
    for i in 0..20_000u32 {
        let name = format!("model.layers.{}.self_attn.q_proj.weight.{i}", i / 9);
        let name = values.push(Value::Str(name.into())).unwrap();
        entries.push((name, values.push(Value::Tensor(i)).unwrap()));
    }
    let dict = Dict { kind: DictKind::Ordered, entries, attributes: None };
    let root = values.push(Value::Dict(Box::new(dict))).unwrap();
    let mut tensor = |index: u32, out: &mut Encoder| {
        out.global("torch._utils", "_rebuild_tensor_v2")?;
        out.mark();
        out.mark();
        out.string("storage")?;
        out.global("torch", "FloatStorage")?;
        out.string(&index.to_string())?;
        out.string("cpu")?;
        out.int(4096);
        out.tuple();
        out.binpersid();
        out.int(0);
        out.int(4096);
        out.tuple1();
        out.int(1);
        out.tuple1();
        out.bool(false);
        out.empty_ordered_dict()?;
        out.tuple();
        out.reduce();
        Ok(())
    };
    let options = EncodeOptions { protocol: 2, ..EncodeOptions::default() };
    let mut length = 0;
    let time = best(|| length = encode(&values, root, &options, &mut tensor).unwrap().len());
    println!("{length} bytes encoded in {time:?}");
}
