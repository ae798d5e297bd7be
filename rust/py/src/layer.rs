//! The classes that seal and open layers.

use coco_kp_core as core;
use core::{Error, Kernel, LayerKey, Secret};
use pyo3::prelude::*;

use crate::borrow::Buffer;
use crate::errors::raised;
use crate::pump::{Progress, Request};
use crate::stream::{Stream, repeated};

/// Encrypts one layer, piece by piece.
#[pyclass(frozen, module = "coco_kp._native")]
pub(crate) struct LayerSealer(Stream<core::LayerSealer>);

#[pymethods]
impl LayerSealer {
    #[new]
    fn new() -> PyResult<Self> {
        let keys = raised(LayerKey::generate())?;
        let kernel = raised(Kernel::selected())?;
        Ok(Self(Stream::new(core::LayerSealer::new(kernel, keys))))
    }

    /// Encrypts the next piece in place.
    fn update(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.update(data)
    }

    /// Encrypts all that src holds into dst and returns the number of bytes.
    #[pyo3(signature = (src, dst, *, limit=None, threads=1, progress=None))]
    fn pump(
        &self,
        src: &Bound<'_, PyAny>,
        dst: &Bound<'_, PyAny>,
        limit: Option<u64>,
        threads: u32,
        progress: Option<&Bound<'_, Progress>>,
    ) -> PyResult<u64> {
        self.0.pump(src.py(), Request::new(src, dst, limit, threads, progress))
    }

    /// Makes a chunk once more, in place of its input.
    fn repeat(&self, number: usize, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.repeat(number, data)
    }

    /// Ends the layer and returns its keys, HMAC and digests.
    fn finalize(&self) -> PyResult<SealedLayer> {
        Ok(SealedLayer(self.0.end()?.finalize()))
    }
}

/// Decrypts one layer, piece by piece.
#[pyclass(frozen, module = "coco_kp._native")]
pub(crate) struct LayerOpener(Stream<core::LayerOpener>);

#[pymethods]
impl LayerOpener {
    #[new]
    #[pyo3(signature = (*, key, nonce, hmac))]
    fn new(
        key: &Bound<'_, PyAny>,
        nonce: &Bound<'_, PyAny>,
        hmac: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let (key, nonce, hmac) = (Buffer::of(key)?, Buffer::of(nonce)?, Buffer::of(hmac)?);
        let keys = LayerKey {
            key: raised(Secret::copy_from(key.bytes(), "layer key"))?,
            nonce: raised(Secret::copy_from(nonce.bytes(), "nonce"))?,
        };
        let hmac = raised(hmac.bytes().try_into().map_err(|_| Error::Length {
            what: "HMAC",
            expected: 32,
            found: hmac.len(),
        }))?;
        let kernel = raised(Kernel::selected())?;
        Ok(Self(Stream::new(core::LayerOpener::new(kernel, &keys, hmac))))
    }

    /// Decrypts the next piece in place.
    fn update(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.update(data)
    }

    /// Decrypts all that src holds into dst and returns the number of bytes.
    #[pyo3(signature = (src, dst, *, limit=None, threads=1, progress=None))]
    fn pump(
        &self,
        src: &Bound<'_, PyAny>,
        dst: &Bound<'_, PyAny>,
        limit: Option<u64>,
        threads: u32,
        progress: Option<&Bound<'_, Progress>>,
    ) -> PyResult<u64> {
        self.0.pump(src.py(), Request::new(src, dst, limit, threads, progress))
    }

    /// Makes a chunk once more, in place of its input.
    fn repeat(&self, number: usize, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.repeat(number, data)
    }

    /// Ends the layer: returns its digests if the HMAC verifies, raises `IntegrityError` if not.
    fn finalize(&self) -> PyResult<OpenedLayer> {
        raised(self.0.end()?.finalize()).map(OpenedLayer)
    }
}

/// What sealing a layer yields.
#[pyclass(frozen, module = "coco_kp._native")]
pub(crate) struct SealedLayer(core::SealedLayer);

#[pymethods]
impl SealedLayer {
    #[getter]
    fn key(&self) -> &[u8] {
        self.0.keys.key.expose()
    }

    #[getter]
    fn nonce(&self) -> &[u8] {
        self.0.keys.nonce.expose()
    }

    #[getter]
    fn hmac(&self) -> &[u8] {
        &self.0.hmac
    }

    #[getter]
    fn plaintext_sha256(&self) -> &[u8] {
        &self.0.plaintext_sha256
    }

    #[getter]
    fn ciphertext_sha256(&self) -> &[u8] {
        &self.0.ciphertext_sha256
    }

    #[getter]
    fn size(&self) -> u64 {
        self.0.size
    }

    /// Makes a chunk once more, in place of its input.
    fn repeat(&self, number: usize, data: &Bound<'_, PyAny>) -> PyResult<()> {
        repeated(data, |chunk| self.0.again.repeat(number, chunk))
    }

    fn __repr__(&self) -> String {
        describe("SealedLayer", &self.0.ciphertext_sha256, self.0.size)
    }
}

/// What opening a layer yields.
#[pyclass(frozen, module = "coco_kp._native")]
pub(crate) struct OpenedLayer(core::OpenedLayer);

#[pymethods]
impl OpenedLayer {
    #[getter]
    fn plaintext_sha256(&self) -> &[u8] {
        &self.0.plaintext_sha256
    }

    #[getter]
    fn ciphertext_sha256(&self) -> &[u8] {
        &self.0.ciphertext_sha256
    }

    #[getter]
    fn size(&self) -> u64 {
        self.0.size
    }

    /// Makes a chunk once more, in place of its input.
    fn repeat(&self, number: usize, data: &Bound<'_, PyAny>) -> PyResult<()> {
        repeated(data, |chunk| self.0.again.repeat(number, chunk))
    }

    fn __repr__(&self) -> String {
        describe("OpenedLayer", &self.0.ciphertext_sha256, self.0.size)
    }
}

/// A repr by public facts alone.
fn describe(class: &str, ciphertext_sha256: &[u8; 32], size: u64) -> String {
    let [a, b, c, d, ..] = ciphertext_sha256;
    format!("<{class} sha256:{a:02x}{b:02x}{c:02x}{d:02x}… of {size} bytes>")
}
