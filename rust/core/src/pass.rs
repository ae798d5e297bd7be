//! The state of one layer under way, whichever its direction.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::data::Data;
use crate::digest;
use crate::kernel::{Direction, Engine, Hashes, Kernel};
use crate::secret::Secret;
use crate::sha256::{BLOCK, INITIAL, State};

/// The state of a layer under way: whole blocks go to the kernel, what is left waits in `partial`.
pub(crate) struct Pass {
    pub(crate) engine: Engine,
    pub(crate) direction: Direction,
    /// The next cipher block's counter.
    pub(crate) counter: u128,
    pub(crate) hashes: Hashes,
    hmac_outer: State,
    partial: Partial,
    pub(crate) size: u64,
}

/// From this many bytes on a second thread is worth its start.
const WORTH_TWO_THREADS: usize = 512 * 1024;

/// What a pass comes to.
pub(crate) struct Sums {
    pub(crate) hmac: [u8; 32],
    pub(crate) plaintext_sha256: Option<[u8; 32]>,
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
        plaintext_digest: bool,
    ) -> Box<Self> {
        let engine = kernel.engine(key);
        let (mac, hmac_outer) = digest::hmac_states(&engine, key);
        Box::new(Self {
            engine,
            direction,
            counter: u128::from_be_bytes(*nonce.expose()),
            hashes: Hashes {
                mac,
                ciphertext: INITIAL,
                plaintext: plaintext_digest.then_some(INITIAL),
            },
            hmac_outer,
            partial: Partial::default(),
            size: 0,
        })
    }

    /// Takes the next piece, of any length; a second thread helps with a long one, if it may.
    pub(crate) fn update(&mut self, data: Data<'_>, two_threads: bool) {
        self.size += data.len() as u64;
        let missing = (BLOCK - self.partial.len) % BLOCK;
        let head = missing.min(data.len());
        let (head, rest) = data.split_at(head);
        let whole = rest.len() / BLOCK * BLOCK;
        let (blocks, tail) = rest.split_at(whole);
        self.pass_part(head);
        self.pass_blocks(blocks, two_threads);
        self.pass_part(tail);
    }

    fn pass_blocks(&mut self, blocks: Data<'_>, two_threads: bool) {
        let Self { engine, direction, counter, hashes, .. } = self;
        if two_threads && blocks.len() >= WORTH_TWO_THREADS && blocks.is_apart() {
            let (input, output) = blocks.into_parts(&mut []);
            engine.pass_on_two(*direction, counter, hashes, input, output);
        } else if !blocks.is_empty() {
            engine.pass(*direction, counter, hashes, blocks);
        }
    }

    /// Takes bytes that lie within one block, and hashes the block once it is full.
    fn pass_part(&mut self, part: Data<'_>) {
        if part.is_empty() {
            return;
        }
        let Partial { keystream, input, output, len } = &mut self.partial;
        if *len == 0 {
            self.engine.crypt(&mut self.counter, &[0; BLOCK], keystream);
        }
        let range = *len..*len + part.len();
        input[range.clone()].copy_from_slice(part.input());
        for at in range.clone() {
            output[at] = input[at] ^ keystream[at];
        }
        *len = range.end;
        part.into_output().copy_from_slice(&output[range]);
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
            plaintext_sha256: hashes
                .plaintext
                .map(|state| digest::finish(engine, state, plaintext, self.size)),
            ciphertext_sha256: digest::finish(engine, hashes.ciphertext, ciphertext, self.size),
            size: self.size,
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.counter.zeroize();
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
