//! Tensors that stand for themselves.

use super::layer::{Layer, archive_of_layer};
use crate::archive::{Archive, Note};
use crate::error::Result;
use crate::tensor::{Data, TensorInfo};

/// Every tensor with bytes of its own: no views, no storages. What two tensors shared is stored twice.
pub struct SplitShared<'a> {
    layer: Layer<'a>,
}

impl<'a> SplitShared<'a> {
    /// Splits every shared storage.
    pub fn new(inner: Box<dyn Archive + 'a>) -> Self {
        let shared = shared_tensors(&*inner);
        let mut layer = detach(inner, |_| true);
        if shared > 0 {
            let text = format!("{shared} tensors that shared storage with others have bytes of their own");
            layer.notes.push(Note::changed(text));
        }
        Self { layer }
    }
}

/// Every strided tensor with bytes of its own, in row-major order; contiguous ones share storage as before.
pub struct Contiguous<'a> {
    layer: Layer<'a>,
}

impl<'a> Contiguous<'a> {
    /// Makes every tensor contiguous.
    pub fn new(inner: Box<dyn Archive + 'a>) -> Self {
        let strided = inner.tensors().iter().filter(|t| !t.is_contiguous()).count();
        let mut layer = detach(inner, |t| !t.is_contiguous());
        if strided > 0 {
            layer.notes.push(Note::changed(format!("{strided} strided tensors are contiguous")));
        }
        Self { layer }
    }
}

/// Takes the views off the tensors that `which` names.
fn detach<'a>(inner: Box<dyn Archive + 'a>, which: impl Fn(&TensorInfo) -> bool) -> Layer<'a> {
    let (mut infos, sources) = Layer::all(&*inner);
    for info in infos.iter_mut().filter(|t| t.view().is_some() && which(t)) {
        *info = info.clone().without_view();
    }
    Layer::new(inner, infos, sources)
}

/// The number of tensors whose storage another one views too.
fn shared_tensors(archive: &dyn Archive) -> usize {
    let mut views = vec![0usize; archive.storages().len()];
    for view in archive.tensors().iter().filter_map(TensorInfo::view) {
        if let Some(n) = views.get_mut(view.storage as usize) {
            *n += 1;
        }
    }
    views.into_iter().filter(|&n| n > 1).sum()
}

archive_of_layer!(SplitShared);
archive_of_layer!(Contiguous);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::transform::testing::{SharedArchive, contents};

    fn archive() -> SharedArchive {
        SharedArchive::new(
            &[(None, (0..24).collect())],
            &[
                ("a", DType::U8, &[4, 3], 0, None),
                ("t", DType::U8, &[3, 4], 0, Some(&[1, 3])),
                ("b", DType::U8, &[12], 12, None),
            ],
        )
    }

    #[test]
    fn split_tensors_have_no_storage_and_the_same_bytes() {
        let split = SplitShared::new(Box::new(archive()));
        assert!(split.storages().is_empty() && split.tensors().iter().all(|t| t.view().is_none()));
        assert_eq!(contents(&split), contents(&archive()));
        assert!(split.notes()[0].text.starts_with("3 tensors"));
        assert!(split.storage_data(0).is_err());
    }

    #[test]
    fn contiguous_tensors_keep_their_storage() {
        let contiguous = Contiguous::new(Box::new(archive()));
        let views: Vec<bool> = contiguous.tensors().iter().map(|t| t.view().is_some()).collect();
        assert_eq!(views, [true, false, true]);
        assert_eq!(contents(&contiguous), contents(&archive()));
        assert_eq!(contiguous.storage_data(0).unwrap().read_all().unwrap().len(), 24);
    }
}
