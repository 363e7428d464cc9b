//! TLS (T of the checks): real clients, and clients by hand that do what real ones do not.

mod by_hand;
mod certificates;
mod clients;
mod haul;
mod hostile;
mod real;
mod resumption;

use crate::common::secure::Pair;
use crate::common::server::Server;

/// A server with a certificate of its own.
fn secure(more: &[&str]) -> (Server, Pair) {
    let pair = Pair::new();
    let options = pair.options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    (Server::start(&[&options[..], more].concat()), pair)
}
