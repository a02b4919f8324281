//! The condition Programmed: whether running gateways use what the resource says.

use ringtail_crds::conditions::reason;

use super::{Observed, Verdict, spec::of_failure};
use crate::stats::view::{Loaded, View};

/// Names in a message.
const NAMED_MAX: usize = 3;

pub(super) fn programmed(observed: &Observed) -> Verdict {
    if let Some((category, message)) = &observed.failure {
        return Verdict::fails(of_failure(*category), message.clone());
    }
    let Some(hash) = &observed.config_hash else {
        let message = "an invalid resource is not loaded; gateways go on with what they have";
        return Verdict::fails(reason::INVALID_SPEC, message);
    };
    if observed.external_gateways {
        return Verdict::holds(reason::EXTERNAL, "somebody else configures the gateways");
    }
    match observed.view.as_ref() {
        Some(view) if view.answered > 0 => acknowledged(view, hash),
        _ => Verdict::unknown(reason::REPORTERS_MISSING, "no gateway says what it has loaded"),
    }
}

fn acknowledged(view: &View, hash: &str) -> Verdict {
    let refused = view.configs.iter().find(|loaded| loaded.hash != hash && loaded.error.is_some());
    if let Some(Loaded { pod, error: Some(error), .. }) = refused {
        return Verdict::fails(reason::CONFIG_REJECTED, format!("{pod} refuses it: {error}"));
    }
    let behind: Vec<_> = view.configs.iter().filter(|loaded| loaded.hash != hash).collect();
    let loaded = view.configs.len() - behind.len();
    if behind.is_empty() && view.answered == view.expected {
        let message = format!("{loaded}/{} gateways use it", view.expected);
        return Verdict::holds(reason::CONFIG_ACKNOWLEDGED, message);
    }
    let names: Vec<_> = behind.iter().take(NAMED_MAX).map(|loaded| loaded.pod.as_str()).collect();
    let waiting = if names.is_empty() {
        String::new()
    } else {
        format!("; waiting for {}", names.join(", "))
    };
    Verdict::fails(
        reason::CONFIG_PROPAGATING,
        format!("{loaded}/{} gateways use it{waiting}", view.expected),
    )
}
