//! Tests of the casts of whole archives.

use super::*;
use crate::archive::MemoryArchive;
use crate::tensor::Tensor;
use crate::transform::testing::{SharedArchive, contents};
use crate::{ErrorKind, FileSpan};

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn tensor<'a>(name: &str, dtype: DType, shape: &[u64], bytes: &'a [u8]) -> Tensor<'a> {
    Tensor::new(name, dtype, shape, Data::Borrowed(bytes)).unwrap()
}

#[test]
fn only_floats_are_cast_and_only_where_they_must_be() {
    let source = floats(&[1.0, -2.0]);
    let archive = MemoryArchive::new([
        tensor("w", DType::F32, &[2], &source),
        tensor("ids", DType::I64, &[1], &source),
        tensor("half", DType::Bf16, &[4], &source),
        tensor("mask", DType::Bool, &[8], &source),
        tensor("empty", DType::F32, &[0, 7], &[]),
    ]);
    let cast = Cast::new(Box::new(archive.unwrap()), DType::Bf16, CastOptions::default()).unwrap();
    let dtypes: Vec<DType> = cast.tensors().iter().map(TensorInfo::dtype).collect();
    assert_eq!(dtypes, [DType::Bf16, DType::I64, DType::Bf16, DType::Bool, DType::Bf16]);
    let contents = contents(&cast);
    assert_eq!(contents[0].1, [0x80, 0x3f, 0x00, 0xc0]);
    assert_eq!(contents[1].1, source);
    assert!(contents[4].1.is_empty());
    let report = cast.report();
    assert_eq!(report.len(), 1);
    assert_eq!((&*report[0].name, report[0].stats.elements, report[0].stats.max_abs), ("w", 2, 2.0));
    assert_eq!(cast.notes()[0].text, "2 tensors cast from F32 to BF16");
}

#[test]
fn a_filter_chooses_and_options_are_checked() {
    let source = floats(&[1.0, 2.0]);
    let archive = || {
        let tensors = [tensor("a", DType::F32, &[2], &source), tensor("b", DType::F32, &[2], &source)];
        Box::new(MemoryArchive::new(tensors).unwrap())
    };
    let options = CastOptions::default().with_filter(|t| t.name() == "b");
    let cast = Cast::new(archive(), DType::F64, options).unwrap();
    assert_eq!(cast.tensors()[0].dtype(), DType::F32);
    assert_eq!(cast.tensors()[1].dtype(), DType::F64);
    let refused = |dtype| Cast::new(archive(), dtype, CastOptions::default()).err().unwrap().kind();
    assert_eq!(refused(DType::I32), ErrorKind::InvalidOptions);
    assert_eq!(refused(DType::F6E2M3), ErrorKind::InvalidOptions, "two elements of six bits");
}

#[test]
fn an_untouched_tensor_keeps_its_span() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights");
    std::fs::write(&path, floats(&[1.0, 2.0])).unwrap();
    let source = crate::Source::open(&path).unwrap();
    let data = |offset| Data::lazy(source.slice(offset, 4).unwrap());
    let tensors = [
        Tensor::new("a", DType::F16, [2].as_slice(), data(0)).unwrap(),
        Tensor::new("b", DType::F32, [1].as_slice(), data(4)).unwrap(),
    ];
    let archive = Box::new(MemoryArchive::new(tensors).unwrap());
    let cast = Cast::new(archive, DType::F16, CastOptions::default()).unwrap();
    assert!(matches!(cast.data(0).unwrap().span(0, 4), Some(FileSpan { offset: 0, len: 4, .. })));
    assert!(cast.data(1).unwrap().span(0, 2).is_none());
}

#[test]
fn every_range_is_that_of_the_whole_and_counted_once() {
    let source: Vec<f32> = (0..20_000).map(|i| (i as f32 - 10_000.0) / 7.0).collect();
    let source = floats(&source);
    for to in [DType::F64, DType::F16, DType::F8E5M2, DType::F6E3M2, DType::F4] {
        let archive = || {
            struct Lazy(Vec<u8>);
            impl ReadAt for Lazy {
                fn len(&self) -> u64 {
                    self.0.len() as u64
                }
                fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
                    self.0.read_at(offset, buf)
                }
            }
            let data = Data::lazy(Lazy(source.clone()));
            let tensor = Tensor::new("w", DType::F32, [20_000].as_slice(), data).unwrap();
            Box::new(MemoryArchive::new([tensor]).unwrap())
        };
        let options = CastOptions::new(Overflow::Saturate);
        let whole = Cast::new(archive(), to, options.clone()).unwrap();
        let expected = whole.data(0).unwrap().read_all().unwrap();
        assert_eq!(whole.report()[0].stats.elements, 20_000);
        for chunk in [1usize, 7, 1000, 24_577] {
            let cast = Cast::new(archive(), to, options.clone()).unwrap();
            let data = cast.data(0).unwrap();
            let mut out = vec![0; expected.len()];
            for (i, part) in out.chunks_mut(chunk).enumerate().filter(|(i, _)| chunk > 7 || i % 97 < 9) {
                data.read_at((i * chunk) as u64, part).unwrap();
                let at = i * chunk;
                assert!(part == &expected[at..at + part.len()], "{to} in chunks of {chunk}");
            }
            if chunk > 7 {
                assert_eq!(cast.report()[0].stats, whole.report()[0].stats, "{to} in chunks of {chunk}");
            }
        }
    }
}

#[test]
fn a_refused_value_is_named() {
    let mut source = vec![0.5f32; 30_000];
    source[29_000] = 1e20;
    let source = floats(&source);
    let archive = Box::new(MemoryArchive::new([tensor("big.w", DType::F32, &[30_000], &source)]).unwrap());
    let cast = Cast::new(archive, DType::F16, CastOptions::default()).unwrap();
    let error = cast.data(0).unwrap().read_all().unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (ErrorKind::InvalidOptions, Some("big.w")));
    assert!(error.message().contains("element 29000 is 1"), "{error}");
    assert!(error.hint().unwrap().contains("--overflow saturate"));
}

#[test]
fn shared_storage_is_cast_as_a_whole_or_left() {
    let storage = floats(&(0..12).map(|i| i as f32).collect::<Vec<_>>());
    let views = |dtype| {
        SharedArchive::new(
            &[(dtype, storage.clone()), (None, storage.clone()), (None, storage.clone())],
            &[
                ("a", DType::F32, &[3, 4], 0, None),
                ("t", DType::F32, &[4, 3], 0, Some(&[1, 4])),
                ("b", DType::F32, &[4], 8, None),
                ("c@2", DType::F32, &[2], 0, None),
                ("raw@2", DType::U8, &[8], 0, None),
            ],
        )
    };
    let cast = Cast::new(Box::new(views(Some(DType::F32))), DType::F16, CastOptions::default()).unwrap();
    // Nobody views the second storage; the third is seen as bytes too.
    assert_eq!(cast.storages().len(), 2);
    assert_eq!(cast.storages()[0], crate::StorageInfo { dtype: Some(DType::F16), bytes: 24 });
    assert_eq!(cast.storages()[1], crate::StorageInfo { dtype: None, bytes: 48 });
    let view = |i: usize| cast.tensors()[i].view().map(|v| (v.storage, v.offset, v.strides.is_some()));
    assert_eq!(
        [0, 1, 2, 3, 4].map(view),
        [Some((0, 0, false)), Some((0, 0, true)), Some((0, 8, false)), None, Some((1, 0, false))]
    );
    assert!(cast.notes().iter().any(|n| n.text.starts_with("1 tensors share storage")));
    // The views of the cast storage are the cast tensors.
    let halves = cast.storage_data(0).unwrap().read_all().unwrap();
    let b = cast.data(2).unwrap().read_all().unwrap();
    assert_eq!(halves[16..], b[..]);
    assert_eq!(cast.storage_data(1).unwrap().read_all().unwrap(), storage);
    let report = cast.report();
    assert_eq!(
        report.iter().map(|r| (&*r.name, r.stats.elements)).collect::<Vec<_>>(),
        [("b", 4), ("a", 12)]
    );
    // A storage that says another dtype than its tensors is not cast as a whole.
    let cast = Cast::new(Box::new(views(Some(DType::I32))), DType::F16, CastOptions::default()).unwrap();
    assert!(cast.tensors()[..4].iter().all(|t| t.view().is_none()));
    let plain = contents(&views(None));
    assert_eq!(contents(&cast)[4], plain[4]);
}
