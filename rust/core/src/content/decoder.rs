//! Decompressing a stream of any form, within bounds.

use std::fmt;
use std::sync::Arc;

use super::decode::Decode;
use super::gzip::Gzip;
use super::unpacking::Unpacking;
use super::zstd::Zstd;
use crate::Error;
use crate::form::Form;

/// Bytes of content that are in one buffer.
pub(super) const PIECE: usize = 256 * 1024;

/// Decompresses one stream, within the bounds of what it may unpack to.
pub struct Decompressor {
    stream: Box<dyn Decode>,
    unpacking: Arc<Unpacking>,
}

impl Decompressor {
    /// Begins a stream.
    #[must_use]
    pub fn new(form: Form, unpacking: Arc<Unpacking>) -> Self {
        let stream: Box<dyn Decode> = match form {
            Form::Gzip => Box::new(Gzip::new()),
            Form::Zstd => Box::new(Zstd::new()),
        };
        Self { stream, unpacking }
    }

    /// Learns how many bytes come next, in one call of `decode` or several.
    pub fn expect(&mut self, input: &[u8]) {
        self.unpacking.packed(input.len() as u64);
    }

    /// Decompresses into `output`, and cuts off `input` what was used; gives how many bytes came.
    ///
    /// Fewer than there is room for come only where all input is used and nothing is held back.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::TooMuchContent`]; the stream is of no more use then.
    pub fn decode(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize, Error> {
        let count = self.stream.decode(input, output)?;
        self.unpacking.unpacked(count as u64)?;
        Ok(count)
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`Error::EndsEarly`]
    pub fn finish(&self) -> Result<(), Error> {
        self.stream.finish()
    }

    pub(super) fn gzip_flags(&self) -> u8 {
        self.stream.gzip_flags()
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}
