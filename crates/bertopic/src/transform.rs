//! Assigning documents to topics by the cosine of their embeddings to those of the topics, as BERTopic does with a
//! model that was saved without its sub-models.
//!
//! Source of the facts: `BERTopic.transform` for a `BaseCluster`, and scikit-learn's `cosine_similarity`: rows are
//! divided by their Euclidean norms, a zero row stays zero, and everything is done in 32 bits where both sides have
//! 32 bits, else in 64.

use weighbridge_formats::{Error, Result};

use crate::check::numbering;
use crate::model::TopicModel;

/// Embeddings of documents, row by row.
#[derive(Clone, Copy, Debug)]
pub enum Documents<'a> {
    /// In 32 bits.
    F32(&'a [f32]),
    /// In 64 bits.
    F64(&'a [f64]),
}

/// What each document was assigned to.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignments {
    /// The topic of each document.
    pub topics: Vec<i64>,
    /// How similar each document is to its topic: a cosine, between -1 and 1.
    pub probabilities: Vec<f64>,
    /// With `calculate_probabilities`, each document's similarity to every topic, row by row, in the order of the
    /// topics; else empty.
    pub similarities: Vec<f64>,
}

impl TopicModel {
    /// Assigns documents to topics. `dim` is the length of a row.
    ///
    /// The similarities are within a few units of the last place of BERTopic's, whose sums depend on the linear
    /// algebra library; of equal ones the first topic wins, as there.
    ///
    /// # Errors
    /// `Mismatch` if rows are not as long as the topics' embeddings, the numbers do not fill whole rows, one of them
    /// is not finite, or the topics are not numbered without gaps.
    pub fn transform(&self, documents: Documents<'_>, dim: usize) -> Result<Assignments> {
        let ids = self.topic_ids();
        if let Some(gap) = numbering(&ids) {
            let what = format!("the topics are not numbered without gaps from -1 or 0 on: {gap}");
            return Err(Error::mismatch(what));
        }
        if ids.len() != self.embeddings.len() {
            let what = format!("{} topic embeddings for {} topics", self.embeddings.len(), ids.len());
            return Err(Error::mismatch(what));
        }
        let numbers = match documents {
            Documents::F32(x) => x.len(),
            Documents::F64(x) => x.len(),
        };
        if dim != self.embeddings.dim() || dim == 0 || !numbers.is_multiple_of(dim) {
            let what = format!(
                "{numbers} numbers in rows of {dim}, and a topic's embedding has {}",
                self.embeddings.dim()
            );
            return Err(Error::mismatch(what));
        }
        let topics = Unit::new(self.embeddings.rows(), documents.is_wide())?;
        let documents = match documents {
            Documents::F32(x) => Unit::new(x.chunks_exact(dim), false)?,
            Documents::F64(x) => Unit::of_f64(x.chunks_exact(dim))?,
        };
        let wide = topics.wide;
        let mut out = Assignments { topics: Vec::new(), probabilities: Vec::new(), similarities: Vec::new() };
        for document in documents.rows(dim) {
            let mut best: Option<(i64, f64)> = None;
            for (topic, id) in topics.rows(dim).zip(&ids) {
                let exact: f64 = document.iter().zip(topic).map(|(a, b)| a * b).sum();
                let cosine = if wide { exact } else { f64::from(exact as f32) };
                if self.config.calculate_probabilities {
                    out.similarities.push(cosine);
                }
                if best.is_none_or(|(_, most)| cosine > most) {
                    best = Some((*id, cosine));
                }
            }
            let Some((id, cosine)) = best else { continue };
            out.topics.push(id);
            out.probabilities.push(cosine);
        }
        Ok(out)
    }
}

impl Documents<'_> {
    fn is_wide(self) -> bool {
        matches!(self, Self::F64(_))
    }
}

/// Rows of length 1. Numbers of 32 bits are rounded as arithmetic in 32 bits rounds them, and kept in 64.
struct Unit {
    data: Vec<f64>,
    wide: bool,
}

impl Unit {
    fn new<'a>(rows: impl Iterator<Item = &'a [f32]>, wide: bool) -> Result<Self> {
        let mut this = Self { data: Vec::new(), wide };
        for row in rows {
            this.push(row.iter().map(|x| f64::from(*x)))?;
        }
        Ok(this)
    }

    fn of_f64<'a>(rows: impl Iterator<Item = &'a [f64]>) -> Result<Self> {
        let mut this = Self { data: Vec::new(), wide: true };
        for row in rows {
            this.push(row.iter().copied())?;
        }
        Ok(this)
    }

    fn push(&mut self, row: impl Iterator<Item = f64> + Clone) -> Result<()> {
        let round = |x: f64| if self.wide { x } else { f64::from(x as f32) };
        let norm = round(row.clone().map(|x| x * x).sum::<f64>().sqrt());
        if !norm.is_finite() {
            return Err(Error::mismatch("an embedding has a number that is not finite"));
        }
        let norm = if norm == 0.0 { 1.0 } else { norm };
        self.data.extend(row.map(|x| round(x / norm)));
        Ok(())
    }

    fn rows(&self, dim: usize) -> impl Iterator<Item = &[f64]> {
        self.data.chunks_exact(dim.max(1))
    }
}
