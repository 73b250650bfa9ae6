//! Whole models: weights, config, tokenizer and precision, as the directories that people know.
