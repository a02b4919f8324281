//! The byte budget that every request is charged to before memory is taken for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A budget of bytes shared by everything that holds request data.
///
/// Cloning is cheap and gives another handle on the same budget.
#[derive(Clone, Debug)]
pub struct Admission {
    meter: Arc<Meter>,
}

#[derive(Debug)]
struct Meter {
    limit: AtomicU64,
    used: AtomicU64,
    /// What it is a part of: charged as well, and first.
    whole: Option<Arc<Meter>>,
}

/// The budget has no room for this many bytes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory budget of {limit} bytes has {used} in use and no room for {wanted} more")]
pub struct Overloaded {
    /// Bytes asked for.
    pub wanted: u64,
    /// Bytes in use when they were asked for.
    pub used: u64,
    /// The whole budget.
    pub limit: u64,
}

/// A charge against an [`Admission`], given back when dropped.
pub struct Permit {
    meter: Arc<Meter>,
    bytes: u64,
}

// === impl Admission ===

impl Admission {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self::within(limit, None)
    }

    /// A budget of at most `limit` bytes of this one, for one of those who share it.
    pub fn part(&self, limit: u64) -> Self {
        Self::within(limit, Some(Arc::clone(&self.meter)))
    }

    fn within(limit: u64, whole: Option<Arc<Meter>>) -> Self {
        let meter = Meter { limit: AtomicU64::new(limit), used: AtomicU64::new(0), whole };
        Self { meter: Arc::new(meter) }
    }

    /// Looks whether `bytes` would fit now, and charges nothing.
    pub fn has_room(&self, bytes: u64) -> Result<(), Overloaded> {
        let mut meter = Some(&self.meter);
        while let Some(looked_at) = meter {
            looked_at.fits(bytes)?;
            meter = looked_at.whole.as_ref();
        }
        Ok(())
    }

    /// Charges `bytes` to the budget, or says that it is full; a full budget is left as it was.
    pub fn try_reserve(&self, bytes: u64) -> Result<Permit, Overloaded> {
        self.meter.charge(bytes)?;
        Ok(Permit { meter: Arc::clone(&self.meter), bytes })
    }

    /// A permit of no bytes, to be grown later.
    pub fn empty(&self) -> Permit {
        Permit { meter: Arc::clone(&self.meter), bytes: 0 }
    }

    /// Bytes charged now.
    pub fn used(&self) -> u64 {
        self.meter.used.load(Ordering::Relaxed)
    }

    /// The whole budget.
    pub fn limit(&self) -> u64 {
        self.meter.limit.load(Ordering::Relaxed)
    }

    /// Changes the budget; what is charged stays charged, so `used` may stand above a lowered limit for a
    /// while.
    pub fn set_limit(&self, limit: u64) {
        self.meter.limit.store(limit, Ordering::Relaxed);
    }
}

impl Meter {
    fn fits(&self, wanted: u64) -> Result<(), Overloaded> {
        let (limit, used) = (self.limit.load(Ordering::Relaxed), self.used.load(Ordering::Relaxed));
        let fits = used.checked_add(wanted).is_some_and(|total| total <= limit);
        if fits { Ok(()) } else { Err(Overloaded { wanted, used, limit }) }
    }

    fn charge(&self, wanted: u64) -> Result<(), Overloaded> {
        if let Some(whole) = &self.whole {
            whole.charge(wanted)?;
        }
        self.charge_alone(wanted).inspect_err(|_| {
            if let Some(whole) = &self.whole {
                whole.refund(wanted);
            }
        })
    }

    fn charge_alone(&self, wanted: u64) -> Result<(), Overloaded> {
        let limit = self.limit.load(Ordering::Relaxed);
        let room = |used: u64| used.checked_add(wanted).filter(|total| *total <= limit);
        // Relaxed is enough: the counter guards a quantity, it does not publish other memory.
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .map(|_| ())
            .map_err(|used| Overloaded { wanted, used, limit })
    }

    fn refund(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.refund(bytes);
        }
    }
}

// === impl Permit ===

impl Permit {
    /// Bytes this permit stands for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Charges `more` bytes to the same budget; on failure the permit is as it was.
    pub fn grow(&mut self, more: u64) -> Result<(), Overloaded> {
        self.meter.charge(more)?;
        self.bytes += more;
        Ok(())
    }

    /// Gives `less` bytes back, at most all of them.
    pub fn shrink(&mut self, less: u64) {
        let less = less.min(self.bytes);
        self.bytes -= less;
        self.meter.refund(less);
    }

    /// Cuts `bytes` (at most all of them) off into a permit of their own.
    pub fn split(&mut self, bytes: u64) -> Permit {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Permit { meter: Arc::clone(&self.meter), bytes }
    }

    /// Takes over the charge of `other`, which must come from the same budget: a permit of another budget
    /// is handed back, because its bytes have to be refunded where they were charged.
    pub fn absorb(&mut self, mut other: Permit) -> Result<(), Permit> {
        if !Arc::ptr_eq(&self.meter, &other.meter) {
            return Err(other);
        }
        self.bytes += std::mem::take(&mut other.bytes);
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.meter.refund(self.bytes);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("bytes", &self.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_gives_back_what_it_took() {
        let budget = Admission::new(100);
        let mut permit = budget.try_reserve(60).unwrap();
        assert_eq!(
            budget.try_reserve(41).unwrap_err(),
            Overloaded { wanted: 41, used: 60, limit: 100 }
        );
        permit.grow(40).unwrap();
        assert!(permit.grow(1).is_err());
        let part = permit.split(30);
        assert_eq!((permit.bytes(), part.bytes(), budget.used()), (70, 30, 100));
        permit.shrink(1000);
        assert_eq!(budget.used(), 30);
        permit.absorb(part).unwrap();
        assert_eq!(permit.bytes(), 30);
        drop(permit);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_sum_that_overflows_is_refused() {
        let budget = Admission::new(u64::MAX);
        let _all = budget.try_reserve(u64::MAX).unwrap();
        assert!(budget.try_reserve(1).is_err());
    }

    #[test]
    fn budgets_do_not_mix() {
        let (one, two) = (Admission::new(10), Admission::new(10));
        let mut permit = one.try_reserve(5).unwrap();
        let foreign = permit.absorb(two.try_reserve(5).unwrap()).unwrap_err();
        assert_eq!((one.used(), two.used(), foreign.bytes()), (5, 5, 5));
    }

    #[test]
    fn a_part_is_charged_to_the_whole_and_cannot_have_more_than_its_share() {
        let whole = Admission::new(100);
        let (one, other) = (whole.part(60), whole.part(60));
        let held = one.try_reserve(60).unwrap();
        assert_eq!((whole.used(), one.used()), (60, 60));
        // Its own share is spent; the other finds that the whole has less left than its share.
        assert_eq!(one.try_reserve(1).unwrap_err(), Overloaded { wanted: 1, used: 60, limit: 60 });
        assert_eq!(
            other.has_room(41).unwrap_err(),
            Overloaded { wanted: 41, used: 60, limit: 100 }
        );
        assert!(other.try_reserve(41).is_err() && other.has_room(40).is_ok());
        assert_eq!((whole.used(), other.used()), (60, 0), "what is refused is charged nowhere");
        drop(held);
        assert_eq!((whole.used(), one.used()), (0, 0));
    }
}
