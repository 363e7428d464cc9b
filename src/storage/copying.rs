//! The beginning of an old file in a new one: shared where the file system can, otherwise copied.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

/// How much is copied between two looks at whether it is still wanted.
const COPY_STEP_BYTES: u64 = 16 << 20;
const COPY_BUFFER_BYTES: usize = 256 << 10;

/// The file system cannot share blocks, and there is too much to copy.
#[derive(Debug)]
pub struct TooLargeToCopy;

impl std::fmt::Display for TooLargeToCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("too large to be copied")
    }
}

impl std::error::Error for TooLargeToCopy {}

/// Whether this is the error of [`copy`] that there is too much.
pub fn is_too_large(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|it| it.is::<TooLargeToCopy>())
}

/// Makes the empty file `to` begin with the first `bytes` bytes of `from`: it shares them where the
/// file system can (reflink), otherwise up to `copy_bytes_max` are copied.
///
/// # Errors
/// [`TooLargeToCopy`]; ECANCELED soon after `cancelled` is set; `UnexpectedEof` if there are fewer.
pub fn copy(
    from: &File,
    to: &File,
    bytes: u64,
    copy_bytes_max: u64,
    cancelled: &AtomicBool,
) -> io::Result<()> {
    if share(from, to, bytes) {
        return Ok(());
    }
    if bytes > copy_bytes_max {
        return Err(io::Error::other(TooLargeToCopy));
    }
    copy_in_kernel(from, to, bytes, cancelled)
}

/// Shares the first bytes of a file, without copying, where the file system can.
fn share(from: &File, to: &File, bytes: u64) -> bool {
    if rustix::fs::ioctl_ficlone(to, from).is_err() {
        return false;
    }
    let shares = to.set_len(bytes).is_ok();
    if !shares {
        // What is copied instead must not be followed by the rest of the old file.
        let _ = to.set_len(0);
    }
    shares
}

fn copy_in_kernel(from: &File, to: &File, bytes: u64, cancelled: &AtomicBool) -> io::Result<()> {
    let mut at = 0;
    while at < bytes {
        stop_if(cancelled)?;
        let step = (bytes - at).min(COPY_STEP_BYTES) as usize;
        let (mut source, mut target) = (at, at);
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), step) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(copied) => at += copied as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return copy_by_hand(from, to, at..bytes, cancelled);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(
    from: &File,
    to: &File,
    range: std::ops::Range<u64>,
    cancelled: &AtomicBool,
) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    let mut at = range.start;
    while at < range.end {
        stop_if(cancelled)?;
        let step = (range.end - at).min(buffer.len() as u64) as usize;
        match from.read_at(&mut buffer[..step], at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                to.write_all_at(&buffer[..read], at)?;
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn stop_if(cancelled: &AtomicBool) -> io::Result<()> {
    if cancelled.load(Ordering::Relaxed) {
        return Err(Errno::CANCELED.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[track_caller]
    fn refused<T>(result: io::Result<T>, errno: Errno) {
        let code = result.err().and_then(|e| e.raw_os_error());
        assert_eq!(code, Some(errno.raw_os_error()));
    }

    #[test]
    fn copies() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..700_000u32).map(|n| (n % 251) as u8).collect();
        let (running, stopped) = (AtomicBool::new(false), AtomicBool::new(true));
        fs::write(dir.path().join("from"), &content).unwrap();
        let from = File::open(dir.path().join("from")).unwrap();
        let by_hand = |from: &File, to: &File, bytes, cancelled: &AtomicBool| {
            copy_by_hand(from, to, 0..bytes, cancelled)
        };
        for copy in [copy_in_kernel, by_hand] {
            let into = dir.path().join("to");
            let to = File::create(&into).unwrap();
            copy(&from, &to, 0, &running).unwrap();
            refused(copy(&from, &to, 1, &stopped), Errno::CANCELED);
            assert_eq!(fs::metadata(&into).unwrap().len(), 0);
            copy(&from, &to, 600_001, &running).unwrap();
            assert!(fs::read(&into).unwrap() == content[..600_001]);
            let error = copy(&from, &to, 700_001, &running).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
        // Where blocks can be shared, no file is too large.
        let to = File::create(dir.path().join("to")).unwrap();
        let shares = share(&from, &to, 5);
        let copied = super::copy(&from, &to, 5, 4, &running);
        assert_eq!(copied.is_ok(), shares, "{copied:?}");
        super::copy(&from, &to, 5, 5, &running).unwrap();
        assert_eq!(fs::read(dir.path().join("to")).unwrap(), content[..5]);
    }
}
