//! What a gateway tells senders whose spans it does not take.

use std::time::Duration;

use crate::peer::messages::Wrong;
use crate::transport::Refusal;

/// What a refused sender is asked to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) fn wrong(error: Wrong) -> Refusal {
    Refusal::Malformed(error.to_string())
}

pub(super) fn no_holder() -> Refusal {
    let why =
        "this gateway is cut off from most others and cannot take spans now; send to another one";
    Refusal::Unavailable { message: why.to_owned(), retry_after: RETRY_AFTER }
}

pub(super) fn no_room() -> Refusal {
    let why = "the gateway's buffer is full; retry after the given delay, add gateways, or raise \
               their memory limit";
    Refusal::Unavailable { message: why.to_owned(), retry_after: RETRY_AFTER }
}

pub(super) fn stopping() -> Refusal {
    let why = "the gateway is stopping; send to another one";
    Refusal::Unavailable { message: why.to_owned(), retry_after: RETRY_AFTER }
}
