//! The native core of coco-kp: it knows bytes and keys, and nothing of Python, JSON or images.
//!
//! * [`LayerSealer`] and [`LayerOpener`] carry an image layer through the ocicrypt cipher
//!   `AES_256_CTR_HMAC_SHA256` (docs/protocols.md 1.4) in one pass, digests of both sides included.
//! * Their `pump` does the same from one file descriptor to another, on one or two threads.
//! * [`ContentCheck`] reads what a layer holds: inflated within bounds, hashed, and judged as a guest
//!   judges it that unpacks it.
//! * [`Kek`] wraps and unwraps a layer's key (docs/protocols.md 3.2).
//! * [`Kernel`] says which implementation does the work on this processor.
#![deny(clippy::unwrap_used)]

mod content;
mod digest;
mod error;
mod form;
mod kernel;
mod keywrap;
mod layer;
mod pass;
mod pump;
mod secret;
mod sha256;

pub use content::{Content, ContentCheck, Decompressor, Fault, HashAlgorithm, Unpacking};
pub use error::Error;
pub use form::Form;
pub use kernel::Kernel;
pub use keywrap::{Algorithm, Kek, MAX_SECRET};
pub use layer::{Again, LayerKey, LayerOpener, LayerSealer, OpenedLayer, SealedLayer};
pub use pass::CHUNK;
pub use pump::{Control, Progress, PumpError, Stop};
pub use secret::Secret;
