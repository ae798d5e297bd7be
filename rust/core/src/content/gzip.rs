//! Layers that are compressed with gzip (RFC 1952).

use zlib_rs::{Inflate, InflateFlush, Status};

use super::decode::Decode;
use crate::Error;
use crate::form::Form;

/// Expects a gzip header, and a window of up to 2^15 bytes, as zlib's `inflateInit2` counts them.
const GZIP: u8 = 16 + 15;

/// Where a member's header has its flags (RFC 1952, 2.3).
const FLAGS: usize = 3;

/// One gzip member after another, as tools that make seekable layers write them.
pub(super) struct Gzip {
    member: Inflate,
    ended: bool,
    flags: u8,
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self { member: Inflate::new(true, GZIP), ended: false, flags: 0 }
    }

    /// Keeps the flags, which zlib does not tell.
    fn look(&mut self, input: &[u8]) {
        let seen = usize::try_from(self.member.total_in()).unwrap_or(usize::MAX);
        if let Some(flags) = FLAGS.checked_sub(seen).and_then(|at| input.get(at)) {
            self.flags |= flags;
        }
    }
}

impl Decode for Gzip {
    fn decode(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < output.len() {
            if self.ended {
                if input.is_empty() {
                    break;
                }
                self.member = Inflate::new(true, GZIP);
                self.ended = false;
            }
            self.look(input);
            let (read, written) = (self.member.total_in(), self.member.total_out());
            let status = self
                .member
                .decompress(input, &mut output[filled..], InflateFlush::NoFlush)
                .map_err(|_| Error::Malformed { form: Form::Gzip })?;
            let read = usize::try_from(self.member.total_in() - read).expect("a part of a slice");
            *input = &input[read..];
            filled += usize::try_from(self.member.total_out() - written).expect("likewise");
            self.ended = status == Status::StreamEnd;
            if !self.ended && input.is_empty() {
                break; // where there was room for more, nothing is held back
            }
        }
        Ok(filled)
    }

    fn finish(&self) -> Result<(), Error> {
        if self.ended { Ok(()) } else { Err(Error::EndsEarly { form: Form::Gzip }) }
    }

    fn gzip_flags(&self) -> u8 {
        self.flags
    }
}
