//! Every kernel of this processor against the oracle and the known answers.

mod oracle;
mod vectors;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use coco_kp_core::{
    CHUNK, Error, Kernel, LayerKey, LayerOpener, LayerSealer, OpenedLayer, SealedLayer, Secret,
};
use oracle::noise;

const KEY: [u8; 32] = *b"a layer key that is for tests on";
const NONCE: [u8; 16] = [0xA5; 16];

/// Lengths around each boundary that a kernel or the layer could trip over: cipher block, hash
/// block, padding, and the step in which long input is worked through.
const LENGTHS: [usize; 29] = [
    0, 1, 15, 16, 17, 55, 56, 63, 64, 65, 119, 127, 128, 129, 191, 192, 193, 255, 256, 257, 1023,
    1024, 1025, 8127, 8191, 8192, 8193, 16384, 20001,
];

fn keys(key: &[u8; 32], nonce: &[u8; 16]) -> LayerKey {
    LayerKey {
        key: Secret::copy_from(key, "key").unwrap(),
        nonce: Secret::copy_from(nonce, "nonce").unwrap(),
    }
}

fn portable() -> Kernel {
    Kernel::named("portable").unwrap()
}

/// Seals in pieces of the given lengths, the last one as long as need be.
fn seal(
    kernel: Kernel,
    keys: LayerKey,
    plaintext: &[u8],
    pieces: &[usize],
) -> (Vec<u8>, SealedLayer) {
    let mut sealer = LayerSealer::new(kernel, keys);
    let mut ciphertext = plaintext.to_vec();
    for_pieces(&mut ciphertext, pieces, |piece| sealer.update(piece));
    (ciphertext, sealer.finalize())
}

fn open(
    kernel: Kernel,
    keys: &LayerKey,
    hmac: [u8; 32],
    ciphertext: &[u8],
    pieces: &[usize],
) -> (Vec<u8>, Result<OpenedLayer, Error>) {
    let mut opener = LayerOpener::new(kernel, keys, hmac);
    let mut plaintext = ciphertext.to_vec();
    for_pieces(&mut plaintext, pieces, |piece| opener.update(piece));
    (plaintext, opener.finalize())
}

fn for_pieces(mut rest: &mut [u8], pieces: &[usize], mut work: impl FnMut(&mut [u8])) {
    for &len in pieces {
        let (piece, after) = rest.split_at_mut(len.min(rest.len()));
        work(piece);
        rest = after;
    }
    work(rest);
}

/// The one comparator: both directions of a kernel, whole and in pieces, against the oracle.
fn assert_agrees(
    kernel: Kernel,
    key: &[u8; 32],
    nonce: &[u8; 16],
    plaintext: &[u8],
    pieces: &[usize],
) {
    let expected = oracle::layer(key, nonce, plaintext);
    let case =
        || format!("{} {} bytes, nonce {nonce:02x?}, {pieces:?}", kernel.name(), plaintext.len());

    let (ciphertext, sealed) = seal(kernel, keys(key, nonce), plaintext, pieces);
    assert!(ciphertext == expected.ciphertext, "ciphertext: {}", case());
    assert_eq!(sealed.hmac, expected.hmac, "HMAC: {}", case());
    assert_eq!(sealed.ciphertext_sha256, expected.ciphertext_sha256, "{}", case());
    assert_eq!(sealed.plaintext_sha256, expected.plaintext_sha256, "{}", case());
    assert_eq!(sealed.size, plaintext.len() as u64);

    let (opened_text, opened) = open(kernel, &keys(key, nonce), expected.hmac, &ciphertext, pieces);
    let opened = opened.unwrap_or_else(|error| panic!("{error}: {}", case()));
    assert!(opened_text == plaintext, "plaintext: {}", case());
    assert_eq!(opened.ciphertext_sha256, expected.ciphertext_sha256, "{}", case());
    assert_eq!(opened.plaintext_sha256, expected.plaintext_sha256, "{}", case());
    assert_eq!(opened.size, plaintext.len() as u64);
}

/// Says what the other tests of this file could not run. Past the capture of passing tests.
#[test]
fn which_kernels_are_tested_here() {
    let known: &[&str] = match std::env::consts::ARCH {
        "x86_64" => &["x86-vaes", "x86-shani", "portable"],
        "aarch64" => &["aarch64-sha2", "portable"],
        _ => &["portable"],
    };
    let (tested, lacking): (Vec<_>, Vec<_>) =
        known.iter().copied().partition(|name| Kernel::named(name).is_ok());
    writeln!(io::stderr(), "kernels tested: {tested:?}; not on this processor: {lacking:?}")
        .unwrap();
    let names: Vec<_> = Kernel::available().iter().map(|kernel| kernel.name()).collect();
    assert_eq!(names, tested, "the fastest first, the portable one last");
}

#[test]
fn known_answers() {
    for kernel in Kernel::available() {
        for vector in vectors::layers() {
            let (ciphertext, sealed) =
                seal(kernel, keys(&vector.key, &vector.nonce), &vector.plaintext, &[]);
            assert_eq!(sealed.hmac, vector.hmac, "{}", vector.name);
            assert_eq!(sealed.ciphertext_sha256, vector.ciphertext_sha256, "{}", vector.name);
            assert_eq!(sealed.plaintext_sha256, vector.plaintext_sha256, "{}", vector.name);
            if let Some(expected) = vector.ciphertext {
                assert_eq!(ciphertext, expected, "{}", vector.name);
            }
            let keys = keys(&vector.key, &vector.nonce);
            let (plaintext, opened) = open(kernel, &keys, vector.hmac, &ciphertext, &[]);
            opened.unwrap();
            assert_eq!(plaintext, vector.plaintext, "{}", vector.name);
        }
    }
}

#[test]
fn the_oracle_knows_the_answers_too() {
    for vector in vectors::layers().into_iter().filter(|vector| vector.plaintext.len() <= 4097) {
        let layer = oracle::layer(&vector.key, &vector.nonce, &vector.plaintext);
        assert_eq!(layer.hmac, vector.hmac, "{}", vector.name);
        assert_eq!(layer.ciphertext_sha256, vector.ciphertext_sha256, "{}", vector.name);
        assert_eq!(layer.plaintext_sha256, vector.plaintext_sha256, "{}", vector.name);
    }
}

#[test]
fn lengths_around_every_boundary() {
    for kernel in Kernel::available() {
        for (seed, len) in (1..).zip(LENGTHS) {
            let key = noise(seed, 32).try_into().unwrap();
            let nonce = noise(seed + 1000, 16).try_into().unwrap();
            assert_agrees(kernel, &key, &nonce, &noise(seed + 2000, len), &[]);
        }
    }
}

#[test]
fn every_split_into_two_and_every_step_size() {
    let plaintext = noise(7, 200);
    for kernel in Kernel::available() {
        for split in 0..=plaintext.len() {
            assert_agrees(kernel, &KEY, &NONCE, &plaintext, &[split]);
        }
        for step in 1..=plaintext.len() {
            assert_agrees(kernel, &KEY, &NONCE, &plaintext, &[step; 200]);
        }
    }
}

#[test]
fn uneven_pieces_of_long_input() {
    let plaintext = noise(8, 40_000);
    let piecings: [&[usize]; 5] = [
        &[1, 8192, 8191],
        &[64, 16384, 1],
        &[63, 65, 20_000],
        &[0, 0, 37_777, 0],
        &[16, 8, 8192 + 8],
    ];
    for kernel in Kernel::available() {
        for pieces in piecings {
            assert_agrees(kernel, &KEY, &NONCE, &plaintext, pieces);
        }
    }
}

/// The counter has 128 bits: a kernel that adds in fewer must carry at each of these places.
#[test]
fn counters_about_to_wrap() {
    let plaintext = noise(9, 1000);
    for kernel in Kernel::available() {
        for bits in [8, 16, 32, 64, 96, 128] {
            for blocks_before in 0..=40 {
                let all_ones = u128::MAX >> (128 - bits);
                for above in [0, !all_ones & 0xABCD_EF01_2345_6789_ABCD_EF01_2345_6789] {
                    let nonce = (above | (all_ones - blocks_before)).to_be_bytes();
                    assert_agrees(kernel, &KEY, &nonce, &plaintext, &[]);
                }
            }
        }
        let nonce = (u128::from(u64::MAX) - 600).to_be_bytes();
        assert_agrees(kernel, &KEY, &nonce, &noise(10, 20_000), &[5, 9000]);
    }
}

/// Layers that nobody thought of, for a second or for `COCO_KP_FUZZ_SECONDS`.
#[test]
fn random_layers() {
    let seconds = std::env::var("COCO_KP_FUZZ_SECONDS").map_or(1, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let seed = u64::from_be_bytes(Secret::<8>::generate().unwrap().expose().to_owned()) | 1;
        let dice = noise(seed, 16);
        let number = |at: usize| usize::from(u16::from_be_bytes([dice[at], dice[at + 1]]));
        let key = noise(seed ^ 2, 32).try_into().unwrap();
        let mut nonce: [u8; 16] = noise(seed ^ 4, 16).try_into().unwrap();
        nonce[16 - number(0) % 16..].fill(0xff); // often soon to carry, and how far differs
        let len = number(2) % [100, 1_000, 30_000][number(4) % 3];
        let pieces = [number(6) % 100, number(8) % 10_000, number(10) % 300];
        for kernel in Kernel::available() {
            assert_agrees(kernel, &key, &nonce, &noise(seed ^ 8, len), &pieces);
        }
    }
}

#[test]
fn unaligned_buffers() {
    let source = noise(11, 1000 + 64);
    for kernel in Kernel::available() {
        for offset in 0..64 {
            assert_agrees(kernel, &KEY, &NONCE, &source[offset..offset + 1000], &[]);
        }
    }
}

#[test]
fn a_wrong_key_fails() {
    let (ciphertext, sealed) = seal(portable(), keys(&KEY, &NONCE), b"a layer", &[]);
    let mut other = KEY;
    other[31] ^= 1;
    let (_, opened) = open(portable(), &keys(&other, &NONCE), sealed.hmac, &ciphertext, &[]);
    assert_eq!(opened.unwrap_err(), Error::HmacMismatch);
}

#[test]
fn every_flipped_bit_of_ciphertext_and_hmac_fails() {
    let plaintext = noise(14, 130);
    let (ciphertext, sealed) = seal(portable(), keys(&KEY, &NONCE), &plaintext, &[]);
    for kernel in Kernel::available() {
        for bit in 0..ciphertext.len() * 8 {
            let mut flipped = ciphertext.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (_, opened) = open(kernel, &keys(&KEY, &NONCE), sealed.hmac, &flipped, &[]);
            assert_eq!(opened.unwrap_err(), Error::HmacMismatch);
        }
        for bit in 0..256 {
            let mut hmac = sealed.hmac;
            hmac[bit / 8] ^= 1 << (bit % 8);
            let (_, opened) = open(kernel, &keys(&KEY, &NONCE), hmac, &ciphertext, &[]);
            assert_eq!(opened.unwrap_err(), Error::HmacMismatch);
        }
    }
}

#[test]
fn a_truncated_or_extended_layer_fails() {
    let plaintext = noise(15, 300);
    let (mut ciphertext, sealed) = seal(portable(), keys(&KEY, &NONCE), &plaintext, &[]);
    let keys = keys(&KEY, &NONCE);
    for len in [0, 1, 63, 64, 256, 299] {
        let (_, opened) = open(portable(), &keys, sealed.hmac, &ciphertext[..len], &[]);
        assert_eq!(opened.unwrap_err(), Error::HmacMismatch);
    }
    ciphertext.push(0);
    let (_, opened) = open(portable(), &keys, sealed.hmac, &ciphertext, &[]);
    assert_eq!(opened.unwrap_err(), Error::HmacMismatch);
}

/// The format's HMAC does not cover the nonce: a flipped bit there passes, and shows only in the
/// plaintext's digest. This is why callers compare that digest.
#[test]
fn a_flipped_nonce_passes_the_hmac_and_shows_in_the_plaintext_digest() {
    let plaintext = noise(16, 100);
    let (ciphertext, sealed) = seal(portable(), keys(&KEY, &NONCE), &plaintext, &[]);
    let mut nonce = NONCE;
    nonce[15] ^= 1;
    let (garbage, opened) = open(portable(), &keys(&KEY, &nonce), sealed.hmac, &ciphertext, &[]);
    assert_ne!(garbage, plaintext);
    assert_ne!(opened.unwrap().plaintext_sha256, sealed.plaintext_sha256);
}

#[test]
fn generated_keys_differ() {
    let (a, b) = (LayerKey::generate().unwrap(), LayerKey::generate().unwrap());
    assert_ne!(a.key.expose(), b.key.expose());
    assert_ne!(a.nonce.expose(), b.nonce.expose());
}

#[test]
fn debug_prints_no_secret() {
    let sealer = LayerSealer::new(portable(), keys(&[0x5A; 32], &[0xC3; 16]));
    let opener = LayerOpener::new(portable(), &keys(&[0x5A; 32], &[0xC3; 16]), [0; 32]);
    let streams = format!("{sealer:?} {opener:?}");
    let shown = format!("{streams} {:?}", sealer.finalize());
    for secret in ["90, 90", "5a5a", "5A5A", "195, 195", "c3c3"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("[32 secret bytes]"), "{shown}");
}

#[test]
fn a_kernel_is_found_by_its_name_or_named_in_the_error() {
    for kernel in Kernel::available() {
        assert_eq!(Kernel::named(kernel.name()), Ok(kernel));
    }
    let error = Kernel::named("quantum\n").unwrap_err();
    assert_eq!(error.to_string(), r"this processor has no kernel 'quantum\n'");
}

/// Where a layer's chunks begin, and how long they are.
fn chunks(len: usize) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
    (0..len.div_ceil(CHUNK)).map(move |n| (n, n * CHUNK..len.min((n + 1) * CHUNK)))
}

#[test]
fn chunks_are_made_again_from_the_same_input_alone() {
    for kernel in Kernel::available() {
        for len in [0, 1, 63, 64, 65, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1000] {
            let plaintext = noise(7, len);
            // A counter that runs over on the way.
            let layer_keys = keys(&KEY, &[0xFF; 16]);
            let (ciphertext, sealed) = seal(kernel, layer_keys, &plaintext, &[1000, 70_000, 13]);
            let mut opener = LayerOpener::new(kernel, &keys(&KEY, &[0xFF; 16]), sealed.hmac);
            let mut copy = ciphertext.clone();
            opener.update(&mut copy);

            for (number, range) in chunks(len) {
                let (input, output) = (&plaintext[range.clone()], &ciphertext[range.clone()]);
                let mut chunk = input.to_vec();
                assert_eq!(sealed.again.repeat(number, &mut chunk), Ok(()));
                assert_eq!(chunk, output, "{kernel:?}, {len}, chunk {number}");
                assert_eq!(opener.repeat(number, &mut chunk), Ok(()));
                assert_eq!(chunk, input, "{kernel:?}, {len}, chunk {number}");

                for at in [0, range.len() / 2, range.len() - 1] {
                    let mut other = input.to_vec();
                    other[at] ^= 1;
                    let before = other.clone();
                    let refused = sealed.again.repeat(number, &mut other);
                    assert_eq!(refused, Err(Error::InputChanged), "{len}, {number}, {at}");
                    assert_eq!(other, before, "what was refused is left as it was");
                }
                let mut short = input[1..].to_vec();
                let refused = sealed.again.repeat(number, &mut short);
                assert_eq!(refused, Err(Error::InputChanged));
            }
            let past = len.div_ceil(CHUNK);
            let mut any = vec![0; len % CHUNK];
            for number in [past, past + 1, usize::MAX] {
                let refused = sealed.again.repeat(number, &mut any);
                assert_eq!(refused, Err(Error::NoSuchChunk), "{len}, {number}");
            }
        }
    }
}

#[test]
fn chunks_are_made_again_while_the_layer_goes_on() {
    let plaintext = noise(8, CHUNK + 5000);
    let mut sealer = LayerSealer::new(portable(), keys(&KEY, &NONCE));
    let mut ciphertext = plaintext.clone();
    let (first, rest) = ciphertext.split_at_mut(CHUNK + 100);
    sealer.update(first);
    let mut chunk = plaintext[CHUNK..CHUNK + 100].to_vec();
    assert_eq!(sealer.repeat(1, &mut chunk), Ok(()));
    assert_eq!(chunk, first[CHUNK..]);
    sealer.update(rest);
    let whole = seal(portable(), keys(&KEY, &NONCE), &plaintext, &[]);
    assert_eq!(ciphertext, whole.0);
    assert_eq!(sealer.finalize().hmac, whole.1.hmac);
}
