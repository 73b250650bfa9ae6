//! The record of what a model is made of.
