//! Short names for servers, in `config.toml` beside the file of trusted certificates:
//!
//! ```toml
//! [bookmark.nas]
//! server = "ftps://me@nas.example.org"
//! directory = "/photos"
//! ```

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::{Error, shown};
use super::local::{bytes_of, user_dir};

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    bookmark: BTreeMap<String, Bookmark>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bookmark {
    /// As behind `--server`.
    pub server: String,
    /// Where to go behind the login.
    pub directory: Option<String>,
}

/// A file of the user's: `haul/NAME` below `$XDG_CONFIG_HOME` or `~/.config`. `None` without a home.
pub fn config_file(name: &str) -> Option<PathBuf> {
    Some(
        user_dir("XDG_CONFIG_HOME", ".config")?
            .join("haul")
            .join(name),
    )
}

/// What the file at `path` says that `name` is, if it is a bookmark. One that is not there has none.
///
/// # Errors
/// The file cannot be read, or is wrong.
pub fn find(path: &Path, name: &str) -> Result<Option<Bookmark>, Error> {
    // What can only be an address needs no file.
    if name.contains(['/', ':', '@']) {
        return Ok(None);
    }
    let shown_path = shown(bytes_of(path.as_os_str()));
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| Error::local(&error).about(&shown_path))?,
    };
    let config: Config = toml::from_str(&text)
        .map_err(|error| Error::usage(format!("{shown_path}: {}", error.to_string().trim_end())))?;
    Ok(config.bookmark.get(name).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::error::Exit;

    #[test]
    fn a_name_stands_for_a_server_and_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        assert_eq!(find(&path, "nas").unwrap(), None);
        let text = "[bookmark.nas]\nserver = \"ftps://me@nas\"\ndirectory = \"/photos\"\n";
        std::fs::write(&path, text).unwrap();
        let found = find(&path, "nas").unwrap().unwrap();
        assert_eq!(found.server, "ftps://me@nas");
        assert_eq!(found.directory.as_deref(), Some("/photos"));
        assert_eq!(find(&path, "nas2").unwrap(), None);
        assert_eq!(find(&path, "ftp://nas").unwrap(), None);
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "[bookmark.nas]\nserver = \"nas\"\nport = 21\n").unwrap();
        let error = find(&path, "nas").unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.to_string().contains("line 3"), "{error}");
    }
}
