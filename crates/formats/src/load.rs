//! Reading a whole archive into memory, by several threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::memory::zeroed_box;
use crate::source::{Access, ReadAt};
use crate::tensor::Data;
use crate::workers::{on_workers, worker_count};

/// The most bytes that a thread reads at a time: enough to pay for a system call, and little enough that a large
/// tensor is shared among the threads.
const CHUNK: usize = 4 << 20;

/// A part of a tensor that is still to be read.
struct Task<'t> {
    tensor: usize,
    offset: u64,
    buffer: &'t mut [u8],
}

/// Reads the bytes of every tensor, in the order of the archive: contiguous, row-major, little-endian. Checksums
/// that the file has are checked.
///
/// `threads` of `None` takes as many as the write engine does. Without the feature `parallel` it is always one.
///
/// # Errors
/// `LimitExceeded` if the bytes do not fit in memory; what the archive and its source say, with the tensor's name.
pub fn read_all(archive: &dyn Archive, threads: Option<usize>) -> Result<Vec<Box<[u8]>>> {
    let infos = archive.tensors();
    let named =
        |i: usize| move |e: Error| if e.tensor().is_some() { e } else { e.with_tensor(infos[i].name()) };
    let mut data: Vec<Data<'_>> = Vec::with_capacity(infos.len());
    let mut out: Vec<Box<[u8]>> = Vec::with_capacity(infos.len());
    for i in 0..infos.len() {
        let one = archive.data(i).map_err(named(i))?;
        out.push(zeroed_box(one.len()).map_err(named(i))?);
        data.push(one);
    }
    let mut tasks = Vec::new();
    for (tensor, buffer) in out.iter_mut().enumerate() {
        let whole = data[tensor].access() == Access::Sequential;
        let size = if whole { buffer.len().max(1) } else { CHUNK };
        let chunks = buffer.chunks_mut(size).enumerate();
        tasks.extend(chunks.map(|(n, buffer)| Task { tensor, offset: (n * size) as u64, buffer }));
    }
    // The last task is taken first.
    tasks.reverse();
    let threads = worker_count(threads).min(tasks.len().max(1));
    let (tasks, failed) = (Mutex::new(tasks), AtomicBool::new(false));
    let next = || tasks.lock().ok()?.pop();
    let work = || -> Result<()> {
        while !failed.load(Ordering::Relaxed) {
            let Some(task) = next() else { break };
            data[task.tensor].read_at(task.offset, task.buffer).map_err(|e| {
                failed.store(true, Ordering::Relaxed);
                named(task.tensor)(e)
            })?;
        }
        Ok(())
    };
    on_workers(threads, work)?;
    drop(tasks);
    data.iter().enumerate().try_for_each(|(i, d)| d.finish().map_err(named(i)))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, MemoryArchive, Tensor};

    fn archive(sizes: &[u64]) -> (Vec<Vec<u8>>, MemoryArchive<'static>) {
        let bytes: Vec<Vec<u8>> =
            sizes.iter().map(|&n| (0..n).map(|i| (i * 7 + n) as u8).collect()).collect();
        let tensors = bytes.iter().enumerate().map(|(i, b)| {
            let data = Data::lazy(b.clone());
            Tensor::new(format!("t{i}"), DType::U8, [b.len() as u64].as_slice(), data).unwrap()
        });
        let archive = MemoryArchive::new(tensors).unwrap();
        (bytes, archive)
    }

    #[test]
    fn every_tensor_is_read_whole_by_any_number_of_threads() {
        let (bytes, archive) = archive(&[0, 1, CHUNK as u64 - 1, CHUNK as u64, 2 * CHUNK as u64 + 3, 5]);
        for threads in [1, 2, 7] {
            let read = read_all(&archive, Some(threads)).unwrap();
            assert!(read.iter().zip(&bytes).all(|(a, b)| **a == **b), "{threads}");
        }
        assert!(read_all(&MemoryArchive::new([]).unwrap(), None).unwrap().is_empty());
    }

    #[test]
    fn an_error_names_its_tensor() {
        struct Broken;
        impl ReadAt for Broken {
            fn len(&self) -> u64 {
                3 * CHUNK as u64
            }
            fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
                buf.fill(1);
                if offset == 0 { Ok(()) } else { Err(Error::malformed("broken").at_offset(offset)) }
            }
        }
        let data = Data::lazy(Broken);
        let broken = Tensor::new("b", DType::U8, [3 * CHUNK as u64].as_slice(), data).unwrap();
        let error = read_all(&MemoryArchive::new([broken]).unwrap(), Some(2)).unwrap_err();
        assert_eq!(error.tensor(), Some("b"));
        let huge = Tensor::new("h", DType::U8, [1 << 60].as_slice(), Data::lazy(Huge)).unwrap();
        let error = read_all(&MemoryArchive::new([huge]).unwrap(), Some(2)).unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (crate::ErrorKind::LimitExceeded, Some("h")));
    }

    struct Huge;

    impl ReadAt for Huge {
        fn len(&self) -> u64 {
            1 << 60
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> Result<()> {
            Err(Error::malformed("not read"))
        }
    }
}
