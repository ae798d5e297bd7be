//! Why a guest gives up.

use std::borrow::Cow;

/// Half a sentence about an entry, where a guest fails.
pub(super) type Refusal = Cow<'static, str>;

pub(super) type Found<T> = Result<T, Refusal>;

pub(super) fn refuse<T>(why: impl Into<Refusal>) -> Found<T> {
    Err(why.into())
}
