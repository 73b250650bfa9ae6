//! Which tensor goes into which shard, and what the shards are called.

use std::collections::HashMap;

use crate::archive::Archive;

/// How to fill shards.
pub(crate) struct Split<F> {
    /// The most bytes that a file may have. A tensor that is larger has a file of its own.
    pub(crate) max: u64,
    /// The bytes of a file without tensors, at most.
    pub(crate) fixed: u64,
    /// The bytes that a tensor takes beside its own, at most.
    pub(crate) overhead: F,
    /// Whether tensors of one storage must stay in one file, where it is stored once.
    pub(crate) together: bool,
}

impl<F: Fn(usize) -> u64> Split<F> {
    /// Fills shards with these tensors, in this order: a shard is closed when the next tensor does not fit.
    pub(crate) fn fill(&self, archive: &dyn Archive, order: &[usize]) -> Vec<Vec<usize>> {
        let mut shards: Vec<Vec<usize>> = Vec::new();
        let mut used = 0u64;
        for (unit, bytes) in self.units(archive, order) {
            match shards.last_mut() {
                Some(shard) if used.saturating_add(bytes) <= self.max => {
                    shard.extend(unit);
                    used += bytes;
                }
                _ => {
                    shards.push(unit);
                    used = self.fixed.saturating_add(bytes);
                }
            }
        }
        shards
    }

    /// What cannot be parted, each with its bytes: a tensor, or all tensors of a storage at the first one's place.
    fn units(&self, archive: &dyn Archive, order: &[usize]) -> Vec<(Vec<usize>, u64)> {
        let (tensors, storages) = (archive.tensors(), archive.storages());
        let mut units: Vec<(Vec<usize>, u64)> = Vec::with_capacity(order.len());
        let mut of_storage: HashMap<u32, usize> = HashMap::new();
        for &i in order {
            let overhead = (self.overhead)(i);
            let storage = tensors[i].view().map(|v| v.storage).filter(|_| self.together);
            let stored = storage.and_then(|s| storages.get(s as usize).map(|info| (s, info.bytes)));
            let Some((storage, bytes)) = stored else {
                units.push((vec![i], tensors[i].bytes().saturating_add(overhead)));
                continue;
            };
            match of_storage.get(&storage) {
                Some(&unit) => {
                    units[unit].0.push(i);
                    units[unit].1 = units[unit].1.saturating_add(overhead);
                }
                None => {
                    of_storage.insert(storage, units.len());
                    units.push((vec![i], bytes.saturating_add(overhead)));
                }
            }
        }
        units
    }
}

/// The names of `count` shards of a file of this name, and of their index: `model-00001-of-00002.safetensors` and
/// `model.safetensors.index.json`.
pub(crate) fn shard_names(file_name: &str, count: usize) -> (Vec<String>, String) {
    let file_name = file_name.strip_suffix(".index.json").unwrap_or(file_name);
    let (stem, extension) = match file_name.rfind('.') {
        Some(dot) if dot > 0 => file_name.split_at(dot),
        _ => (file_name, ""),
    };
    let names = (1..=count).map(|i| format!("{stem}-{i:05}-of-{count:05}{extension}")).collect();
    (names, format!("{file_name}.index.json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::StorageInfo;
    use crate::dtype::DType;
    use crate::error::Result;
    use crate::tensor::{Data, TensorInfo, View};

    struct Described(Vec<TensorInfo>, Vec<StorageInfo>);

    impl Archive for Described {
        fn format(&self) -> &'static str {
            "test"
        }
        fn variety(&self) -> String {
            String::new()
        }
        fn tensors(&self) -> &[TensorInfo] {
            &self.0
        }
        fn data(&self, index: usize) -> Result<Data<'_>> {
            Err(crate::archive::no_such_tensor(index))
        }
        fn storages(&self) -> &[StorageInfo] {
            &self.1
        }
    }

    #[test]
    fn shards_are_filled_in_order_and_storages_stay_whole() {
        let tensor = |bytes: u64, storage: Option<u32>| {
            let info = TensorInfo::new("t", DType::U8, &[bytes][..]).unwrap();
            match storage {
                Some(storage) => info.with_view(View { storage, offset: 0, strides: None }),
                None => info,
            }
        };
        let infos = vec![
            tensor(30, Some(0)),
            tensor(60, None),
            tensor(200, None),
            tensor(5, None),
            tensor(30, Some(0)),
            tensor(0, None),
        ];
        let archive = Described(infos, vec![StorageInfo { dtype: None, bytes: 30 }]);
        let order = [0, 1, 2, 3, 4, 5];
        let split = |max, together| Split { max, fixed: 5, overhead: |_| 1, together }.fill(&archive, &order);
        assert_eq!(split(100, false), [vec![0, 1], vec![2], vec![3, 4, 5]]);
        // The storage counts once, and the second tensor of it costs its overhead alone.
        assert_eq!(split(98, true), [vec![0, 4, 1], vec![2], vec![3, 5]]);
        assert_eq!(split(97, true), [vec![0, 4], vec![1], vec![2], vec![3, 5]]);
        assert_eq!(split(1000, true), [vec![0, 4, 1, 2, 3, 5]]);
        assert_eq!(split(1, false).len(), 6);
    }

    #[test]
    fn names_count_from_one_to_the_last() {
        let (names, index) = shard_names("model.safetensors", 2);
        assert_eq!(names, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]);
        assert_eq!(index, "model.safetensors.index.json");
        assert_eq!(shard_names("pytorch_model.bin.index.json", 1).0, ["pytorch_model-00001-of-00001.bin"]);
        assert_eq!(shard_names("v1.0/x", 1).1, "v1.0/x.index.json");
    }
}
