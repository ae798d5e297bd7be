//! The oracle: the same mathematics written down as the standards state it, slow and readable,
//! sharing nothing with the library or with the crates that it uses.
#![allow(dead_code, clippy::many_single_char_names, clippy::cast_possible_truncation)]

/// What a layer must come out as.
pub struct Layer {
    pub ciphertext: Vec<u8>,
    pub hmac: [u8; 32],
    pub plaintext_sha256: [u8; 32],
    pub ciphertext_sha256: [u8; 32],
}

/// `AES_256_CTR_HMAC_SHA256` (docs/protocols.md 1.4).
pub fn layer(key: &[u8; 32], nonce: &[u8; 16], plaintext: &[u8]) -> Layer {
    let ciphertext = aes256_ctr(key, nonce, plaintext);
    Layer {
        hmac: hmac_sha256(key, &ciphertext),
        plaintext_sha256: sha256(plaintext),
        ciphertext_sha256: sha256(&ciphertext),
        ciphertext,
    }
}

/// NIST SP 800-38A 6.5, the whole block a big-endian counter.
pub fn aes256_ctr(key: &[u8; 32], first: &[u8; 16], data: &[u8]) -> Vec<u8> {
    let round_keys = aes256_expand(key);
    let sbox = aes_sbox();
    let mut counter = u128::from_be_bytes(*first);
    let mut out = Vec::with_capacity(data.len());
    for block in data.chunks(16) {
        let keystream = aes256_encrypt(&round_keys, &sbox, counter.to_be_bytes());
        out.extend(block.iter().zip(keystream).map(|(byte, key)| byte ^ key));
        counter = counter.wrapping_add(1);
    }
    out
}

/// Multiplication by x in GF(2^8), FIPS 197 4.2.1.
fn xtime(a: u8) -> u8 {
    (a << 1) ^ if a & 0x80 == 0 { 0 } else { 0x1b }
}

fn gf_mul(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = xtime(a);
        b >>= 1;
    }
    product
}

/// FIPS 197 5.1.1: the inverse in GF(2^8), then an affine map.
fn aes_sbox() -> [u8; 256] {
    std::array::from_fn(|i| {
        let inverse = (0..=255).find(|&b| gf_mul(i as u8, b) == 1).unwrap_or(0);
        (0..5).fold(0x63, |sum, turn| sum ^ inverse.rotate_left(turn))
    })
}

/// FIPS 197 5.2 with Nk = 8.
fn aes256_expand(key: &[u8; 32]) -> [[u8; 4]; 60] {
    let sbox = aes_sbox();
    let mut words = [[0; 4]; 60];
    for (word, bytes) in words.iter_mut().zip(key.chunks_exact(4)) {
        word.copy_from_slice(bytes);
    }
    let mut rcon = 1;
    for i in 8..60 {
        let mut word = words[i - 1];
        if i % 8 == 0 {
            word.rotate_left(1);
            word = word.map(|byte| sbox[byte as usize]);
            word[0] ^= rcon;
            rcon = xtime(rcon);
        } else if i % 8 == 4 {
            word = word.map(|byte| sbox[byte as usize]);
        }
        words[i] = std::array::from_fn(|j| words[i - 8][j] ^ word[j]);
    }
    words
}

/// FIPS 197 5.1. The state is a list of columns.
fn aes256_encrypt(round_keys: &[[u8; 4]; 60], sbox: &[u8; 256], block: [u8; 16]) -> [u8; 16] {
    let mut s: [[u8; 4]; 4] = std::array::from_fn(|c| std::array::from_fn(|r| block[4 * c + r]));
    let add_round_key = |s: &mut [[u8; 4]; 4], round: usize| {
        for (c, column) in s.iter_mut().enumerate() {
            for (r, byte) in column.iter_mut().enumerate() {
                *byte ^= round_keys[4 * round + c][r];
            }
        }
    };
    add_round_key(&mut s, 0);
    for round in 1..=14 {
        // SubBytes and ShiftRows: row r moves r columns to the left
        s = std::array::from_fn(|c| std::array::from_fn(|r| sbox[s[(c + r) % 4][r] as usize]));
        if round < 14 {
            s = s.map(|col| {
                std::array::from_fn(|r| {
                    gf_mul(col[r], 2)
                        ^ gf_mul(col[(r + 1) % 4], 3)
                        ^ col[(r + 2) % 4]
                        ^ col[(r + 3) % 4]
                })
            });
        }
        add_round_key(&mut s, round);
    }
    std::array::from_fn(|i| s[i / 4][i % 4])
}

/// FIPS 180-4 6.2.
pub fn sha256(message: &[u8]) -> [u8; 32] {
    let primes: Vec<u64> =
        (2..312).filter(|n| (2..*n).all(|divisor| n % divisor != 0)).take(64).collect();
    let k: Vec<u32> = primes.iter().map(|&p| fraction_of_root(p, 3)).collect();
    let mut h: Vec<u32> = primes[..8].iter().map(|&p| fraction_of_root(p, 2)).collect();

    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend((message.len() as u64 * 8).to_be_bytes());

    for block in padded.chunks_exact(64) {
        let mut w: Vec<u32> =
            block.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])).collect();
        for t in 16..64 {
            let s0 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ (w[t - 15] >> 3);
            let s1 = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ (w[t - 2] >> 10);
            w.push(s1.wrapping_add(w[t - 7]).wrapping_add(s0).wrapping_add(w[t - 16]));
        }
        let mut v = h.clone(); // a to h
        for t in 0..64 {
            let sum1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let ch = (v[4] & v[5]) ^ (!v[4] & v[6]);
            let t1 = [v[7], sum1, ch, k[t], w[t]].into_iter().fold(0, u32::wrapping_add);
            let sum0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let maj = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            v.rotate_right(1);
            v[4] = v[4].wrapping_add(t1);
            v[0] = t1.wrapping_add(sum0).wrapping_add(maj);
        }
        for (h, v) in h.iter_mut().zip(v) {
            *h = h.wrapping_add(v);
        }
    }
    let bytes: Vec<u8> = h.iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.try_into().unwrap()
}

/// The first 32 bits of the fractional part of a root of a small number (FIPS 180-4 4.2.2, 5.3.3).
fn fraction_of_root(n: u64, degree: u32) -> u32 {
    // the largest x with (x / 2^32) ^ degree <= n, found bit by bit
    let power = |x: u128| (0..degree).try_fold(1u128, |product, _| product.checked_mul(x));
    let limit = u128::from(n) << (32 * degree);
    let mut x: u128 = 0;
    for bit in (0..37).rev() {
        let candidate = x | 1 << bit;
        if power(candidate).is_some_and(|power| power <= limit) {
            x = candidate;
        }
    }
    x as u32
}

/// RFC 2104, for a key shorter than a block.
pub fn hmac_sha256(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let padded = |pad: u8| (0..64).map(move |i| pad ^ key.get(i).unwrap_or(&0));
    let inner: Vec<u8> = padded(0x36).chain(message.iter().copied()).collect();
    let outer: Vec<u8> = padded(0x5c).chain(sha256(&inner)).collect();
    sha256(&outer)
}

/// Reproducible bytes that look random (xorshift64*); the seed must not be zero.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed;
    let mut next = || {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}
