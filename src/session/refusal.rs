//! What a failed file operation is called on the wire (RFC 959 section 4.2.2).
//!
//! A permanent error must not look temporary, or clients try again for ever; and a local error
//! (451, 452) is not the peer's (426).

use std::io;

use rustix::io::Errno;

use crate::proto::reply::Reply;
use crate::storage::copying::is_too_large;
use crate::storage::quota::Full;
use crate::storage::room::NoSpace;

/// `?` on a file operation makes its reply.
impl From<io::Error> for Reply {
    fn from(error: io::Error) -> Reply {
        if let Some(full) = error.get_ref().and_then(|it| it.downcast_ref::<Full>()) {
            let code = match full {
                Full::Counting => 450,
                Full::Bytes { .. } | Full::Files { .. } | Full::Parts { .. } => 552,
            };
            return Reply::new(code, full.to_string());
        }
        if let Some(none) = error.get_ref().and_then(|it| it.downcast_ref::<NoSpace>()) {
            return Reply::new(452, none.to_string());
        }
        let Some(errno) = Errno::from_io_error(&error) else {
            if is_too_large(&error) {
                return Reply::new(
                    452,
                    "The file system cannot share blocks, and this file is too large to be copied.",
                );
            }
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    Reply::new(451, "The file became shorter meanwhile.")
                }
                _ => Reply::new(451, "Local error."),
            };
        };
        match errno {
            Errno::NOENT => Reply::new(550, "No such file or directory."),
            Errno::ACCESS | Errno::PERM => Reply::new(550, "Permission denied."),
            Errno::XDEV => Reply::new(550, "That leads out of what is served."),
            Errno::EXIST => Reply::new(550, "It exists already."),
            Errno::NOTEMPTY => Reply::new(550, "The directory is not empty."),
            Errno::NOTDIR => Reply::new(550, "Not a directory."),
            Errno::ISDIR => Reply::new(550, "It is a directory."),
            Errno::NXIO => Reply::new(550, "Not a regular file."),
            Errno::LOOP => Reply::new(550, "Too many links, or a link where none is followed."),
            Errno::ROFS => Reply::new(550, "The file system is read-only."),
            Errno::BUSY => Reply::new(550, "It is in use."),
            Errno::NAMETOOLONG => Reply::new(553, "The name is too long."),
            Errno::INVAL => Reply::new(553, "The file system does not take that name."),
            Errno::NOSPC => Reply::new(452, "The disk is full."),
            Errno::DQUOT => Reply::new(552, "The disk quota is used up."),
            Errno::FBIG => Reply::new(552, "The file is too large for the file system."),
            Errno::MFILE | Errno::NFILE => Reply::new(451, "Too many open files; try again later."),
            Errno::AGAIN => Reply::new(451, "The path changed meanwhile; try again."),
            Errno::IO => Reply::new(451, "The disk failed."),
            errno => Reply::new(451, format!("Local error {}.", errno.raw_os_error())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permanent_errors_do_not_look_temporary() {
        let code = |errno: Errno| Reply::from(io::Error::from(errno)).code;
        for errno in [
            Errno::NOENT,
            Errno::ACCESS,
            Errno::PERM,
            Errno::XDEV,
            Errno::EXIST,
            Errno::NOTEMPTY,
            Errno::NOTDIR,
            Errno::ISDIR,
            Errno::LOOP,
            Errno::ROFS,
            Errno::BUSY,
            Errno::NXIO,
        ] {
            assert_eq!(code(errno), 550, "{errno:?}");
        }
        assert_eq!((code(Errno::NAMETOOLONG), code(Errno::INVAL)), (553, 553));
        assert_eq!(
            (code(Errno::NOSPC), code(Errno::DQUOT), code(Errno::FBIG)),
            (452, 552, 552)
        );
        assert_eq!(
            (code(Errno::IO), code(Errno::MFILE), code(Errno::AGAIN)),
            (451, 451, 451)
        );
        assert_eq!(
            Reply::from(io::Error::from(io::ErrorKind::UnexpectedEof)).code,
            451
        );
        assert_eq!(Reply::from(io::Error::other("x")).code, 451);
        assert_eq!(
            Reply::from(io::Error::other(crate::storage::copying::TooLargeToCopy)).code,
            452
        );
    }
}
