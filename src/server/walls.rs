//! What the process gives up before it serves anybody: root's identity, and every file that it has
//! no business with. Both hold for a thread and for those that it starts, so this comes before the
//! first of them.
//!
//! The second wall is Landlock. The first, `openat2` below a directory descriptor, is in the way of
//! every path of a client's; the second is in the way of the process, whatever it is made to do.

use std::fs;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError,
};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::dirty::VMSTAT;
use crate::config::{Config, RunAs, is_public};

/// What this knows to forbid. A kernel that knows less forbids less.
const KNOWN: ABI = ABI::V6;

/// Puts up all walls that the configuration wants, with a line in the log about each.
///
/// # Errors
/// One sentence: root's identity was to be given up and was not.
pub fn put_up(config: &Config) -> Result<(), String> {
    match &config.run_as {
        Some(user) => become_user(user)?,
        None if is_root() => log::warn!("this runs as root; --run-as gives that up"),
        None => {}
    }
    // hauld starts no other program; if it is made to, that one gains nothing by a setuid bit.
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| format!("cannot set no_new_privs: {error}"))?;
    if !config.landlock {
        log::warn!("Landlock is switched off");
        return Ok(());
    }
    match confine(config) {
        Ok(()) => log::info!("Landlock: nothing outside of the directories in use can be reached"),
        Err(error) => log::info!("there is no second wall: Landlock is not usable: {error}"),
    }
    Ok(())
}

/// Where strangers can reach a listener, root's identity is given up, or kept knowingly.
///
/// # Errors
/// One sentence.
pub fn root_rule(config: &Config) -> Result<(), String> {
    let strangers = config.listen.iter().chain(&config.tls.implicit);
    if config.run_as.is_none() && is_root() && strangers.into_iter().any(is_public) {
        return Err(
            "root does not serve strangers: give --run-as with a user that owns what is served \
             and nothing else (--run-as root keeps root all the same)"
                .to_string(),
        );
    }
    Ok(())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Groups, then group, then user: after the last step the others would be forbidden. That it cannot
/// be undone is tried.
///
/// # Errors
/// One sentence.
pub fn become_user(user: &RunAs) -> Result<(), String> {
    let name = &user.name;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    if uid.is_root() {
        log::warn!("this runs as root, as --run-as says");
        return Ok(());
    }
    if is_already(user) {
        return Ok(());
    }
    let cannot = |what| move |error: rustix::io::Errno| format!("--run-as {name}: {what}: {error}");
    let threads = fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads != 1 {
        return Err(format!(
            "--run-as {name}: it cannot be told that no other thread keeps root ({threads} threads)"
        ));
    }
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    rustix::thread::set_thread_groups(&groups).map_err(cannot("its groups cannot be taken"))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .map_err(cannot("its group cannot be taken"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .map_err(cannot("its identity cannot be taken"))?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none)
        .map_err(cannot("capabilities cannot be given up"))?;
    let root = Uid::ROOT;
    let left = rustix::thread::capabilities(None).map_err(cannot("capabilities are unknown"))?;
    let back = rustix::thread::set_thread_res_uid(root, root, root).is_ok()
        || rustix::thread::set_thread_groups(&[Gid::ROOT]).is_ok();
    if back || left != none || !is_already(user) {
        return Err(format!("--run-as {name}: root could be had back"));
    }
    log::info!("this runs as {name} (uid {}, gid {})", user.uid, user.gid);
    Ok(())
}

fn is_already(user: &RunAs) -> bool {
    let ids = [rustix::process::getuid(), rustix::process::geteuid()];
    let gids = [rustix::process::getgid(), rustix::process::getegid()];
    ids.iter().all(|id| id.as_raw() == user.uid) && gids.iter().all(|id| id.as_raw() == user.gid)
}

/// Landlock: reads stay possible where certificates and users are read again and of how much the machine
/// has to write, everything but running programs below the directory that is served.
///
/// # Errors
/// The kernel has no Landlock, or one that is too old.
pub fn confine(config: &Config) -> Result<(), RulesetError> {
    let all = AccessFs::from_all(KNOWN);
    // Without this right renames from one directory to another would fail: then better no wall.
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .create()?;
    let rules = [(config.dir.clone(), all & !AccessFs::Execute)]
        .into_iter()
        .chain(read_again(config).map(|dir| (dir, AccessFs::ReadFile | AccessFs::ReadDir)))
        .chain([(PathBuf::from(VMSTAT), AccessFs::ReadFile.into())])
        .chain(config.transfer_log.iter().map(|log| {
            // A log that was moved away is begun anew.
            (dir_of(log), AccessFs::WriteFile | AccessFs::MakeReg)
        }))
        .try_fold(
            rules,
            |rules, (dir, access): (PathBuf, BitFlags<_>)| match PathFd::new(&dir) {
                Ok(opened) => rules.add_rule(PathBeneath::new(opened, access)),
                Err(error) => {
                    log::warn!("{} stays out of reach: {error}", dir.display());
                    Ok(rules)
                }
            },
        )?;
    rules.restrict_self().map(drop)
}

/// The directories of the files that SIGHUP reads again. Whoever writes such a file puts another in
/// its place, so it is the directory that counts; and where the name is a link, as certificate
/// managers make them, the one that it leads to as well.
fn read_again(config: &Config) -> impl Iterator<Item = PathBuf> {
    let certificate = config.tls.files.iter();
    let files = certificate.flat_map(|tls| [&tls.certificate, &tls.key]);
    let mut dirs: Vec<PathBuf> = files
        .chain(&config.users)
        .flat_map(|file| [Some(file.clone()), fs::canonicalize(file).ok()])
        .flatten()
        .map(|file| dir_of(&file))
        .collect();
    dirs.sort();
    dirs.dedup();
    for dir in dirs.iter().filter(|dir| dir.as_path() == Path::new("/")) {
        log::warn!(
            "every file may be read, for one that is read again is in {}: give it a directory of \
             its own",
            dir.display()
        );
    }
    dirs.into_iter()
}

fn dir_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(dir) if dir != Path::new("") => dir.to_path_buf(),
        _ => PathBuf::from("."),
    }
}
