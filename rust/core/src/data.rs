//! What a stream reads and where it writes.

/// Bytes to read and room for as many: two slices, or one that is overwritten.
#[derive(Debug)]
pub struct Data<'a>(Place<'a>);

#[derive(Debug)]
enum Place<'a> {
    Apart(&'a [u8], &'a mut [u8]),
    InPlace(&'a mut [u8]),
}

impl<'a> Data<'a> {
    /// Reads `input` and writes `output`.
    ///
    /// # Panics
    /// Unless both are equally long.
    #[must_use]
    pub fn apart(input: &'a [u8], output: &'a mut [u8]) -> Self {
        assert_eq!(input.len(), output.len(), "input and output must be equally long");
        Self(Place::Apart(input, output))
    }

    /// Overwrites `both`.
    #[must_use]
    pub fn in_place(both: &'a mut [u8]) -> Self {
        Self(Place::InPlace(both))
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.input().len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `mid` bytes and the rest.
    ///
    /// # Panics
    /// If there are fewer than `mid`.
    #[must_use]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        match self.0 {
            Place::Apart(input, output) => {
                let ((input, input_rest), (output, output_rest)) =
                    (input.split_at(mid), output.split_at_mut(mid));
                (Self(Place::Apart(input, output)), Self(Place::Apart(input_rest, output_rest)))
            }
            Place::InPlace(both) => {
                let (first, rest) = both.split_at_mut(mid);
                (Self(Place::InPlace(first)), Self(Place::InPlace(rest)))
            }
        }
    }

    pub(crate) fn input(&self) -> &[u8] {
        match &self.0 {
            Place::Apart(input, _) => input,
            Place::InPlace(both) => both,
        }
    }

    pub(crate) fn into_output(self) -> &'a mut [u8] {
        match self.0 {
            Place::Apart(_, output) | Place::InPlace(output) => output,
        }
    }

    /// Input and output as slices that lie apart, by copying the input aside if need be.
    ///
    /// `copy` must be as long as data in place; data that lies apart has no use for it.
    pub(crate) fn into_parts(self, copy: &'a mut [u8]) -> (&'a [u8], &'a mut [u8]) {
        match self.0 {
            Place::Apart(input, output) => (input, output),
            Place::InPlace(both) => {
                copy.copy_from_slice(both);
                (copy, both)
            }
        }
    }
}
