//! What a kernel must be able to do, and how its parts carry a layer.

use std::time::{Duration, Instant};

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::sha256::{BLOCK, INITIAL, State};

/// The hash states that follow a layer. The first is as good as the key.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Hashes {
    /// HMAC's inner hash, over the ciphertext.
    pub(crate) mac: State,
    /// The ciphertext's digest.
    pub(crate) ciphertext: State,
    /// The plaintext's digest.
    pub(crate) plaintext: State,
}

/// Which way a layer goes.
#[derive(Clone, Copy)]
pub(crate) enum Direction {
    /// Plaintext comes in, ciphertext goes out.
    Seal,
    /// Ciphertext comes in, plaintext goes out.
    Open,
}

impl Direction {
    /// Names the two sides of the work: (plaintext, ciphertext).
    pub(crate) fn sides<'a>(self, input: &'a [u8], output: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        match self {
            Self::Seal => (input, output),
            Self::Open => (output, input),
        }
    }
}

/// SHA-256 compression as a kernel does it. Blocks come in whole numbers.
pub(super) trait Sha256: Send + Sync {
    /// Compresses `blocks` into `state`.
    fn compress(&self, state: &mut State, blocks: &[u8]);

    /// The same blocks into two states.
    fn compress_pair(&self, first: &mut State, second: &mut State, blocks: &[u8]) {
        for step in blocks.chunks(STEP) {
            self.compress(first, step);
            self.compress(second, step);
        }
    }

    /// Both sides of a piece of a layer into all its states.
    fn compress_layer(&self, hashes: &mut Hashes, plaintext: &[u8], ciphertext: &[u8]) {
        self.compress_pair(&mut hashes.mac, &mut hashes.ciphertext, ciphertext);
        self.compress(&mut hashes.plaintext, plaintext);
    }
}

/// AES-256-CTR as a kernel does it, with an expanded key that it wipes when dropped.
pub(super) trait Cipher: Send + Sync {
    /// Encrypts or decrypts whole cipher blocks from `counter` on, and advances it.
    ///
    /// Counters count 16-byte blocks from the layer's nonce, big-endian, modulo 2^128
    /// (docs/protocols.md 1.4). Input and output are equally long.
    fn crypt(&self, counter: &mut u128, input: &[u8], output: &mut [u8]);
}

/// Bytes that one value of the counter encrypts.
pub(crate) const CIPHER_BLOCK: usize = 16;

/// A kernel with one layer's key. All lengths are whole numbers of 64-byte blocks.
pub(crate) struct Engine {
    pub(super) sha: &'static dyn Sha256,
    pub(super) cipher: Box<dyn Cipher>,
}

/// How much of a layer one step takes: input and output together half of a first-level cache.
const STEP: usize = 8 * 1024;

impl Engine {
    /// Compresses `blocks` into `state`.
    pub(crate) fn compress(&self, state: &mut State, blocks: &[u8]) {
        self.sha.compress(state, blocks);
    }

    /// Compresses the same blocks into two states.
    pub(crate) fn compress_pair(&self, first: &mut State, second: &mut State, blocks: &[u8]) {
        self.sha.compress_pair(first, second, blocks);
    }

    /// Compresses both sides of a piece of a layer into all its states.
    pub(crate) fn compress_layer(&self, hashes: &mut Hashes, plaintext: &[u8], ciphertext: &[u8]) {
        self.sha.compress_layer(hashes, plaintext, ciphertext);
    }

    /// Whether hashing both sides at once costs this processor much less than one after the other.
    /// Processors differ in that, so it is measured: 0.1 ms where there are SHA instructions.
    pub(crate) fn fuses(&self) -> bool {
        let blocks = [0; STEP];
        let mut hashes = Hashes { mac: INITIAL, ciphertext: INITIAL, plaintext: INITIAL };
        let mut plaintext = INITIAL;
        let (mut fused, mut apart) = (Duration::MAX, Duration::MAX);
        for _ in 0..8 {
            let start = Instant::now();
            self.compress_layer(&mut hashes, &blocks, &blocks);
            let middle = Instant::now();
            self.compress_pair(&mut hashes.mac, &mut hashes.ciphertext, &blocks);
            self.compress(&mut plaintext, &blocks);
            fused = fused.min(middle - start);
            apart = apart.min(middle.elapsed());
        }
        fused < apart * 3 / 4
    }

    /// AES-256-CTR from `counter` on; advances it. Input and output are equally long.
    pub(crate) fn crypt(&self, counter: &mut u128, input: &[u8], output: &mut [u8]) {
        self.cipher.crypt(counter, input, output);
    }

    /// The same in place, of any length.
    pub(crate) fn crypt_in_place(&self, counter: &mut u128, data: &mut [u8]) {
        in_steps(data, |input, output| self.crypt(counter, input, output));
    }

    /// Encrypts or decrypts `data` in place and hashes both sides, step by step, so that what is
    /// encrypted is still in the first-level cache when it is hashed.
    pub(crate) fn pass(
        &self,
        direction: Direction,
        counter: &mut u128,
        hashes: &mut Hashes,
        data: &mut [u8],
    ) {
        debug_assert_eq!(data.len() % BLOCK, 0);
        in_steps(data, |input, output| {
            self.crypt(counter, input, output);
            let (plaintext, ciphertext) = direction.sides(input, output);
            self.compress_layer(hashes, plaintext, ciphertext);
        });
    }
}

/// Gives `work` a copy of one step after another, and the place of its output.
fn in_steps(data: &mut [u8], mut work: impl FnMut(&[u8], &mut [u8])) {
    let mut copy = [0; STEP];
    for output in data.chunks_mut(STEP) {
        let input = &mut copy[..output.len()];
        input.copy_from_slice(output);
        work(input, output);
    }
}
