//! Bounds on what a file may make a reader allocate or do.

/// Bounds that a reader enforces before it allocates or loops.
///
/// The defaults let every model known today pass. They bound what a *file* can cause; they do not bound what a
/// caller asks for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest header, central directory or pickle that is read into memory, in bytes.
    pub header_bytes: u64,
    /// How deep values may nest where nesting costs a walk.
    pub depth: u32,
    /// The most values a pickle or a value tree may hold, and the most steps a walk over one may take.
    pub values: u64,
    /// The most tensors, archive members or shards.
    pub entries: u64,
    /// The most bytes that all tensors may declare together, expanded (stride 0) dimensions included.
    pub declared_bytes: u64,
    /// The most bytes that tensors with overlapping elements (stride 0, say) may take together over what is
    /// stored of them: 1.5 KB can stand for terabytes.
    pub expanded_bytes: u64,
    /// The most bytes of a compressed member that are inflated into memory at once.
    pub inflated_bytes: u64,
    /// The most bytes that a file which is compressed as a whole (joblib's dumps) is unpacked to, in memory.
    pub unpacked_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 1 << 30,
            depth: 10_000,
            values: 50_000_000,
            entries: 10_000_000,
            declared_bytes: 1 << 50,
            expanded_bytes: 1 << 30,
            inflated_bytes: 64 << 20,
            unpacked_bytes: 1 << 30,
        }
    }
}
