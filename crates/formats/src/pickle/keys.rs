//! Keys that Python holds for equal: a mapping has each once, with the last value; a set has each once.
//!
//! This runs once, when a pickle is complete. Nearly every mapping is passed by a look at hashes of its keys, in
//! which no two are the same; the others are compared exactly. A long value that is a key is read once, however
//! many mappings it is a key of, so the whole costs no more than sorting the keys.

use std::collections::HashMap;

use crate::account::{Account, block};
use crate::value::Global;
use crate::{Result, Value, ValueId, Values};

/// What makes two keys equal. Numbers are equal across bool, int and float, as in Python.
#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Id(ValueId),
    None,
    Int(i64),
    BigInt(&'a [u8]),
    Float(u64),
    Complex(u64, u64),
    Str(&'a str),
    Bytes(&'a [u8]),
    Global(&'a Global),
    /// Of parts that are themselves no tuples.
    Tuple(Vec<ValueId>),
}

/// Gives every key the id of the first key that is equal to it.
struct Representatives<'a, F> {
    values: &'a Values,
    elsewhere: F,
    of: Vec<Option<ValueId>>,
    first: HashMap<Key<'a>, ValueId>,
    /// The memory of tuples that were copied.
    copied: u64,
}

impl<'a, 'b: 'a, F: Fn(ValueId) -> Option<&'b [u8]>> Representatives<'a, F> {
    fn of(&mut self, id: ValueId) -> ValueId {
        if let Some(known) = self.of[id.index()] {
            return known;
        }
        let key = match self.values.get(id) {
            Value::Tuple(parts) => {
                let values = self.values;
                // A tuple in a tuple is compared by identity: following them down could cost any time.
                let part = |p: &ValueId| match values.get(*p) {
                    Value::Tuple(_) => *p,
                    _ => self.of(*p),
                };
                let parts: Vec<ValueId> = parts.iter().map(part).collect();
                self.copied += block(parts.len().saturating_mul(size_of::<ValueId>()));
                Key::Tuple(parts)
            }
            plain @ Value::Bytes(_) => (self.elsewhere)(id).map_or_else(|| key(id, plain), Key::Bytes),
            plain => key(id, plain),
        };
        let first = *self.first.entry(key).or_insert(id);
        self.of[id.index()] = Some(first);
        first
    }
}

fn key(id: ValueId, value: &Value) -> Key<'_> {
    match value {
        Value::None => Key::None,
        Value::Bool(b) => Key::Int((*b).into()),
        Value::Int(i) => Key::Int(*i),
        Value::BigInt(bytes) => Key::BigInt(bytes),
        Value::Float(x) => match *x as i64 {
            // Python holds 1.0 for 1, and -0.0 for 0. The cast saturates, so its ends prove nothing.
            i if i as f64 == *x && i != i64::MAX => Key::Int(i),
            _ if x.is_nan() => Key::Id(id),
            _ => Key::Float(x.to_bits()),
        },
        Value::Complex(re, im) => Key::Complex(re.to_bits(), im.to_bits()),
        Value::Str(text) => Key::Str(text),
        Value::Bytes(bytes) => Key::Bytes(bytes),
        Value::Global(global) => Key::Global(global),
        _ => Key::Id(id),
    }
}

/// What is left of a container in which a key stood more than once.
enum United {
    Entries(ValueId, Vec<(ValueId, ValueId)>),
    Items(ValueId, Vec<ValueId>),
}

/// What the exact comparison takes for each key in tables, in bytes.
const TABLES: u64 = 96;

/// Removes repeated keys from these dicts, and repeated items from these sets. `elsewhere` has the bytes that are
/// not in their values. What it takes in memory meanwhile is held against the account.
///
/// # Errors
/// `LimitExceeded`.
pub(super) fn unite<'b>(
    values: &mut Values,
    containers: &[ValueId],
    elsewhere: impl Fn(ValueId) -> Option<&'b [u8]>,
    account: &mut Account,
) -> Result<()> {
    let before = account.left();
    let mut known = Representatives { values, elsewhere, of: Vec::new(), first: HashMap::new(), copied: 0 };
    let mut longest = 0;
    let mut filter = Filter::default();
    let mut keys = Vec::new();
    let mut changed = Vec::new();
    for &id in containers {
        keys.clear();
        let value = values.get(id);
        match value {
            Value::Dict(dict) if dict.entries.len() > 1 => keys.extend(dict.entries.iter().map(|e| e.0)),
            Value::Set(items) | Value::FrozenSet(items) if items.len() > 1 => keys.extend(items),
            _ => continue,
        }
        if keys.len() > longest {
            // The keys, and a hash of each.
            account.charge((keys.len() - longest) as u64 * 12)?;
            longest = keys.len();
        }
        if filter.surely_distinct(values, &keys) {
            continue;
        }
        if known.of.is_empty() {
            account.charge_items::<Option<ValueId>>(values.len())?;
            known.of = vec![None; values.len()];
        }
        account.charge(keys.len() as u64 * TABLES)?;
        for key in &mut keys {
            if known.copied > account.left() {
                return Err(account.exceeded());
            }
            *key = known.of(*key);
        }
        let mut place = HashMap::with_capacity(keys.len());
        match value {
            Value::Dict(dict) => {
                let mut entries: Vec<(ValueId, ValueId)> = Vec::new();
                for (key, entry) in keys.iter().zip(&dict.entries) {
                    match place.get(key) {
                        Some(&at) => {
                            let at: usize = at;
                            entries[at].1 = entry.1;
                        }
                        None => {
                            place.insert(*key, entries.len());
                            entries.push(*entry);
                        }
                    }
                }
                changed.push(United::Entries(id, entries));
            }
            Value::Set(items) | Value::FrozenSet(items) => {
                let first =
                    |(key, item): (&ValueId, &ValueId)| place.insert(*key, 0).is_none().then_some(*item);
                changed.push(United::Items(id, keys.iter().zip(items).filter_map(first).collect()));
            }
            _ => {}
        }
    }
    for united in changed {
        match united {
            United::Entries(id, entries) => {
                if let Value::Dict(dict) = values.get_mut(id) {
                    dict.entries = entries;
                }
            }
            United::Items(id, rest) => {
                if let Value::Set(items) | Value::FrozenSet(items) = values.get_mut(id) {
                    *items = rest;
                }
            }
        }
    }
    account.refund(before.saturating_sub(account.left()));
    Ok(())
}

/// Strings of at most this many bytes are hashed again for each mapping.
const SHORT: usize = 64;

/// A cheap look that tells nearly every mapping without repeated keys.
#[derive(Default)]
struct Filter {
    hashes: Vec<u64>,
    long: HashMap<ValueId, u64>,
}

impl Filter {
    /// Whether no two of the keys are equal. A `false` proves nothing.
    fn surely_distinct(&mut self, values: &Values, keys: &[ValueId]) -> bool {
        self.hashes.clear();
        for key in keys {
            let hash = match values.get(*key) {
                Value::Str(text) if text.len() <= SHORT => fold(text.as_bytes()),
                Value::Str(text) => *self.long.entry(*key).or_insert_with(|| fold(text.as_bytes())),
                Value::Int(i) => mix(*i as u64, 1),
                _ => return false,
            };
            self.hashes.push(hash);
        }
        let hashes = &mut self.hashes;
        if hashes.len() <= 16 {
            return !hashes.iter().enumerate().any(|(i, hash)| hashes[..i].contains(hash));
        }
        // Sorted and not put in a table: a file that makes hashes collide gains nothing.
        hashes.sort_unstable();
        hashes.windows(2).all(|pair| pair[0] != pair[1])
    }
}

fn mix(a: u64, b: u64) -> u64 {
    let wide = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd1b5_4a32_d192_ed03);
    wide as u64 ^ (wide >> 64) as u64
}

fn fold(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().chain([&last]).map(|w| u64::from_le_bytes(*w));
    words.fold(bytes.len() as u64, |hash, word| mix(hash ^ word, hash))
}
