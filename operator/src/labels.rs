//! The labels and annotations of children, which selectors and people rely on.

use std::collections::BTreeMap;

/// Which pipeline a child belongs to.
pub const PIPELINE: &str = "ringtail.dev/pipeline";
/// The colour of a Deployment and its pods, with update strategy BlueGreen.
pub const COLOUR: &str = "ringtail.dev/colour";
/// Annotation of a pod template: what its processes were started with.
pub const CONFIG_HASH: &str = "ringtail.dev/config-hash";
/// Annotation of a Deployment or DaemonSet: which pod template it has, apart from its colour.
pub const TEMPLATE_HASH: &str = "ringtail.dev/template-hash";
/// Annotation of a child: a hash of what was applied last.
pub const APPLIED_HASH: &str = "ringtail.dev/applied-hash";
/// The tier of a child.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// The pipeline's name, for tools that know no more than the recommended labels.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Who takes care of it.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The operator, as it names itself in labels and as a field manager.
pub const OPERATOR: &str = "ringtail-operator";
/// Selects every child.
pub const SELECTOR: &str = "app.kubernetes.io/managed-by=ringtail-operator";

/// The tier that a child belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// Takes spans in.
    Agent,
    /// Decides.
    Gateway,
    /// Neither tier alone.
    Pipeline,
}

// === impl Component ===

impl Component {
    /// As in the label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Gateway => "gateway",
            Self::Pipeline => "pipeline",
        }
    }
}

/// The labels of a child, and of the pods of a child.
pub fn of(pipeline: &str, component: Component) -> BTreeMap<String, String> {
    let mut labels = selector(pipeline, component);
    labels.extend(
        [
            ("app.kubernetes.io/name", "ringtail"),
            (INSTANCE, pipeline),
            (MANAGED_BY, OPERATOR),
            ("app.kubernetes.io/part-of", "ringtail"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    labels
}

/// The labels that select the pods of a tier. Selectors cannot be changed, so there are only two.
pub fn selector(pipeline: &str, component: Component) -> BTreeMap<String, String> {
    [(PIPELINE, pipeline), (COMPONENT, component.name())]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}
