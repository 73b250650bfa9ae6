//! Packages by their names: those that models are made of, and Python's own.

use super::report::Verdict;

/// Packages whose classes a model's folder may name.
pub(super) const LIBRARIES: &[&str] =
    &["diffusers", "transformers", "peft", "torch.nn", "sentence_transformers"];

/// Modules of `diffusers.pipelines`, which `model_index.json` may name in place of a package.
const PIPELINES: &[&str] = &[
    "animatediff",
    "audioldm",
    "audioldm2",
    "aura_flow",
    "blip_diffusion",
    "cogvideo",
    "controlnet",
    "deepfloyd_if",
    "flux",
    "hunyuandit",
    "i2vgen_xl",
    "kandinsky",
    "kandinsky2_2",
    "kandinsky3",
    "kolors",
    "latent_diffusion",
    "ltx",
    "lumina",
    "mochi",
    "musicldm",
    "paint_by_example",
    "pixart_alpha",
    "sana",
    "semantic_stable_diffusion",
    "shap_e",
    "spectrogram_diffusion",
    "stable_audio",
    "stable_cascade",
    "stable_diffusion",
    "stable_diffusion_3",
    "stable_diffusion_safe",
    "stable_diffusion_xl",
    "stable_video_diffusion",
    "text_to_video_synthesis",
    "unclip",
    "unidiffuser",
    "versatile_diffusion",
    "vq_diffusion",
    "wan",
    "wuerstchen",
];

/// Types of Python itself that hold values.
const PLAIN_TYPES: &[&str] = &[
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "set",
    "slice",
    "str",
    "tuple",
];

/// Whether a module is one of these, or a part of it.
pub(super) fn is_below(module: &str, roots: &[&str]) -> bool {
    let below =
        |root: &&str| module.strip_prefix(*root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    roots.iter().any(below)
}

/// Whether a name is that of a pipeline of diffusers.
pub(super) fn is_pipeline(name: &str) -> bool {
    PIPELINES.contains(&name)
}

/// Whether a name is a type of Python that holds values.
pub(super) fn is_plain_type(module: &str, class: &str) -> bool {
    module == "builtins" && PLAIN_TYPES.contains(&class)
        || module == "collections" && ["OrderedDict", "defaultdict"].contains(&class)
}

/// Whether a module belongs to Python's standard library.
pub(super) fn is_standard(module: &str) -> bool {
    super::pickle::stdlib::holds(module)
}

/// What a name from a package that is not known is: of the standard library it is no part of a model.
pub(super) fn foreign(module: &str) -> Verdict {
    if is_standard(module) { Verdict::Dangerous } else { Verdict::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_known_by_their_roots() {
        assert!(
            is_standard("os")
                && is_standard("os.path")
                && is_standard("builtins")
                && is_standard("__builtin__")
        );
        assert!(!is_standard("keras") && !is_standard("") && !is_standard("osx"));
        assert!(is_below("torch.nn.modules", &["torch.nn"]) && !is_below("torch.nnx", &["torch.nn"]));
        assert_eq!((foreign("subprocess"), foreign("mine")), (Verdict::Dangerous, Verdict::Unknown));
        assert!(is_plain_type("builtins", "dict") && !is_plain_type("builtins", "eval"));
        assert!(is_pipeline("stable_diffusion") && !is_pipeline("os"));
    }
}
