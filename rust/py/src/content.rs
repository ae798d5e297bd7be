//! The classes that read what layers hold.

use std::sync::Arc;

use coco_kp_core as core;
use core::{Form, HashAlgorithm};
use pyo3::exceptions::{PyBaseException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::borrow::Buffer;
use crate::errors::{raised, refused_by_guests};
use crate::stream::Stream;

/// Bytes that are read at a time.
const PIECE: usize = 256 * 1024;

/// What was unpacked so far, and how much may be.
#[pyclass(frozen, module = "coco_kp._native")]
pub(crate) struct Unpacking(Arc<core::Unpacking>);

#[pymethods]
impl Unpacking {
    #[classattr]
    const FREE: u64 = core::Unpacking::FREE;

    #[new]
    #[pyo3(signature = (allowed=core::Unpacking::FREE))]
    fn new(allowed: u64) -> Self {
        Self(Arc::new(core::Unpacking::new(allowed)))
    }

    /// Learns that size compressed bytes are unpacked next.
    fn packed(&self, size: u64) {
        self.0.packed(size);
    }

    /// Learns that size bytes came out.
    fn unpacked(&self, size: u64) -> PyResult<()> {
        raised(self.0.unpacked(size))
    }
}

/// Decompresses one stream that comes in pieces.
#[pyclass(frozen, module = "coco_kp._native")]
pub(crate) struct Decompressor(Stream<Decompressing>);

struct Decompressing {
    inner: core::Decompressor,
    input: Vec<u8>,
    output: Vec<u8>,
}

#[pymethods]
impl Decompressor {
    #[new]
    fn new(compression: &str, unpacking: &Unpacking) -> PyResult<Self> {
        let form = form(compression)?;
        let inner = core::Decompressor::new(form, Arc::clone(&unpacking.0));
        let output = vec![0; PIECE];
        Ok(Self(Stream::new(Decompressing { inner, input: Vec::new(), output })))
    }

    /// Takes the next piece.
    fn feed(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.borrow(|Decompressing { inner, input, .. }| {
            let data = Buffer::of(data)?;
            inner.expect(data.bytes());
            input.extend_from_slice(data.bytes());
            Ok(())
        })
    }

    /// Gives what came out, in pieces; empty once more is needed.
    fn read<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.0.borrow(|Decompressing { inner, input, output }| {
            let count = raised(py.detach(|| {
                let mut rest = &input[..];
                let count = inner.decode(&mut rest, output)?;
                let used = input.len() - rest.len();
                input.drain(..used);
                Ok(count)
            }))?;
            Ok(PyBytes::new(py, &output[..count]))
        })
    }

    /// Ends the stream.
    fn finish(&self) -> PyResult<()> {
        raised(self.0.end()?.inner.finish())
    }
}

/// Reads a layer's content.
#[pyclass(frozen, module = "coco_kp._native")]
pub(crate) struct ContentCheck(Stream<core::ContentCheck>);

#[pymethods]
impl ContentCheck {
    #[new]
    #[pyo3(signature = (compression, algorithm, unpacking, *, guest=false, aside=false))]
    fn new(
        compression: &str,
        algorithm: &str,
        unpacking: &Unpacking,
        guest: bool,
        aside: bool,
    ) -> PyResult<Self> {
        let form = if compression.is_empty() { None } else { Some(form(compression)?) };
        let algorithm = match algorithm {
            "sha256" => HashAlgorithm::Sha256,
            "sha512" => HashAlgorithm::Sha512,
            _ => return Err(PyValueError::new_err("algorithm must be sha256 or sha512")),
        };
        let unpacking = Arc::clone(&unpacking.0);
        let check = core::ContentCheck::new(form, algorithm, unpacking, guest, aside);
        Ok(Self(Stream::new(check)))
    }

    /// Takes the next piece of the layer.
    fn update(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = data.py();
        self.0.borrow(|inner| {
            let data = Buffer::of(data)?;
            let bytes = data.bytes();
            // Few bytes can take long, too: they may become many, and the other thread be behind.
            py.detach(|| inner.update(bytes));
            Ok(())
        })
    }

    /// Ends the layer; returns its content's digest, and why a guest would refuse it.
    fn finish<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyBytes>, Option<Py<PyBaseException>>)> {
        let inner = self.0.end()?;
        let content = raised(py.detach(|| inner.finish()))?;
        let fault = content.fault.as_ref().map(|fault| refused_by_guests(fault).into_value(py));
        Ok((PyBytes::new(py, &content.digest), fault))
    }

    /// Ends its thread, if it has one, without a verdict.
    fn close(&self, py: Python<'_>) {
        if let Ok(inner) = self.0.end() {
            py.detach(|| drop(inner));
        }
    }
}

fn form(compression: &str) -> PyResult<Form> {
    match compression {
        "gzip" => Ok(Form::Gzip),
        "zstd" => Ok(Form::Zstd),
        _ => Err(PyValueError::new_err("compression must be gzip or zstd")),
    }
}
