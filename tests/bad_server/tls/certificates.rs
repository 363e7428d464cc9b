//! Certificates that are not good enough (L05), and those that somebody trusts all the same.

use std::fs;

use super::{Authority, Identity, TRUST, auth, known_hosts};
use crate::client::*;
use crate::talk::*;

/// Lists nothing, or is refused before a login; tells which.
fn listed(talk: &mut Talk, identity: &Identity) -> bool {
    auth(talk);
    if !talk.begin_tls(&identity.server()) {
        return false;
    }
    // In TLS 1.3 a client learns everything last, and its refusal comes behind the handshake.
    if talk.hear().is_empty() {
        return false;
    }
    talk.say("230 in");
    talk.answer("FEAT", "500 what?");
    talk.answer("DELE a", "250 gone");
    talk.rest();
    true
}

/// Whether the client goes on with `identity`, and how it ended.
fn trusts(identity: Identity, words: &[&str]) -> (bool, Outcome) {
    let fake = serve(move |talk| {
        let went_on = listed(talk, &identity);
        talk.heard = vec![went_on.to_string()];
    });
    let outcome = haul(fake.address, dir().path(), &[words, &["rm", "a"]].concat());
    let went_on = fake.thread.join().unwrap() == ["true"];
    (went_on, outcome)
}

#[test]
fn l05_a_certificate_must_be_right_in_every_way() {
    let dir = dir();
    let authority = Authority::new();
    let file = authority.write(dir.path());
    let words = ["--ca-file", &file];
    let year = rcgen::date_time_ymd;
    let expired = authority.sign("127.0.0.1", |params| params.not_after = year(2020, 1, 1));
    let early = authority.sign("127.0.0.1", |params| params.not_before = year(4000, 1, 1));
    for (identity, says) in [
        (expired, "has expired"),
        (early, "is not valid yet"),
        (authority.sign("example.org", |_| {}), "for another name"),
        (authority.sign("127.0.0.2", |_| {}), "for another name"),
        (Authority::new().good(), "signed by nobody"),
        (Identity::self_signed(), "signed by nobody"),
    ] {
        let fingerprint = identity.fingerprint();
        let (went_on, outcome) = trusts(identity, &words);
        outcome.check(TRUST, says);
        outcome.check(TRUST, &format!("--fingerprint {fingerprint}"));
        assert_eq!(outcome.err.lines().count(), 1, "{}", outcome.err);
        assert!(!went_on, "{says}");
    }
    let (went_on, outcome) = trusts(authority.good(), &words);
    outcome.check(0, "");
    assert!(went_on);
}

#[test]
fn l05_what_nobody_vouches_for_is_refused_with_the_words_that_would_accept_it() {
    let identity = Identity::self_signed();
    let fingerprint = identity.fingerprint();
    let (went_on, outcome) = trusts(identity, &[]);
    outcome.check(TRUST, &format!("--fingerprint {fingerprint}"));
    assert!(!went_on);
}

#[test]
fn a_pinned_certificate_needs_nothing_else_and_no_other_will_do() {
    let authority = Authority::new();
    let year = rcgen::date_time_ymd;
    let old = authority.sign("example.org", |params| params.not_after = year(2020, 1, 1));
    let pin = old.fingerprint().replace(':', "").to_lowercase();
    let (went_on, outcome) = trusts(old, &["--fingerprint", &pin]);
    outcome.check(0, "");
    assert!(went_on);

    let other = Identity::self_signed();
    let found = other.fingerprint();
    let (went_on, outcome) = trusts(other, &["--fingerprint", &pin]);
    outcome.check(TRUST, &found);
    assert!(!went_on);
}

#[test]
fn a_remembered_certificate_is_good_and_a_changed_one_is_an_error() {
    let dir = dir();
    let known = known_hosts(dir.path());
    let path = known.to_string_lossy().into_owned();
    for changed in [false, true] {
        let identity = Identity::self_signed();
        let (old, new) = (
            Identity::self_signed().fingerprint(),
            identity.fingerprint(),
        );
        let fake = serve(move |talk| {
            talk.heard = vec![listed(talk, &identity).to_string()];
        });
        let remembered = if changed { &old } else { &new };
        let text = format!("other:21 {new}\n{} {remembered}\n", fake.address);
        fs::write(&known, &text).unwrap();
        let outcome = haul(
            fake.address,
            dir.path(),
            &["--known-hosts", &path, "rm", "a"],
        );
        let went_on = fake.thread.join().unwrap() == ["true"];
        match changed {
            false => outcome.check(0, ""),
            true => {
                outcome.check(TRUST, &format!("remove line 2 of {path}"));
                outcome.check(TRUST, &new);
            }
        }
        assert_eq!(went_on, !changed);
        assert_eq!(
            fs::read_to_string(&known).unwrap(),
            text,
            "nothing is added"
        );
    }
}

#[test]
fn l05_the_server_must_have_the_key_of_its_certificate() {
    let (identity, other) = (Identity::self_signed(), Identity::self_signed());
    let fingerprint = identity.fingerprint();
    // rustls does not serve such a pair; what signs with another key can be told to.
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = provider.key_provider.load_private_key(other.key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![identity.certificate], key);
    let resolver = rustls::sign::SingleCertAndKey::from(certified);
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(std::sync::Arc::new(resolver));
    let server = std::sync::Arc::new(server);
    let (outcome, heard) = play(
        dir().path(),
        &["--fingerprint", &fingerprint, "ls"],
        move |talk| {
            auth(talk);
            talk.begin_tls(&server);
            talk.rest();
        },
    );
    outcome.check(TRUST, "TLS failed");
    assert!(
        !heard.iter().any(|line| line.starts_with("USER")),
        "{heard:?}"
    );
}

#[test]
fn a_password_goes_through_tls_to_the_pinned_server_alone() {
    let identity = Identity::self_signed();
    let (pin, server) = (identity.fingerprint(), identity.server());
    let fake = serve(move |talk| {
        auth(talk);
        assert!(talk.begin_tls(&server));
        talk.answer("USER me", "331 password");
        talk.answer("PASS hush", "230 in");
        talk.answer("FEAT", "500 what?");
        talk.answer("DELE a", "250 gone");
        talk.rest();
    });
    let server = format!("me:hush@{}", fake.address);
    let words = [
        "--verbose",
        "--server",
        &server,
        "--fingerprint",
        &pin,
        "rm",
        "a",
    ];
    let outcome = haul(fake.address, dir().path(), &words);
    outcome.check(0, "* TLS 1.3 ");
    assert!(!outcome.err.contains("hush"), "{}", outcome.err);
    fake.thread.join().unwrap();
}
