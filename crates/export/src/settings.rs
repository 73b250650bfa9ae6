//! The fields of a `config.json`, read strictly: what is there and of another type, or out of range, is an error that
//! names the key.

use serde_json::{Map, Value};
use weighbridge_formats::{Error, Result};

/// The most that a size may be. A config's word decides how large constants are and how many nodes there are.
const MAX_SIZE: u64 = 1 << 31;

/// The most layers.
const MAX_LAYERS: u64 = 2048;

/// A config's fields, or those of an object in it.
#[derive(Clone, Copy)]
pub(crate) struct Settings<'c>(&'c Map<String, Value>);

impl<'c> Settings<'c> {
    pub(crate) fn new(fields: &'c Map<String, Value>) -> Self {
        Self(fields)
    }

    /// A value that is there and not null.
    pub(crate) fn get(&self, key: &str) -> Option<&'c Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// Whether the key is there, if only as null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The first key whose value is an object.
    pub(crate) fn nested(&self) -> Option<&'c str> {
        self.0.iter().find(|(_, v)| v.is_object()).map(|(k, _)| k.as_str())
    }

    /// Whether there is no key.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A value of a type, where it is there.
    fn typed<T>(&self, key: &str, what: &str, of: impl Fn(&'c Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let read = of(value).ok_or_else(|| {
            let mut shown = value.to_string();
            shown.truncate(shown.char_indices().nth(60).map_or(shown.len(), |(at, _)| at));
            Error::malformed(format!("the config's {key:?} is {shown}, and should be {what}"))
        });
        read.map(Some)
    }

    /// A size, which is not 0.
    pub(crate) fn size_if(&self, key: &str) -> Result<Option<u64>> {
        let what = "a whole number above 0 and no larger than 2147483648";
        self.typed(key, what, |v| v.as_u64().filter(|n| (1..=MAX_SIZE).contains(n)))
    }

    /// A size, or what the architecture has where the config is silent.
    pub(crate) fn size_or(&self, key: &str, default: u64) -> Result<u64> {
        Ok(self.size_if(key)?.unwrap_or(default))
    }

    /// A size that must be there.
    pub(crate) fn size(&self, key: &str) -> Result<u64> {
        self.size_if(key)?.ok_or_else(|| Error::malformed(format!("the config has no {key:?}")))
    }

    /// A number of layers.
    pub(crate) fn layers(&self, key: &str) -> Result<u64> {
        let layers =
            self.typed(key, "a number of layers up to 2048", |v| v.as_u64().filter(|&n| n <= MAX_LAYERS))?;
        layers.ok_or_else(|| Error::malformed(format!("the config has no {key:?}")))
    }

    /// A whole number that is no less than 0.
    pub(crate) fn index_if(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a whole number", |v| v.as_u64().filter(|&n| n <= MAX_SIZE))
    }

    /// A number.
    pub(crate) fn float_if(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", |v| v.as_f64().filter(|x| x.is_finite()))
    }

    /// A number, or what the architecture has where the config is silent.
    pub(crate) fn float_or(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.float_if(key)?.unwrap_or(default))
    }

    /// Numbers.
    pub(crate) fn floats_if(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.typed(key, "a list of numbers", |v| v.as_array()?.iter().map(Value::as_f64).collect())
    }

    /// An option, or what the architecture has where the config is silent.
    pub(crate) fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A text.
    pub(crate) fn text_if(&self, key: &str) -> Result<Option<&'c str>> {
        self.typed(key, "a text", Value::as_str)
    }

    /// A list of texts.
    pub(crate) fn texts_if(&self, key: &str) -> Result<Option<Vec<&'c str>>> {
        self.typed(key, "a list of texts", |v| v.as_array()?.iter().map(Value::as_str).collect())
    }

    /// An object.
    pub(crate) fn object_if(&self, key: &str) -> Result<Option<Self>> {
        self.typed(key, "an object", |v| v.as_object().map(Self))
    }

    /// A text that must be there.
    pub(crate) fn text(&self, key: &str) -> Result<&'c str> {
        self.text_if(key)?.ok_or_else(|| Error::malformed(format!("{key:?} is missing")))
    }

    /// A list of objects.
    pub(crate) fn objects(&self, key: &str) -> Result<Vec<Self>> {
        let list = self.typed(key, "a list of objects", |v| {
            v.as_array()?.iter().map(|v| v.as_object().map(Self)).collect()
        })?;
        list.ok_or_else(|| Error::malformed(format!("{key:?} is missing")))
    }

    /// A whole number, or a list of them.
    pub(crate) fn numbers_if(&self, key: &str) -> Result<Option<Vec<u64>>> {
        self.typed(key, "a whole number or a list of them", |v| match v {
            Value::Array(list) => list.iter().map(Value::as_u64).collect(),
            one => one.as_u64().map(|n| vec![n]),
        })
    }

    /// As [`Settings::numbers_if`], where they must be there.
    pub(crate) fn numbers(&self, key: &str) -> Result<Vec<u64>> {
        self.numbers_if(key)?.ok_or_else(|| Error::malformed(format!("{key:?} is missing")))
    }

    /// A dimension, counted from the end where it is below 0.
    pub(crate) fn axis(&self, key: &str, default: i64) -> Result<i64> {
        let axis = self.typed(key, "a dimension", |v| v.as_i64().filter(|n| (-64..64).contains(n)))?;
        Ok(axis.unwrap_or(default))
    }

    /// Refuses keys that are not known.
    pub(crate) fn only(&self, known: &[&str], what: &str) -> Result<()> {
        match self.0.keys().find(|k| !known.contains(&k.as_str())) {
            None => Ok(()),
            Some(key) => {
                let what = format!("{what} has no {key:?}: known are {}", known.join(", "));
                Err(Error::unsupported(what))
            }
        }
    }

    /// The number of labels of a classifier: of `id2label`, else `num_labels`, else 2.
    pub(crate) fn labels(&self) -> Result<u64> {
        match self.object_if("id2label")? {
            Some(labels) if !labels.0.is_empty() => Ok(labels.0.len() as u64),
            _ => self.size_or("num_labels", 2),
        }
    }

    /// An option that is a word: the one that is set, else the default. Other words than these are not known here.
    ///
    /// # Errors
    /// `Unsupported`, with what is known.
    pub(crate) fn word(&self, key: &str, default: &'c str, known: &[&str]) -> Result<&'c str> {
        let text = self.text_if(key)?.unwrap_or(default);
        if known.contains(&text) {
            return Ok(text);
        }
        Err(Error::unsupported(format!("the config's {key} {text:?}: known are {}", known.join(", "))))
    }

    /// Refuses an option that is switched on and that no graph is built for.
    ///
    /// # Errors
    /// `Unsupported`.
    pub(crate) fn never(&self, key: &str) -> Result<()> {
        if self.flag_or(key, false)? {
            return Err(Error::unsupported(format!("the config's {key} is true, which is not known here")));
        }
        Ok(())
    }
}
