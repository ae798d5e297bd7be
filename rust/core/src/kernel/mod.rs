//! Which code does the block work, and what every kernel must be able to do.
//!
//! A kernel is one file; this one alone decides which runs. Everything above works on any kernel,
//! and the tests run each that the processor has against the portable one.

mod portable;

use std::sync::OnceLock;

use inout::InOutBuf;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::Error;
use crate::secret::Secret;
use crate::sha256::{BLOCK, State};

/// The hash states that follow a layer. The first is as good as the key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Hashes {
    /// HMAC's inner hash, over the ciphertext.
    pub(crate) mac: State,
    /// The ciphertext's digest.
    pub(crate) ciphertext: State,
    /// The plaintext's digest, if anybody wants it.
    pub(crate) plaintext: Option<State>,
}

/// How much of a layer one step takes, so that input and output stay in the first-level cache
/// between encrypting and hashing.
const STEP: usize = 8 * 1024;

/// A kernel with one layer's expanded key; it wipes the key when dropped.
///
/// Every length is a whole number of 64-byte blocks. Counters count 16-byte cipher blocks from the
/// layer's nonce, big-endian, modulo 2^128 (docs/protocols.md 1.4).
pub(crate) trait Engine: Send + Sync {
    /// SHA-256: compresses `blocks` into `state`.
    fn compress(&self, state: &mut State, blocks: &[u8]);

    /// The same blocks into two states.
    fn compress_pair(&self, first: &mut State, second: &mut State, blocks: &[u8]) {
        for step in blocks.chunks(STEP) {
            self.compress(first, step);
            self.compress(second, step);
        }
    }

    /// AES-256-CTR from `counter` on; advances it.
    fn crypt(&self, counter: &mut u128, data: InOutBuf<'_, '_, u8>);

    /// Encrypts `data` and hashes both sides.
    fn seal(&self, counter: &mut u128, hashes: &mut Hashes, data: InOutBuf<'_, '_, u8>) {
        for_each_step(data, |mut step| {
            if let Some(plaintext) = &mut hashes.plaintext {
                self.compress(plaintext, step.get_in());
            }
            self.crypt(counter, step.reborrow());
            self.compress_pair(&mut hashes.mac, &mut hashes.ciphertext, step.get_out());
        });
    }

    /// Decrypts `data` and hashes both sides.
    fn open(&self, counter: &mut u128, hashes: &mut Hashes, data: InOutBuf<'_, '_, u8>) {
        for_each_step(data, |mut step| {
            self.compress_pair(&mut hashes.mac, &mut hashes.ciphertext, step.get_in());
            self.crypt(counter, step.reborrow());
            if let Some(plaintext) = &mut hashes.plaintext {
                self.compress(plaintext, step.get_out());
            }
        });
    }
}

fn for_each_step(mut data: InOutBuf<'_, '_, u8>, mut work: impl FnMut(InOutBuf<'_, '_, u8>)) {
    debug_assert_eq!(data.len() % BLOCK, 0);
    while !data.is_empty() {
        let len = STEP.min(data.len());
        let (step, rest) = data.split_at(len);
        work(step);
        data = rest;
    }
}

/// An implementation that this processor can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Choice);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Portable,
}

impl Kernel {
    /// RustCrypto, with its own use of AES and SHA instructions where the processor has them.
    pub const PORTABLE: Self = Self(Choice::Portable);

    /// The kernel of this process: the one that `COCO_KP_KERNEL` names, or else the fastest.
    ///
    /// The choice is made once.
    ///
    /// # Errors
    /// [`Error::KernelUnavailable`] if the variable names none of [`Kernel::available`].
    pub fn selected() -> Result<Self, Error> {
        static SELECTED: OnceLock<Result<Kernel, Error>> = OnceLock::new();
        SELECTED
            .get_or_init(|| match std::env::var_os("COCO_KP_KERNEL") {
                None => Ok(Self::available()[0]),
                Some(name) => Self::named(&name.to_string_lossy()),
            })
            .clone()
    }

    /// Every kernel that this processor can run, the fastest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        vec![Self::PORTABLE]
    }

    /// The kernel of that name, if this processor can run it.
    ///
    /// # Errors
    /// [`Error::KernelUnavailable`]
    pub fn named(name: &str) -> Result<Self, Error> {
        Self::available()
            .into_iter()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| Error::KernelUnavailable { name: name.into() })
    }

    /// What `COCO_KP_KERNEL` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Choice::Portable => "portable",
        }
    }

    /// Expands a layer's key for this kernel.
    pub(crate) fn engine(self, key: &Secret<32>) -> Box<dyn Engine> {
        match self.0 {
            Choice::Portable => Box::new(portable::Portable::new(key)),
        }
    }
}
