//! c-TF-IDF: the matrix of words by topics in CSR, the weights of the words, and the vectorizer that counted them.

use weighbridge_formats::{Archive, DType, Data, Error, Limits, MemoryArchive, Note, Result, Tensor};

use crate::json::{Json, Parser, Writer, last_wins};
use crate::numbers::{self, Floats};

/// A matrix in compressed sparse rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Csr {
    /// The values, row by row.
    pub data: Vec<f64>,
    /// The column of each value.
    pub indices: Vec<u32>,
    /// Where each row begins in the values, and at last where the last one ends.
    pub indptr: Vec<u64>,
    /// The number of rows.
    pub rows: u64,
    /// The number of columns.
    pub columns: u64,
}

impl Csr {
    /// Holds the parts against each other.
    ///
    /// # Errors
    /// `Mismatch` where lengths disagree, rows do not ascend, or a column is past the end.
    pub fn check(&self) -> Result<()> {
        let rows = usize::try_from(self.rows).ok().and_then(|r| r.checked_add(1));
        if rows != Some(self.indptr.len()) {
            let what = format!("{} row pointers for {} rows", self.indptr.len(), self.rows);
            return Err(Error::mismatch(what));
        }
        if self.indices.len() != self.data.len() {
            let what = format!("{} columns for {} values", self.indices.len(), self.data.len());
            return Err(Error::mismatch(what));
        }
        if let Some(row) = self.indptr.windows(2).position(|w| w.first() > w.last()) {
            return Err(Error::mismatch(format!("row {row} ends before it begins")));
        }
        let ends = (self.indptr.first().copied(), self.indptr.last().copied());
        if ends != (Some(0), Some(self.data.len() as u64)) {
            let what = format!("rows from {ends:?} where {} values are", self.data.len());
            return Err(Error::mismatch(what));
        }
        if let Some(column) = self.indices.iter().find(|c| u64::from(**c) >= self.columns) {
            return Err(Error::mismatch(format!("a value in column {column} of {}", self.columns)));
        }
        Ok(())
    }

    /// The columns and values of a row; nothing past the last row.
    pub fn row(&self, row: usize) -> impl Iterator<Item = (u32, f64)> + '_ {
        let bound = |at: usize| self.indptr.get(at).and_then(|&p| usize::try_from(p).ok()).unwrap_or(0);
        let range = bound(row)..bound(row + 1);
        let columns = self.indices.get(range.clone()).unwrap_or_default();
        columns.iter().copied().zip(self.data.get(range).unwrap_or_default().iter().copied())
    }
}

/// What scikit-learn's `CountVectorizer` is made with, and the terms that it learned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vectorizer {
    /// Its parameters by name, in the order of the file.
    pub params: Vec<(String, Json)>,
    /// The terms with their columns, in the order of the file.
    pub vocabulary: Vec<(String, u32)>,
}

/// The parameters of `CountVectorizer` that a file can hold.
pub(crate) const VECTORIZER_PARAMS: [&str; 14] = [
    "analyzer",
    "binary",
    "decode_error",
    "encoding",
    "input",
    "lowercase",
    "max_df",
    "max_features",
    "min_df",
    "ngram_range",
    "stop_words",
    "strip_accents",
    "token_pattern",
    "vocabulary",
];

impl Vectorizer {
    /// A parameter.
    pub fn param(&self, name: &str) -> Option<&Json> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The parameters that `CountVectorizer` does not have.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = &str> {
        self.params.iter().map(|(key, _)| &**key).filter(|key| !VECTORIZER_PARAMS.contains(key))
    }
}

/// c-TF-IDF with what made it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ctfidf {
    /// A row a topic, a column a term.
    pub matrix: Csr,
    /// The weight of each term: the diagonal of the inverse-frequency matrix.
    pub diag: Vec<f64>,
    /// Whether terms are weighted as BM25 does.
    pub bm25_weighting: bool,
    /// Whether the square root was taken of the counts.
    pub reduce_frequent_words: bool,
    /// The vectorizer.
    pub vectorizer: Vectorizer,
}

impl Ctfidf {
    /// Reads the five tensors and the text of `ctfidf_config.json`.
    ///
    /// # Errors
    /// `Malformed` and `Mismatch` for what contradicts itself, `NotFound` for a missing tensor. BERTopic would
    /// load such a model without its c-TF-IDF and say nothing.
    pub(crate) fn read(
        archive: &dyn Archive,
        config: &[u8],
        limits: &Limits,
        notes: &mut Vec<Note>,
    ) -> Result<Self> {
        let floats = |name: &str, notes: &mut Vec<Note>| {
            let values = numbers::floats(archive, numbers::position(archive, name)?, limits)?;
            Ok(match values {
                Floats::F64(values) => values,
                Floats::F32(values) => {
                    notes.push(Note::changed(format!("{name:?} is widened from f32 to f64")));
                    values.into_iter().map(f64::from).collect()
                }
            })
        };
        let (data, diag) = (floats("data", notes)?, floats("diag", notes)?);
        let integers = |name: &str| numbers::integers(archive, numbers::position(archive, name)?, limits);
        let shape = integers("shape")?;
        let &[rows, columns] = &*shape else {
            return Err(Error::mismatch(format!("a matrix has two sizes, and this one {}", shape.len()))
                .with_tensor("shape"));
        };
        let matrix = Csr {
            data,
            indices: narrow(&integers("indices")?, "indices")?,
            indptr: unsigned(&integers("indptr")?, "indptr")?,
            rows: size(rows)?,
            columns: size(columns)?,
        };
        let mut this = Self { matrix, diag, ..Self::default() };
        this.parse_config(config, limits).map_err(|e| e.with_tensor("ctfidf_config.json"))?;
        for key in this.vectorizer.unknown() {
            notes.push(Note::warning(format!(
                "the vectorizer has the parameter {key:?}, which CountVectorizer does not know: BERTopic fails on it"
            )));
        }
        Ok(this)
    }

    fn parse_config(&mut self, bytes: &[u8], limits: &Limits) -> Result<()> {
        let (mut weighting, mut params, mut vocab) = (None, None, None);
        let mut parser = Parser::new(bytes, limits)?;
        parser.object(|p, key| match &*key {
            "ctfidf_model" => {
                weighting = Some(p.value()?);
                Ok(())
            }
            "vectorizer_model" => p.object(|p, key| {
                match &*key {
                    "params" => params = Some(p.value()?),
                    "vocab" => {
                        let mut terms = Vec::new();
                        p.object(|p, term| {
                            let column = p.int()?;
                            let column = u32::try_from(column)
                                .map_err(|_| p.error(format!("a term has the column {column}")))?;
                            terms.push((term, column));
                            Ok(())
                        })?;
                        vocab = Some(last_wins(terms));
                    }
                    _ => drop(p.value()?),
                }
                Ok(())
            }),
            _ => p.value().map(drop),
        })?;
        parser.end()?;
        let missing = |what: &str| Error::malformed(format!("{what} is missing"));
        let flag = |name: &str| match &weighting {
            Some(Json::Object(entries)) => match entries.iter().find(|(key, _)| key == name) {
                Some((_, Json::Bool(b))) => Ok(*b),
                _ => Err(missing(&format!("`{name}` of ctfidf_model"))),
            },
            _ => Err(missing("`ctfidf_model`")),
        };
        self.bm25_weighting = flag("bm25_weighting")?;
        self.reduce_frequent_words = flag("reduce_frequent_words")?;
        let Some(Json::Object(params)) = params else { return Err(missing("`params` of vectorizer_model")) };
        if !params.iter().any(|(key, _)| key == "ngram_range") {
            return Err(missing("`ngram_range` of the vectorizer's params"));
        }
        let vocabulary = vocab.ok_or_else(|| missing("`vocab` of vectorizer_model"))?;
        self.vectorizer = Vectorizer { params, vocabulary };
        Ok(())
    }

    /// The text of `ctfidf_config.json`.
    pub(crate) fn render_config(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.object(|out| {
            out.entry("ctfidf_model", |out| {
                out.object(|out| {
                    out.entry("bm25_weighting", |out| out.bool(self.bm25_weighting));
                    out.entry("reduce_frequent_words", |out| out.bool(self.reduce_frequent_words));
                });
            });
            out.entry("vectorizer_model", |out| {
                out.object(|out| {
                    out.entry("params", |out| {
                        out.object(|out| {
                            for (key, value) in &self.vectorizer.params {
                                out.entry(key, |out| out.value(value));
                            }
                        });
                    });
                    out.entry("vocab", |out| {
                        out.object(|out| {
                            for (term, column) in &self.vectorizer.vocabulary {
                                out.entry(term, |out| out.int(*column));
                            }
                        });
                    });
                });
            });
        });
        out.finish()
    }

    /// Whether SciPy would index this matrix by 32 bits.
    pub(crate) fn fits_i32(&self) -> bool {
        let most = i32::MAX as u64;
        self.matrix.columns <= most && self.matrix.rows <= most && self.matrix.data.len() as u64 <= most
    }

    /// The five tensors in the order in which BERTopic gives them.
    ///
    /// # Errors
    /// `Unsupported` for a size beyond 63 bits.
    pub(crate) fn tensors(&self) -> Result<MemoryArchive<'static>> {
        let index = if self.fits_i32() { DType::I32 } else { DType::I64 };
        let shape = [self.matrix.rows, self.matrix.columns];
        MemoryArchive::new([
            tensor("indptr", index, numbers::index_bytes(self.matrix.indptr.iter().copied(), index)?)?,
            tensor("indices", index, {
                numbers::index_bytes(self.matrix.indices.iter().map(|c| u64::from(*c)), index)?
            })?,
            tensor("data", DType::F64, numbers::f64_bytes(&self.matrix.data))?,
            tensor("shape", DType::I64, numbers::index_bytes(shape, DType::I64)?)?,
            tensor("diag", DType::F64, numbers::f64_bytes(&self.diag))?,
        ])
    }
}

/// A tensor of one dimension.
fn tensor(name: &str, dtype: DType, bytes: Vec<u8>) -> Result<Tensor<'static>> {
    let elements = bytes.len() as u64 / dtype.size().unwrap_or(1);
    Tensor::new(name, dtype, [elements].as_slice(), Data::Owned(bytes.into()))
}

fn size(n: i64) -> Result<u64> {
    u64::try_from(n).map_err(|_| Error::mismatch(format!("a size of {n}")).with_tensor("shape"))
}

pub(crate) fn narrow(numbers: &[i64], name: &str) -> Result<Vec<u32>> {
    let narrow = |n: &i64| {
        u32::try_from(*n).map_err(|_| Error::mismatch(format!("a column of {n}")).with_tensor(name))
    };
    numbers.iter().map(narrow).collect()
}

pub(crate) fn unsigned(numbers: &[i64], name: &str) -> Result<Vec<u64>> {
    let unsigned =
        |n: &i64| u64::try_from(*n).map_err(|_| Error::mismatch(format!("a row at {n}")).with_tensor(name));
    numbers.iter().map(unsigned).collect()
}
