//! State dicts of what holds state dicts: maps, lists, options and boxes.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use weighbridge_formats::{Result, Tensor};

use super::{StateDict, TensorSource, join};

impl<T: StateDict> StateDict for BTreeMap<String, T> {
    fn tensors<'s>(&'s self, prefix: &str, visit: &mut dyn FnMut(Tensor<'s>) -> Result<()>) -> Result<()> {
        self.iter().try_for_each(|(name, part)| part.tensors(&join(prefix, name), visit))
    }

    fn assign(&mut self, prefix: &str, source: &dyn TensorSource) -> Result<()> {
        self.iter_mut().try_for_each(|(name, part)| part.assign(&join(prefix, name), source))
    }
}

/// In the order of the names.
impl<T: StateDict, S: BuildHasher> StateDict for HashMap<String, T, S> {
    fn tensors<'s>(&'s self, prefix: &str, visit: &mut dyn FnMut(Tensor<'s>) -> Result<()>) -> Result<()> {
        let mut parts: Vec<(&String, &T)> = self.iter().collect();
        parts.sort_by_key(|(name, _)| *name);
        parts.into_iter().try_for_each(|(name, part)| part.tensors(&join(prefix, name), visit))
    }

    fn assign(&mut self, prefix: &str, source: &dyn TensorSource) -> Result<()> {
        let mut parts: Vec<(&String, &mut T)> = self.iter_mut().collect();
        parts.sort_by_key(|(name, _)| *name);
        parts.into_iter().try_for_each(|(name, part)| part.assign(&join(prefix, name), source))
    }
}

/// Named by place: `layers.0`, `layers.1`.
impl<T: StateDict> StateDict for [T] {
    fn tensors<'s>(&'s self, prefix: &str, visit: &mut dyn FnMut(Tensor<'s>) -> Result<()>) -> Result<()> {
        let mut parts = self.iter().enumerate();
        parts.try_for_each(|(at, part)| part.tensors(&join(prefix, &at.to_string()), visit))
    }

    fn assign(&mut self, prefix: &str, source: &dyn TensorSource) -> Result<()> {
        let mut parts = self.iter_mut().enumerate();
        parts.try_for_each(|(at, part)| part.assign(&join(prefix, &at.to_string()), source))
    }
}

/// As a slice: its length stays as it is.
impl<T: StateDict> StateDict for Vec<T> {
    fn tensors<'s>(&'s self, prefix: &str, visit: &mut dyn FnMut(Tensor<'s>) -> Result<()>) -> Result<()> {
        self.as_slice().tensors(prefix, visit)
    }

    fn assign(&mut self, prefix: &str, source: &dyn TensorSource) -> Result<()> {
        self.as_mut_slice().assign(prefix, source)
    }
}

/// A part that is not there, such as a bias, has no tensors and takes none.
impl<T: StateDict> StateDict for Option<T> {
    fn tensors<'s>(&'s self, prefix: &str, visit: &mut dyn FnMut(Tensor<'s>) -> Result<()>) -> Result<()> {
        self.as_ref().map_or(Ok(()), |part| part.tensors(prefix, visit))
    }

    fn assign(&mut self, prefix: &str, source: &dyn TensorSource) -> Result<()> {
        self.as_mut().map_or(Ok(()), |part| part.assign(prefix, source))
    }
}

impl<T: StateDict + ?Sized> StateDict for Box<T> {
    fn tensors<'s>(&'s self, prefix: &str, visit: &mut dyn FnMut(Tensor<'s>) -> Result<()>) -> Result<()> {
        (**self).tensors(prefix, visit)
    }

    fn assign(&mut self, prefix: &str, source: &dyn TensorSource) -> Result<()> {
        (**self).assign(prefix, source)
    }
}
