//! Casts against torch's, bit for bit: every f16, bf16 and 8-bit float, and a million of f32 and f64 each.

use std::process::Command;

use weighbridge_formats::DType;
use weighbridge_formats::transform::{CastKernel, CastStats, Overflow};
use weighbridge_tests::{python, workspace};

const TARGETS: [DType; 8] = [
    DType::F64,
    DType::F32,
    DType::F16,
    DType::Bf16,
    DType::F8E4M3,
    DType::F8E5M2,
    DType::F8E4M3Fnuz,
    DType::F8E5M2Fnuz,
];

/// Every code of a narrow type; of f32 every 10,007th and the neighbours of every f16 and bf16 and of the points
/// half-way between them; of f64 the same points and their neighbours.
fn inputs(dtype: DType) -> Vec<u64> {
    let narrow = |f: &mut dyn FnMut(f64)| {
        for code in 0..0x7f80u32 {
            // A bfloat is the upper half of an f32; so is, with other bits, the point above it.
            f(f32::from_bits(code << 16).into());
            f(f32::from_bits(code << 16 | 0x8000).into());
        }
        for code in 0..0x7c00u32 {
            let (exponent, mantissa) = (code >> 10, f64::from(code & 0x3ff));
            let scale = 2f64.powi(exponent.max(1) as i32 - 25);
            let hidden = if exponent > 0 { 1024.0 } else { 0.0 };
            f((hidden + mantissa) * scale);
            f((hidden + mantissa + 0.5) * scale);
        }
    };
    let mut out = Vec::new();
    match dtype {
        DType::F32 => {
            narrow(&mut |x| {
                let bits = u64::from((x as f32).to_bits());
                for bits in [bits.saturating_sub(1), bits, bits + 1] {
                    out.extend([bits, bits | 1 << 31]);
                }
            });
            out.extend((0..=u64::from(u32::MAX)).step_by(10_007));
        }
        DType::F64 => {
            narrow(&mut |x| {
                let bits = x.to_bits();
                for bits in [bits.saturating_sub(1), bits, bits + 1] {
                    out.extend([bits, bits | 1 << 63]);
                }
            });
            let mut bits = 1u64;
            for _ in 0..200_000 {
                bits = bits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                // Half of them in f32's range.
                let exponent = if bits & 1 == 0 { bits } else { (1023 - 150 + (bits >> 20) % 300) << 52 };
                out.push(bits & !(0x7ff << 52) | exponent & 0x7ff << 52);
            }
        }
        narrow => out.extend(0..1 << narrow.bits()),
    }
    out
}

fn bytes(dtype: DType, codes: &[u64]) -> Vec<u8> {
    let size = dtype.bits() as usize / 8;
    codes.iter().flat_map(|c| c.to_le_bytes()[..size].to_vec()).collect()
}

fn cast(from: DType, to: DType, source: &[u8]) -> Vec<u8> {
    let mut out = vec![0; source.len() / (from.bits() / 8) as usize * (to.bits() / 8) as usize];
    let kernel = CastKernel::new(from, to, Overflow::Infinity).unwrap();
    kernel.cast(source, &mut out, &mut CastStats::default()).unwrap();
    out
}

/// Whether a code is a NaN.
fn is_nan(dtype: DType, code: u64) -> bool {
    let magnitude = code & !(1 << (dtype.bits() - 1));
    match dtype {
        DType::F64 => f64::from_bits(code).is_nan(),
        DType::F32 => f32::from_bits(code as u32).is_nan(),
        DType::F16 => magnitude > 0x7c00,
        DType::Bf16 => magnitude > 0x7f80,
        DType::F8E4M3 => magnitude == 0x7f,
        DType::F8E5M2 => magnitude > 0x7c,
        _ => code == 0x80,
    }
}

#[test]
fn casts_give_torchs_bits() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<&str> = TARGETS.iter().map(|d| d.torch_name()).collect();
    std::fs::write(folder.path().join("targets"), names.join(" ")).unwrap();
    let sources: Vec<(DType, Vec<u64>)> = TARGETS.iter().map(|&d| (d, inputs(d))).collect();
    for (dtype, codes) in &sources {
        let path = folder.path().join(format!("in.{}", dtype.torch_name()));
        std::fs::write(path, bytes(*dtype, codes)).unwrap();
    }
    let script = workspace().join("tests/interop/cast.py");
    let status = Command::new(python()).arg(script).arg(folder.path()).status().unwrap();
    assert!(status.success());
    let mut compared = 0;
    for (from, codes) in &sources {
        for to in TARGETS.into_iter().filter(|to| to != from) {
            let path = folder.path().join(format!("{}.to.{}", from.torch_name(), to.torch_name()));
            let right = std::fs::read(path).unwrap();
            let source = bytes(*from, codes);
            // From f64, torch rounds to f32 first and then again; a cast here rounds once. So what is compared
            // is the same two steps, and that a single one differs only where the first is not exact.
            let twice = *from == DType::F64 && to != DType::F32;
            let out = if twice {
                cast(DType::F32, to, &cast(*from, DType::F32, &source))
            } else {
                cast(*from, to, &source)
            };
            if twice {
                let once = cast(*from, to, &source);
                let size = to.bits() as usize / 8;
                let both = once.chunks(size).zip(out.chunks(size)).zip(codes);
                for ((_, _), code) in both.filter(|((a, b), _)| a != b) {
                    let x = f64::from_bits(*code);
                    assert!(x.is_nan() || f64::from(x as f32) != x, "{x:e} to {to}");
                }
            }
            let size = to.bits() as usize / 8;
            let code = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
            let mut wrong = Vec::new();
            for ((ours, theirs), input) in out.chunks(size).zip(right.chunks(size)).zip(codes) {
                let (ours, theirs) = (code(ours), code(theirs));
                // The sign and payload of a NaN depend on which of its loops torch ran.
                if ours != theirs && !(is_nan(to, ours) && is_nan(to, theirs)) {
                    wrong.push(format!("{input:#x}: {ours:#x}, torch {theirs:#x}"));
                }
                compared += 1;
            }
            assert!(
                wrong.is_empty(),
                "{from} to {to}: {} differ: {:?}",
                wrong.len(),
                &wrong[..wrong.len().min(9)]
            );
        }
    }
    assert!(compared > 10_000_000, "{compared}");
}
