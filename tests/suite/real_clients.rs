//! `hauld` as the clients see it that people use: curl, lftp, Python's ftplib, and a Rust crate.

mod curl;
mod ftplib;
mod lftp;
mod suppaftp;
