//! What stands in place of the demo in a binary that is built without it: nothing, under the same names.

use std::convert::Infallible;
use std::time::Duration;

use ringtail_crds::ValidPipeline;
use tokio::time::Instant;

use super::RunOptions;
use super::balance::FleetLedger;
use super::control::Command;
use super::fleet::Fleet;
use super::plan::Plan;
use super::screen::Screen;
use super::table::Truth;

/// Cannot be made.
#[derive(Debug)]
pub struct Demo(Infallible);

/// Cannot happen.
#[derive(Debug, thiserror::Error)]
#[error("the demo is not built in")]
pub struct DemoError(Infallible);

// === impl Demo ===

impl Demo {
    /// Never opens.
    pub async fn open(_: &RunOptions, _: &ValidPipeline) -> Result<Option<Self>, DemoError> {
        Ok(None)
    }

    /// Never asked.
    pub fn exports(&self) -> impl Iterator<Item = String> + use<> {
        std::iter::empty()
    }

    /// Never called.
    pub fn start_shop(
        &mut self,
        _: &Fleet,
        _: &Plan,
        _: Option<Duration>,
    ) -> Result<String, DemoError> {
        match self.0 {}
    }

    /// Never called.
    pub fn next_step(&self) -> Option<Instant> {
        match self.0 {}
    }

    /// Never called.
    pub fn take_step(&mut self) -> Option<Command> {
        match self.0 {}
    }

    /// Never called.
    pub fn truth(&mut self) -> Option<Truth> {
        match self.0 {}
    }

    /// Never called.
    pub async fn close_shop(&mut self) {}

    /// Never called.
    pub async fn judge(self, _: &Fleet, _: &FleetLedger, _: &mut Screen) -> bool {
        match self.0 {}
    }
}
