//! A model's directory: which files it has, reading it, and laying out a new one.

use std::path::{Path, PathBuf};

use weighbridge_formats::write::{FilePlan, WritePlan};
use weighbridge_formats::{
    Archive, DType, Data, Error, Limits, MemoryArchive, Note, ReadOptions, Registry, Result, Source, Tensor,
    WriteOptions,
};

use crate::card;
use crate::config::Config;
use crate::ctfidf::Ctfidf;
use crate::model::{Aspect, Asset, Embeddings, TopicModel};
use crate::numbers::{self, Floats};
use crate::save::{LoadOptions, SaveOptions, Serialization};
use crate::topics_json;

pub(crate) const TOPICS: &str = "topics.json";
const CONFIG: &str = "config.json";
const WEIGHTS: [&str; 2] = ["topic_embeddings.safetensors", "topic_embeddings.bin"];
const CTFIDF: [&str; 2] = ["ctfidf.safetensors", "ctfidf.bin"];
const CTFIDF_CONFIG: &str = "ctfidf_config.json";
const IMAGES: &str = "images";
const README: &str = "README.md";

/// What is said of c-TF-IDF that was asked to be left alone.
pub(crate) const WITHOUT_CTFIDF: &str = "c-TF-IDF is left out, as asked: topics cannot be updated or reduced";

/// Whether a folder is a BERTopic model's: it has `topics.json` and a file of topic embeddings.
pub fn is_directory(path: &Path) -> bool {
    path.join(TOPICS).is_file() && WEIGHTS.iter().any(|name| path.join(name).is_file())
}

/// Whether an entry of a folder is one of a model's files, which replacing the model removes. A model card is not:
/// a person may have written it.
pub(crate) fn is_own(name: &str) -> bool {
    let name = name.to_lowercase();
    [TOPICS, CONFIG, CTFIDF_CONFIG, IMAGES].iter().chain(&WEIGHTS).chain(&CTFIDF).any(|own| *own == name)
}

/// What a directory was found to hold.
pub(crate) struct Read {
    pub(crate) model: TopicModel,
    pub(crate) notes: Vec<Note>,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) serialization: Serialization,
}

/// Reads a directory. The parts are not yet held against each other.
///
/// # Errors
/// `NotFound` for a file that BERTopic needs; what the files' readers say.
pub(crate) fn read(folder: &Path, choices: &LoadOptions) -> Result<Read> {
    let (options, limits) = (&choices.read, &choices.read.limits);
    let mut model = TopicModel::default();
    let (mut notes, mut files) = (Vec::new(), Vec::new());
    let topics = folder.join(TOPICS);
    let bytes = read_file(&topics, limits, &mut files)?;
    topics_json::parse(&bytes, limits, &mut model, &mut notes).map_err(|e| e.with_path(&topics))?;
    drop(bytes);
    let config = folder.join(CONFIG);
    let bytes = read_file(&config, limits, &mut files)?;
    model.config = Config::parse(&bytes, limits, &mut notes).map_err(|e| e.with_path(&config))?;

    let Some((weights, serialization)) = either(folder, WEIGHTS, &mut notes) else {
        let what = format!("neither {} nor {} is there", WEIGHTS[0], WEIGHTS[1]);
        return Err(Error::not_found(what).with_path(folder));
    };
    let archive = open(&weights, options, &mut files, &mut notes)?;
    model.embeddings = embeddings(&*archive, limits, &mut notes).map_err(|e| e.with_path(&weights))?;

    let ctfidf_config = folder.join(CTFIDF_CONFIG);
    match either(folder, CTFIDF, &mut notes) {
        found if !choices.ctfidf => notes.extend(found.map(|_| Note::changed(WITHOUT_CTFIDF))),
        Some((path, _)) => {
            let archive = open(&path, options, &mut files, &mut notes)?;
            let bytes = read_file(&ctfidf_config, limits, &mut files)?;
            let ctfidf = Ctfidf::read(&*archive, &bytes, limits, &mut notes);
            model.ctfidf = Some(ctfidf.map_err(|e| e.with_path(&path))?);
        }
        None if ctfidf_config.is_file() => notes.push(Note::warning(format!(
            "{CTFIDF_CONFIG} is there, and neither {} nor {}",
            CTFIDF[0], CTFIDF[1]
        ))),
        None => {}
    }
    images(folder, &mut model, &mut notes, &mut files)?;
    let readme = folder.join(README);
    if readme.is_file() {
        model.readme = Some(Asset::file(&readme)?);
        files.push(readme);
    }
    Ok(Read { model, notes, files, serialization })
}

fn read_file(path: &Path, limits: &Limits, files: &mut Vec<PathBuf>) -> Result<Vec<u8>> {
    let source = Source::open(path)?;
    let bytes = source.read_vec(0, source.len(), limits).map_err(|e| e.with_path(path))?;
    files.push(path.to_owned());
    Ok(bytes)
}

/// The first of two files, as BERTopic chooses.
fn either(folder: &Path, names: [&str; 2], notes: &mut Vec<Note>) -> Option<(PathBuf, Serialization)> {
    let [safe, torch] = names.map(|name| folder.join(name));
    match (safe.is_file(), torch.is_file()) {
        (true, other) => {
            if other {
                notes.push(Note::info(format!("{} is read, and {} is not", names[0], names[1])));
            }
            Some((safe, Serialization::Safetensors))
        }
        (false, true) => Some((torch, Serialization::Pytorch)),
        (false, false) => None,
    }
}

fn open(
    path: &Path,
    options: &ReadOptions,
    files: &mut Vec<PathBuf>,
    notes: &mut Vec<Note>,
) -> Result<Box<dyn Archive>> {
    let archive = Registry::builtin().open(Source::open(path)?, options)?;
    files.push(path.to_owned());
    notes.extend_from_slice(archive.notes());
    Ok(archive)
}

fn embeddings(archive: &dyn Archive, limits: &Limits, notes: &mut Vec<Note>) -> Result<Embeddings> {
    matrix(archive, numbers::position(archive, "topic_embeddings")?, limits, notes)
}

/// A tensor of two dimensions as 32-bit floats.
pub(crate) fn matrix(
    archive: &dyn Archive,
    index: usize,
    limits: &Limits,
    notes: &mut Vec<Note>,
) -> Result<Embeddings> {
    let info = archive.tensors().get(index).ok_or_else(|| Error::not_found("no such tensor"))?;
    let &[_, dim] = info.shape() else {
        let what = format!("shape {:?}, and a matrix is wanted", info.shape());
        return Err(Error::mismatch(what).with_tensor(info.name()));
    };
    let dim = usize::try_from(dim).map_err(|_| Error::limit("a row that does not fit in memory"))?;
    let data = match numbers::floats(archive, index, limits)? {
        Floats::F32(data) => data,
        Floats::F64(data) => {
            notes.push(Note::changed(
                "the topic embeddings are rounded from f64 to f32, as BERTopic saves them",
            ));
            data.into_iter().map(|x| x as f32).collect()
        }
    };
    Embeddings::new(dim, data).map_err(|e| e.with_tensor(info.name()))
}

/// Finds the images. BERTopic looks for that of topic 0, and then for that of every topic.
fn images(
    folder: &Path,
    model: &mut TopicModel,
    notes: &mut Vec<Note>,
    files: &mut Vec<PathBuf>,
) -> Result<()> {
    let wanted = model.aspects.iter().any(|(_, aspect)| *aspect == Aspect::Images);
    let there = folder.join(IMAGES).join("0.jpg").is_file();
    if !wanted {
        if folder.join(IMAGES).is_dir() {
            notes.push(Note::info(format!("{IMAGES} is not read: no aspect is of images")));
        }
        return Ok(());
    }
    if !there {
        return Ok(());
    }
    let topics = Source::open(folder.join(TOPICS))?;
    for (id, _) in &model.representations {
        let name = format!("{IMAGES}/{id}.jpg");
        // A link may lead out of the folder.
        topics.sibling(&name)?;
        let path = folder.join(&name);
        model.images.push((*id, Asset::file(&path)?));
        files.push(path);
    }
    Ok(())
}

/// A directory to be, with the tensors that its plan refers to.
pub(crate) struct Layout<'a> {
    model: &'a TopicModel,
    embeddings: MemoryArchive<'static>,
    ctfidf: Option<MemoryArchive<'static>>,
    config: Config,
    card: Option<Vec<u8>>,
    serialization: Serialization,
    notes: Vec<Note>,
}

impl<'a> Layout<'a> {
    /// Lays a directory out.
    ///
    /// # Errors
    /// `InvalidOptions` for what BERTopic could not load or the files cannot hold, without leave to lose it.
    pub(crate) fn new(model: &'a TopicModel, options: &SaveOptions<'_>) -> Result<Self> {
        let mut notes = Vec::new();
        let mut lost = |what: String| {
            let refused = Error::invalid_options(format!("this would be lost: {what}"));
            notes.push(Note::lost(what));
            if options.allow_loss { Ok(()) } else { Err(refused.with_hint("allow the loss")) }
        };
        let mut config = options.config(model);
        for (key, _) in std::mem::take(&mut config.unknown) {
            lost(format!("the parameter {key:?} of config.json, which BERTopic refuses to load"))?;
        }
        let ctfidf = model.ctfidf.as_ref().filter(|_| options.save_ctfidf);
        if let Some(key) = ctfidf.and_then(|c| c.vectorizer.unknown().next()) {
            let what = format!(
                "the vectorizer's parameter {key:?} is unknown to CountVectorizer, which fails on it"
            );
            return Err(Error::invalid_options(what).with_hint("remove it, or leave c-TF-IDF out"));
        }
        if model.ctfidf.is_some() && !options.save_ctfidf {
            notes.push(Note::changed(WITHOUT_CTFIDF));
        }
        if !model.zeroshot_topics.is_empty() {
            notes.push(Note::changed(
                "which topics were given beforehand is left out: BERTopic will name them by their words",
            ));
        }
        let shape = [model.embeddings.len() as u64, model.embeddings.dim() as u64];
        let bytes = Data::Owned(numbers::f32_bytes(model.embeddings.data()).into());
        let embeddings =
            MemoryArchive::new([Tensor::new("topic_embeddings", DType::F32, shape.as_slice(), bytes)?])?;
        let ctfidf = ctfidf.map(Ctfidf::tensors).transpose()?;
        let card = options.model_card.as_ref().map(|name| card::model_card(model, name).into_bytes());
        Ok(Self { model, embeddings, ctfidf, config, card, serialization: options.serialization, notes })
    }

    /// The plan of its files.
    ///
    /// # Errors
    /// As the formats' writers.
    pub(crate) fn plan(&self) -> Result<WritePlan<'_>> {
        let mut plan = WritePlan { files: Vec::new(), notes: self.notes.clone() };
        let torch = self.serialization == Serialization::Pytorch;
        let format = if torch { "torch" } else { "safetensors" };
        let pick = |names: [&'static str; 2]| if torch { names[1] } else { names[0] };
        let registry = Registry::builtin();
        let serializer = registry.serializer(format)?;
        let named = |name: &str| {
            let mut options = WriteOptions::default();
            options.file_name = name.to_owned();
            options
        };
        plan.files.extend(serializer.plan(&self.embeddings, &named(pick(WEIGHTS)))?.files);
        plan.files.push(fixed(TOPICS, topics_json::render(self.model))?);
        for (id, image) in &self.model.images {
            let mut file = FilePlan::new(format!("{IMAGES}/{id}.jpg"));
            file.push_data(image.data(), format!("image of topic {id}"), false)?;
            plan.files.push(file);
        }
        plan.files.push(fixed(CONFIG, self.config.render())?);
        if let (Some(archive), Some(ctfidf)) = (&self.ctfidf, &self.model.ctfidf) {
            plan.files.extend(serializer.plan(archive, &named(pick(CTFIDF)))?.files);
            plan.files.push(fixed(CTFIDF_CONFIG, ctfidf.render_config())?);
        }
        // A card that is there stays: it may be a person's.
        match (&self.model.readme, &self.card) {
            (Some(readme), _) => {
                let mut file = FilePlan::new(README);
                file.push_data(readme.data(), README, false)?;
                plan.files.push(file);
            }
            (None, Some(card)) => plan.files.push(fixed(README, card.clone())?),
            (None, None) => {}
        }
        Ok(plan)
    }
}

fn fixed(name: &str, bytes: Vec<u8>) -> Result<FilePlan<'static>> {
    let mut file = FilePlan::new(name);
    file.push_fixed(bytes)?;
    Ok(file)
}
