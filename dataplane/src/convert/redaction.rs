//! What the gateways' processors take out of spans: `spec.redaction`.

use super::conversion::Conversion;
use super::report::Place;
use super::source::{Entry, Fields};
use super::tree::Tree;

/// What is redacted by all processors together.
#[derive(Debug, Default)]
pub(super) struct Redacted {
    remove: Vec<String>,
    hash: Vec<String>,
    mask: Vec<Tree>,
    allow_only: Option<Vec<String>>,
}

impl Conversion<'_> {
    /// A redaction processor.
    pub(super) fn redaction(&mut self, entry: &Entry<'_>) {
        let mut fields = Fields::of(entry, &mut self.report);
        let all = fields.take("allow_all_keys").and_then(|all| self.reader().truth(&all));
        let mut allowed = self.list(&mut fields, "allowed_keys");
        allowed.extend(self.list(&mut fields, "ignored_keys"));
        let keys = self.list(&mut fields, "blocked_key_patterns");
        let values = self.list(&mut fields, "blocked_values");
        for name in ["redact_all_types", "summary"] {
            let why = "values of all types are looked at, and nothing is written beside them";
            fields.built_in(name, &mut self.report, why);
        }
        fields.finish(&mut self.report);
        if all != Some(true) {
            self.redacted.allow_only.get_or_insert_default().extend(allowed);
        }
        let mask = |name: &str, text| Tree::map([(name, Tree::Text(text))]);
        self.redacted.mask.extend(keys.into_iter().map(|text| mask("keyPattern", text)));
        self.redacted.mask.extend(values.into_iter().map(|text| mask("valuePattern", text)));
        self.write_redaction(&entry.place);
    }

    fn list(&mut self, fields: &mut Fields<'_>, name: &str) -> Vec<String> {
        fields.take(name).map(|list| self.reader().texts(&list)).unwrap_or_default()
    }

    /// Actions on attributes of gateways: what takes something out is redaction.
    pub(super) fn kept_attributes(&mut self, entry: &Entry<'_>, list: &str) {
        for action in entry.field(list).iter().flat_map(Entry::items) {
            let key = action.field("key").and_then(|key| self.reader().text(&key));
            let verb = action.field("action").and_then(|verb| self.reader().text(&verb));
            match (key, verb.as_deref()) {
                (Some(key), Some("delete")) => self.redacted.remove.push(key),
                (Some(key), Some("hash")) => self.redacted.hash.push(key),
                _ => {
                    let why = "gateways only take attributes out; agents change them";
                    self.report.lost(&action.place, why);
                    continue;
                }
            }
            let why = "policies see the attribute, and it goes from everything that is kept: spans, \
                       events, links and resources";
            self.report.differs(&action.place, why);
            self.write_redaction(&action.place);
        }
    }

    fn write_redaction(&mut self, place: &Place) {
        let Redacted { remove, hash, mask, allow_only } = &self.redacted;
        let list = |keys: &Vec<String>| (!keys.is_empty()).then(|| Tree::texts(keys.clone()));
        let masks = (!mask.is_empty()).then(|| Tree::List(mask.clone()));
        let tree = Tree::Map(Vec::new())
            .with_some("remove", list(remove))
            .with_some("hash", list(hash))
            .with_some("mask", masks)
            .with_some("allowOnly", allow_only.clone().map(Tree::texts));
        if tree != Tree::Map(Vec::new()) {
            self.draft.set(&mut self.report, "redaction", tree, place);
        }
    }
}
