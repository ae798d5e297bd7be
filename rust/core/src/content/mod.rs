//! What a layer holds: decompressed within bounds, hashed, and read as a guest reads it.
//!
//! * [`Decompressor`] inflates a stream that comes in pieces.
//! * [`ContentCheck`] gives the digest of a layer's content, on a thread of its own if it may, and
//!   what a guest would say that unpacks it ([`guest`]).
//! * [`Unpacking`] bounds both.

mod aside;
mod check;
mod decode;
mod decoder;
mod guest;
mod gzip;
mod hash;
mod judge;
mod unpacking;
mod zstd;

pub use check::ContentCheck;
pub use decoder::Decompressor;
pub use guest::Fault;
pub use hash::HashAlgorithm;
pub use judge::Content;
pub use unpacking::Unpacking;
