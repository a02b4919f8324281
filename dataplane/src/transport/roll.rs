//! Who is connected to a listener, and who has to go when it is full.
//!
//! Whoever has the most connections makes room for whoever has fewer: one client with ten thousand idle
//! connections, or a thousand with ten, cannot keep the next one out.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Notify;

use super::limits::ServerLimits;
use super::tally::Closed;

/// A connection on the roll.
#[derive(Debug)]
pub(super) struct Entry<A> {
    /// What goes on in it.
    pub(super) activity: Arc<A>,
    /// Notified when it has to go.
    pub(super) leave: Arc<Notify>,
    number: u64,
}

/// The connections of one listener, by the addresses that they come from.
#[derive(Debug)]
pub(super) struct Roll<A> {
    max: usize,
    max_of_one: usize,
    /// The oldest first.
    entries: HashMap<IpAddr, VecDeque<Entry<A>>>,
    total: usize,
    next: u64,
}

// === impl Roll ===

impl<A> Roll<A> {
    pub(super) fn new(limits: &ServerLimits) -> Self {
        Self {
            max: limits.max_connections,
            max_of_one: limits.max_connections_of_one,
            entries: HashMap::new(),
            total: 0,
            next: 0,
        }
    }

    /// Takes in a connection from `address`, after making room for it where somebody has more. `is_idle` says
    /// whether nothing is under way in a connection. Gives the connection's number, and whether another one
    /// has to go for it.
    ///
    /// # Errors
    /// When there is no room for it.
    pub(super) fn admit(
        &mut self,
        address: IpAddr,
        activity: Arc<A>,
        leave: Arc<Notify>,
        is_idle: impl Fn(&A) -> bool,
    ) -> Result<(u64, bool), Closed> {
        let of_one = self.entries.get(&address).map_or(0, VecDeque::len);
        if of_one >= self.max_of_one {
            return Err(Closed::TooManyOfOne);
        }
        let full = self.total >= self.max;
        if full && !self.make_room(of_one, is_idle) {
            return Err(Closed::TooMany);
        }
        let number = self.next;
        self.next += 1;
        let entry = Entry { activity, leave, number };
        self.entries.entry(address).or_default().push_back(entry);
        self.total += 1;
        Ok((number, full))
    }

    /// A connection has ended, or was told to go before.
    pub(super) fn remove(&mut self, address: IpAddr, number: u64) {
        let Some(list) = self.entries.get_mut(&address) else { return };
        let before = list.len();
        list.retain(|entry| entry.number != number);
        self.total -= before - list.len();
        if list.is_empty() {
            self.entries.remove(&address);
        }
    }

    /// Sends away the oldest idle connection of whoever has the most, if that is more than `fewer`.
    fn make_room(&mut self, fewer: usize, is_idle: impl Fn(&A) -> bool) -> bool {
        let most = self.entries.iter().max_by_key(|(_, list)| list.len());
        let Some(address) = most.filter(|(_, list)| list.len() > fewer).map(|(at, _)| *at) else {
            return false;
        };
        let Some(list) = self.entries.get_mut(&address) else { return false };
        let Some(place) = list.iter().position(|entry| is_idle(&entry.activity)) else {
            return false;
        };
        if let Some(entry) = list.remove(place) {
            entry.leave.notify_one();
            self.total -= 1;
        }
        if list.is_empty() {
            self.entries.remove(&address);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HONEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn greedy(number: u8) -> IpAddr {
        IpAddr::from([10, 1, 0, number])
    }

    /// A roll of 8, of which one address may have 4; an activity is whether it is idle.
    fn roll() -> Roll<bool> {
        let limits = ServerLimits {
            max_connections: 8,
            max_connections_of_one: 4,
            ..ServerLimits::default()
        };
        Roll::new(&limits)
    }

    fn admit(roll: &mut Roll<bool>, address: IpAddr, idle: bool) -> Result<(u64, bool), Closed> {
        roll.admit(address, Arc::new(idle), Arc::default(), |idle| *idle)
    }

    #[test]
    fn one_address_cannot_have_all() {
        let mut roll = roll();
        for number in 0..4 {
            assert_eq!(admit(&mut roll, greedy(0), true), Ok((number, false)));
        }
        assert_eq!(admit(&mut roll, greedy(0), true), Err(Closed::TooManyOfOne));
        assert_eq!(admit(&mut roll, HONEST, true), Ok((4, false)));
        roll.remove(greedy(0), 2);
        roll.remove(greedy(0), 2);
        assert_eq!(admit(&mut roll, greedy(0), true), Ok((5, false)));
    }

    #[test]
    fn the_greediest_makes_room_with_what_is_idle() {
        let mut roll = roll();
        for number in 0..8 {
            admit(&mut roll, greedy(number % 2), number > 1).unwrap();
        }
        // The oldest two have a call under way.
        assert_eq!(admit(&mut roll, HONEST, true), Ok((8, true)));
        assert_eq!(roll.total, 8);
        let left: Vec<usize> = (0..2).map(|number| roll.entries[&greedy(number)].len()).collect();
        assert_eq!(left.iter().sum::<usize>(), 7);
        // Who has as many as the greediest gets none.
        let most = if left[0] == 4 { greedy(0) } else { greedy(1) };
        assert_eq!(admit(&mut roll, most, true), Err(Closed::TooManyOfOne));
        // A connection that was sent away is off the roll before it has ended.
        roll.remove(greedy(0), 99);
        assert_eq!(roll.total, 8);
    }

    #[test]
    fn who_has_something_under_way_is_not_sent_away() {
        let mut roll = roll();
        for number in 0..8 {
            admit(&mut roll, greedy(number), false).unwrap();
        }
        assert_eq!(admit(&mut roll, HONEST, true), Err(Closed::TooMany));
        roll.remove(greedy(3), 3);
        assert_eq!(admit(&mut roll, HONEST, true), Ok((8, false)));
    }
}
