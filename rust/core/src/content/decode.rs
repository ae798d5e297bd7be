//! What decompresses a stream that comes in pieces, into buffers of the caller's size.

use crate::Error;

/// What a form must be able to do.
pub(super) trait Decode: Send {
    /// Decompresses into `output`, and cuts off `input` what was used; gives how many bytes came.
    ///
    /// Fewer than there is room for come only where all input is used and nothing is held back.
    fn decode(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize, Error>;

    /// Fails unless the stream is complete.
    fn finish(&self) -> Result<(), Error>;

    /// All flags in the headers of gzip members (RFC 1952, 2.3.1) so far, joined by "or".
    fn gzip_flags(&self) -> u8 {
        0
    }
}
