//! Users and groups of the system, by name or number.

use std::ffi::CString;

use haul::config::RunAs;
use nix::unistd::{Gid, Group, User, getgrouplist};

/// `USER` or `USER:GROUP`.
///
/// # Errors
/// A sentence: there is no such user or group.
pub fn run_as(text: &str) -> Result<RunAs, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let found = match user.parse() {
        Ok(uid) => User::from_uid(nix::unistd::Uid::from_raw(uid)),
        Err(_) => User::from_name(user),
    };
    let found = found.map_err(|error| format!("the users of the system are unknown: {error}"))?;
    let gid = match (group, &found) {
        (Some(group), _) => self::gid(group)?,
        (None, Some(found)) => found.gid.as_raw(),
        (None, None) if user.parse::<u32>().is_ok() => {
            return Err(format!(
                "user {user} has no entry: give its group, as {user}:GROUP"
            ));
        }
        (None, None) => return Err(no_user(user)),
    };
    let (uid, groups) = match (&found, user.parse()) {
        (Some(found), _) => {
            let name = CString::new(found.name.as_str()).map_err(|_| no_user(user))?;
            let groups = getgrouplist(&name, Gid::from_raw(gid))
                .map_err(|error| format!("the groups of {user} are unknown: {error}"))?;
            let groups = groups.into_iter().map(Gid::as_raw).collect();
            (found.uid.as_raw(), groups)
        }
        (None, Ok(uid)) => (uid, vec![gid]),
        (None, Err(_)) => return Err(no_user(user)),
    };
    let name = text.to_string();
    Ok(RunAs {
        name,
        uid,
        gid,
        groups,
    })
}

fn no_user(user: &str) -> String {
    format!("there is no user {user}; `useradd --system {user}` makes one")
}

fn gid(group: &str) -> Result<u32, String> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let found = Group::from_name(group)
        .map_err(|error| format!("the groups of the system are unknown: {error}"))?;
    let found = found.ok_or_else(|| format!("there is no group {group}"))?;
    Ok(found.gid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        let root = run_as("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0));
        assert_eq!(run_as("0:0").unwrap().uid, 0);
        let unknown = run_as("4000000000:7").unwrap();
        assert_eq!((unknown.uid, unknown.gid), (4_000_000_000, 7));
        assert_eq!(unknown.groups, [7]);
        for (text, says) in [
            ("no-such-user", "useradd"),
            ("root:no-such-group", "no group"),
            ("4000000000", "give its group"),
            ("", "no user"),
            ("a\0b", "no user"),
        ] {
            let said = run_as(text).unwrap_err();
            assert!(said.contains(says), "{text:?}: {said}");
        }
    }
}
