//! A manifest as it grows: fields in the order in which people read them, each with the place of the
//! Collector's configuration that it comes from.

use ringtail_crds::schema;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::report::{Place, Report};

/// The parts of a manifest in the order in which it is told; others follow.
const ORDER: [&str; 8] =
    ["agent", "routing", "gateway", "sampling", "spanMetrics", "logs", "redaction", "exporters"];

/// A value that keeps the order of its fields.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Text(String),
    Number(i64),
    Truth(bool),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

/// `spec` of the manifest, so far.
#[derive(Debug, Default)]
pub(super) struct Draft {
    fields: Vec<(String, Tree)>,
    origins: Vec<(String, Place)>,
}

// === impl Tree ===

impl Tree {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn texts(texts: impl IntoIterator<Item = String>) -> Self {
        Self::List(texts.into_iter().map(Self::Text).collect())
    }

    pub(super) fn map<const N: usize>(fields: [(&str, Self); N]) -> Self {
        Self::Map(fields.into_iter().map(|(name, tree)| (name.to_owned(), tree)).collect())
    }

    /// A map with one more field.
    pub(super) fn with(mut self, name: &str, tree: Self) -> Self {
        if let Self::Map(fields) = &mut self {
            fields.push((name.to_owned(), tree));
        }
        self
    }

    /// A map with one more field, if there is a value for it.
    pub(super) fn with_some(self, name: &str, tree: Option<Self>) -> Self {
        match tree {
            Some(tree) => self.with(name, tree),
            None => self,
        }
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Truth(truth) => serializer.serialize_bool(*truth),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Map(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(name, tree)| map.serialize_entry(name, tree))?;
                map.end()
            }
        }
    }
}

// === impl Draft ===

impl Draft {
    /// Sets a field of `spec`, if this version of Ringtail has it; else it goes into the report.
    pub(super) fn set(&mut self, report: &mut Report, path: &str, tree: Tree, place: &Place) {
        if !schema::knows(&format!("spec.{path}")) {
            report.lost(place, format!("this version of Ringtail has no spec.{path}"));
            return;
        }
        self.origins.push((format!("spec.{path}"), place.clone()));
        put(&mut self.fields, path, tree);
    }

    /// Where in the configuration a field of the manifest comes from, or the nearest one above it.
    pub(super) fn origin(&self, path: &str) -> Option<&Place> {
        let above = self.origins.iter().filter(|(known, _)| path.starts_with(known.as_str()));
        above.max_by_key(|(known, _)| known.len()).map(|(_, place)| place)
    }

    /// The text that a field of `spec` has by now.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let (mut fields, mut found) = (&self.fields, None);
        for step in path.split('.') {
            let (_, tree) = fields.iter().find(|(name, _)| name == step)?;
            match tree {
                Tree::Map(inner) => fields = inner,
                Tree::Text(text) => found = Some(text.clone()),
                _ => {}
            }
        }
        found
    }

    /// Says where an entry of a list comes from.
    pub(super) fn note_origin(&mut self, path: String, place: &Place) {
        self.origins.push((path, place.clone()));
    }

    /// The whole manifest, with these policies and exporters.
    pub(super) fn manifest(&self, name: &str, policies: &[Tree], exporters: &[Tree]) -> Tree {
        let mut fields = self.fields.clone();
        put(&mut fields, "sampling.policies", Tree::List(policies.to_vec()));
        put(&mut fields, "exporters", Tree::List(exporters.to_vec()));
        let rank = |name: &str| ORDER.iter().position(|known| *known == name);
        fields.sort_by_key(|(name, _)| rank(name).unwrap_or(ORDER.len()));
        Tree::map([
            ("apiVersion", Tree::text(schema::API_VERSION)),
            ("kind", Tree::text(schema::KIND)),
            ("metadata", Tree::map([("name", Tree::text(name))])),
            ("spec", Tree::Map(fields)),
        ])
    }
}

fn put(fields: &mut Vec<(String, Tree)>, path: &str, tree: Tree) {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let at = match fields.iter().position(|(known, _)| known == name) {
        Some(at) => at,
        None => {
            fields.push((name.to_owned(), Tree::Map(Vec::new())));
            fields.len() - 1
        }
    };
    let Some((_, slot)) = fields.get_mut(at) else { return };
    match (rest, slot) {
        (None, slot) => *slot = tree,
        (Some(rest), Tree::Map(inner)) => put(inner, rest, tree),
        // A field that was set as a whole is not taken apart again.
        (Some(_), _) => {}
    }
}
