//! Passwords and the hashes that the users file keeps of them (Argon2id, RFC 9106).
//!
//! Making or checking a hash takes tens of milliseconds and some MiB by design, so it belongs on a
//! thread where nobody waits. Nothing here knows which users there are.

use std::cell::RefCell;
use std::fmt;
use std::io;

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, ParamsBuilder, Version};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// A password as it was typed. Debug says nothing about it, and its memory is wiped when it goes.
/// That covers this copy: those that pass through the buffers of a connection are overwritten by
/// what comes next.
#[derive(Clone)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Password {
        Password(Zeroizing::new(bytes))
    }

    /// A new one that nobody can guess: 80 bits from the system, in four groups that can be read
    /// out and typed.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn random() -> io::Result<Password> {
        // Without 0, 1, l and o, which are mistaken for each other.
        const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        let mut random = random::<16>()?;
        let mut text = Vec::with_capacity(random.len() + 3);
        for (n, byte) in random.iter().enumerate() {
            if n > 0 && n % 4 == 0 {
                text.push(b'-');
            }
            text.push(LETTERS[usize::from(byte % 32)]);
        }
        random.zeroize();
        Ok(Password::new(text))
    }

    /// The password itself.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// What one check costs whoever makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over that memory.
    pub passes: u32,
    /// Lanes. They run one after the other here.
    pub lanes: u32,
}

impl Cost {
    /// What new hashes cost: the first choice of OWASP's password storage cheat sheet. More memory
    /// would be harder on guessers, and also let fewer people log in at the same time.
    pub const DEFAULT: Cost = Cost {
        memory_kib: 19 * 1024,
        passes: 2,
        lanes: 1,
    };
    /// The most that a users file may ask for. All three are far above any recommendation; beyond
    /// them, a few logins would take the machine's memory or the thread that checks passwords.
    pub const MAX: Cost = Cost {
        memory_kib: 256 * 1024,
        passes: 16,
        lanes: 4,
    };
}

/// An Argon2id hash that can be checked against: parsed, and within [`Cost::MAX`].
#[derive(Clone, PartialEq, Eq)]
pub struct Hash {
    text: String,
    cost: Cost,
    salt: Vec<u8>,
    output: Vec<u8>,
}

const SALT_BYTES: usize = 16;
const OUTPUT_BYTES: usize = 32;

impl Hash {
    /// Hashes a password for the users file, with a salt of its own.
    ///
    /// # Errors
    /// The system gives no random bytes or no memory, or `cost` is above [`Cost::MAX`].
    pub fn new(password: &Password, cost: Cost) -> io::Result<Hash> {
        let salt = random::<SALT_BYTES>()?;
        let mut output = [0; OUTPUT_BYTES];
        work(password, cost, &salt, &mut output)?;
        Hash::of_parts(cost, &salt, &output).map_err(io::Error::other)
    }

    /// A hash that costs what `cost` says and that no password is known for. It is there to be
    /// checked against when there is no user: see [`super::authenticator`].
    ///
    /// # Errors
    /// `cost` is above [`Cost::MAX`].
    pub fn decoy(cost: Cost) -> Result<Hash, &'static str> {
        Hash::of_parts(cost, &[0; SALT_BYTES], &[0; OUTPUT_BYTES])
    }

    /// Reads a PHC string, `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`.
    ///
    /// # Errors
    /// What is wrong with it, as the end of the sentence "the password hash ...". The hash itself
    /// is not in it: messages go to logs.
    pub fn parse(text: &str) -> Result<Hash, &'static str> {
        const NOT_PHC: &str = "is not as `hauld user passwd` writes it: \
                               $argon2id$v=19$m=...,t=...,p=...$SALT$HASH";
        if text.is_empty() {
            return Err("is empty");
        }
        let phc = PasswordHash::new(text).map_err(|_| NOT_PHC)?;
        if phc.algorithm != ARGON2ID_IDENT {
            return Err("is not Argon2id");
        }
        if phc.version != Some(Version::V0x13.into()) {
            return Err("is not of version 19 of Argon2");
        }
        let number = |name| phc.params.get_decimal(name).ok_or(NOT_PHC);
        let cost = Cost {
            memory_kib: number("m")?,
            passes: number("t")?,
            lanes: number("p")?,
        };
        let (Some(salt), Some(output)) = (&phc.salt, &phc.hash) else {
            return Err("has no salt or no hash");
        };
        if output.len() < 16 {
            return Err("has less than 16 bytes");
        }
        let hash = Hash::of_parts(cost, salt, output.as_bytes())?;
        // So unknown parameters, another order and other ways to write a number are refused too.
        if hash.text == text {
            Ok(hash)
        } else {
            Err(NOT_PHC)
        }
    }

    fn of_parts(cost: Cost, salt: &[u8], output: &[u8]) -> Result<Hash, &'static str> {
        let phc = PasswordHash {
            algorithm: ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            params: (&params(cost)?)
                .try_into()
                .map_err(|_| "has impossible parameters")?,
            salt: Some(Salt::new(salt).map_err(|_| "has an impossible salt")?),
            hash: Some(Output::new(output).map_err(|_| "has an impossible length")?),
        };
        Ok(Hash {
            text: phc.to_string(),
            cost,
            salt: salt.to_vec(),
            output: output.to_vec(),
        })
    }

    /// Whether this is the hash of `password`. Takes as long for a wrong one as for the right one.
    ///
    /// # Errors
    /// There is no memory for it, so that nothing is known.
    pub fn verify(&self, password: &Password) -> io::Result<bool> {
        let mut output = Zeroizing::new(vec![0; self.output.len()]);
        work(password, self.cost, &self.salt, &mut output)?;
        Ok(output.ct_eq(&self.output).into())
    }

    /// The PHC string.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What a check costs.
    pub fn cost(&self) -> Cost {
        self.cost
    }
}

/// A hash is what a guesser wants to have: Debug tells its cost only.
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hash")
            .field("cost", &self.cost)
            .finish_non_exhaustive()
    }
}

/// `N` bytes from the system.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn params(cost: Cost) -> Result<Params, &'static str> {
    let Cost {
        memory_kib,
        passes,
        lanes,
    } = cost;
    if memory_kib > Cost::MAX.memory_kib {
        return Err("asks for more than 256 MiB (m=262144)");
    }
    if passes > Cost::MAX.passes {
        return Err("asks for more than 16 passes (t=16)");
    }
    if lanes > Cost::MAX.lanes {
        return Err("asks for more than 4 lanes (p=4)");
    }
    ParamsBuilder::new()
        .m_cost(memory_kib)
        .t_cost(passes)
        .p_cost(lanes)
        .build()
        .map_err(|_| "has impossible parameters")
}

thread_local! {
    /// What the last hash of a thread worked in. Freed and taken anew for each, 19 MiB at a time, the
    /// holes that stay behind would add up.
    static MEMORY: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

fn work(password: &Password, cost: Cost, salt: &[u8], output: &mut [u8]) -> io::Result<()> {
    let params = params(cost).map_err(io::Error::other)?;
    let blocks = params.block_count();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    MEMORY.with_borrow_mut(|memory| {
        let missing = blocks.saturating_sub(memory.len());
        memory
            .try_reserve_exact(missing)
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        memory.resize(memory.len() + missing, Block::default());
        argon2
            .hash_password_into_with_memory(password.reveal(), salt, output, &mut memory[..blocks])
            .map_err(io::Error::other)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As cheap as Argon2 can be: tests are about what happens around it.
    pub const CHEAP: Cost = Cost {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };

    pub fn password(text: &str) -> Password {
        Password::new(text.into())
    }

    #[test]
    fn a_hash_knows_its_password_and_no_other() {
        let secret = password("correct horse");
        let hash = Hash::new(&secret, CHEAP).unwrap();
        assert_eq!(Hash::parse(hash.as_str()), Ok(hash.clone()));
        assert!(hash.verify(&secret).unwrap());
        let others = [
            "",
            "correct horsf",
            "correct hors",
            "correct horse\0",
            "Correct horse",
        ];
        for other in others {
            assert!(!hash.verify(&password(other)).unwrap(), "{other:?}");
        }
        let again = Hash::new(&secret, CHEAP).unwrap();
        assert_ne!(hash.as_str(), again.as_str(), "each has a salt of its own");
    }

    /// Bytes are bytes: NUL, no UTF-8, and as long as a line of FTP can be.
    #[test]
    fn any_bytes_are_a_password() {
        for bytes in [vec![0], vec![0xff, 0, 0x80], vec![b'x'; 4091]] {
            let hash = Hash::new(&Password::new(bytes.clone()), CHEAP).unwrap();
            assert!(hash.verify(&Password::new(bytes.clone())).unwrap());
            let shorter = Password::new(bytes[1..].to_vec());
            assert!(!hash.verify(&shorter).unwrap());
        }
    }

    /// From the tests of the reference implementation (`argon2id`, version 0x13).
    #[test]
    fn hashes_of_other_programs_are_understood() {
        let hash = Hash::parse(
            "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ\
             $bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc",
        )
        .unwrap();
        assert!(hash.verify(&password("password")).unwrap());
        assert!(!hash.verify(&password("Password")).unwrap());
    }

    #[test]
    fn the_default_is_what_owasp_recommends() {
        let text = Hash::decoy(Cost::DEFAULT).unwrap();
        assert!(text.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    }

    #[test]
    fn what_cannot_be_checked_is_refused_with_a_reason() {
        const TAIL: &str = "$c29tZXNhbHRzb21lc2FsdA$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";
        let with = |head: &str| Hash::parse(&format!("{head}{TAIL}")).unwrap_err();
        assert!(Hash::parse(&format!("$argon2id$v=19$m=8,t=1,p=1{TAIL}")).is_ok());
        assert_eq!(Hash::parse("").unwrap_err(), "is empty");
        for head in [
            "$argon2i$v=19$m=8,t=1,p=1",
            "$argon2d$v=19$m=8,t=1,p=1",
            "$scrypt$ln=1",
        ] {
            assert_eq!(with(head), "is not Argon2id");
        }
        for head in ["$argon2id$v=16$m=8,t=1,p=1", "$argon2id$m=8,t=1,p=1"] {
            assert_eq!(with(head), "is not of version 19 of Argon2");
        }
        for (head, why) in [
            ("$argon2id$v=19$m=4194304,t=1,p=1", "256 MiB"),
            ("$argon2id$v=19$m=262145,t=1,p=1", "256 MiB"),
            ("$argon2id$v=19$m=19456,t=17,p=1", "16 passes"),
            ("$argon2id$v=19$m=19456,t=1,p=5", "4 lanes"),
            ("$argon2id$v=19$m=19456,t=0,p=1", "impossible"),
            ("$argon2id$v=19$m=19456,t=1,p=0", "impossible"),
            ("$argon2id$v=19$m=7,t=1,p=1", "impossible"),
            ("$argon2id$v=19$m=16,t=1,p=4", "impossible"),
            ("$argon2id$v=19$t=1,m=8,p=1", "as `hauld"),
            ("$argon2id$v=19$m=8,t=1,p=1,keyid=AAAA", "as `hauld"),
            ("$argon2id$v=19$m=08,t=1,p=1", "as `hauld"),
            ("$argon2id$v=19$m=8,m=9,t=1,p=1", "as `hauld"),
            ("$argon2id$v=19$m=99999999999,t=1,p=1", "as `hauld"),
            ("$argon2id$v=19$m=8,t=1", "as `hauld"),
            ("$argon2id$v=19", "as `hauld"),
            ("hunter2", "as `hauld"),
        ] {
            let said = with(head);
            assert!(said.contains(why), "{head}: {said}");
        }
        for text in [
            "$argon2id$v=19$m=8,t=1,p=1",
            "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ",
            "$argon2id$v=19$m=8,t=1,p=1$c29tZQ$bQk8UB/VmZZF4Oo79iDXuA",
            "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$bQk8UB/VmZZF4A",
            "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$",
            "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuA$x",
            "password",
            "*",
            "\u{1f511}",
        ] {
            assert!(Hash::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn debug_tells_no_secret() {
        let secret = password("hunter2");
        let hash = Hash::new(&secret, CHEAP).unwrap();
        let shown = format!("{secret:?} {hash:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("argon2"),
            "{shown}"
        );
        assert!(!shown.contains(&format!("{:?}", hash.output)), "{shown}");
    }

    #[test]
    fn made_passwords_can_be_typed_and_differ() {
        let (one, two) = (Password::random().unwrap(), Password::random().unwrap());
        assert_ne!(one.reveal(), two.reveal());
        assert_eq!(one.reveal().len(), 19);
        let fits = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        assert!(one.reveal().iter().all(fits));
    }
}
