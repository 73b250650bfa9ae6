//! A topic model as BERTopic's light form has it: what its files say, typed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use weighbridge_formats::{Data, Error, ReadAt, Result, Source};

use crate::config::Config;
use crate::ctfidf::Ctfidf;
use crate::json::{Json, Number};

/// What belongs to each topic, in the order of the file. Topic -1 is that of the outliers.
pub type ByTopic<T> = Vec<(i64, T)>;

/// A word of a topic with its score.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The word or phrase; a topic with fewer words than wanted is filled up with empty ones.
    pub word: String,
    /// Its score: c-TF-IDF's, or what a representation model made of it.
    pub score: Number,
}

/// A further representation of the topics.
#[derive(Clone, Debug, PartialEq)]
pub enum Aspect {
    /// Words, or whatever else stands at each topic.
    Topics(ByTopic<AspectValue>),
    /// Images, which are files of the model: [`TopicModel::images`]. BERTopic calls this aspect
    /// `Visual_Aspect` and has one at most.
    Images,
}

/// What an aspect says of one topic.
#[derive(Clone, Debug, PartialEq)]
pub enum AspectValue {
    /// Words with scores.
    Terms(Vec<Term>),
    /// Anything else: BERTopic takes it as it stands.
    Other(Json),
}

/// The name that BERTopic gives an aspect of images.
pub const VISUAL_ASPECT: &str = "Visual_Aspect";

/// A matrix of 32-bit floats in row-major order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    dim: usize,
    data: Vec<f32>,
}

impl Embeddings {
    /// A matrix with `dim` columns.
    ///
    /// # Errors
    /// `Mismatch` if the numbers do not fill whole rows.
    pub fn new(dim: usize, data: Vec<f32>) -> Result<Self> {
        let whole = if dim == 0 { data.is_empty() } else { data.len().is_multiple_of(dim) };
        if whole {
            return Ok(Self { dim, data });
        }
        Err(Error::mismatch(format!("{} numbers make no rows of {dim}", data.len())))
    }

    /// The number of columns.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.data.len().checked_div(self.dim).unwrap_or(0)
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The rows, one after another.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.data.chunks_exact(self.dim.max(1))
    }

    /// All numbers, row by row.
    pub fn data(&self) -> &[f32] {
        &self.data
    }
}

/// A file that belongs to a model and is carried over as it is: read only when it is written elsewhere.
#[derive(Clone, Debug)]
pub enum Asset {
    /// A file that stays where it is until it is read.
    File {
        /// Where it lies.
        path: PathBuf,
        /// Its length in bytes when it was found.
        len: u64,
    },
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
}

impl Asset {
    /// A file on disk.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn file(path: impl AsRef<Path>) -> Result<Self> {
        let len = Source::open(&path)?.len();
        Ok(Self::File { path: path.as_ref().to_owned(), len })
    }

    /// The bytes, to read.
    pub fn data(&self) -> Data<'_> {
        match self {
            Self::File { path, len } => Data::lazy(Closed { path, len: *len }),
            Self::Bytes(bytes) => Data::Owned(bytes.clone()),
        }
    }
}

/// A file that is opened for each read, so that a thousand images hold no thousand descriptors.
struct Closed<'a> {
    path: &'a Path,
    len: u64,
}

impl ReadAt for Closed<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let source = Source::open(self.path)?;
        if source.len() != self.len {
            let what = format!("the file had {} bytes and has {} now", self.len, source.len());
            return Err(Error::mismatch(what).with_path(self.path));
        }
        source.reader().read_at(offset, buf).map_err(|e| e.with_path(self.path))
    }
}

/// A topic model: what BERTopic keeps of one when it is saved without its sub-models.
///
/// `Default` is a model without topics, which no BERTopic loads: [`TopicModel::check`] says so.
#[derive(Clone, Debug, Default)]
pub struct TopicModel {
    /// The parameters that the model was made with, and the pointer to its embedder.
    pub config: Config,
    /// The topic of each document of the training.
    pub topics: Vec<i64>,
    /// The words of each topic, best first.
    pub representations: ByTopic<Vec<Term>>,
    /// How many documents each topic has.
    pub sizes: ByTopic<u64>,
    /// How topics were merged and renumbered: a row a topic of the beginning, its last column the topic of now.
    pub mapper: Vec<Vec<i64>>,
    /// The names of the topics, such as `0_cat_dog_pet_vet`. BERTopic writes them and makes them anew when it
    /// loads; empty means that they are made from the words.
    pub labels: ByTopic<String>,
    /// Labels of the user's own, in the order of the topics, that of the outliers first.
    pub custom_labels: Option<Vec<String>>,
    /// Further representations by their names.
    pub aspects: Vec<(String, Aspect)>,
    /// An embedding for each topic, in the order of the topics, that of the outliers first.
    pub embeddings: Embeddings,
    /// The matrix of words by topics, with what made it. Without it topics cannot be updated or reduced.
    pub ctfidf: Option<Ctfidf>,
    /// A JPEG for each topic.
    pub images: ByTopic<Asset>,
    /// Which topics came from a list of topics given beforehand: the topic and its place in that list. Only a
    /// pickle holds this.
    pub zeroshot_topics: ByTopic<u64>,
    /// The model card.
    pub readme: Option<Asset>,
}

impl TopicModel {
    /// The topics, ascending: -1 first where there are outliers.
    pub fn topic_ids(&self) -> Vec<i64> {
        let mut ids: Vec<i64> = self.representations.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// Whether some documents are outliers, by the sizes of the topics as BERTopic decides it.
    pub fn has_outliers(&self) -> bool {
        self.sizes.iter().any(|(id, _)| *id == -1)
    }

    /// The words of a topic.
    pub fn representation(&self, topic: i64) -> Option<&[Term]> {
        self.representations.iter().find(|(id, _)| *id == topic).map(|(_, terms)| &**terms)
    }

    /// How many documents a topic has.
    pub fn size(&self, topic: i64) -> Option<u64> {
        self.sizes.iter().find(|(id, _)| *id == topic).map(|(_, n)| *n)
    }

    /// The topics' names: those that are stored, else made as BERTopic makes them, from the number of the topic and
    /// its first four words.
    pub fn topic_labels(&self) -> ByTopic<String> {
        if !self.labels.is_empty() {
            return self.labels.clone();
        }
        let given = self.config.zeroshot_topic_list.as_deref().unwrap_or_default();
        let made = self.representations.iter().map(|(id, terms)| {
            let place = self.zeroshot_topics.iter().find(|(topic, _)| topic == id).map(|(_, place)| *place);
            let named = place.and_then(|p| given.get(usize::try_from(p).ok()?));
            (*id, named.cloned().unwrap_or_else(|| label(*id, terms)))
        });
        made.collect()
    }

    /// What a topic is called: the user's own label, else its name.
    pub fn label(&self, topic: i64) -> Option<String> {
        if let Some(own) = &self.custom_labels {
            let place = self.topic_ids().iter().position(|id| *id == topic)?;
            if let Some(own) = own.get(place) {
                return Some(own.clone());
            }
        }
        self.topic_labels().into_iter().find(|(id, _)| *id == topic).map(|(_, text)| text)
    }
}

fn label(id: i64, terms: &[Term]) -> String {
    let words: Vec<&str> = terms.iter().take(4).map(|t| &*t.word).collect();
    format!("{id}_{}", words.join("_"))
}
