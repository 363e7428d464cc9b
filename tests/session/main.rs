//! The control connection, tested at the level of a session: dialogues, deadlines and faults.

mod clock;
mod dialogues;
mod faults;
mod shell;
