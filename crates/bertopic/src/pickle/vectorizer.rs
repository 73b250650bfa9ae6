//! c-TF-IDF in a pickle: SciPy's matrices, the transformer and scikit-learn's vectorizer.

use weighbridge_formats::{Error, Note, Result, Value, ValueId};

use super::COUNT_VECTORIZER;
use super::read::{Reader, at, class};
use crate::ctfidf::{Csr, Ctfidf, VECTORIZER_PARAMS, Vectorizer, narrow, unsigned};
use crate::json::Json;

impl Reader<'_> {
    /// c-TF-IDF with its weights and its vectorizer.
    pub(super) fn ctfidf(&self, state: ValueId, notes: &mut Vec<Note>) -> Result<Ctfidf> {
        let matrix = at("c_tf_idf_", self.csr(self.needed(state, "c_tf_idf_")?))?;
        let weights = self.needed(state, "ctfidf_model")?;
        let weights =
            self.state(weights).ok_or_else(|| Error::malformed("the c-TF-IDF model has no state"))?;
        let diag = at("_idf_diag", self.csr(self.needed(weights, "_idf_diag")?).and_then(|m| diagonal(&m)))?;
        let flag = |name: &str| match self.values.entry(weights, name).map(|id| self.values.get(id)) {
            Some(Value::Bool(b)) => Ok(*b),
            _ => Err(Error::malformed(format!("`{name}` of the c-TF-IDF model is no bool"))),
        };
        if self.given(weights, "seed_words").is_some() {
            notes.push(Note::changed("the seed words of c-TF-IDF are left out; their weights stay"));
        }
        Ok(Ctfidf {
            matrix,
            diag,
            bm25_weighting: flag("bm25_weighting")?,
            reduce_frequent_words: flag("reduce_frequent_words")?,
            vectorizer: at(
                "vectorizer_model",
                self.vectorizer(self.needed(state, "vectorizer_model")?, notes),
            )?,
        })
    }

    fn vectorizer(&self, id: ValueId, notes: &mut Vec<Note>) -> Result<Vectorizer> {
        let state = self.state(id).ok_or_else(|| Error::malformed("the vectorizer has no state"))?;
        if let Some(class) = class(self.values, id)
            && !class.is(COUNT_VECTORIZER.0, COUNT_VECTORIZER.1)
        {
            notes.push(Note::changed(format!("the vectorizer, of {class}, becomes a plain CountVectorizer")));
        }
        let mut params = Vec::new();
        for name in VECTORIZER_PARAMS {
            let Some(id) = self.values.entry(state, name) else { continue };
            // An analyzer that is a function is left to CountVectorizer's default, as BERTopic leaves it.
            match self.json(id, 4) {
                Ok(value) => params.push((name.to_owned(), value)),
                Err(e) if name == "analyzer" => {
                    notes.push(Note::changed(format!(
                        "the vectorizer's analyzer is left out: {}",
                        e.message()
                    )));
                }
                Err(e) => return at(name, Err(e)),
            }
        }
        for name in ["tokenizer", "preprocessor"] {
            if self.given(state, name).is_some() {
                notes.push(Note::changed(format!("the vectorizer's {name}, a function, is left out")));
            }
        }
        if !params.iter().any(|(name, value)| name == "ngram_range" && matches!(value, Json::Array(_))) {
            return Err(Error::malformed("the vectorizer has no `ngram_range`"));
        }
        let learned = self.needed(state, "vocabulary_")?;
        let dict =
            self.values.dict(learned).ok_or_else(|| Error::malformed("a vocabulary that is no dict"))?;
        let entries = dict.entries.iter().map(|(term, column)| {
            let column = self.int(*column)?;
            let column = u32::try_from(column)
                .map_err(|_| Error::malformed(format!("a term has the column {column}")))?;
            Ok((self.text(*term)?, column))
        });
        Ok(Vectorizer { params, vocabulary: entries.collect::<Result<_>>()? })
    }

    /// One of SciPy's matrices in compressed sparse rows.
    fn csr(&self, id: ValueId) -> Result<Csr> {
        let named = class(self.values, id).is_some_and(|c| {
            c.module.starts_with("scipy.sparse") && matches!(&*c.name, "csr_matrix" | "csr_array")
        });
        let (Some(state), true) = (self.state(id), named) else {
            return Err(Error::unsupported("no matrix in compressed sparse rows")
                .with_hint("leave c-TF-IDF out, or save the model as a directory with BERTopic"));
        };
        let shape = self.ints(self.needed(state, "_shape")?)?;
        let &[rows, columns] = &*unsigned(&shape, "_shape")? else {
            return Err(Error::malformed(format!("a matrix of {} dimensions", shape.len())));
        };
        let matrix = Csr {
            data: self.floats(self.needed(state, "data")?)?,
            indices: narrow(&self.ints(self.needed(state, "indices")?)?, "indices")?,
            indptr: unsigned(&self.ints(self.needed(state, "indptr")?)?, "indptr")?,
            rows,
            columns,
        };
        matrix.check()?;
        Ok(matrix)
    }
}

/// The diagonal of a matrix that has nothing else. A weight of zero may not be stored.
fn diagonal(matrix: &Csr) -> Result<Vec<f64>> {
    let refused = |what: String| {
        Error::unsupported(what).with_hint(
            "deleting topics damages this matrix in BERTopic 0.17: fit c-TF-IDF again with update_topics",
        )
    };
    if matrix.rows != matrix.columns {
        return Err(refused(format!(
            "weights of {} by {}, and a square is wanted",
            matrix.rows, matrix.columns
        )));
    }
    // As many rows as pointers were read, less one.
    let mut diag = vec![0.0; matrix.indptr.len().saturating_sub(1)];
    for (row, weight) in diag.iter_mut().enumerate() {
        for (column, value) in matrix.row(row) {
            if column as usize != row {
                return Err(refused(format!("a weight at row {row} and column {column}")));
            }
            *weight += value;
        }
    }
    Ok(diag)
}
