//! SHA-256 and HMAC-SHA-256 over bare states, so that a kernel can carry several at once.
//!
//! A digest here is a [`State`] that whole blocks were compressed into; [`finish`] adds the padding
//! (FIPS 180-4, 5.1.1). HMAC (RFC 2104) is two such states that begin with the padded key.

use zeroize::{Zeroize, Zeroizing};

use crate::kernel::Engine;
use crate::secret::Secret;

/// The eight chaining words of SHA-256.
pub(crate) type State = [u32; 8];

/// Bytes in a block.
pub(crate) const BLOCK: usize = 64;

/// FIPS 180-4, 5.3.3.
pub(crate) const INITIAL: State = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// FIPS 180-4, 4.2.2, four rounds to a row.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
pub(crate) static ROUND_CONSTANTS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

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
