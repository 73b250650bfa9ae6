//! `checkpoint.json`: what a checkpoint holds, and the size and checksum of every file in it.
//!
//! The file is JSON. Its last entry is the CRC-32 of everything before that entry, so that a damaged manifest is
//! found without the files that it lists.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value as Json, json};
use weighbridge_formats::{Error, Limits, Result, Source};

use crate::layout::{MANIFEST, is_plain_name};

/// The `format` of every manifest.
const FORMAT: &str = "weighbridge.checkpoint";
/// The version of the form.
const VERSION: u64 = 1;
/// The most bytes of a manifest that is read.
const MAX_BYTES: u64 = 64 << 20;
/// What stands before the manifest's own checksum.
const SEAL: &str = ",\n  \"manifest_crc32\": \"";

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name, without a folder.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// The CRC-32 of its content.
    pub crc32: u32,
    /// The BLAKE3 hash of its content, where the file is shared with other checkpoints by it.
    pub blake3: Option<String>,
}

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Which save of its folder this was, counted from 1: later saves have larger numbers.
    pub number: u64,
    /// The training step.
    pub step: u64,
    /// The epoch.
    pub epoch: u64,
    /// When it was saved, in seconds since 1970.
    pub created: u64,
    /// The metrics, in the order in which they were given.
    pub metrics: Vec<(String, f64)>,
    /// The file that the weights are opened by.
    pub weights: String,
    /// The file that the optimizer's state is opened by.
    pub optimizer: Option<String>,
    /// Every file but the manifest itself.
    pub files: Vec<FileEntry>,
}

impl Manifest {
    /// The bytes of all files that it lists.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |n, f| n.saturating_add(f.bytes))
    }

    /// The entry of a file.
    pub fn file(&self, name: &str) -> Option<&FileEntry> {
        self.files.iter().find(|f| f.name == name)
    }

    /// The text of the file, whose length depends on no checksum.
    pub(crate) fn render(&self) -> String {
        let metrics: Map<String, Json> =
            self.metrics.iter().map(|(name, x)| (name.clone(), number(*x))).collect();
        let files: Vec<Json> = self
            .files
            .iter()
            .map(|f| {
                let mut entry =
                    json!({"name": f.name, "bytes": f.bytes, "crc32": format!("{:08x}", f.crc32)});
                if let (Some(hash), Some(map)) = (&f.blake3, entry.as_object_mut()) {
                    map.insert("blake3".into(), hash.clone().into());
                }
                entry
            })
            .collect();
        let body = json!({
            "format": FORMAT,
            "version": VERSION,
            "number": self.number,
            "step": self.step,
            "epoch": self.epoch,
            "created": self.created,
            "metrics": metrics,
            "weights": self.weights,
            "optimizer": self.optimizer,
            "files": files,
        });
        let mut text = format!("{body:#}");
        // The seal stands before the closing brace.
        text.truncate(text.trim_end_matches('}').trim_end().len());
        let crc = crc32fast::hash(text.as_bytes());
        text.push_str(SEAL);
        text.push_str(&format!("{crc:08x}\"\n}}\n"));
        text
    }

    /// Reads the manifest of a checkpoint's folder.
    ///
    /// # Errors
    /// `NotFound` where there is none; `Malformed` and `Mismatch` for one that is damaged, with what is wrong.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        crate::verify::regular(&path)?;
        let limits = Limits { header_bytes: MAX_BYTES, ..Limits::default() };
        let source = Source::open(&path)?;
        let bytes = source.read_vec(0, source.len(), &limits).map_err(|e| e.with_path(&path))?;
        Self::parse(&bytes).map_err(|e| e.with_path(&path))
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|_| Error::malformed("the manifest is no UTF-8"))?;
        let Some((body, seal)) = text.rsplit_once(SEAL) else {
            return Err(Error::malformed("the manifest does not end in its checksum"));
        };
        let stated = seal.get(..8).and_then(crc32_of).filter(|_| seal.get(8..) == Some("\"\n}\n"));
        let found = crc32fast::hash(body.as_bytes());
        match stated {
            None => return Err(Error::malformed("the manifest's checksum is no checksum")),
            Some(stated) if stated != found => {
                let what = format!("the manifest has the CRC-32 {found:08x}, and states {stated:08x}");
                return Err(Error::mismatch(what));
            }
            Some(_) => {}
        }
        let json: Json = serde_json::from_str(text)
            .map_err(|e| Error::malformed("the manifest is no JSON").with_source(e))?;
        if json["format"] != FORMAT {
            return Err(Error::malformed(format!("the manifest's format is {}", json["format"])));
        }
        match json["version"].as_u64() {
            Some(VERSION) => {}
            Some(other) => {
                return Err(Error::unsupported(format!(
                    "the manifest has version {other}, and this program reads {VERSION}"
                )));
            }
            None => return Err(Error::malformed("the manifest states no version")),
        }
        let unsigned = |key: &str| {
            json[key].as_u64().ok_or_else(|| Error::malformed(format!("the manifest has no number {key:?}")))
        };
        let metrics = json["metrics"].as_object().into_iter().flatten();
        let files =
            json["files"].as_array().ok_or_else(|| Error::malformed("the manifest lists no files"))?;
        let files = files.iter().map(entry).collect::<Result<Vec<_>>>()?;
        let mut names = HashSet::new();
        if let Some(twice) = files.iter().find(|f| !names.insert(&f.name)) {
            return Err(Error::malformed(format!("the manifest lists {:?} twice", twice.name)));
        }
        let listed = |key: &str| match &json[key] {
            Json::Null => Ok(None),
            Json::String(name) if files.iter().any(|f| f.name == *name) => Ok(Some(name.clone())),
            other => Err(Error::malformed(format!("{key} is {other}, which is none of the files"))),
        };
        Ok(Self {
            number: unsigned("number")?,
            step: unsigned("step")?,
            epoch: unsigned("epoch")?,
            created: unsigned("created")?,
            metrics: metrics.filter_map(|(name, x)| Some((name.clone(), number_of(x)?))).collect(),
            weights: listed("weights")?
                .ok_or_else(|| Error::malformed("the manifest says nothing of weights"))?,
            optimizer: listed("optimizer")?,
            files,
        })
    }
}

fn entry(json: &Json) -> Result<FileEntry> {
    let name = json["name"].as_str().ok_or_else(|| Error::malformed("a file of the manifest has no name"))?;
    if !is_plain_name(name) || name == MANIFEST {
        return Err(Error::unsafe_content(format!(
            "the manifest lists {name:?}, which is no plain file name"
        )));
    }
    let missing = |what: &str| Error::malformed(format!("the manifest states no {what} of {name:?}"));
    Ok(FileEntry {
        name: name.to_owned(),
        bytes: json["bytes"].as_u64().ok_or_else(|| missing("size"))?,
        crc32: json["crc32"].as_str().and_then(crc32_of).ok_or_else(|| missing("CRC-32"))?,
        blake3: json["blake3"].as_str().map(str::to_owned),
    })
}

fn crc32_of(text: &str) -> Option<u32> {
    let hex = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    u32::from_str_radix(text, 16).ok().filter(|_| hex)
}

/// A metric as JSON, which has no infinity and no NaN: those are text.
pub(crate) fn number(x: f64) -> Json {
    if x.is_finite() { json!(x) } else { json!(x.to_string()) }
}

/// A metric out of JSON.
pub(crate) fn number_of(json: &Json) -> Option<f64> {
    match json {
        Json::Number(n) => n.as_f64(),
        Json::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "inf" => Some(f64::INFINITY),
            "-inf" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge_formats::ErrorKind;

    fn manifest() -> Manifest {
        let file = |name: &str, crc32| FileEntry { name: name.into(), bytes: 7, crc32, blake3: None };
        Manifest {
            number: 3,
            step: 1000,
            epoch: 10,
            created: 1_700_000_000,
            metrics: vec![("loss".into(), 0.25), ("best".into(), f64::INFINITY)],
            weights: "model.safetensors".into(),
            optimizer: Some("optimizer.safetensors".into()),
            files: vec![file("model.safetensors", 0xdead_beef), file("optimizer.safetensors", 1)],
        }
    }

    #[test]
    fn what_is_rendered_is_parsed() {
        for mut case in [manifest(), Manifest { files: vec![], ..manifest() }] {
            if case.files.is_empty() {
                let error = Manifest::parse(case.render().as_bytes()).unwrap_err();
                assert!(error.message().contains("none of the files"), "{error}");
                continue;
            }
            case.files[0].blake3 = Some("ab".into());
            let text = case.render();
            assert!(serde_json::from_str::<Json>(&text).is_ok(), "{text}");
            assert_eq!(Manifest::parse(text.as_bytes()).unwrap(), case);
        }
    }

    #[test]
    fn the_length_depends_on_no_checksum() {
        let (a, mut b) = (manifest(), manifest());
        b.files[0].crc32 = 0;
        assert_eq!(a.render().len(), b.render().len());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let text = manifest().render().into_bytes();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut damaged = text.clone();
                damaged[at] ^= 1 << bit;
                // Hexadecimal digits may be of either case.
                if !damaged.eq_ignore_ascii_case(&text) {
                    assert!(Manifest::parse(&damaged).is_err(), "byte {at}, bit {bit}");
                }
            }
            assert!(Manifest::parse(&text[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["../x", "/etc/passwd", "a/b", ".hidden", "checkpoint.json"] {
            let mut bad = manifest();
            bad.files.push(FileEntry { name: name.into(), bytes: 0, crc32: 0, blake3: None });
            let error = Manifest::parse(bad.render().as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnsafeContent, "{name}: {error}");
        }
    }
}
