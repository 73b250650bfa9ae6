//! Holding the parts of a model against each other.

use std::collections::HashSet;

use weighbridge_formats::{Error, Note, Result};

use crate::ctfidf::Ctfidf;
use crate::model::{Aspect, AspectValue, TopicModel};

impl TopicModel {
    /// Holds the parts of the model against each other. What looks wrong and hinders nobody is a note.
    ///
    /// # Errors
    /// `Mismatch` where BERTopic would fail on the model, or give wrong answers: no topic at all, embeddings,
    /// c-TF-IDF or images that are not one for each topic, documents of topics that do not exist, a mapper whose
    /// rows differ in length, a matrix that contradicts itself.
    pub fn check(&self) -> Result<Vec<Note>> {
        let mut notes = Vec::new();
        let ids = self.topic_ids();
        if ids.is_empty() {
            return Err(Error::mismatch("the model has no topic"));
        }
        let known: HashSet<i64> = ids.iter().copied().collect();
        if known.len() != ids.len() {
            return Err(Error::mismatch("a topic has two representations"));
        }
        if let Some(gap) = numbering(&ids) {
            notes.push(Note::warning(format!(
                "the topics are not numbered without gaps from -1 or 0 on ({gap}): documents cannot be assigned"
            )));
        }
        if self.embeddings.len() != ids.len() {
            let what = format!("{} topic embeddings for {} topics", self.embeddings.len(), ids.len());
            return Err(Error::mismatch(what).with_tensor("topic_embeddings"));
        }
        if self.embeddings.data().iter().any(|x| !x.is_finite()) {
            notes.push(Note::warning("a topic embedding is not finite: documents cannot be assigned"));
        }
        if let Some(topic) = self.topics.iter().find(|t| !known.contains(t)) {
            let what = format!("a document has the topic {topic}, which has no representation");
            return Err(Error::mismatch(what));
        }
        if self.has_outliers() != known.contains(&-1) {
            return Err(Error::mismatch(if known.contains(&-1) {
                "topic -1 has a representation and no size, so that every assignment would be off by one"
            } else {
                "topic -1 has a size and no representation, so that every assignment would be off by one"
            }));
        }
        self.check_sizes(&known, &mut notes);
        self.check_mapper(&known, &mut notes)?;
        self.check_words(&known, &mut notes);
        if let Some(labels) = &self.custom_labels
            && labels.len() != ids.len()
        {
            notes.push(Note::warning(format!(
                "{} custom labels for {} topics: BERTopic shows none of them",
                labels.len(),
                ids.len()
            )));
        }
        if let Some(ctfidf) = &self.ctfidf {
            ctfidf.check(ids.len())?;
        }
        self.check_images(&ids, &mut notes)?;
        Ok(notes)
    }

    fn check_sizes(&self, known: &HashSet<i64>, notes: &mut Vec<Note>) {
        let sized: HashSet<i64> = self.sizes.iter().map(|(id, _)| *id).collect();
        if let Some((id, _)) = self.sizes.iter().find(|(id, _)| !known.contains(id)) {
            notes.push(Note::warning(format!("topic {id} has a size and no representation")));
        }
        if let Some((id, _)) = self.representations.iter().find(|(id, _)| !sized.contains(id)) {
            notes.push(Note::warning(format!("topic {id} has a representation and no size")));
        }
        let sum = self.sizes.iter().fold(0u64, |n, (_, size)| n.saturating_add(*size));
        if sum != self.topics.len() as u64 {
            notes.push(Note::warning(format!(
                "the sizes of the topics add up to {sum}, and {} documents have a topic",
                self.topics.len()
            )));
        }
    }

    fn check_mapper(&self, known: &HashSet<i64>, notes: &mut Vec<Note>) -> Result<()> {
        let columns = self.mapper.first().map_or(0, Vec::len);
        if let Some(row) = self.mapper.iter().position(|row| row.len() != columns) {
            let what = format!(
                "row {row} of the topic mapper has {} columns, and the first one {columns}",
                self.mapper.get(row).map_or(0, Vec::len)
            );
            return Err(Error::mismatch(what));
        }
        if self.mapper.is_empty() {
            notes.push(Note::warning("the topic mapper is empty"));
        } else if columns < 2 {
            let what = format!("the topic mapper has {columns} columns, and from and to are two");
            return Err(Error::mismatch(what));
        }
        let last = self.mapper.iter().filter_map(|row| row.last());
        if let Some(topic) = last.filter(|t| **t != -1).find(|t| !known.contains(t)) {
            notes.push(Note::warning(format!(
                "the topic mapper leads to the topic {topic}, which has no representation"
            )));
        }
        Ok(())
    }

    fn check_words(&self, known: &HashSet<i64>, notes: &mut Vec<Note>) {
        if let Some((id, _)) = self.representations.iter().find(|(_, terms)| terms.is_empty()) {
            notes.push(Note::warning(format!("topic {id} has no word: BERTopic's get_topic_info fails")));
        }
        for (name, aspect) in &self.aspects {
            let Aspect::Topics(topics) = aspect else { continue };
            let missing = known.len() - known.len().min(topics.len());
            if topics.is_empty() {
                notes.push(Note::warning(format!(
                    "the aspect {name:?} has no topic: BERTopic's get_topic_info fails"
                )));
            } else if missing > 0 {
                notes.push(Note::warning(format!("the aspect {name:?} lacks {missing} of the topics")));
            }
            let empty = |v: &AspectValue| matches!(v, AspectValue::Terms(terms) if terms.is_empty());
            if let Some((id, _)) = topics.iter().find(|(_, value)| empty(value)) {
                notes.push(Note::warning(format!("the aspect {name:?} has no word for the topic {id}")));
            }
        }
    }

    fn check_images(&self, ids: &[i64], notes: &mut Vec<Note>) -> Result<()> {
        let aspect = self.aspects.iter().any(|(_, aspect)| *aspect == Aspect::Images);
        if self.images.is_empty() {
            if aspect {
                notes.push(Note::warning("an aspect is images, and none are there"));
            }
            return Ok(());
        }
        if !aspect {
            return Err(Error::mismatch("there are images, and no aspect says so")
                .with_hint("add an aspect `Aspect::Images`"));
        }
        let mut pictured: Vec<i64> = self.images.iter().map(|(id, _)| *id).collect();
        pictured.sort_unstable();
        if pictured != ids {
            let what = format!("the images are those of the topics {pictured:?}, and the topics are {ids:?}");
            return Err(Error::mismatch(what));
        }
        Ok(())
    }
}

/// What is wrong with the numbers of topics, sorted: the row of a topic's embedding must follow from its number.
pub(crate) fn numbering(ids: &[i64]) -> Option<String> {
    let first = *ids.first()?;
    if first != 0 && first != -1 {
        return Some(format!("the first is {first}"));
    }
    let gap = ids.iter().zip(first..).find(|(id, wanted)| *id != wanted);
    gap.map(|(id, wanted)| format!("{id} stands where {wanted} is wanted"))
}

impl Ctfidf {
    /// Holds the parts against each other and against the number of topics.
    ///
    /// # Errors
    /// `Mismatch`, with the numbers that disagree.
    pub fn check(&self, topics: usize) -> Result<()> {
        self.matrix.check().map_err(|e| e.with_tensor("c-TF-IDF"))?;
        let disagree = |what: String| Err(Error::mismatch(what).with_tensor("c-TF-IDF"));
        if self.matrix.rows != topics as u64 {
            return disagree(format!("{} rows for {topics} topics", self.matrix.rows));
        }
        let terms = self.vectorizer.vocabulary.len();
        if self.matrix.columns != terms as u64 {
            return disagree(format!("{} columns for a vocabulary of {terms} terms", self.matrix.columns));
        }
        if self.diag.len() as u64 != self.matrix.columns {
            return disagree(format!("{} weights for {} columns", self.diag.len(), self.matrix.columns));
        }
        let mut taken = vec![false; terms];
        for (term, column) in &self.vectorizer.vocabulary {
            match taken.get_mut(*column as usize) {
                Some(taken) if !*taken => *taken = true,
                Some(_) => {
                    return disagree(format!("two terms, {term:?} the second, have the column {column}"));
                }
                None => return disagree(format!("the term {term:?} has the column {column} of {terms}")),
            }
        }
        Ok(())
    }
}
