//! Which events of a watch mean a change, deletions and missed deletions included.
//!
//! kube's predicates forget that an object is gone: a deletion need not change what they look at, and one
//! that happened while the watch was away has no event at all. Here a list that no longer has an object
//! says so.

use std::collections::HashMap;

use kube::{
    Resource,
    api::ObjectMeta,
    runtime::{reflector::ObjectRef, watcher::Event},
};

use crate::stores::Guarded;

/// An object that changed, by its namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The pipeline that it belongs to, or belonged to before.
    pub owner: Option<ObjectRef<Guarded>>,
}

/// What has been seen of the objects of one watch.
pub struct Changes<K> {
    print: fn(&K) -> u64,
    owner: fn(&ObjectMeta) -> Option<ObjectRef<Guarded>>,
    seen: HashMap<(String, String), Seen>,
    // Filled by a list that is under way.
    listed: HashMap<(String, String), Seen>,
}

#[derive(Clone)]
struct Seen {
    print: u64,
    owner: Option<ObjectRef<Guarded>>,
}

// === impl Changes ===

impl<K: Resource> Changes<K> {
    /// Objects with the same print are the same.
    pub fn new(print: fn(&K) -> u64, owner: fn(&ObjectMeta) -> Option<ObjectRef<Guarded>>) -> Self {
        Self { print, owner, seen: HashMap::new(), listed: HashMap::new() }
    }

    /// What the event changes.
    pub fn observe(&mut self, event: &Event<K>) -> Vec<Touched> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                let (key, seen) = self.look_at(object);
                self.listed.insert(key.clone(), seen.clone());
                self.remember(key, seen)
            }
            Event::InitDone => self.end_list(),
            Event::Apply(object) => {
                let (key, seen) = self.look_at(object);
                self.remember(key, seen)
            }
            Event::Delete(object) => {
                let (key, seen) = self.look_at(object);
                let owner = self.seen.remove(&key).map_or(seen.owner, |before| before.owner);
                vec![touched(key, owner)]
            }
        }
    }

    fn look_at(&self, object: &K) -> ((String, String), Seen) {
        let meta = object.meta();
        let key =
            (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        (key, Seen { print: (self.print)(object), owner: (self.owner)(meta) })
    }

    fn remember(&mut self, key: (String, String), seen: Seen) -> Vec<Touched> {
        let before = self.seen.insert(key.clone(), seen.clone());
        match before {
            Some(before) if before.print == seen.print => Vec::new(),
            // Whoever takes away the label that names the pipeline has changed that pipeline's child.
            Some(before) if before.owner != seen.owner => {
                vec![touched(key.clone(), before.owner), touched(key, seen.owner)]
            }
            _ => vec![touched(key, seen.owner)],
        }
    }

    fn end_list(&mut self) -> Vec<Touched> {
        let listed = std::mem::take(&mut self.listed);
        let seen = std::mem::replace(&mut self.seen, listed);
        let gone = seen.into_iter().filter(|(key, _)| !self.seen.contains_key(key));
        gone.map(|(key, seen)| touched(key, seen.owner)).collect()
    }
}

fn touched((namespace, name): (String, String), owner: Option<ObjectRef<Guarded>>) -> Touched {
    Touched { namespace, name, owner }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(name: &str, print: &str) -> ConfigMap {
        let meta = ObjectMeta {
            namespace: Some("ns".to_owned()),
            name: Some(name.to_owned()),
            resource_version: Some(print.to_owned()),
            ..ObjectMeta::default()
        };
        ConfigMap { metadata: meta, ..ConfigMap::default() }
    }

    fn print(object: &ConfigMap) -> u64 {
        object.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default()
    }

    #[test]
    fn tells_changes_deletions_and_missed_deletions() {
        let mut changes = Changes::new(print, |_| None);
        let steps = [
            ("list begins", Event::Init, ""),
            ("first", Event::InitApply(object("a", "1")), "a"),
            ("second", Event::InitApply(object("b", "1")), "b"),
            ("list ends", Event::InitDone, ""),
            ("same", Event::Apply(object("a", "1")), ""),
            ("changed", Event::Apply(object("a", "2")), "a"),
            ("list begins again", Event::Init, ""),
            ("as before", Event::InitApply(object("a", "2")), ""),
            ("b went while nobody looked", Event::InitDone, "b"),
            ("deleted without a change", Event::Delete(object("a", "2")), "a"),
            ("made again", Event::Apply(object("a", "2")), "a"),
        ];
        for (step, event, wanted) in steps {
            let names: Vec<_> = changes.observe(&event).into_iter().map(|t| t.name).collect();
            assert_eq!(names.join(","), wanted, "{step}");
        }
    }
}
