//! The one error of the crate: a kind, what went wrong, and where.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

/// What went wrong, for a program that must decide what to do about it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The operating system refused to read, write, create or rename.
    Io,
    /// No format recognised the input.
    UnknownFormat,
    /// Several formats claim the input with the same confidence.
    AmbiguousFormat,
    /// The format is known, and its feature is not compiled in.
    FormatDisabled,
    /// The input breaks the rules of its format.
    Malformed,
    /// The input is valid, and this version cannot handle that part of the format.
    Unsupported,
    /// The input (or what was to be written) could run code or reach outside its folder.
    UnsafeContent,
    /// A number in the input exceeds a bound of [`Limits`](crate::Limits).
    LimitExceeded,
    /// A file, tensor or part that was asked for is not there.
    NotFound,
    /// Two things that must agree do not: a checksum, a shape, a dtype.
    Mismatch,
    /// The caller's options contradict each other or the input; what would be lost without leave is this too.
    InvalidOptions,
    /// The caller's observer asked to give up.
    Cancelled,
}

impl ErrorKind {
    /// The kind in words, as it begins a message.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Io => "input/output error",
            Self::UnknownFormat => "unknown format",
            Self::AmbiguousFormat => "ambiguous format",
            Self::FormatDisabled => "format not compiled in",
            Self::Malformed => "malformed file",
            Self::Unsupported => "unsupported",
            Self::UnsafeContent => "unsafe content",
            Self::LimitExceeded => "limit exceeded",
            Self::NotFound => "not found",
            Self::Mismatch => "mismatch",
            Self::InvalidOptions => "invalid options",
            Self::Cancelled => "cancelled",
        }
    }
}

/// An error with its kind, the place it happened at, and a hint.
///
/// It is one pointer wide, so that results stay small on the paths where nothing fails.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    format: Option<&'static str>,
    path: Option<PathBuf>,
    tensor: Option<String>,
    offset: Option<u64>,
    hint: Option<Cow<'static, str>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident = $kind:ident;)*) => {
        impl Error {
            $($(#[$doc])* #[cold] pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
                Self::new(ErrorKind::$kind, message)
            })*
        }
    };
}

constructors! {
    /// The input breaks the rules of its format.
    malformed = Malformed;
    /// Valid input that this version cannot handle.
    unsupported = Unsupported;
    /// Something that could run code or escape its folder.
    unsafe_content = UnsafeContent;
    /// A number of the input exceeds a limit.
    limit = LimitExceeded;
    /// Something that was asked for is not there.
    not_found = NotFound;
    /// Two things that must agree do not.
    mismatch = Mismatch;
    /// Options that contradict each other, or a loss without leave.
    invalid_options = InvalidOptions;
    /// The caller's observer asked to give up.
    cancelled = Cancelled;
    /// No format recognised the input.
    unknown_format = UnknownFormat;
}

impl Error {
    /// An error of `kind` that says `message`.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            format: None,
            path: None,
            tensor: None,
            offset: None,
            hint: None,
            source: None,
        }))
    }

    /// An operating-system error, with what was being done ("reading", "creating the temporary file").
    #[cold]
    pub fn io(doing: impl Into<Cow<'static, str>>, source: std::io::Error) -> Self {
        let mut error = Self::new(ErrorKind::Io, doing);
        if source.kind() == std::io::ErrorKind::NotFound {
            error.0.kind = ErrorKind::NotFound;
        }
        error.0.source = Some(Box::new(source));
        error
    }

    /// Names the format, unless it is named already.
    pub fn with_format(mut self, format: &'static str) -> Self {
        self.0.format.get_or_insert(format);
        self
    }

    /// Names the file, unless it is named already.
    pub fn with_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path.get_or_insert_with(|| path.into());
        self
    }

    /// Names the tensor, unless it is named already.
    pub fn with_tensor(mut self, tensor: impl Into<String>) -> Self {
        self.0.tensor.get_or_insert_with(|| tensor.into());
        self
    }

    /// States the byte offset in the file, unless it is stated already.
    pub fn at_offset(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Says what to do next, unless that is said already.
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Says what to do next in place of what was said further down, by code that knows more of the caller.
    pub fn with_better_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Keeps the cause.
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
    }

    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What went wrong, without the place.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The id of the format that was being read or written.
    pub fn format(&self) -> Option<&'static str> {
        self.0.format
    }

    /// The file it happened in.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The tensor it happened at.
    pub fn tensor(&self) -> Option<&str> {
        self.0.tensor.as_deref()
    }

    /// The byte offset in the file.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// What to do next.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &self.0;
        if let Some(path) = &e.path {
            write!(f, "{}: ", path.display())?;
        }
        if let Some(format) = e.format {
            write!(f, "{format}: ")?;
        }
        write!(f, "{}: {}", e.kind.as_str(), e.message)?;
        if let Some(tensor) = &e.tensor {
            write!(f, " (tensor {tensor:?})")?;
        }
        if let Some(offset) = e.offset {
            write!(f, " (at byte {offset})")?;
        }
        if let Some(source) = &e.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}: {self}", self.0.kind)?;
        if let Some(hint) = &self.0.hint {
            write!(f, "; hint: {hint}")?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}
