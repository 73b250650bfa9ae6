//! Tests of the loops, against plain arithmetic.

use super::*;
use crate::dtype::Special;

const FLOATS: [DType; 12] = [
    DType::F64,
    DType::F32,
    DType::F16,
    DType::Bf16,
    DType::F8E4M3,
    DType::F8E5M2,
    DType::F8E4M3Fnuz,
    DType::F8E5M2Fnuz,
    DType::F8E8M0,
    DType::F6E2M3,
    DType::F6E3M2,
    DType::F4,
];

/// The value of a code, by the definition of its layout.
fn value(dtype: DType, code: u64) -> f64 {
    match dtype {
        DType::F64 => return f64::from_bits(code),
        DType::F32 => return f32::from_bits(code as u32).into(),
        _ => {}
    }
    let l = dtype.float_layout().unwrap();
    let (e, m) = (u32::from(l.exponent), u32::from(l.mantissa));
    let negative = l.signed && code >> (e + m) & 1 == 1;
    let magnitude = code & ((1 << (e + m)) - 1);
    let (exponent, mantissa) = (magnitude >> m, (magnitude & ((1 << m) - 1)) as f64);
    match l.special {
        Special::Ieee if exponent == (1 << e) - 1 => {
            let value = if mantissa == 0.0 { f64::INFINITY } else { f64::NAN };
            return if negative { -value } else { value };
        }
        Special::AllOnesNan if magnitude == (1 << (e + m)) - 1 => return f64::NAN,
        Special::NegativeZeroNan if negative && magnitude == 0 => return f64::NAN,
        _ => {}
    }
    let steps = 2f64.powi(m as i32);
    let value = if exponent == 0 && m > 0 {
        mantissa / steps * 2f64.powi(1 - i32::from(l.bias))
    } else {
        (1.0 + mantissa / steps) * 2f64.powi(exponent as i32 - i32::from(l.bias))
    };
    if negative { -value } else { value }
}

/// The magnitudes of a type of at most 16 bits: code and value, by rising value.
fn numbers(dtype: DType) -> Vec<(u64, f64)> {
    let l = dtype.float_layout().unwrap();
    let codes = 0..1u64 << (l.exponent + l.mantissa);
    let all: Vec<_> = codes.map(|c| (c, value(dtype, c))).filter(|(_, v)| v.is_finite()).collect();
    assert!(all.is_sorted_by(|a, b| a.1 < b.1));
    all
}

/// What a cast ought to give: the code, and the one field of the statistics that it counts in.
struct Expected {
    code: u64,
    overflow: bool,
    underflow: bool,
}

/// Rounds a value into a type of at most 16 bits by looking for its neighbours.
fn round(dtype: DType, numbers: &[(u64, f64)], x: f64, overflow: Overflow) -> Option<Expected> {
    let l = dtype.float_layout().unwrap();
    let sign = if l.signed && x.is_sign_negative() { 1 << (l.exponent + l.mantissa) } else { 0 };
    if x.is_nan() {
        return None;
    }
    let (top_code, top) = *numbers.last().unwrap();
    let rare = |lost: bool| {
        let infinity = (l.special == Special::Ieee).then_some((top_code + 1) | sign);
        let nan = match l.special {
            // Not E4M3, which torch saturates.
            Special::AllOnesNan if dtype == DType::F8E8M0 => Some((top_code + 1) | sign),
            Special::NegativeZeroNan => Some(0x80),
            _ => None,
        };
        let largest = if dtype == DType::F8E8M0 && x < 0.0 { 0 } else { top_code | sign };
        let code = match overflow {
            Overflow::Saturate if lost => largest,
            _ => infinity.or(nan).unwrap_or(largest),
        };
        Expected { code, overflow: x.is_finite(), underflow: false }
    };
    if x.is_infinite() {
        return Some(rare(l.special != Special::Ieee));
    }
    let half_step = (top - numbers[numbers.len() - 2].1) / 2.0;
    let half_step = if dtype == DType::F8E8M0 { top / 2.0 } else { half_step };
    let ties_over = top_code % 2 == 1 || dtype == DType::F8E8M0;
    let a = x.abs();
    if a > top + half_step || a == top + half_step && ties_over || dtype == DType::F8E8M0 && x < 0.0 {
        return Some(rare(true));
    }
    let above = numbers.partition_point(|n| n.1 < a).min(numbers.len() - 1);
    let below = above.saturating_sub(1);
    let (low, high) = (numbers[below], numbers[above]);
    let (down, up) = ((a - low.1).abs(), (high.1 - a).abs());
    let code = match down.partial_cmp(&up).unwrap() {
        std::cmp::Ordering::Less => low.0,
        std::cmp::Ordering::Greater => high.0,
        // Half a step up is how torch rounds E8M0.
        _ if dtype == DType::F8E8M0 => high.0,
        _ if low.0 % 2 == 0 => low.0,
        _ => high.0,
    };
    let sign = if code == 0 && l.special == Special::NegativeZeroNan { 0 } else { sign };
    let underflow = if dtype == DType::F8E8M0 { a < numbers[0].1 } else { code == 0 && a != 0.0 };
    Some(Expected { code: code | sign, overflow: false, underflow })
}

/// The codes of packed or whole-byte elements.
fn codes(dtype: DType, bytes: &[u8]) -> Vec<u64> {
    let bits = dtype.bits() as usize;
    (0..bytes.len() * 8 / bits)
        .map(|i| {
            (0..bits).fold(0, |code, b| {
                let bit = i * bits + b;
                code | u64::from(bytes[bit / 8] >> (bit % 8) & 1) << b
            })
        })
        .collect()
}

/// The bytes of codes.
fn bytes(dtype: DType, codes: &[u64]) -> Vec<u8> {
    let bits = dtype.bits() as usize;
    let mut out = vec![0; codes.len() * bits / 8];
    for (i, code) in codes.iter().enumerate() {
        for b in 0..bits {
            let bit = i * bits + b;
            out[bit / 8] |= ((code >> b & 1) as u8) << (bit % 8);
        }
    }
    out
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Inputs of a source type that matter for a target: every code of narrow sources; for f32 and f64 the target's
/// numbers, the points half-way between them, the neighbours of both, and random bits.
fn inputs(from: DType, to: DType) -> Vec<u64> {
    if from.bits() <= 16 {
        return (0..1 << from.bits()).collect();
    }
    let to_bits = |x: f64| if from == DType::F32 { u64::from((x as f32).to_bits()) } else { x.to_bits() };
    let sign = 1u64 << (from.bits() - 1);
    let mut out = Vec::new();
    let mut near = |x: f64| {
        let bits = to_bits(x);
        for bits in [bits.saturating_sub(1), bits, bits + 1] {
            out.extend([bits, bits | sign]);
        }
    };
    if to.bits() <= 16 {
        let numbers = numbers(to);
        for pair in numbers.windows(2) {
            near(pair[0].1);
            near((pair[0].1 + pair[1].1) / 2.0);
        }
        let top = numbers[numbers.len() - 1].1;
        let step = top - numbers[numbers.len() - 2].1;
        [top, top + step / 2.0, top + step, top * 1.5, top * 4.0, numbers[1].1 / 4.0]
            .into_iter()
            .for_each(&mut near);
    }
    [0.0, f64::INFINITY, f64::MAX, f64::MIN_POSITIVE, 1e-40, 3e38].into_iter().for_each(&mut near);
    let mut random = Random(9);
    out.extend((0..20_000).map(|_| random.next() >> (64 - from.bits())));
    // Whole bytes for every packing.
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

#[test]
fn every_pair_rounds_once_to_nearest_even_and_counts_what_it_met() {
    for (from, to) in FLOATS.iter().flat_map(|&f| FLOATS.map(|t| (f, t))) {
        if from == to || to.bits() > 16 {
            continue;
        }
        let (numbers, inputs) = (numbers(to), inputs(from, to));
        let source = bytes(from, &inputs);
        for policy in [Overflow::Saturate, Overflow::Infinity] {
            let kernel = CastKernel::new(from, to, policy).unwrap();
            let mut out = vec![0; to.bytes(inputs.len() as u64).unwrap() as usize];
            let mut stats = CastStats::default();
            kernel.cast(&source, &mut out, &mut stats).unwrap();
            let mut expected = CastStats { elements: inputs.len() as u64, ..CastStats::default() };
            for (&input, code) in inputs.iter().zip(codes(to, &out)) {
                let x = value(from, input);
                let Some(right) = round(to, &numbers, x, policy) else {
                    expected.nan += 1;
                    if to.float_layout().unwrap().special == Special::Finite {
                        expected.nan_lost += 1;
                        assert_eq!(code, numbers.last().unwrap().0);
                    } else {
                        assert!(value(to, code).is_nan(), "{from} {input:#x} to {to}: {code:#x} is no NaN");
                    }
                    continue;
                };
                assert_eq!(code, right.code, "{from} {input:#x} ({x:e}) to {to}, {policy:?}");
                expected.overflow += u64::from(right.overflow);
                expected.underflow += u64::from(right.underflow);
                expected.inf += u64::from(x.is_infinite());
                let keeps = to.float_layout().unwrap().special == Special::Ieee;
                expected.inf_lost += u64::from(x.is_infinite() && !keeps);
                if x.is_finite() {
                    expected.max_abs = expected.max_abs.max(x.abs());
                }
            }
            assert_eq!(stats, expected, "{from} to {to}, {policy:?}");
        }
    }
}

#[test]
fn widening_and_f64_to_f32_are_those_of_the_language() {
    for (from, to) in FLOATS.iter().flat_map(|&f| [(f, DType::F32), (f, DType::F64)]) {
        if from == to {
            continue;
        }
        let inputs = inputs(from, to);
        let source = bytes(from, &inputs);
        let mut out = vec![0; to.bytes(inputs.len() as u64).unwrap() as usize];
        let mut stats = CastStats::default();
        CastKernel::new(from, to, Overflow::Infinity).unwrap().cast(&source, &mut out, &mut stats).unwrap();
        let mut overflow = 0;
        for (&input, code) in inputs.iter().zip(codes(to, &out)) {
            let x = value(from, input);
            let right = if to == DType::F32 { f64::from(x as f32) } else { x };
            let y = value(to, code);
            assert!(
                y.to_bits() == right.to_bits() || x.is_nan() && y.is_nan(),
                "{from} {x:e} to {to}: {y:e}"
            );
            overflow += u64::from(x.is_finite() && y.is_infinite());
        }
        assert_eq!(stats.overflow, overflow);
        assert_eq!(stats.elements, inputs.len() as u64);
        assert_eq!(overflow > 0, from == DType::F64);
    }
}

#[test]
fn a_value_out_of_range_is_refused_with_its_place() {
    for at in [0usize, 5, 1023, 1024, 5000] {
        let mut source = vec![1.5f32; 6000];
        source[at] = -70_000.0;
        source[5999] = 1e9;
        let source: Vec<u8> = source.iter().flat_map(|x| x.to_le_bytes()).collect();
        let kernel = CastKernel::new(DType::F32, DType::F16, Overflow::Error).unwrap();
        let refused = kernel.cast(&source, &mut vec![0; 12_000], &mut CastStats::default()).unwrap_err();
        assert_eq!(refused, Refused { index: at as u64, value: -70_000.0 });
    }
    let refuses = |x: f32, to| {
        let kernel = CastKernel::new(DType::F32, to, Overflow::Error).unwrap();
        let four = [x; 4].map(f32::to_le_bytes);
        let mut out = [0; 16];
        let len = to.bits() as usize / 2;
        kernel.cast(four.as_flattened(), &mut out[..len], &mut CastStats::default()).is_err()
    };
    assert!(refuses(f32::NAN, DType::F4) && refuses(f32::INFINITY, DType::F8E4M3));
    assert!(!refuses(f32::NAN, DType::F8E4M3) && !refuses(f32::INFINITY, DType::F16));
    assert!(refuses(-1.0, DType::F8E8M0) && !refuses(-0.0, DType::F8E8M0));
    assert!(!refuses(1e-30, DType::F16), "an underflow is counted, not refused");
}

#[test]
fn nans_stay_quiet_and_keep_sign_and_payload_where_they_can() {
    let cast = |from: DType, code: u64, to: DType| {
        let mut out = vec![0; to.bits() as usize / 8];
        let kernel = CastKernel::new(from, to, Overflow::Error).unwrap();
        kernel.cast(&bytes(from, &[code]), &mut out, &mut CastStats::default()).unwrap();
        codes(to, &out)[0]
    };
    assert_eq!(cast(DType::F32, 0x7fc0_0000, DType::F16), 0x7e00);
    assert_eq!(cast(DType::F32, 0xff80_0001, DType::F16), 0xfe00);
    assert_eq!(cast(DType::F32, 0x7fc0_0000, DType::Bf16), 0x7fc0);
    assert_eq!(cast(DType::F32, 0xffa1_0000, DType::Bf16), 0xffe1);
    assert_eq!(cast(DType::F64, 0x7ff8_0000_0000_0000, DType::F32), 0x7fc0_0000);
    assert_eq!(cast(DType::F32, 0x7fc0_0000, DType::F64), 0x7ff8_0000_0000_0000);
    assert_eq!(cast(DType::F32, 0xffc0_0000, DType::F8E5M2), 0xff);
    assert_eq!(cast(DType::F32, 0xffc0_0000, DType::F8E4M3), 0xff);
    assert_eq!(cast(DType::F32, 0x7fc0_0000, DType::F8E4M3Fnuz), 0x80);
}

#[test]
fn every_level_of_the_machine_gives_the_same_bits() {
    let levels: Vec<Isa> = Isa::available().collect();
    assert_eq!(levels.last(), Some(&Isa::Portable));
    for (from, to) in FLOATS.iter().flat_map(|&f| FLOATS.map(|t| (f, t))) {
        let Some(kernel) = CastKernel::new(from, to, Overflow::Infinity) else { continue };
        let mut inputs = inputs(from, to);
        // A tail that fills no vector, and no bytes that are left over.
        inputs.truncate(inputs.len() - 4 * 3);
        let source = bytes(from, &inputs);
        let run = |kernel: CastKernel| {
            let mut out = vec![0; to.bytes(inputs.len() as u64).unwrap() as usize];
            let mut stats = CastStats::default();
            kernel.cast(&source, &mut out, &mut stats).unwrap();
            (out, stats)
        };
        let expected = run(CastKernel { isa: Isa::Portable, ..kernel });
        for &isa in &levels {
            assert!(run(CastKernel { isa, ..kernel }) == expected, "{from} to {to} with {isa:?}");
        }
    }
}

/// Not a test of speed, which depends on the machine, but its measure: GiB of source a second on one core, with
/// source and target in the second-level cache, for every level of the machine and every pair that matters.
#[test]
#[ignore = "prints measurements; run in release with --nocapture"]
fn measure() {
    const N: usize = 32 << 10;
    let mut random = Random(5);
    let weights: Vec<f32> = (0..N).map(|_| (random.next() >> 40) as f32 / (1 << 24) as f32 - 0.5).collect();
    let pairs = [
        (DType::F32, DType::Bf16),
        (DType::F32, DType::F16),
        (DType::Bf16, DType::F32),
        (DType::F16, DType::F32),
        (DType::F16, DType::Bf16),
        (DType::F64, DType::F32),
        (DType::F64, DType::F16),
        (DType::F32, DType::F64),
        (DType::F32, DType::F8E4M3),
        (DType::F32, DType::F8E5M2),
        (DType::F8E4M3, DType::Bf16),
        (DType::F32, DType::F4),
    ];
    for (from, to) in pairs {
        let mut source = vec![0; N * from.bits() as usize / 8];
        let floats: Vec<u8> = weights.iter().flat_map(|x| x.to_le_bytes()).collect();
        match CastKernel::new(DType::F32, from, Overflow::Infinity) {
            Some(kernel) => kernel.cast(&floats, &mut source, &mut CastStats::default()).unwrap(),
            None => source = floats,
        }
        let mut out = vec![0; N * to.bits() as usize / 8];
        let kernel = CastKernel::new(from, to, Overflow::Saturate).unwrap();
        let mut line = format!("{from} to {to}:");
        for isa in Isa::available() {
            let kernel = CastKernel { isa, ..kernel };
            let best = (0..20)
                .map(|_| {
                    let start = std::time::Instant::now();
                    for _ in 0..20 {
                        kernel.cast(&source, &mut out, &mut CastStats::default()).unwrap();
                        std::hint::black_box(&mut out);
                    }
                    20.0 * source.len() as f64 / start.elapsed().as_secs_f64() / f64::from(1 << 30)
                })
                .fold(0.0, f64::max);
            line += &format!(" {isa:?} {best:.1}");
        }
        println!("{line}");
    }
}
