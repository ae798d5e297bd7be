//! Two threads, one layer.
//!
//! They take turns: each reads a chunk, encrypts or decrypts, hashes and writes it, and what must
//! be done in the layer's order goes from hand to hand as a [`Baton`]. So a chunk stays in one
//! core's cache all the way, and while the one hashes the other writes and reads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::descriptor::{Sink, Source};
use super::{GoOn, Progress, PumpError, solo};
use crate::kernel::{CIPHER_BLOCK, Direction, Engine, Hashes};
use crate::pass::Pass;
use crate::sha256::{self, BLOCK};

/// Bytes of a chunk.
const CHUNK: usize = 64 * 1024;

/// How long a thread that waits for its turn stays awake, for to wake it takes half as long as to
/// hash a chunk: 100 µs.
const AWAKE: Duration = Duration::from_micros(100);

/// How long it then sleeps before it looks whether it is to stop: 10 ms.
const PATIENCE: Duration = Duration::from_millis(10);

/// The number of a thread's first chunk. The first thread is the caller's.
const FIRST: u64 = 0;
const SECOND: u64 = 1;

/// Pumps all that the source holds through a pass that has no unfinished block; on one thread where
/// the operating system gives no second.
///
/// Where hashing is fused, one thread at a time hashes both sides of its chunk; else one the
/// ciphertext while the other one the plaintext of the chunk before.
pub(super) fn pump<'fd>(
    pass: &mut Pass,
    source: &mut Source<'fd>,
    sink: &Sink<'fd>,
    progress: &Progress,
    fused: bool,
    go_on: &mut GoOn<'_>,
) -> Result<(), PumpError> {
    debug_assert!(pass.is_aligned());
    let Pass { engine, direction, counter, hashes, size, .. } = &mut *pass;
    let plaintext = (!fused).then_some(hashes.plaintext);
    let relay = Relay {
        engine,
        direction: *direction,
        progress,
        reading: Baton::new(Reading { source, counter, size, tail: Vec::new(), end: None }),
        hashes: Baton::new(hashes),
        plaintext: plaintext.map(Baton::new),
        sink: Baton::new(sink),
        failed: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    let on_two = thread::scope(|scope| {
        let second = Builder::new().spawn_scoped(scope, || relay.run(SECOND, &mut || Ok(())));
        if second.is_ok() {
            relay.run(FIRST, go_on);
        }
        second.is_ok()
    });
    let Relay { reading, plaintext, failure, .. } = relay;
    if let Some(failure) = into_inner(failure) {
        return Err(failure);
    }
    let Reading { mut tail, .. } = reading.into_value();
    if let Some(baton) = plaintext {
        pass.hashes.plaintext = baton.into_value();
    }
    if !on_two {
        return solo(pass, source, sink, progress, go_on);
    }
    pass.update(&mut tail);
    sink.write(&tail, go_on)?;
    progress.add(tail.len());
    Ok(())
}

/// What the two have in common.
struct Relay<'a, 'fd> {
    engine: &'a Engine,
    direction: Direction,
    progress: &'a Progress,
    reading: Baton<Reading<'a, 'fd>>,
    hashes: Baton<&'a mut Hashes>,
    /// The plaintext's state, where it goes round by itself.
    plaintext: Option<Baton<sha256::State>>,
    sink: Baton<&'a Sink<'fd>>,
    failed: AtomicBool,
    failure: Mutex<Option<PumpError>>,
}

struct Reading<'a, 'fd> {
    source: &'a mut Source<'fd>,
    /// The next cipher block's.
    counter: &'a mut u128,
    /// The pass's, in whole blocks.
    size: &'a mut u64,
    /// What the source held beyond its last whole block.
    tail: Vec<u8>,
    /// How many chunks there are, once the source has ended.
    end: Option<u64>,
}

impl Relay<'_, '_> {
    /// Takes the chunk of this number and every second one after it. The first error ends both.
    fn run(&self, first: u64, go_on: &mut GoOn<'_>) {
        let _guard = FailOnPanic(&self.failed);
        let mut go_on = || {
            if self.failed.load(Ordering::Relaxed) { Err(PumpError::Stopped) } else { go_on() }
        };
        if let Err(error) = self.work(first, &mut go_on) {
            lock(&self.failure).get_or_insert(error);
            self.failed.store(true, Ordering::Relaxed);
        }
    }

    fn work(&self, first: u64, go_on: &mut GoOn<'_>) -> Result<(), PumpError> {
        let (mut input, mut output) = (vec![0; CHUNK], vec![0; CHUNK]);
        for turn in (first..).step_by(2) {
            let mut reading = self.reading.take(turn, go_on)?;
            if let Some(end) = reading.end {
                self.reading.pass_on(reading);
                if first == FIRST {
                    // Until the other has written, this one must listen whether they are to stop.
                    self.sink.take(end, go_on)?;
                }
                break;
            }
            let len = reading.source.fill(&mut input, go_on)?;
            let whole = len / BLOCK * BLOCK;
            let mut counter = Zeroizing::new(*reading.counter);
            *reading.counter = counter.wrapping_add((whole / CIPHER_BLOCK) as u128);
            reading.tail.extend_from_slice(&input[whole..len]);
            *reading.size += whole as u64;
            reading.end = (len < CHUNK).then_some(turn + 1);
            self.reading.pass_on(reading);

            let (input, output) = (&input[..whole], &mut output[..whole]);
            self.engine.crypt(&mut counter, input, output);
            let (plaintext, ciphertext) = self.direction.sides(input, output);

            let hashes = self.hashes.take(turn, go_on)?;
            if self.plaintext.is_none() {
                self.engine.compress_layer(hashes, plaintext, ciphertext);
            } else {
                let Hashes { mac, ciphertext: digest, .. } = &mut *hashes;
                self.engine.compress_pair(mac, digest, ciphertext);
            }
            self.hashes.pass_on(hashes);
            if let Some(baton) = &self.plaintext {
                let mut state = baton.take(turn, go_on)?;
                self.engine.compress(&mut state, plaintext);
                baton.pass_on(state);
            }

            let sink = self.sink.take(turn, go_on)?;
            sink.write(output, go_on)?;
            self.progress.add(whole);
            self.sink.pass_on(sink);
        }
        Ok(())
    }
}

/// If one thread panics, the other must not wait for it.
struct FailOnPanic<'a>(&'a AtomicBool);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Something of which each chunk has its turn.
struct Baton<T> {
    held: Mutex<Held<T>>,
    passed: Condvar,
}

struct Held<T> {
    turn: u64,
    /// None while a thread has it.
    value: Option<T>,
}

impl<T> Baton<T> {
    fn new(value: T) -> Self {
        Self { held: Mutex::new(Held { turn: 0, value: Some(value) }), passed: Condvar::new() }
    }

    /// Waits for a chunk's turn: awake for a while, unless the processor has other things to do.
    fn take(&self, turn: u64, go_on: &mut GoOn<'_>) -> Result<T, PumpError> {
        go_on()?;
        let start = Instant::now();
        loop {
            let mut held = lock(&self.held);
            if held.turn == turn
                && let Some(value) = held.value.take()
            {
                return Ok(value);
            }
            if start.elapsed() < AWAKE {
                drop(held);
                thread::yield_now();
            } else {
                drop(self.passed.wait_timeout(held, PATIENCE));
                go_on()?;
            }
        }
    }

    /// Lets the next chunk have it.
    fn pass_on(&self, value: T) {
        let mut held = lock(&self.held);
        held.value = Some(value);
        held.turn += 1;
        drop(held);
        self.passed.notify_one();
    }

    fn into_value(self) -> T {
        into_inner(self.held).value.expect("neither thread has it any more")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;
    use crate::kernel::Kernel;
    use crate::secret::Secret;

    /// Which of the two a processor takes is measured, so neither may depend on it to be tested.
    #[test]
    fn fused_or_not_a_layer_is_the_same() {
        let key = Secret::copy_from(&[7; 32], "key").unwrap();
        let nonce = Secret::copy_from(&[0xff; 16], "nonce").unwrap();
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 9 * CHUNK + 100] {
            let plaintext: Vec<u8> = (0..=250).cycle().take(len).collect();
            for kernel in Kernel::available() {
                let mut pass = Pass::new(kernel, Direction::Seal, &key, &nonce);
                let mut expected = plaintext.clone();
                pass.update(&mut expected);
                let expected_sums = pass.finish();
                for fused in [true, false] {
                    let (source, mut feed) = std::io::pipe().unwrap();
                    let (mut drain, target) = std::io::pipe().unwrap();
                    let mut pass = Pass::new(kernel, Direction::Seal, &key, &nonce);
                    let sealed = thread::scope(|scope| {
                        scope.spawn(|| {
                            feed.write_all(&plaintext).unwrap();
                            drop(feed);
                        });
                        let sealed = scope.spawn(|| {
                            let mut sealed = Vec::new();
                            std::io::Read::read_to_end(&mut drain, &mut sealed).unwrap();
                            sealed
                        });
                        let mut reading = Source::new(source.as_fd(), None);
                        let sink = Sink::new(target.as_fd());
                        let progress = Progress::default();
                        let go_on = &mut || Ok(());
                        pump(&mut pass, &mut reading, &sink, &progress, fused, go_on).unwrap();
                        assert_eq!(progress.done(), len as u64);
                        drop(target);
                        sealed.join().unwrap()
                    });
                    let sums = pass.finish();
                    assert!(sealed == expected, "{len} bytes, {}, {fused}", kernel.name());
                    assert_eq!(sums.hmac, expected_sums.hmac);
                    assert_eq!(sums.ciphertext_sha256, expected_sums.ciphertext_sha256);
                    assert_eq!(sums.plaintext_sha256, expected_sums.plaintext_sha256);
                    assert_eq!(sums.size, expected_sums.size);
                }
            }
        }
    }
}
