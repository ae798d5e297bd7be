//! Key wrapping against the known packets, and what happens to altered ones.

mod oracle;
mod vectors;

use coco_kp_core::{Algorithm, Error, Kek, MAX_SECRET};

fn kek() -> Kek {
    Kek::from_raw(&[7; 32]).unwrap()
}

#[test]
fn known_packets() {
    for packet in vectors::packets() {
        let kek = Kek::from_raw(&packet.kek).unwrap();
        let unwrapped = Algorithm::named(&packet.algorithm)
            .and_then(|algorithm| kek.unwrap(algorithm, &packet.iv, &packet.wrapped));
        match packet.secret {
            None => {
                unwrapped.expect_err(&packet.name);
            }
            Some(secret) => {
                assert_eq!(*unwrapped.unwrap(), secret, "{}", packet.name);
                let algorithm = Algorithm::named(&packet.algorithm).unwrap();
                let wrapped = kek.wrap(algorithm, &packet.iv, &secret).unwrap();
                assert_eq!(wrapped, packet.wrapped, "{}", packet.name);
            }
        }
    }
}

#[test]
fn every_length_survives_the_round_trip() {
    for algorithm in [Algorithm::A256Gcm, Algorithm::A256Ctr] {
        for len in (0..100).chain([MAX_SECRET]) {
            let secret = oracle::noise(len as u64 + 1, len);
            let iv = algorithm.generate_iv().unwrap();
            let wrapped = kek().wrap(algorithm, &iv, &secret).unwrap();
            assert_eq!(*kek().unwrap(algorithm, &iv, &wrapped).unwrap(), secret);
        }
    }
}

#[test]
fn ctr_is_the_oracles_ctr_with_a_full_128_bit_counter() {
    let secret = oracle::noise(3, 100);
    for iv in [[0; 16], [0xff; 16]] {
        let wrapped = kek().wrap(Algorithm::A256Ctr, &iv, &secret).unwrap();
        assert_eq!(wrapped, oracle::aes256_ctr(&[7; 32], &iv, &secret));
    }
}

#[test]
fn every_flipped_bit_of_a_gcm_packet_is_detected() {
    let iv = [9; 12];
    let wrapped = kek().wrap(Algorithm::A256Gcm, &iv, b"a secret").unwrap();
    for bit in 0..wrapped.len() * 8 {
        let mut flipped = wrapped.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = kek().unwrap(Algorithm::A256Gcm, &iv, &flipped).unwrap_err();
        assert_eq!(error, Error::TagMismatch);
    }
    for bit in 0..iv.len() * 8 {
        let mut flipped = iv;
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = kek().unwrap(Algorithm::A256Gcm, &flipped, &wrapped).unwrap_err();
        assert_eq!(error, Error::TagMismatch);
    }
}

#[test]
fn wrong_lengths_are_named() {
    let message = |result: Result<(), Error>| result.unwrap_err().to_string();
    for (algorithm, wrong) in [(Algorithm::A256Gcm, 16), (Algorithm::A256Ctr, 12)] {
        let iv = vec![0; wrong];
        let expected = algorithm.iv_len();
        let said = message(kek().wrap(algorithm, &iv, b"x").map(|_| ()));
        assert!(said.starts_with(&format!("expected a {expected}-byte IV")), "{said}");
        assert_eq!(message(kek().unwrap(algorithm, &iv, &[0; 32]).map(|_| ())), said);
    }
    let short = kek().unwrap(Algorithm::A256Gcm, &[0; 12], &[0; 15]).unwrap_err();
    assert_eq!(short, Error::WrappedTooShort { found: 15 });
    let long = vec![0; MAX_SECRET + 1];
    let found = long.len();
    let error = kek().wrap(Algorithm::A256Ctr, &[0; 16], &long).unwrap_err();
    assert_eq!(error, Error::SecretTooLong { found, most: MAX_SECRET });
    let error = kek().unwrap(Algorithm::A256Ctr, &[0; 16], &long).unwrap_err();
    assert_eq!(error, Error::SecretTooLong { found, most: MAX_SECRET });
    assert_eq!(
        Kek::from_raw(&[0; 44]).unwrap_err().to_string(),
        "expected a 32-byte key, found 44 bytes"
    );
}

#[test]
fn algorithms_are_case_sensitive_and_named_in_the_error() {
    for name in Algorithm::NAMES {
        Algorithm::named(name).unwrap();
    }
    let error = Algorithm::named("a256gcm").unwrap_err();
    assert_eq!(error.to_string(), "unknown wrap algorithm 'a256gcm'");
}

#[test]
fn the_fingerprint_is_what_sha256sum_prints_and_debug_prints_no_more() {
    // printf '\7%.0s' {1..32} | sha256sum
    let digest = oracle::sha256(&[7; 32]);
    let expected = format!("sha256:{}", base16ct::lower::encode_string(&digest[..8]));
    assert_eq!(kek().fingerprint(), expected);
    assert_eq!(format!("{:?}", kek()), format!("Kek({expected})"));
}
