//! SHA-256 with the Armv8 SHA2 extension, for one, two or three states at once.
//!
//! States that hash the same message share its schedule and fill each other's waiting, as in
//! `x86_shani`. The cipher beside it is the portable kernel's, which uses the AES extension.
#![allow(unsafe_code)]

use std::arch::aarch64::{
    uint32x4_t, vaddq_u32, vdupq_n_u32, vld1q_u8, vld1q_u32, vreinterpretq_u32_u8, vrev32q_u8,
    vsha256h2q_u32, vsha256hq_u32, vsha256su0q_u32, vsha256su1q_u32, vst1q_u32,
};
use std::arch::is_aarch64_feature_detected;

use super::engine::{Hashes, Sha256};
use super::rounds::{ROUND_CONSTANTS, for_each_group, sha256_with_features};
use crate::sha256::{BLOCK, State};

/// This hashing, if the processor has the instructions.
pub(super) fn sha() -> Option<&'static dyn Sha256> {
    is_aarch64_feature_detected!("sha2").then_some(&Sha(()))
}

sha256_with_features!("sha2");

/// A message under way into `N` states.
struct Message<const N: usize> {
    states: [Lane; N],
    before: [Lane; N],
    /// The next 16 words of the schedule; group `g` takes the four at `g % 4`.
    words: [uint32x4_t; 4],
}

#[derive(Clone, Copy)]
struct Lane {
    abcd: uint32x4_t,
    efgh: uint32x4_t,
}

impl<const N: usize> Message<N> {
    #[inline]
    #[target_feature(enable = "sha2")]
    fn new(states: [&State; N]) -> Self {
        let states = states.map(|state| {
            // SAFETY: a state is two times four readable words.
            unsafe {
                Lane { abcd: vld1q_u32(state.as_ptr()), efgh: vld1q_u32(state[4..].as_ptr()) }
            }
        });
        Self { states, before: states, words: [vdupq_n_u32(0); 4] }
    }

    #[inline]
    #[target_feature(enable = "sha2")]
    fn store(self, states: [&mut State; N]) {
        for (lane, state) in self.states.into_iter().zip(states) {
            // SAFETY: a state is two times four writable words.
            unsafe {
                vst1q_u32(state.as_mut_ptr(), lane.abcd);
                vst1q_u32(state[4..].as_mut_ptr(), lane.efgh);
            }
        }
    }

    /// Begins a block.
    #[inline]
    #[target_feature(enable = "sha2")]
    fn load(&mut self, block: &[u8; BLOCK]) {
        for (words, bytes) in self.words.iter_mut().zip(block.as_chunks::<16>().0) {
            // SAFETY: 16 readable bytes.
            let loaded = unsafe { vld1q_u8(bytes.as_ptr()) };
            *words = vreinterpretq_u32_u8(vrev32q_u8(loaded));
        }
        self.before = self.states;
    }

    /// Does rounds `4 * GROUP` to `4 * GROUP + 3` in every state, and the schedule's step that
    /// belongs to them.
    #[inline]
    #[target_feature(enable = "sha2")]
    fn four_rounds<const GROUP: usize>(&mut self) {
        let [w0, w1, w2, w3] = std::array::from_fn(|n| self.words[(GROUP + n) % 4]);
        // SAFETY: a row is four readable words.
        let constants = unsafe { vld1q_u32(ROUND_CONSTANTS[GROUP].as_ptr()) };
        let sum = vaddq_u32(w0, constants);
        for lane in &mut self.states {
            let Lane { abcd, efgh } = *lane;
            lane.abcd = vsha256hq_u32(abcd, efgh, sum);
            lane.efgh = vsha256h2q_u32(efgh, abcd, sum);
        }
        if GROUP < 12 {
            self.words[GROUP % 4] = vsha256su1q_u32(vsha256su0q_u32(w0, w1), w2, w3);
        }
    }

    /// Ends a block.
    #[inline]
    #[target_feature(enable = "sha2")]
    fn add(&mut self) {
        for (lane, before) in self.states.iter_mut().zip(self.before) {
            lane.abcd = vaddq_u32(lane.abcd, before.abcd);
            lane.efgh = vaddq_u32(lane.efgh, before.efgh);
        }
    }
}
