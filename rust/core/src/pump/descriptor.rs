//! Reading and writing descriptors of every kind without ever waiting past a call to stop.
//!
//! A regular file answers at once. Anything else (a pipe, a socket) may keep a caller waiting for
//! good, so it is asked first whether it is ready, and the caller's check runs while it is not.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, read, write};
use rustix::pipe::fcntl_setpipe_size;

use super::{GoOn, PumpError};

/// How long to wait for a descriptor before the next check: 10 ms.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// A pipe that is ready takes this many bytes without keeping the writer waiting (POSIX's least
/// `PIPE_BUF` is 512, Linux has 4096).
const PIPE_BUF: usize = 4096;

/// What a pipe is asked to hold: the most that Linux gives an ordinary user.
const PIPE_SIZE: usize = 1024 * 1024;

pub(super) struct Source<'a> {
    fd: BorrowedFd<'a>,
    may_block: bool,
    /// How much more may come.
    left: Option<u64>,
}

impl<'a> Source<'a> {
    pub(super) fn new(fd: BorrowedFd<'a>, limit: Option<u64>) -> Self {
        // A larger pipe means fewer turns between its two processes. Not a pipe, or not allowed: as
        // it was.
        let _ = fcntl_setpipe_size(fd, PIPE_SIZE);
        Self { fd, may_block: may_block(fd), left: limit }
    }

    /// Reads until `buffer` is full or the source has ended; only then is it less.
    pub(super) fn fill(
        &mut self,
        buffer: &mut [u8],
        go_on: &mut GoOn<'_>,
    ) -> Result<usize, PumpError> {
        let mut filled = 0;
        while filled < buffer.len() {
            go_on()?;
            if self.may_block && !ready(self.fd, PollFlags::IN).map_err(read_failed)? {
                continue;
            }
            // One byte beyond the limit is asked for, to see whether there is one.
            let most = self.left.map_or(usize::MAX, |left| {
                usize::try_from(left).unwrap_or(usize::MAX).saturating_add(1)
            });
            let rest = &mut buffer[filled..];
            let wanted = most.min(rest.len());
            let got = match read(self.fd, &mut rest[..wanted]) {
                Ok(0) => break,
                Ok(got) => got,
                Err(Errno::INTR | Errno::AGAIN) => continue,
                Err(error) => return Err(read_failed(error)),
            };
            if let Some(left) = &mut self.left {
                *left = left.checked_sub(got as u64).ok_or(PumpError::TooLong)?;
            }
            filled += got;
        }
        Ok(filled)
    }
}

pub(super) struct Sink<'a> {
    fd: BorrowedFd<'a>,
    may_block: bool,
}

impl<'a> Sink<'a> {
    pub(super) fn new(fd: BorrowedFd<'a>) -> Self {
        Self { fd, may_block: may_block(fd) }
    }

    /// Writes all of it.
    pub(super) fn write(&self, mut bytes: &[u8], go_on: &mut GoOn<'_>) -> Result<(), PumpError> {
        while !bytes.is_empty() {
            go_on()?;
            let mut most = bytes.len();
            if self.may_block {
                if !ready(self.fd, PollFlags::OUT).map_err(write_failed)? {
                    continue;
                }
                most = most.min(PIPE_BUF);
            }
            match write(self.fd, &bytes[..most]) {
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(write_failed(error)),
            }
        }
        Ok(())
    }
}

/// Fails for a source that is overwritten while it is read.
pub(super) fn differ(src: BorrowedFd<'_>, dst: BorrowedFd<'_>) -> Result<(), PumpError> {
    let (source, target) = (fstat(src).map_err(read_failed)?, fstat(dst).map_err(write_failed)?);
    let is_file = FileType::from_raw_mode(target.st_mode) == FileType::RegularFile;
    if is_file && (source.st_dev, source.st_ino) == (target.st_dev, target.st_ino) {
        return Err(write_failed(Errno::INVAL));
    }
    Ok(())
}

fn may_block(fd: BorrowedFd<'_>) -> bool {
    !fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

/// Waits a little; an error or the end of the other side counts as ready, for the call to find.
fn ready(fd: BorrowedFd<'_>, what: PollFlags) -> Result<bool, Errno> {
    match poll(&mut [PollFd::from_borrowed_fd(fd, what)], Some(&PATIENCE)) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error),
    }
}

fn read_failed(error: Errno) -> PumpError {
    PumpError::Read(error.into())
}

fn write_failed(error: Errno) -> PumpError {
    PumpError::Write(error.into())
}
