//! Packages by their names: those that models are made of, and Python's own.

use super::report::Verdict;

/// Packages whose classes a model's folder may name.
pub(super) const LIBRARIES: &[&str] =
    &["diffusers", "transformers", "peft", "torch.nn", "sentence_transformers"];

/// Modules of `diffusers.pipelines`, which `model_index.json` may name in place of a package.
const PIPELINES: &[&str] = &[
    "animatediff",
    "audioldm",
    "audioldm2",
    "aura_flow",
    "blip_diffusion",
    "cogvideo",
    "controlnet",
    "deepfloyd_if",
    "flux",
    "hunyuandit",
    "i2vgen_xl",
    "kandinsky",
    "kandinsky2_2",
    "kandinsky3",
    "kolors",
    "latent_diffusion",
    "ltx",
    "lumina",
    "mochi",
    "musicldm",
    "paint_by_example",
    "pixart_alpha",
    "sana",
    "semantic_stable_diffusion",
    "shap_e",
    "spectrogram_diffusion",
    "stable_audio",
    "stable_cascade",
    "stable_diffusion",
    "stable_diffusion_3",
    "stable_diffusion_safe",
    "stable_diffusion_xl",
    "stable_video_diffusion",
    "text_to_video_synthesis",
    "unclip",
    "unidiffuser",
    "versatile_diffusion",
    "vq_diffusion",
    "wan",
    "wuerstchen",
];

/// Types of Python itself that hold values.
const PLAIN_TYPES: &[&str] = &[
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "set",
    "slice",
    "str",
    "tuple",
];

/// The modules of Python's standard library, which hold no part of any model.
static STANDARD: &str = "\
    _io _operator _osx_support _posixsubprocess _pydecimal _socket _ssl _thread __future__ abc aifc antigravity argparse array ast asynchat asyncio asyncore atexit audioop base64 bdb binascii \
    bisect builtins bz2 cProfile calendar cgi cgitb chunk cmath cmd code codecs codeop collections \
    colorsys compileall concurrent configparser contextlib contextvars copy copyreg crypt csv ctypes \
    curses dataclasses datetime dbm decimal difflib dis distutils doctest email encodings ensurepip enum \
    errno faulthandler fcntl filecmp fileinput fnmatch fractions ftplib functools gc genericpath getopt \
    getpass gettext glob graphlib grp gzip hashlib heapq hmac html http idlelib imaplib imghdr imp \
    importlib inspect io ipaddress itertools json keyword lib2to3 linecache locale logging lzma mailbox \
    mailcap marshal math mimetypes mmap modulefinder msilib msvcrt multiprocessing netrc nis nntplib nt \
    ntpath nturl2path numbers opcode operator optparse os ossaudiodev pathlib pdb pickle pickletools \
    pipes pkgutil platform plistlib poplib posix posixpath pprint profile pstats pty pwd py_compile \
    pyclbr pydoc pydoc_data pyexpat queue quopri random re readline reprlib resource rlcompleter runpy \
    sched secrets select selectors shelve shlex shutil signal site smtpd smtplib sndhdr socket \
    socketserver spwd sqlite3 sre_compile sre_constants sre_parse ssl stat statistics string stringprep \
    struct subprocess sunau symtable sys sysconfig syslog tabnanny tarfile telnetlib tempfile termios \
    textwrap this threading time timeit tkinter token tokenize tomllib trace traceback tracemalloc tty \
    turtle turtledemo types typing unicodedata unittest urllib uu uuid venv warnings wave weakref \
    webbrowser winreg winsound wsgiref xdrlib xml xmlrpc zipapp zipfile zipimport zlib zoneinfo";

/// Whether a module is one of these, or a part of it.
pub(super) fn is_below(module: &str, roots: &[&str]) -> bool {
    let below =
        |root: &&str| module.strip_prefix(*root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    roots.iter().any(below)
}

/// Whether a name is that of a pipeline of diffusers.
pub(super) fn is_pipeline(name: &str) -> bool {
    PIPELINES.contains(&name)
}

/// Whether a name is a type of Python that holds values.
pub(super) fn is_plain_type(module: &str, class: &str) -> bool {
    module == "builtins" && PLAIN_TYPES.contains(&class)
        || module == "collections" && ["OrderedDict", "defaultdict"].contains(&class)
}

/// Whether a module belongs to Python's standard library.
pub(super) fn is_standard(module: &str) -> bool {
    let root = module.split('.').next().unwrap_or_default();
    !root.is_empty() && (STANDARD.split(' ').any(|m| m == root) || root.starts_with("__builtin"))
}

/// What a name from a package that is not known is: of the standard library it is no part of a model.
pub(super) fn foreign(module: &str) -> Verdict {
    if is_standard(module) { Verdict::Dangerous } else { Verdict::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_known_by_their_roots() {
        assert!(
            is_standard("os")
                && is_standard("os.path")
                && is_standard("builtins")
                && is_standard("__builtin__")
        );
        assert!(!is_standard("keras") && !is_standard("") && !is_standard("osx"));
        assert!(is_below("torch.nn.modules", &["torch.nn"]) && !is_below("torch.nnx", &["torch.nn"]));
        assert_eq!((foreign("subprocess"), foreign("mine")), (Verdict::Dangerous, Verdict::Unknown));
        assert!(is_plain_type("builtins", "dict") && !is_plain_type("builtins", "eval"));
        assert!(is_pipeline("stable_diffusion") && !is_pipeline("os"));
    }
}
