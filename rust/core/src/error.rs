//! What can go wrong in the core. No message holds a key, a secret or an expected authenticator.

use std::fmt;

use crate::form::Form;

/// A reason why the core refused or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The operating system gave no random bytes.
    NoRandomness,
    /// A key, nonce, IV or authenticator has the wrong length (all in bytes).
    Length {
        /// What was given.
        what: &'static str,
        /// The length it must have.
        expected: usize,
        /// The length it has.
        found: usize,
    },
    /// A wrapped secret is shorter than its tag.
    WrappedTooShort {
        /// Its length in bytes.
        found: usize,
    },
    /// A secret to wrap is too long.
    SecretTooLong {
        /// Its length in bytes.
        found: usize,
        /// The most that it may have.
        most: usize,
    },
    /// The wrap algorithm is unknown.
    UnknownAlgorithm {
        /// What was asked for.
        name: String,
    },
    /// The GCM tag disagrees: another key, or an altered packet.
    TagMismatch,
    /// The layer's HMAC disagrees: another key, or altered ciphertext.
    HmacMismatch,
    /// A chunk is to be made again that was not made, or not by `update`.
    NoSuchChunk,
    /// What was read again is not what was read before.
    InputChanged,
    /// A compressed stream is not what it should be.
    Malformed {
        /// What it should be.
        form: Form,
    },
    /// A compressed stream is cut off.
    EndsEarly {
        /// How it is compressed.
        form: Form,
    },
    /// Compressed bytes became more than [`crate::Unpacking`] allows.
    TooMuchContent {
        /// Bytes so far.
        unpacked: u64,
    },
    /// No kernel has that name, or this processor cannot run it.
    KernelUnavailable {
        /// What was asked for.
        name: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRandomness => f.write_str("the operating system gave no random bytes"),
            Self::Length { what, expected, found } => {
                write!(f, "expected a {expected}-byte {what}, found {found} bytes")
            }
            Self::WrappedTooShort { found } => {
                write!(f, "a wrapped secret of {found} bytes is shorter than its 16-byte tag")
            }
            Self::SecretTooLong { found, most } => {
                write!(f, "a secret of {found} bytes is too long to wrap (at most {most})")
            }
            Self::UnknownAlgorithm { name } => {
                write!(f, "unknown wrap algorithm '{}'", excerpt(name))
            }
            Self::TagMismatch => f.write_str("the key does not open the wrapped secret"),
            Self::HmacMismatch => {
                f.write_str("the layer's HMAC does not match: the data was altered, or the key is another layer's")
            }
            Self::NoSuchChunk => f.write_str("the layer has no such chunk to be made again"),
            Self::InputChanged => {
                f.write_str("the layer's source gave other bytes when it was read again")
            }
            Self::Malformed { form } => {
                write!(f, "the layer is not the {form} stream that it should be")
            }
            Self::EndsEarly { form } => write!(f, "the layer's {form} stream ends early"),
            Self::TooMuchContent { unpacked } => {
                write!(f, "compressed content became {unpacked} bytes, too many for its size")
            }
            Self::KernelUnavailable { name } => {
                write!(f, "this processor has no kernel '{}'", excerpt(name))
            }
        }
    }
}

impl std::error::Error for Error {}

/// The beginning of a foreign word, without control characters.
fn excerpt(word: &str) -> String {
    word.chars().take(40).flat_map(char::escape_debug).collect()
}
