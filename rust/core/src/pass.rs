//! The state of one layer under way, whichever its direction.

use std::iter;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::Error;
use crate::digest;
use crate::kernel::{CIPHER_BLOCK, Direction, Engine, Hashes, Kernel};
use crate::secret::Secret;
use crate::sha256::{BLOCK, INITIAL, State};

/// Bytes between two marks: a layer is made again in chunks of this length.
pub const CHUNK: usize = 1024 * 1024;

/// The state of a layer under way: whole blocks go to the kernel, what is left waits in `partial`.
pub(crate) struct Pass {
    pub(crate) engine: Engine,
    pub(crate) direction: Direction,
    /// The first cipher block's counter.
    first: u128,
    /// The next cipher block's counter.
    pub(crate) counter: u128,
    pub(crate) hashes: Hashes,
    hmac_outer: State,
    partial: Partial,
    pub(crate) size: u64,
    /// The state of the input's digest after each whole chunk of what `update` took.
    marks: Vec<State>,
    /// How many bytes that were.
    taken: usize,
}

/// What a pass comes to.
pub(crate) struct Sums {
    pub(crate) hmac: [u8; 32],
    pub(crate) plaintext_sha256: [u8; 32],
    pub(crate) ciphertext_sha256: [u8; 32],
    pub(crate) size: u64,
}

impl Pass {
    /// Boxed, so that moving a sealer about leaves no copy of its secret states on the stack.
    pub(crate) fn new(
        kernel: Kernel,
        direction: Direction,
        key: &Secret<32>,
        nonce: &Secret<16>,
    ) -> Box<Self> {
        let engine = kernel.engine(key);
        let (mac, hmac_outer) = digest::hmac_states(&engine, key);
        Box::new(Self {
            engine,
            direction,
            first: u128::from_be_bytes(*nonce.expose()),
            counter: u128::from_be_bytes(*nonce.expose()),
            hashes: Hashes { mac, ciphertext: INITIAL, plaintext: INITIAL },
            hmac_outer,
            partial: Partial::default(),
            size: 0,
            marks: Vec::new(),
            taken: 0,
        })
    }

    /// Takes the next piece, of any length, and overwrites it.
    pub(crate) fn update(&mut self, data: &mut [u8]) {
        let room = (CHUNK - self.taken % CHUNK).min(data.len());
        let (first, rest) = data.split_at_mut(room);
        for within in iter::once(first).chain(rest.chunks_mut(CHUNK)) {
            self.update_within(within);
            self.taken += within.len();
            if !within.is_empty() && self.taken.is_multiple_of(CHUNK) {
                self.marks.push(self.input_state());
            }
        }
    }

    /// Makes chunk `number` of the output once more, in place of its input, which was read again.
    ///
    /// No key stream may meet two inputs: only what leads from the mark before the chunk to the
    /// mark behind it, or to where the layer stands, is the input that was there before.
    ///
    /// # Errors
    /// [`Error::NoSuchChunk`], [`Error::InputChanged`]; then nothing is written.
    pub(crate) fn repeat(&self, number: usize, data: &mut [u8]) -> Result<(), Error> {
        let (whole, rest) = (self.taken / CHUNK, self.taken % CHUNK);
        let len = if number < whole { CHUNK } else { rest };
        // Marks are missing where a pump carried the layer.
        let marked = self.marks.len() == whole && self.taken as u64 == self.size;
        if number > whole || len == 0 || !marked {
            return Err(Error::NoSuchChunk);
        }
        if data.len() != len {
            return Err(Error::InputChanged);
        }
        let (blocks, tail) = data.split_at_mut(len / BLOCK * BLOCK);
        let mut state = number.checked_sub(1).map_or(INITIAL, |before| self.marks[before]);
        self.engine.compress(&mut state, blocks);
        let partial = &self.partial;
        let (reached, left) = if number < whole {
            (self.marks[number], &[][..])
        } else {
            (self.input_state(), &partial.input[..partial.len])
        };
        if reached != state || tail != left {
            return Err(Error::InputChanged);
        }
        let mut counter = self.first.wrapping_add((number * (CHUNK / CIPHER_BLOCK)) as u128);
        self.engine.crypt_in_place(&mut counter, blocks);
        counter.zeroize();
        tail.copy_from_slice(&partial.output[..tail.len()]);
        Ok(())
    }

    /// The state of the input's digest after its last whole block.
    fn input_state(&self) -> State {
        match self.direction {
            Direction::Seal => self.hashes.plaintext,
            Direction::Open => self.hashes.ciphertext,
        }
    }

    /// Takes a piece that lies within one chunk.
    fn update_within(&mut self, data: &mut [u8]) {
        self.size += data.len() as u64;
        let missing = (BLOCK - self.partial.len) % BLOCK;
        let (head, rest) = data.split_at_mut(missing.min(data.len()));
        let (blocks, tail) = rest.split_at_mut(rest.len() / BLOCK * BLOCK);
        self.pass_part(head);
        let Self { engine, direction, counter, hashes, .. } = self;
        engine.pass(*direction, counter, hashes, blocks);
        self.pass_part(tail);
    }

    /// Takes bytes that lie within one block, and hashes the block once it is full.
    fn pass_part(&mut self, part: &mut [u8]) {
        if part.is_empty() {
            return;
        }
        let Partial { keystream, input, output, len } = &mut self.partial;
        if *len == 0 {
            self.engine.crypt(&mut self.counter, &[0; BLOCK], keystream);
        }
        let range = *len..*len + part.len();
        input[range.clone()].copy_from_slice(part);
        for at in range.clone() {
            output[at] = input[at] ^ keystream[at];
        }
        *len = range.end;
        part.copy_from_slice(&output[range]);
        if *len == BLOCK {
            *len = 0;
            let (plaintext, ciphertext) = self.direction.sides(input, output);
            self.engine.compress_layer(&mut self.hashes, plaintext, ciphertext);
        }
    }

    /// Whether the data so far is a whole number of blocks.
    pub(crate) fn is_aligned(&self) -> bool {
        self.partial.len == 0
    }

    /// Ends the layer.
    pub(crate) fn finish(&self) -> Sums {
        let Partial { input, output, len, .. } = &self.partial;
        let (plaintext, ciphertext) = self.direction.sides(&input[..*len], &output[..*len]);
        let (engine, hashes) = (&self.engine, &self.hashes);
        Sums {
            hmac: digest::hmac_finish(engine, hashes.mac, self.hmac_outer, ciphertext, self.size),
            plaintext_sha256: digest::finish(engine, hashes.plaintext, plaintext, self.size),
            ciphertext_sha256: digest::finish(engine, hashes.ciphertext, ciphertext, self.size),
            size: self.size,
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.first.zeroize();
        self.counter.zeroize();
        self.marks.zeroize();
        self.hmac_outer.zeroize();
    }
}

/// A block that is not full yet, with the keystream of all of it.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Partial {
    keystream: [u8; BLOCK],
    input: [u8; BLOCK],
    output: [u8; BLOCK],
    len: usize,
}

impl Default for Partial {
    fn default() -> Self {
        Self { keystream: [0; BLOCK], input: [0; BLOCK], output: [0; BLOCK], len: 0 }
    }
}
