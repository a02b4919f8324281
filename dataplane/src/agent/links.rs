//! The links of an agent by their index: a table whose places are used again when candidates come and go.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::link::Link;
use super::splitter::{LinkIndex, Sealed};

/// A link a place; a place without one waits for the next link.
///
/// Readers take no lock. Writers must be one at a time, which is the caller's to see to.
#[derive(Debug, Default)]
pub struct LinkTable {
    places: ArcSwap<Vec<Option<Arc<Link>>>>,
}

// === impl LinkTable ===

impl LinkTable {
    /// All places.
    pub fn places(&self) -> Arc<Vec<Option<Arc<Link>>>> {
        self.places.load_full()
    }

    /// The links there are.
    pub fn all(&self) -> Vec<Arc<Link>> {
        self.places.load().iter().flatten().map(Arc::clone).collect()
    }

    /// The link at `index`.
    pub fn at(&self, index: LinkIndex) -> Option<Arc<Link>> {
        self.places.load().get(index).cloned().flatten()
    }

    /// Makes a link at the first free place, and the queue that its task reads.
    pub fn add(&self, endpoint: &str) -> (Arc<Link>, mpsc::UnboundedReceiver<Sealed>) {
        let mut places = Vec::clone(&self.places.load());
        let free = places.iter().position(Option::is_none).unwrap_or(places.len());
        let (link, queue) = Link::new(free, endpoint.to_owned());
        let link = Arc::new(link);
        if free == places.len() {
            places.push(None);
        }
        places[free] = Some(Arc::clone(&link));
        self.places.store(Arc::new(places));
        (link, queue)
    }

    /// Frees the place of a link.
    pub fn remove(&self, index: LinkIndex) {
        let mut places = Vec::clone(&self.places.load());
        if let Some(place) = places.get_mut(index) {
            *place = None;
        }
        self.places.store(Arc::new(places));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again() {
        let table = LinkTable::default();
        let indices: Vec<_> = ["a:1", "b:1", "c:1"].map(|at| table.add(at).0.index).into();
        assert_eq!(indices, [0, 1, 2]);
        table.remove(1);
        assert_eq!((table.all().len(), table.places().len()), (2, 3));
        assert!(table.at(1).is_none());
        assert_eq!(table.add("d:1").0.index, 1);
        assert_eq!(table.at(1).unwrap().endpoint, "d:1");
    }
}
