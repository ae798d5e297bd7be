//! Wrapping a small secret with a key-encryption key (docs/protocols.md 3.2).

use std::fmt;

use aes::Aes256;
use aes::cipher::{KeyIvInit, StreamCipher};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use ctr::Ctr128BE;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::Error;
use crate::secret::Secret;

/// The longest secret that can be wrapped, in bytes. A layer's options take about 200.
pub const MAX_SECRET: usize = 64 * 1024;

const TAG: usize = 16;

/// Counters that blocks of an A256GCM packet may have: 16 KiB.
const GCM_COUNTERS: u32 = 1024;

/// How a packet's `wrap_type` says the secret was wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// AES-256-GCM: 12-byte IV, 16-byte tag after the ciphertext, no additional data.
    A256Gcm,
    /// AES-256-CTR: a 16-byte IV that is the first counter block. It does not detect tampering.
    A256Ctr,
}

impl Algorithm {
    /// The names that [`Algorithm::named`] knows, exactly so written.
    pub const NAMES: [&'static str; 2] = ["A256GCM", "A256CTR"];

    /// The algorithm of that name; names are case-sensitive.
    ///
    /// # Errors
    /// [`Error::UnknownAlgorithm`]
    pub fn named(name: &str) -> Result<Self, Error> {
        match name {
            "A256GCM" => Ok(Self::A256Gcm),
            "A256CTR" => Ok(Self::A256Ctr),
            _ => Err(Error::UnknownAlgorithm { name: name.into() }),
        }
    }

    /// Length of its IV in bytes.
    #[must_use]
    pub const fn iv_len(self) -> usize {
        match self {
            Self::A256Gcm => 12,
            Self::A256Ctr => 16,
        }
    }

    fn iv(self, iv: &[u8]) -> Result<Iv<'_>, Error> {
        let (parsed, what) = match self {
            Self::A256Gcm => (iv.try_into().map(Iv::Gcm), "IV for A256GCM"),
            Self::A256Ctr => (iv.try_into().map(Iv::Ctr), "IV for A256CTR"),
        };
        parsed.map_err(|_| Error::Length { what, expected: self.iv_len(), found: iv.len() })
    }

    /// Whether an A256GCM packet could be passed off as one of A256CTR with this IV.
    ///
    /// GCM encrypts in counter mode, from the block `IV || 2` on: without its tag, such a packet
    /// is a valid one of A256CTR. The bound is the project's own, above what any packet needs.
    #[must_use]
    pub fn is_gcm_counter(self, iv: &[u8]) -> bool {
        match self {
            Self::A256Gcm => false,
            Self::A256Ctr => {
                iv.last_chunk().is_some_and(|counter| u32::from_be_bytes(*counter) < GCM_COUNTERS)
            }
        }
    }

    /// Draws an IV from the operating system.
    ///
    /// # Errors
    /// [`Error::NoRandomness`]
    pub fn generate_iv(self) -> Result<Vec<u8>, Error> {
        self.draw_iv(|iv| getrandom::fill(iv).map_err(|_| Error::NoRandomness))
    }

    fn draw_iv(
        self,
        mut fill: impl FnMut(&mut [u8]) -> Result<(), Error>,
    ) -> Result<Vec<u8>, Error> {
        let mut iv = vec![0; self.iv_len()];
        loop {
            fill(&mut iv)?;
            if !self.is_gcm_counter(&iv) {
                return Ok(iv);
            }
        }
    }
}

/// An IV of the right length for the algorithm that it names.
enum Iv<'a> {
    Gcm(&'a [u8; 12]),
    Ctr(&'a [u8; 16]),
}

/// A key-encryption key: 32 bytes that are the AES key as they stand, without derivation.
pub struct Kek(Secret<32>);

impl Kek {
    /// Draws a key from the operating system.
    ///
    /// # Errors
    /// [`Error::NoRandomness`]
    pub fn generate() -> Result<Self, Error> {
        Secret::generate().map(Self)
    }

    /// Takes 32 raw bytes.
    ///
    /// # Errors
    /// [`Error::Length`]
    pub fn from_raw(raw: &[u8]) -> Result<Self, Error> {
        Secret::copy_from(raw, "key").map(Self)
    }

    /// The key's raw bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// `sha256:` and the first 16 hex digits of the raw key's SHA-256, as `sha256sum` prints them.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(self.0.expose());
        digest[..8].iter().fold(String::from("sha256:"), |text, byte| text + &format!("{byte:02x}"))
    }

    /// Wraps `secret`. An IV must never be used twice with one key.
    ///
    /// # Errors
    /// [`Error::Length`] for the IV, [`Error::SecretTooLong`]
    pub fn wrap(&self, algorithm: Algorithm, iv: &[u8], secret: &[u8]) -> Result<Vec<u8>, Error> {
        let iv = algorithm.iv(iv)?;
        if secret.len() > MAX_SECRET {
            return Err(Error::SecretTooLong { found: secret.len(), most: MAX_SECRET });
        }
        // Room for the tag from the start: growing would leave the secret behind in freed memory.
        let mut data = Vec::with_capacity(secret.len() + TAG);
        data.extend_from_slice(secret);
        match iv {
            Iv::Gcm(iv) => {
                let tag = self
                    .gcm()
                    .encrypt_inout_detached(iv.into(), &[], data.as_mut_slice().into())
                    .map_err(|_| Error::SecretTooLong { found: secret.len(), most: MAX_SECRET })?;
                data.extend_from_slice(&tag);
            }
            Iv::Ctr(iv) => self.ctr(iv).apply_keystream(&mut data),
        }
        Ok(data)
    }

    /// Unwraps what [`Kek::wrap`] made.
    ///
    /// # Errors
    /// [`Error::Length`] for the IV, [`Error::WrappedTooShort`], [`Error::SecretTooLong`],
    /// [`Error::TagMismatch`]. With [`Algorithm::A256Ctr`] a wrong key or an altered packet yields
    /// other bytes and no error.
    pub fn unwrap(
        &self,
        algorithm: Algorithm,
        iv: &[u8],
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let iv = algorithm.iv(iv)?;
        let (body, tag) = match iv {
            Iv::Gcm(_) => wrapped
                .split_last_chunk::<TAG>()
                .ok_or(Error::WrappedTooShort { found: wrapped.len() })?,
            Iv::Ctr(_) => (wrapped, &[0; TAG]),
        };
        if body.len() > MAX_SECRET {
            return Err(Error::SecretTooLong { found: body.len(), most: MAX_SECRET });
        }
        let mut data = Zeroizing::new(body.to_vec());
        match iv {
            Iv::Gcm(iv) => self
                .gcm()
                .decrypt_inout_detached(iv.into(), &[], data.as_mut_slice().into(), tag.into())
                .map_err(|_| Error::TagMismatch)?,
            Iv::Ctr(iv) => self.ctr(iv).apply_keystream(&mut data),
        }
        Ok(data)
    }

    fn gcm(&self) -> Aes256Gcm {
        Aes256Gcm::new(self.0.expose().into())
    }

    fn ctr(&self, iv: &[u8; 16]) -> Ctr128BE<Aes256> {
        Ctr128BE::new(self.0.expose().into(), iv.into())
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kek({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ctr_iv_that_a_gcm_packet_could_have_is_drawn_again() {
        let mut draws = [1023_u32, 2, 1024].into_iter();
        let iv = Algorithm::A256Ctr
            .draw_iv(|iv| {
                iv[12..].copy_from_slice(&draws.next().unwrap().to_be_bytes());
                Ok(())
            })
            .unwrap();
        assert_eq!(iv[12..], 1024_u32.to_be_bytes());
        assert!(draws.next().is_none());
    }

    #[test]
    fn any_gcm_iv_will_do() {
        assert_eq!(Algorithm::A256Gcm.draw_iv(|_| Ok(())).unwrap(), [0; 12]);
    }
}
