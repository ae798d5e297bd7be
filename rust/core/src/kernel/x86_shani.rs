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

use super::{Hashes, Sha256};
use crate::sha256::{BLOCK, State};

/// The kernel's hashing. A value is the proof that this processor has the instructions.
pub(super) struct Sha(());

impl Sha {
    pub(super) fn detect() -> Option<&'static Self> {
        (is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("sse4.1")
            && is_x86_feature_detected!("ssse3"))
        .then_some(&Self(()))
    }
}

impl Sha256 for Sha {
    fn compress(&self, state: &mut State, blocks: &[u8]) {
        // SAFETY: `self` is the proof.
        unsafe { compress([state], blocks) }
    }

    fn compress_pair(&self, first: &mut State, second: &mut State, blocks: &[u8]) {
        // SAFETY: `self` is the proof.
        unsafe { compress([first, second], blocks) }
    }

    fn compress_layer(&self, hashes: &mut Hashes, plaintext: &[u8], ciphertext: &[u8]) {
        let Hashes { mac, ciphertext: digest, plaintext: third } = hashes;
        match third {
            // SAFETY: `self` is the proof.
            Some(third) => unsafe { compress_trio([mac, digest], ciphertext, third, plaintext) },
            None => self.compress_pair(mac, digest, ciphertext),
        }
    }
}

/// FIPS 180-4, 4.2.2, four rounds to a row.
static ROUND_CONSTANTS: [[u32; 4]; 16] = [
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

/// Runs a body for each group of four rounds, with its number as the constant `GROUP`.
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

/// Compresses `blocks` into all states.
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn compress<const N: usize>(states: [&mut State; N], blocks: &[u8]) {
    let mut message = Message::new(states.each_ref().map(|state| &**state));
    for block in blocks.as_chunks().0 {
        message.load(block);
        for_each_group!({ message.four_rounds::<GROUP>() });
        message.add();
    }
    message.store(states);
}

/// Compresses `blocks` into the pair and as many `third_blocks` into the third state.
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn compress_trio(
    [first, second]: [&mut State; 2],
    blocks: &[u8],
    third: &mut State,
    third_blocks: &[u8],
) {
    let mut pair = Message::new([first, second]);
    let mut single = Message::new([third]);
    for (block, third_block) in blocks.as_chunks().0.iter().zip(third_blocks.as_chunks().0) {
        pair.load(block);
        single.load(third_block);
        for_each_group!({
            pair.four_rounds::<GROUP>();
            single.four_rounds::<GROUP>();
        });
        pair.add();
        single.add();
    }
    pair.store([first, second]);
    single.store([third]);
}

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
