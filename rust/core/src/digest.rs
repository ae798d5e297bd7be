//! SHA-256 and HMAC-SHA-256 over bare states, so that a kernel can carry several at once.
//!
//! A digest here is a [`State`] that whole blocks were compressed into; [`finish`] adds the padding
//! (FIPS 180-4, 5.1.1). HMAC (RFC 2104) is two such states that begin with the padded key.

use zeroize::{Zeroize, Zeroizing};

use crate::kernel::Engine;
use crate::secret::Secret;
use crate::sha256::{BLOCK, INITIAL, State};

/// Pads and compresses what is left and gives the digest.
///
/// `tail` is the end of the message after its last whole block, `total` the whole message's length
/// in bytes.
pub(crate) fn finish(engine: &Engine, mut state: State, tail: &[u8], total: u64) -> [u8; 32] {
    let mut padded = Zeroizing::new([0; 2 * BLOCK]);
    let end = if tail.len() < BLOCK - 8 { BLOCK } else { 2 * BLOCK };
    padded[..tail.len()].copy_from_slice(tail);
    padded[tail.len()] = 0x80;
    padded[end - 8..end].copy_from_slice(&(total * 8).to_be_bytes());
    engine.compress(&mut state, &padded[..end]);

    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    state.zeroize();
    digest
}

/// The inner and outer states of HMAC-SHA-256 after their first block. Both are as good as the key.
pub(crate) fn hmac_states(engine: &Engine, key: &Secret<32>) -> (State, State) {
    let first_block = |pad: u8| {
        let mut block = Zeroizing::new([pad; BLOCK]);
        for (byte, key_byte) in block.iter_mut().zip(key.expose()) {
            *byte ^= key_byte;
        }
        let mut state = INITIAL;
        engine.compress(&mut state, &block[..]);
        state
    };
    (first_block(0x36), first_block(0x5c))
}

/// Ends an HMAC: `inner` was fed whole blocks of the message, `tail` is its end, `total` its length.
pub(crate) fn hmac_finish(
    engine: &Engine,
    inner: State,
    outer: State,
    tail: &[u8],
    total: u64,
) -> [u8; 32] {
    let inner = finish(engine, inner, tail, BLOCK as u64 + total);
    finish(engine, outer, &inner, BLOCK as u64 + 32)
}
