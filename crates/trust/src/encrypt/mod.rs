//! Models in age files.
