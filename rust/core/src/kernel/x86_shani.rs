//! SHA-256 with the SHA extensions, for one, two or three states at once.
//!
//! `sha256rnds2` takes four cycles until the next one of the same state can begin, so a single state
//! leaves the unit idle most of the time. States that hash the same message (HMAC and digest of the
//! ciphertext) share its schedule and fill each other's waiting; a third over another message fills
//! what is left. On AMD's Zen 4 a block takes 129 cycles for one state, 130 for two, 157 for three.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi64x,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
    _mm_shuffle_epi32, _mm_storeu_si128,
};

use super::engine::{Hashes, Sha256};
use super::rounds::{ROUND_CONSTANTS, for_each_group, sha256_with_features};
use crate::sha256::{BLOCK, State};

/// This hashing, if the processor has the instructions.
pub(super) fn sha() -> Option<&'static dyn Sha256> {
    (is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("sse4.1")
        && is_x86_feature_detected!("ssse3"))
    .then_some(&Sha(()))
}

sha256_with_features!("sha,sse4.1,ssse3");

/// A message under way into `N` states, in the order in which the instructions want their words.
struct Message<const N: usize> {
    states: [Lane; N],
    before: [Lane; N],
    /// The next 16 words of the schedule; group `g` takes the four at `g % 4`.
    words: [__m128i; 4],
}

#[derive(Clone, Copy)]
struct Lane {
    abef: __m128i,
    cdgh: __m128i,
}

impl<const N: usize> Message<N> {
    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn new(states: [&State; N]) -> Self {
        let states = states.map(|state| {
            // SAFETY: a state is 32 readable bytes.
            let (dcba, hgfe) = unsafe {
                (
                    _mm_loadu_si128(state.as_ptr().cast()),
                    _mm_loadu_si128(state[4..].as_ptr().cast()),
                )
            };
            let cdab = _mm_shuffle_epi32(dcba, 0xB1);
            let efgh = _mm_shuffle_epi32(hgfe, 0x1B);
            Lane { abef: _mm_alignr_epi8(cdab, efgh, 8), cdgh: _mm_blend_epi16(efgh, cdab, 0xF0) }
        });
        Self { states, before: states, words: [_mm_set_epi64x(0, 0); 4] }
    }

    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn store(self, states: [&mut State; N]) {
        for (lane, state) in self.states.into_iter().zip(states) {
            let feba = _mm_shuffle_epi32(lane.abef, 0x1B);
            let dchg = _mm_shuffle_epi32(lane.cdgh, 0xB1);
            // SAFETY: a state is 32 writable bytes.
            unsafe {
                _mm_storeu_si128(state.as_mut_ptr().cast(), _mm_blend_epi16(feba, dchg, 0xF0));
                _mm_storeu_si128(state[4..].as_mut_ptr().cast(), _mm_alignr_epi8(dchg, feba, 8));
            }
        }
    }

    /// Begins a block.
    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn load(&mut self, block: &[u8; BLOCK]) {
        let big_endian = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        for (words, bytes) in self.words.iter_mut().zip(block.as_chunks::<16>().0) {
            // SAFETY: 16 readable bytes.
            let loaded = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
            *words = _mm_shuffle_epi8(loaded, big_endian);
        }
        self.before = self.states;
    }

    /// Does rounds `4 * GROUP` to `4 * GROUP + 3` in every state, and the schedule's step that
    /// belongs to them.
    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn four_rounds<const GROUP: usize>(&mut self) {
        let at = |n: usize| (GROUP + n) % 4;
        let words = self.words[at(0)];
        // SAFETY: a row is 16 readable bytes.
        let constants = unsafe { _mm_loadu_si128(ROUND_CONSTANTS[GROUP].as_ptr().cast()) };
        let low = _mm_add_epi32(words, constants);
        let high = _mm_shuffle_epi32(low, 0x0E);
        for lane in &mut self.states {
            lane.cdgh = _mm_sha256rnds2_epu32(lane.cdgh, lane.abef, low);
        }
        for lane in &mut self.states {
            lane.abef = _mm_sha256rnds2_epu32(lane.abef, lane.cdgh, high);
        }
        if GROUP < 12 {
            let w_t_minus_7 = _mm_alignr_epi8(self.words[at(3)], self.words[at(2)], 4);
            let sum = _mm_add_epi32(_mm_sha256msg1_epu32(words, self.words[at(1)]), w_t_minus_7);
            self.words[at(0)] = _mm_sha256msg2_epu32(sum, self.words[at(3)]);
        }
    }

    /// Ends a block.
    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn add(&mut self) {
        for (lane, before) in self.states.iter_mut().zip(self.before) {
            lane.abef = _mm_add_epi32(lane.abef, before.abef);
            lane.cdgh = _mm_add_epi32(lane.cdgh, before.cdgh);
        }
    }
}
