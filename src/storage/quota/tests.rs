use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const NOTHING: Amount = Amount::NOTHING;

fn amount(bytes: u64, files: u64) -> Amount {
    Amount { bytes, files }
}

fn empty(bytes: u64, files: u64) -> Quota {
    Quota::new(amount(bytes, files), NOTHING)
}

/// Restates and settles.
fn settle(quota: &mut Quota, mut of: Reservation, new: Amount, old: Amount) -> Result<(), Full> {
    match quota.restate(&mut of, new, old) {
        Ok(()) => quota.settle(of),
        Err(full) => {
            quota.release(of);
            return Err(full);
        }
    }
    Ok(())
}

fn no_bytes<T>(result: Result<T, Full>) -> bool {
    matches!(result, Err(Full::Bytes { .. }))
}

#[test]
fn uploads_at_the_same_time_cannot_pass_the_limit_together() {
    let mut quota = empty(100, 10);
    let one = quota.reserve(Amount::file(60), NOTHING).unwrap();
    let full = Full::Bytes {
        limit: 100,
        free: 40,
    };
    assert_eq!(quota.reserve(Amount::file(41), NOTHING), Err(full));
    let two = quota.reserve(Amount::file(40), NOTHING).unwrap();
    assert_eq!(quota.free(), amount(0, 8));
    quota.release(two);
    settle(&mut quota, one, Amount::file(60), NOTHING).unwrap();
    assert_eq!(quota.total(), amount(60, 1));
}

#[test]
fn a_replacement_needs_new_minus_old() {
    let mut quota = Quota::new(amount(100, 1), Amount::file(90));
    assert_eq!(
        quota.reserve(Amount::file(1), NOTHING),
        Err(Full::Files { limit: 1 }),
        "a second file"
    );
    assert!(no_bytes(quota.reserve(Amount::file(101), Amount::file(90))));
    let larger = quota.reserve(Amount::file(100), Amount::file(90)).unwrap();
    assert_eq!(quota.total(), amount(100, 1));
    settle(&mut quota, larger, Amount::file(100), Amount::file(90)).unwrap();
    let smaller = quota.reserve(Amount::file(10), Amount::file(100)).unwrap();
    assert_eq!(quota.total(), amount(100, 1), "the old one is still there");
    settle(&mut quota, smaller, Amount::file(10), Amount::file(100)).unwrap();
    assert_eq!(quota.total(), amount(10, 1));
}

#[test]
fn an_upload_of_unknown_size_grows_until_there_is_no_room() {
    let mut quota = empty(100, 10);
    let mut growing = quota.reserve(Amount::file(0), NOTHING).unwrap();
    quota.grow(&mut growing, 64).unwrap();
    assert!(no_bytes(quota.grow(&mut growing, 128)));
    quota.grow(&mut growing, 100).unwrap();
    quota.grow(&mut growing, 30).unwrap();
    assert_eq!(growing.new, Amount::file(100));
    settle(&mut quota, growing, Amount::file(70), NOTHING).unwrap();
    assert_eq!(quota.total(), amount(70, 1));
}

/// The file that was to be replaced went away, and somebody else took the room.
#[test]
fn what_fits_no_more_is_not_published() {
    let mut quota = Quota::new(amount(100, 9), Amount::file(100));
    let replacing = quota.reserve(Amount::file(100), Amount::file(100)).unwrap();
    quota.removed(Amount::file(100));
    let other = quota.reserve(Amount::file(50), NOTHING).unwrap();
    settle(&mut quota, other, Amount::file(50), NOTHING).unwrap();
    assert!(no_bytes(settle(
        &mut quota,
        replacing,
        Amount::file(100),
        NOTHING
    )));
    assert_eq!(quota.total(), amount(50, 1), "its room is given back");
}

#[test]
fn what_is_over_a_lowered_limit_can_shrink_but_not_grow() {
    let mut quota = Quota::new(amount(100, 10), amount(90, 3));
    quota.limit_to(amount(50, 2));
    assert_eq!(quota.free(), NOTHING);
    assert!(quota.reserve(Amount::file(1), NOTHING).is_err());
    let smaller = quota.reserve(Amount::file(20), Amount::file(30)).unwrap();
    settle(&mut quota, smaller, Amount::file(20), Amount::file(30)).unwrap();
    quota.removed(Amount::file(20));
    assert_eq!(quota.total(), amount(60, 2));
}

#[test]
fn before_the_first_count_things_may_go_but_not_come() {
    let mut quota = Quota::uncounted(amount(100, 10));
    quota.counting();
    assert_eq!(quota.reserve(Amount::file(0), NOTHING), Err(Full::Counting));
    quota.removed(Amount::file(30));
    let smaller = quota.reserve(Amount::file(5), Amount::file(6)).unwrap();
    settle(&mut quota, smaller, Amount::file(5), Amount::file(6)).unwrap();
    assert!(!quota.is_known());
    // The count may have met neither of the two that are gone, and the new one not.
    assert!(!quota.counted(amount(50, 5)));
    assert_eq!(quota.total(), amount(55, 6));
    quota.counting();
    assert!(quota.counted(amount(25, 4)));
    assert_eq!(quota.total(), amount(25, 4));
}

/// What a recount makes of differences: (found, used before it and after).
#[test]
fn a_recount_corrects_what_it_knows_better_and_nothing_else() {
    // While it went on, a file of 10 was added and one of 100 was removed; used was 500, is 410.
    for (found, used, why) in [
        (400, 410, "the new one was missed"),
        (410, 410, "it met the new one, and the old one not"),
        (510, 410, "it met both"),
        (500, 410, "it met the old one, and the new one not"),
        (399, 409, "somebody else removed one"),
        (511, 411, "somebody else added one"),
    ] {
        let mut quota = Quota::new(amount(1000, 100), amount(500, 5));
        quota.counting();
        let upload = quota.reserve(Amount::file(10), NOTHING).unwrap();
        settle(&mut quota, upload, Amount::file(10), NOTHING).unwrap();
        quota.removed(Amount::file(100));
        assert!(!quota.counted(amount(found, 5)));
        assert_eq!(quota.total(), amount(used, 5), "{why}");
    }
    let mut quota = Quota::new(amount(1000, 100), amount(500, 5));
    quota.counting();
    assert!(quota.counted(amount(400, 4)), "nothing went on meanwhile");
    assert_eq!(quota.total(), amount(400, 4));
    quota.counting();
    quota.moved();
    assert!(!quota.counted(amount(300, 3)));
    assert_eq!(
        quota.total(),
        amount(400, 4),
        "it may have missed any amount"
    );
}

#[test]
fn impossible_sizes_are_refused_even_without_a_limit() {
    let mut quota = Quota::new(Amount::MAX, Amount::file(1));
    assert!(quota.reserve(Amount::file(u64::MAX), NOTHING).is_err());
    let mut most = quota.reserve(Amount::file(u64::MAX - 1), NOTHING).unwrap();
    assert!(quota.grow(&mut most, u64::MAX).is_err());
    quota.release(most);
    assert_eq!(quota.total(), Amount::file(1));
}

/// What sessions do to a tree of a few files.
#[derive(Debug, Clone)]
enum Deed {
    /// It replaces a file, and another one that goes at once.
    Begin {
        name: u8,
        other: u8,
        bytes: u64,
    },
    Grow {
        upload: usize,
        bytes: u64,
    },
    /// Part of the announced bytes: the rest did not come, and it is kept as far as it came.
    Publish {
        upload: usize,
        percent: u64,
    },
    Abort {
        upload: usize,
    },
    Delete {
        name: u8,
    },
    /// A count begins, or goes on to the next file, or is done.
    Count,
}

fn deed() -> impl Strategy<Value = Deed> {
    let bytes = || 0..150_u64;
    prop_oneof![
        3 => (0..4_u8, 0..8_u8, bytes())
            .prop_map(|(name, other, bytes)| Deed::Begin { name, other, bytes }),
        2 => (0..4_usize, bytes()).prop_map(|(upload, bytes)| Deed::Grow { upload, bytes }),
        3 => (0..4_usize, 0..=100_u64)
            .prop_map(|(upload, percent)| Deed::Publish { upload, percent }),
        1 => (0..4_usize).prop_map(|upload| Deed::Abort { upload }),
        1 => (0..4_u8).prop_map(|name| Deed::Delete { name }),
        3 => Just(Deed::Count),
    ]
}

proptest! {
    #[test]
    fn the_tree_never_holds_more_than_it_may(deeds in prop::collection::vec(deed(), 0..60)) {
        let limit = amount(200, 3);
        let mut quota = Quota::new(limit, NOTHING);
        let mut files: HashMap<u8, u64> = HashMap::new();
        let mut uploads: Vec<(u8, Reservation)> = Vec::new();
        // A count that is going on: the next file, and what was found so far.
        let mut counted: Option<(u8, Amount)> = None;
        let there = |files: &HashMap<u8, u64>, name: u8| {
            files.get(&name).map_or(NOTHING, |bytes| Amount::file(*bytes))
        };
        for deed in deeds {
            match deed {
                Deed::Begin { name, other, bytes } => {
                    let gone = if other == name { NOTHING } else { there(&files, other) };
                    let old = there(&files, name).plus(gone).unwrap();
                    let fits = quota.total().plus(Amount::file(bytes).minus(old));
                    let fits = fits.is_some_and(|t| t.bytes <= limit.bytes && t.files <= limit.files);
                    let reserved = quota.reserve(Amount::file(bytes), old);
                    prop_assert_eq!(reserved.is_ok(), fits, "refused exactly when it is full");
                    if let Ok(mut reservation) = reserved {
                        if gone != NOTHING {
                            quota.gave_way(&mut reservation, gone);
                            files.remove(&other);
                        }
                        uploads.push((name, reservation));
                    }
                }
                Deed::Grow { upload, bytes } => {
                    if let Some((_, reservation)) = uploads.get_mut(upload) {
                        let before = reservation.new;
                        let wanted = before.bytes + bytes;
                        let grown = quota.grow(reservation, wanted).is_ok();
                        let expected = if grown { wanted } else { before.bytes };
                        prop_assert_eq!(reservation.new, Amount::file(expected));
                    }
                }
                Deed::Publish { upload, percent } if upload < uploads.len() => {
                    let (name, reservation) = uploads.swap_remove(upload);
                    let bytes = reservation.new.bytes * percent / 100;
                    let old = there(&files, name);
                    if settle(&mut quota, reservation, Amount::file(bytes), old).is_ok() {
                        files.insert(name, bytes);
                    }
                }
                Deed::Abort { upload } if upload < uploads.len() => {
                    quota.release(uploads.swap_remove(upload).1);
                }
                Deed::Delete { name } => {
                    quota.removed(there(&files, name));
                    files.remove(&name);
                }
                Deed::Count => match &mut counted {
                    None => {
                        quota.counting();
                        counted = Some((0, NOTHING));
                    }
                    Some((next @ 0..4, found)) => {
                        *found = found.plus(there(&files, *next)).unwrap();
                        *next += 1;
                    }
                    Some((_, found)) => {
                        quota.counted(*found);
                        counted = None;
                    }
                },
                Deed::Publish { .. } | Deed::Abort { .. } => {}
            }
            let sum = amount(files.values().sum(), files.len() as u64);
            prop_assert_eq!(quota.used, sum, "the differences add up to the tree");
            let rooms = uploads.iter().map(|(_, reservation)| reservation.room());
            let rooms = rooms.fold(NOTHING, |all, room| all.plus(room).unwrap());
            prop_assert_eq!(quota.reserved, rooms);
            let total = quota.total();
            prop_assert!(total.bytes <= limit.bytes && total.files <= limit.files);
        }
    }
}
