use std::time::Duration;

use super::*;
use crate::accounts::password::Cost;
use crate::accounts::password::tests::{CHEAP, password};
use crate::accounts::throttle::{ADDRESS_FAILURES, LOCK, PAIR_FAILURES};

const HERE: &str = "192.0.2.1";
const THERE: &str = "198.51.100.1";

fn user(name: &str, secret: &str) -> User {
    let hash = Hash::new(&password(secret), CHEAP).unwrap();
    User::new(name.parse().unwrap(), hash)
}

fn auth(users: Vec<User>, now: Instant) -> Authenticator {
    Authenticator::new(Users::of(users).unwrap(), now).unwrap()
}

/// How an attempt ended, and whether a hash was worked out for it.
#[derive(Debug, PartialEq)]
enum End {
    In,
    InAtOnce,
    Refused(Cost),
}
use End::{In, InAtOnce};
const REFUSED: End = End::Refused(CHEAP);

fn attempt(auth: &mut Authenticator, name: &[u8], secret: &str, from: &str, now: Instant) -> End {
    attempt_with(auth, name, secret, None, from, now)
}

fn attempt_with(
    auth: &mut Authenticator,
    name: &[u8],
    secret: &str,
    certificate: Option<Fingerprint>,
    from: &str,
    now: Instant,
) -> End {
    let from = from.parse().unwrap();
    match auth.begin(name, password(secret), certificate, from, now) {
        Begun::Known(user) => {
            assert_eq!(user.name.as_str().as_bytes(), name);
            InAtOnce
        }
        Begun::Check(check) => {
            let cost = check.hash.cost();
            match auth.answer(check.run(), now).unwrap() {
                None => End::Refused(cost),
                Some(user) => {
                    assert_eq!(user.name.as_str().as_bytes(), name);
                    In
                }
            }
        }
    }
}

#[test]
fn the_right_password_gets_in_and_again_at_once_for_a_while() {
    let now = Instant::now();
    let mut auth = auth(vec![user("anna", "secret"), user("ben", "other")], now);
    assert_eq!(attempt(&mut auth, b"anna", "other", HERE, now), REFUSED);
    assert_eq!(attempt(&mut auth, b"anna", "secret", HERE, now), In);
    assert_eq!(attempt(&mut auth, b"anna", "secret", HERE, now), InAtOnce);
    assert_eq!(attempt(&mut auth, b"anna", "secret", THERE, now), InAtOnce);
    assert_eq!(attempt(&mut auth, b"anna", "Secret", HERE, now), REFUSED);
    assert_eq!(attempt(&mut auth, b"ben", "secret", HERE, now), REFUSED);
    let later = now + Duration::from_secs(3600);
    assert_eq!(attempt(&mut auth, b"anna", "secret", HERE, later), In);
}

#[test]
fn a_certificate_stands_for_the_password_of_its_user_alone() {
    let now = Instant::now();
    let (own, other) = (Fingerprint::of(&[1]), Fingerprint::of(&[2]));
    let anna = User {
        certificates: vec![Fingerprint::of(&[9]), own],
        networks: vec!["192.0.2.0/24".parse().unwrap()],
        ..user("anna", "secret")
    };
    let locked = User {
        certificates: vec![own],
        locked: true,
        ..user("locked", "secret")
    };
    let mut auth = auth(vec![anna, user("ben", "other"), locked], now);
    let mut with = |name: &[u8], secret, certificate, from| {
        attempt_with(&mut auth, name, secret, Some(certificate), from, now)
    };
    for _ in 0..=PAIR_FAILURES {
        assert_eq!(with(b"anna", "wrong", other, HERE), REFUSED);
    }
    // Guesses at the password lock that, and not the key.
    assert_eq!(with(b"anna", "secret", other, HERE), REFUSED);
    assert_eq!(with(b"anna", "anything", own, HERE), InAtOnce);
    assert_eq!(with(b"anna", "anything", own, THERE), REFUSED);
    assert_eq!(with(b"ben", "wrong", own, HERE), REFUSED);
    assert_eq!(with(b"ben", "other", own, HERE), In);
    assert_eq!(with(b"locked", "secret", own, HERE), REFUSED);
    assert_eq!(with(b"nobody", "secret", own, HERE), REFUSED);
}

/// A02: 200 times an unknown user, 200 times a known one with a wrong password.
#[test]
fn unknown_wrong_locked_and_forbidden_are_the_same() {
    let now = Instant::now();
    let locked = User {
        locked: true,
        ..user("locked", "secret")
    };
    let elsewhere = User {
        networks: vec!["198.51.100.0/24".parse().unwrap()],
        ..user("elsewhere", "secret")
    };
    let mut auth = auth(vec![user("anna", "secret"), locked, elsewhere], now);
    for name in [&b"anna"[..], b"nobody", b"\xff\0", b"", b"anonymous"] {
        for n in 0..200 {
            let now = now + n * LOCK;
            assert_eq!(attempt(&mut auth, name, "wrong", HERE, now), REFUSED);
        }
    }
    for name in [&b"locked"[..], b"elsewhere"] {
        for _ in 0..3 {
            assert_eq!(attempt(&mut auth, name, "secret", HERE, now), REFUSED);
        }
    }
    assert_eq!(attempt(&mut auth, b"elsewhere", "secret", THERE, now), In);
    assert_eq!(
        attempt(&mut auth, b"elsewhere", "secret", HERE, now),
        REFUSED,
        "known from a moment ago, but not from here"
    );
}

#[test]
fn an_empty_file_lets_nobody_in_at_the_usual_cost() {
    let now = Instant::now();
    let mut auth = auth(Vec::new(), now);
    let refused = End::Refused(Cost::DEFAULT);
    assert_eq!(attempt(&mut auth, b"anna", "", HERE, now), refused);
}

/// A06
#[test]
fn five_failures_lock_the_pair_and_the_right_password_gets_in_elsewhere() {
    let now = Instant::now();
    let mut auth = auth(vec![user("anna", "secret"), user("ben", "secret")], now);
    assert_eq!(attempt(&mut auth, b"anna", "secret", HERE, now), In);
    for _ in 0..PAIR_FAILURES {
        assert_eq!(attempt(&mut auth, b"anna", "wrong", HERE, now), REFUSED);
    }
    assert_eq!(
        attempt(&mut auth, b"anna", "secret", HERE, now),
        REFUSED,
        "at full cost: a quick answer would tell that the password is right"
    );
    assert_eq!(attempt(&mut auth, b"anna", "secret", THERE, now), InAtOnce);
    assert_eq!(attempt(&mut auth, b"ben", "secret", HERE, now), In);
    let later = now + LOCK;
    assert_eq!(attempt(&mut auth, b"anna", "secret", HERE, later), In);
}

/// A06
#[test]
fn fifty_failures_lock_the_address() {
    let now = Instant::now();
    let mut auth = auth(vec![user("anna", "secret")], now);
    for n in 0..ADDRESS_FAILURES {
        let name = format!("guess{n}");
        assert_eq!(attempt(&mut auth, name.as_bytes(), "x", HERE, now), REFUSED);
    }
    assert_eq!(attempt(&mut auth, b"anna", "secret", HERE, now), REFUSED);
    assert_eq!(attempt(&mut auth, b"anna", "secret", THERE, now), In);
}

#[test]
fn a_right_password_is_no_failure_even_where_it_is_refused() {
    let now = Instant::now();
    let from_there = User {
        networks: vec!["198.51.100.0/24".parse().unwrap()],
        ..user("anna", "secret")
    };
    let mut auth = auth(vec![from_there, user("ben", "secret")], now);
    for _ in 0..2 * ADDRESS_FAILURES {
        assert_eq!(attempt(&mut auth, b"anna", "secret", HERE, now), REFUSED);
    }
    assert_eq!(attempt(&mut auth, b"ben", "secret", HERE, now), In);
}

/// A hundred sessions guess at the same time: no more than five of the guesses count for anything.
#[test]
fn guesses_in_flight_are_refused_once_the_pair_is_locked() {
    let now = Instant::now();
    let mut auth = auth(vec![user("anna", "secret")], now);
    let mut checks = Vec::new();
    for n in 0..100 {
        let guess = if n == 99 {
            "secret".into()
        } else {
            n.to_string()
        };
        match auth.begin(b"anna", password(&guess), None, HERE.parse().unwrap(), now) {
            Begun::Check(check) => checks.push(check),
            Begun::Known(_) => panic!("nobody is known yet"),
        }
    }
    for check in checks {
        assert!(auth.answer(check.run(), now).unwrap().is_none());
    }
}

#[test]
fn a_reload_holds_at_once() {
    let now = Instant::now();
    let anna = user("anna", "secret");
    let mut auth = auth(vec![anna.clone()], now);
    assert_eq!(attempt(&mut auth, b"anna", "secret", HERE, now), In);
    auth.reload(Users::of(vec![anna.clone()]).unwrap());
    assert_eq!(attempt(&mut auth, b"anna", "secret", HERE, now), In);
    let locked = User {
        locked: true,
        ..anna.clone()
    };
    auth.reload(Users::of(vec![locked]).unwrap());
    assert_eq!(attempt(&mut auth, b"anna", "secret", HERE, now), REFUSED);

    // A check that began before the reload counts for nothing after it.
    auth.reload(Users::of(vec![anna]).unwrap());
    let begin = |auth: &mut Authenticator| {
        let here = HERE.parse().unwrap();
        match auth.begin(b"anna", password("secret"), None, here, now) {
            Begun::Check(check) => check.run(),
            Begun::Known(_) => panic!("forgotten at the reload"),
        }
    };
    let checked = begin(&mut auth);
    auth.reload(Users::of(vec![user("anna", "secret")]).unwrap());
    assert!(auth.answer(checked, now).unwrap().is_none(), "another hash");
    let checked = begin(&mut auth);
    auth.reload(Users::of(Vec::new()).unwrap());
    assert!(auth.answer(checked, now).unwrap().is_none(), "gone");
}

#[test]
fn locks_outlive_a_reload() {
    let now = Instant::now();
    let anna = user("anna", "secret");
    let mut auth = auth(vec![anna.clone()], now);
    for _ in 0..PAIR_FAILURES {
        assert_eq!(attempt(&mut auth, b"anna", "wrong", HERE, now), REFUSED);
    }
    auth.reload(Users::of(vec![anna]).unwrap());
    assert_eq!(attempt(&mut auth, b"anna", "secret", HERE, now), REFUSED);
}

#[test]
fn a_check_that_could_not_be_made_is_no_failure() {
    let now = Instant::now();
    let mut auth = auth(vec![user("anna", "secret")], now);
    for _ in 0..2 * PAIR_FAILURES {
        let here = HERE.parse().unwrap();
        let Begun::Check(check) = auth.begin(b"anna", password("secret"), None, here, now) else {
            panic!("nobody is known yet");
        };
        let failed = Checked {
            right: Err(io::ErrorKind::OutOfMemory.into()),
            ..check.run()
        };
        assert!(auth.answer(failed, now).is_err());
    }
    assert_eq!(attempt(&mut auth, b"anna", "secret", HERE, now), In);
}
