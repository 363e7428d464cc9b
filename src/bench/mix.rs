//! What the sessions do, in which proportion. Every scenario is a mix; most have one line.

use crate::text::Bytes;

use super::operation::Kind;

/// So many in a file are enough.
const SHARES_MAX: usize = 100;

/// One kind of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// What is done.
    pub kind: Kind,
    /// How often, compared with the others.
    pub weight: u32,
    /// How large the files are, if not as large as all.
    pub file_bytes: Option<u64>,
}

/// Kinds of work with their weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    /// At least one.
    pub shares: Vec<Share>,
}

impl Mix {
    /// Equal shares.
    pub fn of(kinds: &[Kind]) -> Mix {
        let share = |&kind| Share {
            kind,
            weight: 1,
            file_bytes: None,
        };
        Mix {
            shares: kinds.iter().map(share).collect(),
        }
    }

    /// Reads lines of `KIND WEIGHT [BYTES]`; `#` begins a comment.
    ///
    /// # Errors
    /// A sentence that names the line.
    pub fn parse(text: &str) -> Result<Mix, String> {
        let mut shares = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            let bad = |what: String| format!("line {}: {what}", at + 1);
            let (kind, weight, bytes) = match words[..] {
                [] => continue,
                [kind, weight] => (kind, weight, None),
                [kind, weight, bytes] => (kind, weight, Some(bytes)),
                _ => return Err(bad("a line is KIND WEIGHT [BYTES]".to_owned())),
            };
            let known = Kind::MEASURED.iter().find(|it| it.name() == kind);
            let kind = *known.ok_or_else(|| {
                let names = Kind::MEASURED.map(Kind::name).join(", ");
                bad(format!("{kind} is none of {names}"))
            })?;
            let weight = weight
                .parse()
                .ok()
                .filter(|weight| (1..=1_000_000).contains(weight));
            let weight =
                weight.ok_or_else(|| bad("a weight is a number from 1 to 1000000".to_owned()))?;
            let file_bytes = bytes.map(str::parse::<Bytes>).transpose().map_err(bad)?;
            shares.push(Share {
                kind,
                weight,
                file_bytes: file_bytes.map(|Bytes(bytes)| bytes),
            });
        }
        match shares.len() {
            0 => Err("there is no line in it".to_owned()),
            1..=SHARES_MAX => Ok(Mix { shares }),
            _ => Err(format!("more than {SHARES_MAX} lines")),
        }
    }

    /// Whether any of it is of this kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.shares.iter().any(|share| share.kind == kind)
    }
}

/// Whose turn it is: each share as often as its weight says, and as evenly as can be.
#[derive(Debug, Clone)]
pub struct Turns {
    weights: Vec<i64>,
    credit: Vec<i64>,
}

impl Turns {
    /// Of this mix.
    pub fn new(mix: &Mix) -> Turns {
        let weights: Vec<i64> = mix.shares.iter().map(|share| share.weight.into()).collect();
        Turns {
            credit: vec![0; weights.len()],
            weights,
        }
    }

    /// The index of the next share.
    pub fn take(&mut self) -> usize {
        let mut best = 0;
        for (at, weight) in self.weights.iter().enumerate() {
            self.credit[at] += weight;
            if self.credit[at] > self.credit[best] {
                best = at;
            }
        }
        self.credit[best] -= self.weights.iter().sum::<i64>();
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_comments() {
        let mix = Mix::parse("# a day\nnoop 90\n\ndownload 9 1MiB # large\nupload 1 4096\n");
        let share = |kind, weight, file_bytes| Share {
            kind,
            weight,
            file_bytes,
        };
        let expected = vec![
            share(Kind::Noop, 90, None),
            share(Kind::Download, 9, Some(1 << 20)),
            share(Kind::Upload, 1, Some(4096)),
        ];
        assert_eq!(mix, Ok(Mix { shares: expected }));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let says = |text: &str, part: &str| {
            let said = Mix::parse(text).unwrap_err();
            assert!(said.contains(part), "{text:?}: {said}");
        };
        says("", "no line");
        says("# only\n", "no line");
        says(
            "noop 1\nerrand 1",
            "line 2: errand is none of download, upload",
        );
        says("noop 0", "a weight");
        says("noop x", "a weight");
        says("noop", "KIND WEIGHT");
        says("noop 1 2 3", "KIND WEIGHT");
        says("upload 1 many", "line 1: ");
    }

    #[test]
    fn turns_are_as_even_as_the_weights_allow() {
        let mix = Mix::parse("noop 3\nlist 1").unwrap();
        let mut turns = Turns::new(&mix);
        let taken: Vec<usize> = (0..8).map(|_| turns.take()).collect();
        assert_eq!(taken.iter().filter(|&&at| at == 1).count(), 2);
        assert_ne!(taken[..4].iter().position(|&at| at == 1), None);
        assert_ne!(taken[4..].iter().position(|&at| at == 1), None);
    }
}
