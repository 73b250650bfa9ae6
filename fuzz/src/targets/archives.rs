//! Any archive (names, dtypes, shapes, metadata) planned in every format with any options, executed, and opened again: the
//! same tensors, to the byte.
use weighbridge_formats::write::{ExecuteOptions, execute};
use weighbridge_formats::{
    Archive, DType, Data, MemoryArchive, Registry, Shape, Tensor, TensorInfo, WriteOptions,
};

use crate::bytes::Bytes;
use crate::{is_refusal, options};

/// The input chooses everything.
pub fn run(bytes: &[u8]) {
    let mut input = Bytes::new(bytes);
    let mut tensors = Vec::new();
    for _ in 0..input.below(6) {
        let dtype = DType::ALL[input.below(DType::ALL.len())];
        let shape: Vec<u64> = (0..input.below(4)).map(|_| input.below(7) as u64).collect();
        let name = input.text(12);
        let Ok(info) = TensorInfo::new(name, dtype, Shape::from_slice(&shape)) else { continue };
        let mut data = input.exactly(info.bytes() as usize);
        if dtype == DType::Bool {
            data.iter_mut().for_each(|b| *b &= 1);
        }
        tensors.push(Tensor { info, data: Data::Owned(data.into()) });
    }
    let Ok(archive) = MemoryArchive::new(tensors) else { return };
    let (shard, external, loss) = (input.below(4), input.below(3), input.below(2) == 1);
    let registry = Registry::builtin();
    for format in registry.formats().iter().filter(|f| f.reads() && f.writes()) {
        let mut choices = WriteOptions::default();
        choices.file_name = format!("x.{}", format.info.extensions[0]);
        choices.max_shard_size = (shard > 0).then_some(shard as u64 * 40);
        choices.external_data = [None, Some(true), Some(false)][external];
        choices.allow_loss = loss;
        let writer = registry.serializer(format.info.id).expect("a writer");
        let plan = match writer.plan(&archive, &choices) {
            Ok(plan) => plan,
            Err(e) => {
                assert!(is_refusal(e.kind()), "{}: {e:?}", format.info.id);
                continue;
            }
        };
        let folder = tempfile::tempdir().expect("a folder");
        let mut how = ExecuteOptions::default();
        (how.fsync, how.threads) = (false, Some(1));
        let written =
            execute(plan, folder.path(), &how).unwrap_or_else(|e| panic!("{}: {e:?}", format.info.id));
        let path = written.files.last().expect("a file");
        let read = registry.open_path(path, &options());
        let read = read.or_else(|_| {
            let source = weighbridge_formats::Source::open(path)?;
            registry.deserializer(format.info.id)?.open(source, &options())
        });
        let read = read.unwrap_or_else(|e| panic!("{}: written and not read: {e:?}", format.info.id));
        if !loss {
            assert_eq!(describe(&archive), describe(&*read), "{}", format.info.id);
        }
    }
}

fn describe(archive: &dyn Archive) -> Vec<(DType, Vec<u64>, Vec<u8>)> {
    let all = archive.tensors().iter().enumerate().map(|(i, info)| {
        let data = archive.data(i).and_then(|d| d.read_all()).unwrap_or_else(|e| panic!("{e:?}"));
        (info.dtype(), info.shape().to_vec(), data.to_vec())
    });
    let mut all: Vec<_> = all.collect();
    all.sort();
    all
}
