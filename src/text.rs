//! Values as people write them on command lines. Pure functions; both programs use them.

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
}
