//! Which code does the block work, and what every kernel must be able to do.
//!
//! A kernel is one file; this one alone decides which runs. Everything above works on any kernel,
//! and the tests run each that the processor has against the portable one.

#[cfg(target_arch = "aarch64")]
mod aarch64_sha2;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86_shani;
#[cfg(target_arch = "x86_64")]
mod x86_vaes;

use std::sync::{OnceLock, mpsc};
use std::thread;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::Error;
use crate::data::Data;
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

#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
/// Runs a body for each group of four rounds, with its number as the constant `GROUP`.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
macro_rules! for_each_group {
    ($body:block) => {
        for_each_group!($body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    ($body:block $($group:literal)*) => {
        $({
            const GROUP: usize = $group;
            $body
        })*
    };
}
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
use for_each_group;

/// SHA-256 compression as a kernel does it. Blocks come in whole numbers.
trait Sha256: Send + Sync {
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
        if let Some(state) = &mut hashes.plaintext {
            self.compress(state, plaintext);
        }
    }
}

/// AES-256-CTR as a kernel does it, with an expanded key that it wipes when dropped.
trait Cipher: Send + Sync {
    /// Encrypts or decrypts whole cipher blocks from `counter` on, and advances it.
    ///
    /// Counters count 16-byte blocks from the layer's nonce, big-endian, modulo 2^128
    /// (docs/protocols.md 1.4). Input and output are equally long.
    fn crypt(&self, counter: &mut u128, input: &[u8], output: &mut [u8]);
}

/// A kernel with one layer's key. All lengths are whole numbers of 64-byte blocks.
pub(crate) struct Engine {
    sha: &'static dyn Sha256,
    cipher: Box<dyn Cipher>,
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

    /// AES-256-CTR from `counter` on; advances it. Input and output are equally long.
    pub(crate) fn crypt(&self, counter: &mut u128, input: &[u8], output: &mut [u8]) {
        self.cipher.crypt(counter, input, output);
    }

    /// Encrypts or decrypts `data` and hashes both sides, step by step, so that what is encrypted
    /// is still in the first-level cache when it is hashed.
    pub(crate) fn pass(
        &self,
        direction: Direction,
        counter: &mut u128,
        hashes: &mut Hashes,
        mut data: Data<'_>,
    ) {
        debug_assert_eq!(data.len() % BLOCK, 0);
        // The output of data in place overwrites the input, which is still to be hashed.
        let mut copy = [0; STEP];
        while !data.is_empty() {
            let len = STEP.min(data.len());
            let (step, rest) = data.split_at(len);
            let (input, output) = step.into_parts(&mut copy[..len]);
            self.crypt(counter, input, output);
            let (plaintext, ciphertext) = direction.sides(input, output);
            self.compress_layer(hashes, plaintext, ciphertext);
            data = rest;
        }
    }

    /// The same on two threads, for long data that lies apart: this one encrypts or decrypts and
    /// hashes the plaintext, the other hashes the ciphertext behind it.
    pub(crate) fn pass_on_two(
        &self,
        direction: Direction,
        counter: &mut u128,
        hashes: &mut Hashes,
        input: &[u8],
        output: &mut [u8],
    ) {
        const CHUNK: usize = 8 * STEP;
        let Hashes { mac, ciphertext: digest, plaintext: plaintext_digest } = hashes;
        thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            scope.spawn(move || {
                for ciphertext in receiver {
                    self.compress_pair(mac, digest, ciphertext);
                }
            });
            for (input, output) in input.chunks(CHUNK).zip(output.chunks_mut(CHUNK)) {
                self.crypt(counter, input, output);
                let (plaintext, ciphertext) = direction.sides(input, output);
                sender.send(ciphertext).expect("the other thread receives until this one ends");
                if let Some(state) = plaintext_digest {
                    self.compress(state, plaintext);
                }
            }
        });
    }
}

/// An implementation that this processor can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Choice);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    #[cfg(target_arch = "aarch64")]
    Aarch64Sha2,
    #[cfg(target_arch = "x86_64")]
    X86Vaes,
    #[cfg(target_arch = "x86_64")]
    X86ShaNi,
    Portable,
}

impl Kernel {
    /// RustCrypto, with its own use of AES and SHA instructions where the processor has them.
    pub const PORTABLE: Self = Self(Choice::Portable);

    /// Every kernel of this architecture, the fastest first; this processor may lack some.
    const ALL: &[Self] = &[
        #[cfg(target_arch = "aarch64")]
        Self(Choice::Aarch64Sha2),
        #[cfg(target_arch = "x86_64")]
        Self(Choice::X86Vaes),
        #[cfg(target_arch = "x86_64")]
        Self(Choice::X86ShaNi),
        Self::PORTABLE,
    ];

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
        Self::ALL.iter().copied().filter(|kernel| kernel.is_available()).collect()
    }

    /// The names of the kernels of this architecture that this processor cannot run.
    #[must_use]
    pub fn unavailable() -> Vec<&'static str> {
        Self::ALL
            .iter()
            .filter(|kernel| !kernel.is_available())
            .map(|kernel| kernel.name())
            .collect()
    }

    fn is_available(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "aarch64")]
            Choice::Aarch64Sha2 => aarch64_sha2::Sha::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Choice::X86Vaes => x86_shani::Sha::detect().is_some() && x86_vaes::Vaes::detect(),
            #[cfg(target_arch = "x86_64")]
            Choice::X86ShaNi => x86_shani::Sha::detect().is_some(),
            Choice::Portable => true,
        }
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
            #[cfg(target_arch = "aarch64")]
            Choice::Aarch64Sha2 => "aarch64-sha2",
            #[cfg(target_arch = "x86_64")]
            Choice::X86Vaes => "x86-vaes",
            #[cfg(target_arch = "x86_64")]
            Choice::X86ShaNi => "x86-shani",
            Choice::Portable => "portable",
        }
    }

    /// Expands a layer's key for this kernel, of which a value exists only if it is available.
    pub(crate) fn engine(self, key: &Secret<32>) -> Engine {
        const AVAILABLE: &str = "a Kernel exists only if this processor can run it";
        let (sha, cipher): (&'static dyn Sha256, Box<dyn Cipher>) = match self.0 {
            #[cfg(target_arch = "aarch64")]
            Choice::Aarch64Sha2 => {
                let sha = aarch64_sha2::Sha::detect().expect(AVAILABLE);
                (sha, Box::new(portable::Aes::new(key)))
            }
            #[cfg(target_arch = "x86_64")]
            Choice::X86Vaes => {
                let sha = x86_shani::Sha::detect().expect(AVAILABLE);
                (sha, Box::new(x86_vaes::Vaes::new(key).expect(AVAILABLE)))
            }
            #[cfg(target_arch = "x86_64")]
            Choice::X86ShaNi => {
                let sha = x86_shani::Sha::detect().expect(AVAILABLE);
                (sha, Box::new(portable::Aes::new(key)))
            }
            Choice::Portable => (&portable::Sha, Box::new(portable::Aes::new(key))),
        };
        Engine { sha, cipher }
    }
}
