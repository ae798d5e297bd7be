//! `coco_kp._native`: the core as Python sees it. Its stub is `python/coco_kp/_native.pyi`.
//!
//! Nothing is decided here. This crate turns buffers into slices ([`borrow`]), lets go of the
//! interpreter lock ([`stream`], [`pump`]) and gives errors their Python classes ([`errors`]).
#![deny(clippy::unwrap_used)]

mod borrow;
mod content;
mod errors;
mod kek;
mod layer;
mod pump;
mod stream;

use pyo3::prelude::*;

/// The native core of coco-kp.
#[pymodule]
mod _native {
    /// Bytes of a layer that are made again at a time.
    #[pymodule_export]
    const CHUNK: usize = coco_kp_core::CHUNK;

    #[pymodule_export]
    use super::content::{ContentCheck, Decompressor, Unpacking};
    #[pymodule_export]
    use super::kek::Kek;
    #[pymodule_export]
    use super::kernel;
    #[pymodule_export]
    use super::layer::{LayerOpener, LayerSealer, OpenedLayer, SealedLayer};
    #[pymodule_export]
    use super::pump::Progress;
}

/// The name of the kernel that encrypts layers in this process.
#[pyfunction]
fn kernel() -> PyResult<&'static str> {
    Ok(errors::raised(coco_kp_core::Kernel::selected())?.name())
}
