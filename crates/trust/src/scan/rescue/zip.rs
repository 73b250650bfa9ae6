//! Torch's zips, as far as their members can be found: by a directory that lies, or by none.

use std::collections::HashMap;
use std::sync::Arc;

use weighbridge_formats::backends::torch::salvage::salvage;
use weighbridge_formats::{Error, Limits, ReadAt, Result, Source};

use super::{Found, Losses};
use crate::scan::subject::Allowance;
use crate::scan::unpack::{Fault, unpack};
use crate::scan::zip::{Member, checksum, members};

/// The most pickles of one zip whose tensors are taken.
const PICKLES: usize = 64;

/// The tensors of every `data.pkl` of a zip; none if it has none.
pub(super) fn rescue(
    source: &Source,
    part: &str,
    limits: &Limits,
    allowance: &Arc<Allowance>,
    losses: &mut Losses,
) -> Result<Vec<Found>> {
    let members = members(source)?;
    let mut by_name: HashMap<&str, Vec<&Member>> = HashMap::with_capacity(members.len());
    for member in &members {
        by_name.entry(&member.name).or_default().push(member);
    }
    let mut found = Vec::new();
    let is_root = |root: &str| root.is_empty() || root.ends_with('/');
    let pickles = members.iter().filter_map(|m| Some((m, m.name.strip_suffix("data.pkl")?)));
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    for (member, root) in pickles.filter(|(_, root)| is_root(root)).take(PICKLES) {
        let number = numbers.entry(root).or_default();
        *number += 1;
        let mut place = join(part, &member.name);
        if *number > 1 {
            place = format!("{place} ({number})");
        }
        let zip = Zip { by_name: &by_name, root, limits, allowance };
        match zip.pickle(member, source, &place, losses) {
            Ok(archive) => found.push(Found { part: place, archive }),
            Err(error) => losses.lost(place, error.message().to_owned()),
        }
    }
    // One pickle is the file.
    if let [only] = &mut found[..]
        && numbers.len() == 1
        && numbers.values().all(|n| *n == 1)
    {
        part.clone_into(&mut only.part);
    }
    Ok(found)
}

fn join(part: &str, name: &str) -> String {
    if part.is_empty() { name.to_owned() } else { format!("{part}/{name}") }
}

struct Zip<'a> {
    by_name: &'a HashMap<&'a str, Vec<&'a Member>>,
    root: &'a str,
    limits: &'a Limits,
    allowance: &'a Arc<Allowance>,
}

impl Zip<'_> {
    fn pickle(
        &self,
        member: &Member,
        source: &Source,
        place: &str,
        losses: &mut Losses,
    ) -> Result<Box<dyn weighbridge_formats::Archive>> {
        let order = self.small("byteorder");
        let content = self.content(member, self.limits.inflated_bytes)?;
        if member.crc32.is_some_and(|crc| checksum(&content).is_ok_and(|sum| sum != crc)) {
            losses.doubted(place.to_owned(), "the archive states another checksum for it".to_owned());
        }
        let bytes = content.read_vec(0, content.len(), self.limits)?;
        let mut doubts = Vec::new();
        let mut find = |key: &str| self.storage(key, &mut doubts);
        let salvaged = salvage(&bytes, source.clone(), order == "big", &mut find, self.limits)?;
        for (name, why) in doubts {
            losses.doubted(join(place, &name), why);
        }
        if let Some(fault) = salvaged.fault {
            losses
                .lost(place.to_owned(), format!("the rest of the pickle, which breaks: {}", fault.message()));
        }
        Ok(salvaged.archive)
    }

    /// The text of a short member.
    fn small(&self, name: &str) -> String {
        let member = self.by_name.get(&*format!("{}{name}", self.root)).and_then(|all| all.first());
        let content = member.and_then(|m| self.content(m, 64).ok()).filter(|c| c.len() <= 64);
        let bytes = content.and_then(|c| c.read_vec(0, c.len(), self.limits).ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// The storage of a key: of several members of its name the first that has its checksum.
    fn storage(&self, key: &str, doubts: &mut Vec<(String, String)>) -> Result<Arc<dyn ReadAt>> {
        let name = format!("{}data/{key}", self.root);
        let all = self.by_name.get(&*name).map(Vec::as_slice).unwrap_or_default();
        let mut others: Option<Source> = None;
        let mut why = Error::malformed(format!("there is no member {name:?}"));
        for member in all {
            let content = match self.content(member, self.limits.unpacked_bytes) {
                Ok(content) => content,
                Err(error) => {
                    why = error;
                    continue;
                }
            };
            let fits = match member.crc32 {
                Some(crc) => checksum(&content)? == crc,
                None => true,
            };
            if fits {
                if all.len() > 1 {
                    let what =
                        format!("{} members have this name; one that has its checksum was taken", all.len());
                    doubts.push((name, what));
                }
                return Ok(content.reader().clone());
            }
            others.get_or_insert(content);
        }
        let Some(content) = others else { return Err(why) };
        doubts
            .push((name, "the archive states another checksum for it: its bytes may be damaged".to_owned()));
        Ok(content.reader().clone())
    }

    /// A member's bytes, unpacked.
    fn content(&self, member: &Member, most: u64) -> Result<Source> {
        let packing = match member.packing {
            Ok(None) => return Ok(member.packed.clone()),
            Ok(Some(packing)) => packing,
            Err(method) => {
                let what =
                    format!("member {:?} is packed by method {method}, which is not read here", member.name);
                return Err(Error::unsupported(what));
            }
        };
        let keep = usize::try_from(most).unwrap_or(usize::MAX);
        let unpacked = unpack(&member.packed, packing, self.allowance, keep);
        match unpacked.fault {
            Some(Fault::Bomb) => {
                Err(Error::limit(format!("member {:?} unpacks to more than its size allows", member.name)))
            }
            // What came before the fault is there.
            Some(Fault::Broken(_)) | None => Ok(unpacked.source),
        }
    }
}
