//! The known answers of `tests/vectors/`, shared with the Python tests.
#![allow(dead_code)]

use base64ct::{Base64, Encoding};
use serde_json::Value;

pub struct Layer {
    pub name: String,
    pub key: [u8; 32],
    pub nonce: [u8; 16],
    pub plaintext: Vec<u8>,
    pub hmac: [u8; 32],
    pub plaintext_sha256: [u8; 32],
    pub ciphertext_sha256: [u8; 32],
    pub ciphertext: Option<Vec<u8>>,
}

pub fn layers() -> Vec<Layer> {
    let file = parse(include_str!("../../../../tests/vectors/layer_cipher.json"));
    file["vectors"].as_array().unwrap().iter().map(layer).collect()
}

fn layer(vector: &Value) -> Layer {
    let size = usize::try_from(vector["plaintext_size"].as_u64().unwrap()).unwrap();
    let plaintext = match vector["plaintext"]["ascii"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => (0..=250).cycle().take(size).collect(), // "byte i = i mod 251"
    };
    assert_eq!(plaintext.len(), size);
    Layer {
        name: text(&vector["name"]).into(),
        key: hex(&vector["key"]).try_into().unwrap(),
        nonce: hex(&vector["nonce"]).try_into().unwrap(),
        plaintext,
        hmac: base64(text(&vector["hmac"])).try_into().unwrap(),
        plaintext_sha256: hex(&vector["plaintext_sha256"]).try_into().unwrap(),
        ciphertext_sha256: hex(&vector["ciphertext_sha256"]).try_into().unwrap(),
        ciphertext: vector.get("ciphertext").map(hex),
    }
}

pub struct Packet {
    pub name: String,
    pub kek: Vec<u8>,
    pub algorithm: String,
    pub iv: Vec<u8>,
    pub wrapped: Vec<u8>,
    /// What it unwraps to; None if it must not.
    pub secret: Option<Vec<u8>>,
}

/// The packets that get as far as the key: what is wrong with the others is not the core's matter.
pub fn packets() -> Vec<Packet> {
    let file = parse(include_str!("../../../../tests/vectors/packets.json"));
    let bad_for_the_core = [
        "tag_flipped",
        "ciphertext_flipped",
        "shorter_than_a_tag",
        "iv_11_bytes",
        "iv_16_bytes_for_gcm",
        "ctr_iv_12_bytes",
        "wrap_type_lower_case",
        "wrap_type_unknown",
        "wrong_kek",
    ];
    let good = file["good"].as_array().unwrap().iter();
    let bad = file["bad"].as_array().unwrap().iter();
    let bad = bad.filter(|vector| bad_for_the_core.contains(&text(&vector["name"])));
    let packets: Vec<_> = good.chain(bad).map(packet).collect();
    assert_eq!(
        packets.iter().filter(|packet| packet.secret.is_none()).count(),
        bad_for_the_core.len()
    );
    packets
}

fn packet(vector: &Value) -> Packet {
    let packet = parse(text(&vector["packet"]));
    Packet {
        name: text(&vector["name"]).into(),
        kek: hex(&vector["kek"]),
        algorithm: text(&packet["wrap_type"]).into(),
        iv: base64(text(&packet["iv"])),
        wrapped: base64(text(&packet["wrapped_data"])),
        secret: vector.get("optsdata").map(|secret| text(secret).as_bytes().to_vec()),
    }
}

fn parse(json: &str) -> Value {
    serde_json::from_str(json).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    base16ct::lower::decode_vec(text(value)).unwrap()
}

fn base64(text: &str) -> Vec<u8> {
    Base64::decode_vec(text).unwrap()
}
