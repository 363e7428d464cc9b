//! Lines of LIST, read: they were meant for people (RFC 959 section 4.1.3), so this knows the two
//! families that servers write today, `ls -l` and MS-DOS.
//!
//! Where a server has MLSD, that is asked instead. Times have no zone here; they are taken as UTC,
//! which is what vsftpd, pure-ftpd and hauld write.

use super::facts::{Kind, Listed};
use super::line::number;
use super::time::{MONTHS, calendar, year};

/// Reads one line without its CRLF. `None`: it is no entry (`total 8`, an empty line), or not
/// understood. `now_s` gives lines without a year theirs.
pub fn parse_list_line(line: &[u8], now_s: i64) -> Option<Listed> {
    match line.first()? {
        b'0'..=b'9' => parse_dos(line),
        _ => parse_unix(line, now_s),
    }
}

/// The next word and what stands behind exactly one space after it, leading spaces skipped.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let begin = text.iter().position(|&b| b != b' ')?;
    let text = &text[begin..];
    Some(match memchr::memchr(b' ', text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, b""),
    })
}

/// `drwxr-xr-x    2 ftp      ftp          4096 Mar 31 14:05 name`, with or without the group. What
/// stands before the date varies, so the date is searched and the size is the word before it.
fn parse_unix(line: &[u8], now_s: i64) -> Option<Listed> {
    let (permissions, mut rest) = word(line)?;
    let kind = match permissions.first()? {
        b'-' => Kind::File,
        b'd' => Kind::Dir,
        b'l' => Kind::Link,
        b'b' | b'c' | b'p' | b's' => Kind::Other,
        _ => return None,
    };
    let mode = mode_of(permissions.get(1..10)?)?;
    let mut before: &[u8] = b"";
    // links, owner, group, size (or major, minor), month: a month is never the first of them.
    for _ in 0..8 {
        let (this, behind) = word(rest)?;
        if let Some((modify_s, name)) = date(this, behind, now_s).filter(|_| !before.is_empty()) {
            let size = number(before);
            let (name, target) = match kind {
                Kind::Link => split_link(name),
                _ => (name, None),
            };
            return (!name.is_empty()).then(|| Listed {
                kind: Some(kind),
                size: size.filter(|_| kind == Kind::File),
                modify_s: Some(modify_s),
                mode: Some(mode),
                target: target.map(<[u8]>::to_vec),
                ..Listed::new(name)
            });
        }
        before = this;
        rest = behind;
    }
    None
}

/// `rwxr-sr-t`.
fn mode_of(letters: &[u8]) -> Option<u32> {
    let mut mode = 0;
    for (at, letter) in letters.iter().enumerate() {
        let special = match at {
            2 => 0o4000,
            5 => 0o2000,
            8 => 0o1000,
            _ => 0,
        };
        let bit = 1 << (8 - at);
        mode |= match (letter, special) {
            (b'-', _) => 0,
            (b'r' | b'w' | b'x', _) => bit,
            (_, 0) => return None,
            (b's' | b't', _) => bit | special,
            (b'S' | b'T', _) => special,
            _ => return None,
        };
    }
    Some(mode)
}

fn split_link(name: &[u8]) -> (&[u8], Option<&[u8]>) {
    const ARROW: &[u8] = b" -> ";
    match name.windows(ARROW.len()).position(|w| w == ARROW) {
        Some(at) => (&name[..at], Some(&name[at + ARROW.len()..])),
        None => (name, None),
    }
}

/// `Mar 31 14:05 name` or `Mar 31  2024 name`, its month already taken: the time and the name.
fn date<'a>(month: &[u8], behind: &'a [u8], now_s: i64) -> Option<(i64, &'a [u8])> {
    let month = MONTHS
        .iter()
        .position(|m| month.eq_ignore_ascii_case(m.as_bytes()))?;
    let month = month as u8 + 1;
    let (day, behind) = word(behind)?;
    let day = u8::try_from(number(day)?).ok()?;
    let (last, name) = word(behind)?;
    let seconds = match clock(last) {
        Some((hour, minute)) => {
            let at = |year| calendar(year, month, day, hour, minute, 0);
            // Clocks and zones differ by up to a day; what lies further ahead was last year.
            const AHEAD_S: i64 = 24 * 3600;
            let this_year = year(now_s);
            match at(this_year) {
                Some(seconds) if seconds <= now_s.saturating_add(AHEAD_S) => seconds,
                _ => at(this_year - 1)?,
            }
        }
        None if last.len() == 4 => {
            calendar(i32::try_from(number(last)?).ok()?, month, day, 0, 0, 0)?
        }
        None => return None,
    };
    Some((seconds, name))
}

/// `14:05`.
fn clock(text: &[u8]) -> Option<(u8, u8)> {
    let colon = memchr::memchr(b':', text)?;
    let part = |digits| u8::try_from(number(digits)?).ok();
    Some((part(&text[..colon])?, part(&text[colon + 1..])?))
}

/// `01-31-26  12:00PM       <DIR>          name` or `2026-01-31  12:00  4096 name`.
fn parse_dos(line: &[u8]) -> Option<Listed> {
    let (day, rest) = word(line)?;
    let (time, rest) = word(rest)?;
    let (size, rest) = word(rest)?;
    let modify_s = dos_time(day, time)?;
    let is_dir = size.eq_ignore_ascii_case(b"<DIR>");
    let size = match is_dir {
        true => None,
        false => Some(number(size)?),
    };
    // Behind <DIR> the name is padded to its column; behind a size stands one space.
    let name = match is_dir {
        true => rest.trim_ascii_start(),
        false => rest,
    };
    (!name.is_empty()).then(|| Listed {
        kind: Some(if is_dir { Kind::Dir } else { Kind::File }),
        size,
        modify_s: Some(modify_s),
        ..Listed::new(name)
    })
}

fn dos_time(day: &[u8], time: &[u8]) -> Option<i64> {
    let mut parts = day.split(|&b| b == b'-').map(number);
    let (a, b, c) = (parts.next()??, parts.next()??, parts.next()??);
    let (year, month, day) = match day.first_chunk::<4>() {
        Some(first) if first.iter().all(u8::is_ascii_digit) => (a, b, c),
        _ if c < 70 => (c + 2000, a, b),
        _ if c < 100 => (c + 1900, a, b),
        _ => (c, a, b),
    };
    let upper = time.to_ascii_uppercase();
    let (digits, afternoon) = match (upper.strip_suffix(b"PM"), upper.strip_suffix(b"AM")) {
        (Some(digits), _) => (digits, Some(true)),
        (_, Some(digits)) => (digits, Some(false)),
        _ => (upper.as_slice(), None),
    };
    let (hour, minute) = clock(digits)?;
    let hour = match (afternoon, hour) {
        (None, hour) => hour,
        (Some(true), 1..=11) => hour + 12,
        (Some(true), 12) => 12,
        (Some(false), 1..=11) => hour,
        (Some(false), 12) => 0,
        _ => return None,
    };
    let small = |n| u8::try_from(n).ok();
    calendar(
        i32::try_from(year).ok()?,
        small(month)?,
        small(day)?,
        hour,
        minute,
        0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-01-31 12:00.
    const NOW: i64 = 1_769_860_800;

    #[track_caller]
    fn check(line: &str, kind: Kind, size: Option<u64>, when: &str, name: &str) {
        let listed = parse_list_line(line.as_bytes(), NOW).expect(line);
        assert_eq!(listed.kind, Some(kind), "{line}");
        assert_eq!(listed.size, size, "{line}");
        let time = super::super::time::text_14(listed.modify_s.unwrap());
        assert_eq!(String::from_utf8(time).unwrap(), when, "{line}");
        assert_eq!(String::from_utf8(listed.name).unwrap(), name, "{line}");
    }

    #[test]
    fn unix_forms() {
        use Kind::*;
        check(
            "-rw-r--r--    1 0        0            4096 Jan 02 14:05 a b",
            File,
            Some(4096),
            "20260102140500",
            "a b",
        );
        check(
            "drwxr-xr-x    2 ftp      ftp          4096 Mar 31  2024 dir",
            Dir,
            None,
            "20240331000000",
            "dir",
        );
        check(
            "-rw-r--r--    1 1000     ftpgroup        0 Dec 31 23:59 late",
            File,
            Some(0),
            "20251231235900",
            "late",
        );
        check(
            "-rw-r--r--   1 ftp 17 Feb  2 12:00 no group",
            File,
            Some(17),
            "20250202120000",
            "no group",
        );
        check(
            "-rw-r--r--   1 a b 17 Jan  1 12:00  leading",
            File,
            Some(17),
            "20260101120000",
            " leading",
        );
        check(
            "-rw-r--r--   1 may may 17 Jan  1 12:00 Jan  1 12:00 x",
            File,
            Some(17),
            "20260101120000",
            "Jan  1 12:00 x",
        );
        check(
            "crw-rw-rw-   1 root root 1, 3 Jan  1 12:00 null",
            Other,
            None,
            "20260101120000",
            "null",
        );
        check(
            "-rwsr-xr-T+  1 root root 9 Feb 29  2024 x",
            File,
            Some(9),
            "20240229000000",
            "x",
        );
    }

    #[test]
    fn links_have_targets() {
        let line = b"lrwxrwxrwx 1 ftp ftp 3 Jan  1 12:00 l -> a -> b";
        let listed = parse_list_line(line, NOW).unwrap();
        assert_eq!(listed.name, b"l");
        assert_eq!(listed.target.as_deref(), Some(&b"a -> b"[..]));
        assert_eq!((listed.kind, listed.mode), (Some(Kind::Link), Some(0o777)));
    }

    #[test]
    fn dos_forms() {
        use Kind::*;
        check(
            "01-31-26  12:00PM       <DIR>          a dir",
            Dir,
            None,
            "20260131120000",
            "a dir",
        );
        check(
            "01-31-99  12:05AM                 4096 a.txt",
            File,
            Some(4096),
            "19990131000500",
            "a.txt",
        );
        check(
            "2026-01-31  23:59      17 x",
            File,
            Some(17),
            "20260131235900",
            "x",
        );
        check(
            "01-31-2026  01:30PM    17 x",
            File,
            Some(17),
            "20260131133000",
            "x",
        );
    }

    #[test]
    fn what_is_no_entry() {
        for line in [
            "",
            "total 8",
            "hello world",
            "-rw-r--r--",
            "-rw-r--r-- 1 a b 17 Jan 32 12:00 x",
            "-rw-r--r-- 1 a b 17 Jan  1 12:00",
            "-rw-r--r-- 1 a b 17 Jan  1 12:00 ",
            "-rw-r--r-- Jan  1 12:00 x",
            "drwxr-xr-q 1 a b 17 Jan  1 12:00 x",
            "01-31-26  25:00PM  <DIR>  x",
            "13-31-26  12:00PM  <DIR>  x",
            "01-31-26  12:00PM  -5  x",
            "01-31-26",
        ] {
            assert_eq!(parse_list_line(line.as_bytes(), NOW), None, "{line}");
        }
    }

    #[test]
    fn what_the_server_writes_is_read() {
        use super::super::facts::{Meta, write_list_line};
        let meta = Meta {
            size: 17,
            modify_s: NOW - 86_400,
            mode: 0o640,
            ..Meta::of_kind(Kind::File)
        };
        let mut line = Vec::new();
        write_list_line(&mut line, &meta, b" a  b", None, NOW);
        let listed = parse_list_line(line.strip_suffix(b"\r\n").unwrap(), NOW).unwrap();
        assert_eq!(listed.name, b" a  b");
        assert_eq!((listed.size, listed.mode), (Some(17), Some(0o640)));
        assert_eq!(listed.modify_s, Some(meta.modify_s));
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..120), now: i64) {
            parse_list_line(&line, now);
        }

        #[test]
        fn no_nearly_right_line_panics(
            line in "[-dl]([r-][w-][xsS-]){3} [0-9]{1,3} [a-z]{1,4} [a-z]{1,4} [0-9]{1,22} (Jan|Feb|Dec) [0-9]{1,3} [0-9:]{1,6} .{0,8}",
            dos in "[0-9]{1,4}-[0-9]{1,4}-[0-9]{1,5} {1,2}[0-9]{1,3}:[0-9]{1,3}(AM|PM|) (<DIR>|[0-9]{1,20}) .{0,8}",
            now: i64,
        ) {
            parse_list_line(line.as_bytes(), now);
            parse_list_line(dos.as_bytes(), now);
        }
    }
}
