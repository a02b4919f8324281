//! The limits of the policy language; the schema of the manifest repeats them.

/// Policies in a list. A decision keeps one bit a policy in a `u64`, and so does the set of predicates that
/// the attributes of a span have matched: no policy has more than one predicate of its own.
pub const MAX_POLICIES: usize = 64;

/// Questions about spans and resources whose answers are bits of a `u64`.
pub const MAX_PREDICATES: usize = 64;

/// Bytes of a policy's name; it becomes a metric label, and Kubernetes' own label values end there too.
pub const MAX_NAME_BYTES: usize = 63;

/// Bytes of an attribute key; OpenTelemetry's own conventions stay below 64.
pub const MAX_KEY_BYTES: usize = 256;

/// Values or patterns in one string attribute policy.
pub const MAX_VALUES: usize = 128;

/// Bytes of one value or pattern. With the two limits above, the text of all policies is at most
/// 64 x 128 x 512 B = 4 MiB, which no ConfigMap (1 MiB) can hold anyway.
pub const MAX_VALUE_BYTES: usize = 512;

/// Bytes of the salt of a probabilistic policy.
pub const MAX_SALT_BYTES: usize = 256;

/// Memory of the compiled patterns of one policy. 64 policies take at most 64 MiB, and a pattern that needs
/// more than this is nearly always a large counted repetition of a Unicode class.
pub const MAX_REGEX_BYTES: usize = 1 << 20;

/// Memory that matching the patterns of one policy may use for its lazily built states, on each thread; past
/// it the states are thrown away and built again, which is slower and gives the same answers.
pub const MAX_REGEX_CACHE_BYTES: usize = 256 << 10;

/// Conditions in one OTTL policy, those on spans and those on events together. Each is asked of every span.
pub const MAX_CONDITIONS: usize = 32;

/// Bytes of one condition; the longest in published configurations stay below 1,000.
pub const MAX_CONDITION_BYTES: usize = 2048;

/// Brackets, functions and lists inside each other in one condition. Reading and asking one takes about a
/// dozen stack frames a level.
pub const MAX_CONDITION_DEPTH: usize = 32;

/// Calls of `IsMatch` in one OTTL policy: together they may take [`MAX_REGEX_BYTES`], 64 KiB each.
pub const MAX_CONDITION_PATTERNS: usize = 16;

/// Spans or bytes a second, and at once, in a budget: a million million, far above what any fleet moves.
pub const MAX_RATE: u64 = 1_000_000_000_000;
