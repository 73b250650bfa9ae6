//! Archives with some of another's tensors.

use std::collections::{BTreeSet, HashMap};

use regex::Regex;

use super::layer::{Layer, archive_of_layer};
use super::tree;
use crate::archive::{Archive, Note};
use crate::error::{Error, Result};
use crate::tensor::{Data, TensorInfo};
use crate::value::{Value, ValueId};

/// A part of an archive.
///
/// A path such as `model.state_dict` names a part of the tree: the tensors whose names equal it or lie below it
/// are taken, without that prefix, and the value at the path becomes the root. With `*` (any characters) or `?`
/// (one character) it is a pattern on whole names; the tensors that fit keep their names, and the values around
/// them stay.
pub struct Select<'a> {
    layer: Layer<'a>,
}

impl<'a> Select<'a> {
    /// Takes the part at a path, or the tensors of a pattern.
    ///
    /// # Errors
    /// `NotFound` if nothing is there, with what there is.
    pub fn new(inner: Box<dyn Archive + 'a>, path: &str) -> Result<Self> {
        let layer =
            if path.contains(['*', '?']) { select_pattern(inner, path)? } else { select_part(inner, path)? };
        Ok(Self { layer })
    }
}

/// An archive without the tensors of a pattern.
pub struct Drop<'a> {
    layer: Layer<'a>,
}

impl<'a> Drop<'a> {
    /// Leaves out the tensors whose whole names fit a pattern: `*` stands for any characters, `?` for one.
    ///
    /// # Errors
    /// `NotFound` if no tensor fits.
    pub fn new(inner: Box<dyn Archive + 'a>, pattern: &str) -> Result<Self> {
        let fits = glob(pattern)?;
        let layer = retain(inner, |name| !fits.is_match(name))?;
        let left_out = layer.inner.tensors().len() - layer.infos.len();
        if left_out == 0 {
            return Err(not_found(&*layer.inner, pattern));
        }
        Ok(Self { layer })
    }
}

/// A pattern as a regular expression on whole names: `*` stands for any characters, `?` for one.
///
/// # Errors
/// `InvalidOptions` for a pattern that is too large.
pub fn glob(pattern: &str) -> Result<Regex> {
    let mut text = String::from("(?s)^");
    for c in pattern.chars() {
        match c {
            '*' => text.push_str(".*"),
            '?' => text.push('.'),
            c => text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    text.push('$');
    Regex::new(&text)
        .map_err(|e| Error::invalid_options(format!("the pattern {pattern:?} is too large")).with_source(e))
}

fn select_pattern<'a>(inner: Box<dyn Archive + 'a>, pattern: &str) -> Result<Layer<'a>> {
    let fits = glob(pattern)?;
    let layer = retain(inner, |name| fits.is_match(name))?;
    if layer.infos.is_empty() {
        return Err(not_found(&*layer.inner, pattern));
    }
    Ok(layer)
}

/// Keeps the tensors whose names `keep` says, and has a note on the others.
fn retain<'a>(inner: Box<dyn Archive + 'a>, keep: impl Fn(&str) -> bool) -> Result<Layer<'a>> {
    let kept: Vec<bool> = inner.tensors().iter().map(|t| keep(t.name())).collect();
    let mut layer = retain_indices(inner, |i| kept[i])?;
    let left_out = layer.inner.tensors().len() - layer.infos.len();
    if left_out > 0 {
        layer.notes.push(Note::changed(format!("{left_out} tensors are left out, as asked for")));
    }
    Ok(layer)
}

/// Keeps the tensors that `keep` says by their index, under their names.
pub(super) fn retain_indices<'a>(
    inner: Box<dyn Archive + 'a>,
    keep: impl Fn(usize) -> bool,
) -> Result<Layer<'a>> {
    let taken = inner.tensors().iter().enumerate().filter(|(i, _)| keep(*i));
    let (sources, infos): (Vec<usize>, Vec<TensorInfo>) = taken.map(|(i, t)| (i, t.clone())).unzip();
    let mut layer = Layer::new(inner, infos, sources);
    remap_values(&mut layer, None)?;
    Ok(layer)
}

/// Gives the values the new indices, and makes `root` their root where there is one.
fn remap_values(layer: &mut Layer<'_>, root: Option<ValueId>) -> Result<()> {
    let Some(values) = layer.inner.values() else { return Ok(()) };
    let mut numbers = vec![None; layer.inner.tensors().len()];
    for (new, &old) in layer.sources.iter().enumerate() {
        numbers[old] = Some(u32::try_from(new).map_err(|_| Error::limit("more than 4,294,967,295 tensors"))?);
    }
    let (values, blanks) = tree::remap(values, root.or(values.root()), &numbers);
    if blanks > 0 {
        let text = format!("{blanks} items of lists, tuples and objects that were such tensors are None");
        layer.notes.push(Note::changed(text));
    }
    layer.values = Some(values);
    Ok(())
}

fn select_part<'a>(inner: Box<dyn Archive + 'a>, path: &str) -> Result<Layer<'a>> {
    let last = path.rsplit('.').next().unwrap_or(path);
    let below = |name: &str| match name.strip_prefix(path) {
        Some("") => Some(last.to_owned()),
        Some(rest) => rest.strip_prefix('.').map(str::to_owned),
        None => None,
    };
    let mut names: Vec<Option<String>> = inner.tensors().iter().map(|t| below(t.name())).collect();
    let node = inner.values().and_then(|values| Some((values, tree::find(values, path)?)));
    if let Some((values, node)) = node {
        // A tensor that is in the part, and elsewhere too, may have its name from there.
        let foreign = |i: u32| names.get(i as usize).is_some_and(Option::is_none);
        for (i, name) in tree::relative_names(values, node, foreign) {
            names[i as usize] = Some(if name.is_empty() { last.to_owned() } else { name });
        }
    }
    let (mut sources, mut infos) = (Vec::new(), Vec::new());
    for (i, name) in names.into_iter().enumerate() {
        if let Some(name) = name {
            infos.push(inner.tensors()[i].clone().with_name(name));
            sources.push(i);
        }
    }
    if infos.is_empty() && node.is_none() {
        return Err(not_found(&*inner, path));
    }
    unique_names(&*inner, &infos, &sources)?;
    let node = node.map(|(values, node)| (node, values.get(node)));
    let (root, object) = match node {
        Some((node, Value::Dict(_) | Value::List(_) | Value::Tuple(_))) => (Some(node), false),
        Some((node, _)) if infos.is_empty() => (Some(node), false),
        Some((_, Value::Object(_))) => (None, true),
        _ => (None, false),
    };
    let left_out = inner.tensors().len() - infos.len();
    let mut layer = Layer::new(inner, infos, sources);
    if left_out > 0 {
        let text = format!("{left_out} tensors outside {path:?} are left out, as asked for");
        layer.notes.push(Note::changed(text));
    }
    if root.is_some() {
        remap_values(&mut layer, root)?;
    } else if layer.inner.values().is_some() {
        layer.values = Some(tree::flat(&layer.infos)?);
        if object {
            let text = format!("the object at {path:?} stands as a dict of its tensors");
            layer.notes.push(Note::changed(text));
        }
    }
    Ok(layer)
}

/// Checks that no two tensors have the same new name.
pub(super) fn unique_names(inner: &dyn Archive, infos: &[TensorInfo], sources: &[usize]) -> Result<()> {
    let mut seen = HashMap::with_capacity(infos.len());
    for (info, &source) in infos.iter().zip(sources) {
        if let Some(other) = seen.insert(info.name(), source) {
            let (a, b) = (inner.tensors()[other].name(), inner.tensors()[source].name());
            let what = format!("{a:?} and {b:?} would both be named {:?}", info.name());
            return Err(Error::invalid_options(what));
        }
    }
    Ok(())
}

/// The error for a path or pattern that fits nothing, with names that are there.
fn not_found(archive: &dyn Archive, path: &str) -> Error {
    const SHOWN: usize = 12;
    let mut top = BTreeSet::new();
    let values = archive.values().and_then(|v| Some((v, v.dict(v.root()?)?)));
    if let Some((values, dict)) = values {
        top.extend(
            dict.entries.iter().filter_map(|(key, _)| Some(tree::key_text(values, *key)?.into_owned())),
        );
    }
    top.extend(archive.tensors().iter().map(|t| t.name().split('.').next().unwrap_or_default().to_owned()));
    let last = path.rsplit('.').next().unwrap_or(path).trim_matches(['*', '?']);
    let is_near = |t: &&TensorInfo| !last.is_empty() && t.name().contains(last);
    let near: Vec<&str> = archive.tensors().iter().filter(is_near).map(TensorInfo::name).take(3).collect();
    let mut hint = if near.is_empty() { String::new() } else { format!("near it: {}; ", near.join(", ")) };
    if top.is_empty() {
        hint.push_str("the archive is empty");
    } else {
        let shown: Vec<&str> = top.iter().map(String::as_str).take(SHOWN).collect();
        let more = if top.len() > SHOWN { format!(" and {} more", top.len() - SHOWN) } else { String::new() };
        hint.push_str(&format!("at the top: {}{more}", shown.join(", ")));
    }
    Error::not_found(format!("nothing is named {path:?}")).with_hint(hint)
}

archive_of_layer!(Select);
archive_of_layer!(Drop);

#[cfg(test)]
mod tests;
