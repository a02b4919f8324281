//! Unions of the schema: an object whose `type` says which one of its members is set.

use kube::core::{Reason, Rule};

/// The rule for the API server that `member` is set exactly when `type` is `kind`.
///
/// The offline check needs no such list: it takes every property whose name is a value of `type`, apart
/// from case, for a member. A test proves that both find the same members.
pub(crate) fn member(kind: &str, member: &str) -> Rule {
    Rule::new(format!("has(self.{member}) == (self.type == '{kind}')"))
        .message(format!("{member} must be set when type is {kind}, and only then").as_str())
        .reason(Reason::FieldValueInvalid)
        .field_path(format!(".{member}"))
}
