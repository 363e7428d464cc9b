//! CHECKS.md section 2: what a client can take from the server, and that it comes back.

mod crowds;
mod endless;
mod full;
mod repeated;
mod slow;
