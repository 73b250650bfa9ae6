//! From the description of a whole BERTopic object to a light model. Nothing of it is run.

use std::cell::Cell;
use std::path::Path;

use weighbridge_formats::value::{Construct, Global};
use weighbridge_formats::{
    Archive, Error, Limits, Note, NoteKind, Registry, Result, Source, Value, ValueId, Values,
};

use super::{BASE_CLUSTER, BASE_EMBEDDER, BASE_REDUCTION, BERTOPIC};
use crate::config::Config;
use crate::directory::{self, Read};
use crate::json::{Json, Number, last_wins};
use crate::model::{Aspect, ByTopic, Embeddings, Term, TopicModel, VISUAL_ASPECT};
use crate::numbers::{self, Floats};
use crate::save::{LoadOptions, Serialization};
use crate::topics_json::aspect_value;

/// How deep plain values may nest that become JSON.
const DEPTH: u32 = 16;

/// Whether an archive is the pickle of a BERTopic model: its root is an object of that class.
pub fn is_pickle(archive: &dyn Archive) -> bool {
    let Some(values) = archive.values() else { return false };
    values.root().and_then(|root| class(values, root)).is_some_and(|c| c.is(BERTOPIC.0, BERTOPIC.1))
}

/// Reads a pickle, compressed or not.
///
/// # Errors
/// As [`from_archive`]; what opening says.
pub(crate) fn read(path: &Path, options: &LoadOptions) -> Result<Read> {
    let archive = Registry::builtin().open(Source::open(path)?, &options.read)?;
    from_archive(&*archive, options)
}

/// Reads the model that an archive's root describes.
///
/// # Errors
/// `InvalidOptions` if the root is no BERTopic object; `NotFound` for an attribute that a fitted model has;
/// `Unsupported` and `Malformed` for one of another type.
pub(crate) fn from_archive(archive: &dyn Archive, options: &LoadOptions) -> Result<Read> {
    let limits = &options.read.limits;
    let (Some(values), true) = (archive.values(), is_pickle(archive)) else {
        let what = format!("this is no pickle of a BERTopic model, but {}", describe(archive));
        return Err(Error::invalid_options(what)
            .with_hint("name a directory with topics.json, or what `BERTopic.save` has pickled"));
    };
    let root = values.root().ok_or_else(|| Error::malformed("a pickle without a root"))?;
    // That objects are kept as they are described is no news here.
    let mut notes: Vec<Note> = archive.notes().iter().filter(|n| n.kind > NoteKind::Info).cloned().collect();
    let reader = Reader { archive, values, limits, budget: Cell::new(limits.values) };
    let model = reader.model(root, options.ctfidf, &mut notes)?;
    Ok(Read { model, notes, files: archive.files(), serialization: Serialization::Pickle })
}

fn describe(archive: &dyn Archive) -> String {
    let root = archive.values().and_then(|v| class(v, v.root()?));
    match root {
        Some(class) => format!("one of {class}"),
        None => format!("a file of the format {} ({})", archive.format(), archive.variety()),
    }
}

/// The class of an object, by whichever protocol it was described.
pub(super) fn class(values: &Values, id: ValueId) -> Option<&Global> {
    let Value::Object(object) = values.get(id) else { return None };
    let called = values.global(object.class)?;
    let rebuilt = called.is("copyreg", "_reconstructor") || called.is("copy_reg", "_reconstructor");
    if object.construct == Construct::Call && rebuilt {
        return values.global(*values.sequence(object.args)?.first()?);
    }
    Some(called)
}

/// What a value is, for messages.
fn kind(values: &Values, id: ValueId) -> String {
    match values.get(id) {
        Value::None => "None".into(),
        Value::Bool(_) => "a bool".into(),
        Value::Int(_) | Value::BigInt(_) => "an int".into(),
        Value::Float(_) => "a float".into(),
        Value::Str(_) => "a str".into(),
        Value::List(_) => "a list".into(),
        Value::Tuple(_) => "a tuple".into(),
        Value::Dict(_) => "a dict".into(),
        Value::Tensor(_) => "an array".into(),
        Value::Global(global) => format!("the name {global}"),
        Value::Object(_) => match class(values, id) {
            Some(class) => format!("an object of {class}"),
            None => "an object".into(),
        },
        _ => "something else".into(),
    }
}

/// Reads parts of a value graph. Shared parts may be met any number of times, so what is made of them is counted.
pub(super) struct Reader<'a> {
    pub(super) archive: &'a dyn Archive,
    pub(super) values: &'a Values,
    pub(super) limits: &'a Limits,
    budget: Cell<u64>,
}

impl<'a> Reader<'a> {
    fn model(&self, root: ValueId, ctfidf: bool, notes: &mut Vec<Note>) -> Result<TopicModel> {
        let state = self.state(root).ok_or_else(|| Error::malformed("the BERTopic object has no state"))?;
        let mut model = TopicModel { config: self.config(state)?, ..TopicModel::default() };
        model.topics = at("topics_", self.ints(self.needed(state, "topics_")?))?;
        model.sizes = at(
            "topic_sizes_",
            self.by_topic(self.needed(state, "topic_sizes_")?, |id| {
                u64::try_from(self.int(id)?).map_err(|_| Error::malformed("a negative number of documents"))
            }),
        )?;
        let words = self.needed(state, "topic_representations_")?;
        model.representations = at("topic_representations_", self.by_topic(words, |id| self.terms(id)))?;
        model.mapper = at("topic_mapper_", self.mapper(self.needed(state, "topic_mapper_")?))?;
        if let Some(labels) = self.given(state, "custom_labels_") {
            model.custom_labels = Some(at("custom_labels_", self.labels(labels))?);
        }
        let embeddings = self.given(state, "topic_embeddings_").ok_or_else(|| {
            Error::not_found("the model has no topic embeddings, which its light form consists of")
        })?;
        model.embeddings = at("topic_embeddings_", self.embeddings(embeddings, notes))?;
        if let Some(aspects) = self.given(state, "topic_aspects_") {
            model.aspects = at("topic_aspects_", self.aspects(aspects, notes))?;
        }
        if let Some(places) = self.given(state, "_topic_id_to_zeroshot_topic_idx") {
            model.zeroshot_topics = at(
                "zero-shot topics",
                self.by_topic(places, |id| {
                    u64::try_from(self.int(id)?).map_err(|_| Error::malformed("a negative place in a list"))
                }),
            )?;
        }
        match self.given(state, "c_tf_idf_") {
            Some(_) if ctfidf => model.ctfidf = Some(self.ctfidf(state, notes)?),
            Some(_) => notes.push(Note::changed(directory::WITHOUT_CTFIDF)),
            None => {}
        }
        self.tell_left_out(state, notes);
        Ok(model)
    }

    /// Names what a light model does not have.
    fn tell_left_out(&self, state: ValueId, notes: &mut Vec<Note>) {
        let mut left = Vec::new();
        for name in ["umap_model", "hdbscan_model", "embedding_model", "representation_model"] {
            let Some(id) = self.given(state, name) else { continue };
            let known = class(self.values, id).is_some_and(|c| {
                [BASE_CLUSTER, BASE_EMBEDDER, BASE_REDUCTION].iter().any(|(m, n)| c.is(m, n))
            });
            if !known {
                left.push(format!("{name} ({})", kind(self.values, id)));
            }
        }
        for name in ["probabilities_", "representative_docs_", "representative_images_"] {
            let Some(id) = self.given(state, name) else { continue };
            if self.values.dict(id).is_none_or(|d| !d.entries.is_empty()) {
                left.push(name.to_owned());
            }
        }
        if !left.is_empty() {
            notes.push(Note::changed(format!("a light model is without {}", left.join(", "))));
        }
    }

    /// The parameters of the constructor, which are attributes.
    fn config(&self, state: ValueId) -> Result<Config> {
        const NAMES: [&str; 11] = [
            "calculate_probabilities",
            "language",
            "low_memory",
            "min_topic_size",
            "n_gram_range",
            "nr_topics",
            "seed_topic_list",
            "top_n_words",
            "verbose",
            "zeroshot_min_similarity",
            "zeroshot_topic_list",
        ];
        let mut entries = Vec::new();
        for name in NAMES {
            if let Some(id) = self.values.entry(state, name) {
                entries.push((name.to_owned(), at(name, self.json(id, DEPTH))?));
            }
        }
        let mut config = Config::from_entries(entries)?;
        if let Some(id) = self.given(state, "embedding_model") {
            let held = self.state(id).and_then(|s| self.values.entry(s, "_hf_model")).unwrap_or(id);
            config.embedding_model = self.values.str(held).map(ToOwned::to_owned);
        }
        Ok(config)
    }

    /// The attributes of an object.
    pub(super) fn state(&self, id: ValueId) -> Option<ValueId> {
        let Value::Object(object) = self.values.get(id) else { return None };
        object.state.filter(|s| self.values.dict(*s).is_some())
    }

    /// An attribute that is there and not None.
    pub(super) fn given(&self, state: ValueId, name: &str) -> Option<ValueId> {
        self.values.entry(state, name).filter(|id| *self.values.get(*id) != Value::None)
    }

    /// An attribute that a fitted model has.
    pub(super) fn needed(&self, state: ValueId, name: &str) -> Result<ValueId> {
        self.given(state, name).ok_or_else(|| {
            Error::not_found(format!("the model has no `{name}`"))
                .with_hint("was it fitted before it was saved?")
        })
    }

    /// Counts parts that were made.
    fn spend(&self, parts: usize) -> Result<()> {
        let left = self.budget.get().checked_sub(parts as u64);
        self.budget.set(left.ok_or_else(|| {
            Error::limit("the pickle stands for more values than the limits allow, by sharing them")
        })?);
        Ok(())
    }

    fn refused(&self, id: ValueId, wanted: &str) -> Error {
        Error::unsupported(format!("{} where {wanted} is wanted", kind(self.values, id)))
    }

    pub(super) fn int(&self, id: ValueId) -> Result<i64> {
        self.values.int(id).ok_or_else(|| self.refused(id, "an integer of at most 64 bits"))
    }

    pub(super) fn list(&self, id: ValueId) -> Result<&'a [ValueId]> {
        let items = self.values.sequence(id).ok_or_else(|| self.refused(id, "a list"))?;
        self.spend(items.len())?;
        Ok(items)
    }

    pub(super) fn text(&self, id: ValueId) -> Result<String> {
        let text = match self.values.str(id) {
            Some(text) => text.to_owned(),
            None => self.numpy_text(id).ok_or_else(|| self.refused(id, "a text"))?,
        };
        self.spend(1 + text.len() / 16)?;
        Ok(text)
    }

    /// A text of NumPy's: `numpy.core.multiarray.scalar(dtype('<U5'), bytes)`, four bytes a character.
    fn numpy_text(&self, id: ValueId) -> Option<String> {
        let Value::Object(object) = self.values.get(id) else { return None };
        let called = self.values.global(object.class)?;
        let scalar = called.module.ends_with("core.multiarray") && &*called.name == "scalar";
        let &[dtype, bytes] = self.values.sequence(object.args)? else { return None };
        let (Value::Object(dtype), Value::Bytes(bytes), true) =
            (self.values.get(dtype), self.values.get(bytes), scalar)
        else {
            return None;
        };
        let code = self.values.str(*self.values.sequence(dtype.args)?.first()?)?;
        let order = self.values.str(*self.values.sequence(dtype.state?)?.get(1)?)?;
        if !code.starts_with('U') || order == ">" {
            return None;
        }
        let (units, []) = bytes.as_chunks::<4>() else { return None };
        units.iter().map(|unit| char::from_u32(u32::from_le_bytes(*unit))).collect()
    }

    /// A list or array of integers.
    pub(super) fn ints(&self, id: ValueId) -> Result<Vec<i64>> {
        match self.values.get(id) {
            Value::Tensor(index) => {
                let numbers = numbers::integers(self.archive, *index as usize, self.limits)?;
                self.spend(numbers.len())?;
                Ok(numbers)
            }
            _ => self.list(id)?.iter().map(|id| self.int(*id)).collect(),
        }
    }

    /// An array of floats, widened to 64 bits.
    pub(super) fn floats(&self, id: ValueId) -> Result<Vec<f64>> {
        let Value::Tensor(index) = self.values.get(id) else { return Err(self.refused(id, "an array")) };
        Ok(match numbers::floats(self.archive, *index as usize, self.limits)? {
            Floats::F64(numbers) => numbers,
            Floats::F32(numbers) => numbers.into_iter().map(f64::from).collect(),
        })
    }

    fn by_topic<T>(&self, id: ValueId, value: impl Fn(ValueId) -> Result<T>) -> Result<ByTopic<T>> {
        let dict = self.values.dict(id).ok_or_else(|| self.refused(id, "a dict"))?;
        self.spend(dict.entries.len())?;
        let entries = dict.entries.iter().map(|(k, v)| Ok((self.int(*k)?, value(*v)?)));
        Ok(last_wins(entries.collect::<Result<_>>()?))
    }

    fn terms(&self, id: ValueId) -> Result<Vec<Term>> {
        let term = |id: &ValueId| match self.values.sequence(*id) {
            Some(&[word, score]) => {
                let score = match self.values.get(score) {
                    Value::Int(n) => Number::Int(*n),
                    Value::Float(x) => Number::Float(*x),
                    _ => return Err(self.refused(score, "a score")),
                };
                Ok(Term { word: self.text(word)?, score })
            }
            _ => Err(self.refused(*id, "a word with its score")),
        };
        self.list(id)?.iter().map(term).collect()
    }

    fn mapper(&self, id: ValueId) -> Result<Vec<Vec<i64>>> {
        let state = self.state(id).ok_or_else(|| self.refused(id, "a TopicMapper"))?;
        let rows = self.needed(state, "mappings_")?;
        self.list(rows)?.iter().map(|row| self.ints(*row)).collect()
    }

    fn labels(&self, id: ValueId) -> Result<Vec<String>> {
        if self.values.dict(id).is_none() {
            return self.list(id)?.iter().map(|id| self.text(*id)).collect();
        }
        let mut labels = self.by_topic(id, |id| self.text(id))?;
        labels.sort_by_key(|(topic, _)| *topic);
        Ok(labels.into_iter().map(|(_, label)| label).collect())
    }

    /// An array of two dimensions, or a list of arrays of one.
    fn embeddings(&self, id: ValueId, notes: &mut Vec<Note>) -> Result<Embeddings> {
        if let Value::Tensor(index) = self.values.get(id) {
            return directory::matrix(self.archive, *index as usize, self.limits, notes);
        }
        let (mut dim, mut data) = (None, Vec::new());
        for row in self.list(id)? {
            let row = self.floats(*row)?;
            self.spend(row.len())?;
            if *dim.get_or_insert(row.len()) != row.len() {
                return Err(Error::mismatch("the embeddings of two topics differ in length"));
            }
            data.extend(row.into_iter().map(|x| x as f32));
        }
        Embeddings::new(dim.unwrap_or(0), data)
    }

    fn aspects(&self, id: ValueId, notes: &mut Vec<Note>) -> Result<Vec<(String, Aspect)>> {
        let dict = self.values.dict(id).ok_or_else(|| self.refused(id, "a dict"))?;
        let mut out = Vec::new();
        for (name, topics) in &dict.entries {
            let name = self.text(*name)?;
            let entries = self.values.dict(*topics).map(|d| &*d.entries).unwrap_or_default();
            let image = entries
                .iter()
                .any(|(_, v)| class(self.values, *v).is_some_and(|c| c.module.starts_with("PIL.")));
            if image || name == VISUAL_ASPECT {
                notes.push(Note::changed(format!(
                    "the images of the aspect {name:?} are pixels in the pickle, and are left out"
                )));
                continue;
            }
            let topics = self.by_topic(*topics, |id| Ok(aspect_value(self.json(id, DEPTH)?)))?;
            out.push((name, Aspect::Topics(topics)));
        }
        Ok(last_wins(out))
    }

    /// A plain value as JSON. It calls itself at most `depth` times deep.
    pub(super) fn json(&self, id: ValueId, depth: u32) -> Result<Json> {
        let Some(below) = depth.checked_sub(1) else {
            return Err(Error::unsupported(format!("values that nest deeper than {DEPTH} levels")));
        };
        self.spend(1)?;
        Ok(match self.values.get(id) {
            Value::None => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(n) => Json::Number(Number::Int(*n)),
            Value::Float(x) => Json::Number(Number::Float(*x)),
            Value::Str(_) => Json::Str(self.text(id)?),
            Value::List(items) | Value::Tuple(items) | Value::Set(items) | Value::FrozenSet(items) => {
                Json::Array(items.iter().map(|id| self.json(*id, below)).collect::<Result<_>>()?)
            }
            Value::Dict(dict) => {
                let entry = |(key, value): &(ValueId, ValueId)| {
                    let key = match self.values.get(*key) {
                        Value::Int(n) => n.to_string(),
                        _ => self.text(*key)?,
                    };
                    Ok((key, self.json(*value, below)?))
                };
                Json::Object(last_wins(dict.entries.iter().map(entry).collect::<Result<_>>()?))
            }
            _ => return Err(self.refused(id, "a plain value")),
        })
    }
}

/// Says which attribute an error is of.
pub(super) fn at<T>(name: &str, result: Result<T>) -> Result<T> {
    result.map_err(|e| if e.tensor().is_some() { e } else { e.with_tensor(name) })
}
