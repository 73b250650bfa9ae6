//! Bounds on what a file may make a reader allocate or do.

/// Bounds that a reader enforces before it allocates or loops.
///
/// The defaults let nearly every model known today pass, and hold a process that reads a hostile file within 64 MiB and
/// a second. They bound what a *file* can cause; they do not bound what a caller asks for. For a file that needs more,
/// and is trusted, there is [`Limits::within`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most memory that what is read of a file may take, in bytes: values, names, descriptions of tensors, and
    /// the texts that they are parsed from. Not the elements of tensors, which are read piece by piece. A file gets
    /// one byte more for each [`Limits::LENGTH_PER_BYTE`] of its own.
    pub memory: u64,
    /// The largest header, central directory or pickle that is read into memory, in bytes.
    pub header_bytes: u64,
    /// How deep values may nest where nesting costs a walk.
    pub depth: u32,
    /// The most values a pickle or a value tree may hold, and the most steps a walk over one may take; the most
    /// opcodes of a pickle are four times as many.
    pub values: u64,
    /// The most tensors, archive members or shards.
    pub entries: u64,
    /// The most bytes that all tensors may declare together, expanded (stride 0) dimensions included.
    pub declared_bytes: u64,
    /// The most bytes that tensors with overlapping elements (stride 0, say) may take together over what is
    /// stored of them: 1.5 KB can stand for terabytes.
    pub expanded_bytes: u64,
    /// The most bytes that the deflated members of a zip may inflate to, unless that is less than
    /// [`Limits::INFLATION`] times their length.
    pub inflated_bytes: u64,
    /// The most bytes that a file which is compressed as a whole (joblib's dumps) is unpacked to, in memory.
    pub unpacked_bytes: u64,
}

impl Limits {
    /// The default of [`Limits::memory`]: with the pages of a program, its buffers and what its allocator wastes, a
    /// process stays below 64 MiB.
    pub const MEMORY: u64 = 40 << 20;
    /// How many times as long as what is stored tensors may be together, if that is more than
    /// [`Limits::expanded_bytes`]: several may be parts of one storage, and a hostile file makes a thousand of one.
    pub const SHARING: u64 = 8;
    /// How many bytes of a file allow one byte of memory more: a terabyte of weights has more tensors than fit the
    /// default, and eight gigabytes allow two megabytes.
    pub const LENGTH_PER_BYTE: u64 = 4096;
    /// How many times as long as in the file the members of a zip may be, whatever their length. Weights are
    /// packed to a half or a tenth; a zip bomb is a thousand times as long.
    pub const INFLATION: u64 = 20;

    /// Limits for a file that is trusted to need so much memory, in bytes: no other default is met before that.
    pub fn within(memory: u64) -> Self {
        let default = Self::default();
        Self {
            memory,
            header_bytes: default.header_bytes.max(memory),
            values: default.values.max(memory / 4),
            expanded_bytes: default.expanded_bytes.max(memory),
            inflated_bytes: default.inflated_bytes.max(memory.saturating_mul(1024)),
            unpacked_bytes: default.unpacked_bytes.max(memory),
            ..default
        }
    }
}

impl Limits {
    /// Whether tensors of so many bytes may be made of so many that are stored.
    pub(crate) fn allows_sharing(&self, tensors: u64, stored: u64) -> bool {
        tensors <= self.expanded_bytes.max(stored.saturating_mul(Self::SHARING))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: Self::MEMORY,
            header_bytes: 1 << 30,
            depth: 10_000,
            values: 10_000_000,
            entries: 10_000_000,
            declared_bytes: 1 << 50,
            expanded_bytes: 256 << 20,
            inflated_bytes: 64 << 20,
            unpacked_bytes: 1 << 30,
        }
    }
}
