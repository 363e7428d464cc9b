//! Files and names, and the walls around them (F01 to F20).

mod changing;
mod modes_and_log;
mod moved;
mod names;
mod offsets;
mod space;
mod special;
pub mod walls;
