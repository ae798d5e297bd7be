//! Key material: zeroized when dropped, never printed, never copied by itself.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::Error;

/// `N` secret bytes. They live in one place on the heap, so that moving the value leaves no copy.
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Draws the bytes from the operating system.
    ///
    /// # Errors
    /// [`Error::NoRandomness`]
    pub fn generate() -> Result<Self, Error> {
        let mut secret = Self(Box::new([0; N]));
        getrandom::fill(&mut secret.0[..]).map_err(|_| Error::NoRandomness)?;
        Ok(secret)
    }

    /// Copies the bytes; `what` names them in the error.
    ///
    /// # Errors
    /// [`Error::Length`] unless there are exactly `N`.
    pub fn copy_from(bytes: &[u8], what: &'static str) -> Result<Self, Error> {
        if bytes.len() != N {
            return Err(Error::Length { what, expected: N, found: bytes.len() });
        }
        let mut secret = Self(Box::new([0; N]));
        secret.0.copy_from_slice(bytes);
        Ok(secret)
    }

    /// The bytes themselves. Whoever asks must not copy them to where they outlive this value.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{N} secret bytes]")
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> ZeroizeOnDrop for Secret<N> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_secrets_differ_and_are_not_zero() {
        let (a, b) = (Secret::<32>::generate().unwrap(), Secret::<32>::generate().unwrap());
        assert_ne!(a.expose(), b.expose());
        assert_ne!(a.expose(), &[0; 32]);
    }

    #[test]
    fn wrong_length_is_refused_by_name() {
        let error = Secret::<32>::copy_from(&[1; 31], "key").unwrap_err();
        assert_eq!(error.to_string(), "expected a 32-byte key, found 31 bytes");
    }

    #[test]
    fn debug_prints_nothing_of_it() {
        let secret = Secret::<4>::copy_from(&[0xAB, 0xCD, 171, 205], "key").unwrap();
        assert_eq!(format!("{secret:?}"), "[4 secret bytes]");
    }
}
