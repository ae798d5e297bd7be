//! AES with AVX-512 (VAES), 32 cipher blocks abreast.
//!
//! On AMD's Zen 4 64 bytes take 18 cycles, where the AES-NI code of the portable kernel takes 42.
//! AES stitched into the hash rounds, which leave its unit idle, did not pay there: see
//! `docs/performance.md`.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, __m512i, _mm_aeskeygenassist_si128, _mm_loadu_si128, _mm_set_epi64x,
    _mm_shuffle_epi32, _mm_slli_si128, _mm_xor_si128, _mm512_add_epi64, _mm512_aesenc_epi128,
    _mm512_aesenclast_epi128, _mm512_broadcast_i32x4, _mm512_mask_storeu_epi8,
    _mm512_maskz_loadu_epi8, _mm512_set_epi8, _mm512_set_epi64, _mm512_shuffle_epi8,
    _mm512_xor_si512,
};

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Expand;
use super::engine::{CIPHER_BLOCK, Cipher};

/// This cipher, if the processor has the instructions.
pub(super) fn cipher() -> Option<Expand> {
    (is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw"))
    .then_some(|key| {
        // SAFETY: nobody has this function but where the instructions were detected.
        unsafe { expand(key.expose()) }
    })
}

/// A value is the proof that the processor has the instructions.
struct Vaes {
    round_keys: RoundKeys,
}

impl Cipher for Vaes {
    fn crypt(&self, counter: &mut u128, input: &[u8], output: &mut [u8]) {
        for_each_run(counter, input, output, |first, input, output| {
            // SAFETY: `self` is the proof.
            unsafe { crypt_run(&self.round_keys, first, input, output) }
        });
    }
}

/// Works through cipher blocks in runs in which the counter's lower 64 bits do not wrap.
fn for_each_run(
    counter: &mut u128,
    mut input: &[u8],
    mut output: &mut [u8],
    mut run: impl FnMut(u128, &[u8], &mut [u8]),
) {
    while !input.is_empty() {
        let len = until_wrap(*counter).min(input.len());
        let (now, later) = input.split_at(len);
        let (now_output, later_output) = output.split_at_mut(len);
        run(*counter, now, now_output);
        *counter = counter.wrapping_add((len / CIPHER_BLOCK) as u128);
        (input, output) = (later, later_output);
    }
}

/// Bytes of keystream before the counter's lower 64 bits wrap, or more than any slice is long.
fn until_wrap(counter: u128) -> usize {
    let (_, lower) = halves(counter);
    // 2^64 - lower blocks; from 2^59 on no slice is that long, whatever is left out here.
    let blocks = usize::try_from(u64::MAX - lower).unwrap_or(usize::MAX).min(usize::MAX / 32) + 1;
    blocks * CIPHER_BLOCK
}

/// A counter's upper and lower 64 bits.
#[allow(clippy::cast_possible_truncation, reason = "the upper half is returned beside it")]
fn halves(counter: u128) -> (u64, u64) {
    ((counter >> 64) as u64, counter as u64)
}

/// Vectors abreast: enough to hide the latency of a round, and all of it fits the registers.
const ABREAST: usize = 8;

/// AES-256-CTR over a run in which the counter's lower 64 bits do not wrap.
#[target_feature(enable = "avx512f,avx512bw,vaes")]
fn crypt_run(round_keys: &RoundKeys, first: u128, input: &[u8], output: &mut [u8]) {
    let keys = round_keys.0.map(|key| _mm512_broadcast_i32x4(key));
    let mut counters = Counters::new(first);
    let (input, input_end) = input.as_chunks::<{ ABREAST * 64 }>();
    let (output, output_end) = output.as_chunks_mut::<{ ABREAST * 64 }>();
    for (input, output) in input.iter().zip(output) {
        let keystream = encrypt(&keys, std::array::from_fn::<_, ABREAST, _>(|_| counters.next()));
        for ((input, output), keystream) in
            input.as_chunks::<64>().0.iter().zip(output.as_chunks_mut::<64>().0).zip(keystream)
        {
            apply(keystream, input, output);
        }
    }
    for (input, output) in input_end.chunks(64).zip(output_end.chunks_mut(64)) {
        let [keystream] = encrypt(&keys, [counters.next()]);
        apply(keystream, input, output);
    }
}

/// Four counters at a time, each as the cipher's big-endian block.
struct Counters {
    /// For each block its upper and lower half, still in the processor's byte order.
    halves: __m512i,
}

impl Counters {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(first: u128) -> Self {
        let (upper, lower) = halves(first);
        let upper = upper.cast_signed();
        let lower = |n| lower.wrapping_add(n).cast_signed();
        Self {
            halves: _mm512_set_epi64(
                lower(3),
                upper,
                lower(2),
                upper,
                lower(1),
                upper,
                lower(0),
                upper,
            ),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn next(&mut self) -> __m512i {
        let swap_halves = _mm512_set_epi8(
            8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, //
            8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, //
            8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, //
            8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7,
        );
        let blocks = _mm512_shuffle_epi8(self.halves, swap_halves);
        self.halves = _mm512_add_epi64(self.halves, _mm512_set_epi64(4, 0, 4, 0, 4, 0, 4, 0));
        blocks
    }
}

#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn encrypt<const N: usize>(keys: &[__m512i; 15], mut blocks: [__m512i; N]) -> [__m512i; N] {
    for block in &mut blocks {
        *block = _mm512_xor_si512(*block, keys[0]);
    }
    for key in &keys[1..14] {
        for block in &mut blocks {
            *block = _mm512_aesenc_epi128(*block, *key);
        }
    }
    blocks.map(|block| _mm512_aesenclast_epi128(block, keys[14]))
}

/// Encrypts or decrypts 1 to 64 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn apply(keystream: __m512i, input: &[u8], output: &mut [u8]) {
    let len = input.len().min(output.len()).min(64);
    let mask = u64::MAX >> (64 - len);
    // SAFETY: the mask confines both accesses to `len` bytes, which both slices have.
    unsafe {
        let input = _mm512_maskz_loadu_epi8(mask, input.as_ptr().cast());
        let output_bytes = _mm512_xor_si512(input, keystream);
        _mm512_mask_storeu_epi8(output.as_mut_ptr().cast(), mask, output_bytes);
    }
}

/// An expanded AES-256 key.
#[derive(Zeroize, ZeroizeOnDrop)]
struct RoundKeys([__m128i; 15]);

/// FIPS 197, 5.2: each step makes four words out of the eight before.
///
/// It does so on the heap: an expanded key that is moved there leaves a copy on the stack.
#[target_feature(enable = "aes")]
fn expand(key: &[u8; 32]) -> Box<Vaes> {
    let mut cipher = Box::new(Vaes { round_keys: RoundKeys([_mm_set_epi64x(0, 0); 15]) });
    let k = &mut cipher.round_keys.0;
    let (first, second) = key.split_at(16);
    // SAFETY: both halves are 16 readable bytes.
    unsafe {
        k[0] = _mm_loadu_si128(first.as_ptr().cast());
        k[1] = _mm_loadu_si128(second.as_ptr().cast());
    }
    k[2] = after_rotation::<0x01>(k[0], k[1]);
    k[3] = after(k[1], k[2]);
    k[4] = after_rotation::<0x02>(k[2], k[3]);
    k[5] = after(k[3], k[4]);
    k[6] = after_rotation::<0x04>(k[4], k[5]);
    k[7] = after(k[5], k[6]);
    k[8] = after_rotation::<0x08>(k[6], k[7]);
    k[9] = after(k[7], k[8]);
    k[10] = after_rotation::<0x10>(k[8], k[9]);
    k[11] = after(k[9], k[10]);
    k[12] = after_rotation::<0x20>(k[10], k[11]);
    k[13] = after(k[11], k[12]);
    k[14] = after_rotation::<0x40>(k[12], k[13]);
    cipher
}

/// The four words after eight, where the last word is rotated, substituted, and meets the constant.
#[inline]
#[target_feature(enable = "aes")]
fn after_rotation<const RCON: i32>(first: __m128i, second: __m128i) -> __m128i {
    spread(first, _mm_shuffle_epi32(_mm_aeskeygenassist_si128(second, RCON), 0xFF))
}

/// The four words after eight, where the last word is substituted only.
#[inline]
#[target_feature(enable = "aes")]
fn after(first: __m128i, second: __m128i) -> __m128i {
    spread(first, _mm_shuffle_epi32(_mm_aeskeygenassist_si128(second, 0), 0xAA))
}

/// Adds `word` to the first of four words, the sum to the second, and so on.
#[inline]
#[target_feature(enable = "sse2")]
fn spread(mut words: __m128i, word: __m128i) -> __m128i {
    words = _mm_xor_si128(words, _mm_slli_si128(words, 4));
    words = _mm_xor_si128(words, _mm_slli_si128(words, 8));
    _mm_xor_si128(words, word)
}
