//! Several manifests in one text: those that do not change keep every byte, comments included.

use serde_json::Value;

use super::InjectError;

/// One manifest of a text. `head` and `body` of all of them together are the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document<'a> {
    /// The line that separates it from the one before; empty for the first.
    pub(super) head: &'a str,
    /// The rest.
    pub(super) body: &'a str,
    line: usize,
}

/// The manifests of a text.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = vec![Document { head: "", body: "", line: 1 }];
    let (mut start, mut at) = (0, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let end = at + line.len();
        // Only a separator begins so at the margin: YAML forbids it within a text of several lines.
        if line.trim_end() == "---" || line.starts_with("--- ") {
            documents.push(Document { head: &text[at..end], body: "", line: index + 2 });
            start = end;
        }
        if let Some(document) = documents.last_mut() {
            document.body = &text[start..end];
        }
        at = end;
    }
    documents
}

// === impl Document ===

impl Document<'_> {
    /// As a tree; null if there is nothing in it.
    pub(super) fn value(&self) -> Result<Value, InjectError> {
        // As Kubernetes reads it, which is YAML 1.1 where that differs: 0440 is a number of base 8.
        let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
        let is_empty = |line: &str| line.trim().is_empty() || line.starts_with('#');
        if self.body.lines().all(is_empty) {
            return Ok(Value::Null);
        }
        serde_saphyr::from_str_with_options(self.body, options)
            .map_err(|error| self.problem(&error))
    }

    /// The tree as a text.
    pub(super) fn write(&self, value: &Value) -> Result<String, InjectError> {
        serde_saphyr::to_string(value).map_err(|error| self.problem(&error))
    }

    fn problem(&self, error: &dyn std::error::Error) -> InjectError {
        InjectError::Yaml { line: self.line, problem: error.to_string() }
    }
}
