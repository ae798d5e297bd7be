//! Pumping between descriptors, with Python's signals and errors.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coco_kp_core as core;
use core::{Control, PumpError, Stop};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

use crate::borrow::Descriptor;
use crate::errors;

/// How often the interpreter may run its signal handlers, so that Ctrl-C ends a pump.
const SIGNALS_EVERY: Duration = Duration::from_millis(20);

/// How far a pump is, and the way to end it.
#[pyclass(frozen, module = "coco_kp._native")]
#[derive(Default)]
pub(crate) struct Progress(Arc<core::Progress>);

#[pymethods]
impl Progress {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Bytes written so far.
    #[getter]
    fn done(&self) -> u64 {
        self.0.done()
    }

    /// Ends every pump that has this progress.
    fn cancel(&self) {
        self.0.cancel();
    }

    fn __repr__(&self) -> String {
        format!("<Progress {} bytes>", self.0.done())
    }
}

/// What the `pump` methods take.
pub(crate) struct Request {
    src: Descriptor,
    dst: Descriptor,
    limit: Option<u64>,
    two_threads: bool,
    progress: Arc<core::Progress>,
}

impl Request {
    pub(crate) fn new(
        src: &Bound<'_, PyAny>,
        dst: &Bound<'_, PyAny>,
        limit: Option<u64>,
        threads: u32,
        progress: Option<&Bound<'_, Progress>>,
    ) -> PyResult<Self> {
        Ok(Self {
            src: Descriptor::of(src)?,
            dst: Descriptor::of(dst)?,
            limit,
            two_threads: two(threads)?,
            progress: progress.map(|progress| Arc::clone(&progress.get().0)).unwrap_or_default(),
        })
    }

    /// Runs a pump without the interpreter lock.
    pub(crate) fn run(
        &self,
        py: Python<'_>,
        pump: impl FnOnce(BorrowedFd<'_>, BorrowedFd<'_>, Control<'_>) -> Result<u64, PumpError> + Send,
    ) -> PyResult<u64> {
        let mut raised = None;
        let runs_handlers = runs_signal_handlers(py)?;
        let result = py.detach(|| {
            let mut looked = Instant::now();
            let check = &mut || {
                if !runs_handlers || looked.elapsed() < SIGNALS_EVERY {
                    return Ok(());
                }
                looked = Instant::now();
                Python::attach(|py| py.check_signals().map_err(|error| raised = Some(error)))
                    .map_err(|()| Stop)
            };
            let Self { limit, two_threads, ref progress, .. } = *self;
            pump(
                self.src.as_fd(),
                self.dst.as_fd(),
                Control { limit, two_threads, progress, check },
            )
        });
        result.map_err(|error| match (raised, error) {
            (Some(raised), _) => raised,
            (None, PumpError::Read(error) | PumpError::Write(error)) => os_error(&error),
            (None, PumpError::TooLong) => errors::source_too_long(self.limit.unwrap_or(0)),
            (None, PumpError::Cancelled | PumpError::Stopped) => errors::cancelled(),
        })
    }
}

/// Whether two threads are meant.
fn two(threads: u32) -> PyResult<bool> {
    match threads {
        1 => Ok(false),
        2 => Ok(true),
        _ => Err(PyValueError::new_err("threads must be 1 or 2")),
    }
}

/// Whether Python runs its signal handlers on this thread. If not, a pump need not ask for them, and
/// so never waits for a lock that others hold.
fn runs_signal_handlers(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import("threading")?;
    let main = threading.call_method0("main_thread")?.getattr("ident")?;
    threading.call_method0("get_ident")?.eq(main)
}

/// The `OSError` of the error's number, of the subclass that Python has for it.
fn os_error(error: &std::io::Error) -> PyErr {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(number) => {
            let text = text.replace(&format!(" (os error {number})"), ""); // Python says it itself
            PyOSError::new_err((number, text))
        }
        None => PyOSError::new_err(text),
    }
}
