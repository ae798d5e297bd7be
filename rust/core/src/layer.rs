//! One pass over an image layer: AES-256-CTR, HMAC-SHA-256 of the ciphertext, SHA-256 of both sides.
//!
//! The cipher is ocicrypt's `AES_256_CTR_HMAC_SHA256` (docs/protocols.md 1.4): one 32-byte key for
//! both AES and HMAC, a 16-byte nonce that is the first counter block, ciphertext as long as the
//! plaintext, and an HMAC that travels apart from it.

use std::fmt;

use subtle::ConstantTimeEq;

use crate::Error;
use crate::kernel::{Direction, Kernel};
use crate::pass::Pass;
use crate::secret::Secret;

/// A layer's key (32 bytes) and nonce (16 bytes). Both are secret: who has the nonce's place in the
/// packet decides what the layer decrypts to.
#[derive(Debug)]
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
    /// SHA-256 of the plaintext.
    pub plaintext_sha256: [u8; 32],
    /// SHA-256 of the ciphertext: the encrypted layer's name.
    pub ciphertext_sha256: [u8; 32],
    /// Bytes, the same on both sides.
    pub size: u64,
    /// What makes parts of the ciphertext again.
    pub again: Again,
}

/// What opening a layer yields, once its HMAC has verified.
#[derive(Debug)]
pub struct OpenedLayer {
    /// SHA-256 of the plaintext.
    pub plaintext_sha256: [u8; 32],
    /// SHA-256 of the ciphertext.
    pub ciphertext_sha256: [u8; 32],
    /// Bytes, the same on both sides.
    pub size: u64,
    /// What makes parts of the plaintext again.
    pub again: Again,
}

/// A layer that has ended, of which parts may be made again.
pub struct Again(Box<Pass>);

impl Again {
    /// Makes chunk `number`, of [`CHUNK`] bytes or, the last one, less, once more: `data` has its
    /// input.
    ///
    /// # Errors
    /// [`Error::InputChanged`]: `data` is not what was there before, and is left as it is.
    /// [`Error::NoSuchChunk`]
    pub fn repeat(&self, number: usize, data: &mut [u8]) -> Result<(), Error> {
        self.0.repeat(number, data)
    }
}

/// Encrypts a layer that comes in pieces of any length.
pub struct LayerSealer {
    pub(crate) pass: Box<Pass>,
    keys: LayerKey,
}

impl LayerSealer {
    /// Begins a layer.
    #[must_use]
    pub fn new(kernel: Kernel, keys: LayerKey) -> Self {
        Self { pass: Pass::new(kernel, Direction::Seal, &keys.key, &keys.nonce), keys }
    }

    /// Encrypts the next piece in place.
    pub fn update(&mut self, data: &mut [u8]) {
        self.pass.update(data);
    }

    /// Makes a chunk of what it took so far once more, as [`Again::repeat`].
    ///
    /// # Errors
    /// [`Error::InputChanged`], [`Error::NoSuchChunk`]
    pub fn repeat(&self, number: usize, data: &mut [u8]) -> Result<(), Error> {
        self.pass.repeat(number, data)
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
            again: Again(self.pass),
        }
    }
}

/// Decrypts a layer that comes in pieces of any length.
///
/// Plaintext leaves `update` before the verdict, which comes from `finalize` alone: the caller
/// keeps it out of reach until then.
pub struct LayerOpener {
    pub(crate) pass: Box<Pass>,
    hmac: [u8; 32],
}

impl LayerOpener {
    /// Begins a layer whose ciphertext must have this HMAC.
    #[must_use]
    pub fn new(kernel: Kernel, keys: &LayerKey, hmac: [u8; 32]) -> Self {
        Self { pass: Pass::new(kernel, Direction::Open, &keys.key, &keys.nonce), hmac }
    }

    /// Decrypts the next piece in place.
    pub fn update(&mut self, data: &mut [u8]) {
        self.pass.update(data);
    }

    /// Makes a chunk of what it took so far once more, as [`Again::repeat`].
    ///
    /// # Errors
    /// [`Error::InputChanged`], [`Error::NoSuchChunk`]
    pub fn repeat(&self, number: usize, data: &mut [u8]) -> Result<(), Error> {
        self.pass.repeat(number, data)
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
            again: Again(self.pass),
        })
    }
}

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Again").field("size", &self.0.size).finish_non_exhaustive()
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
