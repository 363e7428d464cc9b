//! What a certificate is recognised by: its SHA-256 digest, as `hauld` prints it and `haul` takes it.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// Bytes of SHA-256.
const BYTES: usize = 32;

/// The SHA-256 digest of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; BYTES]);

impl Fingerprint {
    /// That of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Fingerprint {
        Fingerprint(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    /// As openssl and browsers write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    /// 64 hexadecimal digits in any case, with or without colons or spaces between them, and the name
    /// of the digest in front as other programs print it.
    fn from_str(text: &str) -> Result<Fingerprint, String> {
        let lower = text.trim().to_ascii_lowercase();
        let mut digits = lower.as_str();
        for name in ["sha-256", "sha256", "fingerprint"] {
            digits = digits.strip_prefix(name).unwrap_or(digits);
            digits = digits.trim_start_matches([':', '=', ' ']);
        }
        let digits: Vec<u8> = digits
            .bytes()
            .filter(|byte| !matches!(byte, b':' | b' ' | b'-'))
            .collect();
        if digits.len() == 40 && digits.iter().all(u8::is_ascii_hexdigit) {
            return Err("this has the length of a SHA-1 digest; SHA-256 is wanted".to_string());
        }
        let value = |digit: u8| char::from(digit).to_digit(16);
        let mut bytes = [0; BYTES];
        let mut pairs = digits.chunks_exact(2);
        let is_read = digits.len() == 2 * BYTES
            && bytes.iter_mut().zip(&mut pairs).all(|(byte, pair)| {
                let both = value(pair[0]).zip(value(pair[1]));
                *byte = both.map_or(0, |(high, low)| (high << 4 | low) as u8);
                both.is_some()
            });
        match is_read {
            true => Ok(Fingerprint(bytes)),
            false => Err("it is 64 hexadecimal digits, as hauld prints it at start".to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_however_it_is_written() {
        let one = Fingerprint::of(b"a certificate");
        let printed = one.to_string();
        assert_eq!(printed.len(), 95);
        let bare = printed.replace(':', "");
        for spelling in [
            printed.clone(),
            bare.clone(),
            bare.to_lowercase(),
            printed.to_lowercase(),
            printed.replace(':', " "),
            format!("SHA256:{printed}"),
            format!("sha256:{bare}"),
            format!("SHA-256: {printed}"),
            format!("sha256 Fingerprint={printed}"),
            format!("SHA256 Fingerprint={printed}\n"),
        ] {
            assert_eq!(spelling.parse(), Ok(one), "{spelling}");
        }
    }

    #[test]
    fn what_is_no_fingerprint_is_told() {
        let printed = Fingerprint::of(b"").to_string();
        let bare = printed.replace(':', "");
        for bad in [
            "",
            ":",
            "SHA256:",
            &printed[1..],
            &format!("{printed}:00"),
            &bare.replacen(|c: char| c.is_ascii_digit(), "g", 1),
            &bare.replacen(|c: char| c.is_ascii_digit(), "ü", 1),
        ] {
            let said = bad.parse::<Fingerprint>().unwrap_err();
            assert!(said.contains("64 hexadecimal"), "{bad}: {said}");
        }
        let short = bare[..40].parse::<Fingerprint>().unwrap_err();
        assert!(short.contains("SHA-1"), "{short}");
    }
}
