//! A whole layer from one file descriptor to another.
//!
//! On one thread a small buffer is read, passed and written in turn; it stays in the cache. On two,
//! see [`relay`]. Files are read, not mapped: a mapped file that shrinks kills the process.

mod descriptor;
mod relay;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::layer::{LayerOpener, LayerSealer};
use crate::pass::Pass;
use descriptor::{Sink, Source};

/// What a pump tells and obeys while it runs; shared with other threads.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    /// Bytes written so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Lets every pump that has this progress end within 50 ms, unless a disk holds it up.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.done.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Returned by a caller's own check to end a pump.
#[derive(Debug)]
pub struct Stop;

/// How to pump.
pub struct Control<'a> {
    /// The most that the source may hold, in bytes.
    pub limit: Option<u64>,
    /// Whether a second thread may help.
    pub two_threads: bool,
    /// What to tell, and whether to go on.
    pub progress: &'a Progress,
    /// Called on the pump's own thread several times for each chunk, and every 10 ms while it waits.
    pub check: &'a mut dyn FnMut() -> Result<(), Stop>,
}

/// Why a pump ended early. The stream is of no more use then.
#[derive(Debug)]
pub enum PumpError {
    /// Reading failed.
    Read(io::Error),
    /// Writing failed; `EINVAL` where source and target are one file.
    Write(io::Error),
    /// The source holds more than the limit.
    TooLong,
    /// [`Progress::cancel`] was called.
    Cancelled,
    /// The caller's own check said so.
    Stopped,
}

impl LayerSealer {
    /// Encrypts all that `src` holds into `dst`; gives the number of bytes.
    ///
    /// # Errors
    /// [`PumpError`]
    pub fn pump(
        &mut self,
        src: BorrowedFd<'_>,
        dst: BorrowedFd<'_>,
        control: Control<'_>,
    ) -> Result<u64, PumpError> {
        pump(&mut self.pass, src, dst, control)
    }
}

impl LayerOpener {
    /// Decrypts all that `src` holds into `dst`; gives the number of bytes. The verdict is
    /// [`LayerOpener::finalize`]'s alone.
    ///
    /// # Errors
    /// [`PumpError`]
    pub fn pump(
        &mut self,
        src: BorrowedFd<'_>,
        dst: BorrowedFd<'_>,
        control: Control<'_>,
    ) -> Result<u64, PumpError> {
        pump(&mut self.pass, src, dst, control)
    }
}

fn pump(
    pass: &mut Pass,
    src: BorrowedFd<'_>,
    dst: BorrowedFd<'_>,
    control: Control<'_>,
) -> Result<u64, PumpError> {
    let before = pass.size;
    let Control { limit, two_threads, progress, check } = control;
    let mut go_on = || {
        if progress.is_cancelled() {
            return Err(PumpError::Cancelled);
        }
        check().map_err(|Stop| PumpError::Stopped)
    };
    descriptor::differ(src, dst)?;
    let mut source = Source::new(src, limit);
    let sink = Sink::new(dst);
    if two_threads && pass.is_aligned() {
        let fused = pass.engine.fuses();
        relay::pump(pass, &mut source, &sink, progress, fused, &mut go_on)?;
    } else {
        solo(pass, &mut source, &sink, progress, &mut go_on)?;
    }
    Ok(pass.size - before)
}

/// What one thread reads at a time, to stay in a second-level cache.
const SOLO_CHUNK: usize = 64 * 1024;

type GoOn<'a> = dyn FnMut() -> Result<(), PumpError> + 'a;

fn solo(
    pass: &mut Pass,
    source: &mut Source<'_>,
    sink: &Sink<'_>,
    progress: &Progress,
    go_on: &mut GoOn<'_>,
) -> Result<(), PumpError> {
    let mut buffer = vec![0; SOLO_CHUNK];
    loop {
        let len = source.fill(&mut buffer, go_on)?;
        let data = &mut buffer[..len];
        pass.update(data);
        sink.write(data, go_on)?;
        progress.add(len);
        if len < SOLO_CHUNK {
            return Ok(());
        }
    }
}
