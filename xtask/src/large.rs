//! `cargo xtask large [--gib N] [--release]`: conversions of files larger than memory may be, within 128 MiB.
//!
//! A sparse safetensors file of N GiB (20 unless told otherwise) of F32 is cast to F16, directly and by way of an ONNX
//! model and of a torch file; 1.5 GiB without holes go to torch and back; and the 1.6 GiB of a network's weights become
//! graphs in F32, F16 and with eight bits. The command runs under `prlimit --data=134217728`, which bounds private memory
//! whatever is mapped. What is written is then looked at: its length, and the numbers at the ends of its tensors, or all
//! of it. The engine leaves holes where all is zero, so the sparse conversions take little
//! disk on a file system that has holes; it wants room for the whole file all the same.

use crate::Outcome;
use crate::command::{build, command, done, spelled, take_flag, take_value, target};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Private memory, in bytes.
const MEMORY: &str = "--data=134217728";
/// Tensors of the sparse file.
const TENSORS: u64 = 4;

/// The task.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let gib = take_value(&mut arguments, "--gib")?.map_or(Ok(20), |text| text.parse::<u64>())?;
    let release = take_flag(&mut arguments, "--release");
    done(&arguments)?;
    if !cfg!(target_os = "linux") {
        println!("!!!! large: prlimit bounds memory on Linux alone; NOTHING was converted here !!!!");
        return Ok(());
    }
    let weighbridge = build("weighbridge-cli", "weighbridge", release)?;
    let folder = Folder::new()?;
    let work = &folder.0;
    let sparse = work.join("sparse.safetensors");
    make_sparse(&sparse, gib << 30)?;
    // An ONNX model of more than 2 GiB has its tensors in a file of their own; from there they come back.
    let (model, data) = (work.join("sparse.onnx"), work.join("sparse.onnx.data"));
    let half = work.join("half.safetensors");
    room(work, gib << 30)?;
    convert(&weighbridge, &[path(&sparse), path(&model)], gib << 30)?;
    convert(&weighbridge, &[path(&model), path(&half), "--dtype", "f16"], gib << 30)?;
    check_half(&half, gib << 29)?;
    [&half, &model, &data].into_iter().try_for_each(fs::remove_file)?;
    room(work, gib << 29)?;
    convert(&weighbridge, &[path(&sparse), path(&half), "--dtype", "f16"], gib << 30)?;
    check_half(&half, gib << 29)?;
    fs::remove_file(&half)?;
    // The same by way of a torch file, whose members and directory need 64-bit fields past 4 GiB.
    let torch = work.join("sparse.bin");
    room(work, gib << 30)?;
    convert(&weighbridge, &[path(&sparse), path(&torch)], gib << 30)?;
    fs::remove_file(&sparse)?;
    convert(&weighbridge, &[path(&torch), path(&half), "--dtype", "f16"], gib << 30)?;
    check_half(&half, gib << 29)?;
    fs::remove_file(&half)?;
    fs::remove_file(&torch)?;

    // Every byte of this one is real. Its torch file is made by the command, which the other tests hold against torch.
    let bytes = 3u64 << 29;
    let (full, bin, back) =
        (work.join("full.safetensors"), work.join("full.bin"), work.join("back.safetensors"));
    room(work, 3 * bytes)?;
    make_full(&full, bytes)?;
    convert(&weighbridge, &[path(&full), path(&bin)], bytes)?;
    convert(&weighbridge, &[path(&bin), path(&back)], bytes)?;
    if let Some(at) = first_difference(&full, &back, bytes)? {
        return Err(format!("1.5 GiB came back with another byte in the MiB at {at} from the end").into());
    }
    fs::remove_file(&bin)?;
    fs::remove_file(&back)?;
    fs::remove_file(&full)?;
    room(work, 4 * bytes)?;
    export(&weighbridge, work)?;
    println!(
        "large: {gib} GiB cast, from safetensors, ONNX and torch, 1.5 GiB there and back, 1.6 GiB as graphs, each within 128 MiB of private memory"
    );
    Ok(())
}

/// Rows and columns of a matrix of the network: 400 MiB, a multiple of every page.
const SIDE: u64 = 10_240;

/// Exports a network of 1.6 GiB. What is written has the lengths of what it must hold, and a graph in F32 holds the very
/// bytes.
fn export(weighbridge: &Path, work: &Path) -> Outcome {
    let model = work.join("network");
    fs::create_dir_all(&model)?;
    let used = SIDE * SIDE * 4;
    let layer = |i| format!(r#"{{"type":"Linear","name":"layer.{i}"}}"#);
    let layers: Vec<String> = (0..TENSORS).map(layer).collect();
    let config = format!(
        r#"{{"model_type":"layers","inputs":[{{"name":"x","shape":["batch",{SIDE}]}}],"layers":[{}]}}"#,
        layers.join(",")
    );
    fs::write(model.join("config.json"), config)?;
    let weights = model.join("model.safetensors");
    let mut file = File::create(&weights)?;
    file.write_all(&header(TENSORS * used, &format!("{SIDE},{SIDE}")))?;
    // Numbers of either sign between 1/32 and 1/16, which every dtype and every scale can hold.
    let number = |word: u64| word & 0x807f_ffff_807f_ffff | 0x3d00_0000_3d00_0000;
    random(&mut file, TENSORS * used, number)?;
    drop(file);
    for (name, options, least) in [
        ("f32", &[][..], TENSORS * used),
        ("f16", &["--dtype", "f16"], TENSORS * used / 2),
        ("int8", &["--quantize", "int8"], TENSORS * (used / 4 + SIDE * 4)),
    ] {
        let out = model.join(format!("{name}.onnx"));
        let always = ["--external-data", "always"];
        bounded(
            weighbridge,
            &[&["export", "onnx", path(&model), path(&out)], options, &always].concat(),
            used * TENSORS,
        )?;
        let data = model.join(format!("{name}.onnx.data"));
        let length = fs::metadata(&data)?.len();
        // What aligns a tensor is less than a page.
        if !(least..least + 2 * TENSORS * 4096).contains(&length) {
            return Err(format!("{}: {length} bytes, and at least {least} are wanted", data.display()).into());
        }
        if name == "f32"
            && let Some(at) = first_difference(&weights, &data, least)?
        {
            return Err(format!("the graph's weights differ in the MiB at {at} from the end").into());
        }
        fs::remove_file(&data)?;
    }
    Ok(())
}

/// A folder of its own below `target`, removed in the end whatever happens.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Outcome<Self> {
        let path = target().join(format!("large-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// A safetensors header of F32 tensors of one shape and length, with the length before it.
fn header(bytes: u64, shape: &str) -> Vec<u8> {
    let each = bytes / TENSORS;
    let entries: Vec<String> = (0..TENSORS)
        .map(|i| {
            let (begin, end) = (i * each, (i + 1) * each);
            format!(
                r#""layer.{i}.weight":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{begin},{end}]}}"#
            )
        })
        .collect();
    let mut json = format!("{{{}}}", entries.join(",")).into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    [&(json.len() as u64).to_le_bytes()[..], &json].concat()
}

/// Where tensors begin and end, and the number that stands there.
fn marks() -> impl Iterator<Item = (u64, f32)> {
    (0..TENSORS).flat_map(|i| [(2 * i, 1.5 + i as f32), (2 * i + 1, -2.5 - i as f32)])
}

/// The offset of a mark in elements: the first or the last of its tensor.
fn place(mark: u64, elements: u64) -> u64 {
    let each = elements / TENSORS;
    mark / 2 * each + if mark.is_multiple_of(2) { 0 } else { each - 1 }
}

fn make_sparse(path: &Path, bytes: u64) -> Outcome {
    let head = header(bytes, &(bytes / TENSORS / 4).to_string());
    let mut file = File::create(path)?;
    file.write_all(&head)?;
    file.set_len(head.len() as u64 + bytes)?;
    for (mark, number) in marks() {
        file.seek(SeekFrom::Start(head.len() as u64 + 4 * place(mark, bytes / 4)))?;
        file.write_all(&number.to_le_bytes())?;
    }
    Ok(())
}

fn make_full(path: &Path, bytes: u64) -> Outcome {
    let mut file = File::create(path)?;
    file.write_all(&header(bytes, &(bytes / TENSORS / 4).to_string()))?;
    random(&mut file, bytes, |word| word)
}

/// Random bytes, eight of them at a time as `number` makes them.
fn random(file: &mut File, bytes: u64, number: impl Fn(u64) -> u64) -> Outcome {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut block = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&number(state).to_le_bytes());
        }
        file.write_all(&block)?;
    }
    Ok(())
}

/// Whether what will be written fits the disk.
fn room(folder: &Path, bytes: u64) -> Outcome {
    let free = crate::command::output(command("df", &["-B1", "--output=avail", path(folder)]))?;
    let free: u64 = free.lines().nth(1).unwrap_or_default().trim().parse()?;
    // The command refuses to begin without room for the whole file, holes or not.
    if free < bytes {
        return Err(
            format!("{bytes} bytes are needed below {}, and {free} are free", folder.display()).into()
        );
    }
    Ok(())
}

fn convert(weighbridge: &Path, arguments: &[&str], bytes: u64) -> Outcome {
    bounded(weighbridge, &[&["convert"], arguments].concat(), bytes)
}

/// Runs the command under the bound.
fn bounded(weighbridge: &Path, arguments: &[&str], bytes: u64) -> Outcome {
    let mut limited = command("prlimit", &[MEMORY]);
    limited.arg(weighbridge).args(arguments).args(["--no-fsync", "--quiet", "--force"]);
    println!("{}", spelled(&limited));
    let start = Instant::now();
    crate::command::run(limited)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("    {:.1} GiB in {seconds:.1} s", bytes as f64 / f64::from(1 << 30));
    Ok(())
}

/// The numbers at the ends of the tensors, as F16, and the length.
fn check_half(path: &Path, bytes: u64) -> Outcome {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let head = len.checked_sub(bytes).filter(|h| (8..4096).contains(h));
    let head = head.ok_or_else(|| format!("{len} bytes were written, and {bytes} are tensors"))?;
    for (mark, number) in marks() {
        let at = head + 2 * place(mark, bytes / 2);
        file.seek(SeekFrom::Start(at))?;
        let mut found = [0; 2];
        file.read_exact(&mut found)?;
        if u16::from_le_bytes(found) != half(number) {
            return Err(format!("{number} became {found:02x?} at {at}").into());
        }
    }
    Ok(())
}

/// A number of few bits as F16: exact for those of [`marks`].
fn half(number: f32) -> u16 {
    let bits = number.to_bits();
    let exponent = (bits >> 23 & 0xff) as u16 - 112;
    (bits >> 16 & 0x8000) as u16 | exponent << 10 | (bits >> 13 & 0x3ff) as u16
}

/// Where the last `bytes` of two files differ first, counted from the end.
fn first_difference(a: &Path, b: &Path, bytes: u64) -> Outcome<Option<u64>> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let back = -i64::try_from(bytes)?;
    a.seek(SeekFrom::End(back))?;
    b.seek(SeekFrom::End(back))?;
    let (mut x, mut y) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for done in 0..bytes >> 20 {
        a.read_exact(&mut x)?;
        b.read_exact(&mut y)?;
        if x != y {
            return Ok(Some(bytes - (done << 20)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_halved_exactly() {
        assert_eq!((half(1.5), half(-2.5), half(4.5), half(-5.5)), (0x3e00, 0xc100, 0x4480, 0xc580));
        let places: Vec<u64> = marks().map(|(m, _)| place(m, 400)).collect();
        assert_eq!(places, [0, 99, 100, 199, 200, 299, 300, 399]);
    }

    #[test]
    fn a_difference_is_found() {
        let folder = Folder::new().unwrap();
        let (a, b) = (folder.0.join("a"), folder.0.join("b"));
        make_full(&a, 2 << 20).unwrap();
        fs::copy(&a, &b).unwrap();
        assert_eq!(first_difference(&a, &b, 2 << 20).unwrap(), None);
        let mut file = fs::OpenOptions::new().write(true).open(&b).unwrap();
        file.seek(SeekFrom::End(-1)).unwrap();
        file.write_all(&[0]).unwrap();
        file.seek(SeekFrom::End(-2)).unwrap();
        file.write_all(&[1, 2]).unwrap();
        assert_eq!(first_difference(&a, &b, 2 << 20).unwrap(), Some(1 << 20));
        make_sparse(&a, 1 << 20).unwrap();
        assert!(check_half(&a, 1 << 19).is_err());
    }
}
