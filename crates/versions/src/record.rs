//! `weighbridge.version.json`: the version that a model's folder carries.
//!
//! It is a file beside the weights and no entry in their metadata: so the weights stay byte for byte what they were,
//! may be a hard link to another version's, and may be of any format.

use std::path::Path;

use serde_json::{Map, Value, json};
use weighbridge_formats::write::{ExecuteOptions, FilePlan, WritePlan, execute};
use weighbridge_formats::{Error, Result};

use crate::folder::read_if_there;
use crate::version::{Version, parse_version};

/// The longest record that is read.
const LONGEST: u64 = 1 << 20;

/// What `weighbridge.version.json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VersionRecord {
    /// The model's name; `None` where the folder only says a version.
    pub name: Option<String>,
    /// The version.
    pub version: Version,
    /// The version that the changes are counted from; `None` for the first.
    pub previous: Option<Version>,
    /// When the version was added, in UTC: `2026-11-22T01:43:33Z`.
    pub created: Option<String>,
    /// What the person who added it said.
    pub notes: Option<String>,
    /// The number of elements of all tensors, where they could be read.
    pub parameters: Option<u64>,
    /// How many files the version has, this one not counted.
    pub files: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
}

impl VersionRecord {
    /// A record of a version alone.
    pub fn new(version: Version) -> Self {
        Self {
            name: None,
            version,
            previous: None,
            created: None,
            notes: None,
            parameters: None,
            files: None,
            bytes: None,
        }
    }

    /// Reads the record of a folder; `None` if it has none.
    ///
    /// Keys that are not known are passed over, so that a later version of this program may add some.
    ///
    /// # Errors
    /// `Malformed` for what is no such record, `LimitExceeded` for more than 1 MiB, and what the system says.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(crate::RECORD);
        let Some(bytes) = read_if_there(&path, LONGEST)? else { return Ok(None) };
        Self::from_json(&bytes).map(Some).map_err(|e| e.with_path(path))
    }

    fn from_json(bytes: &[u8]) -> Result<Self> {
        let wrong = |what: String| Error::malformed(format!("this is no record of a version: {what}"));
        let value: Value = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
        let schema = value.get("schema").and_then(Value::as_u64);
        if schema != Some(1) {
            let what =
                format!("its schema is {}, and 1 is read", value.get("schema").unwrap_or(&Value::Null));
            return Err(Error::unsupported(what));
        }
        let text = |key: &str| match value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(wrong(format!("{key:?} is no text"))),
        };
        let number = |key: &str| match value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(other) => other.as_u64().map(Some).ok_or_else(|| wrong(format!("{key:?} is no number"))),
        };
        let version =
            |key: &str| text(key)?.map(|t| parse_version(&t).map_err(|e| wrong(e.to_string()))).transpose();
        Ok(Self {
            name: text("name")?,
            version: version("version")?.ok_or_else(|| wrong("it names no version".into()))?,
            previous: version("previous")?,
            created: text("created")?,
            notes: text("notes")?,
            parameters: number("parameters")?,
            files: number("files")?,
            bytes: number("bytes")?,
        })
    }

    /// The record as JSON, as the file has it.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("schema".into(), json!(1));
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(key.into(), value);
            }
        };
        put("name", self.name.as_ref().map(|n| json!(n)));
        put("version", Some(json!(self.version.to_string())));
        put("previous", self.previous.as_ref().map(|v| json!(v.to_string())));
        put("created", self.created.as_ref().map(|c| json!(c)));
        put("notes", self.notes.as_ref().map(|n| json!(n)));
        put("parameters", self.parameters.map(|n| json!(n)));
        put("files", self.files.map(|n| json!(n)));
        put("bytes", self.bytes.map(|n| json!(n)));
        map.into()
    }

    /// Writes the record into a model's folder, in place of one that is there. This is how a folder is given a
    /// version before it is added to a registry.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, folder: &Path) -> Result<()> {
        self.write_with(folder, true)
    }

    pub(crate) fn write_with(&self, folder: &Path, fsync: bool) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.to_json())
            .map_err(|e| Error::malformed("the record cannot be written as JSON").with_source(e))?;
        write_file(folder, crate::RECORD, format!("{text}\n").into_bytes(), fsync)
    }
}

/// Writes one small file through the engine, in place of one that is there.
pub(crate) fn write_file(folder: &Path, name: &str, bytes: Vec<u8>, fsync: bool) -> Result<()> {
    let mut file = FilePlan::new(name);
    file.push_fixed(bytes)?;
    let plan = WritePlan { files: vec![file], notes: Vec::new() };
    let mut options = ExecuteOptions::default();
    options.overwrite = true;
    options.fsync = fsync;
    options.threads = Some(1);
    options.chunk_bytes = 16 << 10;
    execute(plan, folder, &options).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weighbridge_formats::ErrorKind;

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(VersionRecord::read(dir.path()).unwrap(), None);
        let mut record = VersionRecord::new(parse_version("1.2.0-rc.1").unwrap());
        record.write(dir.path()).unwrap();
        assert_eq!(VersionRecord::read(dir.path()).unwrap().unwrap(), record);
        record.name = Some("m".into());
        record.notes = Some("two\nlines \"quoted\"".into());
        record.previous = Some(Version::new(1, 1, 0));
        record.parameters = Some(u64::MAX);
        record.write(dir.path()).unwrap();
        assert_eq!(VersionRecord::read(dir.path()).unwrap().unwrap(), record);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for (bad, kind) in [
            ("", ErrorKind::Malformed),
            ("{}", ErrorKind::Unsupported),
            (r#"{"schema": 2, "version": "1.0.0"}"#, ErrorKind::Unsupported),
            (r#"{"schema": 1}"#, ErrorKind::Malformed),
            (r#"{"schema": 1, "version": "../x"}"#, ErrorKind::Malformed),
            (r#"{"schema": 1, "version": "1.0.0", "files": -1}"#, ErrorKind::Malformed),
            (r#"{"schema": 1, "version": "1.0.0", "name": 7}"#, ErrorKind::Malformed),
        ] {
            assert_eq!(VersionRecord::from_json(bad.as_bytes()).unwrap_err().kind(), kind, "{bad}");
        }
        let more = br#"{"schema": 1, "version": "1.0.0", "later": {"x": 1}}"#;
        assert_eq!(VersionRecord::from_json(more).unwrap().version, Version::new(1, 0, 0));
    }
}
