//! Every kernel of this processor, memory to memory, in both directions, and key wrapping.
#![allow(missing_docs, reason = "made by criterion's macros")]

use std::hint::black_box;

use coco_kp_core::{Algorithm, Kek, Kernel, LayerKey, LayerOpener, LayerSealer};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const MIB: usize = 1024 * 1024;

fn layers(criterion: &mut Criterion) {
    let mut data = vec![0x5a; MIB];
    let keys = || LayerKey::generate().expect("randomness");
    let mut group = criterion.benchmark_group("1 MiB");
    group.throughput(Throughput::Bytes(MIB as u64));
    for kernel in Kernel::available() {
        let mut sealer = LayerSealer::new(kernel, keys());
        group.bench_function(format!("{} seal", kernel.name()), |bencher| {
            bencher.iter(|| sealer.update(black_box(&mut data)));
        });
        let mut opener = LayerOpener::new(kernel, &keys(), [0; 32]);
        group.bench_function(format!("{} open", kernel.name()), |bencher| {
            bencher.iter(|| opener.update(black_box(&mut data)));
        });
    }
    group.finish();
}

fn keys(criterion: &mut Criterion) {
    let kek = Kek::generate().expect("randomness");
    for algorithm in [Algorithm::A256Gcm, Algorithm::A256Ctr] {
        let iv = algorithm.generate_iv().expect("randomness");
        criterion.bench_function(&format!("wrap 193 bytes, {algorithm:?}"), |bencher| {
            bencher.iter(|| kek.wrap(algorithm, &iv, black_box(&[7; 193])));
        });
    }
}

criterion_group!(benches, layers, keys);
criterion_main!(benches);
