//! Layers that are compressed with zstd (RFC 8878).
//!
//! Blocks are decoded by `ruzstd`, which reads where this is given pieces: so the stream is cut into
//! headers and blocks here, and what `ruzstd` does not look at is checked here, too: the reserved
//! bit, the content's size and its checksum.

use std::io::Read;

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::decode::Decode;
use crate::Error;
use crate::form::Form;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18]; // behind a byte from 0x50 to 0x5f (RFC 8878, 3.1.2)

/// A frame's magic number and descriptor.
const HEAD: usize = MAGIC.len() + 1;

/// A skippable frame's magic number and size.
const SKIPPABLE_HEAD: usize = 8;

/// RFC 8878, 3.1.1.2.
const BLOCK_HEADER: usize = 3;

/// RFC 8878, 3.1.1.2.4.
const MAX_BLOCK: usize = 128 * 1024;

const CHECKSUM: usize = 4;

/// The most that a frame may look back: 32 MiB, as `zstd -20` makes them.
const MAX_WINDOW: u64 = 1 << 25;

/// One frame after another, skippable ones included.
pub(super) struct Zstd {
    frame: FrameDecoder,
    /// What came of the next unit, until there is all of it.
    held: Vec<u8>,
    next: Next,
    /// Of this frame.
    content: u64,
}

/// What comes next in the stream.
#[derive(Clone, Copy)]
enum Next {
    Frame {
        /// The stream may end here.
        whole: bool,
    },
    Skipped(u32),
    Block {
        checksum: bool,
        size: Option<u64>,
    },
    /// The frame's last bytes are still to be taken out.
    Rest {
        size: Option<u64>,
    },
}

impl Zstd {
    pub(super) fn new() -> Self {
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(MAX_WINDOW);
        Self { frame, held: Vec::new(), next: Next::Frame { whole: false }, content: 0 }
    }

    /// Takes the next unit of the stream, if all of it is there; gives whether it was.
    fn advance(&mut self, input: &mut &[u8]) -> Result<bool, Error> {
        if let Next::Skipped(left) = self.next {
            let count = input.len().min(left as usize);
            *input = &input[count..];
            let left = left - u32::try_from(count).expect("no more than a number of 32 bits");
            self.next = if left == 0 { Next::Frame { whole: true } } else { Next::Skipped(left) };
            return Ok(left == 0);
        }
        loop {
            let wanted = self.unit()?;
            if self.held.len() == wanted {
                break;
            }
            let count = input.len().min(wanted - self.held.len());
            if count == 0 {
                return Ok(false);
            }
            self.held.extend_from_slice(&input[..count]);
            *input = &input[count..];
            if let Next::Frame { whole } = &mut self.next {
                *whole = false;
            }
        }
        self.next = self.take()?;
        self.held.clear();
        Ok(true)
    }

    /// How long the unit is that `held` begins with, as far as that is known yet.
    fn unit(&self) -> Result<usize, Error> {
        let held = &self.held[..];
        match self.next {
            Next::Block { checksum, .. } => {
                let Some(&[a, b, c]) = held.first_chunk::<BLOCK_HEADER>() else {
                    return Ok(BLOCK_HEADER);
                };
                let header = u32::from_le_bytes([a, b, c, 0]);
                let (last, kind, size) = (header & 1, header >> 1 & 3, (header >> 3) as usize);
                let stored = if kind == 1 { 1 } else { size }; // a byte that is repeated
                if stored > MAX_BLOCK || size > MAX_BLOCK {
                    return Err(MALFORMED);
                }
                let after = if checksum && last == 1 { CHECKSUM } else { 0 };
                Ok(BLOCK_HEADER + stored + after)
            }
            _ if held.len() < HEAD => Ok(HEAD),
            _ if held[..4] == MAGIC => {
                let descriptor = Descriptor(held[4]);
                if descriptor.reserved() { Err(MALFORMED) } else { Ok(HEAD + descriptor.fields()) }
            }
            _ if held[0] >> 4 == 5 && held[1..4] == SKIPPABLE => Ok(SKIPPABLE_HEAD),
            _ => Err(MALFORMED),
        }
    }

    /// Takes the unit that is held.
    fn take(&mut self) -> Result<Next, Error> {
        let mut held = &self.held[..];
        match self.next {
            Next::Block { size, .. } => {
                let ended = self
                    .frame
                    .decode_blocks(&mut held, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|_| MALFORMED)?;
                Ok(if ended { Next::Rest { size } } else { self.next })
            }
            _ if held[..4] == MAGIC => {
                let descriptor = Descriptor(held[4]);
                self.frame.reset(&mut held).map_err(|_| MALFORMED)?;
                self.content = 0;
                let size = descriptor.has_size().then(|| self.frame.content_size());
                Ok(Next::Block { checksum: descriptor.has_checksum(), size })
            }
            _ => {
                let size = held.last_chunk().copied().map_or(0, u32::from_le_bytes);
                Ok(if size == 0 { Next::Frame { whole: true } } else { Next::Skipped(size) })
            }
        }
    }
}

impl Decode for Zstd {
    fn decode(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < output.len() {
            let count = self.frame.read(&mut output[filled..]).map_err(|_| MALFORMED)?;
            filled += count;
            self.content += count as u64;
            if count > 0 {
                continue;
            }
            if let Next::Rest { size } = self.next {
                let sum = self.frame.get_checksum_from_data();
                if sum.is_some() && sum != self.frame.get_calculated_checksum()
                    || size.is_some_and(|size| size != self.content)
                {
                    return Err(MALFORMED);
                }
                self.next = Next::Frame { whole: true };
            } else if !self.advance(input)? {
                break;
            }
        }
        Ok(filled)
    }

    fn finish(&self) -> Result<(), Error> {
        match self.next {
            Next::Frame { whole: true } => Ok(()),
            _ => Err(Error::EndsEarly { form: Form::Zstd }),
        }
    }
}

const MALFORMED: Error = Error::Malformed { form: Form::Zstd };

/// A frame's descriptor (RFC 8878, 3.1.1.1.1).
struct Descriptor(u8);

impl Descriptor {
    fn reserved(&self) -> bool {
        self.0 & 1 << 3 != 0
    }

    fn has_checksum(&self) -> bool {
        self.0 & 1 << 2 != 0
    }

    fn single_segment(&self) -> bool {
        self.0 & 1 << 5 != 0
    }

    fn has_size(&self) -> bool {
        self.0 >> 6 != 0 || self.single_segment()
    }

    /// Bytes of the fields behind it: window, dictionary, content's size.
    fn fields(&self) -> usize {
        let window = usize::from(!self.single_segment());
        let dictionary = [0, 1, 2, 4][usize::from(self.0 & 3)];
        let size = [usize::from(self.single_segment()), 2, 4, 8][usize::from(self.0 >> 6)];
        window + dictionary + size
    }
}
