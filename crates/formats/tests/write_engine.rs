//! The write engine against a naive writer, and against what can go wrong before the files are in place.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use weighbridge_formats::write::{
    Content, Digesting, ExecuteOptions, FileDigests, FilePlan, InOrder, KernelCopy, Observer, WritePlan,
    execute, execute_folder,
};
use weighbridge_formats::{Access, Data, Error, ErrorKind, ReadAt, Result, Source};

/// Numbers that look random and are the same in each run.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z ^ (z >> 29)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// A reader that insists on being read from front to back by one thread at a time, and on being finished.
struct Strict {
    bytes: Vec<u8>,
    next: AtomicU64,
    finished: Arc<AtomicU64>,
}

impl ReadAt for Strict {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset + buf.len() as u64;
        if self.next.compare_exchange(offset, end, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return Err(Error::mismatch("a sequential reader was read out of order"));
        }
        self.bytes.read_at(offset, buf)
    }

    fn access(&self) -> Access {
        Access::Sequential
    }

    fn finish(&self) -> Result<()> {
        if self.next.load(Ordering::SeqCst) != self.len() {
            return Err(Error::mismatch("finish was called before everything was read"));
        }
        self.finished.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// A reader that fails from some offset on.
struct Failing {
    len: u64,
    fails_at: u64,
    panics: bool,
}

impl ReadAt for Failing {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if offset + buf.len() as u64 > self.fails_at {
            assert!(!self.panics, "this reader panics");
            return Err(Error::mismatch("the source is broken here"));
        }
        buf.fill(7);
        Ok(())
    }
}

/// A reader whose bytes are fine until `finish` is asked.
struct BadChecksum(Vec<u8>);

impl ReadAt for BadChecksum {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buf)
    }

    fn finish(&self) -> Result<()> {
        Err(Error::mismatch("the checksum does not agree"))
    }
}

struct Sha(sha2::Sha256);

impl InOrder for Sha {
    fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.0, bytes);
    }

    fn finish(self: Box<Self>) -> [u8; 32] {
        sha2::Digest::finalize(self.0).into()
    }
}

const DIGESTING: Digesting = Digesting { in_order: || Box::new(Sha(<sha2::Sha256 as sha2::Digest>::new())) };

fn sha256(bytes: &[u8]) -> [u8; 32] {
    <sha2::Sha256 as sha2::Digest>::digest(bytes).into()
}

/// Where the data segments of a file are that are not empty.
fn data_of(file: &FilePlan<'_>) -> Vec<(u64, u64)> {
    let data = file.segments().iter().filter(|s| s.len > 0 && matches!(s.content, Content::Data { .. }));
    data.map(|s| (s.offset, s.len)).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn one(file: FilePlan<'_>) -> WritePlan<'_> {
    WritePlan { files: vec![file], notes: Vec::new() }
}

fn fixed(name: &str, bytes: &[u8]) -> FilePlan<'static> {
    let mut file = FilePlan::new(name);
    file.push_fixed(bytes.to_vec()).unwrap();
    file
}

fn fast() -> ExecuteOptions<'static> {
    let mut options = ExecuteOptions::default();
    options.fsync = false;
    options
}

/// A file of segments of every kind, and what a naive writer makes of it.
fn mixed<'a>(
    rng: &mut Rng,
    round: usize,
    name: &str,
    memory: &'a [u8],
    file: &Source,
    finished: &Arc<AtomicU64>,
) -> (FilePlan<'a>, Vec<u8>) {
    let (mut plan, mut naive) = (FilePlan::new(name), Vec::new());
    let mut sums: Vec<(usize, u32)> = Vec::new();
    for _ in 0..rng.below(60) {
        let len = match rng.below(4) {
            0 => rng.below(3),
            1 => rng.below(64),
            2 => rng.below(3000),
            _ if round.is_multiple_of(5) => rng.below(40_000),
            _ => rng.below(4000),
        };
        let from = rng.below(memory.len() as u64 - len);
        let bytes = memory[from as usize..(from + len) as usize].to_vec();
        let crc = rng.below(2) == 0;
        let data = match rng.below(7) {
            0 => {
                plan.push_fixed(bytes.clone()).unwrap();
                naive.extend(bytes);
                continue;
            }
            1 if !sums.is_empty() => {
                let (segment, sum) = sums[rng.below(sums.len() as u64) as usize];
                let fill = move |d: &weighbridge_formats::write::Digests<'_>| {
                    Ok(d.crc32(segment)?.to_le_bytes().to_vec())
                };
                plan.push_late(4, Box::new(fill)).unwrap();
                naive.extend(sum.to_le_bytes());
                continue;
            }
            2 => Data::lazy(Strict {
                bytes: bytes.clone(),
                next: AtomicU64::new(0),
                finished: finished.clone(),
            }),
            3 => Data::Owned(bytes.clone().into()),
            4 => Data::Borrowed(&memory[from as usize..(from + len) as usize]),
            5 => {
                // Zeros are left as holes.
                plan.push_data(Data::Owned(vec![0; bytes.len()].into()), "zeros", false).unwrap();
                naive.extend(vec![0; bytes.len()]);
                continue;
            }
            _ => Data::lazy(file.slice(from, len).unwrap()),
        };
        let segment = plan.push_data(data, "data", crc).unwrap();
        if crc {
            sums.push((segment, crc32fast::hash(&bytes)));
        }
        naive.extend(bytes);
    }
    (plan, naive)
}

#[derive(Default)]
struct Counter {
    total: AtomicU64,
    advanced: AtomicU64,
    finished: AtomicBool,
    cancel_after: Option<u64>,
}

impl Observer for Counter {
    fn started(&self, total_bytes: u64) {
        self.total.store(total_bytes, Ordering::SeqCst);
    }

    fn advanced(&self, bytes: u64) {
        self.advanced.fetch_add(bytes, Ordering::SeqCst);
    }

    fn finished(&self) {
        self.finished.store(true, Ordering::SeqCst);
    }

    fn cancelled(&self) -> bool {
        self.cancel_after.is_some_and(|n| self.advanced.load(Ordering::SeqCst) >= n)
    }
}

#[test]
fn every_mix_of_segments_is_written_as_a_naive_writer_would() {
    let mut rng = Rng(1);
    let memory = rng.bytes(200_000);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::write(&source, &memory).unwrap();
    let source = Source::open(&source).unwrap();
    for round in 0..60 {
        let folder = dir.path().join(format!("round {round}"));
        let finished = Arc::new(AtomicU64::new(0));
        let files: Vec<_> = (0..1 + rng.below(3))
            .map(|i| mixed(&mut rng, round, &format!("file {i}"), &memory, &source, &finished))
            .collect();
        let naive: Vec<_> = files.iter().map(|(_, bytes)| bytes.clone()).collect();
        let sequential = files.iter().flat_map(|(f, _)| f.segments()).filter(|s| match &s.content {
            Content::Data { data, .. } => data.access() == Access::Sequential,
            _ => false,
        });
        let sequential = sequential.count() as u64;
        let data: Vec<_> = files.iter().map(|(f, _)| data_of(f)).collect();
        let counter = Counter::default();
        let mut options = ExecuteOptions::default();
        options.digests = (round % 3 != 1).then_some(DIGESTING);
        options.fsync = round % 10 == 0;
        options.threads = Some(1 + round % 4);
        options.chunk_bytes = [1, 7, 64, 4096, 10_000, 1 << 20]
            [if round.is_multiple_of(5) { 2 + rng.below(4) } else { rng.below(6) } as usize];
        options.kernel_copy = [KernelCopy::Auto, KernelCopy::Always, KernelCopy::Never][round % 3];
        options.observer = Some(&counter);
        let plan = WritePlan { files: files.into_iter().map(|(f, _)| f).collect(), notes: Vec::new() };
        let total = plan.bytes();
        let written = if round % 2 == 0 {
            std::fs::create_dir(&folder).unwrap();
            execute(plan, &folder, &options).unwrap()
        } else {
            execute_folder(plan, &folder, &options).unwrap()
        };
        assert_eq!(written.bytes, total);
        assert_eq!(names(&folder).len(), naive.len());
        for (i, (path, bytes)) in written.files.iter().zip(&naive).enumerate() {
            assert_eq!(*path, folder.join(format!("file {i}")));
            assert!(std::fs::read(path).unwrap() == *bytes, "round {round}, file {i}");
        }
        assert_eq!(written.digests.len(), if options.digests.is_some() { naive.len() } else { 0 });
        for (i, (found, bytes)) in written.digests.iter().zip(&naive).enumerate() {
            assert_eq!((&*found.name, found.size), (&*format!("file {i}"), bytes.len() as u64));
            assert_eq!(found.blake3, <[u8; 32]>::from(blake3::hash(bytes)), "round {round}, file {i}");
            assert_eq!(found.in_order, sha256(bytes), "round {round}, file {i}");
            let expected = data[i].iter().map(|&(offset, len)| {
                (offset, len, <[u8; 32]>::from(blake3::hash(&bytes[offset as usize..][..len as usize])))
            });
            assert!(found.data.iter().copied().eq(expected), "round {round}, file {i}");
        }
        assert_eq!(counter.total.load(Ordering::SeqCst), total);
        assert_eq!(counter.advanced.load(Ordering::SeqCst), total);
        assert!(counter.finished.load(Ordering::SeqCst));
        assert_eq!(finished.load(Ordering::SeqCst), sequential);
    }
}

#[test]
fn large_spans_go_through_the_kernel_and_come_out_the_same() {
    let mut rng = Rng(2);
    let bytes = rng.bytes(3_000_000);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::write(&source, &bytes).unwrap();
    let source = Source::open(&source).unwrap();
    for kernel_copy in [KernelCopy::Always, KernelCopy::Never, KernelCopy::Auto] {
        let mut file = FilePlan::new("target");
        file.push_fixed(vec![1; 100]).unwrap();
        file.push_data(Data::lazy(source.slice(5, 2_000_000).unwrap()), "a", false).unwrap();
        file.push_fixed(vec![2; 3]).unwrap();
        file.push_data(Data::lazy(source.slice(77, 2_900_000).unwrap()), "b", false).unwrap();
        let mut options = fast();
        (options.kernel_copy, options.overwrite) = (kernel_copy, true);
        let written = execute(one(file), dir.path(), &options).unwrap();
        let expected = [&[1; 100], &bytes[5..2_000_005], &[2; 3], &bytes[77..2_900_077]].concat();
        assert!(std::fs::read(&written.files[0]).unwrap() == expected, "{kernel_copy:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn many_workers_write_one_file_in_memory() {
    // Here the workers go different ways to the file, as they meet each other.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let bytes = Rng(5).bytes(8_000_003);
    for (threads, chunk) in [(1, 1 << 18), (2, 1 << 18), (4, 1 << 16), (4, 100_000), (3, 1 << 20)] {
        for _ in 0..5 {
            let mut file = fixed("target", b"head");
            let segment = file.push_data(Data::Borrowed(&bytes), "w", true).unwrap();
            file.push_late(4, Box::new(move |d| Ok(d.crc32(segment)?.to_le_bytes().to_vec()))).unwrap();
            let mut options = fast();
            (options.threads, options.chunk_bytes, options.overwrite) = (Some(threads), chunk, true);
            let written = execute(one(file), dir.path(), &options).unwrap();
            let expected = [b"head", &bytes[..], &crc32fast::hash(&bytes).to_le_bytes()].concat();
            assert!(std::fs::read(&written.files[0]).unwrap() == expected, "{threads} × {chunk}");
        }
    }
}

#[test]
fn a_source_that_fails_midway_leaves_the_old_target_and_no_temporary() {
    let readers: [(Data<'static>, ErrorKind); 2] = [
        (Data::lazy(Failing { len: 3 << 20, fails_at: 2 << 20, panics: false }), ErrorKind::Mismatch),
        (Data::lazy(BadChecksum(vec![3; 1000])), ErrorKind::Mismatch),
    ];
    for (data, kind) in readers {
        for threads in [1, 3] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("target"), "old").unwrap();
            let mut file = fixed("target", b"head");
            file.push_data(data.clone(), "layer.weight", false).unwrap();
            let mut options = fast();
            (options.overwrite, options.threads) = (true, Some(threads));
            let plan = WritePlan { files: vec![fixed("first", b"1"), file], notes: Vec::new() };
            let error = execute(plan, dir.path(), &options).unwrap_err();
            assert_eq!(error.kind(), kind);
            assert_eq!(error.tensor(), Some("layer.weight"));
            assert_eq!(names(dir.path()), ["target"]);
            assert_eq!(std::fs::read(dir.path().join("target")).unwrap(), b"old");
            let mut file = fixed("target", b"head");
            file.push_data(data.clone(), "layer.weight", false).unwrap();
            execute_folder(one(file), dir.path().join("new"), &options).unwrap_err();
            assert_eq!(names(dir.path()), ["target"]);
        }
    }
}

#[test]
fn a_panic_in_a_reader_removes_the_temporary() {
    let dir = tempfile::tempdir().unwrap();
    for threads in [1, 4] {
        let path = dir.path().to_owned();
        let outcome = std::panic::catch_unwind(move || {
            let mut file = FilePlan::new("target");
            let failing = Failing { len: 8 << 20, fails_at: 5 << 20, panics: true };
            file.push_data(Data::lazy(failing), "w", false).unwrap();
            let mut options = fast();
            options.threads = Some(threads);
            execute(one(file), path, &options)
        });
        let panic = outcome.unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"this reader panics"));
        assert!(names(dir.path()).is_empty());
    }
}

#[test]
fn an_existing_target_is_refused_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("b"), "old").unwrap();
    let mut first = FilePlan::new("a");
    // Reading this would be another error.
    first.push_data(Data::lazy(Failing { len: 10, fails_at: 0, panics: false }), "w", false).unwrap();
    let plan = WritePlan { files: vec![first, fixed("b", b"new")], notes: Vec::new() };
    let error = execute(plan, dir.path(), &fast()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions);
    assert_eq!(error.path(), Some(&*dir.path().join("b")));
    assert!(error.hint().unwrap().contains("--force"));
    assert_eq!(names(dir.path()), ["b"]);
    let mut options = fast();
    options.overwrite = true;
    execute(one(fixed("b", b"new")), dir.path(), &options).unwrap();
    assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), b"new");
    // Neither a folder nor a device is replaced, whatever leave is given.
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    let error = execute(one(fixed("folder", b"new")), dir.path(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions);
    let error = execute_folder(one(fixed("x", b"new")), dir.path().join("folder"), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions);
    let error = execute(one(fixed("c", b"new")), dir.path().join("nowhere"), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    #[cfg(unix)]
    {
        let error = execute(one(fixed("null", b"new")), "/dev", &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOptions);
    }
}

/// Puts a file at the target while the write is on its way.
struct Intruder(std::path::PathBuf);

impl Observer for Intruder {
    fn advanced(&self, _: u64) {
        std::fs::write(&self.0, "somebody else's").unwrap();
    }
}

#[test]
fn a_target_that_appears_meanwhile_is_not_replaced_without_leave() {
    let dir = tempfile::tempdir().unwrap();
    let intruder = Intruder(dir.path().join("target"));
    let mut options = ExecuteOptions::default();
    options.observer = Some(&intruder);
    let error = execute(one(fixed("target", b"mine")), dir.path(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions);
    assert_eq!(std::fs::read(dir.path().join("target")).unwrap(), b"somebody else's");
    assert_eq!(names(dir.path()), ["target"]);
    let intruder = Intruder(dir.path().join("new"));
    options.observer = Some(&intruder);
    let error = execute_folder(one(fixed("a", b"mine")), dir.path().join("new"), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions, "{error}");
    assert_eq!(names(dir.path()), ["new", "target"]);
}

#[test]
fn the_source_may_be_the_target() {
    let mut rng = Rng(3);
    let bytes = rng.bytes(5_000_000);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    for kernel_copy in [KernelCopy::Always, KernelCopy::Never] {
        std::fs::write(&path, &bytes).unwrap();
        let source = Source::open(&path).unwrap();
        let mut file = FilePlan::new("model");
        file.push_fixed(vec![9; 1_000_001]).unwrap();
        file.push_data(Data::lazy(source.slice(0, source.len()).unwrap()), "w", false).unwrap();
        let mut options = fast();
        (options.overwrite, options.kernel_copy) = (true, kernel_copy);
        execute(one(file), dir.path(), &options).unwrap();
        let written = std::fs::read(&path).unwrap();
        assert!(written[..1_000_001].iter().all(|&b| b == 9) && written[1_000_001..] == bytes);
        assert_eq!(names(dir.path()), ["model"]);
    }
}

#[test]
fn plans_that_contradict_themselves_are_refused() {
    /// A reader whose length changes after the plan was made.
    struct Growing(AtomicU64);
    impl ReadAt for Growing {
        fn len(&self) -> u64 {
            self.0.fetch_add(1, Ordering::SeqCst)
        }
        fn read_at(&self, _: u64, buf: &mut [u8]) -> Result<()> {
            buf.fill(1);
            Ok(())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let refused = |plan: WritePlan<'_>| {
        let error = execute(plan, dir.path(), &fast()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOptions, "{error}");
        assert!(names(dir.path()).is_empty());
    };
    for name in ["", "..", "../a", "a/b", "/a", "a\\b", "a\0"] {
        refused(one(fixed(name, b"x")));
    }
    refused(WritePlan {
        files: vec![fixed("a", b"1"), fixed("b", b"2"), fixed("A", b"3")],
        notes: Vec::new(),
    });
    let mut growing = FilePlan::new("a");
    growing.push_data(Data::lazy(Growing(AtomicU64::new(3))), "w", false).unwrap();
    refused(one(growing));
    let mut late = FilePlan::new("a");
    late.push_late(4, Box::new(|_| Ok(vec![1; 5]))).unwrap();
    refused(one(late));
    let mut unplanned = FilePlan::new("a");
    let segment = unplanned.push_data(Data::Borrowed(b"abc"), "w", false).unwrap();
    unplanned.push_late(4, Box::new(move |d| Ok(d.crc32(segment)?.to_le_bytes().to_vec()))).unwrap();
    refused(one(unplanned));
}

#[test]
fn cancelling_ends_the_write_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (threads, cancel_after) in [(1, 0), (1, 100_000), (3, 100_000)] {
        let counter = Counter { cancel_after: Some(cancel_after), ..Default::default() };
        let mut file = FilePlan::new("target");
        file.push_data(Data::Owned(vec![1; 1 << 20].into()), "w", false).unwrap();
        let mut options = fast();
        (options.threads, options.chunk_bytes) = (Some(threads), 10_000);
        options.observer = Some(&counter);
        let error = execute(one(file), dir.path(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(!counter.finished.load(Ordering::SeqCst));
        assert!(counter.advanced.load(Ordering::SeqCst) < 1 << 20);
        assert!(names(dir.path()).is_empty());
    }
}

#[cfg(unix)]
#[test]
fn permissions_are_those_asked_for_or_those_of_the_file_before() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("target");
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let mut options = fast();
    options.mode = Some(0o600);
    execute(one(fixed("target", b"1")), dir.path(), &options).unwrap();
    assert_eq!(mode(), 0o600);
    (options.mode, options.overwrite) = (None, true);
    execute(one(fixed("target", b"2")), dir.path(), &options).unwrap();
    assert_eq!(mode(), 0o600, "a private file stays private");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "as any new file").unwrap();
    let usual = mode();
    std::fs::remove_file(&path).unwrap();
    execute(one(fixed("target", b"3")), dir.path(), &options).unwrap();
    assert_eq!(mode(), usual);
}

#[cfg(unix)]
#[test]
fn a_link_is_replaced_and_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n);
    std::fs::write(at("blob"), "kept").unwrap();
    std::os::unix::fs::symlink(at("blob"), at("link")).unwrap();
    std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
    let mut options = fast();
    for name in ["link", "dangling"] {
        options.overwrite = false;
        let error = execute(one(fixed(name, b"new")), dir.path(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOptions);
        options.overwrite = true;
        execute(one(fixed(name, b"new")), dir.path(), &options).unwrap();
        assert!(std::fs::symlink_metadata(at(name)).unwrap().is_file());
    }
    assert_eq!(std::fs::read(at("blob")).unwrap(), b"kept");
    assert_eq!(names(dir.path()), ["blob", "dangling", "link"]);
}

#[test]
fn tens_of_thousands_of_small_segments_take_no_time() {
    let bytes: Vec<u8> = Rng(4).bytes(50_000 * 16);
    let mut file = FilePlan::new("target");
    let mut sums = Vec::new();
    for (i, part) in bytes.chunks(16).enumerate() {
        let segment = file.push_data(Data::Borrowed(part), format!("t{i}"), true).unwrap();
        sums.push((segment, crc32fast::hash(part)));
        file.push_late(4, Box::new(move |d| Ok(d.crc32(segment)?.to_le_bytes().to_vec()))).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let start = std::time::Instant::now();
    let written = execute(one(file), dir.path(), &fast()).unwrap();
    // A plan that is searched from its start for each segment takes minutes; a loaded machine takes a second.
    assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
    let expected: Vec<u8> = bytes
        .chunks(16)
        .zip(sums)
        .flat_map(|(part, (_, sum))| part.iter().copied().chain(sum.to_le_bytes()))
        .collect();
    assert!(std::fs::read(&written.files[0]).unwrap() == expected);
}

#[cfg(unix)]
#[test]
fn zeros_become_holes() {
    use std::os::unix::fs::MetadataExt;
    struct Zeros(u64);
    impl ReadAt for Zeros {
        fn len(&self) -> u64 {
            self.0
        }
        fn read_at(&self, _: u64, buf: &mut [u8]) -> Result<()> {
            buf.fill(0);
            Ok(())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut file = fixed("target", b"head");
    file.push_data(Data::lazy(Zeros(1 << 27)), "w", false).unwrap();
    file.push_fixed(b"tail".to_vec()).unwrap();
    let written = execute(one(file), dir.path(), &fast()).unwrap();
    let meta = std::fs::metadata(&written.files[0]).unwrap();
    assert_eq!(meta.len(), (1 << 27) + 8);
    assert!(meta.blocks() * 512 < 8 << 20, "{} bytes are taken", meta.blocks() * 512);
}

#[test]
fn a_logical_hash_made_while_writing_is_that_of_the_archive() {
    use weighbridge_formats::logical::{hash_archive, hex, push_logical_hash};
    use weighbridge_formats::{DType, MemoryArchive, Tensor};

    let sizes = [0_usize, 1, 1023, 1024, 70_000, 256 << 10, 1_000_003, 3 << 20];
    let bytes: Vec<Vec<u8>> =
        sizes.iter().map(|&n| (0..n).map(|i| (i * 7 + i / 255 + n) as u8).collect()).collect();
    let archive = |turned: bool, offset: u64| {
        let mut tensors: Vec<_> = (0..sizes.len()).collect();
        if turned {
            tensors.reverse();
        }
        let tensor = |i: usize| {
            let data = Data::Borrowed(&bytes[i]);
            Tensor::new(format!("t{i}"), DType::U8, [sizes[i] as u64].as_slice(), data).unwrap()
        };
        (MemoryArchive::new(tensors.into_iter().map(tensor)).unwrap(), offset)
    };
    let (known, _) = archive(false, 0);
    let (expected, tensors) = hash_archive(&known, Some(2)).unwrap();
    assert_eq!(hash_archive(&known, Some(1)).unwrap(), (expected, tensors.clone()));
    let (mut data, info) = (blake3::Hasher::new(), &weighbridge_formats::Archive::tensors(&known)[6]);
    let by_hand =
        weighbridge_formats::logical::tensor_hash(info, data.update(&bytes[6]).finalize().as_bytes());
    assert_eq!(tensors[6], by_hand);

    // In another order, cut across files, at offsets that fit no chunk.
    for (turned, offset) in [(false, 0), (true, 13), (true, 1024), (false, 4099)] {
        let (source, _) = archive(turned, offset);
        let folder = tempfile::tempdir().unwrap();
        let mut plan = WritePlan::default();
        let mut first = FilePlan::new("first");
        let mut second = FilePlan::new("second");
        first.push_fixed(vec![1; offset as usize]).unwrap();
        for (i, info) in weighbridge_formats::Archive::tensors(&source).iter().enumerate() {
            let file = if i % 3 == 0 { &mut first } else { &mut second };
            file.push_data(
                weighbridge_formats::Archive::data(&source, i).unwrap(),
                info.shared_name(),
                i % 2 == 0,
            )
            .unwrap();
        }
        plan.files = vec![first, second];
        push_logical_hash(&mut plan, &source, 64, |digest| hex(digest).into_bytes()).unwrap();
        execute(plan, folder.path(), &ExecuteOptions::default()).unwrap();
        let second = std::fs::read(folder.path().join("second")).unwrap();
        assert_eq!(&second[second.len() - 64..], hex(&expected).as_bytes(), "{turned} {offset}");
    }
    let (source, _) = archive(false, 0);
    let mut plan = WritePlan::default();
    plan.files.push(FilePlan::new("empty"));
    let missing = push_logical_hash(&mut plan, &source, 64, |digest| hex(digest).into_bytes());
    assert_eq!(missing.unwrap_err().tensor(), Some("t1"));
}

#[test]
fn digests_of_many_chunks_are_made_in_any_order_of_the_workers() {
    let mut rng = Rng(9);
    let memory = rng.bytes(3_000_000);
    let dir = tempfile::tempdir().unwrap();
    for (threads, chunk) in [(1, 4096), (2, 4096), (4, 1000), (8, 4096), (3, 65_536)] {
        for late in [false, true] {
            let mut file = FilePlan::new("f");
            file.push_data(Data::Borrowed(&memory[..1_999_999]), "a", true).unwrap();
            let segment = file.segments().len() - 1;
            if late {
                file.push_late(4, Box::new(move |d| Ok(d.crc32(segment)?.to_le_bytes().to_vec()))).unwrap();
            }
            file.push_data(Data::Borrowed(&memory[1_999_999..]), "b", false).unwrap();
            let mut options = fast();
            options.fsync = threads == 2;
            options.overwrite = true;
            options.threads = Some(threads);
            options.chunk_bytes = chunk;
            options.digests = Some(DIGESTING);
            let written = execute(one(file), dir.path(), &options).unwrap();
            let bytes = std::fs::read(dir.path().join("f")).unwrap();
            let found = &written.digests[0];
            assert_eq!(found.blake3, <[u8; 32]>::from(blake3::hash(&bytes)), "{threads} {chunk} {late}");
            assert_eq!(found.in_order, sha256(&bytes), "{threads} {chunk} {late}");
            assert_eq!(found.data.len(), 2);
        }
    }
}

#[test]
fn a_broken_source_ends_workers_that_wait_for_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    for panics in [false, true] {
        let mut file = FilePlan::new("f");
        file.push_data(Data::lazy(Failing { len: 5_000_000, fails_at: 100_000, panics }), "a", false)
            .unwrap();
        let mut options = fast();
        options.threads = Some(4);
        options.chunk_bytes = 1000;
        options.digests = Some(DIGESTING);
        let write = || execute(one(file), dir.path(), &options).map(drop);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(write));
        assert_eq!(outcome.is_err(), panics);
        assert!(outcome.is_err() || outcome.is_ok_and(|o| o.is_err()));
        assert_eq!(names(dir.path()), [""; 0]);
    }
}

#[test]
fn files_are_added_to_complete_ones_and_appear_last() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("a"), "old").unwrap();
    let complete = |staged: &Path, digests: &[FileDigests]| {
        assert_eq!(names(staged), ["a", "b"]);
        assert_eq!(std::fs::read(at("a")).unwrap(), b"old");
        assert_eq!(digests[1].blake3, <[u8; 32]>::from(blake3::hash(b"two")));
        Ok(vec![("list".to_owned(), b"a b".to_vec())])
    };
    let mut options = fast();
    options.overwrite = true;
    options.digests = Some(DIGESTING);
    options.complete = Some(&complete);
    let plan = || WritePlan { files: vec![fixed("a", b"one"), fixed("b", b"two")], notes: Vec::new() };
    let written = execute(plan(), dir.path(), &options).unwrap();
    assert_eq!(written.files, [at("a"), at("b"), at("list")]);
    assert_eq!(names(dir.path()), ["a", "b", "list"]);
    assert_eq!(std::fs::read(at("list")).unwrap(), b"a b");
    // What cannot be added, or is refused, changes nothing.
    std::fs::write(at("a"), "old").unwrap();
    for bad in ["../x", "sub/x", "a", "b"] {
        let complete = |_: &Path, _: &[FileDigests]| Ok(vec![(bad.to_owned(), Vec::new())]);
        let mut options = options.clone();
        options.complete = Some(&complete);
        assert!(execute(plan(), dir.path(), &options).is_err(), "{bad}");
        let fails = |_: &Path, _: &[FileDigests]| Err(Error::mismatch("not these"));
        let mut options = options.clone();
        options.complete = Some(&fails);
        assert_eq!(execute(plan(), dir.path(), &options).unwrap_err().kind(), ErrorKind::Mismatch);
        assert_eq!(names(dir.path()), ["a", "b", "list"]);
        assert_eq!(std::fs::read(at("a")).unwrap(), b"old");
    }
}
