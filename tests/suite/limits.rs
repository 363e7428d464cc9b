//! What the owner of a server allows: rates, and who may be there at the same time.

mod admission;
mod rates;
