//! Patterns in names: `*`, `?` and `[a-z]` in any component, as a shell has them. Names on the server
//! are looked up in listings; those of this machine are the shell's business, except at the prompt,
//! where there is none.
//!
//! A name that exists as it is written is no pattern. Names that begin with a dot are matched only by
//! patterns that do.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use globset::{GlobBuilder, GlobMatcher};

use crate::proto::facts::Kind;

use super::error::{Error, Exit, shown};
use super::local::{bytes_of, is_plain_name, joined, path_of};
use super::{Client, listing};

/// More names than anybody means; a server that invents them ends here.
const MATCHES_MAX: usize = 1_000_000;

/// Where names are looked up.
trait Names {
    /// Calls `take` with each name in a directory, and with whether it may be a directory. One that
    /// cannot be listed has no names.
    fn each(&mut self, dir: &[u8], take: &mut dyn FnMut(&[u8], bool)) -> Result<(), Error>;

    /// Whether there is something of that name.
    fn exists(&mut self, path: &[u8]) -> Result<bool, Error>;
}

/// The names on the server that each of `names` stands for, sorted; nothing is asked for those that
/// are no patterns.
///
/// # Errors
/// Nothing matches a pattern, or the connection broke.
pub fn remote(client: &mut Client, names: &[OsString]) -> Result<Vec<OsString>, Error> {
    expanded(names, client)
}

/// The same, where a pattern that nothing matches stands for nothing.
///
/// # Errors
/// The connection broke.
pub fn remote_if_any(client: &mut Client, names: &[OsString]) -> Result<Vec<OsString>, Error> {
    let mut all = Vec::new();
    for name in names {
        match expanded(std::slice::from_ref(name), client) {
            Err(error) if error.exit == Exit::NotFound && error.code.is_none() => {}
            found => all.extend(found?),
        }
    }
    Ok(all)
}

/// The same on this machine, at the prompt; elsewhere the shell has done it.
///
/// # Errors
/// Nothing matches a pattern.
pub fn local(client: &Client, names: &[OsString]) -> Result<Vec<OsString>, Error> {
    match client.is_prompt {
        true => expanded(names, &mut Here),
        false => Ok(names.to_vec()),
    }
}

fn expanded(names: &[OsString], place: &mut dyn Names) -> Result<Vec<OsString>, Error> {
    let mut all = Vec::new();
    for name in names {
        let bytes = bytes_of(name);
        if !is_pattern(bytes) || place.exists(bytes)? {
            all.push(name.clone());
            continue;
        }
        let found = matches(bytes, place)?;
        if found.is_empty() {
            let text = format!("nothing matches {}", shown(bytes));
            return Err(Error::new(Exit::NotFound, text));
        }
        all.extend(found.into_iter().map(OsString::from_vec));
    }
    Ok(all)
}

fn is_pattern(name: &[u8]) -> bool {
    memchr::memchr3(b'*', b'?', b'[', name).is_some()
}

fn matches(pattern: &[u8], place: &mut dyn Names) -> Result<Vec<Vec<u8>>, Error> {
    let mut found = vec![match pattern.first() {
        Some(b'/') => b"/".to_vec(),
        _ => Vec::new(),
    }];
    // Whether what was found is known to be there.
    let mut is_sure = true;
    let parts = pattern
        .split(|&b| b == b'/')
        .filter(|part| !part.is_empty());
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        is_sure = is_pattern(part);
        if !is_sure {
            found.iter_mut().for_each(|path| *path = joined(path, part));
            continue;
        }
        let matcher = matcher(part)?;
        let mut deeper = Vec::new();
        for dir in &found {
            place.each(dir, &mut |name, may_be_dir| {
                let is_hidden = name.first() == Some(&b'.') && part.first() != Some(&b'.');
                let fits = is_plain_name(name) && (may_be_dir || parts.peek().is_none());
                if fits && !is_hidden && matcher.is_match(path_of(name)) {
                    deeper.push(joined(dir, name));
                }
            })?;
            if deeper.len() > MATCHES_MAX {
                return Err(Error::usage(
                    "the pattern matches more than a million names",
                ));
            }
        }
        found = deeper;
    }
    if !is_sure {
        let mut there = Vec::new();
        for path in found {
            if place.exists(&path)? {
                there.push(path);
            }
        }
        found = there;
    }
    found.sort_unstable();
    Ok(found)
}

fn matcher(part: &[u8]) -> Result<GlobMatcher, Error> {
    let bad =
        |why: &dyn std::fmt::Display| Error::usage(format!("{} is no pattern: {why}", shown(part)));
    let text = std::str::from_utf8(part).map_err(|_| bad(&"it is not UTF-8"))?;
    // Braces are ordinary characters here, as they are in names on the server.
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '{' => plain.push_str("[{]"),
            '}' => plain.push_str("[}]"),
            letter => plain.push(letter),
        }
    }
    let glob = GlobBuilder::new(&plain).backslash_escape(false).build();
    glob.map(|glob| glob.compile_matcher())
        .map_err(|error| bad(error.kind()))
}

impl Names for Client {
    fn each(&mut self, dir: &[u8], take: &mut dyn FnMut(&[u8], bool)) -> Result<(), Error> {
        let c = self.ready()?;
        let dir = Some(dir).filter(|dir| !dir.is_empty());
        let mut count = 0;
        let listed = listing::list(c, dir, &mut |entry| {
            count += 1;
            if count > MATCHES_MAX {
                return Err(Error::usage("a directory has more than a million names"));
            }
            let may_be_dir = !matches!(entry.kind, Some(Kind::File | Kind::Other));
            take(&entry.name, may_be_dir);
            Ok(())
        });
        match listed {
            Err(error) if error.code.is_some() && !c.is_lost() => Ok(()),
            listed => listed,
        }
    }

    fn exists(&mut self, path: &[u8]) -> Result<bool, Error> {
        Ok(listing::stat(self.ready()?, path)?.is_some())
    }
}

/// The files of this machine.
struct Here;

impl Names for Here {
    fn each(&mut self, dir: &[u8], take: &mut dyn FnMut(&[u8], bool)) -> Result<(), Error> {
        let dir = if dir.is_empty() { b"." } else { dir };
        for entry in std::fs::read_dir(path_of(dir))
            .into_iter()
            .flatten()
            .flatten()
        {
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            take(bytes_of(&entry.file_name()), !is_file);
        }
        Ok(())
    }

    fn exists(&mut self, path: &[u8]) -> Result<bool, Error> {
        Ok(path_of(path).symlink_metadata().is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A few names; those that end in `/` are directories.
    struct Tree(&'static [&'static str]);

    impl Names for Tree {
        fn each(&mut self, dir: &[u8], take: &mut dyn FnMut(&[u8], bool)) -> Result<(), Error> {
            let dir = String::from_utf8_lossy(dir).into_owned();
            for path in self.0 {
                let bare = path.trim_end_matches('/');
                let (parent, name) = bare.rsplit_once('/').unwrap_or(("", bare));
                if parent == dir {
                    take(name.as_bytes(), path.ends_with('/'));
                }
            }
            Ok(())
        }

        fn exists(&mut self, path: &[u8]) -> Result<bool, Error> {
            let is_it = |it: &&&str| it.trim_end_matches('/').as_bytes() == path;
            Ok(self.0.iter().find(is_it).is_some())
        }
    }

    const TREE: Tree = Tree(&[
        "a.jpg", "b.jpg", "c.txt", ".d.jpg", "{x}.jpg", "p/", "p/1.jpg", "p/2.txt", "q/",
        "q/1.jpg", "[odd]", "o",
    ]);

    #[track_caller]
    fn check(pattern: &str, expected: &[&str]) {
        let found = expanded(&[pattern.into()], &mut Tree(TREE.0)).unwrap();
        let expected: Vec<OsString> = expected.iter().map(OsString::from).collect();
        assert_eq!(found, expected, "{pattern}");
    }

    #[test]
    fn patterns_in_any_component() {
        check("*.jpg", &["a.jpg", "b.jpg", "{x}.jpg"]);
        check("?.jpg", &["a.jpg", "b.jpg"]);
        check("[ab].*", &["a.jpg", "b.jpg"]);
        check(".*", &[".d.jpg"]);
        check("{*}.jpg", &["{x}.jpg"]);
        check("*/1.jpg", &["p/1.jpg", "q/1.jpg"]);
        check("*/2.*", &["p/2.txt"]);
        check("*/2.txt", &["p/2.txt"]);
        check("p/*", &["p/1.jpg", "p/2.txt"]);
    }

    #[test]
    fn what_is_no_pattern_stays_as_it_is() {
        check("none", &["none"]);
        check("[odd]", &["[odd]"]);
    }

    #[test]
    fn what_matches_nothing_is_told() {
        for pattern in ["*.png", "a.jpg/*", "*/none", "x/*"] {
            let error = expanded(&[pattern.into()], &mut Tree(TREE.0)).unwrap_err();
            assert_eq!(error.exit, Exit::NotFound, "{pattern}");
            assert!(error.to_string().contains(pattern), "{error}");
        }
        let error = expanded(&["[a".into()], &mut Tree(TREE.0)).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
    }
}
