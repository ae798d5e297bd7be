//! What is made of a layer's content.

use super::guest::{Fault, GuestTar};
use super::hash::{Hash, HashAlgorithm};

/// What a layer's content is.
#[derive(Debug, PartialEq, Eq)]
pub struct Content {
    /// Of all of it.
    pub digest: Vec<u8>,
    /// Why a guest would refuse it, where that was asked for.
    pub fault: Option<Fault>,
}

/// What is told the content, in order.
pub(super) struct Judge {
    hash: Hash,
    guest: Option<GuestTar>,
}

impl Judge {
    pub(super) fn new(algorithm: HashAlgorithm, guest: bool) -> Self {
        Self { hash: Hash::new(algorithm), guest: guest.then(GuestTar::default) }
    }

    pub(super) fn take(&mut self, content: &[u8]) {
        self.hash.update(content);
        if let Some(guest) = &mut self.guest {
            guest.update(content);
        }
    }

    pub(super) fn finish(self, gzip_flags: u8) -> Content {
        let fault = self.guest.and_then(|guest| guest.finish(gzip_flags));
        Content { digest: self.hash.finish(), fault }
    }
}
