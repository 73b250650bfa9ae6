//! From a state dict to an archive, and from an archive into a state dict.

use std::collections::HashMap;

use weighbridge_formats::transform::{Cast, Overflow};
use weighbridge_formats::{Archive, DType, Data, Error, Kind, MemoryArchive, Result, TensorInfo};

use super::{StateDict, TensorSource};
use crate::report::{Expected, LoadReport, compare};

/// How to load a state dict.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Whether any difference is an error. Otherwise what is there and fits is loaded, and the report says the
    /// rest; another shape is an error in either case. Default: yes.
    pub strict: bool,
    /// Whether floats of another dtype are cast to the one that the state dict has; then that is no difference.
    /// What the target cannot hold is an error. Default: no.
    pub cast: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { strict: true, cast: false }
    }
}

impl LoadOptions {
    /// Loads what is there and fits.
    pub fn lenient() -> Self {
        Self { strict: false, ..Self::default() }
    }

    /// Casts floats of another dtype.
    pub fn with_cast(mut self) -> Self {
        self.cast = true;
        self
    }
}

/// A state dict as an archive that borrows its memory, for any writer.
///
/// # Errors
/// `InvalidOptions` if two tensors have the same name; those of the state dict.
pub fn archive<S: StateDict + ?Sized>(state: &S) -> Result<MemoryArchive<'_>> {
    let mut tensors = Vec::new();
    state.tensors("", &mut |tensor| {
        tensors.push(tensor);
        Ok(())
    })?;
    MemoryArchive::new(tensors)
}

/// What a file must hold for a state dict: its names, dtypes and shapes.
///
/// # Errors
/// As [`archive`].
pub fn expected<S: StateDict + ?Sized>(state: &S) -> Result<Expected> {
    Ok(Expected::of(&archive(state)?))
}

/// Loads the tensors of an archive into a state dict.
///
/// Names, shapes and dtypes are compared first, so that nothing has changed where they are wrong. While numbers
/// are being read, an error of the file leaves the state dict with some tensors loaded.
///
/// # Errors
/// `Mismatch` as [`LoadReport::into_result`] says; those of the archive and of the state dict; with
/// [`LoadOptions::cast`] also `InvalidOptions` for numbers that the dtype cannot hold.
pub fn load<S: StateDict + ?Sized>(
    state: &mut S,
    archive: &dyn Archive,
    options: &LoadOptions,
) -> Result<LoadReport> {
    let wanted = expected(state)?;
    if !options.cast {
        return fill(state, archive, &wanted, options.strict);
    }
    let dtypes: HashMap<String, DType> =
        wanted.iter().filter_map(|(name, t)| Some((name.to_owned(), t.dtype?))).collect();
    let choose = move |info: &TensorInfo| {
        let to = *dtypes.get(info.name())?;
        let floats = info.dtype().kind() == Kind::Float && to.kind() == Kind::Float;
        (floats && to != info.dtype()).then_some(to)
    };
    let cast = Cast::by(Box::new(archive), choose, Overflow::Error, false)?;
    fill(state, &cast, &wanted, options.strict)
}

fn fill<S: StateDict + ?Sized>(
    state: &mut S,
    archive: &dyn Archive,
    wanted: &Expected,
    strict: bool,
) -> Result<LoadReport> {
    let report = compare(wanted, archive).into_result(strict)?;
    let infos = archive.tensors().iter().enumerate();
    let mut places = HashMap::new();
    for (index, info) in infos.filter(|(_, info)| wanted.get(info.name()).is_some()) {
        if places.insert(info.name(), index).is_some() {
            return Err(
                Error::malformed("two tensors of the file have the same name").with_tensor(info.name())
            );
        }
    }
    state.assign("", &Places { archive, places })?;
    Ok(report)
}

/// An archive by name.
struct Places<'a> {
    archive: &'a dyn Archive,
    places: HashMap<&'a str, usize>,
}

impl TensorSource for Places<'_> {
    fn find(&self, wanted: &TensorInfo) -> Result<Option<Data<'_>>> {
        let Some(&index) = self.places.get(wanted.name()) else { return Ok(None) };
        let fits = self
            .archive
            .tensors()
            .get(index)
            .is_some_and(|info| info.dtype() == wanted.dtype() && info.shape() == wanted.shape());
        // What does not fit is in the report, and stays as it is.
        if fits {
            self.archive.data(index).map(Some).map_err(|e| e.with_tensor(wanted.name()))
        } else {
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weighbridge_formats::ErrorKind;

    use super::super::OwnedTensor;
    use super::*;

    type Map = BTreeMap<String, OwnedTensor>;

    fn map(entries: &[(&str, OwnedTensor)]) -> Map {
        entries.iter().map(|(name, t)| ((*name).to_owned(), t.clone())).collect()
    }

    fn floats(values: &[f32]) -> OwnedTensor {
        OwnedTensor::from_slice([values.len() as u64], values).unwrap()
    }

    #[test]
    fn archives_borrow_and_load_back() {
        let saved =
            map(&[("a", floats(&[1.0, 2.0])), ("b.c", OwnedTensor::from_slice([], &[7i64]).unwrap())]);
        let out = archive(&saved).unwrap();
        let Data::Borrowed(bytes) = out.data(0).unwrap() else { panic!("copied") };
        assert!(std::ptr::eq(bytes, saved["a"].bytes()));
        let mut other =
            map(&[("a", floats(&[0.0, 0.0])), ("b.c", OwnedTensor::zeros(DType::I64, []).unwrap())]);
        let report = load(&mut other, &out, &LoadOptions::default()).unwrap();
        assert!(report.is_clean() && other == saved);
        assert_eq!(super::super::read_all(&out).unwrap(), saved);
    }

    #[test]
    fn strict_loading_changes_nothing_where_something_differs() {
        let good = map(&[("a", floats(&[1.0])), ("b", floats(&[2.0, 3.0]))]);
        let wrong: [(&str, Map); 4] = [
            ("1 missing: b", map(&[("a", floats(&[9.0]))])),
            (
                "1 unexpected: c",
                map(&[("a", floats(&[9.0])), ("b", floats(&[9.0, 9.0])), ("c", floats(&[9.0]))]),
            ),
            ("b is [3] where [2]", map(&[("a", floats(&[9.0])), ("b", floats(&[9.0; 3]))])),
            (
                "a is I32 where F32",
                map(&[("a", OwnedTensor::from_slice([1], &[9i32]).unwrap()), ("b", floats(&[9.0, 9.0]))]),
            ),
        ];
        for (text, file) in &wrong {
            let mut state = good.clone();
            let error = load(&mut state, &archive(file).unwrap(), &LoadOptions::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Mismatch);
            assert!(error.message().contains(text), "{error}");
            assert_eq!(state, good, "{text}");
        }
    }

    #[test]
    fn lenient_loading_takes_what_fits() {
        let file = map(&[("a", floats(&[9.0])), ("b", OwnedTensor::from_slice([1], &[9i32]).unwrap())]);
        let mut state = map(&[("a", floats(&[1.0])), ("b", floats(&[2.0])), ("c", floats(&[3.0]))]);
        let report = load(&mut state, &archive(&file).unwrap(), &LoadOptions::lenient()).unwrap();
        assert_eq!((report.matched, report.missing), (vec!["a".to_owned()], vec!["c".to_owned()]));
        assert_eq!(report.dtypes.len(), 1);
        assert_eq!(state, map(&[("a", floats(&[9.0])), ("b", floats(&[2.0])), ("c", floats(&[3.0]))]));
        let wide = map(&[("a", floats(&[9.0, 9.0]))]);
        assert!(load(&mut state, &archive(&wide).unwrap(), &LoadOptions::lenient()).is_err());
    }

    #[test]
    fn floats_are_cast_where_asked_and_integers_never() {
        let half = |x: f32| OwnedTensor::from_slice([1], &[half::f16::from_f32(x)]).unwrap();
        let file = map(&[("a", half(1.5))]);
        let mut state = map(&[("a", floats(&[0.0]))]);
        assert!(load(&mut state, &archive(&file).unwrap(), &LoadOptions::default()).is_err());
        load(&mut state, &archive(&file).unwrap(), &LoadOptions::default().with_cast()).unwrap();
        assert_eq!(state["a"].to_vec::<f32>().unwrap(), [1.5]);
        // A number that the narrower dtype does not have is an error, not an infinity.
        let mut narrow = map(&[("a", half(0.0))]);
        let large = map(&[("a", floats(&[1e30]))]);
        assert!(load(&mut narrow, &archive(&large).unwrap(), &LoadOptions::default().with_cast()).is_err());
        let whole = map(&[("a", OwnedTensor::from_slice([1], &[1i32]).unwrap())]);
        assert!(load(&mut state, &archive(&whole).unwrap(), &LoadOptions::default().with_cast()).is_err());
    }

    #[test]
    fn containers_name_their_parts() {
        let parts: BTreeMap<String, Vec<Option<Box<OwnedTensor>>>> = BTreeMap::from([(
            "l".to_owned(),
            vec![Some(Box::new(floats(&[1.0]))), None, Some(Box::new(floats(&[2.0])))],
        )]);
        let out = archive(&parts).unwrap();
        assert_eq!(out.tensors().iter().map(TensorInfo::name).collect::<Vec<_>>(), ["l.0", "l.2"]);
        let twice: [BTreeMap<String, OwnedTensor>; 1] = [map(&[("a.b", floats(&[1.0]))])];
        assert_eq!(archive(&twice[..]).unwrap().tensors()[0].name(), "0.a.b");
    }
}
