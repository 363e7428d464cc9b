//! What a server says: whole replies, and what FEAT lists.
//!
//! Values only; who reads them from where is not known here.

use std::fmt;

use super::error::{Error, shown};

/// One whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// Texts of its lines without the codes; at least one.
    pub lines: Vec<Vec<u8>>,
}

impl Reply {
    /// A reply of one line.
    pub fn of(code: u16, text: &str) -> Reply {
        Reply {
            code,
            lines: vec![text.as_bytes().to_vec()],
        }
    }

    /// The text of the last line, which is the only one of most replies.
    pub fn text(&self) -> &[u8] {
        self.lines.last().map_or(b"", Vec::as_slice)
    }

    /// 1xx: another reply follows.
    pub fn is_preliminary(&self) -> bool {
        self.code < 200
    }

    /// 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// The reply itself, if it is a success.
    ///
    /// # Errors
    /// What the server said instead.
    pub fn success(self) -> Result<Reply, Error> {
        match self.is_success() {
            true => Ok(self),
            false => Err(Error::refused(&self)),
        }
    }
}

impl fmt::Display for Reply {
    /// On one line, escaped, and not longer than a screen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_LINES_MAX: usize = 4;
        write!(f, "{}", self.code)?;
        for line in self.lines.iter().take(SHOWN_LINES_MAX) {
            let text = shown(line);
            let cut: String = text.trim().chars().take(500).collect();
            if !cut.is_empty() {
                write!(f, " {cut}")?;
            }
        }
        if self.lines.len() > SHOWN_LINES_MAX {
            f.write_str(" ...")?;
        }
        Ok(())
    }
}

/// One line of a reply that is read line by line.
pub enum Line {
    /// Not the last.
    Middle(Vec<u8>),
    /// The last.
    End(u16, Vec<u8>),
}

/// What FEAT lists and the client uses.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Features {
    /// UPLOAD, with the facts it takes. A body is never sent to a server without it.
    pub upload: Option<UploadFeature>,
    /// DOWNLOAD.
    pub download: bool,
    /// TREE.
    pub tree: bool,
    /// MLST and MLSD.
    pub mlst: bool,
    /// SIZE.
    pub size: bool,
    /// MDTM.
    pub mdtm: bool,
    /// MFMT.
    pub mfmt: bool,
    /// UTF8.
    pub utf8: bool,
    /// PARTIAL: uploads that broke off can be continued.
    pub partial: bool,
    /// REST with RETR and STOR.
    pub rest: bool,
    /// MLST can tell permission bits, though perhaps not unasked.
    pub mlst_modes: bool,
    /// The verbs that give digests, in the words of FEAT.
    pub digests: Vec<String>,
}

/// The facts that UPLOAD takes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct UploadFeature {
    /// Time of last modification.
    pub modify: bool,
    /// Permission bits.
    pub mode: bool,
    /// The digest that the content must have.
    pub sha256: bool,
}

impl Features {
    /// Reads the lines of a FEAT reply.
    pub fn parse(lines: &[Vec<u8>]) -> Features {
        let mut features = Features::default();
        for line in lines {
            let line = line.trim_ascii().to_ascii_lowercase();
            let (name, rest) = match memchr::memchr(b' ', &line) {
                Some(at) => (&line[..at], &line[at + 1..]),
                None => (&line[..], &b""[..]),
            };
            match name {
                b"upload" => {
                    let has = |fact: &[u8]| rest.split(|&b| b == b';').any(|f| f == fact);
                    features.upload = Some(UploadFeature {
                        modify: has(b"modify"),
                        mode: has(b"unix.mode"),
                        sha256: has(b"sha256"),
                    });
                }
                b"download" => features.download = true,
                b"tree" => features.tree = true,
                b"partial" => features.partial = true,
                b"rest" => features.rest = rest == b"stream",
                b"mlst" => {
                    features.mlst = true;
                    let facts = &mut rest.split(|&b| b == b';');
                    features.mlst_modes =
                        facts.any(|f| f.strip_suffix(b"*").unwrap_or(f) == b"unix.mode");
                }
                b"hash" | b"xsha256" | b"xmd5" | b"xcrc" => {
                    features
                        .digests
                        .push(String::from_utf8_lossy(&line).into_owned());
                }
                b"size" => features.size = true,
                b"mdtm" => features.mdtm = true,
                b"mfmt" => features.mfmt = true,
                b"utf8" => features.utf8 = true,
                _ => {}
            }
        }
        features
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_of_several_servers() {
        let lines =
            |text: &str| -> Vec<Vec<u8>> { text.lines().map(|l| l.as_bytes().to_vec()).collect() };
        let own = Features::parse(&lines(
            "Features:\n DOWNLOAD\n MDTM\n MLST type*;size*;\n TREE\n UPLOAD modify;unix.mode;sha256;\nEnd",
        ));
        let facts = UploadFeature {
            modify: true,
            mode: true,
            sha256: true,
        };
        assert_eq!(own.upload, Some(facts));
        assert!(own.download && own.tree && own.mlst && own.mdtm && !own.size);
        let bare = Features::parse(&lines(" upload"));
        assert_eq!(bare.upload, Some(UploadFeature::default()));
        let other = Features::parse(&lines("Features:\n EPSV\n SIZE\n UTF8\nEnd"));
        assert_eq!(other.upload, None);
        assert!(other.size && other.utf8);
    }

    #[test]
    fn a_reply_is_shown_on_one_line() {
        let reply = Reply {
            code: 550,
            lines: vec![b"a\x1b".to_vec(), b" b".to_vec()],
        };
        assert_eq!(reply.to_string(), "550 a\\u{1b} b");
        assert_eq!(Reply::of(550, "").to_string(), "550");
    }
}
