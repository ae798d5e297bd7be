//! What kernels with SHA-256 instructions have in common: all but the instructions.

/// FIPS 180-4, 4.2.2, four rounds to a row.
pub(super) static ROUND_CONSTANTS: [[u32; 4]; 16] = [
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
pub(super) use for_each_group;

/// Makes SHA-256 for one, two or three states at once out of a file's `Message`, which the features
/// let run. States that hash the same message share its schedule and fill each other's waiting.
macro_rules! sha256_with_features {
    ($features:literal) => {
        /// A value is the proof that the processor has the instructions.
        struct Sha(());

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
                // SAFETY: `self` is the proof.
                unsafe { compress_trio([mac, digest], ciphertext, third, plaintext) }
            }
        }

        /// Compresses `blocks` into all states.
        #[target_feature(enable = $features)]
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
        #[target_feature(enable = $features)]
        fn compress_trio(
            [first, second]: [&mut State; 2],
            blocks: &[u8],
            third: &mut State,
            third_blocks: &[u8],
        ) {
            let mut pair = Message::new([first, second]);
            let mut single = Message::new([third]);
            let third_blocks = third_blocks.as_chunks().0;
            for (block, third_block) in blocks.as_chunks().0.iter().zip(third_blocks) {
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
    };
}
pub(super) use sha256_with_features;
