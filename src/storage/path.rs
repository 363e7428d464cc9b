//! Paths as clients write them: bytes, always absolute, never above the root. Purely lexical; the
//! file system is not asked.

use std::fmt;

/// How the names of staged files begin. Clients can neither create nor reach such names, in any
/// case of letters, since a file system may fold case.
pub const RESERVED_PREFIX: &[u8] = b".haul-";

/// The kernel's PATH_MAX less the final NUL.
pub(super) const PATH_BYTES_MAX: usize = 4095;

/// An absolute, normalised path: `/` or `/a/b`, without `.`, `..` or empty components.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct VirtualPath(Vec<u8>);

/// For messages: bytes that are no UTF-8 are shown as replacement characters.
impl fmt::Display for VirtualPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl VirtualPath {
    /// `/`
    pub fn root() -> VirtualPath {
        VirtualPath(b"/".to_vec())
    }

    /// The path that `argument` means to someone who is here: absolute if it begins with `/`,
    /// where `..` cannot climb above `/`. Only `/` and dots mean anything; a backslash, `%`, `~`
    /// or `*` is a byte like any other.
    pub fn join(&self, argument: &[u8]) -> VirtualPath {
        let mut path = Vec::with_capacity(self.0.len() + 1 + argument.len());
        if argument.first() != Some(&b'/') && !self.is_root() {
            path.extend_from_slice(&self.0);
        }
        for component in argument.split(|&b| b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => path.truncate(memchr::memrchr(b'/', &path).unwrap_or(0)),
                name => {
                    path.push(b'/');
                    path.extend_from_slice(name);
                }
            }
        }
        if path.is_empty() {
            path.push(b'/');
        }
        VirtualPath(path)
    }

    /// The path as clients see it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path without its leading `/`; `.` for the root.
    pub fn relative(&self) -> &[u8] {
        if self.is_root() { b"." } else { &self.0[1..] }
    }

    /// The parent, as `relative` gives it, and the name. The root has neither.
    pub fn split(&self) -> Option<(&[u8], &[u8])> {
        if self.is_root() {
            return None;
        }
        let relative = self.relative();
        Some(match memchr::memrchr(b'/', relative) {
            Some(at) => (&relative[..at], &relative[at + 1..]),
            None => (b".", relative),
        })
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == b"/"
    }

    /// Whether any component begins with [`RESERVED_PREFIX`].
    pub fn is_reserved(&self) -> bool {
        self.0[1..].split(|&b| b == b'/').any(is_reserved_name)
    }

    /// Whether the kernel could not open it by its path. Something could be made there all the same,
    /// in its parent, and then nobody could read it.
    pub fn is_too_long(&self) -> bool {
        self.relative().len() > PATH_BYTES_MAX
    }

    /// Whether there is a byte below 0x20 or a 0x7f, which no reply line could carry.
    pub fn has_control_bytes(&self) -> bool {
        has_control_bytes(&self.0)
    }
}

pub(super) fn is_reserved_name(name: &[u8]) -> bool {
    name.get(..RESERVED_PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(RESERVED_PREFIX))
}

pub(super) fn has_control_bytes(name: &[u8]) -> bool {
    name.iter().any(u8::is_ascii_control)
}

/// Whether `name` fits `pattern`, in which `*` stands for any bytes and `?` for any one; everything
/// else is literal. When a byte does not fit, only the last star takes one more: what an earlier
/// star would gain, the later one can take as well. So the work is at most the product of the
/// lengths.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut last_star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                last_star = Some((p, n));
                continue;
            }
            Some(&byte) if byte == b'?' || byte == name[n] => {
                p += 1;
                n += 1;
                continue;
            }
            _ => {}
        }
        let Some((after, taken)) = last_star else {
            return false;
        };
        last_star = Some((after, taken + 1));
        (p, n) = (after, taken + 1);
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

/// Whether [`matches()`] would read anything in `name` as a wildcard.
pub fn has_wildcards(name: &[u8]) -> bool {
    memchr::memchr2(b'*', b'?', name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &[u8]) -> VirtualPath {
        VirtualPath::root().join(text)
    }

    #[test]
    fn joins() {
        let cases: [(&[u8], &[u8], &[u8]); 20] = [
            (b"/", b"", b"/"),
            (b"/", b"..", b"/"),
            (b"/", b"//", b"/"),
            (b"/a/b", b"", b"/a/b"),
            (b"/a/b", b".", b"/a/b"),
            (b"/a/b", b"..", b"/a"),
            (b"/a/b", b"../..", b"/"),
            (b"/a/b", b"../../../c", b"/c"),
            (b"/a/b", b"/c", b"/c"),
            (b"/a/b", b"/../c", b"/c"),
            (b"/a", b"b//c/./d/", b"/a/b/c/d"),
            (b"/a", b"a/../../x", b"/x"),
            (b"/a", b"..\\x", b"/a/..\\x"),
            (b"/a", b"....//x", b"/a/..../x"),
            (b"/a", b"%2e%2e/x", b"/a/%2e%2e/x"),
            (b"/a", b"~", b"/a/~"),
            (b"/", b" b ", b"/ b "),
            (b"/", b"...", b"/..."),
            (b"/", b"-rf", b"/-rf"),
            (b"/\xff", b"\xfe*", b"/\xff/\xfe*"),
        ];
        for (from, argument, to) in cases {
            assert_eq!(
                path(from).join(argument).as_bytes(),
                to,
                "{from:?} {argument:?}"
            );
        }
        assert_eq!(path(b"/a").join(&b"../".repeat(5000)), VirtualPath::root());
    }

    #[test]
    fn parts() {
        assert_eq!(path(b"").relative(), b".");
        assert_eq!(path(b"").split(), None);
        assert_eq!(path(b"a").split(), Some((&b"."[..], &b"a"[..])));
        assert_eq!(path(b"a/b/c").split(), Some((&b"a/b"[..], &b"c"[..])));
        assert_eq!(path(b"a/b").relative(), b"a/b");
    }

    #[test]
    fn reserved_names_are_known_in_any_case_and_place() {
        for reserved in [&b".haul-0"[..], b"/a/.HAUL-1/b", b".Haul-", b"a/.hAUl-x"] {
            assert!(path(reserved).is_reserved(), "{reserved:?}");
        }
        for free in [&b"/"[..], b".haul", b"a.haul-", b"haul-", b".haul/-", b""] {
            assert!(!path(free).is_reserved(), "{free:?}");
        }
    }

    #[test]
    fn control_bytes_are_found() {
        for bad in [&b"a\nb"[..], b"\x1b[2J", b"a/\0/b", b"\x7f", b"\t"] {
            assert!(path(bad).has_control_bytes(), "{bad:?}");
        }
        assert!(!path(b"/ a/\x80\xff~").has_control_bytes());
    }

    #[test]
    fn wildcards() {
        for (pattern, name) in [
            (&b""[..], &b""[..]),
            (b"*", b""),
            (b"*", b"a"),
            (b"a*", b"a"),
            (b"*.txt", b"a.txt.txt"),
            (b"a?c", b"abc"),
            (b"**a**", b"xay"),
            (b"[a]\\", b"[a]\\"),
        ] {
            assert!(matches(pattern, name), "{pattern:?} {name:?}");
        }
        for (pattern, name) in [
            (&b""[..], &b"a"[..]),
            (b"?", b""),
            (b"*.txt", b"a.txt.gz"),
            (b"a", b"A"),
            (b"[a]", b"a"),
        ] {
            assert!(!matches(pattern, name), "{pattern:?} {name:?}");
        }
        // With backtracking into every star this would not end in a lifetime.
        assert!(!matches(
            &[b"*a".repeat(60), b"b".to_vec()].concat(),
            &[b'a'; 250]
        ));
        assert!(has_wildcards(b"a*") && has_wildcards(b"?") && !has_wildcards(b"[a]"));
    }

    fn reference_join(from: &[u8], argument: &[u8]) -> Vec<u8> {
        let mut whole = from.to_vec();
        if argument.starts_with(b"/") {
            whole.clear();
        }
        whole.push(b'/');
        whole.extend_from_slice(argument);
        let mut stack: Vec<&[u8]> = Vec::new();
        for component in whole.split(|&b| b == b'/') {
            if component == b".." {
                stack.pop();
            } else if !component.is_empty() && component != b"." {
                stack.push(component);
            }
        }
        [b"/", stack.join(&b'/').as_slice()].concat()
    }

    fn reference_matches(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), None) => reference_matches(rest, name),
            (Some((b'*', rest)), Some((_, tail))) => {
                reference_matches(rest, name) || reference_matches(pattern, tail)
            }
            (Some((p, rest)), Some((n, tail))) => {
                (*p == b'?' || p == n) && reference_matches(rest, tail)
            }
            _ => false,
        }
    }

    fn some_path() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop::sample::select(b"//...ab\\%~\xff".to_vec());
        prop::collection::vec(byte, 0..24)
    }

    proptest! {
        #[test]
        fn join_equals_the_reference(from in some_path(), argument in some_path()) {
            let from = path(&from);
            let joined = from.join(&argument);
            prop_assert_eq!(joined.as_bytes(), reference_join(from.as_bytes(), &argument));
            prop_assert_eq!(&joined.join(b""), &joined);
            prop_assert_eq!(&from.join(joined.as_bytes()), &joined);
            prop_assert!(joined.as_bytes().starts_with(b"/"));
            let climbs = joined.as_bytes()[1..].split(|&b| b == b'/').any(|c| c == b"..");
            prop_assert!(!climbs);
            if let Some((parent, name)) = joined.split() {
                prop_assert_eq!(path(parent).join(name), joined.clone());
            }
        }

        #[test]
        fn matches_equals_the_reference(
            pattern in prop::collection::vec(prop::sample::select(b"ab*?".to_vec()), 0..8),
            name in prop::collection::vec(prop::sample::select(b"ab".to_vec()), 0..10),
        ) {
            prop_assert_eq!(matches(&pattern, &name), reference_matches(&pattern, &name));
        }
    }
}
