//! Llama, and Mistral and Qwen2, which differ from it in biases.

use super::Build;

/// The classes `Llama…`, `Mistral…` and `Qwen2…`; `qwen` has biases on query, key and value alone.
pub(super) fn llama(build: &mut Build<'_>, head: &str, qwen: bool) -> Option<()> {
    let at = if head == "Model" { "" } else { "model." };
    let (hidden, inner, vocab) =
        (build.size("hidden_size")?, build.size("intermediate_size")?, build.size("vocab_size")?);
    let heads = build.size("num_attention_heads")?;
    let shared = build.size("num_key_value_heads").unwrap_or(heads);
    let head_dim = match build.size("head_dim") {
        Some(dim) => dim,
        None => hidden / heads,
    };
    let (query, key) = (heads.checked_mul(head_dim)?, shared.checked_mul(head_dim)?);
    let (bias, mlp_bias) = (build.option("attention_bias", false)?, build.option("mlp_bias", false)?);
    build.tensor(format!("{at}embed_tokens.weight"), &[vocab, hidden]);
    for i in 0..build.layers("num_hidden_layers")? {
        let layer = format!("{at}layers.{i}");
        for (part, size) in [("q_proj", query), ("k_proj", key), ("v_proj", key)] {
            build.tensor(format!("{layer}.self_attn.{part}.weight"), &[size, hidden]);
            if bias || qwen {
                build.tensor(format!("{layer}.self_attn.{part}.bias"), &[size]);
            }
        }
        build.tensor(format!("{layer}.self_attn.o_proj.weight"), &[hidden, query]);
        if bias && !qwen {
            build.tensor(format!("{layer}.self_attn.o_proj.bias"), &[hidden]);
        }
        build.perhaps(format!("{layer}.self_attn.rotary_emb.inv_freq"));
        for (part, out, input) in
            [("gate_proj", inner, hidden), ("up_proj", inner, hidden), ("down_proj", hidden, inner)]
        {
            build.tensor(format!("{layer}.mlp.{part}.weight"), &[out, input]);
            if mlp_bias {
                build.tensor(format!("{layer}.mlp.{part}.bias"), &[out]);
            }
        }
        build.tensor(format!("{layer}.input_layernorm.weight"), &[hidden]);
        build.tensor(format!("{layer}.post_attention_layernorm.weight"), &[hidden]);
    }
    build.tensor(format!("{at}norm.weight"), &[hidden]);
    match head {
        "Model" => {}
        "ForCausalLM" => {
            build.tensor("lm_head.weight", &[vocab, hidden]);
            if build.option("tie_word_embeddings", false)? {
                build.tie("lm_head.weight", "model.embed_tokens.weight");
            }
        }
        "ForSequenceClassification" => build.tensor("score.weight", &[build.labels(), hidden]),
        _ => return None,
    }
    Some(())
}
