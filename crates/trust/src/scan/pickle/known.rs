//! What is known to be harmless, by name and by how it may be used. There is no list of what is not.
//!
//! A row vouches for one use. A class that may be built by NEWOBJ, where only its `__new__` runs and the state is put in
//! place, may not be called by REDUCE, where its `__init__` runs, unless another row says so. Each row is a name that an
//! honest writer puts into a pickle, and each was looked up in the sources of the library: what does it do with the
//! arguments and the state that a stranger chose?

/// How a name may be used. Each may be named, too: handed on without being called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// Called with anything, or built.
    Value,
    /// Built by NEWOBJ and given its state.
    Class,
    /// Named only.
    Named,
    /// Called with arguments of a shape, which is held against what the pickle has; built, too.
    Call(Shape),
}

/// The shape that a call's arguments must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `(class, base, state)`: a class, one of Python's own plain types, and anything.
    Reconstructor,
    /// `(class, ...)`: an object of the class, as NEWOBJ makes it.
    Instance,
    /// `(class, "name")`: an attribute of a class that is known, its name plain.
    Attribute,
    /// One constant: the type of None.
    TypeOf,
    /// Text and Latin-1: bytes of protocol 2.
    Latin1,
    /// A module of NumPy or SciPy and a name in it.
    Ufunc,
    /// Texts, numbers, and classes of numpy.random.
    Random,
    /// `(function, class, arguments, state)`: a call of the function, which is judged as one.
    Rebuild,
    /// Bytes that are a torch file.
    TorchFile,
    /// One text or number: a member of an enum, whose name is spelled as classes are.
    Member,
    /// Texts and numbers only.
    Plain,
    /// The same; what comes out is the program's own and not the pickle's, so that no state may be put into it.
    Shared,
}

use super::table::{KNOWN, SCRIPT, UFUNCS};

/// Whether a name is that of a universal function of NumPy's.
pub(super) fn is_ufunc(name: &str) -> bool {
    UFUNCS.contains(&name)
}

/// What is known of a name, if anything is.
pub(super) fn known(module: &str, name: &str, script: bool) -> Option<Grant> {
    let module = today(module);
    // What Cython writes to rebuild an object of a class, from the class, a checksum and the state.
    if cython(&module, name) {
        return Some(Grant::Call(Shape::Instance));
    }
    let inside = if script { SCRIPT } else { &[] };
    // What a library carries of others, its tests and its tools are not what its row vouches for.
    let foreign = module.split('.').any(|p| matches!(p, "externals" | "_vendor" | "vendored" | "tests" | "testing"))
        || below(&module, "sklearn.callback")
        || module == "sklearn.callback"
        // A module that imports what its state names.
        || name.starts_with("_Lazy");
    let found = inside.iter().chain(KNOWN).find(|(m, names, _)| {
        let fits = match m.strip_suffix(".*") {
            Some(root) => !foreign && (module == root || below(&module, root)),
            None if m.contains('*') => !foreign && is_part(&module, m),
            None => module == *m,
        };
        fits && names.iter().any(|n| if *n == "*" { is_plain(name) } else { *n == name })
    });
    found.map(|(_, _, grant)| *grant)
}

/// A function that Cython generates, of a library whose classes are known.
fn cython(module: &str, name: &str) -> bool {
    const LIBRARIES: &[&str] =
        &["numpy.random", "sklearn", "hdbscan", "pandas._libs", "scipy", "lightgbm", "gensim"];
    name.strip_prefix("__pyx_unpickle_").is_some_and(is_plain) && LIBRARIES.iter().any(|l| below(module, l))
}

/// Whether a module is one of a row such as `package.*.modeling_*`: its last part fits, and it stands below the package.
fn is_part(module: &str, row: &str) -> bool {
    let (Some((package, last)), Some((root, part))) = (module.rsplit_once('.'), row.rsplit_once('.')) else {
        return false;
    };
    let placed = match root.strip_suffix(".*") {
        Some(root) => package == root || below(package, root),
        None => package == root,
    };
    let Some((begins, ends)) = part.split_once('*') else { return false };
    placed && last.strip_prefix(begins).and_then(|l| l.strip_suffix(ends)).is_some_and(|l| !l.is_empty())
}

fn below(module: &str, root: &str) -> bool {
    module.strip_prefix(root).is_some_and(|rest| rest.starts_with('.'))
}

/// A name without dots that is a Python identifier, and not that of a module of the standard library, which a package's
/// module may have imported.
pub(super) fn is_plain(name: &str) -> bool {
    is_identifier(name) && !super::stdlib::is_module(name)
}

/// An identifier of ASCII.
pub(super) fn is_identifier(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The name that a module has today, where it had another.
fn today(module: &str) -> std::borrow::Cow<'_, str> {
    match module {
        "__builtin__" => "builtins".into(),
        "copy_reg" => "copyreg".into(),
        "pathlib._local" => "pathlib".into(),
        "numpy._core" => "numpy.core".into(),
        _ => match (module.strip_prefix("numpy._core."), module.strip_prefix("sklearn.externals.joblib.")) {
            (Some(rest), _) => format!("numpy.core.{rest}").into(),
            (_, Some(rest)) => format!("joblib.{rest}").into(),
            _ => module.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_exactly() {
        assert_eq!(known("collections", "OrderedDict", false), Some(Grant::Value));
        assert_eq!(known("__builtin__", "dict", false), Some(Grant::Value));
        assert_eq!(known("numpy._core.multiarray", "scalar", false), Some(Grant::Value));
        assert_eq!(known("numpy.core.multiarray", "scalar", false), Some(Grant::Value));
        assert_eq!(known("sklearn.svm._classes", "SVC", false), Some(Grant::Class));
        assert_eq!(
            known("sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper", false),
            Some(Grant::Class)
        );
        assert_eq!(known("torch.nn.modules.linear", "Linear", false), Some(Grant::Class));
        assert_eq!(known("torch.nn.functional", "gelu", false), Some(Grant::Named));
        for (module, name) in [
            ("Collections", "OrderedDict"),
            ("collections\0", "OrderedDict"),
            ("collections", "ordereddict"),
            ("collections", "abc.OrderedDict"),
            ("sklearn.utils", "os.system"),
            ("sklearn.utils", "os"),
            ("sklearn", "base.os.system"),
            ("sklearn.externals.loky", "X"),
            ("sklearnx.base", "X"),
            ("builtins", "eval"),
            ("scipy.stats._continuous_distns", "norm_gen"),
            ("__torch__.m", "M"),
        ] {
            assert_eq!(known(module, name, false), None, "{module} {name}");
        }
        assert_eq!(known("__torch__.m", "M", true), Some(Grant::Class));
    }
}
