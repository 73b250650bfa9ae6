//! One module a format. What describes a format is always compiled; what reads and writes it hangs on its feature.

pub mod joblib;
pub mod onnx;
pub mod pickle;
pub mod safetensors;
pub mod torch;
