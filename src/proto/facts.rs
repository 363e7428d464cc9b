//! What listings say about a file: the facts of MLSD, MLST and TREE (RFC 3659 section 7) and the
//! lines of LIST, written by the server; facts are read back by the client.
//!
//! Entries come as [`Meta`] and a name in bytes; where they come from is not known here.

use super::time;

/// What kind of thing a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link, never followed in a listing.
    Link,
    /// A FIFO, socket or device: it can be listed, renamed and removed, never opened.
    Other,
}

/// What the file system knows about one entry. Where only the kind was asked for, the rest is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Last modification, seconds since 1970.
    pub modify_s: i64,
    /// Permission bits, 0o7777 at most.
    pub mode: u32,
    /// Hard links.
    pub links: u64,
    /// Device.
    pub dev: u64,
    /// Inode; with the device it is the `unique` fact.
    pub ino: u64,
}

impl Meta {
    /// An entry of which only the kind is known.
    pub fn of_kind(kind: Kind) -> Meta {
        Meta {
            kind,
            size: 0,
            modify_s: 0,
            mode: 0,
            links: 1,
            dev: 0,
            ino: 0,
        }
    }
}

/// A set of facts, as OPTS MLST chooses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts(u8);

/// Names of the facts in the order in which they are written; their place is their bit.
const NAMES: [&str; 6] = ["type", "size", "modify", "perm", "unique", "unix.mode"];
const TYPE: u8 = 1;
const SIZE: u8 = 1 << 1;
const MODIFY: u8 = 1 << 2;
const PERM: u8 = 1 << 3;
const UNIQUE: u8 = 1 << 4;
const MODE: u8 = 1 << 5;

impl Default for Facts {
    /// All but `unix.mode`.
    fn default() -> Facts {
        Facts(TYPE | SIZE | MODIFY | PERM | UNIQUE)
    }
}

impl Facts {
    /// Reads the argument of OPTS MLST, `type;size;`: names in any case, unknown ones are ignored
    /// (RFC 3659 section 7.9). No argument means no facts.
    pub fn parse(text: &[u8]) -> Facts {
        let mut set = 0;
        for name in text.split(|&b| b == b';') {
            let known = NAMES
                .iter()
                .position(|n| name.eq_ignore_ascii_case(n.as_bytes()));
            set |= known.map_or(0, |bit| 1 << bit);
        }
        Facts(set)
    }

    /// `type;size;`, the form of the OPTS reply.
    pub fn chosen(self) -> String {
        NAMES
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.0 >> bit & 1 == 1)
            .fold(String::new(), |mut text, (_, name)| {
                text.push_str(name);
                text.push(';');
                text
            })
    }

    /// `type*;size*;unix.mode;`, the form of the FEAT line: a star behind each chosen one.
    pub fn all_starred(self) -> String {
        let mut text = String::new();
        for (bit, name) in NAMES.iter().enumerate() {
            text.push_str(name);
            text.push_str(if self.0 >> bit & 1 == 1 { "*;" } else { ";" });
        }
        text
    }

    /// Whether the kind alone is not enough to write them.
    pub fn need_stat(self) -> bool {
        self.0 & (SIZE | MODIFY | UNIQUE | MODE) != 0
    }
}

/// The letters of the `perm` fact for whoever is asking (RFC 3659 section 7.5.5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Perms {
    /// For files.
    pub file: String,
    /// For directories.
    pub dir: String,
}

/// Appends the facts of one entry, each ending in `;`, without the space behind them. `target` is
/// where a link points; `incomplete` marks a directory of which TREE leaves something out.
pub fn write_facts(
    out: &mut Vec<u8>,
    facts: Facts,
    meta: &Meta,
    target: Option<&[u8]>,
    perms: &Perms,
    incomplete: bool,
) {
    let has = |bit| facts.0 & bit != 0;
    if has(TYPE) {
        out.extend_from_slice(b"type=");
        write_type(out, meta.kind, target);
        out.push(b';');
    }
    if has(SIZE) && meta.kind == Kind::File {
        out.extend_from_slice(b"size=");
        write_decimal(out, meta.size);
        out.push(b';');
    }
    if has(MODIFY) {
        out.extend_from_slice(b"modify=");
        time::write_14(out, meta.modify_s);
        out.push(b';');
    }
    if has(PERM) {
        out.extend_from_slice(b"perm=");
        let letters = match meta.kind {
            Kind::Dir => perms.dir.as_bytes(),
            Kind::File => perms.file.as_bytes(),
            Kind::Link | Kind::Other => b"",
        };
        out.extend_from_slice(letters);
        out.push(b';');
    }
    if has(UNIQUE) {
        out.extend_from_slice(b"unique=");
        write_hex(out, meta.dev);
        out.push(b'g');
        write_hex(out, meta.ino);
        out.push(b';');
    }
    if has(MODE) {
        out.extend_from_slice(b"unix.mode=");
        write_mode(out, meta.mode);
        out.push(b';');
    }
    if incomplete {
        out.extend_from_slice(b"x.incomplete=1;");
    }
}

/// A target with one of these bytes cannot be told from the end of the fact.
fn fits_in_a_fact(target: &[u8]) -> bool {
    !target.is_empty() && target.iter().all(|&b| b > b' ' && b != 0x7f && b != b';')
}

fn write_type(out: &mut Vec<u8>, kind: Kind, target: Option<&[u8]>) {
    match (kind, target) {
        (Kind::File, _) => out.extend_from_slice(b"file"),
        (Kind::Dir, _) => out.extend_from_slice(b"dir"),
        (Kind::Link, Some(target)) if fits_in_a_fact(target) => {
            out.extend_from_slice(b"OS.unix=slink:");
            out.extend_from_slice(target);
        }
        (Kind::Link, _) => out.extend_from_slice(b"OS.unix=symlink"),
        (Kind::Other, _) => out.extend_from_slice(b"OS.unix=special"),
    }
}

fn write_mode(out: &mut Vec<u8>, mode: u32) {
    out.extend([9, 6, 3, 0].map(|shift| b'0' + (mode >> shift & 7) as u8));
}

/// Appends one LIST line with its CRLF, in the form every client parses:
/// `drwxr-xr-x    2 ftp      ftp          4096 Mar 31 14:05 name`. `now` decides between time and
/// year; owner and group are not given away.
pub fn write_list_line(
    out: &mut Vec<u8>,
    meta: &Meta,
    name: &[u8],
    target: Option<&[u8]>,
    now_s: i64,
) {
    out.push(match meta.kind {
        Kind::Dir => b'd',
        Kind::Link => b'l',
        Kind::File | Kind::Other => b'-',
    });
    out.extend([8, 7, 6, 5, 4, 3, 2, 1, 0].map(|bit: u32| {
        if meta.mode >> bit & 1 == 1 {
            b"xwr"[bit as usize % 3]
        } else {
            b'-'
        }
    }));
    out.push(b' ');
    write_padded(out, meta.links, 4);
    out.extend_from_slice(b" ftp      ftp      ");
    write_padded(out, meta.size, 8);
    out.push(b' ');
    time::write_list_date(out, meta.modify_s, now_s);
    out.push(b' ');
    out.extend_from_slice(name);
    if let Some(target) = target {
        out.extend_from_slice(b" -> ");
        let printable = |&byte: &u8| if byte.is_ascii_control() { b'?' } else { byte };
        out.extend(target.iter().map(printable));
    }
    out.extend_from_slice(b"\r\n");
}

fn write_padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let from = out.len();
    write_decimal(out, value);
    let length = out.len() - from;
    if length < width {
        out.resize(from + width, b' ');
        out.copy_within(from..from + length, from + width - length);
        out[from..from + width - length].fill(b' ');
    }
}

/// Appends `value` in decimal.
pub fn write_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn write_hex(out: &mut Vec<u8>, value: u64) {
    let nibbles = (64 - value.leading_zeros()).div_ceil(4).max(1);
    for nibble in (0..nibbles).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * nibble) & 15) as usize]);
    }
}

/// What a client learns about an entry; what the server did not say is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name, or for TREE the path relative to where it began, as it came.
    pub name: Vec<u8>,
    /// `None`: the directory itself or its parent, or a type that is not known.
    pub kind: Option<Kind>,
    /// Bytes.
    pub size: Option<u64>,
    /// Seconds since 1970.
    pub modify_s: Option<i64>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Where a link points, if the server says so.
    pub target: Option<Vec<u8>>,
    /// The server left out something that is in this directory.
    pub incomplete: bool,
}

impl Listed {
    /// An entry of which only the name is known.
    pub fn new(name: &[u8]) -> Listed {
        Listed {
            name: name.to_vec(),
            kind: None,
            size: None,
            modify_s: None,
            mode: None,
            target: None,
            incomplete: false,
        }
    }
}

/// Reads one line of MLSD, MLST or TREE: facts, one space, name. `None` if there is no such space.
/// Fact names come in any case; unknown facts are skipped.
pub fn parse_entry(line: &[u8]) -> Option<Listed> {
    let space = memchr::memchr(b' ', line)?;
    let mut listed = Listed::new(&line[space + 1..]);
    for fact in line[..space].split(|&b| b == b';') {
        let Some(equals) = memchr::memchr(b'=', fact) else {
            continue;
        };
        let (name, value) = (fact[..equals].to_ascii_lowercase(), &fact[equals + 1..]);
        match name.as_slice() {
            b"type" => (listed.kind, listed.target) = parse_type(value),
            b"size" => listed.size = super::line::number(value),
            b"modify" => listed.modify_s = time::parse_14(value),
            b"unix.mode" => listed.mode = parse_octal(value),
            b"x.incomplete" => listed.incomplete = value == b"1",
            _ => {}
        }
    }
    Some(listed)
}

fn parse_type(value: &[u8]) -> (Option<Kind>, Option<Vec<u8>>) {
    let lower = value.to_ascii_lowercase();
    match lower.as_slice() {
        b"file" => (Some(Kind::File), None),
        b"dir" => (Some(Kind::Dir), None),
        b"cdir" | b"pdir" => (None, None),
        b"os.unix=symlink" => (Some(Kind::Link), None),
        _ => match lower.strip_prefix(b"os.unix=slink") {
            Some(rest) => {
                let at = value.len() - rest.len();
                (
                    Some(Kind::Link),
                    value[at..].strip_prefix(b":").map(<[u8]>::to_vec),
                )
            }
            None => (Some(Kind::Other), None),
        },
    }
}

/// Octal digits, at most 0o7777.
pub fn parse_octal(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 6 || !digits.iter().all(|d| (b'0'..=b'7').contains(d)) {
        return None;
    }
    let mode = digits.iter().fold(0, |n, d| n * 8 + u32::from(d - b'0'));
    (mode <= 0o7777).then_some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file() -> Meta {
        Meta {
            kind: Kind::File,
            size: 4096,
            modify_s: 1_769_860_800,
            mode: 0o644,
            links: 1,
            dev: 0x801,
            ino: 0xabc,
        }
    }

    fn perms() -> Perms {
        Perms {
            file: "adfrw".into(),
            dir: "cdeflmp".into(),
        }
    }

    fn facts_of(facts: Facts, meta: &Meta, target: Option<&[u8]>) -> String {
        let mut out = Vec::new();
        write_facts(&mut out, facts, meta, target, &perms(), false);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn facts_are_written_in_order() {
        assert_eq!(
            facts_of(Facts(0xff), &file(), None),
            "type=file;size=4096;modify=20260131120000;perm=adfrw;unique=801gabc;unix.mode=0644;"
        );
        let dir = Meta {
            kind: Kind::Dir,
            ..file()
        };
        assert_eq!(
            facts_of(Facts::parse(b"Type;SIZE;perm;x;"), &dir, None),
            "type=dir;perm=cdeflmp;"
        );
        assert_eq!(facts_of(Facts::parse(b""), &dir, None), "");
    }

    #[test]
    fn links_show_a_target_only_if_it_can_be_told_apart() {
        let link = Meta {
            kind: Kind::Link,
            ..file()
        };
        let just_type = Facts(TYPE);
        assert_eq!(
            facts_of(just_type, &link, Some(b"a/b")),
            "type=OS.unix=slink:a/b;"
        );
        for target in [&b"a b"[..], b"a;b", b"a\nb", b""] {
            assert_eq!(
                facts_of(just_type, &link, Some(target)),
                "type=OS.unix=symlink;"
            );
        }
    }

    #[test]
    fn opts_and_feat_show_the_choice() {
        let facts = Facts::parse(b"size;type;nonsense;");
        assert_eq!(facts.chosen(), "type;size;");
        assert_eq!(
            facts.all_starred(),
            "type*;size*;modify;perm;unique;unix.mode;"
        );
        assert_eq!(
            Facts::default().all_starred(),
            "type*;size*;modify*;perm*;unique*;unix.mode;"
        );
        assert!(facts.need_stat() && !Facts::parse(b"type;perm;").need_stat());
    }

    #[test]
    fn list_lines_have_the_usual_columns() {
        let line = |meta: &Meta, target: Option<&[u8]>| {
            let mut out = Vec::new();
            write_list_line(&mut out, meta, b"a name", target, 1_769_860_860);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            line(&file(), None),
            "-rw-r--r--    1 ftp      ftp          4096 Jan 31 12:00 a name\r\n"
        );
        let link = Meta {
            kind: Kind::Link,
            mode: 0o777,
            ..file()
        };
        assert_eq!(
            line(&link, Some(b"to\nx")),
            "lrwxrwxrwx    1 ftp      ftp          4096 Jan 31 12:00 a name -> to?x\r\n"
        );
        let huge = Meta {
            size: u64::MAX,
            links: 123_456,
            ..file()
        };
        assert!(line(&huge, None).contains(" 123456 ftp      ftp      18446744073709551615 Jan"));
    }

    #[test]
    fn entries_are_read_back() {
        let line = format!("{} a; name", facts_of(Facts(0xff), &file(), None));
        let listed = parse_entry(line.as_bytes()).unwrap();
        assert_eq!(listed.name, b"a; name");
        assert_eq!(listed.kind, Some(Kind::File));
        assert_eq!(
            (listed.size, listed.modify_s),
            (Some(4096), Some(1_769_860_800))
        );
        assert_eq!(listed.mode, Some(0o644));
        let link = parse_entry(b"TYPE=OS.UNIX=slink:Tar/Get; l").unwrap();
        assert_eq!(
            (link.kind, link.target.as_deref()),
            (Some(Kind::Link), Some(&b"Tar/Get"[..]))
        );
        assert_eq!(parse_entry(b"type=cdir; .").unwrap().kind, None);
        assert_eq!(parse_entry(b" bare").unwrap().name, b"bare");
        assert!(
            parse_entry(b"type=dir;x.incomplete=1; d")
                .unwrap()
                .incomplete
        );
        assert_eq!(parse_entry(b"nospace"), None);
    }

    #[test]
    fn octal_modes() {
        assert_eq!(parse_octal(b"0644"), Some(0o644));
        assert_eq!(parse_octal(b"7777"), Some(0o7777));
        for bad in [&b"888"[..], b"abc", b"", b"17777", b"0000644", b"-1"] {
            assert_eq!(parse_octal(bad), None);
        }
    }

    proptest! {
        #[test]
        fn no_entry_panics(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            parse_entry(&line);
        }

        #[test]
        fn numbers(value in any::<u64>()) {
            let (mut decimal, mut hex) = (Vec::new(), Vec::new());
            write_decimal(&mut decimal, value);
            write_hex(&mut hex, value);
            prop_assert_eq!(decimal, value.to_string().into_bytes());
            prop_assert_eq!(hex, format!("{value:x}").into_bytes());
        }
    }
}
