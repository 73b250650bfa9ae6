//! Tied tensors: one tensor under several names, taken apart for formats that store each name in full, and put
//! together again.

use std::collections::HashMap;
use std::path::PathBuf;

use super::layer::archive_of_layer;
use super::select::retain_indices;
use crate::archive::{Archive, Metadata, Note, StorageInfo, no_such_tensor};
use crate::error::{Error, Result};
use crate::tensor::{Data, TensorInfo, View};
use crate::value::Values;

use super::layer::Layer;

/// A name that stands for another tensor: all of it, element for element.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tie {
    /// The name that has no bytes of its own.
    pub alias: String,
    /// The tensor that it is.
    pub tensor: String,
}

/// The tensors of an archive that are one and the same part of one storage, in groups of at least two indices; groups
/// and indices in the order of the archive.
pub fn tied(archive: &dyn Archive) -> Vec<Vec<usize>> {
    let tensors = archive.tensors();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut known: HashMap<(&View, &[u64], crate::DType), usize> = HashMap::new();
    for (i, info) in tensors.iter().enumerate() {
        // Tensors without elements share nothing that could be lost.
        let Some(view) = info.view().filter(|_| info.elements() > 0) else { continue };
        let group = *known.entry((view, info.shape(), info.dtype())).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(i);
    }
    groups.retain(|g| g.len() > 1);
    groups
}

/// An archive in which each tensor stands once: of tied names the one that the caller prefers is left.
pub struct Untie<'a> {
    layer: Layer<'a>,
    ties: Vec<Tie>,
}

impl<'a> Untie<'a> {
    /// Leaves one name of each group that [`tied`] finds: that with the lowest rank, the first of equals.
    ///
    /// # Errors
    /// `LimitExceeded` for more tensors than 32 bits count.
    pub fn new(inner: Box<dyn Archive + 'a>, rank: impl Fn(&str) -> u32) -> Result<Self> {
        let mut keep = vec![true; inner.tensors().len()];
        let mut ties = Vec::new();
        for group in tied(&*inner) {
            let name = |i: usize| inner.tensors()[i].name();
            let Some(&best) = group.iter().min_by_key(|&&i| rank(name(i))) else { continue };
            for &i in group.iter().filter(|&&i| i != best) {
                keep[i] = false;
                ties.push(Tie { alias: name(i).to_owned(), tensor: name(best).to_owned() });
            }
        }
        Ok(Self { layer: retain_indices(inner, |i| keep[i])?, ties })
    }

    /// The names that were left out, each with the tensor that it is.
    pub fn ties(&self) -> &[Tie] {
        &self.ties
    }
}

archive_of_layer!(Untie);

/// An archive in which names stand for tensors that have another name too: the reverse of [`Untie`].
pub struct Retie<'a> {
    inner: Box<dyn Archive + 'a>,
    infos: Vec<TensorInfo>,
    /// For each tensor its index in the inner archive.
    sources: Vec<usize>,
    storages: Vec<StorageInfo>,
    /// The tensors that became storages of their own, behind the inner archive's.
    added: Vec<usize>,
    notes: Vec<Note>,
}

impl<'a> Retie<'a> {
    /// Adds the alias of each tie behind the tensors that are there. Both then view one storage, so a format that
    /// can share stores them once. The values around the tensors, if there are any, are not part of the result.
    ///
    /// # Errors
    /// `NotFound` if a tie's tensor is not there, `InvalidOptions` if a tensor has an alias's name already.
    pub fn new(inner: Box<dyn Archive + 'a>, ties: &[Tie]) -> Result<Self> {
        let mut infos = inner.tensors().to_vec();
        let mut sources: Vec<usize> = (0..infos.len()).collect();
        let mut storages = inner.storages().to_vec();
        let mut added = Vec::new();
        let mut index: HashMap<String, usize> =
            infos.iter().enumerate().map(|(i, t)| (t.name().to_owned(), i)).collect();
        for tie in ties {
            let missing = || Error::not_found("a name is tied to a tensor that is not there");
            let of = *index.get(&tie.tensor).ok_or_else(|| missing().with_tensor(&*tie.tensor))?;
            if infos[of].view().is_none() {
                let storage = u32::try_from(storages.len());
                let storage = storage.map_err(|_| Error::limit("more than 4,294,967,295 storages"))?;
                storages.push(StorageInfo { dtype: Some(infos[of].dtype()), bytes: infos[of].bytes() });
                added.push(sources[of]);
                infos[of] = infos[of].clone().with_view(View { storage, offset: 0, strides: None });
            }
            if index.insert(tie.alias.clone(), infos.len()).is_some() {
                let what = "a name is to be tied, and a tensor has it already";
                return Err(Error::invalid_options(what).with_tensor(&*tie.alias));
            }
            infos.push(infos[of].clone().with_name(&*tie.alias));
            sources.push(sources[of]);
        }
        let mut notes = inner.notes().to_vec();
        if !ties.is_empty() {
            notes.push(Note::info(format!("{} tied names are restored", ties.len())));
        }
        Ok(Self { inner, infos, sources, storages, added, notes })
    }
}

impl Archive for Retie<'_> {
    fn format(&self) -> &'static str {
        self.inner.format()
    }

    fn variety(&self) -> String {
        self.inner.variety()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn data(&self, index: usize) -> Result<Data<'_>> {
        self.inner.data(*self.sources.get(index).ok_or_else(|| no_such_tensor(index))?)
    }

    fn storages(&self) -> &[StorageInfo] {
        &self.storages
    }

    fn storage_data(&self, index: usize) -> Result<Data<'_>> {
        let own = index.checked_sub(self.inner.storages().len());
        match own.and_then(|i| self.added.get(i)) {
            Some(&tensor) => self.inner.data(tensor),
            None => self.inner.storage_data(index),
        }
    }

    fn metadata(&self) -> &[(String, String)] {
        self.inner.metadata()
    }

    fn values(&self) -> Option<&Values> {
        None
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn files(&self) -> Vec<PathBuf> {
        self.inner.files()
    }
}

/// The ties that a file's text metadata records as safetensors' `save_model` does: a name that is no tensor, with
/// the name of one as its text. Source: `safetensors/torch.py` of safetensors 0.8.
pub fn recorded_ties(tensors: &[TensorInfo], metadata: &Metadata) -> Vec<Tie> {
    let names: std::collections::HashSet<&str> = tensors.iter().map(TensorInfo::name).collect();
    let tie = |(alias, tensor): &(String, String)| {
        let is_tie = names.contains(&**tensor) && !names.contains(&**alias);
        is_tie.then(|| Tie { alias: alias.clone(), tensor: tensor.clone() })
    };
    metadata.iter().filter_map(tie).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::transform::testing::{SharedArchive, contents};

    fn archive() -> SharedArchive {
        SharedArchive::new(
            &[(None, (0..24).collect())],
            &[
                ("lm_head", DType::U8, &[4, 3], 0, None),
                ("embed", DType::U8, &[4, 3], 0, None),
                ("part", DType::U8, &[3], 0, None),
                ("transposed", DType::U8, &[4, 3], 0, Some(&[1, 4])),
                ("other", DType::U8, &[4, 3], 12, None),
            ],
        )
    }

    #[test]
    fn only_what_is_the_same_in_all_is_tied() {
        assert_eq!(tied(&archive()), [vec![0, 1]]);
    }

    #[test]
    fn untying_and_tying_again_gives_the_same_tensors() {
        let untied = Untie::new(Box::new(archive()), |name| u32::from(name != "embed")).unwrap();
        let names: Vec<&str> = untied.tensors().iter().map(TensorInfo::name).collect();
        assert_eq!(names, ["embed", "part", "transposed", "other"]);
        let ties = untied.ties().to_vec();
        assert_eq!(ties, [Tie { alias: "lm_head".into(), tensor: "embed".into() }]);
        let tied_again = Retie::new(Box::new(untied), &ties).unwrap();
        let mut expected = contents(&archive());
        let mut found = contents(&tied_again);
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
        assert_eq!(tied(&tied_again).len(), 1);
    }

    #[test]
    fn a_tensor_without_storage_gets_one_when_it_is_tied() {
        let plain = crate::transform::SplitShared::new(Box::new(archive()));
        let inner = crate::transform::Drop::new(Box::new(plain), "lm_head").unwrap();
        let ties = [
            Tie { alias: "lm_head".into(), tensor: "embed".into() },
            Tie { alias: "third".into(), tensor: "lm_head".into() },
        ];
        let tied_again = Retie::new(Box::new(inner), &ties).unwrap();
        assert_eq!(tied(&tied_again), [vec![0, 4, 5]]);
        let storage = tied_again.storage_data(0).unwrap().read_all().unwrap();
        assert_eq!(storage, (0..12).collect::<Vec<u8>>());
        assert!(tied_again.storage_data(1).is_err());
    }

    #[test]
    fn ties_to_nothing_and_names_taken_are_errors() {
        let tie = |a: &str, t: &str| [Tie { alias: a.into(), tensor: t.into() }];
        assert!(Retie::new(Box::new(archive()), &tie("x", "gone")).is_err());
        assert!(Retie::new(Box::new(archive()), &tie("part", "embed")).is_err());
    }

    #[test]
    fn metadata_records_ties_only_between_names() {
        let archive = archive();
        let metadata = [("format", "pt"), ("head", "embed"), ("part", "embed"), ("a", "gone")];
        let metadata = metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
        let ties = recorded_ties(archive.tensors(), &metadata);
        assert_eq!(ties, [Tie { alias: "head".into(), tensor: "embed".into() }]);
    }
}
