//! The limits of what is rewritten; the schema of the manifest repeats them.

/// Keys in one list of a redaction. With keys of 256 bytes that is 64 KiB of manifest a list.
pub const MAX_KEYS: usize = 256;

/// Rules of a mask: which of them apply to a value is one bit each of a `u64`.
pub const MAX_MASKS: usize = 64;

/// Bytes of a replacement: longer than what it replaces it makes spans grow.
pub const MAX_REPLACEMENT_BYTES: usize = 128;

/// Memory of the compiled pattern of one mask: 64 of them take at most 16 MiB.
pub const MAX_MASK_REGEX_BYTES: usize = 256 << 10;

/// Actions on attributes at an agent: the growth of every span is the sum of what they insert.
pub const MAX_ACTIONS: usize = 64;

/// Bytes of the value that an action inserts.
pub const MAX_ACTION_VALUE_BYTES: usize = 1024;

/// Values inside values that are rewritten; [`crate::scan::check`] lets no message through that nests deeper
/// than 32, of which four are around an attribute. Deeper values are left out.
pub(super) const DEPTH_MAX: u32 = 32;
