//! Whom to believe, and the configurations that follow from it.
//!
//! A load test asks how fast a server is, not who it is: without a file of certificates any is
//! accepted. The signatures are checked all the same, since that is work a client has.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::super::dialogue::Failure;
use super::Tls;
use super::tickets::Tickets;

/// What all TLS connections of a bench begin with.
#[derive(Debug, Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// Data connections resume the session of their control connection.
    resumes: bool,
}

/// What the connections of one session share.
#[derive(Debug, Clone)]
pub struct Identity {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Trust {
    /// For the server `host`. `roots` are in PEM; without them any certificate will do.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn new(host: &str, roots: Option<&Path>, resumes: bool) -> Result<Trust, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("TLS needs a host name or an address, and {host} is neither"))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?;
        let config = match roots {
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
                .with_no_client_auth(),
            Some(path) => builder
                .with_root_certificates(read_roots(path)?)
                .with_no_client_auth(),
        };
        Ok(Trust {
            config: Arc::new(config),
            name,
            resumes,
        })
    }

    /// For a new session: no ticket of an earlier one is used, or logins would look cheaper than they
    /// are.
    pub fn identity(&self) -> Identity {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = match self.resumes {
            true => Resumption::store(Arc::new(Tickets::default())),
            false => Resumption::disabled(),
        };
        Identity {
            config: Arc::new(config),
            name: self.name.clone(),
        }
    }
}

impl Identity {
    /// A connection, its hello ready to be sent.
    ///
    /// # Errors
    /// rustls does not want to.
    pub fn connect(&self) -> Result<Tls, Failure> {
        UnbufferedClientConnection::new(Arc::clone(&self.config), self.name.clone())
            .map_err(|error| Failure::new("TLS", error.to_string()))
            .and_then(Tls::new)
    }
}

fn read_roots(path: &Path) -> Result<RootCertStore, String> {
    let shown = path.display();
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(|error| format!("--ca-file {shown} cannot be read: {error}"))?;
    for certificate in certificates {
        certificate
            .map_err(|error| error.to_string())
            .and_then(|it| roots.add(it).map_err(|error| error.to_string()))
            .map_err(|error| format!("--ca-file {shown}: {error}"))?;
    }
    match roots.is_empty() {
        true => Err(format!("--ca-file {shown} has no certificate in PEM form")),
        false => Ok(roots),
    }
}

/// Accepts any certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
