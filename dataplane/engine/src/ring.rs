//! Members, views and owners: which gateway a trace belongs to.
//!
//! Every process that knows the same members under the same seed names the same owner, on every machine and
//! in every build of one ring version. Placement is rendezvous hashing: each member gets a score for the
//! key, the highest owns it, the next ones are its second and third choice. A member that joins takes only
//! the keys where it scores highest, a member that leaves gives up only its own.
//!
//! ```
//! use ringtail_engine::key::KeySeed;
//! use ringtail_engine::ring::{Member, View};
//!
//! let seed = KeySeed::new([7; 16]);
//! let members = ["gw-0", "gw-1", "gw-2"].map(|id| Member { id: id.to_owned(), inst: 1 });
//! let view = View::new(members.to_vec(), &seed);
//!
//! let key = seed.key(&[0xab; 16]);
//! let choices: Vec<usize> = view.ranked(key).collect();
//! assert_eq!(view.owner(key), choices.first().copied());
//! assert_eq!(choices.len(), 3);
//! ```

use std::cmp::Reverse;
use std::mem;

use siphasher::sip::SipHasher13;

use crate::key::{KeySeed, TraceKey, mix};

/// The version of everything that decides an owner: key, member hash, score and the order of ties. It is
/// part of the digest; a fleet uses the lowest version that all its members know.
pub const RING_VERSION: u32 = 1;

/// Set before a member's id when it is hashed under the seed. It makes the text longer than the 16 bytes of
/// a trace ID, so no member's hash equals the key of a trace.
const MEMBER_LABEL: &[u8] = b"ringtail.dev/member/";

/// A gateway that takes part in the ring.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// What the gateway calls itself; it alone decides placement, so that a restart moves no trace.
    pub id: String,
    /// Grows with every start of the gateway; it tells apart what two processes of one name held.
    pub inst: u64,
}

/// A set of members, ready to name owners.
#[derive(Debug, Clone)]
pub struct View {
    members: Vec<Member>,
    /// One hash a member, in the same order, close together: choosing an owner reads nothing else.
    hashes: Vec<u64>,
    digest: u64,
}

impl View {
    /// A view of these members in any order. Of several with the same id the one with the highest `inst`
    /// counts.
    pub fn new(mut members: Vec<Member>, seed: &KeySeed) -> Self {
        members.sort_unstable_by(|a, b| a.id.cmp(&b.id).then(b.inst.cmp(&a.inst)));
        members.dedup_by(|later, first| later.id == first.id);
        let hashes = members.iter().map(|member| member_hash(&member.id, seed)).collect();
        let digest = digest(&members, seed);
        Self { members, hashes, digest }
    }

    /// The members, sorted by id, each id once. Owners are places in this list.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is nobody to own anything.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The place of the member with this id.
    pub fn position(&self, id: &str) -> Option<usize> {
        self.members.binary_search_by(|member| member.id.as_str().cmp(id)).ok()
    }

    /// Equal in two processes exactly when they would name the same owners for the same instances.
    ///
    /// It covers [`RING_VERSION`], the seed's id and every (id, inst).
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The place of the key's owner; `None` when the view is empty.
    #[inline]
    pub fn owner(&self, key: TraceKey) -> Option<usize> {
        let (first, rest) = self.hashes.split_first()?;
        let mut best = score(*first, key);
        let mut owner = 0;
        for (index, hash) in rest.iter().enumerate() {
            let score = score(*hash, key);
            // Equal scores, which need equal member hashes, go to the smaller id.
            if score > best {
                best = score;
                owner = index + 1;
            }
        }
        Some(owner)
    }

    /// The first `N` places in order of preference for the key, as far as there are so many members: what
    /// [`View::ranked`] begins with, with one look at each member.
    pub fn first<const N: usize>(&self, key: TraceKey) -> [Option<usize>; N] {
        let mut best = [None; N];
        for (index, hash) in self.hashes.iter().enumerate() {
            // Equal scores stay in the order of ids.
            let mut next = Some((score(*hash, key), Reverse(index)));
            for known in &mut best {
                if next > *known {
                    mem::swap(known, &mut next);
                }
            }
        }
        best.map(|best| best.map(|(_, Reverse(index))| index))
    }

    /// All places in order of preference for the key, the owner first.
    ///
    /// Every step looks at all members once and allocates nothing, so the first few are cheap.
    pub fn ranked(&self, key: TraceKey) -> Ranked<'_> {
        Ranked { hashes: &self.hashes, key, last: None }
    }
}

/// The places of a view in order of preference for one key; made by [`View::ranked`].
#[derive(Debug, Clone)]
pub struct Ranked<'a> {
    hashes: &'a [u64],
    key: TraceKey,
    /// Score and place that came last; what comes next scores lower, or as much at a later place.
    last: Option<(u64, usize)>,
}

impl Iterator for Ranked<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let mut best: Option<(u64, usize)> = None;
        for (index, hash) in self.hashes.iter().enumerate() {
            let score = score(*hash, self.key);
            let follows = self.last.is_none_or(|(s, i)| score < s || (score == s && index > i));
            if follows && best.is_none_or(|(s, _)| score > s) {
                best = Some((score, index));
            }
        }
        self.last = best.or(self.last);
        best.map(|(_, index)| index)
    }
}

/// Whether the first of two ids comes before the second for a key, in any view that has both.
pub fn prefers(seed: &KeySeed, key: TraceKey, first: &str, second: &str) -> bool {
    let score_of = |id| score(member_hash(id, seed), key);
    let (one, other) = (score_of(first), score_of(second));
    one > other || (one == other && first < second)
}

/// How much a member wants a key.
#[inline]
const fn score(member_hash: u64, key: TraceKey) -> u64 {
    mix(member_hash ^ key.0)
}

/// The hash of a member: SipHash-1-3 under the seed of the label and the id.
fn member_hash(id: &str, seed: &KeySeed) -> u64 {
    seed.hash(&[MEMBER_LABEL, id.as_bytes()].concat())
}

/// SipHash-1-3 with an all-zero key (the digest is public) of, all integers little-endian:
/// ring version (4 bytes), seed id (8), number of members (4), then for each member in order of its id:
/// length of the id (4), the id, inst (8).
fn digest(members: &[Member], seed: &KeySeed) -> u64 {
    let mut bytes = Vec::with_capacity(16 + members.iter().map(|m| 12 + m.id.len()).sum::<usize>());
    bytes.extend_from_slice(&RING_VERSION.to_le_bytes());
    bytes.extend_from_slice(&seed.id().to_le_bytes());
    bytes.extend_from_slice(&(members.len() as u32).to_le_bytes());
    for member in members {
        bytes.extend_from_slice(&(member.id.len() as u32).to_le_bytes());
        bytes.extend_from_slice(member.id.as_bytes());
        bytes.extend_from_slice(&member.inst.to_le_bytes());
    }
    SipHasher13::new_with_keys(0, 0).hash(&bytes)
}

#[cfg(test)]
mod tests;
