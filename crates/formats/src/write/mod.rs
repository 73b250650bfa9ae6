//! Writing: a plan of every byte, and the engine that puts it on disk.

mod plan;

pub use plan::{Content, Digests, FilePlan, Fill, Segment, WritePlan};
