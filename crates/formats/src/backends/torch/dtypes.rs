//! The names that torch's pickles use for element types.
//!
//! Source: torch 2.13, `torch/_utils.py`, `torch/storage.py` and the pickles that it writes.

use crate::dtype::DType;

/// Storage classes of the module `torch`, and the dtype of their elements. Quantized storages hold plain
/// integers; their scale stands beside them.
const STORAGES: &[(&str, DType)] = &[
    ("FloatStorage", DType::F32),
    ("HalfStorage", DType::F16),
    ("BFloat16Storage", DType::Bf16),
    ("DoubleStorage", DType::F64),
    ("LongStorage", DType::I64),
    ("IntStorage", DType::I32),
    ("ShortStorage", DType::I16),
    ("CharStorage", DType::I8),
    ("ByteStorage", DType::U8),
    ("BoolStorage", DType::Bool),
    ("ComplexFloatStorage", DType::C64),
    ("ComplexDoubleStorage", DType::C128),
    ("QInt8Storage", DType::I8),
    ("QUInt8Storage", DType::U8),
    ("QInt32Storage", DType::I32),
    ("QUInt4x2Storage", DType::U8),
    ("QUInt2x4Storage", DType::U8),
];

/// Classes that Python's torch does not have, and that libtorch's own pickler (TorchScript, `torch::save`) names after
/// its scalar types (`c10/core/ScalarType.h`).
const NATIVE: &[(&str, DType)] = &[
    ("ComplexHalfStorage", DType::C32),
    ("UInt16Storage", DType::U16),
    ("UInt32Storage", DType::U32),
    ("UInt64Storage", DType::U64),
    ("Float8_e5m2Storage", DType::F8E5M2),
    ("Float8_e4m3fnStorage", DType::F8E4M3),
    ("Float8_e5m2fnuzStorage", DType::F8E5M2Fnuz),
    ("Float8_e4m3fnuzStorage", DType::F8E4M3Fnuz),
    ("Float8_e8m0fnuStorage", DType::F8E8M0),
];

/// What a storage class says of its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StorageClass {
    /// Elements of one dtype.
    Typed(DType),
    /// Bytes; only the tensors have a dtype.
    Untyped,
    /// Several quantized elements to a byte: how many.
    Packed(u64),
}

/// The storage class of a global, by module and name.
pub(super) fn storage_class(module: &str, name: &str) -> Option<StorageClass> {
    match (module, name) {
        ("torch.storage" | "torch", "UntypedStorage" | "_UntypedStorage") => Some(StorageClass::Untyped),
        ("torch", "QUInt4x2Storage") => Some(StorageClass::Packed(2)),
        ("torch", "QUInt2x4Storage") => Some(StorageClass::Packed(4)),
        ("torch" | "torch.cuda", _) => {
            STORAGES.iter().chain(NATIVE).find(|(n, _)| *n == name).map(|&(_, d)| StorageClass::Typed(d))
        }
        _ => None,
    }
}

/// The storage class to write for a dtype; `None` for those that torch writes untyped, by
/// `_rebuild_tensor_v3`.
pub(super) fn class_of(dtype: DType) -> Option<&'static str> {
    STORAGES.iter().find(|(_, d)| *d == dtype).map(|&(n, _)| n)
}

/// The dtype of a global such as `torch.float16`, with the elements that one of torch's elements stands for.
pub(super) fn dtype_named(name: &str) -> Option<(DType, u64)> {
    let dtype = match name {
        "float4_e2m1fn_x2" => return Some((DType::F4, 2)),
        "half" => DType::F16,
        "float" => DType::F32,
        "double" => DType::F64,
        "bits8" | "bits1x8" | "bits2x4" | "bits4x2" => DType::Bits8,
        "qint8" => DType::I8,
        "quint8" => DType::U8,
        "qint32" => DType::I32,
        "chalf" => DType::C32,
        "cfloat" => DType::C64,
        "cdouble" => DType::C128,
        _ => return DType::ALL.iter().find(|d| d.torch_name() == name && !name.is_empty()).map(|&d| (d, 1)),
    };
    Some((dtype, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_torch_dtype_is_typed_or_named() {
        for &dtype in DType::ALL.iter().filter(|d| !d.torch_name().is_empty()) {
            assert_eq!(dtype_named(dtype.torch_name()).map(|(d, _)| d), Some(dtype));
            if let Some(class) = class_of(dtype) {
                assert_eq!(storage_class("torch", class), Some(StorageClass::Typed(dtype)));
            }
        }
        assert_eq!(class_of(DType::U16), None);
        assert_eq!(storage_class("torch", "UInt16Storage"), Some(StorageClass::Typed(DType::U16)));
        assert_eq!(storage_class("os", "FloatStorage"), None);
    }
}
