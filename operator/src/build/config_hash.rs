//! What a tier's processes read only when they start, as a hash: pods restart when it changes, and only then.

use ringtail_crds::manifest::{self, startup_settings};

use super::{Inputs, hash, tier::Tier};

/// The hash of a tier. Policies are not in it: running pods take them over.
pub(super) fn of(inputs: &Inputs<'_>, tier: Tier) -> String {
    let reader = match tier {
        Tier::Agent => manifest::Tier::Agent,
        Tier::Gateway => manifest::Tier::Gateway,
    };
    // Whatever passed validation can be written.
    let settings = startup_settings(inputs.pipeline, reader).unwrap_or_default();
    hash::short(format!("{settings}\nseed: {}\n", inputs.live.seed_hash))
}
