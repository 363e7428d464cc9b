//! What is done on the server before and after the runs, by one session.

use std::io::{Write, stderr};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::Bench;
use crate::bench::dialogue::{Failure, Manner};
use crate::bench::engine::{Engine, Length, Ran, Terms};
use crate::bench::measure::Measure;
use crate::bench::operation::Operation;
use crate::bench::work::{Errands, Load};
use crate::client::error::{Error, Exit};

/// Errands under way at a time, where the server takes them.
const ERRANDS_IN_FLIGHT: usize = 64;

impl Bench<'_> {
    /// One session that does a list of things.
    pub(super) fn perform(
        &self,
        manner: &Rc<Manner>,
        operations: Vec<Operation>,
        measure: &mut Measure,
    ) -> Result<Ran, Error> {
        let terms = Terms {
            sessions: 1,
            in_flight: match manner.own_verbs {
                true => ERRANDS_IN_FLIGHT,
                false => 1,
            },
            logins_only: false,
            ramp_ns: 0,
            warm_up_ns: 0,
            length: Length::Work,
            per_second: None,
        };
        let mut work = Errands::new(operations);
        Engine::run(
            &self.ground,
            manner,
            terms,
            &mut work,
            measure,
            &mut |_, _| {},
        )
        .map_err(|failure| no_session(&failure))
    }

    pub(super) fn prepare(&self, manner: &Rc<Manner>, load: &Load) -> Result<(), Error> {
        let operations = load.preparations();
        if operations.is_empty() {
            return Ok(());
        }
        self.say("making files");
        let mut measure = Measure::default();
        self.perform(manner, operations, &mut measure)?;
        match measure.errors.values().next() {
            None => Ok(()),
            Some(errors) => Err(Error::new(
                Exit::NotFound,
                format!(
                    "the server does not take the files that this needs: {}; --within DIR names a \
                     directory that can be written to, and --path takes what is there already",
                    errors.example
                ),
            )),
        }
    }

    pub(super) fn clean(&self, manner: &Rc<Manner>, load: &Load) {
        let operations = load.removals();
        if operations.is_empty() {
            return;
        }
        self.say("removing files");
        // The signal that ended the runs does not end this; another one does.
        self.interrupted.store(false, Ordering::Relaxed);
        let mut measure = Measure::default();
        let cleaned = self.perform(manner, operations, &mut measure);
        // Names that were never made are among them: only the directory tells.
        let stays = measure
            .errors
            .iter()
            .find(|(class, _)| !class.starts_with("550"));
        let why = match (&cleaned, stays) {
            (Err(error), _) => error.to_string(),
            (Ok(_), Some((_, errors))) => errors.example.clone(),
            (Ok(_), None) => return,
        };
        let note = format!(
            "haul: files of the bench are left on the server, in {}: {why}\n",
            String::from_utf8_lossy(load.directory())
        );
        let _ = stderr().write_all(note.as_bytes());
    }
}

/// Nothing can be measured: why, and how the program ends.
pub(super) fn no_session(failure: &Failure) -> Error {
    let class = failure.class.as_str();
    let exit = match class {
        _ if class.starts_with("connect") => Exit::CannotConnect,
        _ if class.contains(" to USER") || class.contains(" to PASS") => Exit::LoginRefused,
        _ if class.starts_with("TLS") || class.contains(" to AUTH") => Exit::Trust,
        _ => Exit::Broken,
    };
    Error::new(exit, failure.example.clone())
}
