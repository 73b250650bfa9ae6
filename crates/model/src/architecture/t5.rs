//! T5, with plain and with gated feed-forward layers.

use super::Build;

/// The classes `T5…`.
pub(super) fn t5(build: &mut Build<'_>, head: &str) -> Option<()> {
    let (model, vocab) = (build.size("d_model")?, build.size("vocab_size")?);
    let layers = build.layers("num_layers")?;
    build.tensor("shared.weight", &[vocab, model]);
    stack(build, "encoder", layers)?;
    match head {
        "EncoderModel" => return Some(()),
        "Model" | "ForConditionalGeneration" => {}
        _ => return None,
    }
    let layers = match build.config.get("num_decoder_layers") {
        None | Some(serde_json::Value::Null) => layers,
        Some(_) => build.layers("num_decoder_layers")?,
    };
    stack(build, "decoder", layers)?;
    if head == "ForConditionalGeneration" {
        build.tensor("lm_head.weight", &[vocab, model]);
        if build.option("tie_word_embeddings", true)? {
            build.tie("lm_head.weight", "shared.weight");
        }
    }
    Some(())
}

/// The encoder or the decoder.
fn stack(build: &mut Build<'_>, name: &str, layers: u64) -> Option<()> {
    let (model, inner, vocab) = (build.size("d_model")?, build.size("d_ff")?, build.size("vocab_size")?);
    let (heads, buckets) = (build.size("num_heads")?, build.size("relative_attention_num_buckets")?);
    let attention = heads.checked_mul(build.size("d_kv")?)?;
    let gated = build.config.str("feed_forward_proj").unwrap_or("relu").starts_with("gated-");
    let decoder = name == "decoder";
    // The embeddings of both stacks are the shared ones, whatever the config says of the head's.
    build.tensor(format!("{name}.embed_tokens.weight"), &[vocab, model]);
    build.tie(&format!("{name}.embed_tokens.weight"), "shared.weight");
    for i in 0..layers {
        let block = format!("{name}.block.{i}");
        let kinds: &[&str] = if decoder { &["SelfAttention", "EncDecAttention"] } else { &["SelfAttention"] };
        for (j, kind) in kinds.iter().enumerate() {
            for part in ["q", "k", "v"] {
                build.tensor(format!("{block}.layer.{j}.{kind}.{part}.weight"), &[attention, model]);
            }
            build.tensor(format!("{block}.layer.{j}.{kind}.o.weight"), &[model, attention]);
            build.tensor(format!("{block}.layer.{j}.layer_norm.weight"), &[model]);
        }
        if i == 0 {
            let bias = "relative_attention_bias.weight";
            build.tensor(format!("{block}.layer.0.SelfAttention.{bias}"), &[buckets, heads]);
            if decoder {
                // The first checkpoints have one here too, which nothing uses.
                build.perhaps(format!("{block}.layer.1.EncDecAttention.{bias}"));
            }
        }
        let feed = format!("{block}.layer.{}", kinds.len());
        let inputs: &[&str] = if gated { &["wi_0", "wi_1"] } else { &["wi"] };
        for part in inputs {
            build.tensor(format!("{feed}.DenseReluDense.{part}.weight"), &[inner, model]);
        }
        build.tensor(format!("{feed}.DenseReluDense.wo.weight"), &[model, inner]);
        build.tensor(format!("{feed}.layer_norm.weight"), &[model]);
    }
    build.tensor(format!("{name}.final_layer_norm.weight"), &[model]);
    Some(())
}
