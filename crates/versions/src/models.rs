//! A model's folder in a registry: its versions, its aliases, and which of them is meant.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use weighbridge_formats::{Error, Result};

use crate::folder::{canonical, read_if_there};
use crate::lock::{Lock, sync_folder};
use crate::names::{check_alias, check_model_name};
use crate::record::{VersionRecord, write_file};
use crate::version::{Selector, Version, folder_name, of_folder_name, parse_version};
use crate::{LATEST, add, changelog};

/// The most entries of a registry or of a model's folder that are looked at.
const ENTRIES: usize = 100_000;
/// The longest alias file: it holds one version.
const ALIAS_BYTES: u64 = 1024;

/// A model in a registry: the folder `REGISTRY/NAME`, whether it is there yet or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionedModel {
    pub(crate) folder: PathBuf,
    pub(crate) name: String,
}

impl VersionedModel {
    /// The model of a folder `REGISTRY/NAME`.
    ///
    /// # Errors
    /// `InvalidOptions` if the last part of the path is no name for a model ([`check_model_name`]).
    pub fn at(folder: impl AsRef<Path>) -> Result<Self> {
        let given = folder.as_ref();
        if given.components().next_back() == Some(Component::ParentDir) {
            return Err(
                Error::invalid_options("the path ends with `..`, which names no model").with_path(given)
            );
        }
        let folder = if given.file_name().is_some() { given.to_owned() } else { canonical(given)? };
        let Some(name) = folder.file_name().and_then(|n| n.to_str()) else {
            return Err(
                Error::invalid_options("the path has no name for a model at its end").with_path(given)
            );
        };
        check_model_name(name)?;
        Ok(Self { name: name.to_owned(), folder })
    }

    /// The models of a registry that have a version, by name.
    ///
    /// # Errors
    /// What the system says.
    pub fn all(registry: &Path) -> Result<Vec<Self>> {
        let mut models = Vec::new();
        for (name, path) in entries(registry)? {
            let is_folder = fs::metadata(&path).is_ok_and(|m| m.is_dir());
            if is_folder && check_model_name(&name).is_ok() {
                let model = Self { name, folder: path };
                if !model.versions()?.is_empty() {
                    models.push(model);
                }
            }
        }
        Ok(models)
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The versions that are there, the lowest first. A link is no version.
    ///
    /// # Errors
    /// `NotFound` if the folder is not there; what the system says.
    pub fn versions(&self) -> Result<Vec<Version>> {
        let mut versions = Vec::new();
        for (name, path) in entries(&self.folder)? {
            let Some(version) = of_folder_name(&name) else { continue };
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => versions.push(version),
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("looking at a version", e).with_path(path));
                }
                _ => {}
            }
        }
        versions.sort();
        Ok(versions)
    }

    /// The aliases with the versions they name, `latest` not among them.
    ///
    /// # Errors
    /// What the system says.
    pub fn aliases(&self) -> Result<BTreeMap<String, Version>> {
        let mut aliases = BTreeMap::new();
        for (name, _) in entries(&self.folder)? {
            // A person may keep a file of such a name here; only what names a version is an alias.
            if check_alias(&name).is_ok()
                && let Ok(Some(version)) = self.alias(&name)
            {
                aliases.insert(name, version);
            }
        }
        Ok(aliases)
    }

    /// The version that an alias names.
    fn alias(&self, name: &str) -> Result<Option<Version>> {
        let path = self.folder.join(name);
        match fs::symlink_metadata(&path) {
            Ok(meta) if !meta.is_file() => {
                return Err(
                    Error::unsafe_content("an alias is a file, and no link or folder").with_path(path)
                );
            }
            _ => {}
        }
        let Some(bytes) = read_if_there(&path, ALIAS_BYTES)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let version = parse_version(text.trim());
        version
            .map(Some)
            .map_err(|e| Error::malformed(format!("this is no alias: {}", e.message())).with_path(path))
    }

    /// The version that is meant, which is there.
    ///
    /// # Errors
    /// `NotFound` if none fits, with those that there are.
    pub fn resolve(&self, selector: &Selector) -> Result<Version> {
        let versions = self.versions()?;
        let absent = |what: String| {
            let newest: Vec<_> = versions.iter().rev().take(8).map(ToString::to_string).collect();
            let there = match newest.as_slice() {
                [] => "there is no version yet".to_owned(),
                some if some.len() < versions.len() => format!("the newest versions are {}", some.join(", ")),
                some => format!("the versions are {}", some.join(", ")),
            };
            Error::not_found(format!("{}: {what}; {there}", self.name)).with_path(&self.folder)
        };
        if let Selector::Alias(name) = selector {
            let Some(version) = self.alias(name)? else {
                return Err(absent(format!("there is no alias {name:?}")));
            };
            return if versions.contains(&version) {
                Ok(version)
            } else {
                Err(absent(format!("the alias {name:?} names {version}, which is not there")))
            };
        }
        let chosen = selector.choose(versions.iter()).cloned();
        chosen.ok_or_else(|| absent(format!("no version fits {selector}")))
    }

    /// The folder of a version.
    pub fn folder_of(&self, version: &Version) -> PathBuf {
        self.folder.join(folder_name(version))
    }

    /// What a version's record says; `None` if it has none.
    ///
    /// # Errors
    /// As [`VersionRecord::read`].
    pub fn record(&self, version: &Version) -> Result<Option<VersionRecord>> {
        VersionRecord::read(&self.folder_of(version))
    }

    /// What the changelog says of a version; `None` if it says nothing.
    ///
    /// # Errors
    /// `LimitExceeded` for a changelog of more than 64 MiB; what the system says.
    pub fn changelog_entry(&self, version: &Version) -> Result<Option<String>> {
        let text = changelog::read(&self.folder)?;
        Ok(changelog::entry(&text, version).map(|e| String::from_utf8_lossy(e).into_owned()))
    }

    /// Makes an alias name a version, in place of another if need be.
    ///
    /// # Errors
    /// `InvalidOptions` for what is no name for an alias, `NotFound` if the version is not there; what the system says.
    pub fn set_alias(&self, alias: &str, version: &Version) -> Result<()> {
        check_alias(alias)?;
        // Asked before the lock, so that nothing is made in a folder that is no model's.
        self.resolve(&Selector::Exact(version.clone()))?;
        let lock = Lock::acquire(&self.folder, None)?;
        add::recover(self, &lock, true)?;
        self.resolve(&Selector::Exact(version.clone()))?;
        self.write_alias(alias, version, true)
    }

    /// Removes an alias; whether it was there.
    ///
    /// # Errors
    /// `InvalidOptions` for what is no name for an alias; what the system says.
    pub fn remove_alias(&self, alias: &str) -> Result<bool> {
        check_alias(alias)?;
        if self.versions()?.is_empty() {
            return Ok(false);
        }
        let lock = Lock::acquire(&self.folder, None)?;
        add::recover(self, &lock, true)?;
        if self.alias(alias)?.is_none() {
            return Ok(false);
        }
        let path = self.folder.join(alias);
        weighbridge_formats::write::uninterrupted(|| fs::remove_file(&path))
            .map_err(|e| Error::io("removing the alias", e).with_path(&path))?;
        sync_folder(&self.folder)?;
        Ok(true)
    }

    /// Writes an alias or `latest`: a file with the version in it, replaced by a rename. A link would need a right
    /// that not every user of Windows has, and would be lost in many archives and clouds.
    pub(crate) fn write_alias(&self, alias: &str, version: &Version, fsync: bool) -> Result<()> {
        write_file(&self.folder, alias, format!("{version}\n").into_bytes(), fsync)
    }

    /// Writes the file `latest`, for other tools: what is read here follows the versions themselves.
    pub(crate) fn write_latest(&self, fsync: bool) -> Result<()> {
        let versions = self.versions()?;
        let Some(latest) = Selector::Latest.choose(versions.iter()) else { return Ok(()) };
        if self.alias(LATEST).ok().flatten().as_ref() == Some(latest) {
            return Ok(());
        }
        self.write_alias(LATEST, latest, fsync)
    }
}

/// The entries of a folder whose names are UTF-8, by name.
pub(crate) fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let fail = |e| Error::io("listing the folder", e).with_path(folder);
    let mut found = Vec::new();
    for entry in weighbridge_formats::write::uninterrupted(|| fs::read_dir(folder)).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if found.len() >= ENTRIES {
            return Err(Error::limit(format!("the folder has more than {ENTRIES} entries")).with_path(folder));
        }
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// What `REGISTRY/NAME@1.2`, `REGISTRY/NAME` or a model's folder stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reference {
    /// A version in a registry.
    Version {
        /// The model.
        model: VersionedModel,
        /// The version, which is there.
        version: Version,
    },
    /// A folder that is no version in a registry.
    Folder(PathBuf),
}

impl Reference {
    /// Finds what is meant. A folder that has versions in it stands for the latest of them; one that is a version
    /// itself for that version.
    ///
    /// # Errors
    /// `NotFound` if there is nothing of the name, or no version that fits; `InvalidOptions` for what cannot be read.
    pub fn find(text: &str) -> Result<Self> {
        let path = Path::new(text);
        if path.is_dir() {
            return Self::of_folder(path);
        }
        let cut = text.rfind('@').filter(|&at| !text[at..].contains(['/', std::path::MAIN_SEPARATOR]));
        let Some(at) = cut else {
            return Err(Error::not_found("there is no folder of this name").with_path(path));
        };
        let model = VersionedModel::at(&text[..at])?;
        let version = model.resolve(&Selector::parse(&text[at + 1..])?)?;
        Ok(Self::Version { model, version })
    }

    fn of_folder(path: &Path) -> Result<Self> {
        let real = canonical(path)?;
        let named = real.file_name().and_then(|n| n.to_str()).and_then(of_folder_name);
        // A folder may be called so by chance: a version has a record that says the same.
        let recorded = || VersionRecord::read(&real).ok().flatten().map(|r| r.version);
        if let (Some(version), Some(parent)) = (named, path_parent(path, &real))
            && recorded().as_ref() == Some(&version)
            && let Ok(model) = VersionedModel::at(parent)
        {
            return Ok(Self::Version { model, version });
        }
        if let Ok(model) = VersionedModel::at(path)
            && let Some(version) = Selector::Latest.choose(model.versions()?.iter()).cloned()
        {
            return Ok(Self::Version { model, version });
        }
        Ok(Self::Folder(path.to_owned()))
    }

    /// The folder with the model's files.
    pub fn folder(&self) -> PathBuf {
        match self {
            Self::Version { model, version } => model.folder_of(version),
            Self::Folder(path) => path.clone(),
        }
    }
}

/// The parent as the caller spelled it, where it was spelled; else of the real path.
fn path_parent(path: &Path, real: &Path) -> Option<PathBuf> {
    let spelled = path.parent().filter(|p| p.file_name().is_some() && path.file_name() == real.file_name());
    spelled.or_else(|| real.parent()).map(Path::to_owned)
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version { model, version } => write!(f, "{}@{version}", model.name),
            Self::Folder(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
