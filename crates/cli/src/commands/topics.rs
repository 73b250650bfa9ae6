//! BERTopic's models: what `convert` and `inspect` do with them, and `weighbridge topics`, which assigns documents.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use weighbridge::bertopic::{
    self, Aspect, Documents, LoadOptions, Loaded, Pointer, SaveOptions, Serialization, TopicModel,
};
use weighbridge::runtime::npy;
use weighbridge::{Archive, DType, Error, NoteKind, Result};

use crate::exit::Exit;
use crate::output::{self, count, grouped, one_line, shortened, size};
use crate::progress::Progress;

/// The options of `convert` that are for BERTopic's models.
#[derive(clap::Args)]
pub(crate) struct ConvertArgs {
    /// SRC is a BERTopic model, a directory or a pickle: how DST is to keep it
    #[arg(long, value_name = "HOW", value_enum, help_heading = "BERTopic models")]
    #[arg(conflicts_with_all = ["to", "dtype", "select", "drop", "rename", "strip_prefix", "max_shard_size"])]
    #[arg(conflicts_with_all = ["metadata", "pickle_protocol"])]
    serialization: Option<How>,
    /// Leave c-TF-IDF out; topics can then not be updated or reduced
    #[arg(long, requires = "serialization", help_heading = "BERTopic models")]
    no_ctfidf: bool,
    /// The embedder to point to, as the hub names it; an empty NAME points to none
    #[arg(long, value_name = "NAME", requires = "serialization", help_heading = "BERTopic models")]
    embedding_model: Option<String>,
    /// Write a model card for a model or repository of this name, if there is none
    #[arg(long, value_name = "NAME", requires = "serialization", help_heading = "BERTopic models")]
    model_card: Option<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum How {
    /// A directory with its tensors in safetensors
    Safetensors,
    /// A directory with its tensors in torch files
    Pytorch,
    /// One pickle of a light model
    Pickle,
}

/// The options of `convert` that every model has.
pub(crate) struct Common<'a> {
    pub(crate) src: &'a Path,
    pub(crate) dst: &'a Path,
    pub(crate) force: bool,
    pub(crate) quiet: bool,
    pub(crate) json: bool,
    pub(crate) fsync: bool,
    pub(crate) allow_loss: bool,
}

/// Converts a BERTopic model, if one is meant. `plain` says that no option asks for anything else.
pub(crate) fn convert(args: &ConvertArgs, common: &Common<'_>, plain: bool) -> Result<Option<Exit>> {
    let Some(how) = args.serialization else {
        if plain && bertopic::is_directory(common.src) {
            return Err(Error::invalid_options(
                "this is a BERTopic model, and it is not said how to keep it",
            )
            .with_path(common.src)
            .with_hint("choose with `--serialization safetensors`, `pytorch` or `pickle`"));
        }
        return Ok(None);
    };
    let mut load = load_options();
    load.ctfidf = !args.no_ctfidf;
    let loaded = bertopic::load(common.src, &load)?;
    let progress = Progress::new(common.quiet || common.json);
    let mut options = SaveOptions::default();
    options.serialization = match how {
        How::Safetensors => Serialization::Safetensors,
        How::Pytorch => Serialization::Pytorch,
        How::Pickle => Serialization::Pickle,
    };
    options.embedding_model = match args.embedding_model.as_deref() {
        None => Pointer::Keep,
        Some("") => Pointer::Leave,
        Some(name) => Pointer::Name(name.to_owned()),
    };
    options.model_card.clone_from(&args.model_card);
    options.allow_loss = common.allow_loss;
    options.overwrite = common.force;
    options.fsync = common.fsync;
    options.observer = Some(&progress);
    let saved = bertopic::save(&loaded.model, common.dst, &options)?;
    let target = options.serialization;
    drop(options);
    drop(progress);
    let mut notes = loaded.notes.clone();
    notes.extend(saved.notes.iter().cloned());
    let bytes = saved.files.iter().fold(0u64, |n, (_, len)| n.saturating_add(*len));
    if common.json {
        let files = saved.files.iter();
        let report = serde_json::json!({
            "source": {
                "format": "bertopic",
                "serialization": loaded.serialization.as_str(),
                "files": paths(&loaded.files),
            },
            "target": {
                "format": "bertopic",
                "serialization": target.as_str(),
                "files": files
                    .map(|(p, bytes)| serde_json::json!({ "path": p.to_string_lossy(), "bytes": bytes }))
                    .collect::<Vec<_>>(),
                "bytes": bytes,
            },
            "topics": loaded.model.representations.len(),
            "documents": loaded.model.topics.len(),
            "notes": output::notes_json(&notes),
        });
        output::emit(format!("{report}\n").as_bytes())?;
        return Ok(Some(Exit::Success));
    }
    let mut out = String::new();
    if common.quiet {
        notes.retain(|n| matches!(n.kind, NoteKind::Warning | NoteKind::Lost));
        output::push_notes(&mut out, &notes);
        eprint!("{out}");
        return Ok(Some(Exit::Success));
    }
    let _ = writeln!(
        out,
        "{} ({}) -> {} ({})",
        one_line(&common.src.to_string_lossy()),
        loaded.serialization.as_str(),
        one_line(&common.dst.to_string_lossy()),
        target.as_str()
    );
    let _ = writeln!(
        out,
        "  {}, {}, {}, {}",
        count(loaded.model.representations.len() as u64, "topic"),
        count(loaded.model.topics.len() as u64, "document"),
        count(saved.files.len() as u64, "file"),
        size(bytes)
    );
    output::push_notes(&mut out, &notes);
    output::emit(out.as_bytes())?;
    Ok(Some(Exit::Success))
}

fn paths(files: &[PathBuf]) -> Vec<String> {
    files.iter().map(|p| p.to_string_lossy().into_owned()).collect()
}

fn load_options() -> LoadOptions {
    let mut options = LoadOptions::default();
    options.read = crate::limits::read_options();
    options
}

/// Shows a directory, if it is a BERTopic model.
pub(crate) fn inspect_directory(path: &Path, json: bool, all: bool) -> Result<Option<Exit>> {
    if !bertopic::is_directory(path) {
        return Ok(None);
    }
    show(&bertopic::load(path, &load_options())?, json, all).map(Some)
}

/// Shows an archive, if it is the pickle of a BERTopic model. One that is no fitted model is shown as what it is
/// besides: values and arrays.
pub(crate) fn inspect_archive(archive: &dyn Archive, json: bool, all: bool) -> Result<Option<Exit>> {
    if !bertopic::is_pickle(archive) {
        return Ok(None);
    }
    match bertopic::load_archive(archive, &load_options()) {
        Ok(loaded) => show(&loaded, json, all).map(Some),
        Err(e) => {
            eprintln!(
                "warning: the topics of this BERTopic model cannot be read: {}",
                one_line(&e.to_string())
            );
            Ok(None)
        }
    }
}

/// On a terminal, how many topics of a longer list are shown.
const SHOWN: usize = 40;
/// How many words of a topic are shown.
const WORDS: usize = 10;

fn show(loaded: &Loaded, json: bool, all: bool) -> Result<Exit> {
    if json {
        output::emit(format!("{}\n", describe(loaded)).as_bytes())?;
        return Ok(Exit::Success);
    }
    let model = &loaded.model;
    let mut out = format!("BERTopic model ({})\n", loaded.serialization.as_str());
    let outliers = match model.size(-1) {
        Some(n) => format!(", {} without a topic", grouped(n)),
        None => String::new(),
    };
    let named = model.topic_ids().iter().filter(|id| **id >= 0).count() as u64;
    let _ = writeln!(out, "  topics      {}", count(named, "topic"));
    let _ = writeln!(out, "  documents   {}{outliers}", grouped(model.topics.len() as u64));
    let _ = writeln!(out, "  embeddings  {} x {} F32", model.embeddings.len(), model.embeddings.dim());
    let ctfidf = match &model.ctfidf {
        Some(c) => format!(
            "{}, {}",
            count(c.vectorizer.vocabulary.len() as u64, "term"),
            count(c.matrix.data.len() as u64, "value")
        ),
        None => "none: topics cannot be updated or reduced".into(),
    };
    let _ = writeln!(out, "  c-TF-IDF    {ctfidf}");
    let embedder = model.config.embedding_model.as_deref().unwrap_or("not named");
    let _ = writeln!(out, "  embedder    {}", one_line(embedder));
    if !model.aspects.is_empty() {
        let aspects = model.aspects.iter().map(|(name, aspect)| match aspect {
            Aspect::Images => format!("{} ({})", one_line(name), count(model.images.len() as u64, "image")),
            Aspect::Topics(_) => one_line(name).into_owned(),
        });
        let _ = writeln!(out, "  aspects     {}", aspects.collect::<Vec<_>>().join(", "));
    }
    out.push('\n');
    push_topics(&mut out, model, all || !output::for_people());
    if loaded.serialization == Serialization::Pickle {
        out.push_str("\nThe arrays and other values of the pickle are shown by `--tree`.\n");
    }
    output::push_notes(&mut out, &loaded.notes);
    output::emit(out.as_bytes())?;
    Ok(Exit::Success)
}

fn push_topics(out: &mut String, model: &TopicModel, all: bool) {
    let ids = model.topic_ids();
    let shown = if all { ids.len() } else { ids.len().min(SHOWN) };
    let sizes: Vec<String> =
        ids.iter().map(|id| model.size(*id).map_or_else(|| "?".into(), grouped)).collect();
    let wide = sizes.iter().map(String::len).max().unwrap_or(0).max("documents".len());
    let _ = writeln!(out, "topic  {:>wide$}  words", "documents");
    let own = model.custom_labels.as_deref().unwrap_or_default();
    for (place, (id, size)) in ids.iter().zip(&sizes).take(shown).enumerate() {
        let words = model.representation(*id).unwrap_or_default().iter().filter(|t| !t.word.is_empty());
        let words: Vec<&str> = words.take(WORDS).map(|t| &*t.word).collect();
        let label = own.get(place).map(|l| format!("{}: ", shortened(l, 60))).unwrap_or_default();
        let words = words.join(", ");
        let words = if all { one_line(&words).into_owned() } else { shortened(&words, 120) };
        let _ = writeln!(out, "{id:>5}  {size:>wide$}  {label}{words}");
    }
    if shown < ids.len() {
        let _ = writeln!(out, "  … {} more (--all shows them)", grouped((ids.len() - shown) as u64));
    }
}

fn describe(loaded: &Loaded) -> serde_json::Value {
    let model = &loaded.model;
    let labels = model.topic_labels();
    let own = model.custom_labels.as_deref().unwrap_or_default();
    let topics = model.topic_ids().into_iter().enumerate().map(|(place, id)| {
        let terms = model.representation(id).unwrap_or_default().iter();
        serde_json::json!({
            "id": id,
            "documents": model.size(id),
            "label": labels.iter().find(|(topic, _)| *topic == id).map(|(_, text)| text),
            "custom_label": own.get(place),
            "words": terms
                .map(|t| serde_json::json!({ "word": t.word, "score": t.score.as_f64() }))
                .collect::<Vec<_>>(),
        })
    });
    let params = model.config.params().into_iter();
    serde_json::json!({
        "format": "bertopic",
        "serialization": loaded.serialization.as_str(),
        "files": paths(&loaded.files),
        "documents": model.topics.len(),
        "topics": topics.collect::<Vec<_>>(),
        "embeddings": { "topics": model.embeddings.len(), "dim": model.embeddings.dim() },
        "ctfidf": model.ctfidf.as_ref().map(|c| serde_json::json!({
            "terms": c.vectorizer.vocabulary.len(),
            "values": c.matrix.data.len(),
        })),
        "embedding_model": model.config.embedding_model,
        "aspects": model.aspects.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "images": model.images.len(),
        "config": params
            .map(|(key, value)| (key.to_owned(), serde_json::Value::from(value)))
            .collect::<serde_json::Map<_, _>>(),
        "notes": output::notes_json(&loaded.notes),
    })
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge topics my_model --embeddings documents.npy
  weighbridge topics my_model.pickle --embeddings documents.safetensors --json

A document's topic is the one whose embedding has the largest cosine to its own, as BERTopic predicts with a model \
that was saved without its sub-models. One line a document: topic, cosine, label.")]
pub(crate) struct Args {
    /// The model: a directory or a pickle
    model: PathBuf,
    /// The documents' embeddings, a row each: a .npy file, or any model file with one such tensor
    #[arg(long, value_name = "FILE")]
    embeddings: PathBuf,
    /// The name of the tensor, where the file has several
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let model = bertopic::load(&args.model, &load_options())?.model;
    let (floats, dim) = embeddings(args).map_err(|e| e.with_path(&args.embeddings))?;
    let documents = match &floats {
        Floats::F32(x) => Documents::F32(x),
        Floats::F64(x) => Documents::F64(x),
    };
    let found = model.transform(documents, dim).map_err(|e| e.with_path(&args.embeddings))?;
    let mut out = String::new();
    if args.json {
        let rows = found.similarities.chunks(model.embeddings.len().max(1)).map(<[f64]>::to_vec);
        let report = serde_json::json!({
            "topics": found.topics,
            "probabilities": found.probabilities,
            "similarities": rows.collect::<Vec<_>>(),
        });
        let _ = writeln!(out, "{report}");
    } else {
        let labels: Vec<(i64, String)> =
            model.topic_ids().into_iter().map(|id| (id, model.label(id).unwrap_or_default())).collect();
        for (topic, cosine) in found.topics.iter().zip(&found.probabilities) {
            let label =
                labels.iter().find(|(id, _)| id == topic).map(|(_, text)| &**text).unwrap_or_default();
            let _ = writeln!(out, "{topic}\t{cosine:.6}\t{}", one_line(label));
        }
    }
    output::emit(out.as_bytes())?;
    Ok(Exit::Success)
}

enum Floats {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// The embeddings and the length of a row.
fn embeddings(args: &Args) -> Result<(Floats, usize)> {
    let (dtype, shape, bytes) = if args.embeddings.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy"))
    {
        let array = npy::read(&args.embeddings, &weighbridge::Limits::default())?;
        (array.dtype, array.shape, array.bytes)
    } else {
        let archive = crate::limits::open(&args.embeddings)?;
        let index = match (&args.tensor, archive.tensors().len()) {
            (Some(name), _) => archive
                .position(name)
                .ok_or_else(|| Error::not_found("no tensor of that name").with_tensor(&**name))?,
            (None, 1) => 0,
            (None, n) => {
                return Err(Error::invalid_options(format!("the file has {n} tensors"))
                    .with_hint("choose one with `--tensor NAME`"));
            }
        };
        let info = archive.tensors().get(index).ok_or_else(|| Error::not_found("no such tensor"))?;
        (info.dtype(), info.shape().to_vec(), archive.data(index)?.read_all()?)
    };
    let &[_, dim] = &*shape else {
        return Err(Error::mismatch(format!("shape {shape:?}, and a row for each document is wanted")));
    };
    let dim = usize::try_from(dim).map_err(|_| Error::limit("a row that does not fit in memory"))?;
    let floats = match dtype {
        DType::F32 => Floats::F32(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        DType::F64 => Floats::F64(bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()),
        other => {
            return Err(Error::unsupported(format!("embeddings of {other}"))
                .with_hint("floats of 32 or 64 bits are wanted"));
        }
    };
    Ok((floats, dim))
}
