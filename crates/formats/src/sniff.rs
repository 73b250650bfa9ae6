//! What an input is, where no reader of this build takes it: formats by their marks, and what is no model at all.
//!
//! Always compiled, so that a file whose backend is off is called by its name, and a saved login page too.

use crate::error::{Error, ErrorKind};
use crate::probe::{Confidence, Probe};
use crate::source::TRUNCATED;

/// A format that an input looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recognised {
    /// The id that its backend has, or would have.
    pub(crate) id: &'static str,
    /// The name for people.
    pub(crate) name: &'static str,
    /// How sure that is.
    pub(crate) confidence: Confidence,
}

/// The format that an input looks like, whether this build has a reader for it or not.
pub(crate) fn recognise(probe: &Probe<'_>) -> Option<Recognised> {
    let certain = |id, name| Some(Recognised { id, name, confidence: Confidence::Certain });
    let likely = |id, name| Some(Recognised { id, name, confidence: Confidence::Likely });
    let head = probe.head();
    if let Some(names) = probe.zip_names() {
        return zip(names).and_then(|(id, name)| certain(id, name));
    }
    if head.starts_with(b"GGUF") || head.starts_with(b"FUGG") {
        return certain("gguf", "GGUF");
    }
    if [&b"ggml"[..], b"lmgg", b"ggjt", b"tjgg", b"ggla", b"algg", b"fmgg"]
        .iter()
        .any(|m| head.starts_with(m))
    {
        return certain("ggml", "GGML, the predecessor of GGUF");
    }
    if head.starts_with(b"\x93NUMPY") {
        return certain("npy", "a NumPy array (.npy)");
    }
    // HDF5's mark may stand behind a user block of 512 bytes and its doublings.
    if [0, 512, 1024, 2048]
        .iter()
        .any(|&at| head.get(at..).is_some_and(|h| h.starts_with(b"\x89HDF\r\n\x1a\n")))
    {
        return certain("keras", "HDF5, as Keras writes weights and models (.h5)");
    }
    if head.get(4..8) == Some(b"TFL3") {
        return certain("tflite", "TensorFlow Lite");
    }
    if head.get(4..8) == Some(b"ORTM") {
        return certain("ort", "ONNX Runtime's own format (.ort)");
    }
    if head.get(4..8) == Some(b"ET12") {
        return certain("executorch", "ExecuTorch (.pte)");
    }
    if let Some(prefix) = head.first_chunk::<8>() {
        let header_len = u64::from_le_bytes(*prefix);
        if (2..=100_000_000).contains(&header_len) && head[8..].starts_with(b"{\"") {
            return certain("safetensors", "safetensors");
        }
    }
    if is_torch_legacy(head) {
        return certain("torch", "a legacy PyTorch stream");
    }
    if is_tar(head) && tar_names(probe).iter().any(|n| n == "pickle" || n == "storages") {
        return certain("torch", "a legacy PyTorch tar");
    }
    if is_joblib(head) {
        return certain("joblib", "a joblib dump");
    }
    if is_pickle(head) {
        return likely("pickle", "a Python pickle");
    }
    if is_onnx(head) {
        return likely("onnx", "ONNX");
    }
    if probe.has_extension(&["pb"]) && matches!(head.first(), Some(0x08 | 0x0A | 0x12)) {
        return likely("tf", "a TensorFlow graph or SavedModel (.pb)");
    }
    if probe.file_name() == ".metadata" || probe.has_extension(&["distcp"]) {
        return likely("dcp", "a part of a PyTorch distributed checkpoint");
    }
    None
}

/// The format of a zip by the names in it.
fn zip(names: &[String]) -> Option<(&'static str, &'static str)> {
    let ends = |suffix: &str| names.iter().any(|n| n.ends_with(suffix));
    let below_root =
        |name: &str| names.iter().any(|n| n.split_once('/').is_some_and(|(_, rest)| rest == name));
    if below_root("archive_format") && names.iter().any(|n| n.contains("/models/")) {
        return Some(("pt2", "an exported program of torch.export (.pt2)"));
    }
    if below_root("data.pkl") || names.iter().any(|n| n == "data.pkl") {
        return Some(("torch", "PyTorch"));
    }
    if below_root("constants.pkl") {
        return Some(("torch", "TorchScript"));
    }
    if names.iter().any(|n| n == "model.weights.h5" || n == "config.json") && ends(".h5") {
        return Some(("keras", "Keras (.keras)"));
    }
    if !names.is_empty() && names.iter().all(|n| n.ends_with(".npy")) {
        return Some(("npz", "NumPy arrays (.npz)"));
    }
    if ends(".mlmodel") || names.iter().any(|n| n.contains("com.apple.CoreML")) {
        return Some(("coreml", "a Core ML package"));
    }
    None
}

/// The first pickle of a legacy stream is the magic number 0x1950A86A20F9469CFC6C.
pub(crate) fn is_torch_legacy(head: &[u8]) -> bool {
    const MAGIC: &[u8] = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
    head.first() == Some(&0x80) && head.get(..32).unwrap_or(head).windows(MAGIC.len()).any(|w| w == MAGIC)
}

/// A pickle's mark, and not that of a legacy torch stream.
pub(crate) fn begins_pickle(head: &[u8]) -> bool {
    matches!(head, [0x80, 2..=5, ..]) && !is_torch_legacy(head)
}

/// A pickle that soon names joblib's wrapper of an array.
pub(crate) fn is_joblib(head: &[u8]) -> bool {
    let names = |what: &[u8]| head.windows(what.len()).any(|w| w == what);
    begins_pickle(head) && names(b"joblib.numpy_pickle") && names(b"NumpyArrayWrapper")
}

/// PROTO and an opcode that a pickle can go on with. Protocols 0 and 1 have no mark and are not guessed.
fn is_pickle(head: &[u8]) -> bool {
    matches!(
        head,
        [0x80, 2..=5, b'}' | b']' | b')' | b'(' | b'c' | 0x95 | 0x8A | b'K' | b'J' | b'M' | b'X' | 0x8C, ..]
    )
}

/// ONNX has no magic: a ModelProto that begins with its `ir_version`, and then names its producer, opset or graph.
fn is_onnx(head: &[u8]) -> bool {
    matches!(head, [0x08, 1..=20, 0x12 | 0x1A | 0x22 | 0x3A | 0x42, ..])
}

fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

/// The names of the first members, as far as the head shows them.
fn tar_names(probe: &Probe<'_>) -> Vec<String> {
    let name = |block: &[u8]| {
        let end = block.iter().take(100).position(|&b| b == 0).unwrap_or(100);
        String::from_utf8_lossy(block.get(..end).unwrap_or_default()).trim_start_matches("./").to_owned()
    };
    probe.head().chunks_exact(512).filter(|b| is_tar(b)).map(name).collect()
}

/// What an input that is no model is, with what to do about it.
pub(crate) fn non_model(probe: &Probe<'_>) -> Option<Error> {
    let (head, len) = (probe.head(), probe.len());
    let unknown = |what: String, hint: &'static str| Some(Error::unknown_format(what).with_hint(hint));
    if len == 0 {
        return Some(Error::malformed("the file is empty").with_hint("fetch it again"));
    }
    if head.iter().all(|&b| b == 0) && !head.is_empty() {
        let what = if len <= head.len() as u64 { "nothing but zeros" } else { "zeros at its beginning" };
        return Some(Error::malformed(format!("the file has {len} bytes, and {what}")).with_hint(
            "a download or copy was prepared and never filled: fetch it again, and check the disk's space",
        ));
    }
    if is_truncated_zip(probe) {
        let what =
            format!("a zip that has no directory at its end: {len} bytes are there, and more are missing");
        return Some(Error::malformed(what).with_hint(TRUNCATED));
    }
    for (mark, name, hint) in ARCHIVES {
        if head.starts_with(mark) {
            return unknown(format!("this is {name}, not a model"), hint);
        }
    }
    if is_tar(head) {
        return unknown("this is a tar archive, not a model".into(), "unpack it and open what is in it");
    }
    text(head, len)
}

const ENCRYPTED: &str = "a file that age encrypted";
const OPEN_BY_KEY: &str =
    "give the key that opens it (`-i KEY`), or decrypt it first (`weighbridge decrypt`)";

/// Archives and compressed streams by their marks.
const ARCHIVES: &[(&[u8], &str, &str)] = &[
    (b"age-encryption.org/", ENCRYPTED, OPEN_BY_KEY),
    (b"-----BEGIN AGE ENCRYPTED FILE-----", ENCRYPTED, OPEN_BY_KEY),
    (b"7z\xBC\xAF\x27\x1C", "a 7z archive", "unpack it and open what is in it"),
    (b"Rar!\x1A\x07", "a RAR archive", "unpack it and open what is in it"),
    (b"\x1F\x8B", "a gzip stream", "unpack it with `gunzip` (or `tar xzf`) and open what comes out"),
    (b"BZh", "a bzip2 stream", "unpack it with `bunzip2` and open what comes out"),
    (b"\xFD7zXZ\0", "an xz stream", "unpack it with `unxz` and open what comes out"),
    (b"\x28\xB5\x2F\xFD", "a zstd stream", "unpack it with `unzstd` and open what comes out"),
    (b"PK\x03\x04", "a zip archive in which no model format is known", "unpack it and open what is in it"),
    (b"PK\x05\x06", "an empty zip archive", "fetch it again"),
    (b"%PDF-", "a PDF document", "fetch the model itself"),
    (b"\x89PNG", "a picture", "fetch the model itself"),
    (b"\xFF\xD8\xFF", "a picture", "fetch the model itself"),
    (b"\x7FELF", "a program or library", "fetch the model itself"),
];

/// Whether a zip begins and never ends.
pub(crate) fn is_truncated_zip(probe: &Probe<'_>) -> bool {
    probe.head().starts_with(b"PK\x03\x04") && probe.zip_names().is_none()
}

/// Text that stands where a model should: pointers, error pages, error bodies.
fn text(head: &[u8], len: u64) -> Option<Error> {
    let body = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head).trim_ascii_start();
    if body.starts_with(b"version https://git-lfs.github.com/spec/") {
        let lines = String::from_utf8_lossy(body);
        let size = lines.lines().find_map(|l| l.strip_prefix("size ")?.trim().parse::<u64>().ok());
        let size = size.map_or("of unknown size".into(), |n| format!("of {n} bytes"));
        let what = format!("this is a Git-LFS pointer: it stands for a file {size} that was not fetched");
        return Some(Error::unknown_format(what).with_hint("run `git lfs pull` in the repository"));
    }
    let lower: Vec<u8> = body.iter().take(256).map(u8::to_ascii_lowercase).collect();
    let named = |what: &str, hint: &'static str| {
        Some(Error::unknown_format(format!("this is {what} of {len} bytes, not a model")).with_hint(hint))
    };
    const FETCH: &str =
        "a login or an error came instead of the model: look into the file, then fetch it again";
    if lower.starts_with(b"<!doctype html") || lower.starts_with(b"<html") || lower.starts_with(b"<head") {
        return named("an HTML page", FETCH);
    }
    if lower.starts_with(b"<?xml") || lower.starts_with(b"<error") {
        return named("an XML document", FETCH);
    }
    let (valid, cut) = match std::str::from_utf8(head) {
        Ok(t) => (t, false),
        // A character may be cut where the head ends.
        Err(e) => {
            (std::str::from_utf8(&head[..e.valid_up_to()]).unwrap_or_default(), e.error_len().is_some())
        }
    };
    let printable =
        !cut && !valid.is_empty() && valid.chars().all(|c| !c.is_control() || c.is_ascii_whitespace());
    if !printable {
        return None;
    }
    if matches!(body.first(), Some(b'{' | b'[')) {
        return named(
            "a JSON document",
            "if it is a server's error, fetch the model again; a configuration is no weights",
        );
    }
    let first: String = valid.lines().next().unwrap_or_default().chars().take(60).collect();
    Some(
        Error::new(
            ErrorKind::UnknownFormat,
            format!("this is a text of {len} bytes that begins {first:?}, not a model"),
        )
        .with_hint("look into the file; if it is a server's message, fetch the model again"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    fn recognised(bytes: &[u8]) -> Option<&'static str> {
        recognise(&Probe::new(&Source::from_bytes(bytes))).map(|r| r.id)
    }

    fn refusal(bytes: &[u8]) -> Option<String> {
        non_model(&Probe::new(&Source::from_bytes(bytes))).map(|e| format!("{e:?}"))
    }

    #[test]
    fn formats_are_known_by_their_marks() {
        assert_eq!(recognised(b"GGUF\x03\0\0\0"), Some("gguf"));
        assert_eq!(recognised(b"\x93NUMPY\x01\0"), Some("npy"));
        assert_eq!(recognised(b"\x89HDF\r\n\x1a\n"), Some("keras"));
        let mut user_block = vec![0; 512];
        user_block.extend_from_slice(b"\x89HDF\r\n\x1a\n");
        assert_eq!(recognised(&user_block), Some("keras"));
        assert_eq!(recognised(b"\x1c\0\0\0TFL3"), Some("tflite"));
        assert_eq!(recognised(b"\x02\0\0\0\0\0\0\0{}"), None);
        assert_eq!(recognised(b"\x09\0\0\0\0\0\0\0{\"a\":{}}"), Some("safetensors"));
        assert_eq!(recognised(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."), Some("torch"));
        assert_eq!(recognised(b"\x80\x04\x95\x10\0\0"), Some("pickle"));
        assert_eq!(recognised(b"\x08\x08\x12\x07pytorch"), Some("onnx"));
        assert_eq!(recognised(b"hello"), None);
        assert_eq!(recognised(b""), None);
    }

    #[test]
    fn what_is_no_model_is_called_by_name() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 438012727\n";
        let cases: &[(&[u8], &str)] = &[
            (pointer, "438012727 bytes"),
            (pointer, "git lfs pull"),
            (b"<!DOCTYPE html><html>", "HTML page"),
            (b"\xEF\xBB\xBF\n <HTML>", "HTML page"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "XML"),
            (b"{\"error\":\"Repository not found\"}", "JSON"),
            (b"", "empty"),
            (&[0; 5000], "zeros"),
            (b"7z\xBC\xAF\x27\x1C\0\x04", "7z"),
            (b"Rar!\x1A\x07\x01\0", "RAR"),
            (b"\x1F\x8B\x08\0", "gzip"),
            (b"BZh91AY", "bzip2"),
            (b"\xFD7zXZ\0\0", "xz"),
            (b"\x28\xB5\x2F\xFD\x04", "zstd"),
            (b"PK\x03\x04\x14\0\0\0", "8 bytes are there"),
            (b"Not Found", "begins \"Not Found\""),
        ];
        for (bytes, wanted) in cases {
            let text = refusal(bytes).unwrap_or_else(|| panic!("{wanted}"));
            assert!(text.contains(wanted), "{text} does not say {wanted}");
        }
        let mut tar = vec![0; 1024];
        tar[..4].copy_from_slice(b"file");
        tar[257..262].copy_from_slice(b"ustar");
        assert!(refusal(&tar).is_some_and(|t| t.contains("tar")));
        assert_eq!(refusal(b"\x01\x02\x03\xFF\xFE"), None);
    }
}
