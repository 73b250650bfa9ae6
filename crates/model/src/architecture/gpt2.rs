//! GPT-2, whose linear layers keep their weight as `[in, out]`.

use super::Build;

/// The classes `GPT2…`.
pub(super) fn gpt2(build: &mut Build<'_>, head: &str) -> Option<()> {
    if build.option("add_cross_attention", false)? {
        return None;
    }
    let at = if head == "Model" { "" } else { "transformer." };
    let embd = build.size("n_embd")?;
    let inner = match build.size("n_inner") {
        Some(inner) => inner,
        None => embd.checked_mul(4)?,
    };
    let (vocab, positions) = (build.size("vocab_size")?, build.size("n_positions")?);
    build.tensor(format!("{at}wte.weight"), &[vocab, embd]);
    build.tensor(format!("{at}wpe.weight"), &[positions, embd]);
    let three = embd.checked_mul(3)?;
    for i in 0..build.layers("n_layer")? {
        let block = format!("{at}h.{i}");
        build.norm(&format!("{block}.ln_1"), embd);
        build.norm(&format!("{block}.ln_2"), embd);
        let layers = [
            ("attn.c_attn", embd, three),
            ("attn.c_proj", embd, embd),
            ("mlp.c_fc", embd, inner),
            ("mlp.c_proj", inner, embd),
        ];
        for (name, input, out) in layers {
            build.tensor(format!("{block}.{name}.weight"), &[input, out]);
            build.tensor(format!("{block}.{name}.bias"), &[out]);
        }
        // The causal mask, which older versions saved.
        build.perhaps(format!("{block}.attn.bias"));
        build.perhaps(format!("{block}.attn.masked_bias"));
    }
    build.norm(&format!("{at}ln_f"), embd);
    match head {
        "Model" => {}
        "LMHeadModel" => {
            build.tensor("lm_head.weight", &[vocab, embd]);
            if build.option("tie_word_embeddings", true)? {
                build.tie("lm_head.weight", "transformer.wte.weight");
            }
        }
        "ForSequenceClassification" => build.tensor("score.weight", &[build.labels(), embd]),
        _ => return None,
    }
    Some(())
}
