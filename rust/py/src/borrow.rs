//! What Python lends: buffers and file descriptors. The only unsafe code of this crate.
//!
//! Buffers: what is sound and why. A [`Buffer`] holds its `Py_buffer` until it is dropped; for that
//! long the exporter may neither free nor move the memory (a `bytearray` refuses to be resized),
//! even while the interpreter lock is released. So the slices stay valid.
//!
//! What is not ours to enforce: another Python thread can still *write* to a `bytearray` that is
//! being read here, or read one that is being written: while the lock is released, and in a build
//! without that lock at any time. Another process can do so to a shared mapping. By Rust's rules
//! that is a data race, and no binding can exclude it; `hashlib`, `zlib` and pyca/cryptography stand
//! in the same place and reason alike. It is the caller's bug, it cannot reach memory beyond the
//! buffer, for no length, pointer or branch is ever taken from the buffer's contents, and what
//! comes out is a layer whose bytes are as undefined as what was put in: the verdict then holds for
//! other bytes than those that were decrypted, for the source is read twice. Immutable `bytes`
//! cannot run into it. A mapping of a file that is made shorter kills the process, here as anywhere.
//!
//! Descriptors: a [`Descriptor`] is a duplicate of the caller's, so that nobody can close it, or let
//! its number become another file's, while the interpreter lock is released.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::slice;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::{ffi, prelude::*};

/// The memory of a C-contiguous Python buffer, held for as long as this value lives.
pub(crate) struct Buffer(PyUntypedBuffer);

impl Buffer {
    /// Asks any object for its memory. The items' type does not matter: bytes are bytes.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(object)?;
        if !buffer.is_c_contiguous() {
            return Err(PyBufferError::new_err("the buffer is not contiguous"));
        }
        Ok(Self(buffer))
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len_bytes()
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        if self.len() == 0 {
            return &[]; // the pointer of an empty buffer may be null
        }
        // SAFETY: the buffer is C-contiguous and not empty, so its pointer leads to `len` readable
        // bytes, which stay where they are while `self` holds the Py_buffer. On concurrent writes
        // see the head of this file.
        unsafe { slice::from_raw_parts(self.0.buf_ptr().cast(), self.len()) }
    }

    /// The bytes, to be overwritten. Read-only memory is refused.
    pub(crate) fn bytes_mut(&mut self) -> PyResult<&mut [u8]> {
        if self.0.readonly() {
            return Err(PyBufferError::new_err("the buffer is read-only"));
        }
        if self.len() == 0 {
            return Ok(&mut []);
        }
        // SAFETY: as above; the bytes are writable, and `self`, borrowed for as long as the slice
        // lives, gives out no other.
        Ok(unsafe { slice::from_raw_parts_mut(self.0.buf_ptr().cast(), self.len()) })
    }
}

/// A duplicate of a file descriptor, at the same place in the same file.
pub(crate) struct Descriptor(OwnedFd);

impl Descriptor {
    /// Takes a number or anything that has a `fileno` method.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        // SAFETY: `object` is a live reference, and the interpreter lock is held.
        let number = unsafe { ffi::PyObject_AsFileDescriptor(object.as_ptr()) };
        if number < 0 {
            return Err(PyErr::fetch(object.py()));
        }
        let duplicate = object.py().import("os")?.call_method1("dup", (number,))?.extract()?;
        // SAFETY: `os.dup` has just made it for us: it is open, and nobody else's to close.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(duplicate) }))
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
