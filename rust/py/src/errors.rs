//! The core's errors as the classes of `coco_kp/errors.py`.

use coco_kp_core::{Algorithm, Error, Fault, Form, Kernel};
use pyo3::PyErr;

mod python {
    use pyo3::import_exception;

    import_exception!(coco_kp.errors, CancelledError);
    import_exception!(coco_kp.errors, CocoKpError);
    import_exception!(coco_kp.errors, ContentTooLargeError);
    import_exception!(coco_kp.errors, InputError);
    import_exception!(coco_kp.errors, IntegrityError);
    import_exception!(coco_kp.errors, KekError);
    import_exception!(coco_kp.errors, StreamClosedError);
}

/// Gives an error of the core the class and the hint that users see.
pub(crate) fn raised<T>(result: Result<T, Error>) -> Result<T, PyErr> {
    result.map_err(|error| {
        let message = error.to_string();
        match error {
            Error::NoRandomness => python::CocoKpError::new_err(message),
            Error::Length { .. }
            | Error::WrappedTooShort { .. }
            | Error::SecretTooLong { .. }
            | Error::NoSuchChunk => python::InputError::new_err(message),
            Error::UnknownAlgorithm { .. } => {
                let hint = format!("use {}", Algorithm::NAMES.join(" or "));
                python::InputError::new_err((message, hint))
            }
            Error::KernelUnavailable { .. } => {
                let names: Vec<_> =
                    Kernel::available().iter().map(|kernel| kernel.name()).collect();
                let hint = format!("unset COCO_KP_KERNEL, or set it to {}", names.join(" or "));
                python::InputError::new_err((message, hint))
            }
            Error::TagMismatch => {
                let hint = "the wrapping key is another one, or the packet was altered";
                python::KekError::new_err((message, hint))
            }
            Error::HmacMismatch
            | Error::InputChanged
            | Error::EndsEarly { .. }
            | Error::Malformed { form: Form::Gzip } => python::IntegrityError::new_err(message),
            Error::Malformed { form: Form::Zstd } => {
                let hint = "frames of a layer may look back 32 MiB at the most";
                python::IntegrityError::new_err((message, hint))
            }
            Error::TooMuchContent { .. } => {
                let hint = "if you trust the image, allow more bytes";
                python::ContentTooLargeError::new_err((message, hint))
            }
        }
    })
}

/// Why a guest would refuse a layer's content.
pub(crate) fn refused_by_guests(fault: &Fault) -> PyErr {
    let Fault { block, why } = fault;
    let (subject, hint) = match block {
        Some(block) => (
            format!("the entry at block {block}"),
            "decrypt the image, and tar --list --block-number shows what the layer has where",
        ),
        None => ("it".to_owned(), ""),
    };
    let message = format!("guests refuse the layer's content: {subject} {why}");
    python::InputError::new_err((message, hint))
}

/// A key-encryption key that is no key: the caller's key is at fault, not the packet.
pub(crate) fn bad_kek(error: &Error) -> PyErr {
    python::KekError::new_err(error.to_string())
}

/// Use of a stream that has ended.
pub(crate) fn stream_closed() -> PyErr {
    let hint = "begin a new one: it ends with finalize, and with the first error";
    python::StreamClosedError::new_err(("this layer stream is closed", hint))
}

/// Use of a stream that another thread is using at this moment.
pub(crate) fn stream_busy() -> PyErr {
    let hint = "give each thread a stream of its own";
    python::StreamClosedError::new_err(("another thread is using this layer stream", hint))
}

/// A source that holds more than it may.
pub(crate) fn source_too_long(limit: u64) -> PyErr {
    python::IntegrityError::new_err(format!("the source holds more than its {limit} bytes"))
}

/// A pump that was told to end.
pub(crate) fn cancelled() -> PyErr {
    python::CancelledError::new_err("cancelled")
}
