//! DistilBERT.

use super::Build;

/// The classes `DistilBert…`.
pub(super) fn distilbert(build: &mut Build<'_>, head: &str) -> Option<()> {
    let at = if head == "Model" { "" } else { "distilbert." };
    let (dim, inner) = (build.size("dim")?, build.size("hidden_dim")?);
    let (vocab, positions) = (build.size("vocab_size")?, build.size("max_position_embeddings")?);
    build.tensor(format!("{at}embeddings.word_embeddings.weight"), &[vocab, dim]);
    build.tensor(format!("{at}embeddings.position_embeddings.weight"), &[positions, dim]);
    build.norm(&format!("{at}embeddings.LayerNorm"), dim);
    build.perhaps(format!("{at}embeddings.position_ids"));
    for i in 0..build.layers("n_layers")? {
        let layer = format!("{at}transformer.layer.{i}");
        for part in ["q_lin", "k_lin", "v_lin", "out_lin"] {
            build.linear(&format!("{layer}.attention.{part}"), dim, dim);
        }
        build.norm(&format!("{layer}.sa_layer_norm"), dim);
        build.linear(&format!("{layer}.ffn.lin1"), inner, dim);
        build.linear(&format!("{layer}.ffn.lin2"), dim, inner);
        build.norm(&format!("{layer}.output_layer_norm"), dim);
    }
    match head {
        "Model" => {}
        "ForMaskedLM" => {
            build.linear("vocab_transform", dim, dim);
            build.norm("vocab_layer_norm", dim);
            build.linear("vocab_projector", vocab, dim);
            if build.option("tie_word_embeddings", true)? {
                build.tie("vocab_projector.weight", "distilbert.embeddings.word_embeddings.weight");
            }
        }
        "ForSequenceClassification" => {
            build.linear("pre_classifier", dim, dim);
            build.linear("classifier", build.labels(), dim);
        }
        "ForTokenClassification" => build.linear("classifier", build.labels(), dim),
        "ForQuestionAnswering" => build.linear("qa_outputs", build.labels(), dim),
        _ => return None,
    }
    Some(())
}
