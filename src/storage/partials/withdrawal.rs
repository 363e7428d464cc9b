//! Uploads that looked whole, until it turned out that their client had been killed.
//!
//! The end of a plain upload is the end of its data connection. A killed client's kernel ends that in
//! order too, and often some microseconds before the control connection. So who sees the control
//! connection end while the upload is on its way to the disk says so here, and it gets no name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Mode;

use super::super::root::stat_open;
use super::super::staging::Upload;
use super::{Interrupted, Kept};

/// For the upload: whether it has been withdrawn, and what is to be kept of it then.
#[derive(Debug)]
pub(in crate::storage) struct Withdrawn {
    is_so: Arc<AtomicBool>,
    pub(super) interrupted: Interrupted,
}

/// For who may learn that the client is gone.
#[derive(Debug)]
pub struct Withdrawal(Arc<AtomicBool>);

impl Withdrawal {
    /// If the upload has not got its name yet, it gets none.
    pub fn withdraw(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Upload {
    /// All of it is there, as far as one can tell.
    pub fn complete_if_client_stays(&mut self) {
        let partial = self.partial.as_ref();
        let interrupted = partial.map_or(Interrupted::Dropped, |it| it.interrupted);
        self.forget_partial();
        self.withdrawn = Some(Withdrawn {
            is_so: Arc::default(),
            interrupted,
        });
    }

    /// To withdraw it, if that may be.
    pub fn withdrawal(&self) -> Option<Withdrawal> {
        let withdrawn = self.withdrawn.as_ref();
        withdrawn.map(|it| Withdrawal(it.is_so.clone()))
    }

    pub(in crate::storage) fn is_withdrawn(&self) -> bool {
        let withdrawn = self.withdrawn.as_ref();
        withdrawn.is_some_and(|it| it.is_so.load(Ordering::Acquire))
    }

    /// It is withdrawn: what arrived is kept as of any upload that broke off.
    pub(in crate::storage) fn keep_after_all(mut self) -> Option<Kept> {
        if let (Some(partial), Some(withdrawn)) = (&mut self.partial, &self.withdrawn) {
            partial.interrupted = withdrawn.interrupted;
        }
        let staged = self.staged().ok()?;
        let _ = rustix::fs::fchmod(staged.file(), Mode::RUSR | Mode::WUSR);
        let bytes = stat_open(staged.file()).map_or(0, |meta| meta.size);
        self.keep_or_lose(bytes)
    }
}
