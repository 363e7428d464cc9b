//! Values as people write them on command lines, and errors as they read them. Pure functions; both
//! programs use them.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

/// Longer than anybody waits; a deadline that far away can still be computed.
const SECONDS_MAX: u64 = u32::MAX as u64;

/// `30`, `90s`, `5m` or `1h`; at least a second.
///
/// # Errors
/// A sentence that says what can be written.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit_s) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("a time is seconds, or 90s, 5m, 1h".to_string());
    }
    let number: Option<u64> = digits.parse().ok();
    match number.and_then(|number| number.checked_mul(unit_s)) {
        Some(0) => Err("a time is at least one second".to_string()),
        Some(seconds) if seconds <= SECONDS_MAX => Ok(Duration::from_secs(seconds)),
        _ => Err("a time is at most 4294967295 seconds".to_string()),
    }
}

/// An error of the system without the number that means nothing to most people.
pub fn plain(error: &io::Error) -> String {
    let mut text = error.to_string();
    text.truncate(text.find(" (os error").unwrap_or(text.len()));
    text
}

/// A number of bytes: `1500`, `"10GiB"`, `"1.5 GB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

/// With the largest unit that needs no fraction, as [`FromStr`] reads it.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let fits = |(_, shift): &&(&str, u32)| self.0 != 0 && self.0.trailing_zeros() >= *shift;
        match units.iter().find(fits) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        let wrong = || format!("{text:?} is no size; write bytes, or 500MiB, 10GiB");
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.trim().to_ascii_lowercase();
        let (_, unit) = UNITS.iter().find(|(u, _)| *u == unit).ok_or_else(wrong)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        // Nine digits of a fraction are more than enough; exact, which a float is not.
        let digits = fraction.len().min(9);
        let part: u64 = fraction[..digits].parse().map_err(|_| wrong())?;
        let part = u128::from(part) * u128::from(*unit) / 10_u128.pow(digits as u32);
        let bytes = u128::from(whole) * u128::from(*unit) + part;
        u64::try_from(bytes).map(Bytes).map_err(|_| wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text, seconds| {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        };
        check("1", 1);
        check("30", 30);
        check("90s", 90);
        check("5m", 300);
        check("1h", 3600);
        check("0030", 30);
        check("1193046h", 4_294_965_600);
        check("4294967295", SECONDS_MAX);
    }

    #[test]
    fn what_is_no_duration() {
        let says = |text, part: &str| {
            let said = duration(text).unwrap_err();
            assert!(said.contains(part), "{text}: {said}");
        };
        for text in [
            "", "s", "x", "5 m", "5M", "5ms", "5d", "+5", "-5", "1.5h", "1h30m", "５",
        ] {
            says(text, "90s, 5m, 1h");
        }
        for text in ["0", "0s", "000h"] {
            says(text, "at least one second");
        }
        for text in [
            "4294967296",
            "1193047h",
            "5124095576030432h",
            "18446744073709551615m",
            "99999999999999999999",
        ] {
            says(text, "at most");
        }
    }

    #[test]
    fn errors_of_the_system_have_no_number() {
        let missing = io::Error::from_raw_os_error(2);
        assert_eq!(plain(&missing), "No such file or directory");
        assert_eq!(plain(&io::Error::other("a (os b)")), "a (os b)");
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("1500", 1500),
            ("10GiB", 10 << 30),
            ("10 GiB", 10 << 30),
            ("10g", 10 << 30),
            ("1.5kib", 1536),
            ("0.1MB", 100_000),
            ("2TB", 2_000_000_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for (bytes, text) in [
            (0, "0"),
            (10 << 30, "10GiB"),
            (1536 << 20, "1536MiB"),
            (1500, "1500"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        let impossible = [
            "",
            "GiB",
            "-1",
            "1..5",
            "1.GiB",
            ".5GiB",
            "1 Gibi",
            "10GiBs",
            "1e3",
            "1_000",
            "18446744073709551616",
            "99999999TiB",
            "１",
        ];
        for text in impossible {
            let said = text.parse::<Bytes>().unwrap_err();
            assert!(said.contains("is no size"), "{text:?}");
        }
    }
}
