//! ONNX's data types and ours.

use super::proto::DataType;
use crate::dtype::DType;

/// Each data type of ONNX that a tensor here can have. `String` is no tensor: its elements have no width.
const TABLE: &[(DataType, DType)] = &[
    (DataType::Float, DType::F32),
    (DataType::Uint8, DType::U8),
    (DataType::Int8, DType::I8),
    (DataType::Uint16, DType::U16),
    (DataType::Int16, DType::I16),
    (DataType::Int32, DType::I32),
    (DataType::Int64, DType::I64),
    (DataType::Bool, DType::Bool),
    (DataType::Float16, DType::F16),
    (DataType::Double, DType::F64),
    (DataType::Uint32, DType::U32),
    (DataType::Uint64, DType::U64),
    (DataType::Complex64, DType::C64),
    (DataType::Complex128, DType::C128),
    (DataType::Bfloat16, DType::Bf16),
    (DataType::Float8e4m3fn, DType::F8E4M3),
    (DataType::Float8e4m3fnuz, DType::F8E4M3Fnuz),
    (DataType::Float8e5m2, DType::F8E5M2),
    (DataType::Float8e5m2fnuz, DType::F8E5M2Fnuz),
    (DataType::Uint4, DType::U4),
    (DataType::Int4, DType::I4),
    (DataType::Float4e2m1, DType::F4),
    (DataType::Float8e8m0, DType::F8E8M0),
    (DataType::Uint2, DType::U2),
    (DataType::Int2, DType::I2),
    (DataType::Float6e2m3, DType::F6E2M3),
    (DataType::Float6e3m2, DType::F6E3M2),
];

impl DataType {
    /// The dtype of this data type; `None` for `Undefined` and `String`.
    pub fn dtype(self) -> Option<DType> {
        TABLE.iter().find(|(d, _)| *d == self).map(|&(_, d)| d)
    }

    /// The data type of a dtype; `None` for the few that ONNX lacks.
    pub fn from_dtype(dtype: DType) -> Option<Self> {
        TABLE.iter().find(|(_, d)| *d == dtype).map(|&(d, _)| d)
    }

    /// The name that `onnx.proto` gives it, such as `FLOAT8E4M3FN`.
    pub fn name(self) -> String {
        format!("{self:?}").to_uppercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_one_to_one_and_complete() {
        for number in 0..=28 {
            let known = DataType::try_from(number).unwrap();
            assert_eq!(known.dtype().is_none(), matches!(known, DataType::Undefined | DataType::String));
            if let Some(dtype) = known.dtype() {
                assert_eq!(DataType::from_dtype(dtype), Some(known));
            }
        }
        assert!(DataType::try_from(29).is_err());
        assert_eq!(DataType::Float8e4m3fn.name(), "FLOAT8E4M3FN");
        assert_eq!(DataType::from_dtype(DType::Bits8), None);
    }
}
