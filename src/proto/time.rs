//! Calendar and seconds, as the protocol writes them: UTC throughout (RFC 3659 section 2.3).
//!
//! It never asks what time it is: `now` is an argument.

use time::{Date, Month, OffsetDateTime, Time};

/// Appends `seconds` since 1970 as `YYYYMMDDHHMMSS`. What lies outside of the years 0 to 9999 is
/// written as the nearest second inside.
pub fn write_14(out: &mut Vec<u8>, seconds: i64) {
    let t = moment(seconds);
    let year = t.year() as u32;
    digits(out, year / 100);
    digits(out, year % 100);
    digits(out, u32::from(u8::from(t.month())));
    for part in [t.day(), t.hour(), t.minute(), t.second()] {
        digits(out, u32::from(part));
    }
}

/// `seconds` as 14 digits.
pub fn text_14(seconds: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(14);
    write_14(&mut out, seconds);
    out
}

/// Reads 14 digits, with or without a fraction of a second behind them, which is dropped. A leap
/// second (60) is read as the second before it.
pub fn parse_14(text: &[u8]) -> Option<i64> {
    let (digits, fraction) = text.split_at_checked(14)?;
    let fraction_is_fine = match fraction.split_first() {
        None => true,
        Some((b'.', rest)) => !rest.is_empty() && rest.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    };
    if !fraction_is_fine || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        digits[range]
            .iter()
            .fold(0u16, |n, d| n * 10 + u16::from(d - b'0'))
    };
    let part = |at: usize| number(at..at + 2) as u8;
    calendar(
        i32::from(number(0..4)),
        part(4),
        part(6),
        part(8),
        part(10),
        part(12).min(59),
    )
    .filter(|_| part(12) <= 60)
}

/// Seconds since 1970 of a date and time in UTC, or `None` if there is no such time. Months and days
/// count from 1.
pub fn calendar(year: i32, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> Option<i64> {
    let date = Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok()?;
    let time = Time::from_hms(hour, minute, second).ok()?;
    Some(OffsetDateTime::new_utc(date, time).unix_timestamp())
}

/// The year of `seconds` since 1970.
pub fn year(seconds: i64) -> i32 {
    moment(seconds).year()
}

/// Appends the date of a LIST line, 12 bytes: `Mar 31 14:05` within 180 days before `now` and not in
/// the future, otherwise `Mar 31  2024`.
pub fn write_list_date(out: &mut Vec<u8>, seconds: i64, now: i64) {
    const RECENT_S: i64 = 180 * 24 * 3600;
    let t = moment(seconds);
    out.extend_from_slice(MONTHS[usize::from(u8::from(t.month())) - 1].as_bytes());
    out.push(b' ');
    let day = t.day();
    out.push(if day < 10 { b' ' } else { b'0' + day / 10 });
    out.push(b'0' + day % 10);
    if seconds <= now && seconds > now.saturating_sub(RECENT_S) {
        out.push(b' ');
        digits(out, u32::from(t.hour()));
        out.push(b':');
        digits(out, u32::from(t.minute()));
    } else {
        out.extend_from_slice(b"  ");
        digits(out, t.year() as u32 / 100);
        digits(out, t.year() as u32 % 100);
    }
}

/// English names, whatever the locale: clients know no others.
pub const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

fn moment(seconds: i64) -> OffsetDateTime {
    const YEAR_0: i64 = -62_167_219_200;
    const YEAR_9999_END: i64 = 253_402_300_799;
    OffsetDateTime::from_unix_timestamp(seconds.clamp(YEAR_0, YEAR_9999_END))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn digits(out: &mut Vec<u8>, two: u32) {
    out.extend_from_slice(&[b'0' + (two / 10 % 10) as u8, b'0' + (two % 10) as u8]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments() {
        assert_eq!(text_14(0), b"19700101000000");
        assert_eq!(text_14(1_769_860_800), b"20260131120000");
        assert_eq!(parse_14(b"20260131120000"), Some(1_769_860_800));
        assert_eq!(parse_14(b"20260131120000.123"), Some(1_769_860_800));
        assert_eq!(parse_14(b"20161231235960"), parse_14(b"20161231235959"));
        assert_eq!(text_14(i64::MAX), b"99991231235959");
        assert_eq!(text_14(i64::MIN), b"00000101000000");
        let bad = [
            "",
            "2026013112000",
            "20261331120000",
            "20260230120000",
            "20260131240000",
            "20260131120061",
            "20260131120000.",
            "20260131120000x",
            "2026013112000x",
            "-0260131120000",
        ];
        for text in bad {
            assert_eq!(parse_14(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn list_dates() {
        let date = |seconds, now| {
            let mut out = Vec::new();
            write_list_date(&mut out, seconds, now);
            String::from_utf8(out).unwrap()
        };
        let noon = 1_769_860_800;
        assert_eq!(date(noon, noon), "Jan 31 12:00");
        assert_eq!(date(noon + 60, noon), "Jan 31  2026");
        assert_eq!(date(noon, noon + 179 * 86_400), "Jan 31 12:00");
        assert_eq!(date(noon, noon + 181 * 86_400), "Jan 31  2026");
        assert_eq!(date(0, noon), "Jan  1  1970");
    }

    proptest! {
        #[test]
        fn every_second_survives(seconds in 0i64..253_402_300_799) {
            prop_assert_eq!(parse_14(&text_14(seconds)), Some(seconds));
        }

        #[test]
        fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..20)) {
            parse_14(&text);
        }
    }
}
