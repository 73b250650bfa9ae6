//! The pickle of a light model: the object that BERTopic has once it has loaded the model's directory.

use weighbridge_formats::backends::pickle::{new_object, plan_objects};
use weighbridge_formats::value::{Dict, Global};
use weighbridge_formats::write::WritePlan;
use weighbridge_formats::{
    DType, Data, Error, MemoryArchive, Note, Result, Tensor, Value, ValueId, Values, WriteOptions,
};

use super::{
    BASE_CLUSTER, BASE_EMBEDDER, BASE_REDUCTION, BERTOPIC, COUNT_VECTORIZER, CSR_MATRIX, CTFIDF, Class,
    INT64, TOPIC_MAPPER, WRITTEN,
};
use crate::config::Config;
use crate::ctfidf::{Csr, Ctfidf};
use crate::directory::WITHOUT_CTFIDF;
use crate::json::{Json, Number};
use crate::model::{Aspect, AspectValue, ByTopic, Term, TopicModel};
use crate::numbers;
use crate::save::SaveOptions;

/// A pickle to be.
pub(crate) struct Picture {
    archive: MemoryArchive<'static>,
    notes: Vec<Note>,
}

impl Picture {
    /// Describes the model as an object.
    ///
    /// # Errors
    /// `InvalidOptions` for a loss without leave.
    pub(crate) fn new(model: &TopicModel, options: &SaveOptions<'_>) -> Result<Self> {
        let mut out = Builder { values: Values::new(), tensors: Vec::new(), notes: Vec::new() };
        let mut lost = |what: String| {
            let refused = Error::invalid_options(format!("this would be lost: {what}"));
            out.notes.push(Note::lost(what));
            if options.allow_loss { Ok(()) } else { Err(refused.with_hint("allow the loss")) }
        };
        let config = options.config(model);
        for (key, _) in &config.unknown {
            lost(format!("the parameter {key:?}, which BERTopic does not know"))?;
        }
        if !model.images.is_empty() {
            lost(format!("{} images, which a pickle has as pixels", model.images.len()))?;
        }
        if options.model_card.is_some() {
            return Err(Error::invalid_options("a pickle has no place for a model card")
                .with_hint("choose a directory: safetensors or pytorch"));
        }
        if model.readme.is_some() {
            out.notes.push(Note::changed("README.md is not part of a pickle, and is left out"));
        }
        let ctfidf = model.ctfidf.as_ref().filter(|_| options.save_ctfidf);
        if model.ctfidf.is_some() && ctfidf.is_none() {
            out.notes.push(Note::changed(WITHOUT_CTFIDF));
        }
        let root = out.model(model, &config, ctfidf, &options.sklearn_version)?;
        out.values.set_root(root);
        let archive = MemoryArchive::new(out.tensors)?.with_values(out.values);
        Ok(Self { archive, notes: out.notes })
    }

    /// The plan of the file.
    ///
    /// # Errors
    /// As the pickle writer's.
    pub(crate) fn plan(&self, name: &str) -> Result<WritePlan<'_>> {
        let mut options = WriteOptions::default();
        options.file_name = name.to_owned();
        let known = |global: &Global| WRITTEN.iter().any(|(module, name)| global.is(module, name));
        let mut plan = plan_objects(&self.archive, &options, &known)?;
        plan.notes.extend(self.notes.iter().cloned());
        Ok(plan)
    }
}

struct Builder {
    values: Values,
    tensors: Vec<Tensor<'static>>,
    notes: Vec<Note>,
}

fn global((module, name): Class) -> Global {
    Global::new(module, name)
}

impl Builder {
    fn model(
        &mut self,
        model: &TopicModel,
        config: &Config,
        ctfidf: Option<&Ctfidf>,
        sklearn: &str,
    ) -> Result<ValueId> {
        let mut state = Vec::new();
        for (name, value) in config.params() {
            let value = match (name, value) {
                ("embedding_model", _) => continue,
                ("n_gram_range", Json::Array(range)) => self.tuple(&range)?,
                (_, value) => self.json(&value)?,
            };
            state.push((name, value));
        }
        let none = self.values.push(Value::None)?;
        state.push(("embedding_model", self.embedder(config)?));
        state.push(("vectorizer_model", self.vectorizer(config, ctfidf, sklearn)?));
        state.push(("ctfidf_model", self.transformer(ctfidf)?));
        state.push(("representation_model", none));
        state.push(("umap_model", self.object(BASE_REDUCTION, None)?));
        state.push(("hdbscan_model", self.object(BASE_CLUSTER, None)?));
        let topics = model.topics.iter().map(|t| self.values.push(Value::Int(*t))).collect::<Result<_>>()?;
        state.push(("topics_", self.values.push(Value::List(topics))?));
        state.push(("probabilities_", none));
        state.push(("topic_sizes_", self.by_topic(&model.sizes, |out, n| out.unsigned(*n))?));
        state.push(("topic_mapper_", self.mapper(&model.mapper)?));
        state.push(("topic_representations_", self.by_topic(&model.representations, |out, t| out.terms(t))?));
        let shape = [model.embeddings.len() as u64, model.embeddings.dim() as u64];
        let embeddings = numbers::f32_bytes(model.embeddings.data());
        state.push(("topic_embeddings_", self.array("topic_embeddings_", DType::F32, &shape, embeddings)?));
        state.push((
            "_topic_id_to_zeroshot_topic_idx",
            self.by_topic(&model.zeroshot_topics, |out, n| out.unsigned(*n))?,
        ));
        let labels = match &model.custom_labels {
            None => none,
            Some(labels) => {
                let labels = labels.iter().map(|l| self.text(l)).collect::<Result<_>>()?;
                self.values.push(Value::List(labels))?
            }
        };
        state.push(("custom_labels_", labels));
        let matrix = match ctfidf {
            Some(ctfidf) => self.csr("c_tf_idf_", &ctfidf.matrix, ctfidf.fits_i32())?,
            None => none,
        };
        state.push(("c_tf_idf_", matrix));
        state.push(("representative_images_", none));
        state.push(("representative_docs_", self.dict(Vec::new())?));
        state.push(("topic_aspects_", self.aspects(&model.aspects)?));
        state.push(("_merged_topics", none));
        let state = self.attributes(state)?;
        self.object(BERTOPIC, Some(state))
    }

    fn object(&mut self, class: Class, state: Option<ValueId>) -> Result<ValueId> {
        new_object(&mut self.values, global(class), state)
    }

    fn text(&mut self, text: &str) -> Result<ValueId> {
        self.values.push(Value::Str(text.into()))
    }

    fn unsigned(&mut self, n: u64) -> Result<ValueId> {
        let n = i64::try_from(n).map_err(|_| Error::unsupported(format!("{n} documents in a topic")))?;
        self.values.push(Value::Int(n))
    }

    fn dict(&mut self, entries: Vec<(ValueId, ValueId)>) -> Result<ValueId> {
        self.values.push(Value::Dict(Box::new(Dict { entries, ..Dict::default() })))
    }

    fn attributes(&mut self, attributes: Vec<(&str, ValueId)>) -> Result<ValueId> {
        let entry = |(name, value): (&str, ValueId)| Ok((self.text(name)?, value));
        let entries = attributes.into_iter().map(entry).collect::<Result<_>>()?;
        self.dict(entries)
    }

    fn by_topic<T>(
        &mut self,
        topics: &ByTopic<T>,
        mut value: impl FnMut(&mut Self, &T) -> Result<ValueId>,
    ) -> Result<ValueId> {
        let mut entries = Vec::with_capacity(topics.len());
        for (id, of) in topics {
            entries.push((self.values.push(Value::Int(*id))?, value(self, of)?));
        }
        self.dict(entries)
    }

    fn terms(&mut self, terms: &[Term]) -> Result<ValueId> {
        let mut items = Vec::with_capacity(terms.len());
        for term in terms {
            let pair = vec![self.text(&term.word)?, self.number(term.score)?];
            items.push(self.values.push(Value::Tuple(pair))?);
        }
        self.values.push(Value::List(items))
    }

    fn number(&mut self, number: Number) -> Result<ValueId> {
        self.values.push(match number {
            Number::Int(n) => Value::Int(n),
            Number::Float(x) => Value::Float(x),
        })
    }

    /// Calls itself as deep as the value nests, which parsing bounds.
    fn json(&mut self, value: &Json) -> Result<ValueId> {
        match value {
            Json::Null => self.values.push(Value::None),
            Json::Bool(b) => self.values.push(Value::Bool(*b)),
            Json::Number(n) => self.number(*n),
            Json::Str(text) => self.text(text),
            Json::Array(items) => {
                let items = items.iter().map(|item| self.json(item)).collect::<Result<_>>()?;
                self.values.push(Value::List(items))
            }
            Json::Object(entries) => {
                let entry = |(key, value): &(String, Json)| Ok((self.text(key)?, self.json(value)?));
                let entries = entries.iter().map(entry).collect::<Result<_>>()?;
                self.dict(entries)
            }
        }
    }

    fn tuple(&mut self, items: &[Json]) -> Result<ValueId> {
        let items = items.iter().map(|item| self.json(item)).collect::<Result<_>>()?;
        self.values.push(Value::Tuple(items))
    }

    fn mapper(&mut self, rows: &[Vec<i64>]) -> Result<ValueId> {
        let mut lists = Vec::with_capacity(rows.len());
        for row in rows {
            let row = row.iter().map(|t| self.values.push(Value::Int(*t))).collect::<Result<_>>()?;
            lists.push(self.values.push(Value::List(row))?);
        }
        let lists = self.values.push(Value::List(lists))?;
        let state = self.attributes(vec![("mappings_", lists)])?;
        self.object(TOPIC_MAPPER, Some(state))
    }

    /// An embedder that embeds nothing. The name of the real one is where BERTopic looks for it when it saves.
    fn embedder(&mut self, config: &Config) -> Result<ValueId> {
        let none = self.values.push(Value::None)?;
        let mut state = vec![("embedding_model", none), ("word_embedding_model", none)];
        if let Some(name) = &config.embedding_model {
            state.push(("_hf_model", self.text(name)?));
        }
        let state = self.attributes(state)?;
        self.object(BASE_EMBEDDER, Some(state))
    }

    fn aspects(&mut self, aspects: &[(String, Aspect)]) -> Result<ValueId> {
        let mut entries = Vec::new();
        for (name, aspect) in aspects {
            let Aspect::Topics(topics) = aspect else { continue };
            let topics = self.by_topic(topics, |out, value| match value {
                AspectValue::Terms(terms) => out.terms(terms),
                AspectValue::Other(value) => out.json(value),
            })?;
            entries.push((self.text(name)?, topics));
        }
        self.dict(entries)
    }

    fn array(&mut self, name: &str, dtype: DType, shape: &[u64], bytes: Vec<u8>) -> Result<ValueId> {
        let index = u32::try_from(self.tensors.len()).map_err(|_| Error::limit("too many arrays"))?;
        self.tensors.push(Tensor::new(name, dtype, shape, Data::Owned(bytes.into()))?);
        self.values.push(Value::Tensor(index))
    }

    fn csr(&mut self, name: &str, matrix: &Csr, narrow: bool) -> Result<ValueId> {
        let index = if narrow { DType::I32 } else { DType::I64 };
        let pointers = numbers::index_bytes(matrix.indptr.iter().copied(), index)?;
        let columns = numbers::index_bytes(matrix.indices.iter().map(|c| u64::from(*c)), index)?;
        let values = [matrix.data.len() as u64];
        let shape = vec![self.unsigned(matrix.rows)?, self.unsigned(matrix.columns)?];
        let state = vec![
            ("_shape", self.values.push(Value::Tuple(shape))?),
            ("maxprint", self.values.push(Value::Int(50))?),
            ("indices", self.array(&format!("{name}.indices"), index, &values, columns)?),
            (
                "indptr",
                self.array(&format!("{name}.indptr"), index, &[matrix.indptr.len() as u64], pointers)?,
            ),
            ("data", {
                self.array(&format!("{name}.data"), DType::F64, &values, numbers::f64_bytes(&matrix.data))?
            }),
        ];
        let state = self.attributes(state)?;
        self.object(CSR_MATRIX, Some(state))
    }

    fn transformer(&mut self, ctfidf: Option<&Ctfidf>) -> Result<ValueId> {
        let flag = |b: Option<bool>| Value::Bool(b.unwrap_or(false));
        let mut state = vec![
            ("bm25_weighting", self.values.push(flag(ctfidf.map(|c| c.bm25_weighting)))?),
            ("reduce_frequent_words", self.values.push(flag(ctfidf.map(|c| c.reduce_frequent_words)))?),
            ("seed_words", self.values.push(Value::None)?),
            ("seed_multiplier", self.values.push(Value::Int(2))?),
            ("norm", self.text("l2")?),
            ("use_idf", self.values.push(Value::Bool(true))?),
            ("smooth_idf", self.values.push(Value::Bool(true))?),
            ("sublinear_tf", self.values.push(Value::Bool(false))?),
        ];
        if let Some(ctfidf) = ctfidf {
            let n = ctfidf.diag.len();
            let columns = u32::try_from(n).map_err(|_| Error::unsupported(format!("{n} terms")))?;
            let weights = Csr {
                data: ctfidf.diag.clone(),
                indices: (0..columns).collect(),
                indptr: (0..=u64::from(columns)).collect(),
                rows: n as u64,
                columns: n as u64,
            };
            state.push(("_idf_diag", self.csr("_idf_diag", &weights, ctfidf.fits_i32())?));
        }
        let state = self.attributes(state)?;
        self.object(CTFIDF, Some(state))
    }

    fn vectorizer(&mut self, config: &Config, ctfidf: Option<&Ctfidf>, sklearn: &str) -> Result<ValueId> {
        let params = ctfidf.map(|c| &c.vectorizer);
        let range = || Json::Array(vec![config.n_gram_range.0.into(), config.n_gram_range.1.into()]);
        let float = |x: f64| Json::Number(Number::Float(x));
        // The parameters with CountVectorizer's defaults.
        let defaults = [
            ("input", Json::from("content")),
            ("encoding", Json::from("utf-8")),
            ("decode_error", Json::from("strict")),
            ("strip_accents", Json::Null),
            ("preprocessor", Json::Null),
            ("tokenizer", Json::Null),
            ("analyzer", Json::from("word")),
            ("lowercase", Json::Bool(true)),
            ("token_pattern", Json::from(r"(?u)\b\w\w+\b")),
            ("stop_words", Json::Null),
            ("max_df", float(1.0)),
            ("min_df", 1.into()),
            ("max_features", Json::Null),
            ("ngram_range", range()),
            ("vocabulary", Json::Null),
            ("binary", Json::Bool(false)),
        ];
        let mut state = Vec::new();
        for (name, default) in defaults {
            let value = params.and_then(|v| v.param(name)).cloned().unwrap_or(default);
            let value = match (name, value) {
                ("ngram_range", Json::Array(range)) => self.tuple(&range)?,
                (_, value) => self.json(&value)?,
            };
            state.push((name, value));
        }
        let dtype = self.values.push(Value::Global(Box::new(global(INT64))))?;
        state.push(("dtype", dtype));
        if let Some(vectorizer) = params {
            let mut entries = Vec::with_capacity(vectorizer.vocabulary.len());
            for (term, column) in &vectorizer.vocabulary {
                entries.push((self.text(term)?, self.values.push(Value::Int((*column).into()))?));
            }
            state.push(("vocabulary_", self.dict(entries)?));
        }
        state.push(("_sklearn_version", self.text(sklearn)?));
        let state = self.attributes(state)?;
        self.object(COUNT_VECTORIZER, Some(state))
    }
}
