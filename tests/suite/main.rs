//! The tests over real sockets: `hauld` and `haul` as processes, with the clients and servers that
//! people really use on the other end.
//!
//! One crate, so that what the tests share ([`common`]) is compiled once. Each test has its own
//! server on its own port in its own directory, and everything has a deadline: a hang is a failure.

mod common;

mod accounts;
mod basics;
mod bench;
mod check;
mod cold;
mod configured;
mod cost;
mod durability;
mod event_loop;
mod files;
mod haul_at_home;
mod haul_daily;
mod haul_newcomer;
mod haul_with_others;
mod interrupted;
mod killed_trees;
mod limits;
mod logins;
mod prompt;
mod protocol;
mod reactor;
mod real_clients;
mod resources;
mod shells;
mod soak;
mod starting_and_stopping;
mod stranger;
mod tls;
mod transfer_log;
mod trees;
mod walls;
mod workers;
