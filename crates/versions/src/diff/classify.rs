//! Which bump a difference suggests.
//!
//! Major: what was made for the old version may not work with the new one, because shapes, the architecture, the
//! vocabulary or how text is split changed. Minor: other outputs, from other weights or settings. Patch: nothing that
//! is computed.

use super::ModelDiff;
use super::weights::is_weights_name;
use crate::version::Bump;

/// Why a bump is suggested.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reason {
    /// How much goes up for it.
    pub bump: Bump,
    /// The reason in words, a sentence without its full stop.
    pub text: String,
}

/// Keys of `config.json` that say where a model is from, not what it computes; and those of training alone.
const REMARKS: &[&str] = &[
    "_name_or_path",
    "_commit_hash",
    "_diffusers_version",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "initializer_range",
    "initializer_factor",
    "gradient_checkpointing",
    "author",
    "description",
    "license",
    "__version__",
];

/// Keys that say how large a model is and how it is put together, whatever the architecture calls them.
const STRUCTURE: &[&str] = &[
    "architectures",
    "model_type",
    "auto_map",
    "hidden_size",
    "intermediate_size",
    "embedding_size",
    "vocab_size",
    "type_vocab_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "num_layers",
    "num_decoder_layers",
    "num_encoder_layers",
    "num_heads",
    "head_dim",
    "num_labels",
    "id2label",
    "label2id",
    "problem_type",
    "max_position_embeddings",
    "position_embedding_type",
    "n_embd",
    "n_layer",
    "n_head",
    "n_positions",
    "n_ctx",
    "n_inner",
    "d_model",
    "d_ff",
    "d_kv",
    "d_inner",
    "dim",
    "hidden_dim",
    "n_layers",
    "n_heads",
    "hidden_act",
    "activation",
    "activation_function",
    "feed_forward_proj",
    "tie_word_embeddings",
    "is_encoder_decoder",
    "is_decoder",
    "add_cross_attention",
    "quantization_config",
    "image_size",
    "patch_size",
    "num_channels",
    "projection_dim",
    "r",
    "target_modules",
    "peft_type",
    "base_model_name_or_path",
];

/// The bump for a key of `config.json`, by the names on its path: `vision_config.hidden_size` is of structure, and so
/// is every entry of `id2label`.
fn of_key(path: &str) -> Bump {
    let parts = || path.split('.');
    if parts().any(|p| STRUCTURE.contains(&p)) {
        Bump::Major
    } else if parts().any(|p| REMARKS.contains(&p) || p.contains("dropout") || p.contains("pdrop")) {
        Bump::Patch
    } else {
        Bump::Minor
    }
}

/// Every reason there is, what weighs most first.
pub(super) fn reasons(diff: &ModelDiff) -> Vec<Reason> {
    let mut out = Vec::new();
    let mut push = |bump, text: String| out.push(Reason { bump, text });
    let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });

    let weights = &diff.weights;
    let reshaped = weights.reshaped().count();
    if !weights.added.is_empty() {
        push(Bump::Major, format!("{} added", plural(weights.added.len(), "tensor")));
    }
    if !weights.removed.is_empty() {
        push(Bump::Major, format!("{} removed", plural(weights.removed.len(), "tensor")));
    }
    if reshaped > 0 {
        push(Bump::Major, format!("the shape of {} changed", plural(reshaped, "tensor")));
    }
    if weights.changed.len() > reshaped {
        push(Bump::Minor, format!("{} changed", plural(weights.changed.len() - reshaped, "tensor")));
    }

    if !weights.other_bits.is_empty() {
        let number = plural(weights.other_bits.len(), "tensor");
        push(Bump::Patch, format!("{number} changed in bits and not in numbers"));
    }
    if !weights.other.is_empty() {
        push(Bump::Patch, "what is beside the tensors changed in the weights' files".to_owned());
    }

    for config in &diff.configs {
        for bump in [Bump::Major, Bump::Minor, Bump::Patch] {
            // Only the model's own config has structure; others, of generation say, only change what comes out.
            let of = |path: &str| match (&*config.file, of_key(path)) {
                ("config.json" | "adapter_config.json" | "model_index.json" | "modules.json", bump) => bump,
                (_, Bump::Patch) => Bump::Patch,
                _ => Bump::Minor,
            };
            let keys: Vec<_> = config.paths().filter(|p| of(p) == bump).collect();
            if let Some(first) = keys.first() {
                let more =
                    if keys.len() > 1 { format!(" and {} more", keys.len() - 1) } else { String::new() };
                push(bump, format!("{}: {}{more}", config.file, crate::markdown::plain(first, 80)));
            }
        }
    }

    let tokenizer = &diff.tokenizer;
    if let Some(vocabulary) = tokenizer.vocabulary.as_ref().filter(|v| !v.is_equal()) {
        let (added, removed, moved) = (vocabulary.added.0, vocabulary.removed.0, vocabulary.moved.0);
        push(
            Bump::Major,
            format!("the vocabulary: {added} tokens added, {removed} removed, {moved} with another id"),
        );
    }
    for part in &tokenizer.parts {
        // These two are settings, which callers change as well; the others decide what a text is cut into.
        let setting = matches!(&**part, "truncation" | "padding");
        let bump = if setting { Bump::Minor } else { Bump::Major };
        push(bump, format!("tokenizer.json: {} changed", crate::markdown::plain(part, 80)));
    }
    for config in &tokenizer.configs {
        push(Bump::Minor, format!("{} differs", config.file));
    }
    for name in tokenizer.files.names() {
        // Where the vocabulary itself was read on both sides, it has been judged; else the file speaks for it.
        let read = tokenizer.vocabulary.is_some() && !name.ends_with("merges.txt");
        let settings = name.starts_with("chat_template");
        push(if settings || read { Bump::Minor } else { Bump::Major }, format!("{name} differs"));
    }

    for name in diff.files.names() {
        let computes = is_weights_name(name) || name.ends_with(".py") || name.ends_with("/config.json");
        // The same tensors in other files are the same model.
        let moved = weights.not_compared.is_none()
            && is_weights_name(name)
            && !diff.files.changed.iter().any(|n| n == name);
        push(if computes && !moved { Bump::Minor } else { Bump::Patch }, format!("{name} differs"));
    }
    out.sort_by_key(|r| std::cmp::Reverse(r.bump));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_of_structure_of_outputs_or_remarks() {
        for (path, bump) in [
            ("hidden_size", Bump::Major),
            ("vision_config.hidden_size", Bump::Major),
            ("id2label.3", Bump::Major),
            ("rope_theta", Bump::Minor),
            ("layer_norm_eps", Bump::Minor),
            ("transformers_version", Bump::Patch),
            ("attention_probs_dropout_prob", Bump::Patch),
            ("text_config.torch_dtype", Bump::Patch),
        ] {
            assert_eq!(of_key(path), bump, "{path}");
        }
    }
}
