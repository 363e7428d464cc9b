//! What 226 promises: the file is on the disk, whole and under its name; and what happens when the
//! disk, the system or the server fails.

mod faults;
mod full;
mod killed;
mod order;
mod power;
mod together;
mod torture;
