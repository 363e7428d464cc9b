//! The server's certificate and key: files of the operator's, or a self-signed certificate that is
//! made once and kept, so that clients that have seen it recognise it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustix::fs::FlockOperation;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};

use crate::config;
use crate::fingerprint::Fingerprint;

const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// A certificate with its chain and key.
#[derive(Debug)]
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// What it is called in messages.
    pub from: String,
}

impl Identity {
    /// Reads the files that `tls` names, or the self-signed certificate, which is made if it is not
    /// there.
    ///
    /// # Errors
    /// One sentence.
    pub fn load(tls: &config::Tls) -> Result<Identity, String> {
        let Some(files) = &tls.files else {
            let dir = state_dir(|name| std::env::var_os(name))
                .ok_or("there is no place for a certificate: set HOME, or give --tls-cert")?;
            return self_signed(&dir, &tls.implicit)
                .map_err(|error| format!("cannot keep a certificate in {}: {error}", dir.display()))
                .and_then(|()| read(&dir.join(CERTIFICATE), &dir.join(KEY)));
        };
        read(&files.certificate, &files.key)
    }

    /// The same once more: keys are not copied without saying so.
    pub fn again(&self) -> Identity {
        Identity {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            from: self.from.clone(),
        }
    }

    /// Of the server's own certificate, which comes first in the chain.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.chain.first().map(|own| Fingerprint::of(own))
    }
}

fn read(certificate: &Path, key: &Path) -> Result<Identity, String> {
    let from = format!("the certificate {}", certificate.display());
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| cannot_read(certificate, &error))?;
    if chain.is_empty() {
        return Err(format!(
            "there is no certificate in {}",
            certificate.display()
        ));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| cannot_read(key, &error))?;
    Ok(Identity { chain, key, from })
}

fn cannot_read(path: &Path, error: &pem::Error) -> String {
    let path = path.display();
    match error {
        pem::Error::NoItemsFound => format!("there is no key in {path}"),
        pem::Error::Io(error) => {
            let text = error.to_string();
            format!(
                "cannot read {path}: {}",
                text.split(" (os").next().unwrap_or_default()
            )
        }
        error => format!("{path} is no PEM file: {error}"),
    }
}

/// Where what was made stays: what systemd gives, or what is the user's.
fn state_dir(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let of = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    // systemd separates several by colons.
    if let Some(given) = variable("STATE_DIRECTORY")
        && let Some(first) = std::env::split_paths(&given).next()
        && first.is_absolute()
    {
        return Some(first);
    }
    let state = of("XDG_STATE_HOME").or_else(|| Some(of("HOME")?.join(".local/state")))?;
    Some(state.join("hauld"))
}

/// Makes the certificate, unless it is there. Of several servers that start at once, one does.
fn self_signed(dir: &Path, addresses: &[std::net::SocketAddr]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let lock = File::open(dir)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    if dir.join(CERTIFICATE).exists() && dir.join(KEY).exists() {
        return Ok(());
    }
    let mut names = vec!["localhost".to_string(), "127.0.0.1".into(), "::1".into()];
    names.extend(fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().into()));
    let named = addresses.iter().map(|address| address.ip());
    names.extend(
        named
            .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
            .map(|ip| ip.to_string()),
    );
    let (certificate, key) = make(names).map_err(io::Error::other)?;
    // The certificate comes last: where it is, all is.
    place(dir, KEY, 0o600, &key)?;
    place(dir, CERTIFICATE, 0o644, &certificate)
}

fn make(names: Vec<String>) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(names)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "hauld");
    params.distinguished_name = name;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn place(dir: &Path, name: &str, mode: u32, content: &str) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, dir.join(name))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_state_directory_is_the_first_that_is_named() {
        let with = |set: &[(&str, &str)]| {
            let set: Vec<_> = set
                .iter()
                .map(|(name, value)| (*name, OsString::from(value)))
                .collect();
            state_dir(|name| {
                set.iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, value)| value.clone())
            })
        };
        assert_eq!(with(&[]), None);
        assert_eq!(
            with(&[("HOME", "/h")]),
            Some("/h/.local/state/hauld".into())
        );
        let xdg = [("HOME", "/h"), ("XDG_STATE_HOME", "/x")];
        assert_eq!(with(&xdg), Some("/x/hauld".into()));
        let systemd = [xdg[0], xdg[1], ("STATE_DIRECTORY", "/var/lib/hauld:/other")];
        assert_eq!(with(&systemd), Some("/var/lib/hauld".into()));
        assert_eq!(with(&[("HOME", "relative")]), None);
    }

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("a/b");
        self_signed(&dir, &[]).unwrap();
        let first = read(&dir.join(CERTIFICATE), &dir.join(KEY)).unwrap();
        self_signed(&dir, &[]).unwrap();
        let again = read(&dir.join(CERTIFICATE), &dir.join(KEY)).unwrap();
        assert_eq!(first.chain, again.chain);
        let mode = fs::metadata(dir.join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_cannot_be_read_is_told_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let (absent, text) = (dir.path().join("absent"), dir.path().join("text"));
        fs::write(&text, "no PEM").unwrap();
        for path in [&absent, &text] {
            let error = read(path, path).unwrap_err();
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
        }
    }
}
