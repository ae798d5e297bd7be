//! A stream of the core behind Python's rules: one user at a time, dead after the first error, and
//! the interpreter lock released while there is real work.

use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use coco_kp_core::{self as core, Control, PumpError};
use pyo3::prelude::*;

use crate::borrow::Buffer;
use crate::errors;
use crate::pump::Request;

/// From this many bytes on, work is done without the interpreter lock. Below it, giving the lock
/// away and getting it back costs other threads more than it gives them.
const RELEASE_FROM: usize = 64 * 1024;

/// Runs work over so many bytes, without the interpreter lock if they are many.
pub(crate) fn released<T: Send>(
    py: Python<'_>,
    bytes: usize,
    work: impl FnOnce() -> T + Send,
) -> T {
    if bytes < RELEASE_FROM { work() } else { py.detach(work) }
}

/// Runs what makes a chunk once more over a buffer, without the interpreter lock.
pub(crate) fn repeated(
    data: &Bound<'_, PyAny>,
    work: impl FnOnce(&mut [u8]) -> Result<(), core::Error> + Send,
) -> PyResult<()> {
    let mut buffer = Buffer::of(data)?;
    let bytes = buffer.bytes_mut()?;
    errors::raised(released(data.py(), bytes.len(), || work(bytes)))
}

/// What [`Stream`] needs of a sealer or opener.
pub(crate) trait Layer: Send {
    fn update(&mut self, data: &mut [u8]);
    fn repeat(&mut self, number: usize, data: &mut [u8]) -> Result<(), core::Error>;
    fn pump(
        &mut self,
        src: BorrowedFd<'_>,
        dst: BorrowedFd<'_>,
        control: Control<'_>,
    ) -> Result<u64, PumpError>;
}

macro_rules! layer {
    ($type:ty) => {
        impl Layer for $type {
            fn update(&mut self, data: &mut [u8]) {
                self.update(data);
            }

            fn repeat(&mut self, number: usize, data: &mut [u8]) -> Result<(), core::Error> {
                <$type>::repeat(self, number, data)
            }

            fn pump(
                &mut self,
                src: BorrowedFd<'_>,
                dst: BorrowedFd<'_>,
                control: Control<'_>,
            ) -> Result<u64, PumpError> {
                self.pump(src, dst, control)
            }
        }
    };
}
layer!(core::LayerSealer);
layer!(core::LayerOpener);

/// A sealer or opener; empty once it has ended.
pub(crate) struct Stream<T>(Mutex<Option<T>>);

impl<T: Layer> Stream<T> {
    /// Takes the next piece, in place.
    pub(crate) fn update(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.borrow(|inner| {
            let mut buffer = Buffer::of(data)?;
            let bytes = buffer.bytes_mut()?;
            released(data.py(), bytes.len(), || inner.update(bytes));
            Ok(())
        })
    }

    /// Makes a chunk once more, in place.
    pub(crate) fn repeat(&self, number: usize, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.borrow(|inner| repeated(data, |chunk| inner.repeat(number, chunk)))
    }

    /// Passes on all that one descriptor holds into another; gives the number of bytes.
    pub(crate) fn pump(&self, py: Python<'_>, request: PyResult<Request>) -> PyResult<u64> {
        self.borrow(|inner| request?.run(py, |src, dst, how| inner.pump(src, dst, how)))
    }
}

impl<T> Stream<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self(Mutex::new(Some(inner)))
    }

    /// Takes the stream out; it is closed from then on.
    pub(crate) fn end(&self) -> PyResult<T> {
        self.take()?.1.ok_or_else(errors::stream_closed)
    }

    /// Works with the stream. Whatever goes wrong on the way, a panic included, leaves it closed,
    /// for nobody could say what of the data it has seen.
    pub(crate) fn borrow<R>(&self, work: impl FnOnce(&mut T) -> PyResult<R>) -> PyResult<R> {
        let (mut slot, inner) = self.take()?;
        let mut inner = inner.ok_or_else(errors::stream_closed)?;
        let result = work(&mut inner)?;
        *slot = Some(inner);
        Ok(result)
    }

    /// Takes hold of the slot without waiting: a thread that waited here with the interpreter lock
    /// could never be let in by the one that works without it.
    fn take(&self) -> PyResult<(MutexGuard<'_, Option<T>>, Option<T>)> {
        let mut slot = match self.0.try_lock() {
            Ok(slot) => slot,
            Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
            Err(TryLockError::WouldBlock) => return Err(errors::stream_busy()),
        };
        let inner = slot.take();
        Ok((slot, inner))
    }
}
