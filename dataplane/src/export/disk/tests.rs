//! The queue beside a model, on files that fail as disks do: writes that are torn, bits that flip, no room,
//! errors, and processes that are killed at any point.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;

/// What a disk does with the next writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    /// Half of what is appended is written, then it fails.
    Torn,
    /// No room.
    Full,
    /// Every call fails.
    Dead,
}

#[derive(Debug)]
struct Platter {
    segments: BTreeMap<u64, Vec<u8>>,
    mood: Mood,
}

/// Files in memory that outlive the queue, as those of a disk do.
#[derive(Clone, Debug)]
struct Faulty(Arc<Mutex<Platter>>);

impl Faulty {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Platter { segments: BTreeMap::new(), mood: Mood::Well })))
    }

    fn set(&self, mood: Mood) {
        self.0.lock().unwrap().mood = mood;
    }

    /// Flips a bit somewhere, and says whether there was something to flip.
    fn flip(&self, place: usize, bit: u8) -> bool {
        let mut platter = self.0.lock().unwrap();
        let total: usize = platter.segments.values().map(Vec::len).sum();
        if total == 0 {
            return false;
        }
        let mut at = place % total;
        for bytes in platter.segments.values_mut() {
            if at < bytes.len() {
                bytes[at] ^= 1 << (bit % 8);
                return true;
            }
            at -= bytes.len();
        }
        false
    }

    fn bytes(&self) -> u64 {
        self.0.lock().unwrap().segments.values().map(|bytes| bytes.len() as u64).sum()
    }
}

fn broken() -> io::Error {
    io::Error::other("the test says so")
}

impl Files for Faulty {
    fn list(&self) -> io::Result<Vec<(u64, u64)>> {
        let platter = self.0.lock().unwrap();
        Ok(platter.segments.iter().map(|(number, bytes)| (*number, bytes.len() as u64)).collect())
    }

    fn append(&mut self, segment: u64, bytes: &[u8]) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        let written = match platter.mood {
            Mood::Well => bytes.len(),
            Mood::Torn => bytes.len() / 2,
            Mood::Full => 0,
            Mood::Dead => return Err(broken()),
        };
        let file = platter.segments.entry(segment).or_default();
        file.extend_from_slice(&bytes[..written]);
        if written < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn mark(&mut self, segment: u64, offset: u64, byte: u8) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        if platter.mood == Mood::Dead {
            return Err(broken());
        }
        let bytes = platter.segments.get_mut(&segment).ok_or_else(broken)?;
        *bytes.get_mut(offset as usize).ok_or_else(broken)? = byte;
        Ok(())
    }

    fn read(&self, segment: u64, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let platter = self.0.lock().unwrap();
        if platter.mood == Mood::Dead {
            return Err(broken());
        }
        let bytes = platter.segments.get(&segment).ok_or_else(broken)?;
        let from = (offset as usize).min(bytes.len());
        Ok(bytes[from..(from + length).min(bytes.len())].to_vec())
    }

    fn sync(&mut self, _segment: u64) -> io::Result<()> {
        if self.0.lock().unwrap().mood == Mood::Dead { Err(broken()) } else { Ok(()) }
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        if platter.mood == Mood::Dead {
            return Err(broken());
        }
        platter.segments.remove(&segment).map(drop).ok_or_else(broken)
    }
}

const LIMIT: u64 = 16 << 20;

fn request(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(length.max(4), number as u8);
    bytes
}

fn number(request: &[u8]) -> u32 {
    u32::from_le_bytes(*request.first_chunk().unwrap())
}

/// Everything that comes next.
fn rest(queue: &mut DiskQueue<Faulty>) -> Vec<Stored> {
    let requests = std::iter::from_fn(|| queue.next());
    requests
        .filter_map(|next| match next {
            Next::Request(stored) => Some(stored),
            Next::Lost(_) => None,
        })
        .collect()
}

fn numbers(stored: &[Stored]) -> Vec<u32> {
    stored.iter().map(|stored| number(&stored.request)).collect()
}

#[test]
fn what_is_written_comes_out_in_order_and_its_files_go() {
    let files = Faulty::new();
    let mut queue = DiskQueue::open(files.clone(), LIMIT);
    for number in 0..100 {
        queue.append(2, &request(number, 50_000), false).unwrap();
    }
    assert!(!queue.is_read() && queue.segments.len() > 3);
    let stored = rest(&mut queue);
    assert_eq!(numbers(&stored), (0..100).collect::<Vec<_>>());
    assert!(stored.iter().all(|stored| stored.spans == 2 && !stored.is_recovered));
    stored.iter().for_each(|stored| queue.done(stored.id));
    // Only the segment that is written stays.
    assert_eq!(queue.segments.len(), 1);
    assert!(queue.is_read());
}

#[test]
fn a_process_that_was_killed_leaves_what_was_not_done() {
    let files = Faulty::new();
    let mut queue = DiskQueue::open(files.clone(), LIMIT);
    let ids: Vec<_> =
        (0..10).map(|number| queue.append(1, &request(number, 9), true).unwrap()).collect();
    ids.iter().step_by(2).for_each(|id| queue.done(*id));
    drop(queue);
    let mut next = DiskQueue::open(files.clone(), LIMIT);
    next.append(1, &request(10, 9), false).unwrap();
    let stored = rest(&mut next);
    assert_eq!(numbers(&stored), [1, 3, 5, 7, 9, 10]);
    let recovered: Vec<bool> = stored.iter().map(|stored| stored.is_recovered).collect();
    assert_eq!(recovered, [true, true, true, true, true, false]);
    stored.iter().for_each(|stored| next.done(stored.id));
    drop(next);
    assert!(rest(&mut DiskQueue::open(files, LIMIT)).is_empty());
}

#[test]
fn a_queue_has_so_many_bytes() {
    let mut queue = DiskQueue::open(Faulty::new(), LIMIT);
    let mut written = 0;
    while queue.append(1, &request(written, 100_000), false).is_ok() {
        written += 1;
    }
    assert!(queue.bytes() <= LIMIT && queue.bytes() > LIMIT - 200_000, "{}", queue.bytes());
    let refused = queue.append(1, &request(written, 100_000), false).unwrap_err();
    assert!(matches!(refused, DiskError::Full), "{refused}");
    // Room comes back a segment at a time.
    for _ in 0..20 {
        let Some(Next::Request(stored)) = queue.next() else { panic!("a request") };
        queue.done(stored.id);
    }
    queue.append(1, &request(written, 100_000), false).unwrap();
}

#[test]
fn a_head_that_lies_is_searched_past() {
    let files = Faulty::new();
    let mut queue = DiskQueue::open(files.clone(), LIMIT);
    for number in 0..3 {
        // The request of the second one holds a magic that is none.
        let mut bytes = request(number, 200);
        bytes[100..104].copy_from_slice(&MAGIC);
        queue.append(1, &bytes, false).unwrap();
    }
    // In the length of the second record.
    assert!(files.flip(HEAD_BYTES + 200 + 9, 3));
    drop(queue);
    let mut queue = DiskQueue::open(files, LIMIT);
    assert_eq!(numbers(&rest(&mut queue)), [0, 2]);
    assert_eq!(queue.corrupt, 1);
}

#[test]
fn spans_that_a_dead_disk_took_are_told_as_lost() {
    let files = Faulty::new();
    let mut queue = DiskQueue::open(files.clone(), LIMIT);
    for number in 0..4 {
        queue.append(5, &request(number, 600_000), false).unwrap();
    }
    files.set(Mood::Dead);
    let mut lost = 0;
    while let Some(next) = queue.next() {
        let Next::Lost(spans) = next else { panic!("{next:?}") };
        lost += spans;
    }
    // The segment that is written is told when it is left.
    files.set(Mood::Well);
    for number in 4..8 {
        queue.append(5, &request(number, 600_000), false).unwrap();
    }
    let mut found = 0;
    while let Some(next) = queue.next() {
        match next {
            Next::Lost(spans) => lost += spans,
            Next::Request(stored) => found += stored.spans,
        }
    }
    assert_eq!(lost + found + queue.segments.values().map(|one| one.unread_spans).sum::<u64>(), 40);
    assert!(lost > 0 && found > 0, "{lost} {found}");
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    Append(usize),
    Take,
    Done(usize),
    Mood(Mood),
    Flip(usize, u8),
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let mood = prop::sample::select(vec![
        Mood::Well,
        Mood::Well,
        Mood::Well,
        Mood::Torn,
        Mood::Full,
        Mood::Dead,
    ]);
    prop_oneof![
        8 => (4_usize..200_000).prop_map(Step::Append),
        6 => Just(Step::Take),
        4 => any::<usize>().prop_map(Step::Done),
        2 => mood.prop_map(Step::Mood),
        1 => (any::<usize>(), any::<u8>()).prop_map(|(place, bit)| Step::Flip(place, bit)),
        1 => Just(Step::Kill),
    ]
}

/// What must have become of every request.
#[derive(Debug, Default)]
struct Model {
    /// Written, by number, with its length.
    written: BTreeMap<u32, usize>,
    /// Handed out, in this process, and not done.
    out: Vec<Stored>,
    done: BTreeSet<u32>,
    /// Handed out at least once.
    seen: BTreeSet<u32>,
    /// A bit was flipped, or a call failed: something may be lost or come twice.
    is_harmed: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_keeps_what_its_disk_keeps(steps in prop::collection::vec(step(), 1..80)) {
        let files = Faulty::new();
        let mut queue = DiskQueue::open(files.clone(), LIMIT);
        let mut model = Model::default();
        let mut mood = Mood::Well;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append(length) => {
                    let number = number as u32;
                    match queue.append(1, &request(number, length), false) {
                        Ok(_) => drop(model.written.insert(number, length)),
                        Err(DiskError::Full) => prop_assert!(queue.bytes() + 200_100 > LIMIT),
                        Err(DiskError::Io(_)) => prop_assert_ne!(mood, Mood::Well),
                    }
                }
                Step::Take => match queue.next() {
                    Some(Next::Request(stored)) => take(stored, &mut model)?,
                    Some(Next::Lost(_)) => prop_assert!(model.is_harmed),
                    None => {}
                },
                Step::Done(index) if !model.out.is_empty() => {
                    let stored = model.out.swap_remove(index % model.out.len());
                    queue.done(stored.id);
                    model.done.insert(super::tests::number(&stored.request));
                }
                Step::Done(_) => {}
                Step::Mood(next) => {
                    mood = next;
                    model.is_harmed |= next == Mood::Dead;
                    files.set(next);
                }
                Step::Flip(place, bit) => model.is_harmed |= files.flip(place, bit),
                Step::Kill => {
                    model.out.clear();
                    queue = DiskQueue::open(files.clone(), LIMIT);
                }
            }
            prop_assert!(files.bytes() <= LIMIT, "{}", files.bytes());
        }
        files.set(Mood::Well);
        finish(queue, &files, model)?;
    }
}

/// A request that is handed out was written just so, and is not done unless the disk lies.
fn take(stored: Stored, model: &mut Model) -> Result<(), TestCaseError> {
    let number = number(&stored.request);
    let length = model.written.get(&number).copied();
    prop_assert_eq!(Some(stored.request.len()), length, "{}", number);
    prop_assert_eq!(&stored.request, &request(number, stored.request.len()));
    prop_assert!(
        model.is_harmed || !model.done.contains(&number),
        "{} came after it was done",
        number
    );
    model.seen.insert(number);
    model.out.push(stored);
    Ok(())
}

/// Everything that was written comes out at least once, in this process or the next.
fn finish(
    mut queue: DiskQueue<Faulty>,
    files: &Faulty,
    mut model: Model,
) -> Result<(), TestCaseError> {
    while let Some(next) = queue.next() {
        if let Next::Request(stored) = next {
            take(stored, &mut model)?;
        }
    }
    if !model.is_harmed {
        let written: BTreeSet<u32> = model.written.keys().copied().collect();
        let missing: Vec<&u32> = written.difference(&model.seen).collect();
        prop_assert!(missing.is_empty(), "{missing:?} never came");
    }
    for stored in std::mem::take(&mut model.out) {
        queue.done(stored.id);
    }
    drop(queue);
    let mut next = DiskQueue::open(files.clone(), LIMIT);
    let again = rest(&mut next);
    prop_assert!(model.is_harmed || again.is_empty(), "{} came again", again.len());
    Ok(())
}
