//! What was expected of a model's weights, and how what was found differs: names, shapes and dtypes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use weighbridge_formats::{Archive, DType, Error, ErrorKind, Result, Shape};

/// How many names of a kind a message lists before it only counts.
const LISTED: usize = 8;

/// One tensor that a model expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedTensor {
    /// The dtype; `None` where any will do.
    pub dtype: Option<DType>,
    /// The sizes of the dimensions; `None` where any will do.
    pub shape: Option<Shape>,
    /// Whether its absence is a fault. Buffers that a model computes itself (`position_ids`) are not required.
    pub required: bool,
}

/// The tensors that a model expects, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    tensors: BTreeMap<String, ExpectedTensor>,
}

impl Expected {
    /// Nothing expected.
    pub fn new() -> Self {
        Self::default()
    }

    /// What an archive has, name for name: the expectation that another archive equals it in all but numbers.
    pub fn of(archive: &dyn Archive) -> Self {
        let mut out = Self::new();
        for info in archive.tensors() {
            out.insert(info.name(), Some(info.dtype()), Some(info.shape().into()));
        }
        out
    }

    /// Expects a tensor; what was said of that name before is forgotten.
    pub fn insert(&mut self, name: impl Into<String>, dtype: Option<DType>, shape: Option<Shape>) {
        self.tensors.insert(name.into(), ExpectedTensor { dtype, shape, required: true });
    }

    /// Says that a tensor may be there and need not be.
    pub fn insert_optional(&mut self, name: impl Into<String>, dtype: Option<DType>, shape: Option<Shape>) {
        self.tensors.insert(name.into(), ExpectedTensor { dtype, shape, required: false });
    }

    /// What is expected under a name.
    pub fn get(&self, name: &str) -> Option<&ExpectedTensor> {
        self.tensors.get(name)
    }

    /// Everything expected, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ExpectedTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// How many tensors are expected, optional ones included.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether nothing is expected.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Leaves the dtypes open, for a loader that casts.
    pub fn any_dtype(mut self) -> Self {
        self.tensors.values_mut().for_each(|t| t.dtype = None);
        self
    }
}

impl<N: Into<String>> FromIterator<(N, DType, Shape)> for Expected {
    fn from_iter<I: IntoIterator<Item = (N, DType, Shape)>>(iter: I) -> Self {
        let mut out = Self::new();
        for (name, dtype, shape) in iter {
            out.insert(name, Some(dtype), Some(shape));
        }
        out
    }
}

/// A tensor whose shape is not the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeMismatch {
    /// Its name.
    pub name: String,
    /// What the model expects.
    pub expected: Shape,
    /// What the file has.
    pub found: Shape,
}

/// A tensor whose dtype is not the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DTypeMismatch {
    /// Its name.
    pub name: String,
    /// What the model expects.
    pub expected: DType,
    /// What the file has.
    pub found: DType,
}

/// How what was found differs from what was expected.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// The tensors that are expected and there, with the expected shape and dtype, in the order of the archive.
    pub matched: Vec<String>,
    /// The required tensors that are not there.
    pub missing: Vec<String>,
    /// The tensors that nobody expects, in the order of the archive.
    pub unexpected: Vec<String>,
    /// The tensors that are there with another shape. Such a tensor is never loaded.
    pub shapes: Vec<ShapeMismatch>,
    /// The tensors that are there with the right shape and another dtype.
    pub dtypes: Vec<DTypeMismatch>,
}

/// Holds an archive against an expectation. Reads no tensor.
///
/// A name that an archive has twice, which some formats allow, counts for each.
pub fn compare(expected: &Expected, archive: &dyn Archive) -> LoadReport {
    let mut report = LoadReport::default();
    let mut seen = BTreeSet::new();
    for info in archive.tensors() {
        let name = info.name();
        let Some(want) = expected.get(name) else {
            report.unexpected.push(name.to_owned());
            continue;
        };
        seen.insert(name);
        if let Some(shape) = &want.shape
            && shape[..] != *info.shape()
        {
            let (expected, found) = (shape.clone(), info.shape().into());
            report.shapes.push(ShapeMismatch { name: name.to_owned(), expected, found });
        } else if let Some(dtype) = want.dtype
            && dtype != info.dtype()
        {
            let found = info.dtype();
            report.dtypes.push(DTypeMismatch { name: name.to_owned(), expected: dtype, found });
        } else {
            report.matched.push(name.to_owned());
        }
    }
    let absent = expected.iter().filter(|(name, t)| t.required && !seen.contains(name));
    report.missing = absent.map(|(name, _)| name.to_owned()).collect();
    report
}

impl LoadReport {
    /// Whether every expected tensor is there as expected, and nothing else is.
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty()
            && self.unexpected.is_empty()
            && self.shapes.is_empty()
            && self.dtypes.is_empty()
    }

    /// The report, if it may be loaded from.
    ///
    /// Strict means that nothing may differ. Otherwise missing and unexpected tensors and other dtypes (which
    /// the loader casts) are left to the caller, who has the report; a shape that differs never is.
    ///
    /// # Errors
    /// `Mismatch` that names the first of each kind and counts the rest, with the whole as its text.
    pub fn into_result(self, strict: bool) -> Result<Self> {
        if self.is_clean() || (!strict && self.shapes.is_empty()) {
            return Ok(self);
        }
        let mut error =
            Error::new(ErrorKind::Mismatch, format!("the tensors are not the expected ones: {self}"));
        if let Some(hint) = self.prefix_hint() {
            error = error.with_hint(hint);
        }
        Err(error)
    }

    /// A prefix that explains a missing and an unexpected name at once, such as `module.` or `bert.`.
    fn prefix_hint(&self) -> Option<String> {
        let missing = self.missing.first()?;
        let without = |long: &str, short: &str| {
            let prefix = long.strip_suffix(short)?;
            prefix.ends_with('.').then(|| prefix.to_owned())
        };
        for found in &self.unexpected {
            if let Some(prefix) = without(found, missing) {
                return Some(format!("the file's names begin with {prefix:?}: strip that prefix"));
            }
            if let Some(prefix) = without(missing, found) {
                return Some(format!("the file's names lack the prefix {prefix:?}: add it"));
            }
        }
        None
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return write!(f, "all {} tensors are as expected", self.matched.len());
        }
        let shapes = self
            .shapes
            .iter()
            .map(|m| format!("{} is {:?} where {:?} is expected", m.name, &m.found[..], &m.expected[..]));
        let dtypes =
            self.dtypes.iter().map(|m| format!("{} is {} where {} is expected", m.name, m.found, m.expected));
        let parts = [
            listed("missing", self.missing.iter().cloned(), self.missing.len()),
            listed("unexpected", self.unexpected.iter().cloned(), self.unexpected.len()),
            listed("of another shape", shapes, self.shapes.len()),
            listed("of another dtype", dtypes, self.dtypes.len()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join("; "))
    }
}

/// `3 missing: a, b, c`, with a count in place of what is too much to list.
fn listed(what: &str, items: impl Iterator<Item = String>, count: usize) -> Option<String> {
    if count == 0 {
        return None;
    }
    let mut shown: Vec<String> = items.take(LISTED).collect();
    if count > LISTED {
        shown.push(format!("and {} more", count - LISTED));
    }
    Some(format!("{count} {what}: {}", shown.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge_formats::{Data, MemoryArchive, Tensor};

    fn archive(tensors: &[(&str, DType, &[u64])]) -> MemoryArchive<'static> {
        let tensor = |&(name, dtype, shape): &(&str, DType, &[u64])| {
            let elements: u64 = shape.iter().product();
            let bytes = vec![0u8; dtype.bytes(elements).unwrap() as usize];
            Tensor::new(name, dtype, shape, Data::Owned(bytes.into())).unwrap()
        };
        MemoryArchive::new(tensors.iter().map(tensor)).unwrap()
    }

    #[test]
    fn equal_archives_are_clean() {
        let a = archive(&[("w", DType::F32, &[2, 3]), ("n", DType::I64, &[])]);
        let report = compare(&Expected::of(&a), &a);
        assert_eq!(report.matched, ["w", "n"]);
        assert!(report.is_clean() && report.into_result(true).is_ok());
    }

    #[test]
    fn each_kind_of_difference_is_told() {
        let mut expected = Expected::new();
        expected.insert("gone", Some(DType::F32), None);
        expected.insert("shape", Some(DType::F32), Some([2, 2].as_slice().into()));
        expected.insert("dtype", Some(DType::F32), Some([2].as_slice().into()));
        expected.insert("any", None, None);
        expected.insert_optional("perhaps", None, None);
        let a = archive(&[
            ("shape", DType::F16, &[4]),
            ("dtype", DType::F16, &[2]),
            ("any", DType::U8, &[7]),
            ("extra", DType::U8, &[1]),
        ]);
        let report = compare(&expected, &a);
        assert_eq!((&*report.missing, &*report.unexpected), (&["gone".into()][..], &["extra".into()][..]));
        assert_eq!(report.matched, ["any"]);
        assert_eq!((report.shapes.len(), report.dtypes.len()), (1, 1));
        let error = report.clone().into_result(true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        for part in
            ["1 missing: gone", "1 unexpected: extra", "shape is [4] where [2, 2]", "dtype is F16 where F32"]
        {
            assert!(error.message().contains(part), "{error}");
        }
        assert!(report.into_result(false).is_err(), "another shape is never left to the caller");
        assert_eq!(compare(&expected.any_dtype(), &a).dtypes, []);
    }

    #[test]
    fn what_is_not_strict_leaves_names_and_dtypes_to_the_caller() {
        let expected: Expected =
            [("a", DType::F32, Shape::new()), ("b", DType::F32, Shape::new())].into_iter().collect();
        let a = archive(&[("a", DType::F16, &[]), ("c", DType::F16, &[])]);
        let report = compare(&expected, &a).into_result(false).unwrap();
        assert!(!report.is_clean() && report.missing == ["b"] && report.unexpected == ["c"]);
    }

    #[test]
    fn a_prefix_is_recognised_both_ways() {
        let bare = archive(&[("l.w", DType::F32, &[])]);
        let wrapped = archive(&[("module.l.w", DType::F32, &[])]);
        let hint = |a: &MemoryArchive<'_>, b: &MemoryArchive<'_>| {
            compare(&Expected::of(a), b).into_result(true).unwrap_err().hint().unwrap().to_owned()
        };
        assert!(hint(&bare, &wrapped).contains("strip"));
        assert!(hint(&wrapped, &bare).contains("add"));
    }

    #[test]
    fn long_lists_are_counted() {
        let expected: Expected = (0..20).map(|i| (format!("t{i}"), DType::F32, Shape::new())).collect();
        let text = compare(&expected, &archive(&[])).to_string();
        assert!(text.starts_with("20 missing: ") && text.ends_with("and 12 more"), "{text}");
    }
}
