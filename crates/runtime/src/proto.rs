//! ONNX's `TensorProto` and arrays, one made of the other.

use weighbridge_formats::backends::onnx::proto::{DataLocation, DataType, TensorProto};
use weighbridge_formats::{DType, Error, Result, TensorInfo};

use crate::array::Array;

/// The array in a message that holds its elements itself, in whichever of its fields.
///
/// # Errors
/// `Unsupported` for text and for elements in another file; `Malformed` where the elements are not as many as the
/// sizes say.
pub fn to_array(tensor: &TensorProto) -> Result<Array> {
    let name = tensor.name.as_deref().unwrap_or_default();
    convert(tensor).map_err(|e| e.with_format("onnx").with_tensor(name))
}

fn convert(tensor: &TensorProto) -> Result<Array> {
    if tensor.data_location == Some(DataLocation::External as i32) {
        return Err(Error::unsupported("the elements are in another file, and the model is no file"));
    }
    let number = tensor.data_type.unwrap_or(0);
    let dtype = DataType::try_from(number).ok().and_then(DataType::dtype);
    let Some(dtype) = dtype else {
        let what =
            if number == DataType::String as i32 { "text".into() } else { format!("data type {number}") };
        return Err(Error::unsupported(format!("a tensor of {what}")));
    };
    let sizes =
        tensor.dims.iter().map(|&d| u64::try_from(d).map_err(|_| Error::malformed(format!("a size of {d}"))));
    let shape: Vec<u64> = sizes.collect::<Result<_>>()?;
    let info = TensorInfo::new("tensor", dtype, shape.as_slice())?;
    if let Some(raw) = &tensor.raw_data {
        return Array::new(dtype, shape, raw.clone());
    }
    let elements = info.elements();
    let check = |found: usize, wanted: u64| {
        if found as u64 == wanted {
            Ok(())
        } else {
            Err(Error::malformed(format!("{found} elements for shape {shape:?} of {dtype}")))
        }
    };
    let bytes: Vec<u8> = match dtype {
        DType::F32 => {
            check(tensor.float_data.len(), elements)?;
            tensor.float_data.iter().flat_map(|x| x.to_le_bytes()).collect()
        }
        DType::C64 => {
            check(tensor.float_data.len(), elements.saturating_mul(2))?;
            tensor.float_data.iter().flat_map(|x| x.to_le_bytes()).collect()
        }
        DType::F64 => {
            check(tensor.double_data.len(), elements)?;
            tensor.double_data.iter().flat_map(|x| x.to_le_bytes()).collect()
        }
        DType::C128 => {
            check(tensor.double_data.len(), elements.saturating_mul(2))?;
            tensor.double_data.iter().flat_map(|x| x.to_le_bytes()).collect()
        }
        DType::I64 => {
            check(tensor.int64_data.len(), elements)?;
            tensor.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect()
        }
        DType::U64 => {
            check(tensor.uint64_data.len(), elements)?;
            tensor.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect()
        }
        DType::U32 => {
            check(tensor.uint64_data.len(), elements)?;
            tensor.uint64_data.iter().flat_map(|&x| (x as u32).to_le_bytes()).collect()
        }
        _ => {
            // Narrow types: an element a number, or what fills a byte where several share one.
            let numbers = if dtype.bits() < 8 { info.bytes() } else { elements };
            check(tensor.int32_data.len(), numbers)?;
            let width = dtype.size().unwrap_or(1) as usize;
            tensor.int32_data.iter().flat_map(|x| x.to_le_bytes().into_iter().take(width)).collect()
        }
    };
    Array::new(dtype, shape, bytes)
}

/// The message of an array, with its elements as raw bytes.
///
/// # Errors
/// `Unsupported` for a dtype that ONNX lacks.
pub fn from_array(name: &str, array: &Array) -> Result<TensorProto> {
    array.elements()?;
    let Some(kind) = DataType::from_dtype(array.dtype) else {
        return Err(Error::unsupported(format!("ONNX has no type for {}", array.dtype)).with_tensor(name));
    };
    Ok(TensorProto {
        name: Some(name.to_owned()),
        dims: array.shape.iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect(),
        data_type: Some(kind as i32),
        raw_data: Some(array.bytes.clone()),
        ..TensorProto::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_come_back_from_messages() {
        for array in [
            Array::of([2, 2], &[1.0f32, -2.0, 3.5, 0.0]).unwrap(),
            Array::of([], &[7i64]).unwrap(),
            Array::new(DType::I4, [3], vec![0x21, 0x03]).unwrap(),
        ] {
            assert_eq!(to_array(&from_array("x", &array).unwrap()).unwrap(), array);
        }
    }

    #[test]
    fn typed_fields_are_read_and_counted() {
        let half = TensorProto {
            dims: vec![2],
            data_type: Some(DataType::Float16 as i32),
            int32_data: vec![0x3c00, 0xc000],
            ..TensorProto::default()
        };
        let array = to_array(&half).unwrap();
        assert_eq!(array.to_f64().unwrap(), [1.0, -2.0]);
        let short = TensorProto { dims: vec![3], ..half.clone() };
        assert!(to_array(&short).unwrap_err().message().contains("2 elements"));
        assert!(to_array(&TensorProto { dims: vec![-1], ..half.clone() }).is_err());
        assert!(to_array(&TensorProto { data_type: Some(8), ..half.clone() }).is_err());
        assert!(to_array(&TensorProto { data_location: Some(1), ..half }).is_err());
    }
}
