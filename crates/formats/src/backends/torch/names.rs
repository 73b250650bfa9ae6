//! The dotted names of tensors are those of every pickle.

pub(super) use crate::naming::name_tensors;
