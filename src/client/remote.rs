//! Making and removing many names on the server, without waiting for each.
//!
//! What is there already, or gone already, is as it should be: so both can be done again behind a
//! broken connection.

use crate::proto::facts::Kind;

use super::connection::Connection;
use super::error::{Error, shown};
use super::listing;
use super::pipeline::each;
use super::reply::Reply;

/// What became of one name of a list, by its place.
pub type Outcome<'a> = dyn FnMut(usize, Result<(), Error>) + 'a;

/// Makes directories, each behind those above it. Those that are there count as made.
///
/// # Errors
/// The connection broke; then nothing was said about any of them.
pub fn make(c: &mut Connection, paths: &[Vec<u8>], outcome: &mut Outcome) -> Result<(), Error> {
    let mut refused = Vec::new();
    let mut made = Vec::new();
    each(c, paths, |_| "MKD", &mut |at, reply| match reply {
        Ok(reply) if reply.is_success() => made.push(at),
        Ok(reply) => refused.push((at, Error::refused(&reply))),
        Err(error) => refused.push((at, error)),
    })?;
    let mut kinds = vec![None; refused.len()];
    if c.features.mlst {
        let asked: Vec<Vec<u8>> = refused.iter().map(|(at, _)| paths[*at].clone()).collect();
        each(c, &asked, |_| "MLST", &mut |at, reply| {
            let reply = reply.ok().filter(Reply::is_success);
            kinds[at] = reply.and_then(|reply| listing::entry_in(&reply)?.kind);
        })?;
    } else {
        for (kind, (at, _)) in kinds.iter_mut().zip(&refused) {
            let is_dir = match listing::is_dir(c, &paths[*at]) {
                Err(lost) if c.is_lost() => return Err(lost),
                // A name that cannot be sent, say: it is told as what could not be made.
                asked => asked.unwrap_or(false),
            };
            *kind = is_dir.then_some(Kind::Dir);
        }
    }
    made.into_iter().for_each(|at| outcome(at, Ok(())));
    for ((at, error), kind) in refused.into_iter().zip(kinds) {
        match kind {
            Some(Kind::Dir) => {}
            _ => outcome(at, Err(error)),
        }
    }
    Ok(())
}

/// Makes a directory and those above it, as far as they are not there.
///
/// # Errors
/// The first of them that can neither be made nor is there.
pub fn make_with_parents(c: &mut Connection, path: &[u8]) -> Result<(), Error> {
    let end = path.iter().rposition(|&b| b != b'/').map_or(0, |at| at + 1);
    let bare = &path[..end];
    if bare.is_empty() {
        return Ok(());
    }
    let ends = memchr::memchr_iter(b'/', bare).filter(|&end| !bare[..end].ends_with(b"/"));
    let ends = ends.filter(|&end| end > 0).chain([bare.len()]);
    let dirs: Vec<Vec<u8>> = ends.map(|end| bare[..end].to_vec()).collect();
    let mut refused = Vec::new();
    make(c, &dirs, &mut |at, made| {
        refused.extend(made.err().map(|error| (at, error)));
    })?;
    // A parent that was refused is no obstacle where the directory itself was not.
    match refused.last() {
        Some(&(at, _)) if at + 1 == dirs.len() => {}
        _ => return Ok(()),
    }
    let (at, error) = refused.swap_remove(0);
    Err(match at + 1 == dirs.len() {
        true => error,
        false => error.about(shown(&dirs[at])),
    })
}

/// Removes files and empty directories in this order. What is gone counts as removed.
///
/// # Errors
/// The connection broke; what was answered until then was told.
pub fn remove(
    c: &mut Connection,
    names: &[(Vec<u8>, bool)],
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let paths: Vec<Vec<u8>> = names.iter().map(|(path, _)| path.clone()).collect();
    let mut refused = Vec::new();
    let verb = |at: usize| if names[at].1 { "RMD" } else { "DELE" };
    each(c, &paths, verb, &mut |at, reply| match reply {
        Ok(reply) if reply.is_success() => outcome(at, Ok(())),
        Ok(reply) => refused.push((at, Error::refused(&reply))),
        Err(error) => refused.push((at, error)),
    })?;
    for (at, error) in refused {
        match listing::stat(c, &paths[at]) {
            Ok(None) => outcome(at, Ok(())),
            Err(lost) if c.is_lost() => return Err(lost),
            _ => outcome(at, Err(error)),
        }
    }
    Ok(())
}
