//! The times and permissions of directories, when everything below them is done.

use crate::proto::upload::UploadFacts;

use super::dir::Dir;
use super::error::{Error, shown};
use super::local::joined;
use super::plan::Plan;
use super::report::Report;
use super::work::retried;
use super::{Client, keep};

/// Those of a plan on this machine, below `target`, which messages write as `shown_target`.
pub fn here(plan: &Plan, target: &Dir, shown_target: &[u8], report: &Report) {
    // From below: permissions may close a directory.
    for stamp in plan.stamps.iter().rev() {
        let local = plan.local(stamp.pair, &stamp.path);
        // That one was not made was told.
        let Ok(dir) = target.below(&local) else {
            continue;
        };
        if let Err(error) = dir.stamp(stamp.modify_s, stamp.mode) {
            report.mention(format_args!(
                "{} does not keep its time: {error}",
                shown(&joined(shown_target, &local))
            ));
        }
    }
}

/// Those of a plan on the server, as far as it keeps them.
///
/// # Errors
/// No connection.
pub fn there(client: &mut Client, plan: &Plan, report: &Report) -> Result<(), Error> {
    if plan.stamps.is_empty() {
        return Ok(());
    }
    let dirs = plan.stamps.iter().rev().map(|stamp| {
        let facts = UploadFacts {
            modify_s: stamp.modify_s,
            mode: stamp.mode,
            ..UploadFacts::default()
        };
        (plan.remote(stamp.pair, &stamp.path), facts)
    });
    let dirs: Vec<_> = dirs.collect();
    retried(client, report, |c| keep::of_dirs(c, &dirs))
}
