//! What decoding a message would take, found out before it is decoded: a few bytes of a file can stand for hundreds in
//! memory, and nested messages for a deep stack.

use std::mem::size_of;

use super::proto::*;
use super::wire::{Wire, split_key, varint};
use crate::account::{Account, RAISE, block};
use crate::error::{Error, Result};
use crate::limits::Limits;

/// How deep messages may nest: what prost decodes.
const DEPTH: usize = 96;

/// The messages that contain others or runs of numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Value,
    Tensor,
    Sparse,
    Type,
    TensorType,
    Shape,
    Element,
    MapType,
    Function,
    Training,
    Annotation,
    NodeDevice,
    Sharding,
    ShardedDim,
    /// A message that contains none.
    Leaf,
}

/// What a field of bytes is.
enum Content {
    /// A message, and its size in memory.
    Message(Kind, usize),
    /// A run of numbers, each as wide in memory; of varints a byte is one at most.
    Numbers(usize),
    Bytes,
}

use Content::{Bytes, Message, Numbers};

fn content(kind: Kind, field: u32) -> Content {
    const fn leaf<T>() -> Content {
        Message(Kind::Leaf, size_of::<T>())
    }
    let pair = leaf::<StringStringEntryProto>;
    let value = || Message(Kind::Value, size_of::<ValueInfoProto>());
    let tensor = || Message(Kind::Tensor, size_of::<TensorProto>());
    let graph = || Message(Kind::Graph, size_of::<GraphProto>());
    let node = || Message(Kind::Node, size_of::<NodeProto>());
    let attribute = || Message(Kind::Attribute, size_of::<AttributeProto>());
    let sparse = || Message(Kind::Sparse, size_of::<SparseTensorProto>());
    let types = || Message(Kind::Type, size_of::<TypeProto>());
    match (kind, field) {
        (Kind::Model, 7) => graph(),
        (Kind::Model, 8) => leaf::<OperatorSetIdProto>(),
        (Kind::Model, 14) => pair(),
        (Kind::Model, 20) => Message(Kind::Training, size_of::<TrainingInfoProto>()),
        (Kind::Model, 25) => Message(Kind::Function, size_of::<FunctionProto>()),
        (Kind::Model, 26) => leaf::<DeviceConfigurationProto>(),
        (Kind::Graph, 1) => node(),
        (Kind::Graph, 5) => tensor(),
        (Kind::Graph, 11..=13) => value(),
        (Kind::Graph, 14) => Message(Kind::Annotation, size_of::<TensorAnnotation>()),
        (Kind::Graph, 15) => sparse(),
        (Kind::Graph, 16) => pair(),
        (Kind::Node, 5) => attribute(),
        (Kind::Node, 9) => pair(),
        (Kind::Node, 10) => Message(Kind::NodeDevice, size_of::<NodeDeviceConfigurationProto>()),
        (Kind::Attribute, 5 | 10) => tensor(),
        (Kind::Attribute, 6 | 11) => graph(),
        (Kind::Attribute, 7) => Numbers(1),
        (Kind::Attribute, 8) => Numbers(8),
        (Kind::Attribute, 14 | 15) => types(),
        (Kind::Attribute, 22 | 23) => sparse(),
        (Kind::Value, 2) => types(),
        (Kind::Value, 4) => pair(),
        (Kind::Tensor, 1 | 7 | 11) => Numbers(8),
        (Kind::Tensor, 3) => leaf::<Segment>(),
        (Kind::Tensor, 4 | 10) => Numbers(1),
        (Kind::Tensor, 5) => Numbers(4),
        (Kind::Tensor, 13 | 16) => pair(),
        (Kind::Sparse, 1 | 2) => tensor(),
        (Kind::Sparse, 3) => Numbers(8),
        (Kind::Type, 1 | 8) => Message(Kind::TensorType, size_of::<TensorType>()),
        (Kind::Type, 4 | 9) => Message(Kind::Element, size_of::<SequenceType>()),
        (Kind::Type, 5) => Message(Kind::MapType, size_of::<MapType>()),
        (Kind::Type, 7) => leaf::<OpaqueType>(),
        (Kind::TensorType, 2) => Message(Kind::Shape, size_of::<TensorShapeProto>()),
        (Kind::Shape, 1) => leaf::<Dimension>(),
        (Kind::Element, 1) | (Kind::MapType, 2) => types(),
        (Kind::Function, 7) => node(),
        (Kind::Function, 9) => leaf::<OperatorSetIdProto>(),
        (Kind::Function, 11) => attribute(),
        (Kind::Function, 12) => value(),
        (Kind::Function, 14) => pair(),
        (Kind::Training, 1 | 2) => graph(),
        (Kind::Training, 3 | 4) | (Kind::Annotation, 2) => pair(),
        (Kind::NodeDevice, 2) => Message(Kind::Sharding, size_of::<ShardingSpecProto>()),
        (Kind::Sharding, 2) => Numbers(8),
        (Kind::Sharding, 3) => Message(Kind::Leaf, size_of::<IntIntListEntryProto>()),
        (Kind::Sharding, 4) => Message(Kind::ShardedDim, size_of::<ShardedDimProto>()),
        (Kind::ShardedDim, 2) => leaf::<SimpleShardedDimProto>(),
        _ => Bytes,
    }
}

/// How many bytes of memory a message may take whatever its length, and how many for each byte. Nodes of short names
/// and small attributes come to 25.
const FREE: u64 = 16 << 20;
const EACH: u64 = 40;

/// Checks that a message is whole, nests no deeper than is decoded, and takes no more memory than messages of its
/// length do, and than [`Limits::header_bytes`]; and charges that to the account.
pub(super) fn check(bytes: &[u8], kind: Kind, limits: &Limits, account: &mut Account) -> Result<()> {
    let short = |at: usize| Error::malformed("a message of the model ends early").at_offset(at as u64);
    let left = account.left();
    let most =
        limits.header_bytes.min(left).min(FREE.saturating_add(EACH.saturating_mul(bytes.len() as u64)));
    let mut stack = vec![(kind, bytes.len())];
    let (mut at, mut memory) = (0usize, 0u64);
    while let Some(&(kind, end)) = stack.last() {
        if at == end {
            stack.pop();
            continue;
        }
        let take = |at: &mut usize| {
            let (number, len) = varint(bytes.get(*at..end)?)?;
            *at += len;
            Some(number)
        };
        let key = take(&mut at).ok_or_else(|| short(at))?;
        let (field, wire) = split_key(key)?;
        let skip = match wire {
            Wire::Varint => {
                take(&mut at).ok_or_else(|| short(at))?;
                memory += 8;
                0
            }
            Wire::Fixed32 => 4,
            Wire::Fixed64 => 8,
            Wire::Bytes => take(&mut at).ok_or_else(|| short(at))?,
        };
        let inner = usize::try_from(skip).ok().and_then(|n| at.checked_add(n)).filter(|&e| e <= end);
        let Some(inner) = inner else { return Err(short(at)) };
        match content(kind, field) {
            Message(kind, size) if wire == Wire::Bytes => {
                memory += size as u64;
                stack.push((kind, inner));
                if stack.len() > DEPTH {
                    let what = format!("messages nest deeper than {DEPTH}: subgraphs within subgraphs");
                    return Err(Error::limit(what));
                }
            }
            Numbers(width) => {
                memory = memory.saturating_add(skip.saturating_mul(width as u64));
                at = inner;
            }
            _ => {
                memory = memory.saturating_add(24 + if skip == 0 { 0 } else { block(inner - at) });
                at = inner;
            }
        }
        if memory > most {
            let what =
                format!("{} bytes of the graph would take more than {most} bytes of memory", bytes.len());
            return Err(Error::limit(what).with_hint(RAISE));
        }
    }
    account.charge(memory)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::error::ErrorKind;

    fn account() -> Account {
        Account::new(&Limits::default())
    }

    #[test]
    fn a_subgraph_in_a_subgraph_has_an_end() {
        let mut graph = GraphProto::default();
        for depth in 1..40 {
            let attribute = AttributeProto { g: Some(Box::new(graph)), ..AttributeProto::default() };
            let node = NodeProto { attribute: vec![attribute], ..NodeProto::default() };
            graph = GraphProto { node: vec![node], ..GraphProto::default() };
            let bytes = graph.encode_to_vec();
            let checked = check(&bytes, Kind::Graph, &Limits::default(), &mut account());
            match checked {
                Ok(()) => assert_eq!(GraphProto::decode(&*bytes).unwrap(), graph, "{depth}"),
                Err(e) => {
                    assert!(depth > 30 && e.kind() == ErrorKind::LimitExceeded, "{depth}: {e}");
                    return;
                }
            }
        }
        panic!("no depth was refused");
    }

    #[test]
    fn a_few_bytes_do_not_stand_for_gigabytes() {
        // An empty node is two bytes, and hundreds in memory.
        let bytes = [0x0a, 0].repeat(500_000);
        let limits = Limits { header_bytes: 10 << 20, ..Limits::default() };
        assert_eq!(
            check(&bytes, Kind::Graph, &limits, &mut account()).unwrap_err().kind(),
            ErrorKind::LimitExceeded
        );
        let wide = check(&bytes, Kind::Graph, &Limits::default(), &mut account());
        assert_eq!(wide.unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert!(check(&bytes[..2000], Kind::Graph, &limits, &mut account()).is_ok());
        for end in 1..6 {
            assert!(
                check(&[0x0a, 4, 0x0a, 2, b'x', b'y'][..end], Kind::Graph, &limits, &mut account()).is_err(),
                "{end}"
            );
        }
    }
}
