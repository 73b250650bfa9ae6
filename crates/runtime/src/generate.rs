//! Inputs made up for a model by the names and types that it declares: the same for the same seed.

use std::collections::BTreeMap;

use weighbridge_formats::{DType, Error, Result};

use crate::array::Array;
use crate::eval::{Arrays, Graph, Port, Size};

/// Sizes of a model's named dimensions.
pub type Sizes = BTreeMap<String, u64>;

/// How inputs are made up.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    /// Where the row of numbers begins.
    pub seed: u64,
    /// Sizes of named dimensions; the others are found by what their names say, and are small.
    pub sizes: Sizes,
    /// How many tokens there are; `None` for the rows of the embedding that the graph reads them from.
    pub vocabulary: Option<u64>,
}

/// Numbers that look random: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normally distributed, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let (a, b) = (self.unit().max(1e-300), self.unit());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

/// The size of a named dimension. `a + b` is the sum of both, as exporters write the length with the cache.
fn size_of(name: &str, sizes: &Sizes) -> u64 {
    if let Some(&n) = sizes.get(name) {
        return n;
    }
    if let Some((a, b)) = name.split_once('+') {
        return size_of(a.trim(), sizes).saturating_add(size_of(b.trim(), sizes));
    }
    let lower = name.to_ascii_lowercase();
    let total = lower.contains("total");
    match () {
        () if lower.contains("batch") => 2,
        () if total => {
            let find = |part: &str| {
                sizes.iter().find(|(n, _)| n.to_ascii_lowercase().contains(part)).map(|(_, n)| *n)
            };
            find("past").unwrap_or(3).saturating_add(
                sizes
                    .iter()
                    .find(|(n, _)| {
                        n.to_ascii_lowercase().contains("seq") && !n.to_ascii_lowercase().contains("past")
                    })
                    .map_or(6, |(_, n)| *n),
            )
        }
        () if lower.contains("past") => 3,
        () if lower.contains("seq") || lower.contains("len") => 6,
        () if lower.contains("height") || lower.contains("width") => 32,
        () => 4,
    }
}

/// The shape of an input with every dimension a number.
fn shape_of(port: &Port, options: &GenerateOptions) -> Result<Vec<u64>> {
    let Some(shape) = &port.shape else {
        return Err(Error::unsupported("an input of any number of dimensions").with_tensor(&port.name));
    };
    Ok(shape
        .iter()
        .enumerate()
        .map(|(i, size)| match size {
            Size::Fixed(n) => *n,
            Size::Named(name) => size_of(name, &options.sizes),
            Size::Any if i == 0 => 2,
            Size::Any => 6,
        })
        .collect())
}

/// The most bytes of one input.
const LARGEST: u64 = 4 << 30;

/// Makes up inputs. Names that exporters of language models use get what belongs there: `input_ids` below the size of the
/// vocabulary, an `attention_mask` whose last rows are padded behind (before, in the decoders' order, where there is a
/// cache), segments, positions that count. Other integers are 0 or 1, and floats are normally distributed.
///
/// # Errors
/// `Unsupported` for inputs whose number of dimensions is open, or of types that are not made up; `LimitExceeded` for
/// sizes beyond all sense.
pub fn generate(graph: Option<&Graph<'_>>, ports: &[Port], options: &GenerateOptions) -> Result<Arrays> {
    let mut random = Random(options.seed ^ 0x5eed);
    let mut out = Arrays::new();
    let past = ports
        .iter()
        .find(|p| p.name.starts_with("past_key"))
        .map(|p| shape_of(p, options))
        .transpose()?
        .and_then(|s| s.get(2).copied())
        .unwrap_or(0);
    for port in ports {
        let Some(dtype) = port.dtype else {
            return Err(Error::unsupported("an input that is no tensor of numbers").with_tensor(&port.name));
        };
        let shape = shape_of(port, options)?;
        let n = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        let n = n.filter(|&n| n.saturating_mul(8) <= LARGEST).ok_or_else(|| {
            Error::limit(format!("an input of shape {shape:?} is not made up")).with_tensor(&port.name)
        })?;
        let row = shape.last().copied().unwrap_or(1).max(1);
        let values: Vec<f64> = match port.name.as_str() {
            "input_ids" | "decoder_input_ids" => {
                let rows =
                    || graph.and_then(|g| g.tables_of(&port.name).first().and_then(|s| s.first().copied()));
                let tokens = options.vocabulary.or_else(rows).unwrap_or(2).max(1);
                (0..n).map(|_| random.below(tokens) as f64).collect()
            }
            // Every second row is padded by a third of what is new in it.
            "attention_mask" | "encoder_attention_mask" if shape.len() == 2 => {
                let padded = |i: u64| (i / row) % 2 == 1;
                let left = past > 0;
                let gap = (row - past.min(row)) / 3;
                let hidden = |i: u64| if left { i % row < gap } else { i % row >= row - gap };
                (0..n).map(|i| f64::from(u8::from(!(padded(i) && hidden(i))))).collect()
            }
            "position_ids" => (0..n).map(|i| (past + i % row) as f64).collect(),
            "token_type_ids" => (0..n).map(|i| f64::from(u8::from(i % row >= row.div_ceil(2)))).collect(),
            _ if matches!(dtype, DType::F16 | DType::Bf16 | DType::F32 | DType::F64) => {
                (0..n).map(|_| random.normal()).collect()
            }
            _ => (0..n).map(|_| random.below(2) as f64).collect(),
        };
        out.insert(
            port.name.clone(),
            of_dtype(dtype, shape, &values).map_err(|e| e.with_tensor(&port.name))?,
        );
    }
    Ok(out)
}

fn of_dtype(dtype: DType, shape: Vec<u64>, values: &[f64]) -> Result<Array> {
    macro_rules! of {
        ($type:ty) => {
            Array::of(shape, &values.iter().map(|&x| x as $type).collect::<Vec<$type>>())
        };
    }
    match dtype {
        DType::F32 => of!(f32),
        DType::F64 => of!(f64),
        DType::F16 => Array::of(shape, &values.iter().map(|&x| half::f16::from_f64(x)).collect::<Vec<_>>()),
        DType::Bf16 => Array::of(shape, &values.iter().map(|&x| half::bf16::from_f64(x)).collect::<Vec<_>>()),
        DType::I8 => of!(i8),
        DType::I16 => of!(i16),
        DType::I32 => of!(i32),
        DType::I64 => of!(i64),
        DType::U8 => of!(u8),
        DType::U16 => of!(u16),
        DType::U32 => of!(u32),
        DType::U64 => of!(u64),
        DType::Bool => Array::new(DType::Bool, shape, values.iter().map(|&x| u8::from(x != 0.0)).collect()),
        other => Err(Error::unsupported(format!("inputs of {other} are not made up"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, dtype: DType, shape: &[&str]) -> Port {
        let size = |s: &&str| s.parse().map_or(Size::Named((*s).to_owned()), Size::Fixed);
        Port { name: name.into(), dtype: Some(dtype), shape: Some(shape.iter().map(size).collect()) }
    }

    #[test]
    fn inputs_are_what_their_names_say_and_the_same_for_a_seed() {
        let ports = [
            port("input_ids", DType::I64, &["batch", "sequence"]),
            port("attention_mask", DType::I64, &["batch", "past + sequence"]),
            port("past_key_values.0.key", DType::F32, &["batch", "2", "past", "4"]),
            port("position_ids", DType::I64, &["batch", "sequence"]),
        ];
        let sizes = Sizes::from([("past".into(), 3), ("sequence".into(), 6)]);
        let options = GenerateOptions { sizes, vocabulary: Some(11), ..GenerateOptions::default() };
        let made = generate(None, &ports, &options).unwrap();
        assert_eq!(made, generate(None, &ports, &options).unwrap());
        let other = GenerateOptions { seed: 1, ..options };
        assert_ne!(made, generate(None, &ports, &other).unwrap());
        let ids = made["input_ids"].to_vec::<i64>().unwrap();
        assert!(
            ids.len() == 12 && ids.iter().all(|i| (0..11).contains(i)) && ids.iter().any(|i| *i != ids[0])
        );
        assert_eq!(made["attention_mask"].shape, [2, 9]);
        let mask = made["attention_mask"].to_vec::<i64>().unwrap();
        assert_eq!(mask, [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(made["position_ids"].to_vec::<i64>().unwrap()[..6], [3, 4, 5, 6, 7, 8]);
        assert_eq!(made["past_key_values.0.key"].shape, [2, 2, 3, 4]);
    }

    #[test]
    fn sizes_beyond_sense_and_open_ranks_are_refused() {
        let huge = [port("x", DType::F32, &["99999999999", "99999999999"])];
        assert!(generate(None, &huge, &GenerateOptions::default()).is_err());
        let open = [Port { name: "x".into(), dtype: Some(DType::F32), shape: None }];
        assert!(generate(None, &open, &GenerateOptions::default()).is_err());
    }
}
