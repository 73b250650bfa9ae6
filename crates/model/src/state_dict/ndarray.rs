//! Arrays of the `ndarray` crate: a map of them, or a struct's fields.

use ::ndarray::{Array, Dimension};
use weighbridge_formats::{Data, Result, Shape, Tensor, TensorInfo};

use super::element::Element;
use super::{StateDict, TensorSource};

/// One tensor. Memory in standard layout is borrowed; another layout (transposed, sliced) is gathered into a copy.
impl<A: Element, D: Dimension> StateDict for Array<A, D> {
    fn tensors<'s>(&'s self, prefix: &str, visit: &mut dyn FnMut(Tensor<'s>) -> Result<()>) -> Result<()> {
        let data = match self.as_slice() {
            Some(elements) => match A::to_bytes(elements) {
                std::borrow::Cow::Borrowed(bytes) => Data::Borrowed(bytes),
                std::borrow::Cow::Owned(bytes) => Data::Owned(bytes.into()),
            },
            None => {
                let gathered: Vec<A> = self.iter().copied().collect();
                Data::Owned(A::to_bytes(&gathered).into())
            }
        };
        visit(Tensor::new(prefix, A::DTYPE, shape(self.shape()), data)?)
    }

    fn assign(&mut self, prefix: &str, source: &dyn TensorSource) -> Result<()> {
        let info = TensorInfo::new(prefix, A::DTYPE, shape(self.shape()))?;
        let Some(data) = source.find(&info)? else { return Ok(()) };
        if let Some(elements) = self.as_slice_mut() {
            return A::fill(elements, &data);
        }
        let mut gathered = vec![A::default(); self.len()];
        A::fill(&mut gathered, &data)?;
        self.iter_mut().zip(gathered).for_each(|(to, from)| *to = from);
        Ok(())
    }
}

fn shape(sizes: &[usize]) -> Shape {
    sizes.iter().map(|&n| n as u64).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use ::ndarray::{Array0, Array1, Array2, ArrayD, IxDyn, arr2};
    use weighbridge_formats::Archive;

    use super::super::{LoadOptions, archive, load};
    use super::*;

    #[test]
    fn arrays_of_any_layout_go_there_and_back() {
        let rows = arr2(&[[1f32, 2.0, 3.0], [4.0, 5.0, 6.0]]);
        let columns = rows.clone().reversed_axes();
        assert!(columns.as_slice().is_none());
        let saved =
            HashMap::from([("rows".to_owned(), rows.clone()), ("columns".to_owned(), columns.clone())]);
        let out = archive(&saved).unwrap();
        assert_eq!(out.tensors()[0].name(), "columns");
        let gathered = out.data(0).unwrap().read_all().unwrap();
        assert_eq!(gathered, f32::to_bytes(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]).to_vec());
        assert!(matches!(out.data(1).unwrap(), Data::Borrowed(_)), "standard layout is not copied");
        // Into arrays of either layout.
        let mut loaded = HashMap::from([
            ("rows".to_owned(), Array2::<f32>::zeros((3, 2)).reversed_axes()),
            ("columns".to_owned(), Array2::zeros((3, 2))),
        ]);
        load(&mut loaded, &out, &LoadOptions::default()).unwrap();
        assert_eq!((&loaded["rows"], &loaded["columns"]), (&rows, &columns));
    }

    #[test]
    fn every_rank_and_element_has_its_dtype() {
        let scalar = Array0::from_elem((), 7i64);
        assert_eq!(archive(&scalar).unwrap().tensors()[0].shape(), [0u64; 0]);
        let empty = ArrayD::<half::f16>::from_elem(IxDyn(&[2, 0, 3]), half::f16::ONE);
        assert_eq!(archive(&empty).unwrap().tensors()[0].shape(), [2, 0, 3]);
        let mut flags = Array1::from_elem(3, false);
        let set = Array1::from_vec(vec![true, false, true]);
        load(&mut flags, &archive(&set).unwrap(), &LoadOptions::default()).unwrap();
        assert_eq!(flags, set);
        let other = Array1::from_elem(4, true);
        assert!(load(&mut flags, &archive(&other).unwrap(), &LoadOptions::lenient()).is_err());
    }
}
