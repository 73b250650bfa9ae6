//! The library in a warm process, as its peers are timed: `library MODEL` holds a model's tensors in memory, takes
//! one command a line and answers each with its seconds.
//!
//! - `save FOLDER FORMAT` writes the tensors that are in memory as a new model folder, not synced to disk.
//! - `load PATH` reads every tensor of a model into memory, by every thread, and frees it after the clock.
//! - `touch PATH` does the same, and then reads every byte once more.
//! - `open PATH` opens a model and asks for the names and shapes of its tensors.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::time::Instant;

use weighbridge::model::{ModelLoader, ModelSaver};
use weighbridge::{Archive, Data, Error, MemoryArchive, Result, Tensor};

fn main() -> Result<()> {
    let path = std::env::args_os().nth(1).ok_or_else(|| Error::invalid_options("a model is wanted"))?;
    let model = ModelLoader::new(path).load()?;
    let tensors = model.read_all()?;
    let views = tensors
        .iter()
        .map(|(info, bytes)| Tensor { info: info.clone().without_view(), data: Data::Borrowed(bytes) });
    let archive = MemoryArchive::new(views)?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| Error::io("reading a command", e))?;
        let words: Vec<&str> = line.split(' ').collect();
        let seconds = match words[..] {
            ["save", folder, format] => save(&archive, Path::new(folder), format)?,
            ["load", path] => load(Path::new(path), false)?,
            ["touch", path] => load(Path::new(path), true)?,
            ["open", path] => open(Path::new(path))?,
            _ => return Err(Error::invalid_options(format!("no command: {line}"))),
        };
        println!("{seconds}");
        let _ = std::io::stdout().flush();
    }
    Ok(())
}

fn save(archive: &dyn Archive, folder: &Path, format: &str) -> Result<f64> {
    let began = Instant::now();
    // What it is compared with records nothing of what it writes.
    ModelSaver::new(archive).format(format).fsync(false).manifest(false).save(folder)?;
    Ok(began.elapsed().as_secs_f64())
}

fn load(path: &Path, touch: bool) -> Result<f64> {
    let began = Instant::now();
    let tensors = ModelLoader::new(path).load()?.read_all()?;
    if touch {
        std::hint::black_box(sum(&tensors));
    }
    let took = began.elapsed().as_secs_f64();
    drop(tensors);
    Ok(took)
}

/// Adds up every byte, by two threads: a reader that any program could be.
fn sum<T: Sync>(tensors: &[(T, Box<[u8]>)]) -> u64 {
    let words = |bytes: &[u8]| {
        let (words, rest) = bytes.as_chunks::<8>();
        let tail = rest.iter().fold(0u64, |n, &b| n.wrapping_add(b.into()));
        words.iter().fold(tail, |n, w| n.wrapping_add(u64::from_le_bytes(*w)))
    };
    let part = |first: usize| {
        tensors.iter().skip(first).step_by(2).fold(0u64, |n, (_, bytes)| n.wrapping_add(words(bytes)))
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| part(1));
        part(0).wrapping_add(other.join().unwrap_or_default())
    })
}

fn open(path: &Path) -> Result<f64> {
    let began = Instant::now();
    let model = ModelLoader::new(path).load()?;
    let named: Vec<_> =
        model.weights().tensors().iter().map(|t| (t.name().to_owned(), t.shape().to_vec())).collect();
    std::hint::black_box(named);
    Ok(began.elapsed().as_secs_f64())
}
