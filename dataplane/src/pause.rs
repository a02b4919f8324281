//! Waiting for a moment that may not be set: one arm of many a `select!`.

use tokio::time::Instant;

/// Resolves at `at`, and never without one.
pub async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
