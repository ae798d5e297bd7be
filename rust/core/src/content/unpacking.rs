//! How much compressed bytes may unpack to: a small image must not cost hours, or fill a disk.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Error;

/// What was unpacked so far of an archive, or of one command's layers; threads may share it.
///
/// Deflate can make 1032 bytes of one, zstd 32768; programs and texts rarely exceed 20. What may
/// come on top of [`Unpacking::RATIO`] is for long runs of zeros.
#[derive(Debug)]
pub struct Unpacking {
    allowed: u64,
    packed: AtomicU64,
    unpacked: AtomicU64,
}

impl Unpacking {
    /// Bytes that each compressed byte may become.
    pub const RATIO: u64 = 100;
    /// Bytes in sum that may come on top of that, unless the user allows more.
    pub const FREE: u64 = 1 << 30;
    /// Bytes in sum at the most, unless the user allows more.
    pub const TOTAL: u64 = 1 << 40;

    /// Allows so many bytes on top of [`Unpacking::RATIO`], in place of [`Unpacking::FREE`].
    #[must_use]
    pub fn new(allowed: u64) -> Self {
        Self { allowed, packed: AtomicU64::new(0), unpacked: AtomicU64::new(0) }
    }

    /// Learns that so many compressed bytes are unpacked next.
    pub fn packed(&self, size: u64) {
        add(&self.packed, size);
    }

    /// Learns that so many bytes came out.
    ///
    /// # Errors
    /// [`Error::TooMuchContent`]
    pub fn unpacked(&self, size: u64) -> Result<(), Error> {
        let unpacked = add(&self.unpacked, size);
        let packed = self.packed.load(Ordering::SeqCst);
        let most = packed.saturating_mul(Self::RATIO).saturating_add(self.allowed);
        if unpacked > most.min(Self::TOTAL.max(self.allowed)) {
            return Err(Error::TooMuchContent { unpacked });
        }
        Ok(())
    }
}

/// Adds, but never beyond the largest number; gives the sum.
fn add(count: &AtomicU64, more: u64) -> u64 {
    let add = |before: u64| Some(before.saturating_add(more));
    let before = count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
    before.unwrap_or_else(|before| before).saturating_add(more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_may_be_so_many_times_its_compressed_bytes_and_what_is_allowed() {
        let unpacking = Unpacking::new(1000);
        unpacking.packed(10);
        unpacking.unpacked(10 * Unpacking::RATIO).unwrap();
        unpacking.unpacked(1000).unwrap();
        assert_eq!(unpacking.unpacked(1), Err(Error::TooMuchContent { unpacked: 2001 }));
    }

    #[test]
    fn content_has_a_total_that_no_size_raises_but_the_user() {
        for (allowed, more) in [(1, 0), (Unpacking::TOTAL + 5, 5)] {
            let unpacking = Unpacking::new(allowed);
            unpacking.packed(Unpacking::TOTAL);
            unpacking.unpacked(Unpacking::TOTAL + more).unwrap();
            assert!(unpacking.unpacked(1).is_err());
        }
    }

    #[test]
    fn no_count_wraps() {
        let unpacking = Unpacking::new(0);
        unpacking.unpacked(u64::MAX).unwrap_err();
        unpacking.unpacked(u64::MAX).unwrap_err();
        unpacking.packed(u64::MAX);
        unpacking.packed(u64::MAX);
        unpacking.unpacked(1).unwrap_err();
    }
}
