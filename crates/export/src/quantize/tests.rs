//! Codes and scales against the numbers that they stand for.

use super::*;
use weighbridge_formats::{MemoryArchive, ReadAt, Tensor};

fn numbers(rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.0 - 1.0).collect()
}

fn archive(numbers: &[f32], shape: [u64; 2]) -> MemoryArchive<'static> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    let tensor = Tensor::new("w", DType::F32, shape.as_slice(), Data::Owned(bytes.into())).unwrap();
    MemoryArchive::new([tensor]).unwrap()
}

fn pair(quantization: Quantization, turned: bool, shape: [u64; 2]) -> [Derived; 2] {
    Derived::pair(quantization, (&"w".into(), 0, turned), shape, DType::F32).unwrap()
}

fn read(derived: &Derived, archive: &dyn Archive) -> Vec<u8> {
    let data = derived.data(archive).unwrap();
    let whole = data.read_all().unwrap();
    assert_eq!(whole.len() as u64, derived.info.bytes());
    // In pieces that end inside rows and scales.
    let mut pieces = vec![0; whole.len()];
    for (i, part) in pieces.chunks_mut(7).enumerate() {
        data.read_at(i as u64 * 7, part).unwrap();
    }
    assert_eq!(pieces, whole);
    whole
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn bytes_come_back_within_half_a_step() {
    let (rows, columns) = (5, 37);
    let wide = numbers(rows, columns);
    let turned: Vec<f32> = (0..columns * rows).map(|i| wide[i % rows * columns + i / rows]).collect();
    for (turn, archive) in [(false, archive(&wide, [5, 37])), (true, archive(&turned, [37, 5]))] {
        let [codes, scales] = pair(Quantization::Int8, turn, [5, 37]);
        assert_eq!((codes.info.name(), codes.info.shape()), ("w.int8", [5, 37].as_slice()));
        let (codes, scales) = (read(&codes, &archive), floats(&read(&scales, &archive)));
        assert_eq!(scales.len(), rows);
        for (i, x) in wide.iter().enumerate() {
            let scale = scales[i / columns];
            let back = f32::from(codes[i].cast_signed()) * scale;
            assert!((back - x).abs() <= scale * 0.5001, "{i}: {x} came back as {back}");
        }
        for row in codes.chunks(columns) {
            assert!(
                row.iter().any(|c| c.cast_signed().unsigned_abs() == 127),
                "a row's largest has the last code"
            );
        }
    }
}

#[test]
fn half_bytes_come_back_within_half_a_step() {
    let (rows, columns, block) = (3, 41, 16);
    let wide = numbers(rows, columns);
    let archive = archive(&wide, [3, 41]);
    let [codes, scales] = pair(Quantization::Int4 { block: 16 }, false, [3, 41]);
    assert_eq!((codes.info.shape(), scales.info.shape()), ([3, 3, 8].as_slice(), [3, 3].as_slice()));
    let (codes, scales) = (read(&codes, &archive), floats(&read(&scales, &archive)));
    for row in 0..rows {
        for column in 0..columns.next_multiple_of(block) {
            let byte = codes[row * 24 + column / 2];
            let code = if column % 2 == 0 { byte & 15 } else { byte >> 4 };
            let scale = scales[row * 3 + column / block];
            let back = (f32::from(code) - 8.0) * scale;
            let Some(x) = wide[row * columns..][..columns].get(column) else {
                assert_eq!(code, 8, "what fills the last block is zero");
                continue;
            };
            // The far end of the side that has one code less is cut off.
            let cut = *x * scale.signum() > scale.abs() * 7.0;
            assert!(
                (back - x).abs() <= scale.abs() * if cut { 1.001 } else { 0.5001 },
                "{x} came back as {back}"
            );
        }
    }
}

#[test]
fn rows_of_zeros_have_no_scale_and_no_nan() {
    let archive = archive(&[0.0; 64], [2, 32]);
    for quantization in [Quantization::Int8, Quantization::Int4 { block: 32 }] {
        let [codes, scales] = pair(quantization, false, [2, 32]);
        assert!(floats(&read(&scales, &archive)).iter().all(|&s| s == 0.0));
        let zero = if quantization == Quantization::Int8 { 0 } else { 0x88 };
        assert!(read(&codes, &archive).iter().all(|&c| c == zero));
    }
}

#[test]
fn what_is_no_number_is_refused_with_its_place() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut wide = numbers(2, 32);
        wide[32 + 3] = bad;
        let archive = archive(&wide, [2, 32]);
        for derived in pair(Quantization::Int8, false, [2, 32]) {
            let error = derived.data(&archive).unwrap().read_all().unwrap_err();
            assert!(error.message().contains("row 1") && error.message().contains("column 3"), "{error}");
        }
    }
}

#[test]
fn half_precision_is_widened_first() {
    let wide: Vec<f32> = numbers(2, 16).iter().map(|&x| half::f16::from_f32(x).to_f32()).collect();
    let narrow: Vec<u8> = wide.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect();
    let tensor = Tensor::new("w", DType::F16, [2, 16].as_slice(), Data::Owned(narrow.into())).unwrap();
    let (of_narrow, of_wide) = (MemoryArchive::new([tensor]).unwrap(), archive(&wide, [2, 16]));
    for derived in pair(Quantization::Int4 { block: 16 }, false, [2, 16]) {
        assert_eq!(read(&derived, &of_narrow), read(&derived, &of_wide));
    }
}

#[test]
fn names_are_read_and_written() {
    for text in ["int8", "int8-weights", "int4", "int4:16", "int4:256"] {
        assert_eq!(text.parse::<Quantization>().unwrap().to_string(), text);
    }
    for bad in ["", "int2", "int4:0", "int4:24", "int4:8", "int4:512", "int8:32", "int4:x"] {
        assert!(bad.parse::<Quantization>().is_err(), "{bad}");
    }
}
