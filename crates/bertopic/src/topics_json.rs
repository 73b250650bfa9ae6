//! `topics.json`: what the model says of its topics and of the documents that it was trained with.

use weighbridge_formats::{Error, Limits, Note, Result};

use crate::json::{Json, Parser, Writer, last_wins};
use crate::model::{Aspect, AspectValue, ByTopic, Term, TopicModel, VISUAL_ASPECT};

/// Reads the file into a model.
///
/// # Errors
/// `Malformed` for what is no JSON, of another type, or missing where BERTopic needs it; `LimitExceeded`.
pub(crate) fn parse(
    bytes: &[u8],
    limits: &Limits,
    model: &mut TopicModel,
    notes: &mut Vec<Note>,
) -> Result<()> {
    let mut seen = [false; 5];
    let mut outliers = None;
    let mut parser = Parser::new(bytes, limits)?;
    parser.object(|p, key| {
        let needed = ["topic_representations", "topics", "topic_sizes", "topic_mapper", "custom_labels"];
        if let Some(seen) = needed.iter().position(|n| *n == key).and_then(|i| seen.get_mut(i)) {
            *seen = true;
        }
        match &*key {
            "topic_representations" => model.representations = by_topic(p, terms)?,
            "topics" => {
                model.topics.clear();
                p.array(|p| {
                    model.topics.push(p.int()?);
                    Ok(())
                })?;
            }
            "topic_sizes" => {
                model.sizes = by_topic(p, |p| {
                    let n = p.int()?;
                    u64::try_from(n).map_err(|_| p.error(format!("a topic of {n} documents")))
                })?;
            }
            "topic_mapper" => {
                model.mapper.clear();
                p.array(|p| {
                    let mut row = Vec::new();
                    p.array(|p| {
                        row.push(p.int()?);
                        Ok(())
                    })?;
                    model.mapper.push(row);
                    Ok(())
                })?;
            }
            "topic_labels" => model.labels = by_topic(p, |p| p.string())?,
            "custom_labels" => model.custom_labels = custom_labels(p, notes)?,
            "_outliers" => outliers = p.value()?.as_int(),
            "topic_aspects" => model.aspects = aspects(p)?,
            _ => {
                p.value()?;
                notes.push(Note::warning(format!("topics.json has {key:?}, which is unknown and left out")));
            }
        }
        Ok(())
    })?;
    parser.end()?;
    let needed = ["topic_representations", "topics", "topic_sizes", "topic_mapper", "custom_labels"];
    if let Some((name, _)) = needed.iter().zip(seen).find(|(_, seen)| !seen) {
        return Err(Error::malformed(format!("`{name}` is missing, and BERTopic loads no model without it")));
    }
    if outliers.is_some_and(|n| n != i64::from(model.has_outliers())) {
        notes.push(Note::warning("`_outliers` contradicts the sizes of the topics, which count"));
    }
    Ok(())
}

/// An object whose keys are topics.
fn by_topic<T>(
    p: &mut Parser<'_>,
    mut value: impl FnMut(&mut Parser<'_>) -> Result<T>,
) -> Result<ByTopic<T>> {
    let mut out = Vec::new();
    p.object(|p, key| {
        let id = topic(p, &key)?;
        out.push((id, value(p)?));
        Ok(())
    })?;
    Ok(last_wins(out))
}

fn topic(p: &Parser<'_>, key: &str) -> Result<i64> {
    key.parse().map_err(|_| p.error(format!("{key:?} is the number of no topic")))
}

/// A list of pairs of a word and its score.
fn terms(p: &mut Parser<'_>) -> Result<Vec<Term>> {
    let mut out = Vec::new();
    p.array(|p| {
        let (mut word, mut score, mut items) = (None, None, 0);
        p.array(|p| {
            match items {
                0 => word = Some(p.string()?),
                1 => score = Some(p.number()?),
                _ => return Err(p.error("a word has more beside it than its score")),
            }
            items += 1;
            Ok(())
        })?;
        let (Some(word), Some(score)) = (word, score) else {
            return Err(p.error("a word and its score are wanted"));
        };
        out.push(Term { word, score });
        Ok(())
    })?;
    Ok(out)
}

/// A list of labels or null. Once topics were deleted BERTopic has them in an object by topic, which it then shows
/// wrongly: a list in the order of the topics is what it means.
fn custom_labels(p: &mut Parser<'_>, notes: &mut Vec<Note>) -> Result<Option<Vec<String>>> {
    match p.peek() {
        Some(b'n') if p.literal("null") => Ok(None),
        Some(b'{') => {
            let mut labels = by_topic(p, |p| p.string())?;
            labels.sort_by_key(|(id, _)| *id);
            notes.push(Note::changed("custom labels by topic become a list in the order of the topics"));
            Ok(Some(labels.into_iter().map(|(_, label)| label).collect()))
        }
        _ => {
            let mut labels = Vec::new();
            p.array(|p| {
                labels.push(p.string()?);
                Ok(())
            })?;
            Ok(Some(labels))
        }
    }
}

fn aspects(p: &mut Parser<'_>) -> Result<Vec<(String, Aspect)>> {
    let mut out = Vec::new();
    if p.literal("null") {
        return Ok(out);
    }
    p.object(|p, name| {
        let aspect = if name == VISUAL_ASPECT {
            p.value()?;
            Aspect::Images
        } else {
            Aspect::Topics(by_topic(p, |p| Ok(aspect_value(p.value()?)))?)
        };
        out.push((name, aspect));
        Ok(())
    })?;
    Ok(last_wins(out))
}

/// What an aspect says of a topic: words with scores where it is a list of such pairs.
pub(crate) fn aspect_value(value: Json) -> AspectValue {
    let pair = |item: &Json| match item.as_array()? {
        [Json::Str(word), Json::Number(score)] => Some(Term { word: word.clone(), score: *score }),
        _ => None,
    };
    match value.as_array().and_then(|items| items.iter().map(pair).collect()) {
        Some(terms) => AspectValue::Terms(terms),
        None => AspectValue::Other(value),
    }
}

/// The text of the file.
pub(crate) fn render(model: &TopicModel) -> Vec<u8> {
    let mut out = Writer::default();
    out.object(|out| {
        out.entry("topic_representations", |out| {
            write_by_topic(out, &model.representations, |out, terms| write_terms(out, terms));
        });
        out.entry("topics", |out| out.array(&model.topics, |out, topic| out.int(*topic)));
        out.entry("topic_sizes", |out| write_by_topic(out, &model.sizes, |out, size| out.int(*size)));
        out.entry("topic_mapper", |out| {
            out.array(&model.mapper, |out, row| out.array(row, |out, topic| out.int(*topic)));
        });
        out.entry("topic_labels", |out| {
            write_by_topic(out, &model.topic_labels(), |out, label| out.string(label));
        });
        out.entry("custom_labels", |out| match &model.custom_labels {
            Some(labels) => out.array(labels, |out, label| out.string(label)),
            None => out.value(&Json::Null),
        });
        out.entry("_outliers", |out| out.int(u8::from(model.has_outliers())));
        out.entry("topic_aspects", |out| {
            out.object(|out| {
                for (name, aspect) in &model.aspects {
                    match aspect {
                        Aspect::Images => out.entry(VISUAL_ASPECT, |out| out.bool(true)),
                        Aspect::Topics(topics) => out.entry(name, |out| {
                            write_by_topic(out, topics, |out, value| match value {
                                AspectValue::Terms(terms) => write_terms(out, terms),
                                AspectValue::Other(value) => out.value(value),
                            });
                        }),
                    }
                }
            });
        });
    });
    out.finish()
}

fn write_by_topic<T>(out: &mut Writer, topics: &ByTopic<T>, mut value: impl FnMut(&mut Writer, &T)) {
    out.object(|out| {
        for (id, of) in topics {
            out.entry(&id.to_string(), |out| value(out, of));
        }
    });
}

fn write_terms(out: &mut Writer, terms: &[Term]) {
    out.array(terms, |out, term| {
        let items: [&dyn Fn(&mut Writer); 2] = [&|out| out.string(&term.word), &|out| out.number(term.score)];
        out.array(items, |out, item| item(out));
    });
}
