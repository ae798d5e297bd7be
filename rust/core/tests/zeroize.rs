//! Freed memory holds no key: the allocator of this test looks at every block before it goes.
//!
//! It sees the heap only. What a compiler leaves on the stack or in registers no test can promise.
#![allow(unsafe_code)]

mod oracle;

use std::alloc::{GlobalAlloc, Layout, System};
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};

use coco_kp_core::{Algorithm, Kek, Kernel, LayerKey, LayerOpener, LayerSealer, Secret};

/// AES-256's first two round keys are the key itself, so this finds expanded keys too.
const KEY: [u8; 32] = *b"the key that must not stay about";

static LEAKS: AtomicUsize = AtomicUsize::new(0);

struct Inspector;

// SAFETY: everything is passed on to the system's allocator; blocks are only looked at.
unsafe impl GlobalAlloc for Inspector {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeroed, so that what is found at the end was written by this block's owner.
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is allocated, initialised (see `alloc`), and nobody's any more.
        let bytes = unsafe { slice::from_raw_parts(block, layout.size()) };
        if bytes.windows(KEY.len()).any(|window| window == KEY) {
            LEAKS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static INSPECTOR: Inspector = Inspector;

fn leaks_of(work: impl FnOnce()) -> usize {
    let before = LEAKS.load(Ordering::Relaxed);
    work();
    LEAKS.load(Ordering::Relaxed) - before
}

fn keys() -> LayerKey {
    LayerKey {
        key: Secret::copy_from(&KEY, "key").unwrap(),
        nonce: Secret::copy_from(&[1; 16], "nonce").unwrap(),
    }
}

// One test, for leaks are counted by process.
#[test]
fn no_key_is_left_in_freed_memory() {
    assert_eq!(leaks_of(|| drop(std::hint::black_box(KEY.to_vec()))), 1, "the inspector is blind");

    assert_eq!(leaks_of(|| drop(Secret::<32>::copy_from(&KEY, "key"))), 0, "Secret");
    for kernel in Kernel::available() {
        let sealed = leaks_of(|| {
            let mut sealer = LayerSealer::new(kernel, keys());
            sealer.update(&mut [0; 1000]);
            drop(sealer.finalize());
        });
        assert_eq!(sealed, 0, "sealing, {}", kernel.name());
        let abandoned = leaks_of(|| drop(LayerSealer::new(kernel, keys())));
        assert_eq!(abandoned, 0, "abandoned sealing, {}", kernel.name());
        let opened = leaks_of(|| {
            let mut opener = LayerOpener::new(kernel, &keys(), [0; 32]);
            opener.update(&mut [0; 1000]);
            opener.finalize().unwrap_err();
        });
        assert_eq!(opened, 0, "opening, {}", kernel.name());
    }

    for algorithm in [Algorithm::A256Gcm, Algorithm::A256Ctr] {
        let iv = vec![2; algorithm.iv_len()];
        let as_kek = leaks_of(|| {
            let kek = Kek::from_raw(&KEY).unwrap();
            let wrapped = kek.wrap(algorithm, &iv, b"secret").unwrap();
            kek.unwrap(algorithm, &iv, &wrapped).unwrap();
        });
        assert_eq!(as_kek, 0, "as the wrapping key");
        let as_secret = leaks_of(|| {
            let kek = Kek::from_raw(&[3; 32]).unwrap();
            let wrapped = kek.wrap(algorithm, &iv, &KEY).unwrap();
            assert_eq!(*kek.unwrap(algorithm, &iv, &wrapped).unwrap(), KEY);
        });
        assert_eq!(as_secret, 0, "as the wrapped secret");
    }
}
