//! What a client can take from the server, and that it comes back (R01 to R19).

mod crowds;
mod endless;
mod full;
mod quota;
mod repeated;
mod slow;
