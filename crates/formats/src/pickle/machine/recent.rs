//! Integers and tuples of integers that were met before.
//!
//! The shapes and strides of a model's tensors are a few tuples, written out thousands of times. Both are
//! immutable, so one value can stand for all, and a long listing takes half the memory. The table is of a fixed
//! size and forgets: each place holds the value that last hashed to it.

use crate::{Value, ValueId, Values};

/// Places in the table.
const PLACES: usize = 1024;
/// The longest tuple that is kept.
const LONGEST: usize = 8;

pub(super) struct Recent {
    places: Box<[Option<ValueId>; PLACES]>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { places: Box::new([None; PLACES]) }
    }
}

/// One step of a multiplicative hash. Who forges collisions gains that nothing is found.
fn mix(hash: u64, part: u64) -> u64 {
    (hash ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

fn place(hash: u64) -> usize {
    (hash >> 54) as usize % PLACES
}

impl Recent {
    /// The place of an integer.
    pub(super) fn slot_of_int(n: i64) -> usize {
        place(mix(1, n as u64))
    }

    /// The place of a tuple; `None` if it is not of integers alone, or empty, or long.
    pub(super) fn slot_of(&self, values: &Values, items: &[ValueId]) -> Option<usize> {
        let ints = (1..=LONGEST).contains(&items.len())
            && items.iter().all(|&i| matches!(values.get(i), Value::Int(_)));
        ints.then(|| place(items.iter().fold(2, |hash, i| mix(hash, i.index() as u64))))
    }

    /// An integer that is there already.
    pub(super) fn int(&self, values: &Values, n: i64) -> Option<ValueId> {
        self.places[Self::slot_of_int(n)].filter(|&id| *values.get(id) == Value::Int(n))
    }

    /// A tuple of the same parts that is there already.
    pub(super) fn tuple(&self, values: &Values, items: &[ValueId]) -> Option<ValueId> {
        let id = self.places[self.slot_of(values, items)?]?;
        matches!(values.get(id), Value::Tuple(parts) if parts[..] == *items).then_some(id)
    }

    /// Keeps a value in its place, if it has one.
    pub(super) fn keep(&mut self, slot: Option<usize>, id: ValueId) {
        if let Some(slot) = slot {
            self.places[slot] = Some(id);
        }
    }
}
