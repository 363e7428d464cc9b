//! Which names of a tree take part: `--exclude` and `--include`.

use clap::Args;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::error::Error;
use super::incoming::is_temporary;
use super::local::path_of;

/// The options, as they are typed.
#[derive(Debug, Clone, Default, Args)]
pub struct Patterns {
    /// Leave out what matches, with all that is below it: *.o, cache/, src/*.bak (repeatable). A
    /// pattern with a slash in it is for the whole path below the tree; one that ends in a slash is
    /// for directories
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Take what matches although --exclude matches it too (repeatable)
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
}

/// The options, ready for use.
pub struct Filter {
    exclude: Rules,
    include: Rules,
}

/// The patterns of one option.
struct Rules {
    all: Globs,
    directories: Globs,
}

struct Globs {
    /// For the last component.
    names: GlobSet,
    /// For the whole path below the tree.
    paths: GlobSet,
}

impl Globs {
    fn matches(&self, path: &[u8]) -> bool {
        if self.names.is_empty() && self.paths.is_empty() {
            return false;
        }
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
        self.names.is_match(path_of(name)) || self.paths.is_match(path_of(path))
    }
}

impl Rules {
    fn new(patterns: &[String]) -> Result<Rules, Error> {
        let bad = |e: globset::Error| Error::usage(format!("--exclude, --include: {e}"));
        let set = |for_directories: bool| -> Result<Globs, Error> {
            let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
            for pattern in patterns {
                let bare = pattern.strip_suffix('/');
                if bare.is_some() != for_directories {
                    continue;
                }
                let bare = bare.unwrap_or(pattern);
                let is_path = bare.contains('/');
                let bare = bare.strip_prefix('/').unwrap_or(bare);
                let glob = GlobBuilder::new(bare).literal_separator(true).build();
                match is_path {
                    true => paths.add(glob.map_err(bad)?),
                    false => names.add(glob.map_err(bad)?),
                };
            }
            Ok(Globs {
                names: names.build().map_err(bad)?,
                paths: paths.build().map_err(bad)?,
            })
        };
        Ok(Rules {
            all: set(false)?,
            directories: set(true)?,
        })
    }

    fn matches(&self, path: &[u8], is_dir: bool) -> bool {
        self.all.matches(path) || is_dir && self.directories.matches(path)
    }
}

impl Filter {
    /// Reads the patterns.
    ///
    /// # Errors
    /// One of them is none.
    pub fn new(patterns: &Patterns) -> Result<Filter, Error> {
        Ok(Filter {
            exclude: Rules::new(&patterns.exclude)?,
            include: Rules::new(&patterns.include)?,
        })
    }

    /// Whether `path`, relative to the tree, takes part, if the directories above it do.
    pub fn takes(&self, path: &[u8], is_dir: bool) -> bool {
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
        if is_temporary(name) {
            return false;
        }
        !self.exclude.matches(path, is_dir) || self.include.matches(path, is_dir)
    }

    /// The same for a path whose directories were not looked at.
    pub fn takes_whole(&self, path: &[u8], is_dir: bool) -> bool {
        let slashes = memchr::memchr_iter(b'/', path);
        slashes.into_iter().all(|at| self.takes(&path[..at], true)) && self.takes(path, is_dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let filter = |exclude: &[&str], include: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|&p| p.to_owned()).collect();
            Filter::new(&Patterns {
                exclude: owned(exclude),
                include: owned(include),
            })
        };
        let check = |exclude: &[&str], include: &[&str], path: &str, is_dir, expected| {
            let takes = filter(exclude, include)
                .unwrap()
                .takes_whole(path.as_bytes(), is_dir);
            assert_eq!(takes, expected, "{exclude:?} {include:?} {path}");
        };
        check(&[], &[], "a/b", false, true);
        check(&["*.o"], &[], "a/b.o", false, false);
        check(&["*.o"], &[], "a/b.c", false, true);
        check(&["*.o"], &["keep.o"], "a/keep.o", false, true);
        check(&["cache/"], &[], "a/cache/x", false, false);
        check(&["cache/"], &[], "a/cache", false, true);
        check(&["a/*.o"], &[], "a/b.o", false, false);
        check(&["a/*.o"], &[], "a/b/c.o", false, true);
        check(&["a/**"], &[], "a/b/c.o", false, false);
        check(&["/a"], &[], "a", true, false);
        check(&["/a"], &[], "b/a", true, true);
        check(&[], &[], "a/.b.haul-part-0123456789abcdef", false, false);
        assert!(filter(&["[a"], &[]).is_err());
    }
}
