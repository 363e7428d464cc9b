//! Digests of both sides: HASH where the server has it, otherwise the older verbs.

use std::io::{self, Read};
use std::time::Duration;

use md5::Md5;
use sha2::{Digest, Sha256};

use crate::proto::upload::hex;

use super::connection::Connection;
use super::error::{Error, Exit};
use super::pipeline;
use super::reply::Reply;

/// A server reads at least so fast; a slower one is given up on.
const SERVER_BYTES_PER_SECOND_MIN: u64 = 10 << 20;

/// The digests that both sides may know, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// 64 hex digits.
    Sha256,
    /// 32 hex digits.
    Md5,
    /// 8 hex digits, perhaps without zeros in front.
    Crc32,
}

impl Algorithm {
    fn digits(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Md5 => 32,
            Algorithm::Crc32 => 8,
        }
    }
}

/// How to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asking {
    /// The verb.
    pub verb: &'static str,
    /// What the answers are.
    pub algorithm: Algorithm,
}

/// How this server is asked for digests, if it knows any.
///
/// # Errors
/// The connection broke.
pub fn asking(c: &mut Connection) -> Result<Option<Asking>, Error> {
    let offered = &c.features.digests;
    let older = [
        ("XSHA256", Algorithm::Sha256),
        ("XMD5", Algorithm::Md5),
        ("XCRC", Algorithm::Crc32),
    ]
    .into_iter()
    .find(|(verb, _)| offered.contains(&verb.to_ascii_lowercase()))
    .map(|(verb, algorithm)| Asking { verb, algorithm });
    let hash = offered.iter().find_map(|d| d.strip_prefix("hash "));
    let offered = [
        ("SHA-256", Algorithm::Sha256),
        ("MD5", Algorithm::Md5),
        ("CRC32", Algorithm::Crc32),
    ]
    .into_iter()
    .find(|(name, _)| {
        // The star marks what is chosen already.
        let mut names = hash.unwrap_or_default().split(';');
        names.any(|it| it.trim_end_matches('*').eq_ignore_ascii_case(name))
    });
    let Some((name, algorithm)) = offered else {
        return Ok(older);
    };
    if !c.has_hash {
        let chosen = c.command("OPTS", Some(format!("HASH {name}").as_bytes()))?;
        if !chosen.is_success() {
            return Ok(older);
        }
        c.has_hash = true;
    }
    Ok(Some(Asking {
        verb: "HASH",
        algorithm,
    }))
}

/// The digest in an answer.
pub fn digest_in(reply: &Reply, asking: Asking) -> Option<String> {
    if !reply.is_success() {
        return None;
    }
    let words = reply.text().split(|&b| b == b' ');
    // `213 SHA-256 0-49 <digest> name` and `250 <digest>`.
    let digits = asking.algorithm.digits();
    let is_it = |word: &&[u8]| match asking.algorithm {
        Algorithm::Crc32 => !word.is_empty() && word.len() <= digits,
        _ => word.len() == digits,
    };
    let skipped = if asking.verb == "HASH" { 2 } else { 0 };
    let mut words = words.skip(skipped).filter(is_it);
    let word = words.find(|word| word.iter().all(u8::is_ascii_hexdigit))?;
    let digest = String::from_utf8_lossy(word).to_ascii_lowercase();
    Some(format!("{digest:0>digits$}"))
}

/// The digests of remote files, none longer than `bytes_max`; `None` for those of which the server
/// does not say it.
///
/// # Errors
/// The connection broke.
pub fn of_remote(
    c: &mut Connection,
    asking: Asking,
    paths: &[Vec<u8>],
    bytes_max: u64,
) -> Result<Vec<Option<String>>, Error> {
    let usual = patient(c, bytes_max);
    let mut digests = vec![None; paths.len()];
    let asked = pipeline::each(c, paths, |_| asking.verb, &mut |at, reply| {
        digests[at] = reply.ok().and_then(|reply| digest_in(&reply, asking));
    });
    c.set_timeout(usual);
    asked.map(|()| digests)
}

/// The digest of a remote file of `bytes` bytes.
///
/// # Errors
/// The connection broke.
pub fn of_one(
    c: &mut Connection,
    asking: Asking,
    path: &[u8],
    bytes: u64,
) -> Result<Option<String>, Error> {
    let digests = of_remote(c, asking, &[path.to_vec()], bytes)?;
    Ok(digests.into_iter().next().flatten())
}

/// Compares a copy of `bytes` bytes with what the server has as `path`; false: the server gives no
/// digest of it, so nobody knows.
///
/// # Errors
/// [`Exit::Differ`] if they are not the same; the connection broke, or reading fails.
pub fn confirm(
    c: &mut Connection,
    path: &[u8],
    copy: &mut dyn Read,
    bytes: u64,
) -> Result<bool, Error> {
    let Some(asking) = asking(c)? else {
        return Ok(false);
    };
    let Some(theirs) = of_one(c, asking, path, bytes)? else {
        return Ok(false);
    };
    match of_local(asking.algorithm, copy, bytes)? == theirs {
        true => Ok(true),
        false => Err(differs()),
    }
}

/// `--verify`: as [`confirm`], but the server has to give a digest.
///
/// # Errors
/// [`Exit::Differ`] also if it gives none.
pub fn verify(
    c: &mut Connection,
    path: &[u8],
    copy: &mut dyn Read,
    bytes: u64,
) -> Result<(), Error> {
    match confirm(c, path, copy, bytes)? {
        true => Ok(()),
        false => Err(no_digest()),
    }
}

/// `--verify` where it cannot be done.
pub fn no_digest() -> Error {
    Error::new(
        Exit::Differ,
        "the server gives no digest of it, so --verify cannot tell whether it is the same",
    )
}

/// The two sides are not the same.
pub fn differs() -> Error {
    Error::new(
        Exit::Differ,
        "the digests differ: the copy is not what was sent; try again",
    )
}

/// What the server answers when it is asked for the digest of a file of `bytes` bytes.
///
/// # Errors
/// The connection broke.
pub fn reply_of(
    c: &mut Connection,
    asking: Asking,
    path: &[u8],
    bytes: u64,
) -> Result<Reply, Error> {
    slow_command(c, asking.verb, path, bytes)
}

/// A command for which the server reads up to `bytes` bytes of a file before it answers.
///
/// # Errors
/// The connection broke.
pub fn slow_command(
    c: &mut Connection,
    verb: &str,
    path: &[u8],
    bytes: u64,
) -> Result<Reply, Error> {
    let usual = patient(c, bytes);
    let reply = c.command(verb, Some(path));
    c.set_timeout(usual);
    reply
}

/// Gives the server the time to read so much; returns the timeout that there was.
fn patient(c: &mut Connection, bytes: u64) -> Duration {
    let more = Duration::from_secs(bytes / SERVER_BYTES_PER_SECOND_MIN);
    c.set_timeout(c.timeout() + more)
}

/// The digest of the first `bytes` bytes of what comes from `source`; less is an error.
///
/// # Errors
/// Reading fails, or there is less.
pub fn of_local(algorithm: Algorithm, source: &mut dyn Read, bytes: u64) -> Result<String, Error> {
    fn all(source: &mut dyn Read, bytes: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; 256 * 1024];
        let mut left = bytes;
        while left > 0 {
            let window = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            match source.read(&mut buffer[..window]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    take(&buffer[..n]);
                    left -= n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
    let mut digest = || {
        Ok(match algorithm {
            Algorithm::Sha256 => {
                let mut digest = Sha256::new();
                all(source, bytes, |chunk| digest.update(chunk))?;
                hex(&digest.finalize())
            }
            Algorithm::Md5 => {
                let mut digest = Md5::new();
                all(source, bytes, |chunk| digest.update(chunk))?;
                hex(&digest.finalize())
            }
            Algorithm::Crc32 => {
                let mut digest = crc32fast::Hasher::new();
                all(source, bytes, |chunk| digest.update(chunk))?;
                format!("{:08x}", digest.finalize())
            }
        })
    };
    digest().map_err(|e: io::Error| Error::local(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_in_replies() {
        let check = |verb, algorithm, code, text: &str, expected: Option<&str>| {
            let found = digest_in(&Reply::of(code, text), Asking { verb, algorithm });
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        let sha = "AB".repeat(32);
        let lower = sha.to_ascii_lowercase();
        let hash = format!("SHA-256 0-49 {sha} name");
        check("HASH", Algorithm::Sha256, 213, &hash, Some(&lower));
        check("HASH", Algorithm::Sha256, 550, &hash, None);
        check("XSHA256", Algorithm::Sha256, 250, &sha, Some(&lower));
        check("XCRC", Algorithm::Crc32, 250, "BEEF", Some("0000beef"));
        check("XCRC", Algorithm::Crc32, 250, "no digest", None);
        check("XMD5", Algorithm::Md5, 250, "ab", None);
    }

    #[test]
    fn digests_of_a_prefix() {
        let of = |algorithm, bytes| of_local(algorithm, &mut &b"123456789 and more"[..], bytes);
        assert_eq!(of(Algorithm::Crc32, 9).unwrap(), "cbf43926");
        let md5 = of(Algorithm::Md5, 9).unwrap();
        assert_eq!(md5, "25f9e794323b453885f5181f1b624d0b");
        assert!(of(Algorithm::Sha256, 99).is_err());
    }
}
