//! Which code does the block work.
//!
//! A kernel is a way to hash and a way to encrypt, each a file of its own; this one alone decides
//! what runs. Everything above works on any kernel.

#[cfg(target_arch = "aarch64")]
mod aarch64_sha2;
mod engine;
mod portable;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod rounds;
#[cfg(target_arch = "x86_64")]
mod x86_shani;
#[cfg(target_arch = "x86_64")]
mod x86_vaes;

use std::fmt;
use std::sync::OnceLock;

pub(crate) use engine::{CIPHER_BLOCK, Direction, Engine, Hashes};
use engine::{Cipher, Sha256};

use crate::Error;
use crate::secret::Secret;

/// Expands a layer's key.
type Expand = fn(&Secret<32>) -> Box<dyn Cipher>;

/// An implementation that this processor can run: a value exists of no other.
#[derive(Clone, Copy)]
pub struct Kernel {
    name: &'static str,
    sha: &'static dyn Sha256,
    expand: Expand,
}

/// A kernel of this architecture, with the tests whether the processor can run its parts.
struct Candidate {
    name: &'static str,
    sha: fn() -> Option<&'static dyn Sha256>,
    cipher: fn() -> Option<Expand>,
}

/// The fastest first.
const CANDIDATES: &[Candidate] = &[
    #[cfg(target_arch = "aarch64")]
    Candidate {
        name: "aarch64-sha2",
        sha: aarch64_sha2::sha,
        cipher: || Some(portable::Aes::expand),
    },
    #[cfg(target_arch = "x86_64")]
    Candidate { name: "x86-vaes", sha: x86_shani::sha, cipher: x86_vaes::cipher },
    #[cfg(target_arch = "x86_64")]
    Candidate { name: "x86-shani", sha: x86_shani::sha, cipher: || Some(portable::Aes::expand) },
    Candidate {
        name: "portable",
        sha: || Some(&portable::Sha),
        cipher: || Some(portable::Aes::expand),
    },
];

impl Candidate {
    fn kernel(&self) -> Option<Kernel> {
        Some(Kernel { name: self.name, sha: (self.sha)()?, expand: (self.cipher)()? })
    }
}

impl Kernel {
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

    /// Every kernel that this processor can run, the fastest first and the portable one last.
    #[must_use]
    pub fn available() -> Vec<Self> {
        CANDIDATES.iter().filter_map(Candidate::kernel).collect()
    }

    /// The kernel of that name, if this processor can run it.
    ///
    /// # Errors
    /// [`Error::KernelUnavailable`]
    pub fn named(name: &str) -> Result<Self, Error> {
        let mut available = Self::available().into_iter();
        available
            .find(|kernel| kernel.name == name)
            .ok_or_else(|| Error::KernelUnavailable { name: name.into() })
    }

    /// What `COCO_KP_KERNEL` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Expands a layer's key for this kernel.
    pub(crate) fn engine(self, key: &Secret<32>) -> Engine {
        Engine { sha: self.sha, cipher: (self.expand)(key) }
    }
}

impl PartialEq for Kernel {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel({})", self.name)
    }
}
