//! One pass over an image layer: AES-256-CTR, HMAC-SHA-256 of the ciphertext, SHA-256 of both sides.
//!
//! The cipher is ocicrypt's `AES_256_CTR_HMAC_SHA256` (docs/protocols.md 1.4): one 32-byte key for
//! both AES and HMAC, a 16-byte nonce that is the first counter block, ciphertext as long as the
//! plaintext, and an HMAC that travels apart from it.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::Error;
use crate::data::Data;
use crate::kernel::{self, Direction, Engine, Hashes, Kernel};
use crate::secret::Secret;
use crate::sha256::{self, BLOCK, State};

/// A layer's key (32 bytes) and nonce (16 bytes). Both are secret: who has the nonce's place in the
/// packet decides what the layer decrypts to.
#[derive(Clone, Debug)]
pub struct LayerKey {
    /// The LEK: AES-256 key and HMAC key at once.
    pub key: Secret<32>,
    /// The first counter block.
    pub nonce: Secret<16>,
}

impl LayerKey {
    /// Draws both from the operating system.
    ///
    /// # Errors
    /// [`Error::NoRandomness`]
    pub fn generate() -> Result<Self, Error> {
        Ok(Self { key: Secret::generate()?, nonce: Secret::generate()? })
    }
}

/// What sealing a layer yields; `keys` and `hmac` are what its options documents carry.
#[derive(Debug)]
pub struct SealedLayer {
    /// The layer's key and nonce.
    pub keys: LayerKey,
    /// HMAC-SHA-256 of the ciphertext.
    pub hmac: [u8; 32],
    /// SHA-256 of the plaintext, if it was asked for.
    pub plaintext_sha256: Option<[u8; 32]>,
    /// SHA-256 of the ciphertext: the encrypted layer's name.
    pub ciphertext_sha256: [u8; 32],
    /// Bytes, the same on both sides.
    pub size: u64,
}

/// What opening a layer yields, once its HMAC has verified.
#[derive(Debug)]
pub struct OpenedLayer {
    /// SHA-256 of the plaintext, if it was asked for.
    pub plaintext_sha256: Option<[u8; 32]>,
    /// SHA-256 of the ciphertext.
    pub ciphertext_sha256: [u8; 32],
    /// Bytes, the same on both sides.
    pub size: u64,
}

/// Encrypts a layer that comes in pieces of any length.
pub struct LayerSealer {
    pass: Box<Pass>,
    keys: LayerKey,
}

impl LayerSealer {
    /// Begins a layer. The plaintext's digest costs a third of the time; leave it out where nobody
    /// asks for it.
    #[must_use]
    pub fn new(kernel: Kernel, keys: LayerKey, plaintext_digest: bool) -> Self {
        Self { pass: Pass::new(kernel, Direction::Seal, &keys, plaintext_digest), keys }
    }

    /// Encrypts the next piece.
    pub fn update(&mut self, data: Data<'_>) {
        self.pass.update(data);
    }

    /// Ends the layer.
    #[must_use]
    pub fn finalize(self) -> SealedLayer {
        let sums = self.pass.finish();
        SealedLayer {
            keys: self.keys,
            hmac: sums.hmac,
            plaintext_sha256: sums.plaintext_sha256,
            ciphertext_sha256: sums.ciphertext_sha256,
            size: sums.size,
        }
    }
}

/// Decrypts a layer that comes in pieces of any length.
///
/// Plaintext leaves `update` before the verdict, which comes from `finalize` alone: the caller
/// keeps it out of reach until then.
pub struct LayerOpener {
    pass: Box<Pass>,
    hmac: [u8; 32],
}

impl LayerOpener {
    /// Begins a layer whose ciphertext must have this HMAC.
    #[must_use]
    pub fn new(kernel: Kernel, keys: &LayerKey, hmac: [u8; 32], plaintext_digest: bool) -> Self {
        Self { pass: Pass::new(kernel, Direction::Open, keys, plaintext_digest), hmac }
    }

    /// Decrypts the next piece.
    pub fn update(&mut self, data: Data<'_>) {
        self.pass.update(data);
    }

    /// Ends the layer and compares its HMAC in constant time.
    ///
    /// # Errors
    /// [`Error::HmacMismatch`]: the key is wrong or the ciphertext was altered. A wrong *nonce* is
    /// not detected, for the HMAC does not cover it: it shows in the plaintext's digest.
    pub fn finalize(self) -> Result<OpenedLayer, Error> {
        let sums = self.pass.finish();
        if !bool::from(sums.hmac.ct_eq(&self.hmac)) {
            return Err(Error::HmacMismatch);
        }
        Ok(OpenedLayer {
            plaintext_sha256: sums.plaintext_sha256,
            ciphertext_sha256: sums.ciphertext_sha256,
            size: sums.size,
        })
    }
}

impl fmt::Debug for LayerSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerSealer").field("size", &self.pass.size).finish_non_exhaustive()
    }
}

impl fmt::Debug for LayerOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerOpener").field("size", &self.pass.size).finish_non_exhaustive()
    }
}

/// The state of a layer under way: whole blocks go to the kernel, what is left waits in `partial`.
struct Pass {
    engine: Box<dyn Engine>,
    direction: Direction,
    /// The next cipher block's counter.
    counter: u128,
    hashes: Hashes,
    hmac_outer: State,
    partial: Partial,
    size: u64,
}

struct Sums {
    hmac: [u8; 32],
    plaintext_sha256: Option<[u8; 32]>,
    ciphertext_sha256: [u8; 32],
    size: u64,
}

impl Pass {
    /// Boxed, so that moving a sealer about leaves no copy of its secret states on the stack.
    fn new(
        kernel: Kernel,
        direction: Direction,
        keys: &LayerKey,
        plaintext_digest: bool,
    ) -> Box<Self> {
        let engine = kernel.engine(&keys.key);
        let (mac, hmac_outer) = sha256::hmac_states(&*engine, &keys.key);
        Box::new(Self {
            engine,
            direction,
            counter: u128::from_be_bytes(*keys.nonce.expose()),
            hashes: Hashes {
                mac,
                ciphertext: sha256::INITIAL,
                plaintext: plaintext_digest.then_some(sha256::INITIAL),
            },
            hmac_outer,
            partial: Partial::default(),
            size: 0,
        })
    }

    fn update(&mut self, data: Data<'_>) {
        self.size += data.len() as u64;
        let missing = (BLOCK - self.partial.len) % BLOCK;
        let head = missing.min(data.len());
        let (head, rest) = data.split_at(head);
        let whole = rest.len() / BLOCK * BLOCK;
        let (blocks, tail) = rest.split_at(whole);
        self.pass_part(head);
        self.pass_blocks(blocks);
        self.pass_part(tail);
    }

    fn pass_blocks(&mut self, blocks: Data<'_>) {
        if blocks.is_empty() {
            return;
        }
        let Self { engine, direction, counter, hashes, .. } = self;
        kernel::pass(&**engine, *direction, counter, hashes, blocks);
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

    fn finish(&self) -> Sums {
        let Partial { input, output, len, .. } = &self.partial;
        let (plaintext, ciphertext) = self.direction.sides(&input[..*len], &output[..*len]);
        let (engine, hashes) = (&*self.engine, &self.hashes);
        Sums {
            hmac: sha256::hmac_finish(engine, hashes.mac, self.hmac_outer, ciphertext, self.size),
            plaintext_sha256: hashes
                .plaintext
                .map(|state| sha256::finish(engine, state, plaintext, self.size)),
            ciphertext_sha256: sha256::finish(engine, hashes.ciphertext, ciphertext, self.size),
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
