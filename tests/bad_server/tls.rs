//! TLS with servers that should not be trusted.

mod beginning;
mod certificates;
mod data;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};

use crate::talk::Talk;

/// The exit code for all that is about trust.
const TRUST: i32 = 4;

/// An authority, and certificates that it has signed.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Authority { pem, issuer }
    }

    fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_string()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    /// One for 127.0.0.1, without fault.
    fn good(&self) -> Identity {
        self.sign("127.0.0.1", |_| {})
    }

    fn write(&self, dir: &Path) -> String {
        let path = dir.join("authority.pem");
        std::fs::write(&path, &self.pem).unwrap();
        path.to_string_lossy().into_owned()
    }
}

impl Identity {
    fn self_signed() -> Identity {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
        Identity {
            certificate: made.cert.der().clone(),
            key: PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap(),
        }
    }

    fn fingerprint(&self) -> String {
        haul::fingerprint::Fingerprint::of(&self.certificate).to_string()
    }

    fn server(&self) -> Arc<ServerConfig> {
        self.server_with(true)
    }

    /// With TLS 1.3, or 1.2 alone.
    fn server_with(&self, tls13: bool) -> Arc<ServerConfig> {
        let versions = if tls13 { [&TLS13] } else { [&TLS12] };
        let config = ServerConfig::builder_with_protocol_versions(&versions)
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key());
        Arc::new(config.unwrap())
    }
}

fn known_hosts(dir: &Path) -> PathBuf {
    dir.join("known_hosts")
}

/// The greeting, and AUTH up to its answer.
fn auth(talk: &mut Talk) {
    talk.hears_auth = true;
    talk.say("220 ready");
    talk.answer("AUTH TLS", "234 go on");
}

/// A login inside TLS.
fn login(talk: &mut Talk, server: &Arc<ServerConfig>, features: &[&str]) {
    auth(talk);
    assert!(talk.begin_tls(server), "the client wants TLS");
    talk.answer("USER anonymous", "331 password");
    talk.answer("PASS ", "230 welcome");
    let lines: String = features.iter().map(|f| format!(" {f}\r\n")).collect();
    talk.answer("FEAT", &format!("211-Features:\r\n{lines}211 End"));
}
