//! Whom to believe, and the configurations that follow from it.
//!
//! A load test asks how fast a server is, not who it is: where nothing is said about certificates any
//! is accepted. The signatures are checked all the same, since that is work a client has.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::bench::dialogue::Failure;
use crate::client::error::Error;
use crate::client::server::Server;
use crate::client::tls::{config, name_of};
use crate::client::trust::{self, Verifier};

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
    /// For this server. Where nothing is said about certificates, any will do. `resumes`: data
    /// connections are to resume the session of their control connection.
    ///
    /// # Errors
    /// The host can be in no certificate.
    pub fn new(server: &Server, said: &Arc<trust::Trust>, resumes: bool) -> Result<Trust, Error> {
        let name = name_of(server)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match said.is_explicit() {
            false => Arc::new(Anybody(Arc::clone(&provider))),
            true => {
                let (said, provider) = (Arc::clone(said), Arc::clone(&provider));
                Arc::new(Verifier::new(said, provider, server.to_string()))
            }
        };
        Ok(Trust {
            config: Arc::new(config(provider, verifier)?),
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
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
