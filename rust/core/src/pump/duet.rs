//! Two threads, one layer.
//!
//! The caller's thread reads, encrypts or decrypts, and hashes the plaintext. The other hashes the
//! ciphertext for HMAC and digest at once, which takes about as long. Whoever would have to wait
//! writes. Chunks go round: from `free` through both hands back to `free`.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder};
use std::time::Duration;

use super::descriptor::{Sink, Source};
use super::{GoOn, Progress, PumpError, solo};
use crate::data::Data;
use crate::kernel::{Direction, Hashes};
use crate::pass::Pass;
use crate::sha256::BLOCK;

/// Bytes of a chunk.
const CHUNK: usize = 128 * 1024;

/// Chunks in the round: with input and output 2 MiB, whatever the layer's size.
const CHUNKS: usize = 8;

/// How long a thread sleeps before it looks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(10);

/// Pumps all that the source holds through a pass that has no unfinished block; on one thread where
/// the operating system gives no second.
pub(super) fn pump(
    pass: &mut Pass,
    source: &mut Source<'_>,
    sink: &Sink<'_>,
    progress: &Progress,
    go_on: &mut GoOn<'_>,
) -> Result<(), PumpError> {
    debug_assert!(pass.is_aligned());
    let Pass { engine, direction, counter, hashes, .. } = pass;
    let Hashes { mac, ciphertext: digest, plaintext: plaintext_digest } = hashes;
    let (engine, direction) = (&*engine, *direction);
    let table = Table::new();
    let mut whole = 0;
    let mut tail = Vec::new();

    let on_two = thread::scope(|scope| {
        let second = Builder::new().spawn_scoped(scope, || {
            let _guard = table.fail_on_panic();
            loop {
                match table.job_of_the_second() {
                    Job::Hash(chunk) => {
                        engine.compress_pair(mac, digest, chunk.ciphertext(direction));
                        table.put_back(chunk);
                    }
                    Job::Write(chunk) => {
                        let written = sink.write(chunk.output(), &mut || table.has_not_failed());
                        table.written(chunk, written, progress);
                    }
                    Job::Read(_) | Job::None => break,
                }
            }
        });
        if second.is_err() {
            return false;
        }

        let _guard = table.fail_on_panic();
        loop {
            match table.job_of_the_first(go_on) {
                Job::Read(mut chunk) => match source.fill(&mut chunk.input, go_on) {
                    Err(error) => table.fail(error),
                    Ok(len) => {
                        chunk.len = len / BLOCK * BLOCK;
                        whole += chunk.len as u64;
                        let (input, output) = (&chunk.input, &mut chunk.output);
                        engine.crypt(counter, &input[..chunk.len], &mut output[..chunk.len]);
                        tail.extend_from_slice(&chunk.input[chunk.len..len]);
                        let chunk = table.pass_on(chunk, len < CHUNK);
                        if let Some(state) = plaintext_digest {
                            engine.compress(state, chunk.plaintext(direction));
                        }
                        table.put_back(chunk);
                    }
                },
                Job::Write(chunk) => {
                    let written = sink.write(chunk.output(), go_on);
                    table.written(chunk, written, progress);
                }
                Job::Hash(_) | Job::None => break,
            }
        }
        true
    });
    if !on_two {
        return solo(pass, source, sink, progress, go_on);
    }
    table.verdict()?;

    pass.size += whole;
    let mut output = vec![0; tail.len()];
    pass.update(Data::apart(&tail, &mut output), false);
    sink.write(&output, go_on)?;
    progress.add(output.len());
    Ok(())
}

struct Chunk {
    input: Vec<u8>,
    output: Vec<u8>,
    len: usize,
}

impl Chunk {
    fn output(&self) -> &[u8] {
        &self.output[..self.len]
    }

    fn plaintext(&self, direction: Direction) -> &[u8] {
        direction.sides(&self.input[..self.len], self.output()).0
    }

    fn ciphertext(&self, direction: Direction) -> &[u8] {
        direction.sides(&self.input[..self.len], self.output()).1
    }
}

enum Job {
    Read(Chunk),
    Hash(Arc<Chunk>),
    Write(Arc<Chunk>),
    None,
}

/// Where the two hand chunks to each other.
struct Table {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    free: Vec<Chunk>,
    to_hash: VecDeque<Arc<Chunk>>,
    to_write: VecDeque<Arc<Chunk>>,
    /// One of the two is writing: the next chunk must wait for its turn.
    writing: bool,
    /// The source has ended.
    complete: bool,
    failed: bool,
    error: Option<PumpError>,
}

impl State {
    fn take_write(&mut self) -> Option<Job> {
        if self.writing {
            return None;
        }
        let chunk = self.to_write.pop_front()?;
        self.writing = true;
        Some(Job::Write(chunk))
    }

    fn all_written(&self) -> bool {
        self.complete && self.to_write.is_empty() && !self.writing
    }
}

impl Table {
    fn new() -> Self {
        let chunk = || Chunk { input: vec![0; CHUNK], output: vec![0; CHUNK], len: 0 };
        Self {
            state: Mutex::new(State {
                free: std::iter::repeat_with(chunk).take(CHUNKS).collect(),
                to_hash: VecDeque::with_capacity(CHUNKS),
                to_write: VecDeque::with_capacity(CHUNKS),
                writing: false,
                complete: false,
                failed: false,
                error: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// The first thread reads as long as the second keeps up, and else writes.
    fn job_of_the_first(&self, go_on: &mut GoOn<'_>) -> Job {
        loop {
            if let Err(error) = go_on() {
                self.fail(error);
            }
            let mut state = self.lock();
            if state.failed || state.all_written() {
                return Job::None;
            }
            let second_is_busy = state.to_hash.len() >= CHUNKS / 2;
            if (state.complete || second_is_busy || state.free.is_empty())
                && let Some(job) = state.take_write()
            {
                return job;
            }
            if !state.complete
                && let Some(chunk) = state.free.pop()
            {
                return Job::Read(chunk);
            }
            drop(self.changed.wait_timeout(state, PATIENCE));
        }
    }

    /// The second thread hashes what there is, and else writes.
    fn job_of_the_second(&self) -> Job {
        let mut state = self.lock();
        loop {
            if state.failed {
                return Job::None;
            }
            if let Some(chunk) = state.to_hash.pop_front() {
                return Job::Hash(chunk);
            }
            if let Some(job) = state.take_write() {
                return job;
            }
            if state.all_written() {
                return Job::None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets the second thread have a chunk that was read and encrypted or decrypted.
    fn pass_on(&self, chunk: Chunk, last: bool) -> Arc<Chunk> {
        let chunk = Arc::new(chunk);
        let mut state = self.lock();
        state.to_hash.push_back(Arc::clone(&chunk));
        state.to_write.push_back(Arc::clone(&chunk));
        state.complete = last;
        drop(state);
        self.changed.notify_all();
        chunk
    }

    fn written(&self, chunk: Arc<Chunk>, result: Result<(), PumpError>, progress: &Progress) {
        match result {
            Ok(()) => progress.add(chunk.len),
            Err(error) => self.fail(error),
        }
        self.lock().writing = false;
        self.put_back(chunk);
        self.changed.notify_all();
    }

    /// Gives a chunk up; whoever does so last makes it free.
    fn put_back(&self, chunk: Arc<Chunk>) {
        if let Some(chunk) = Arc::into_inner(chunk) {
            self.lock().free.push(chunk);
            self.changed.notify_all();
        }
    }

    /// Ends the work of both; the first error stays.
    fn fail(&self, error: PumpError) {
        let mut state = self.lock();
        state.failed = true;
        state.error.get_or_insert(error);
        drop(state);
        self.changed.notify_all();
    }

    fn has_not_failed(&self) -> Result<(), PumpError> {
        if self.lock().failed { Err(PumpError::Stopped) } else { Ok(()) }
    }

    fn verdict(self) -> Result<(), PumpError> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.error.map_or(Ok(()), Err)
    }

    /// If one thread panics, the other must not wait for it.
    fn fail_on_panic(&self) -> impl Drop {
        struct Guard<'a>(&'a Table);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                if thread::panicking() {
                    self.0.fail(PumpError::Stopped);
                }
            }
        }
        Guard(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
