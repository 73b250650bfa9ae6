//! The tar that torch 0.1 wrote: members `storages`, `tensors` and `pickle`.
//!
//! Source: torch 2.13, `torch/serialization.py` (`legacy_load` in `_legacy_load`), which still reads it. The
//! storages and tensors are numbered in their own members; the pickle refers to them by persistent ids.

use std::collections::HashMap;

use super::archive::TorchArchive;
use super::legacy::Placed;
use crate::account::{Account, block, parts_of};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::pickle::Stream;
use crate::source::{Source, TRUNCATED};
use crate::value::{Construct, Global, Object, Value, ValueId, Values};

/// A tar's block, in bytes.
const BLOCK: u64 = 512;
/// The most members that are looked at for the three.
const MEMBERS: usize = 64;

/// Whether a file begins with a tar header for one of the three members.
pub(super) fn sniff(head: &[u8]) -> bool {
    let name = head.get(..100).map(|n| n.split(|&b| b == 0).next().unwrap_or_default());
    let known = name.is_some_and(|n| {
        let n = n.strip_prefix(b"./").unwrap_or(n);
        matches!(n, b"storages" | b"tensors" | b"pickle" | b"" | b".")
    });
    known && checksum_fits(head)
}

/// A tar header's checksum is the sum of its bytes, with blanks in place of the checksum itself.
fn checksum_fits(head: &[u8]) -> bool {
    let Some(header) = head.get(..BLOCK as usize) else { return false };
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(i, &b)| if (148..156).contains(&i) { 32 } else { u64::from(b) })
        .sum();
    octal(&header[148..156]) == Some(sum)
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(|c: char| c == ' ' || c == '\0');
    u64::from_str_radix(text, 8).ok()
}

/// A member's place in the file.
#[derive(Clone, Copy)]
struct Member {
    at: u64,
    len: u64,
}

fn members(source: &Source) -> Result<HashMap<String, Member>> {
    let (mut found, mut at) = (HashMap::new(), 0u64);
    for _ in 0..MEMBERS {
        let mut header = [0u8; BLOCK as usize];
        if at + BLOCK > source.len() {
            break;
        }
        source.reader().read_at(at, &mut header)?;
        if header.iter().all(|&b| b == 0) {
            break;
        }
        if !checksum_fits(&header) {
            return Err(Error::malformed("a tar header whose checksum does not agree").at_offset(at));
        }
        let len = octal(&header[124..136])
            .ok_or_else(|| Error::malformed("a tar member without a length").at_offset(at))?;
        let name = header[..100].split(|&b| b == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name.strip_prefix(b"./").unwrap_or(name)).into_owned();
        let kind = header[156];
        let start = at + BLOCK;
        let end = start.checked_add(len.div_ceil(BLOCK).saturating_mul(BLOCK));
        let Some(end) = end.filter(|_| start.checked_add(len).is_some_and(|e| e <= source.len())) else {
            return Err(Error::malformed(format!("tar member {name:?} passes the end"))
                .at_offset(at)
                .with_hint(TRUNCATED));
        };
        if matches!(kind, 0 | b'0') && found.insert(name.clone(), Member { at: start, len }).is_some() {
            return Err(Error::unsafe_content(format!("two tar members are named {name:?}")).at_offset(at));
        }
        at = end;
    }
    Ok(found)
}

/// Reads pickles and raw numbers one after another from one member.
struct Cursor<'a> {
    source: &'a Source,
    limits: &'a Limits,
    account: &'a mut Account,
    at: u64,
    end: u64,
}

impl<'a> Cursor<'a> {
    fn new(source: &'a Source, member: Member, limits: &'a Limits, account: &'a mut Account) -> Self {
        Self { source, limits, account, at: member.at, end: member.at + member.len }
    }

    /// The next pickle. These hold a number or a few names, so a small window suffices but for the last.
    fn pickle(&mut self) -> Result<Values> {
        let slice = self.source.slice(self.at, self.end.saturating_sub(self.at))?;
        let stream =
            Stream { account: self.account.clone(), window: 512, ..Stream::new(&slice, self.limits) };
        let (decoded, ..) = stream.decode().map_err(|e| e.at_offset(self.at))?;
        self.at += decoded.consumed;
        Ok(decoded.values)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        if self.end - self.at < N as u64 {
            return Err(Error::malformed("a tar member ends early").at_offset(self.at).with_hint(TRUNCATED));
        }
        self.source.reader().read_at(self.at, &mut out)?;
        self.at += N as u64;
        Ok(out)
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.bytes()?))
    }
}

/// A key as the pickles have it: an integer (an address of long ago) or its text.
fn key_of(values: &Values, id: ValueId) -> Option<Box<str>> {
    match values.get(id) {
        Value::Int(i) => Some(i.to_string().into()),
        Value::Str(s) => Some(s.clone()),
        Value::BigInt(b) => Some(b.iter().rev().map(|x| format!("{x:02x}")).collect::<String>().into()),
        _ => None,
    }
}

fn bad(what: &str, at: u64) -> Error {
    Error::malformed(what.to_owned()).at_offset(at)
}

/// A tensor of the member `tensors`.
struct OldTensor {
    storage: Box<str>,
    shape: Vec<i64>,
    strides: Vec<i64>,
    offset: i64,
}

/// A storage of the member `storages`.
struct OldStorage {
    class: Global,
    location: Value,
    numel: i64,
    at: u64,
}

/// What a storage, a view or a tensor takes, in bytes, beside its texts; and the description of a reference to one.
const EACH: u64 = 256;
const DESCRIBED: u64 = 1024;

/// Opens a tar of torch 0.1.
pub(super) fn open(source: Source, limits: &Limits) -> Result<TorchArchive> {
    open_as(source, limits, false)
}

/// Opens a tar; where `lenient`, what is wrong with one tensor is an error when that is asked for.
pub(super) fn open_as(source: Source, limits: &Limits, lenient: bool) -> Result<TorchArchive> {
    let members = members(&source)?;
    let member = |name: &str| {
        members.get(name).copied().ok_or_else(|| Error::malformed(format!("the tar has no member {name:?}")))
    };
    let mut account = Account::of(limits, source.len());
    let (storages, views) =
        read_storages(&mut Cursor::new(&source, member("storages")?, limits, &mut account))?;
    let tensors = read_tensors(&mut Cursor::new(&source, member("tensors")?, limits, &mut account))?;
    let pickle = member("pickle")?;
    let slice = source.slice(pickle.at, pickle.len)?;
    let stream = Stream { account, ..Stream::new(&slice, limits) };
    let (decoded, _, mut account) = stream.decode().map_err(|e| e.at_offset(pickle.at))?;
    let mut values = decoded.values;
    explain(&mut values, &storages, &views, &tensors, (lenient, &mut account))?;
    let variety = format!("legacy tar, pickle protocol {}", decoded.protocol);
    let places: HashMap<Box<str>, u64> = storages.iter().map(|(k, s)| (k.clone(), s.at)).collect();
    let file = source.clone();
    let locate = Box::new(move |wanted: &[(&str, u64)]| {
        let slices = wanted.iter().map(|&(key, bytes)| {
            let at =
                places.get(key).ok_or_else(|| Error::malformed(format!("there is no storage {key:?}")))?;
            file.slice(*at, bytes)
        });
        Ok(Box::new(Placed(slices.collect::<Result<_>>()?)) as Box<dyn super::archive::Storages>)
    });
    TorchArchive::open(source, variety, values, false, Vec::new(), (limits, account), locate, lenient)
}

/// A view of a storage: the key of its root and the offset in it, by its own key.
type StorageViews = HashMap<Box<str>, (Box<str>, i64)>;

fn read_storages(cursor: &mut Cursor<'_>) -> Result<(HashMap<Box<str>, OldStorage>, StorageViews)> {
    let count = cursor.pickle()?;
    let Some(count) = count.root().and_then(|r| count.int(r)) else {
        return Err(bad("the number of storages is no integer", cursor.at));
    };
    let mut storages = HashMap::new();
    for _ in 0..count {
        let at = cursor.at;
        let head = cursor.pickle()?;
        let parts = head.root().and_then(|r| head.sequence(r)).unwrap_or_default();
        let &[key, location, class] = parts else { return Err(bad("a storage's head is no triple", at)) };
        let (Some(key), Some(class)) = (key_of(&head, key), head.global(class)) else {
            return Err(bad("a storage's key or class is not what torch writes", at));
        };
        let numel = cursor.i64()?;
        let width = match super::dtypes::storage_class(&class.module, &class.name) {
            Some(super::dtypes::StorageClass::Typed(d)) => d.size().unwrap_or(1),
            _ => return Err(Error::unsupported(format!("a storage of class {class}")).at_offset(at)),
        };
        let bytes = u64::try_from(numel).ok().and_then(|n| n.checked_mul(width));
        let Some(next) = bytes.and_then(|b| cursor.at.checked_add(b)).filter(|&n| n <= cursor.end) else {
            return Err(bad("a storage passes the end of its member", at).with_hint(TRUNCATED));
        };
        let storage =
            OldStorage { class: class.clone(), location: head.get(location).clone(), numel, at: cursor.at };
        cursor.at = next;
        cursor.account.charge(EACH + 2 * block(key.len()) + parts_of(&storage.location))?;
        if storages.insert(key, storage).is_some() {
            return Err(bad("two storages have the same key", at));
        }
    }
    let mut views = StorageViews::new();
    if cursor.at < cursor.end {
        let list = cursor.pickle()?;
        for &view in list.root().and_then(|r| list.sequence(r)).unwrap_or_default() {
            let &[target, root, offset, _] = list.sequence(view).unwrap_or_default() else {
                return Err(bad("a storage's view is no quadruple", cursor.at));
            };
            let (Some(target), Some(root), Some(offset)) =
                (key_of(&list, target), key_of(&list, root), list.int(offset))
            else {
                return Err(bad("a storage's view is not what torch writes", cursor.at));
            };
            cursor.account.charge(EACH + block(target.len()) + block(root.len()))?;
            views.insert(target, (root, offset));
        }
    }
    Ok((storages, views))
}

fn read_tensors(cursor: &mut Cursor<'_>) -> Result<HashMap<Box<str>, OldTensor>> {
    let count = cursor.pickle()?;
    let Some(count) = count.root().and_then(|r| count.int(r)) else {
        return Err(bad("the number of tensors is no integer", cursor.at));
    };
    let mut tensors = HashMap::new();
    for _ in 0..count {
        let at = cursor.at;
        let head = cursor.pickle()?;
        let parts = head.root().and_then(|r| head.sequence(r)).unwrap_or_default();
        let &[key, storage, _] = parts else { return Err(bad("a tensor's head is no triple", at)) };
        let (Some(key), Some(storage)) = (key_of(&head, key), key_of(&head, storage)) else {
            return Err(bad("a tensor's key is not what torch writes", at));
        };
        let ndim = i32::from_le_bytes(cursor.bytes()?);
        let _: [u8; 4] = cursor.bytes()?; // An older version wrote the count in eight bytes.
        if !(0..=64).contains(&ndim) {
            return Err(bad("a tensor of a negative number of dimensions, or more than 64", at));
        }
        let shape = (0..ndim).map(|_| cursor.i64()).collect::<Result<_>>()?;
        let strides = (0..ndim).map(|_| cursor.i64()).collect::<Result<_>>()?;
        let offset = cursor.i64()?;
        cursor.account.charge(EACH + block(key.len()) + block(storage.len()) + 16 * ndim as u64)?;
        tensors.insert(key, OldTensor { storage, shape, strides, offset });
    }
    Ok(tensors)
}

/// Puts the description that today's pickles have in place of each persistent id, so that one rebuilder serves
/// both.
fn explain(
    values: &mut Values,
    storages: &HashMap<Box<str>, OldStorage>,
    views: &StorageViews,
    tensors: &HashMap<Box<str>, OldTensor>,
    (lenient, account): (bool, &mut Account),
) -> Result<()> {
    let persistent = values.iter().filter(|(_, v)| matches!(v, Value::Persistent(_))).count();
    account.charge_items::<(ValueId, ValueId)>(persistent)?;
    let ids: Vec<(ValueId, ValueId)> = values
        .iter()
        .filter_map(|(id, v)| if let Value::Persistent(p) = v { Some((id, *p)) } else { None })
        .collect();
    for (id, pid) in ids {
        if let Some(first) = values.sequence(pid).and_then(|s| s.first()).copied() {
            // A module's class, its file and source text.
            account.charge(parts_of(values.get(first)))?;
            *values.get_mut(id) = values.get(first).clone();
            continue;
        }
        let Some(key) = key_of(values, pid) else {
            if lenient {
                continue;
            }
            return Err(Error::malformed("a persistent id of an unknown type"));
        };
        let (storage_key, tensor) = match tensors.get(&key) {
            Some(t) => (t.storage.clone(), Some(t)),
            None => (key, None),
        };
        let (root, base) = views.get(&storage_key).cloned().unwrap_or((storage_key, 0));
        let Some(storage) = storages.get(&root) else {
            if lenient {
                continue;
            }
            return Err(Error::malformed(format!(
                "the pickle refers to {root:?}, which is no tensor or storage"
            )));
        };
        let dims = tensor.map_or(0, |t| t.shape.len() + t.strides.len()) as u64;
        account.charge(DESCRIBED + 28 * dims + block(root.len()) + parts_of(&storage.location))?;
        let reference = storage_reference(values, &root, storage)?;
        let Some(tensor) = tensor else {
            *values.get_mut(id) = values.get(reference).clone();
            continue;
        };
        let offset =
            tensor.offset.checked_add(base).ok_or_else(|| Error::malformed("a tensor's offset overflows"))?;
        let offset = values.push(Value::Int(offset))?;
        let mut dims = |numbers: &[i64]| -> Result<ValueId> {
            let parts = numbers.iter().map(|&n| values.push(Value::Int(n))).collect::<Result<_>>()?;
            values.push(Value::Tuple(parts))
        };
        let (shape, strides) = (dims(&tensor.shape)?, dims(&tensor.strides)?);
        let class = values.push(Value::Global(Box::new(Global::new("torch._utils", "_rebuild_tensor"))))?;
        let args = values.push(Value::Tuple(vec![reference, offset, shape, strides]))?;
        let object = Object {
            construct: Construct::Call,
            class,
            args,
            kwargs: None,
            state: None,
            items: vec![],
            entries: vec![],
        };
        *values.get_mut(id) = Value::Object(Box::new(object));
    }
    Ok(())
}

fn storage_reference(values: &mut Values, key: &str, storage: &OldStorage) -> Result<ValueId> {
    let parts = [
        Value::Str("storage".into()),
        Value::Global(Box::new(storage.class.clone())),
        Value::Str(key.into()),
        storage.location.clone(),
        Value::Int(storage.numel),
    ];
    let parts = parts.into_iter().map(|v| values.push(v)).collect::<Result<_>>()?;
    let pid = values.push(Value::Tuple(parts))?;
    values.push(Value::Persistent(pid))
}
