//! From a checkpoint to embeddings: a `.bin` in F32 becomes a folder of safetensors in F16, that becomes an ONNX graph, and
//! ONNX Runtime embeds sentences with it, by the tokenizer that was saved along.
//!
//! ```sh
//! cargo run -p weighbridge-examples --bin embed -- all-MiniLM-L6-v2 out "A cat sat." "A dog ran."
//! ```
//!
//! The first argument is a model's folder with its tokenizer, the second a folder to be. It prints a line for each step, a
//! line `embedding I: x x x …` for each sentence, and `cosine I J: c` for each pair. The runtime's library is looked for
//! where `ORT_DYLIB_PATH` says.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use weighbridge::export::{ExportOptions, Task, export};
use weighbridge::model::tokenizer::Tokenizer;
use weighbridge::model::{ModelLoader, ModelSaver};
use weighbridge::runtime::{Array, Arrays, Session, SessionOptions};
use weighbridge::write::ExecuteOptions;
use weighbridge::{DType, Error, Precision, Result, WriteOptions};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, out, sentences @ ..] = &arguments[..] else {
        eprintln!("usage: embed MODEL_DIR OUT_DIR SENTENCE…");
        return ExitCode::from(2);
    };
    match run(Path::new(model), Path::new(out), sentences) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(model: &Path, out: &Path, sentences: &[String]) -> Result<()> {
    let half = narrow(model, out)?;
    let graph = graph(&half)?;
    let embeddings = embed(&half, &graph, sentences)?;
    for (i, embedding) in embeddings.iter().enumerate() {
        let numbers: Vec<String> = embedding.iter().map(|x| format!("{x:.6}")).collect();
        println!("embedding {i}: {}", numbers.join(" "));
    }
    for (i, a) in embeddings.iter().enumerate() {
        for (j, b) in embeddings.iter().enumerate().skip(i + 1) {
            println!("cosine {i} {j}: {:.4}", a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>());
        }
    }
    Ok(())
}

/// The whole folder in half precision, as safetensors: config, tokenizer and weights appear together.
fn narrow(from: &Path, to: &Path) -> Result<PathBuf> {
    let model = ModelLoader::new(from).load()?;
    let report = ModelSaver::of(&model)?.precision(Precision::to(DType::F16)).save(to)?;
    println!(
        "{} -> {}: {} -> {} bytes",
        model.weights().format(),
        to.display(),
        report.bytes_before,
        report.bytes_after
    );
    Ok(to.to_owned())
}

/// One vector a sentence, by the pooling that the folder describes. The graph holds F16 and computes in F32.
fn graph(folder: &Path) -> Result<PathBuf> {
    let model = ModelLoader::new(folder).load()?;
    let mut options = ExportOptions::default();
    options.task = Some(Task::SentenceEmbeddings);
    options.dtype = DType::F16;
    options.compute = Some(DType::F32);
    let export = export(&model, &options)?;
    let path = folder.join("model.onnx");
    let written = export.write(&path, WriteOptions::default(), &ExecuteOptions::default())?;
    println!("{}: {} bytes", path.display(), written.bytes);
    Ok(path)
}

/// Runs all sentences as one batch: shorter ones are padded, and the mask says where.
fn embed(folder: &Path, graph: &Path, sentences: &[String]) -> Result<Vec<Vec<f32>>> {
    let tokenizer = Tokenizer::open(folder)?;
    let ids: Vec<Vec<u32>> = sentences.iter().map(|s| tokenizer.encode(s, true)).collect::<Result<_>>()?;
    let length = ids.iter().map(Vec::len).max().unwrap_or_default();
    let padding =
        tokenizer.token_to_id("[PAD]").or_else(|| tokenizer.token_to_id("<pad>")).unwrap_or_default();
    let padded = |filled: fn(u32) -> i64, rest: i64| -> Vec<i64> {
        let row = |row: &Vec<u32>| {
            let mut row: Vec<i64> = row.iter().map(|&id| filled(id)).collect();
            row.resize(length, rest);
            row
        };
        ids.iter().flat_map(row).collect()
    };
    let shape = [ids.len() as u64, length as u64];
    let all = Arrays::from([
        ("input_ids".to_owned(), Array::of(shape, &padded(i64::from, padding.into()))?),
        ("attention_mask".to_owned(), Array::of(shape, &padded(|_| 1, 0))?),
        ("token_type_ids".to_owned(), Array::of(shape, &padded(|_| 0, 0))?),
    ]);
    let mut session = Session::open(graph, &SessionOptions::default())?;
    let wanted = |name: &str| session.inputs().iter().any(|i| i.name == name);
    let inputs: Arrays = all.into_iter().filter(|(name, _)| wanted(name)).collect();
    let outputs = session.run(&inputs)?;
    let vectors =
        outputs.get("sentence_embedding").ok_or_else(|| Error::not_found("the graph gives no embedding"))?;
    let size = vectors.shape.last().map_or(1, |&n| n as usize).max(1);
    Ok(vectors.to_vec::<f32>()?.chunks(size).map(<[f32]>::to_vec).collect())
}
