//! Versions of models: a registry folder, changelogs drafted from diffs, model cards.
