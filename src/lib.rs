//! haul: a file-transfer server and client.

pub mod proto;
