//! Names of tensors: what training wraps around a model, and which of several tied names is stored.

use regex::Regex;
use weighbridge_formats::transform::{Rename, StripPrefix, Tie};
use weighbridge_formats::{Archive, Result};

/// What wrappers put between the names of modules, at any depth: torch.compile, FSDP, and activation
/// checkpointing. Source: `torch/_dynamo/eval_frame.py`, `torch/distributed/fsdp` and
/// `torch/distributed/algorithms/_checkpoint/checkpoint_wrapper.py` of torch 2.13.
const INNER: &[&str] = &["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."];
/// What DataParallel and DistributedDataParallel put before every name.
const OUTER: &str = "module.";

/// Takes off what training wraps around a model; the archive as it is where there is nothing to take off.
///
/// # Errors
/// `InvalidOptions` if two tensors would have the same name then.
pub(crate) fn unwrapped<'a>(mut archive: Box<dyn Archive + 'a>) -> Result<Box<dyn Archive + 'a>> {
    let wrapped = |name: &str| {
        INNER.iter().any(|w| name.match_indices(w).any(|(at, _)| at == 0 || name[..at].ends_with('.')))
    };
    // Wrappers nest in any order: each round takes off at least one prefix of every name, or is the last.
    loop {
        if archive.tensors().iter().any(|t| wrapped(t.name())) {
            let names: Vec<String> = INNER.iter().map(|name| regex::escape(name)).collect();
            let Ok(expression) = Regex::new(&format!(r"(^|\.)(?:{})+", names.join("|"))) else {
                return Ok(archive);
            };
            archive = Box::new(Rename::new(archive, [(expression, "$1".to_owned())])?);
        } else if !archive.tensors().is_empty()
            && archive.tensors().iter().all(|t| t.name().strip_prefix(OUTER).is_some_and(|n| !n.is_empty()))
        {
            archive = Box::new(StripPrefix::new(archive, OUTER)?);
        } else {
            return Ok(archive);
        }
    }
}

/// Which of several tied names is to be stored, the lowest first: those that others are tied to by the
/// architecture; then embeddings, which transformers loads a tied head from; then all but the heads.
pub(crate) fn rank(name: &str, ties: &[Tie]) -> u32 {
    if ties.iter().any(|t| t.alias == name) {
        return 3;
    }
    if ties.iter().any(|t| t.tensor == name) {
        return 0;
    }
    let lower = name.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| lower.contains(w));
    if has(&["lm_head", "decoder.weight", "decoder.bias", "projector", "output_layer", "embed_out"]) {
        3
    } else if has(&["shared.weight"]) {
        1
    } else if has(&["encoder.embed", "decoder.embed"]) {
        2
    } else if has(&["embed", "wte."]) {
        1
    } else {
        2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge_formats::{DType, Data, MemoryArchive, Tensor};

    fn names(names: &[&str]) -> Result<Vec<String>> {
        let tensor = |n: &&str| Tensor::new(*n, DType::U8, [1].as_slice(), Data::Borrowed(&[0])).unwrap();
        let archive = MemoryArchive::new(names.iter().map(tensor)).unwrap();
        let unwrapped = unwrapped(Box::new(archive))?;
        Ok(unwrapped.tensors().iter().map(|t| t.name().to_owned()).collect())
    }

    #[test]
    fn wrappers_are_taken_off_in_any_order() {
        for wrapped in [
            ["module.a.w", "module.b"],
            ["_orig_mod.module.a.w", "_orig_mod.module.b"],
            ["module._orig_mod.a.w", "module._orig_mod.b"],
            ["_orig_mod._orig_mod.a._orig_mod._orig_mod.w", "_orig_mod.b"],
            ["_fsdp_wrapped_module.a._fsdp_wrapped_module._checkpoint_wrapped_module.w", "b"],
        ] {
            assert_eq!(names(&wrapped).unwrap(), ["a.w", "b"], "{wrapped:?}");
        }
    }

    #[test]
    fn what_is_no_wrapper_stays() {
        for plain in
            [["module.a", "b"], ["a.module.w", "module.b"], ["my_orig_mod.w", "x"], ["module.", "module.b"]]
        {
            assert_eq!(names(&plain).unwrap(), plain);
        }
        assert!(names(&["_orig_mod.a", "a"]).is_err(), "two tensors of one name");
    }

    #[test]
    fn embeddings_are_stored_and_heads_are_tied_to_them() {
        let best = |names: &[&str]| names.iter().min_by_key(|n| rank(n, &[])).unwrap().to_string();
        assert_eq!(best(&["lm_head.weight", "transformer.wte.weight"]), "transformer.wte.weight");
        assert_eq!(
            best(&[
                "decoder.embed_tokens.weight",
                "encoder.embed_tokens.weight",
                "lm_head.weight",
                "shared.weight"
            ]),
            "shared.weight"
        );
        assert_eq!(
            best(&["cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"]),
            "bert.embeddings.word_embeddings.weight"
        );
        assert_eq!(best(&["cls.predictions.decoder.bias", "cls.predictions.bias"]), "cls.predictions.bias");
        let ties = [Tie { alias: "embed".into(), tensor: "z".into() }];
        assert_eq!(["embed", "z"].iter().min_by_key(|n| rank(n, &ties)), Some(&"z"));
    }
}
