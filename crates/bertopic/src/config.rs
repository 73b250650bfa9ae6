//! `config.json`: the parameters of BERTopic's constructor, but for its sub-models.

use weighbridge_formats::{Error, Limits, Note, Result};

use crate::json::{Json, Number, Parser, Writer};

/// How topics are to be reduced.
#[derive(Clone, Debug, PartialEq)]
pub enum NrTopics {
    /// To so many.
    Count(i64),
    /// As a word says; BERTopic knows `auto`.
    Word(String),
}

/// The parameters that a model was made with. `Default` has BERTopic's defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Whether predictions give the probability of every topic and not of the best alone.
    pub calculate_probabilities: bool,
    /// The language of the documents; `None` where an embedder was given.
    pub language: Option<String>,
    /// Whether UMAP was to save memory.
    pub low_memory: bool,
    /// The least documents of a topic.
    pub min_topic_size: i64,
    /// The fewest and the most words of a term.
    pub n_gram_range: (i64, i64),
    /// How topics were reduced.
    pub nr_topics: Option<NrTopics>,
    /// Words that topics were to converge around.
    pub seed_topic_list: Option<Vec<Vec<String>>>,
    /// How many words represent a topic.
    pub top_n_words: i64,
    /// Whether the model tells of its steps.
    pub verbose: bool,
    /// How similar a document must be to a topic that was given beforehand.
    pub zeroshot_min_similarity: Number,
    /// Topics that were given beforehand.
    pub zeroshot_topic_list: Option<Vec<String>>,
    /// The name of the embedder, as sentence-transformers or the hub knows it.
    pub embedding_model: Option<String>,
    /// Parameters that BERTopic 0.17 does not have and refuses to load.
    pub unknown: Vec<(String, Json)>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            calculate_probabilities: false,
            language: Some("english".to_owned()),
            low_memory: false,
            min_topic_size: 10,
            n_gram_range: (1, 1),
            nr_topics: None,
            seed_topic_list: None,
            top_n_words: 10,
            verbose: false,
            zeroshot_min_similarity: Number::Float(0.7),
            zeroshot_topic_list: None,
            embedding_model: None,
            unknown: Vec::new(),
        }
    }
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// `Malformed` if it is no JSON object, a parameter is of another type, or `n_gram_range` is missing, without
    /// which BERTopic does not load.
    pub(crate) fn parse(bytes: &[u8], limits: &Limits, notes: &mut Vec<Note>) -> Result<Self> {
        let mut parser = Parser::new(bytes, limits)?;
        let value = parser.value()?;
        parser.end()?;
        let Json::Object(entries) = value else {
            return Err(Error::malformed(format!("{} stands where an object is wanted", value.kind())));
        };
        if !entries.iter().any(|(key, _)| key == "n_gram_range") {
            return Err(Error::malformed(
                "`n_gram_range` is missing, and BERTopic loads no model without it",
            ));
        }
        let config = Self::from_entries(entries)?;
        for (key, _) in &config.unknown {
            notes.push(Note::warning(format!(
                "config.json has the parameter {key:?}, which BERTopic does not know and refuses to load"
            )));
        }
        Ok(config)
    }

    /// Takes parameters by their names.
    ///
    /// # Errors
    /// `Malformed` for a value of another type.
    pub(crate) fn from_entries(entries: Vec<(String, Json)>) -> Result<Self> {
        let mut config = Self { language: None, ..Self::default() };
        for (key, value) in entries {
            let refused = |wanted: &str| {
                Error::malformed(format!("`{key}` is {} where {wanted} is wanted", value.kind()))
            };
            match &*key {
                "calculate_probabilities" => config.calculate_probabilities = boolean(&value, refused)?,
                "low_memory" => config.low_memory = boolean(&value, refused)?,
                "verbose" => config.verbose = boolean(&value, refused)?,
                "language" => config.language = text(&value, refused)?,
                "embedding_model" => config.embedding_model = text(&value, refused)?,
                "min_topic_size" => config.min_topic_size = integer(&value, refused)?,
                "top_n_words" => config.top_n_words = integer(&value, refused)?,
                "n_gram_range" => {
                    let range = value.as_array().map(|r| r.iter().map(Json::as_int).collect::<Vec<_>>());
                    match range.as_deref() {
                        Some([Some(least), Some(most)]) => config.n_gram_range = (*least, *most),
                        _ => return Err(refused("a pair of integers")),
                    }
                }
                "nr_topics" => {
                    config.nr_topics = match &value {
                        Json::Null => None,
                        Json::Number(Number::Int(n)) => Some(NrTopics::Count(*n)),
                        Json::Str(word) => Some(NrTopics::Word(word.clone())),
                        _ => return Err(refused("an integer, a word or null")),
                    }
                }
                "zeroshot_min_similarity" => match &value {
                    Json::Number(n) => config.zeroshot_min_similarity = *n,
                    _ => return Err(refused("a number")),
                },
                "zeroshot_topic_list" => {
                    config.zeroshot_topic_list = match &value {
                        Json::Null => None,
                        list => Some(texts(list).ok_or_else(|| refused("a list of texts or null"))?),
                    }
                }
                "seed_topic_list" => {
                    config.seed_topic_list = match &value {
                        Json::Null => None,
                        list => {
                            let lists = list.as_array().and_then(|l| l.iter().map(texts).collect());
                            Some(lists.ok_or_else(|| refused("a list of lists of texts or null"))?)
                        }
                    }
                }
                _ => config.unknown.push((key, value)),
            }
        }
        Ok(config)
    }

    /// The parameters in the order in which BERTopic writes them: sorted, and the embedder behind them.
    pub fn params(&self) -> Vec<(&str, Json)> {
        let list = |texts: &[String]| Json::Array(texts.iter().map(|t| Json::from(&**t)).collect());
        let mut entries = vec![
            ("calculate_probabilities", Json::Bool(self.calculate_probabilities)),
            ("language", self.language.as_deref().map_or(Json::Null, Json::from)),
            ("low_memory", Json::Bool(self.low_memory)),
            ("min_topic_size", self.min_topic_size.into()),
            ("n_gram_range", Json::Array(vec![self.n_gram_range.0.into(), self.n_gram_range.1.into()])),
            (
                "nr_topics",
                match &self.nr_topics {
                    None => Json::Null,
                    Some(NrTopics::Count(n)) => (*n).into(),
                    Some(NrTopics::Word(word)) => Json::from(&**word),
                },
            ),
            (
                "seed_topic_list",
                self.seed_topic_list
                    .as_ref()
                    .map_or(Json::Null, |lists| Json::Array(lists.iter().map(|l| list(l)).collect())),
            ),
            ("top_n_words", self.top_n_words.into()),
            ("verbose", Json::Bool(self.verbose)),
            ("zeroshot_min_similarity", Json::Number(self.zeroshot_min_similarity)),
            ("zeroshot_topic_list", self.zeroshot_topic_list.as_deref().map_or(Json::Null, list)),
        ];
        if let Some(name) = &self.embedding_model {
            entries.push(("embedding_model", Json::from(&**name)));
        }
        entries
    }

    /// The text of `config.json`.
    pub(crate) fn render(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.object(|out| {
            for (key, value) in self.params() {
                out.entry(key, |out| out.value(&value));
            }
        });
        out.finish()
    }
}

fn boolean(value: &Json, refused: impl Fn(&str) -> Error) -> Result<bool> {
    match value {
        Json::Bool(b) => Ok(*b),
        _ => Err(refused("true or false")),
    }
}

fn integer(value: &Json, refused: impl Fn(&str) -> Error) -> Result<i64> {
    value.as_int().ok_or_else(|| refused("an integer"))
}

fn text(value: &Json, refused: impl Fn(&str) -> Error) -> Result<Option<String>> {
    match value {
        Json::Null => Ok(None),
        Json::Str(text) => Ok(Some(text.clone())),
        _ => Err(refused("a text or null")),
    }
}

fn texts(value: &Json) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|t| t.as_str().map(ToOwned::to_owned)).collect()
}
