//! The key-encryption key.

use coco_kp_core as core;
use core::Algorithm;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::borrow::Buffer;
use crate::errors::{bad_kek, raised};

/// A key-encryption key of 32 bytes.
#[pyclass(frozen, module = "coco_kp._native")]
pub(crate) struct Kek(core::Kek);

#[pymethods]
impl Kek {
    #[new]
    fn new(raw: &Bound<'_, PyAny>) -> PyResult<Self> {
        core::Kek::from_raw(Buffer::of(raw)?.bytes()).map(Self).map_err(|error| bad_kek(&error))
    }

    /// Draws a key from the operating system.
    #[staticmethod]
    fn generate() -> PyResult<Self> {
        raised(core::Kek::generate()).map(Self)
    }

    /// Wraps a small secret and returns (iv, wrapped).
    fn wrap<'py>(
        &self,
        py: Python<'py>,
        algorithm: &str,
        secret: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let algorithm = raised(Algorithm::named(algorithm))?;
        let secret = Buffer::of(secret)?;
        let iv = raised(algorithm.generate_iv())?;
        let wrapped = raised(self.0.wrap(algorithm, &iv, secret.bytes()))?;
        Ok((PyBytes::new(py, &iv), PyBytes::new(py, &wrapped)))
    }

    /// Unwraps a secret.
    fn unwrap<'py>(
        &self,
        py: Python<'py>,
        algorithm: &str,
        iv: &Bound<'py, PyAny>,
        wrapped: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let algorithm = raised(Algorithm::named(algorithm))?;
        let (iv, wrapped) = (Buffer::of(iv)?, Buffer::of(wrapped)?);
        let secret = raised(self.0.unwrap(algorithm, iv.bytes(), wrapped.bytes()))?;
        Ok(PyBytes::new(py, &secret))
    }

    /// sha256: and the first 16 hex digits of the raw key's SHA-256.
    #[getter]
    fn fingerprint(&self) -> String {
        self.0.fingerprint()
    }

    /// The raw key.
    fn raw(&self) -> &[u8] {
        self.0.expose()
    }

    fn __repr__(&self) -> String {
        format!("<Kek {}>", self.0.fingerprint())
    }
}
