//! Which certificate is good enough: one that was named, one that the given authorities or this
//! machine's have signed, or one that somebody has decided to trust before.
//!
//! Nothing is trusted and asked about later: a handshake with an unknown certificate fails, and who
//! then says that it is the right one connects again.

use std::fmt;
use std::io::{BufRead, BufReader, IsTerminal, Write, stderr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};

use crate::fingerprint::Fingerprint;
use crate::text::plain;

use super::error::{Error, Exit, shown};
use super::known_hosts::{KnownHosts, Remembered};

/// What the user says about certificates.
#[derive(Debug, Default)]
pub struct Trust {
    fingerprint: Option<Fingerprint>,
    authorities: Option<Arc<RootCertStore>>,
    known: Option<KnownHosts>,
    /// Decided on while the program runs.
    accepted: Mutex<Option<Fingerprint>>,
    stranger: Mutex<Option<Stranger>>,
}

/// A certificate that nobody vouches for.
#[derive(Debug, Clone)]
struct Stranger {
    fingerprint: Fingerprint,
    why: String,
}

/// Why a certificate is refused, as a sentence.
#[derive(Debug)]
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// The sentence, if it was a [`Verifier`] that ended a handshake.
pub fn refusal(error: &rustls::Error) -> Option<String> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(error))) => {
            error.downcast_ref::<Refusal>().map(Refusal::to_string)
        }
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Trust {
    /// `fingerprint`: only this certificate. `ca_file`: only what these authorities have signed.
    /// Otherwise the authorities of this machine, and what `known` remembers.
    ///
    /// # Errors
    /// The file has no certificates in it.
    pub fn new(
        fingerprint: Option<Fingerprint>,
        ca_file: Option<&Path>,
        known: Option<KnownHosts>,
    ) -> Result<Trust, Error> {
        Ok(Trust {
            fingerprint,
            authorities: ca_file.map(read_authorities).transpose()?.map(Arc::new),
            known,
            ..Trust::default()
        })
    }

    /// Whether the user has said what to trust, so that a connection without a certificate cannot
    /// be meant.
    pub fn is_explicit(&self) -> bool {
        self.fingerprint.is_some() || self.authorities.is_some()
    }

    /// Where it is written down that `host` had TLS before.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn had_tls(&self, host: &str) -> Result<Option<String>, Error> {
        let Some(known) = &self.known else {
            return Ok(None);
        };
        let line = known
            .line_of(host)
            .map_err(|why| Error::new(Exit::Trust, why))?;
        Ok(line.map(|line| format!("line {line} of {}", known.path().display())))
    }

    /// If the last handshake failed only because nobody vouches for the certificate, and somebody
    /// sits at the terminal: asks, and keeps the answer. True: try again.
    ///
    /// # Errors
    /// The answer is no.
    pub fn reconsider(&self, host: &str) -> Result<bool, Error> {
        let Some(stranger) = lock(&self.stranger).take() else {
            return Ok(false);
        };
        let Some(answer) = ask(host, &stranger) else {
            return Ok(false);
        };
        let answer = answer.trim();
        if !answer.eq_ignore_ascii_case("yes") && answer.parse() != Ok(stranger.fingerprint) {
            let text = format!("the certificate of {host} is not trusted; nothing was sent");
            return Err(Error::new(Exit::Trust, text));
        }
        *lock(&self.accepted) = Some(stranger.fingerprint);
        let kept = self.known.as_ref().map(|known| {
            let kept = known.remember(host, stranger.fingerprint);
            kept.map_err(|error| format!("{}: {}", known.path().display(), plain(&error)))
        });
        if let Some(Err(why)) = kept {
            let _ = writeln!(
                stderr(),
                "haul: this will be asked again: cannot write {why}"
            );
        }
        Ok(true)
    }

    fn judge(
        &self,
        host: &str,
        leaf: &CertificateDer,
        by: &dyn Fn(Arc<RootCertStore>) -> Result<(), rustls::Error>,
    ) -> Result<(), Refusal> {
        let found = Fingerprint::of(leaf);
        if let Some(wanted) = self.fingerprint {
            return match wanted == found {
                true => Ok(()),
                false => Err(Refusal(format!(
                    "its certificate has the SHA-256 fingerprint {found}, which is not that of \
                     --fingerprint; compare it with what the server prints at start"
                ))),
            };
        }
        if let Some(authorities) = &self.authorities {
            return by(authorities.clone()).map_err(|error| {
                Refusal(format!(
                    "its certificate {} (by --ca-file); if it is the right one all the same, \
                     use --fingerprint {found} instead",
                    reason(&error)
                ))
            });
        }
        if *lock(&self.accepted) == Some(found) {
            return Ok(());
        }
        if let Some(known) = &self.known {
            match known.find(host, found).map_err(Refusal)? {
                Remembered::This => return Ok(()),
                Remembered::Another(line) => {
                    return Err(Refusal(format!(
                        "its certificate is not the one that you trusted before: either it has a \
                         new one, or somebody is in between; compare the SHA-256 fingerprint {found} \
                         with what the server prints at start, and only if they are the same remove \
                         line {line} of {}",
                        known.path().display()
                    )));
                }
                Remembered::Nothing => {}
            }
        }
        let Err(error) = by(Arc::new(authorities_of_this_machine())) else {
            return Ok(());
        };
        let why = reason(&error);
        let refusal = Refusal(format!(
            "its certificate {why}; compare its SHA-256 fingerprint with what the server prints at \
             start, and if they are the same use --fingerprint {found}"
        ));
        *lock(&self.stranger) = Some(Stranger {
            fingerprint: found,
            why,
        });
        Err(refusal)
    }
}

/// The answer of whoever sits at the terminal; `None` if nobody does.
fn ask(host: &str, stranger: &Stranger) -> Option<String> {
    if !stderr().is_terminal() {
        return None;
    }
    // Standard input may be a file that is to be sent.
    let terminal = std::fs::File::open("/dev/tty").ok()?;
    let Stranger { fingerprint, why } = stranger;
    let question = format!(
        "The certificate of {host} {why}.\n\
         Its SHA-256 fingerprint is\n  {fingerprint}\n\
         hauld prints it at start; compare it there, or with what its owner tells you.\n\
         Is it the right one, to be trusted from now on? (yes, or the fingerprint; anything else is no) "
    );
    let mut out = stderr();
    out.write_all(question.as_bytes())
        .and_then(|()| out.flush())
        .ok()?;
    let mut answer = String::new();
    BufReader::new(terminal).read_line(&mut answer).ok()?;
    Some(answer)
}

fn read_authorities(path: &Path) -> Result<RootCertStore, Error> {
    let bad = |why: &str| Error::usage(format!("--ca-file {}: {why}", path.display()));
    let mut store = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| match error {
        pem::Error::Io(error) => bad(&plain(&error)),
        _ => bad("this is no PEM file"),
    })?;
    for certificate in certificates {
        let certificate = certificate.map_err(|_| bad("this is no PEM file"))?;
        let added = store.add(certificate);
        added.map_err(|_| bad("a certificate in it cannot be read"))?;
    }
    match store.is_empty() {
        true => Err(bad("there is no certificate in it")),
        false => Ok(store),
    }
}

/// Empty where the system has none, as a small container does.
fn authorities_of_this_machine() -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    store
}

/// What is wrong with a certificate, as the end of "its certificate ...".
fn reason(error: &rustls::Error) -> String {
    use CertificateError as C;
    let rustls::Error::InvalidCertificate(error) = error else {
        return format!("cannot be checked ({error})");
    };
    match error {
        // An issuer of the right name with another key is another issuer.
        C::UnknownIssuer | C::BadSignature => "is signed by nobody that is trusted here".into(),
        C::Expired | C::ExpiredContext { .. } => {
            "has expired (if this machine's clock is right)".into()
        }
        C::NotValidYet | C::NotValidYetContext { .. } => {
            "is not valid yet (if this machine's clock is right)".into()
        }
        C::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
            let names: Vec<String> = presented
                .iter()
                .take(3)
                .map(|name| shown(name.as_bytes()))
                .collect();
            format!("is for another name ({})", names.join(", "))
        }
        C::NotValidForName | C::NotValidForNameContext { .. } => "is for another name".into(),
        C::BadEncoding => "cannot be read".into(),
        C::Revoked => "has been revoked".into(),
        // What `openssl req -x509` makes, unless it is told otherwise.
        C::Other(why) if why.to_string().contains("CaUsedAsEndEntity") => {
            "is that of an authority (CA:TRUE), which none but authorities should have".into()
        }
        error => format!("is not good ({})", shown(error.to_string().as_bytes())),
    }
}

/// Judges the certificates of one session. All of them must be the same: a data connection is made to
/// the server that the control connection is made to.
#[derive(Debug)]
pub struct Verifier {
    trust: Arc<Trust>,
    provider: Arc<CryptoProvider>,
    host: String,
    leaf: Mutex<Option<CertificateDer<'static>>>,
}

impl Verifier {
    /// `host` is what the server is remembered by.
    pub fn new(trust: Arc<Trust>, provider: Arc<CryptoProvider>, host: String) -> Verifier {
        Verifier {
            trust,
            provider,
            host,
            leaf: Mutex::default(),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = |refusal| {
            let error = OtherError(Arc::new(refusal));
            rustls::Error::InvalidCertificate(CertificateError::Other(error))
        };
        let mut of_session = lock(&self.leaf);
        if let Some(of_session) = &*of_session {
            return match of_session == leaf {
                true => Ok(ServerCertVerified::assertion()),
                false => Err(refused(Refusal(
                    "the data connection has another certificate than the control connection: it \
                     leads to another server, so nothing is moved over it"
                        .into(),
                ))),
            };
        }
        let by = |authorities: Arc<RootCertStore>| {
            if authorities.is_empty() {
                return Err(CertificateError::UnknownIssuer.into());
            }
            let verifier =
                WebPkiServerVerifier::builder_with_provider(authorities, self.provider.clone())
                    .build()
                    .map_err(|error| rustls::Error::General(error.to_string()))?;
            verifier
                .verify_server_cert(leaf, intermediates, name, ocsp, now)
                .map(drop)
        };
        self.trust.judge(&self.host, leaf, &by).map_err(refused)?;
        *of_session = Some(leaf.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
