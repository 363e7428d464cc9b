//! The control connection, tested at the level of a session: dialogues, deadlines, faults, the table
//! of verbs, random input, and rules about who may know whom.

mod architecture;
mod clock;
mod dialogues;
mod faults;
mod refused;
mod shell;
mod simulation;
mod table;
mod uploads;
