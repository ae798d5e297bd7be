//! RustCrypto, which finds AES and SHA instructions by itself and has a constant-time fallback.

use aes::Aes256Enc;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher};
use ctr::{Ctr128BE, CtrCore};

use super::engine::{CIPHER_BLOCK, Cipher, Sha256};
use crate::secret::Secret;
use crate::sha256::State;

/// Hashing that runs everywhere.
pub(super) struct Sha;

impl Sha256 for Sha {
    fn compress(&self, state: &mut State, blocks: &[u8]) {
        sha2::block_api::compress256(state, blocks.as_chunks().0);
    }
}

/// A cipher that runs everywhere.
pub(super) struct Aes(Aes256Enc);

impl Aes {
    pub(super) fn expand(key: &Secret<32>) -> Box<dyn Cipher> {
        Box::new(Self(Aes256Enc::new(key.expose().into())))
    }
}

impl Cipher for Aes {
    fn crypt(&self, counter: &mut u128, input: &[u8], output: &mut [u8]) {
        // A fresh stream for each call: its own counter starts at zero and never meets its limit,
        // and the sum with `first` wraps modulo 2^128 as the format wants.
        let first = counter.to_be_bytes().into();
        Ctr128BE::from_core(CtrCore::inner_iv_init(&self.0, &first))
            .apply_keystream_b2b(input, output);
        *counter = counter.wrapping_add((input.len() / CIPHER_BLOCK) as u128);
    }
}
