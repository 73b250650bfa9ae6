//! Hostile and broken files, each built here with a payload that would do no harm. None may run, write or follow
//! anything; each gets a clear error, or is read as inert data.
//!
//! A test that counts memory runs under a counting allocator.

#[path = "hostile/containers.rs"]
mod containers;
#[path = "hostile/files.rs"]
mod files;
#[path = "hostile/pickles.rs"]
mod pickles;
#[path = "hostile/safetensors.rs"]
mod safetensors;
#[path = "hostile/shards.rs"]
mod shards;
#[path = "hostile/tensors.rs"]
mod tensors;

use weighbridge::{Archive, Error, ErrorKind, ReadOptions, Registry, Source, Value, Values};
use weighbridge_testkit::alloc::{Counting, peak_of};
use weighbridge_testkit::{damage, zip};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Opens bytes as a user's file would be opened, within the memory that a file of this length may cost.
fn open(bytes: &[u8]) -> weighbridge::Result<Box<dyn Archive>> {
    let (opened, peak) =
        peak_of(|| Registry::builtin().open(Source::from_bytes(bytes), &ReadOptions::default()));
    let most = damage::FIXED + 64 * bytes.len() as u64;
    assert!(peak <= most, "{peak} bytes of memory for a file of {}", bytes.len());
    opened
}

/// The error of a file that must not open.
#[track_caller]
fn refused(bytes: &[u8], kind: ErrorKind, words: &str) -> Error {
    match open(bytes) {
        Ok(archive) => panic!("opened: {archive:?}, {:?}", archive.notes()),
        Err(error) => {
            let text = format!("{error}");
            assert!(error.kind() == kind && text.contains(words), "{error:?} is no {kind:?} with {words:?}");
            error
        }
    }
}

/// The error of reading what opens.
#[track_caller]
fn unreadable(bytes: &[u8], kind: ErrorKind, words: &str) -> Error {
    let error = match open(bytes) {
        Err(error) => error,
        Ok(archive) => {
            let read = (0..archive.tensors().len()).map(|i| archive.data(i).and_then(|d| d.read_all()));
            let failed = read.filter_map(Result::err).next();
            failed.unwrap_or_else(|| panic!("{archive:?} was read in full"))
        }
    };
    assert!(error.kind() == kind && format!("{error}").contains(words), "{error:?}");
    error
}

/// A torch file of this pickle and a storage `0` of 16 bytes.
fn torch(pickle: &[u8]) -> Vec<u8> {
    zip::build(&zip::torch(pickle, &[("0", &[7; 16])]))
}

/// A pickle of a torch file's state dict `{"w": …}`: what `value` pushes stands for the tensor.
fn state_dict(value: &str) -> Vec<u8> {
    [b"\x80\x02}Vw\n", value.as_bytes(), b"s."].concat()
}

/// A storage of four floats, as torch's pickles refer to it.
const STORAGE: &str = "(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI4\ntQ";

/// A tensor as torch's pickles have it; the four parts are opcodes that push storage, offset, size and stride.
fn tensor(storage: &str, offset: &str, size: &str, stride: &str) -> String {
    format!(
        "ctorch._utils\n_rebuild_tensor_v2\n({storage}{offset}{size}{stride}I00\nccollections\nOrderedDict\n)RtR"
    )
}

/// Whether any value stands for something that Python would have to build.
fn holds_inert_object(values: &Values) -> bool {
    values.iter().any(|(_, v)| matches!(v, Value::Object(_) | Value::Global(_)))
}
