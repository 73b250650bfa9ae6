//! BERT, and RoBERTa with those that share its layers.

use super::Build;

/// The classes `Bert…`.
pub(super) fn bert(build: &mut Build<'_>, head: &str) -> Option<()> {
    let at = if head == "Model" { "" } else { "bert." };
    let pooler = matches!(head, "Model" | "ForPreTraining" | "ForSequenceClassification");
    let (hidden, vocab) = encoder(build, at, pooler)?;
    match head {
        "Model" => {}
        "ForMaskedLM" | "ForPreTraining" => {
            build.linear("cls.predictions.transform.dense", hidden, hidden);
            build.norm("cls.predictions.transform.LayerNorm", hidden);
            build.tensor("cls.predictions.bias", &[vocab]);
            build.linear("cls.predictions.decoder", vocab, hidden);
            if build.option("tie_word_embeddings", true)? {
                build.tie("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight");
                build.tie("cls.predictions.decoder.bias", "cls.predictions.bias");
            }
            if head == "ForPreTraining" {
                build.linear("cls.seq_relationship", 2, hidden);
            }
        }
        "ForSequenceClassification" | "ForTokenClassification" => {
            build.linear("classifier", build.labels(), hidden);
        }
        "ForQuestionAnswering" => build.linear("qa_outputs", build.labels(), hidden),
        _ => return None,
    }
    Some(())
}

/// The classes `Roberta…`, `XLMRoberta…` and `Camembert…`, whose encoder is always `roberta`.
pub(super) fn roberta(build: &mut Build<'_>, head: &str) -> Option<()> {
    let at = if head == "Model" { "" } else { "roberta." };
    let (hidden, vocab) = encoder(build, at, head == "Model")?;
    match head {
        "Model" => {}
        "ForMaskedLM" => {
            build.linear("lm_head.dense", hidden, hidden);
            build.norm("lm_head.layer_norm", hidden);
            build.tensor("lm_head.bias", &[vocab]);
            build.linear("lm_head.decoder", vocab, hidden);
            if build.option("tie_word_embeddings", true)? {
                build.tie("lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight");
                build.tie("lm_head.decoder.bias", "lm_head.bias");
            }
        }
        "ForSequenceClassification" => {
            build.linear("classifier.dense", hidden, hidden);
            build.linear("classifier.out_proj", build.labels(), hidden);
        }
        "ForTokenClassification" => build.linear("classifier", build.labels(), hidden),
        "ForQuestionAnswering" => build.linear("qa_outputs", build.labels(), hidden),
        _ => return None,
    }
    Some(())
}

/// Embeddings, layers and pooler; returns the hidden size and the size of the vocabulary.
fn encoder(build: &mut Build<'_>, at: &str, pooler: bool) -> Option<(u64, u64)> {
    // Relative positions and cross-attention bring tensors of their own.
    let positions = build.config.str("position_embedding_type").unwrap_or("absolute");
    if positions != "absolute" || build.option("add_cross_attention", false)? {
        return None;
    }
    let (hidden, inner) = (build.size("hidden_size")?, build.size("intermediate_size")?);
    let vocab = build.size("vocab_size")?;
    let embeddings = format!("{at}embeddings");
    build.tensor(format!("{embeddings}.word_embeddings.weight"), &[vocab, hidden]);
    let positions = build.size("max_position_embeddings")?;
    build.tensor(format!("{embeddings}.position_embeddings.weight"), &[positions, hidden]);
    let types = build.size("type_vocab_size")?;
    build.tensor(format!("{embeddings}.token_type_embeddings.weight"), &[types, hidden]);
    build.norm(&format!("{embeddings}.LayerNorm"), hidden);
    build.perhaps(format!("{embeddings}.position_ids"));
    build.perhaps(format!("{embeddings}.token_type_ids"));
    for i in 0..build.layers("num_hidden_layers")? {
        let layer = format!("{at}encoder.layer.{i}");
        for part in ["query", "key", "value"] {
            build.linear(&format!("{layer}.attention.self.{part}"), hidden, hidden);
        }
        build.linear(&format!("{layer}.attention.output.dense"), hidden, hidden);
        build.norm(&format!("{layer}.attention.output.LayerNorm"), hidden);
        build.linear(&format!("{layer}.intermediate.dense"), inner, hidden);
        build.linear(&format!("{layer}.output.dense"), hidden, inner);
        build.norm(&format!("{layer}.output.LayerNorm"), hidden);
    }
    if pooler {
        build.linear(&format!("{at}pooler.dense"), hidden, hidden);
    }
    Some((hidden, vocab))
}
