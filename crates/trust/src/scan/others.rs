//! The inspectors of what is no pickle and no container of such.

use super::inspectors::Inspector;
use super::{gguf, hdf5, huggingface, onnx, safetensors, settings, tensorflow, xml};

/// Formats by their marks first, files of a model's folder by their names behind them.
pub(super) static OTHERS: &[Inspector] = &[
    Inspector { kind: "hdf5", fits: hdf5::fits, inspect: hdf5::inspect, claims: true },
    Inspector { kind: "tensorflow", fits: tensorflow::fits, inspect: tensorflow::inspect, claims: true },
    Inspector {
        kind: "tflite",
        fits: tensorflow::lite::fits,
        inspect: tensorflow::lite::inspect,
        claims: true,
    },
    Inspector { kind: "onnx", fits: onnx::fits, inspect: onnx::inspect, claims: true },
    Inspector { kind: "gguf", fits: gguf::fits, inspect: gguf::inspect, claims: true },
    Inspector { kind: "safetensors", fits: safetensors::fits, inspect: safetensors::inspect, claims: true },
    Inspector {
        kind: "json",
        fits: huggingface::fits_json,
        inspect: huggingface::inspect_json,
        claims: true,
    },
    Inspector { kind: "yaml", fits: settings::fits_yaml, inspect: settings::inspect_yaml, claims: true },
    Inspector {
        kind: "triton",
        fits: settings::fits_triton,
        inspect: settings::inspect_triton,
        claims: false,
    },
    Inspector { kind: "xml", fits: xml::fits, inspect: xml::inspect, claims: false },
    Inspector {
        kind: "template",
        fits: huggingface::fits_template,
        inspect: huggingface::inspect_template,
        claims: true,
    },
    Inspector {
        kind: "code",
        fits: huggingface::fits_code,
        inspect: huggingface::inspect_code,
        claims: true,
    },
];
