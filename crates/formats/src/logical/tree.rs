//! BLAKE3 of bytes that several threads read, in any order and in pieces of any size.
//!
//! BLAKE3 hashes chunks of 1024 bytes as the leaves of a binary tree, so any aligned run of a power of two chunks can be
//! hashed by whoever has it at hand. A [`Piece`] is what one thread knows of its piece: the subtrees in it, and the
//! bytes at both ends that are no whole chunk. [`join`] puts pieces together to the hash of the whole. Source: the BLAKE3
//! paper, section 2.1.

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, max_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use blake3::{CHUNK_LEN, Hasher};

const CHUNK: u64 = CHUNK_LEN as u64;

/// A digest: 32 bytes of BLAKE3.
pub type Digest = [u8; 32];

/// What is known of the bytes from `offset` to `offset + len`.
pub struct Piece {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    known: Known,
}

enum Known {
    /// The piece is everything.
    Whole(Digest),
    /// `head` ends where a chunk begins, `tail` begins where one does; between them are subtrees in their order.
    Part { head: Vec<u8>, trees: Vec<Tree>, tail: Vec<u8> },
}

/// An aligned run of a power of two chunks, of which the last of all may be shorter.
struct Tree {
    chunks: u64,
    value: ChainingValue,
}

impl Piece {
    /// Hashes the bytes that begin at `offset` of `total`.
    pub fn new(offset: u64, bytes: &[u8], total: u64) -> Self {
        let len = bytes.len() as u64;
        if len == total {
            return Self { offset, len, known: Known::Whole(blake3::hash(bytes).into()) };
        }
        let to_boundary = offset.next_multiple_of(CHUNK) - offset;
        let (head, mut rest) = bytes.split_at(to_boundary.min(len) as usize);
        let mut at = offset + head.len() as u64;
        let mut trees = Vec::new();
        while rest.len() >= CHUNK_LEN {
            let mut take = 1 << rest.len().ilog2();
            if let Some(most) = max_subtree_len(at) {
                take = take.min(usize::try_from(most).unwrap_or(usize::MAX));
            }
            let (run, after) = rest.split_at(take);
            trees.push(Tree { chunks: take as u64 / CHUNK, value: subtree(at, run) });
            (at, rest) = (at + take as u64, after);
        }
        Self { offset, len, known: Known::Part { head: head.to_vec(), trees, tail: rest.to_vec() } }
    }

    /// The hash of everything, made elsewhere.
    pub(crate) fn whole(len: u64, digest: Digest) -> Self {
        Self { offset: 0, len, known: Known::Whole(digest) }
    }
}

fn subtree(offset: u64, bytes: &[u8]) -> ChainingValue {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset);
    hasher.update(bytes).finalize_non_root()
}

/// The hash of `total` bytes, from pieces that are in their order; `None` unless each byte is in exactly one.
pub(crate) fn join(pieces: impl IntoIterator<Item = Piece>, total: u64) -> Option<Digest> {
    let mut joiner = Joiner::new(total);
    pieces.into_iter().for_each(|piece| joiner.push(piece));
    joiner.finish()
}

/// Joins pieces one after another, and holds no more than a few hundred bytes whatever they are pieces of.
pub struct Joiner {
    total: u64,
    at: u64,
    stack: Stack,
    /// The bytes of the chunk that is not complete, which ends at `at`.
    open: Vec<u8>,
    whole: Option<Digest>,
    gap: bool,
}

impl Joiner {
    /// For `total` bytes.
    pub fn new(total: u64) -> Self {
        Self { total, at: 0, stack: Stack(Vec::new()), open: Vec::new(), whole: None, gap: false }
    }

    /// Adds the piece that begins where the last one ended.
    pub fn push(&mut self, piece: Piece) {
        if piece.offset != self.at {
            self.gap = true;
            return;
        }
        match piece.known {
            Known::Whole(digest) => self.whole = Some(digest),
            Known::Part { head, trees, tail } => {
                self.open.extend_from_slice(&head);
                if self.open.len() == CHUNK_LEN && self.total > CHUNK {
                    let start = piece.offset + head.len() as u64 - CHUNK;
                    self.stack.push(Tree { chunks: 1, value: subtree(start, &self.open) });
                    self.open.clear();
                }
                trees.into_iter().for_each(|tree| self.stack.push(tree));
                self.open.extend_from_slice(&tail);
            }
        }
        self.at += piece.len;
    }

    /// The hash; `None` unless each byte was in exactly one piece.
    pub fn finish(mut self) -> Option<Digest> {
        if self.gap || self.at != self.total {
            return None;
        }
        if self.whole.is_some() {
            return self.whole;
        }
        if self.total <= CHUNK {
            // One chunk in pieces: it is the root itself.
            return Some(blake3::hash(&self.open).into());
        }
        if !self.open.is_empty() {
            let start = self.total - self.open.len() as u64;
            self.stack.push(Tree { chunks: 1, value: subtree(start, &self.open) });
        }
        self.stack.root()
    }
}

/// The subtrees so far, from the largest to the smallest, as the digits of a binary number.
struct Stack(Vec<Tree>);

impl Stack {
    /// Two of one size are merged only when something comes after them: the last merge of all is another function.
    fn push(&mut self, tree: Tree) {
        while let [.., left, right] = &self.0[..]
            && left.chunks == right.chunks
        {
            let merged = Tree {
                chunks: left.chunks * 2,
                value: merge_subtrees_non_root(&left.value, &right.value, Mode::Hash),
            };
            self.0.truncate(self.0.len() - 2);
            self.0.push(merged);
        }
        self.0.push(tree);
    }

    fn root(mut self) -> Option<Digest> {
        let mut right = self.0.pop()?;
        while let Some(left) = self.0.pop() {
            if self.0.is_empty() {
                return Some(merge_subtrees_root(&left.value, &right.value, Mode::Hash).into());
            }
            right.value = merge_subtrees_non_root(&left.value, &right.value, Mode::Hash);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    #[test]
    fn pieces_of_any_size_join_to_the_hash_of_the_whole() {
        for len in
            [0, 1, 1023, 1024, 1025, 2048, 2049, 3000, 4096, 5000, 8192, 65_536, 65_537, 200_000, 262_144]
        {
            let all = bytes(len);
            for (first, size) in
                [(1, 1024), (0, 1024), (0, 4096), (7, 1000), (1000, 3333), (24, 65_536), (0, 1 << 20)]
            {
                let mut pieces = Vec::new();
                let mut at = 0;
                while at < len {
                    let end = if at == 0 && first > 0 { first } else { at + size }.min(len);
                    pieces.push(Piece::new(at as u64, &all[at..end], len as u64));
                    at = end;
                }
                if len == 0 {
                    pieces.push(Piece::new(0, &[], 0));
                }
                let expected: Digest = blake3::hash(&all).into();
                assert_eq!(join(pieces, len as u64), Some(expected), "{len} bytes by {size} from {first}");
            }
        }
    }

    #[test]
    fn tiny_pieces_join_too() {
        let all = bytes(2500);
        for size in [1, 3, 100, 513] {
            let pieces = all.chunks(size).enumerate().map(|(i, c)| Piece::new((i * size) as u64, c, 2500));
            assert_eq!(join(pieces, 2500), Some(blake3::hash(&all).into()), "{size}");
        }
    }

    #[test]
    fn a_gap_or_a_missing_end_is_no_hash() {
        let all = bytes(5000);
        let piece = |from: usize, to: usize| Piece::new(from as u64, &all[from..to], 5000);
        assert!(join([piece(0, 1000), piece(1001, 5000)], 5000).is_none());
        assert!(join([piece(0, 1000), piece(1000, 4999)], 5000).is_none());
        assert!(join([], 5000).is_none());
        assert!(join([piece(0, 5000), piece(0, 5000)], 10_000).is_none());
        assert!(join([piece(0, 3000), piece(3000, 5000)], 5000).is_some());
    }
}
