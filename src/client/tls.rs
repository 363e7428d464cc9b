//! TLS for one session: the same settings, certificate and tickets for its control connection and
//! its data connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustls::client::UnbufferedClientConnection;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};

use super::error::{Error, Exit};
use super::server::Server;
use super::stream::{NoTls, Stream};
use super::trust::{Trust, Verifier, refusal};
use crate::text::plain;

/// Whether to use TLS where the address does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Everything travels in clear
    Off,
    /// TLS where the server offers it
    Auto,
    /// TLS or nothing
    Required,
}

/// What the certificate of `server` must be for.
///
/// # Errors
/// The host can be in no certificate.
pub fn name_of(server: &Server) -> Result<ServerName<'static>, Error> {
    // Behind the % is the name of an interface of this machine.
    let host = server.host.split('%').next().unwrap_or_default();
    ServerName::try_from(host.to_owned()).map_err(|_| {
        Error::usage(format!(
            "no certificate can be for the name {host}; use an address"
        ))
    })
}

/// A configuration that believes whom `verifier` believes.
///
/// # Errors
/// `provider` has no cipher for a version of TLS.
pub fn config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<ClientConfig, Error> {
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Exit::Trust, format!("TLS: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

/// TLS for the connections to one server.
pub struct Session {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Session {
    /// For a new control connection to `server`.
    ///
    /// # Errors
    /// The host can be in no certificate.
    pub fn new(server: &Server, trust: &Arc<Trust>) -> Result<Session, Error> {
        let name = name_of(server)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Verifier::new(trust.clone(), provider.clone(), server.to_string());
        let mut config = config(provider, Arc::new(verifier))?;
        // A server of another protocol is not to be talked to, however good its certificate.
        config.alpn_protocols = vec![b"ftp".to_vec()];
        Ok(Session {
            config: Arc::new(config),
            name,
        })
    }

    /// Puts `stream` inside TLS.
    ///
    /// # Errors
    /// [`error`] says what they mean.
    pub fn begin(&self, stream: &mut Stream, timeout: Duration) -> Result<(), NoTls> {
        let connection = UnbufferedClientConnection::new(self.config.clone(), self.name.clone());
        let connection = connection.map_err(NoTls::Refused)?;
        stream.begin_tls(connection, Instant::now() + timeout)
    }
}

/// Why there is no TLS, as one sentence.
pub fn error(why: &NoTls, timeout: Duration) -> Error {
    let seconds = timeout.as_secs();
    match why {
        NoTls::Refused(error) => Error::new(Exit::Trust, sentence(error)),
        NoTls::Broken(error) => Error::new(
            Exit::Trust,
            format!(
                "the connection ended while TLS was to begin ({}); the server's log may say why",
                plain(error)
            ),
        ),
        NoTls::Stalled => Error::broken(format!(
            "the server did not begin TLS for {seconds} s (--timeout)"
        )),
    }
}

fn sentence(error: &rustls::Error) -> String {
    use AlertDescription as A;
    if let Some(sentence) = refusal(error) {
        return sentence;
    }
    match error {
        rustls::Error::InvalidMessage(_) => {
            "what answers there does not speak TLS; ftps:// is for servers that begin with it (port \
             990), ftp:// for all others"
                .into()
        }
        rustls::Error::AlertReceived(A::HandshakeFailure | A::ProtocolVersion)
        | rustls::Error::PeerIncompatible(_) => {
            "the server and haul know no common way to encrypt; haul wants TLS 1.2 or 1.3".into()
        }
        rustls::Error::AlertReceived(A::NoApplicationProtocol)
        | rustls::Error::NoApplicationProtocol => {
            "the server speaks TLS, but not FTP".into()
        }
        error => format!("TLS failed ({error}); the server's log may say why"),
    }
}
