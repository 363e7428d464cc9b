//! Wakes the loop at a time: an epoll wait alone knows milliseconds only, in which a fast server
//! answers a hundred times.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// A timer that makes an event.
#[derive(Debug)]
pub struct Alarm(OwnedFd);

impl Alarm {
    /// The token of its events.
    pub const TOKEN: Token = Token(usize::MAX);

    /// Not set.
    ///
    /// # Errors
    /// The system has none left.
    pub fn new(registry: &Registry) -> io::Result<Alarm> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let source = timer.as_raw_fd();
        registry.register(&mut SourceFd(&source), Alarm::TOKEN, Interest::READABLE)?;
        Ok(Alarm(timer))
    }

    /// Wakes after so many nanoseconds. Setting it again forgets that it went off.
    pub fn set(&mut self, nanoseconds: u64) {
        // Zero would switch it off.
        let nanoseconds = nanoseconds.max(1);
        let time = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: (nanoseconds / 1_000_000_000) as i64,
                tv_nsec: (nanoseconds % 1_000_000_000) as i64,
            },
        };
        // Without it the loop looks at the time by itself, if less often.
        let _ = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &time);
    }
}
