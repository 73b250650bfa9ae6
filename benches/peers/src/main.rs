//! What other Rust crates take for the work that Weighbridge does, beside `cp`.
//!
//! `peers all DIR RUNS` prints a table; `peers TASK PEER DIR` does one task and prints its seconds. DIR is the work
//! folder of `sidebyside.py`, with big.bin, big.safetensors, many.bin and many.safetensors in it.
//!
//! Each run is a process of its own, whose clock starts after its own start-up (unlike that of `weighbridge`, whose
//! whole process is timed: the peers are given that advantage). The tools of a task take turns, a first round is not
//! counted, and memory is filled and freed before each run, since a virtual machine may have given its pages back.

use candle_core::{DType, Device, pickle, safetensors as candle_safetensors};
use half::bf16;
use half::slice::HalfFloatSliceExt;
use memmap2::{Mmap, MmapMut};
use pytorch_reader::PytorchReader;
use safetensors::{Dtype, SafeTensors, View, serialize_to_file, tensor::TensorView};
use std::borrow::Cow;
use std::collections::HashMap;
use std::error::Error;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Each task with the peers that can do it; `cp` is timed beside those that write.
const TASKS: &[(&str, bool, &[&str])] = &[
    ("list", false, &["candle", "pytorch-reader"]),
    ("list-st", false, &["safetensors", "candle"]),
    ("convert", true, &["candle", "pytorch-reader+safetensors"]),
    ("cast", true, &["candle", "safetensors+half"]),
];

/// How much memory is filled and freed before each run.
const WARM: usize = 4 << 30;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["all", dir, runs] => table(Path::new(dir), runs.parse()?),
        [task, peer, dir] => {
            let (seconds, tensors) = one(task, peer, Path::new(dir))?;
            println!("{seconds} {tensors}");
            Ok(())
        }
        _ => Err("peers all DIR RUNS, or peers TASK PEER DIR".into()),
    }
}

/// Every task by every peer in turn; medians, minima, and the ratio to `cp` where the task writes.
fn table(dir: &Path, runs: usize) -> Outcome {
    let (written, copied) = (dir.join("peer.safetensors"), dir.join("copy.bin"));
    println!("{:9} {:28} {:>10} {:>10} {:>6}", "task", "peer", "median ms", "min ms", "/cp");
    for (task, writes, peers) in TASKS {
        let names: Vec<&str> = writes.then_some("cp").into_iter().chain(peers.iter().copied()).collect();
        let mut times: HashMap<&str, Vec<f64>> = HashMap::new();
        for turn in 0..=runs.max(1) {
            for name in &names {
                for path in [&written, &copied] {
                    if path.exists() {
                        fs::remove_file(path)?;
                    }
                }
                MmapMut::map_anon(WARM)?.fill(1);
                let seconds = if *name == "cp" {
                    let source = dir.join(if *task == "cast" { "big.safetensors" } else { "big.bin" });
                    let began = Instant::now();
                    let status = Command::new("cp").arg(source).arg(&copied).status()?;
                    if !status.success() {
                        return Err("cp failed".into());
                    }
                    began.elapsed().as_secs_f64()
                } else {
                    let out = Command::new(std::env::current_exe()?).args([task, name]).arg(dir).output()?;
                    if !out.status.success() {
                        return Err(format!("{task} {name}: {}", String::from_utf8_lossy(&out.stderr)).into());
                    }
                    let text = String::from_utf8(out.stdout)?;
                    let (seconds, tensors) = text.trim().split_once(' ').ok_or("no answer")?;
                    if tensors.parse::<usize>()? == 0 {
                        return Err(format!("{task} {name}: no tensor was seen").into());
                    }
                    seconds.parse()?
                };
                if turn > 0 {
                    times.entry(name).or_default().push(seconds);
                }
            }
        }
        times.values_mut().for_each(|t| t.sort_by(f64::total_cmp));
        let cp = times.get("cp").map(|t| t[t.len() / 2]);
        for name in names {
            let taken = &times[name];
            let median = taken[taken.len() / 2];
            let ratio = cp.map_or("-".into(), |cp| format!("{:.2}", median / cp));
            println!("{task:9} {name:28} {:10.1} {:10.1} {ratio:>6}", median * 1e3, taken[0] * 1e3);
        }
    }
    for path in [written, copied] {
        if path.exists() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Does one task; returns its seconds and how many tensors it saw. What was loaded is freed after the clock.
fn one(task: &str, peer: &str, dir: &Path) -> Outcome<(f64, usize)> {
    let (big, big_st) = (dir.join("big.bin"), dir.join("big.safetensors"));
    let (many, many_st) = (dir.join("many.bin"), dir.join("many.safetensors"));
    let out = dir.join("peer.safetensors");
    let began = Instant::now();
    let stop = |tensors: usize| (began.elapsed().as_secs_f64(), tensors);
    match (task, peer) {
        ("list", "candle") => {
            let infos = pickle::read_pth_tensor_info(&many, false, None)?;
            Ok(stop(infos.len()))
        }
        ("list", "pytorch-reader") => {
            let reader = PytorchReader::new(&many)?;
            Ok(stop(reader.tensors().values().filter(|t| !t.shape().is_empty()).count()))
        }
        ("list-st", "safetensors") => {
            let map = map(&many_st)?;
            let file = SafeTensors::deserialize(&map)?;
            let listed: Vec<_> =
                file.iter().map(|(n, t)| (n.to_owned(), t.dtype(), t.shape().to_vec())).collect();
            Ok(stop(listed.len()))
        }
        ("list-st", "candle") => {
            // SAFETY: nothing writes to the input while it is mapped.
            let file = unsafe { candle_safetensors::MmapedSafetensors::new(&many_st)? };
            let listed: Vec<_> =
                file.tensors().iter().map(|(n, t)| (n.clone(), t.shape().to_vec())).collect();
            Ok(stop(listed.len()))
        }
        ("convert", "candle") => {
            let tensors: HashMap<_, _> = pickle::read_all(&big)?.into_iter().collect();
            candle_safetensors::save(&tensors, &out)?;
            Ok(stop(tensors.len()))
        }
        ("convert", "pytorch-reader+safetensors") => {
            let tensors = PytorchReader::new(&big)?.into_tensors();
            let count = tensors.len();
            serialize_to_file(tensors.into_iter().map(|(name, tensor)| (name, Read(tensor))), None, &out)?;
            Ok(stop(count))
        }
        ("cast", "candle") => {
            let loaded = candle_safetensors::load(&big_st, &Device::Cpu)?;
            let cast = loaded.into_iter().map(|(name, tensor)| Ok((name, tensor.to_dtype(DType::BF16)?)));
            let tensors: HashMap<_, _> = cast.collect::<Outcome<_>>()?;
            candle_safetensors::save(&tensors, &out)?;
            Ok(stop(tensors.len()))
        }
        ("cast", "safetensors+half") => {
            let map = map(&big_st)?;
            let file = SafeTensors::deserialize(&map)?;
            serialize_to_file(file.iter().map(|(name, view)| (name, Cast(view))), None, &out)?;
            Ok(stop(file.len()))
        }
        _ => Err(format!("no peer {peer} for the task {task}").into()),
    }
}

fn map(path: &Path) -> Outcome<Mmap> {
    // SAFETY: nothing writes to the input while it is mapped.
    Ok(unsafe { Mmap::map(&File::open(path)?)? })
}

/// A tensor that is read when the writer comes to it, so that only one is in memory.
struct Read(pytorch_reader::Tensor);

impl View for Read {
    fn dtype(&self) -> Dtype {
        match self.0.dtype() {
            pytorch_reader::DType::F32 => Dtype::F32,
            other => panic!("the benchmark's files hold f32 alone, not {other:?}"),
        }
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0.read().expect("the benchmark's own file").into()
    }

    fn data_len(&self) -> usize {
        self.0.byte_len()
    }
}

/// An f32 tensor that is cast when the writer comes to it.
struct Cast<'a>(TensorView<'a>);

impl View for Cast<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::BF16
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        bytemuck::cast_slice_mut::<u8, bf16>(&mut bytes)
            .convert_from_f32_slice(bytemuck::cast_slice(self.0.data()));
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.0.data().len() / 2
    }
}
