//! What all TLS connections of the process have in common: certificate, versions, ticket key.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::version::{TLS12, TLS13};
use rustls::{Error, ServerConfig};

use super::Tls;
use super::certificate::Identity;
use super::clients::AnyCertificate;
use super::examine::{Certificate, examine};
use super::tickets::{Bound, NONCE_BYTES, Withholdable};
use crate::config;
use crate::fingerprint::Fingerprint;

/// A client that uses a ticket only once gets as many as it has connections at a time.
const TICKETS_OF_CONTROL: usize = 2;
/// One for the next connection.
const TICKETS_OF_DATA: usize = 1;

/// Certificate, versions and ticket key.
#[derive(Debug)]
pub struct Setup {
    provider: Arc<CryptoProvider>,
    config: Arc<ServerConfig>,
    fingerprint: Option<Fingerprint>,
    /// The certificate that hauld made: its files are behind the walls by now, and it stays.
    made: Option<Identity>,
    ticketer: Arc<dyn ProducesTickets>,
    reuse_required: bool,
}

/// What the connections of one control session have in common. It keeps the certificate with which
/// the session began.
#[derive(Debug, Clone)]
pub struct Session {
    config: Arc<ServerConfig>,
    reuse_required: bool,
}

impl Setup {
    /// Reads the certificate that `tls` names, or the self-signed one, which is made if need be.
    /// `ask`: clients are asked for theirs; where nobody needs one, none is asked, since some
    /// programs would trouble their users with the question.
    ///
    /// # Errors
    /// One sentence.
    pub fn new(tls: &config::Tls, ask: bool) -> Result<Setup, String> {
        let identity = Identity::load(tls)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let ticketer = aws_lc_rs::Ticketer::new()
            .map_err(|error| format!("cannot make a key for session tickets: {error}"))?;
        let fingerprint = identity.fingerprint();
        let made = tls.files.is_none().then(|| identity.again());
        let config = server_config(&provider, identity, ask)?;
        Ok(Setup {
            provider,
            config,
            fingerprint,
            made,
            ticketer,
            reuse_required: tls.reuse_required,
        })
    }

    /// What clients can recognise the first certificate by.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// Reads a certificate and tries whether it can be used.
    ///
    /// # Errors
    /// One sentence.
    pub fn examine(files: &config::TlsFiles) -> Result<Certificate, String> {
        let tls = config::Tls {
            files: Some(files.clone()),
            ..config::Tls::default()
        };
        let identity = Identity::load(&tls)?;
        let seen = examine(&identity.chain)?;
        server_config(&Arc::new(aws_lc_rs::default_provider()), identity, false)?;
        Ok(seen)
    }

    /// Reads the certificate again, unless hauld made it. Sessions that began before keep theirs.
    /// `ask` as in [`Setup::new`].
    ///
    /// # Errors
    /// One sentence; nothing has changed.
    pub fn reload(&mut self, tls: &config::Tls, ask: bool) -> Result<(), String> {
        let identity = match &self.made {
            Some(made) => made.again(),
            None => Identity::load(tls)?,
        };
        self.config = server_config(&self.provider, identity, ask)?;
        Ok(())
    }

    /// For a new control session.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn session(&self) -> Result<Session, Error> {
        let mut nonce = [0; NONCE_BYTES];
        self.provider.secure_random.fill(&mut nonce)?;
        let mut config = ServerConfig::clone(&self.config);
        config.ticketer = Arc::new(Bound::new(self.ticketer.clone(), nonce));
        Ok(Session {
            config: Arc::new(config),
            reuse_required: self.reuse_required,
        })
    }
}

impl Session {
    /// TLS for the control connection. `before` is what is to leave first, in clear.
    ///
    /// # Errors
    /// As [`Tls::new`].
    pub fn control(&self, before: Vec<u8>) -> Result<Tls, Error> {
        Tls::new(self.config.clone(), before, false)
    }

    /// TLS for a data connection.
    ///
    /// # Errors
    /// As [`Tls::new`].
    pub fn data(&self) -> Result<Tls, Error> {
        let mut config = ServerConfig::clone(&self.config);
        let tickets = Arc::new(Withholdable::new(config.ticketer));
        config.ticketer = tickets.clone();
        config.send_tls13_tickets = TICKETS_OF_DATA;
        let mut tls = Tls::new(Arc::new(config), Vec::new(), self.reuse_required)?;
        tls.tickets = Some(tickets);
        Ok(tls)
    }
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    identity: Identity,
    ask: bool,
) -> Result<Arc<ServerConfig>, String> {
    let fingerprint = identity.fingerprint();
    let Identity { chain, key, from } = identity;
    warn_of_its_end(&chain, &from);
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .and_then(|builder| {
            let builder = match ask {
                true => {
                    builder.with_client_cert_verifier(Arc::new(AnyCertificate(provider.clone())))
                }
                false => builder.with_no_client_auth(),
            };
            builder.with_single_cert(chain, key)
        });
    let mut config = config.map_err(|error| match error {
        Error::InconsistentKeys(_) => format!("{from}: the key is not that of the certificate"),
        error => format!("cannot use {from}: {error}"),
    })?;
    config.alpn_protocols = vec![b"ftp".to_vec()];
    config.send_tls13_tickets = TICKETS_OF_CONTROL;
    // Sessions are remembered by the client, in tickets: nothing here runs out.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if let Some(fingerprint) = fingerprint {
        log::info!("{from} has the SHA-256 fingerprint {fingerprint}");
    }
    Ok(Arc::new(config))
}

/// A certificate that does not hold is used all the same: some clients do not look, and what nobody
/// can reach cannot be repaired from afar.
fn warn_of_its_end(chain: &[CertificateDer], from: &str) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = since.map_or(0, |since| since.as_secs() as i64);
    match examine(chain) {
        Ok(seen) if seen.until_s < now_s => {
            log::warn!("{from} has expired: clients refuse it; renew it, then send SIGHUP");
        }
        Ok(seen) if seen.from_s > now_s => {
            log::warn!("{from} does not hold yet; is the clock right?");
        }
        Ok(_) => {}
        Err(error) => log::warn!("{from}: {error}"),
    }
}
