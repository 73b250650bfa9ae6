//! What a known architecture's weights are called, how large they are, and which of them are tied, from its config.
//!
//! A family is one file. What a config says that is not known here gives no expectation rather than a wrong one.
//! Source of the names and shapes: state dicts of transformers 5.23, which the tests compare.

mod bert;
mod distilbert;
mod gpt2;
mod llama;
mod t5;

use weighbridge_formats::transform::Tie;

use crate::config::Config;
use crate::report::Expected;

/// The most layers that a config may ask for; a file's word decides how many names are made.
const MAX_LAYERS: u64 = 2048;

/// A known architecture with a config's numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Architecture {
    /// The tensors.
    pub expected: Expected,
    /// The names that stand for another tensor: what transformers ties after loading.
    pub ties: Vec<Tie>,
}

/// The architecture of a config, by its `model_type` and the first of its `architectures`; `None` where that is not
/// known, or an option is.
///
/// Known are the classes of BERT, RoBERTa, XLM-R, CamemBERT, DistilBERT, GPT-2, Llama, Mistral, Qwen2 and T5 with
/// the heads of [`KNOWN_CLASSES`].
pub fn architecture(config: &Config) -> Option<Architecture> {
    let class = *config.architectures().first()?;
    let mut build = Build { config, found: Architecture::default() };
    match config.model_type()? {
        "bert" => bert::bert(&mut build, class.strip_prefix("Bert")?)?,
        "roberta" => bert::roberta(&mut build, class.strip_prefix("Roberta")?)?,
        "xlm-roberta" => bert::roberta(&mut build, class.strip_prefix("XLMRoberta")?)?,
        "camembert" => bert::roberta(&mut build, class.strip_prefix("Camembert")?)?,
        "distilbert" => distilbert::distilbert(&mut build, class.strip_prefix("DistilBert")?)?,
        "gpt2" => gpt2::gpt2(&mut build, class.strip_prefix("GPT2")?)?,
        "llama" => llama::llama(&mut build, class.strip_prefix("Llama")?, false)?,
        "mistral" => llama::llama(&mut build, class.strip_prefix("Mistral")?, false)?,
        "qwen2" => llama::llama(&mut build, class.strip_prefix("Qwen2")?, true)?,
        "t5" => t5::t5(&mut build, class.strip_prefix("T5")?)?,
        _ => return None,
    }
    Some(build.found)
}

/// The known classes of each family, without its name: `Bert` and `ForMaskedLM` are `BertForMaskedLM`.
pub const KNOWN_CLASSES: &[(&str, &[&str])] = &[
    (
        "Bert",
        &[
            "Model",
            "ForMaskedLM",
            "ForPreTraining",
            "ForSequenceClassification",
            "ForTokenClassification",
            "ForQuestionAnswering",
        ],
    ),
    ("Roberta, XLMRoberta, Camembert", ENCODER_HEADS),
    ("DistilBert", ENCODER_HEADS),
    ("GPT2", &["Model", "LMHeadModel", "ForSequenceClassification"]),
    ("Llama, Mistral, Qwen2", &["Model", "ForCausalLM", "ForSequenceClassification"]),
    ("T5", &["Model", "ForConditionalGeneration", "EncoderModel"]),
];

const ENCODER_HEADS: &[&str] =
    &["Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"];

/// An architecture in the making.
struct Build<'c> {
    config: &'c Config,
    found: Architecture,
}

impl Build<'_> {
    /// A size that the config states.
    fn size(&self, key: &str) -> Option<u64> {
        self.config.u64(key).filter(|&n| n > 0)
    }

    /// A number of layers.
    fn layers(&self, key: &str) -> Option<u64> {
        self.config.u64(key).filter(|&n| n <= MAX_LAYERS)
    }

    /// An option, or what the architecture has where the config is silent. Not a boolean: not known.
    fn option(&self, key: &str, default: bool) -> Option<bool> {
        match self.config.get(key) {
            None | Some(serde_json::Value::Null) => Some(default),
            Some(value) => value.as_bool(),
        }
    }

    /// The number of labels of a classifier: of `id2label`, else `num_labels`, else 2.
    fn labels(&self) -> u64 {
        let listed = self.config.get("id2label").and_then(|v| v.as_object()).map(|o| o.len() as u64);
        listed.or_else(|| self.config.u64("num_labels")).unwrap_or(2)
    }

    /// A tensor of any dtype.
    fn tensor(&mut self, name: impl Into<String>, shape: &[u64]) {
        self.found.expected.insert(name, None, Some(shape.into()));
    }

    /// A tensor that older versions saved and newer compute.
    fn perhaps(&mut self, name: impl Into<String>) {
        self.found.expected.insert_optional(name, None, None);
    }

    /// A linear layer: its weight of `[out, in]`, and its bias.
    fn linear(&mut self, name: &str, out: u64, input: u64) {
        self.tensor(format!("{name}.weight"), &[out, input]);
        self.tensor(format!("{name}.bias"), &[out]);
    }

    /// A norm with weight and bias.
    fn norm(&mut self, name: &str, size: u64) {
        self.tensor(format!("{name}.weight"), &[size]);
        self.tensor(format!("{name}.bias"), &[size]);
    }

    /// A name that is tied to another, unless the config unties the embeddings.
    fn tie(&mut self, alias: &str, tensor: &str) {
        self.found.ties.push(Tie { alias: alias.into(), tensor: tensor.into() });
    }
}
