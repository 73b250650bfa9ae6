//! Archives whose tensors have other names.

use regex::Regex;

use super::layer::{Layer, archive_of_layer};
use super::select::unique_names;
use super::tree;
use crate::archive::{Archive, Note};
use crate::error::{Error, Result};
use crate::tensor::{Data, TensorInfo};

/// Tensors renamed by regular expressions.
pub struct Rename<'a> {
    layer: Layer<'a>,
}

impl<'a> Rename<'a> {
    /// Applies each pair to every full name, in order: whatever the expression fits is replaced, and `$1` or
    /// `${name}` in the replacement stand for its groups.
    ///
    /// In the tree of values a tensor's key follows its name. If the new name lies in another part of the tree,
    /// the tensor's entry moves to the root under its full name.
    ///
    /// # Errors
    /// `InvalidOptions` if two tensors would have the same name, or one no name.
    pub fn new(inner: Box<dyn Archive + 'a>, rules: impl AsRef<[(Regex, String)]>) -> Result<Self> {
        let new_name = |name: &str| {
            let mut name = std::borrow::Cow::Borrowed(name);
            for (pattern, to) in rules.as_ref() {
                if let std::borrow::Cow::Owned(new) = pattern.replace_all(&name, to) {
                    name = new.into();
                }
            }
            name.into_owned()
        };
        Ok(Self { layer: rename(inner, new_name)? })
    }
}

/// Tensors without a prefix.
pub struct StripPrefix<'a> {
    layer: Layer<'a>,
}

impl<'a> StripPrefix<'a> {
    /// Takes `prefix`, such as `module.`, from the names that begin with it.
    ///
    /// # Errors
    /// `NotFound` if none does; `InvalidOptions` as for [`Rename::new`].
    pub fn new(inner: Box<dyn Archive + 'a>, prefix: &str) -> Result<Self> {
        if !inner.tensors().iter().any(|t| t.name().starts_with(prefix)) {
            let first = inner.tensors().first().map_or("no tensors", TensorInfo::name).to_owned();
            return Err(Error::not_found(format!("no tensor's name begins with {prefix:?}"))
                .with_hint(format!("the first name is {first}; `weighbridge inspect` lists all")));
        }
        Ok(Self { layer: rename(inner, |name| name.strip_prefix(prefix).unwrap_or(name).to_owned())? })
    }
}

fn rename<'a>(inner: Box<dyn Archive + 'a>, new_name: impl Fn(&str) -> String) -> Result<Layer<'a>> {
    let (mut infos, sources) = Layer::all(&*inner);
    let mut renamed = 0u64;
    for info in &mut infos {
        let name = new_name(info.name());
        if name.is_empty() {
            return Err(Error::invalid_options("a tensor would have no name left").with_tensor(info.name()));
        }
        if name != info.name() {
            *info = info.clone().with_name(name);
            renamed += 1;
        }
    }
    unique_names(&*inner, &infos, &sources)?;
    let values = match inner.values() {
        Some(values) if renamed > 0 => Some(tree::rename(values, inner.tensors(), &infos)?),
        _ => None,
    };
    let mut layer = Layer::new(inner, infos, sources);
    if renamed > 0 {
        layer.notes.push(Note::changed(format!("{renamed} tensors are renamed, as asked for")));
    }
    if let Some(done) = values {
        let mut changed = |text: String| layer.notes.push(Note::changed(text));
        if done.moved > 0 {
            changed(format!("{} renamed tensors moved to the root of the values", done.moved));
        }
        if done.blanks > 0 {
            changed(format!("{} items of lists and tuples that were such tensors are None", done.blanks));
        }
        match done.flattened {
            Some(true) => layer.notes.push(Note::lost(
                "the values around the tensors have no dict at their root that could take renamed tensors; only \
                 the tensors remain",
            )),
            Some(false) => changed("the tensors stand in one flat dict".into()),
            None => {}
        }
        layer.values = Some(done.values);
    }
    Ok(layer)
}

archive_of_layer!(Rename);
archive_of_layer!(StripPrefix);

#[cfg(test)]
mod tests;
