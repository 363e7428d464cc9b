//! CHECKS.md section 3: files and names, and the walls around them.

mod changing;
mod modes_and_log;
mod moved;
mod names;
mod offsets;
mod space;
mod special;
mod walls;
