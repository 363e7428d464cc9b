//! What a person wants to know of a certificate before its clients find out.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What is said in a chain of certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The names and addresses that it is for.
    pub names: Vec<String>,
    /// Seconds since 1970 from which on it holds.
    pub from_s: i64,
    /// Seconds since 1970 up to which it holds; of a chain, the part that ends first.
    pub until_s: i64,
    /// It vouches for itself.
    pub self_signed: bool,
    /// Whether each certificate of the chain is signed by the next, as far as their names tell.
    pub in_order: bool,
    /// Certificates in the chain.
    pub length: usize,
}

/// Reads a chain.
///
/// # Errors
/// One sentence: it is none.
pub fn examine(chain: &[CertificateDer]) -> Result<Certificate, String> {
    let parsed: Result<Vec<_>, _> = chain
        .iter()
        .map(|der| X509Certificate::from_der(der).map(|(_, parsed)| parsed))
        .collect();
    let parsed = parsed.map_err(|error| format!("this is no certificate: {error}"))?;
    let first = parsed.first().ok_or("the chain is empty")?;
    let names = first.subject_alternative_name();
    let names = names.map_err(|error| format!("its names cannot be read: {error}"))?;
    let names = names.map_or(Vec::new(), |names| {
        names.value.general_names.iter().filter_map(name).collect()
    });
    let validity = || parsed.iter().map(|it| it.validity());
    Ok(Certificate {
        names,
        from_s: validity()
            .map(|it| it.not_before.timestamp())
            .max()
            .unwrap_or(0),
        until_s: validity()
            .map(|it| it.not_after.timestamp())
            .min()
            .unwrap_or(0),
        self_signed: first.issuer() == first.subject(),
        in_order: parsed
            .windows(2)
            .all(|pair| pair[0].issuer() == pair[1].subject()),
        length: parsed.len(),
    })
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_string()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_times_are_read() {
        let names = vec![
            "files.example.org".to_string(),
            "192.0.2.1".into(),
            "::1".into(),
        ];
        let mut params = rcgen::CertificateParams::new(names.clone()).unwrap();
        params.not_before = rcgen::date_time_ymd(2001, 9, 9);
        params.not_after = rcgen::date_time_ymd(2033, 5, 18);
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        let seen = examine(&[made.der().clone()]).unwrap();
        assert_eq!(seen.names, names);
        assert_eq!(
            (seen.from_s, seen.until_s),
            (999_993_600, 2_000_073_600 - 86_400)
        );
        assert!(seen.self_signed && seen.in_order && seen.length == 1);
        assert!(examine(&[CertificateDer::from(vec![1, 2, 3])]).is_err());
        assert!(examine(&[]).is_err());
    }
}
