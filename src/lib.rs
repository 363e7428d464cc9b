//! haul: a file-transfer server and client.

pub mod accounts;
pub mod config;
pub mod logging;
pub mod proto;
pub mod server;
pub mod session;
pub mod storage;
