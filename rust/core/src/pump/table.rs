//! Where the two threads of a [`duet`](super::duet) hand chunks to each other.
//!
//! Chunks go round: from `free` through both hands back to `free`. Each lies in a queue for every
//! thing that is to be done with it; in each queue the order is the layer's.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{GoOn, Progress, PumpError};
use crate::kernel::Direction;
use crate::sha256;

/// Bytes of a chunk.
pub(super) const CHUNK: usize = 128 * 1024;

/// Chunks in the round: with input and output 2 MiB, whatever the layer's size.
const CHUNKS: usize = 8;

/// How long the first thread sleeps before it looks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(10);

/// A piece of the layer; `len` bytes of it count.
pub(super) struct Chunk {
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
    pub(super) len: usize,
}

impl Chunk {
    pub(super) fn output(&self) -> &[u8] {
        &self.output[..self.len]
    }

    /// (plaintext, ciphertext)
    pub(super) fn sides(&self, direction: Direction) -> (&[u8], &[u8]) {
        direction.sides(&self.input[..self.len], self.output())
    }
}

/// What a thread is to do next.
pub(super) enum Job {
    Read(Chunk),
    /// Into the ciphertext's states, and into the plaintext's if it is given.
    Hash(Arc<Chunk>, Option<sha256::State>),
    /// Into the plaintext's state alone.
    Digest(Arc<Chunk>, sha256::State),
    Write(Arc<Chunk>),
    None,
}

pub(super) struct Table {
    state: Mutex<State>,
    changed: Condvar,
    wants_digest: bool,
}

struct State {
    free: Vec<Chunk>,
    to_hash: VecDeque<Arc<Chunk>>,
    to_digest: VecDeque<Arc<Chunk>>,
    to_write: VecDeque<Arc<Chunk>>,
    /// The plaintext's state before the first chunk of `to_digest`. None while one of the two is at
    /// it: the next chunk must wait for its turn.
    plaintext: Option<sha256::State>,
    /// One of the two is writing: the next chunk must wait for its turn.
    writing: bool,
    /// The source has ended.
    complete: bool,
    /// The first thread has nothing to do.
    first_idles: bool,
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

    fn take_digest(&mut self) -> Option<Job> {
        if self.to_digest.is_empty() {
            return None;
        }
        let plaintext = self.plaintext.take()?;
        Some(Job::Digest(self.to_digest.pop_front()?, plaintext))
    }

    /// The plaintext's digest goes along, unless it lags or the first thread has time for it.
    fn take_hash(&mut self) -> Option<Job> {
        let chunk = self.to_hash.pop_front()?;
        let in_step = self.to_digest.front().is_some_and(|next| Arc::ptr_eq(next, &chunk));
        if !in_step || self.first_idles {
            return Some(Job::Hash(chunk, None));
        }
        let plaintext = self.plaintext.take();
        if plaintext.is_some() {
            self.to_digest.pop_front();
        }
        Some(Job::Hash(chunk, plaintext))
    }

    fn digest_lags(&self) -> bool {
        self.to_digest.len() > self.to_hash.len()
    }

    /// Who still hashes brings that back before he ends, and needs no company. A write does: it may
    /// have to wait, and only the first thread hears that it is to stop.
    fn is_done(&self) -> bool {
        let nothing_waits =
            self.to_hash.is_empty() && self.to_digest.is_empty() && self.to_write.is_empty();
        self.complete && nothing_waits && !self.writing
    }
}

impl Table {
    pub(super) fn new(plaintext: Option<sha256::State>) -> Self {
        let chunk = || Chunk { input: vec![0; CHUNK], output: vec![0; CHUNK], len: 0 };
        Self {
            state: Mutex::new(State {
                free: std::iter::repeat_with(chunk).take(CHUNKS).collect(),
                to_hash: VecDeque::with_capacity(CHUNKS),
                to_digest: VecDeque::with_capacity(CHUNKS),
                to_write: VecDeque::with_capacity(CHUNKS),
                plaintext,
                writing: false,
                complete: false,
                first_idles: false,
                error: None,
            }),
            changed: Condvar::new(),
            wants_digest: plaintext.is_some(),
        }
    }

    /// The first thread reads as long as the second keeps up, and else takes work off it.
    pub(super) fn job_of_the_first(&self, go_on: &mut GoOn<'_>) -> Job {
        loop {
            if let Err(error) = go_on() {
                self.fail(error);
            }
            let mut state = self.lock();
            if state.error.is_some() || state.is_done() {
                return Job::None;
            }
            state.first_idles = false;
            let second_is_behind = state.to_hash.len() >= CHUNKS / 2;
            if (state.complete || second_is_behind || state.free.is_empty())
                && let Some(job) = state.take_write()
            {
                return job;
            }
            if !state.complete
                && let Some(chunk) = state.free.pop()
            {
                return Job::Read(chunk);
            }
            if let Some(job) = state.take_digest() {
                return job;
            }
            state.first_idles = true;
            drop(self.changed.wait_timeout(state, PATIENCE));
        }
    }

    /// The second thread hashes what there is, and else does what the first has left.
    pub(super) fn job_of_the_second(&self) -> Job {
        let mut state = self.lock();
        loop {
            if state.error.is_some() || state.is_done() {
                return Job::None;
            }
            if state.digest_lags()
                && let Some(job) = state.take_digest()
            {
                return job;
            }
            if let Some(job) = state.take_hash() {
                if state.first_idles {
                    self.changed.notify_all(); // its digest is left over
                }
                return job;
            }
            if let Some(job) = state.take_write() {
                return job;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets the second thread have a chunk that was read and encrypted or decrypted.
    pub(super) fn pass_on(&self, chunk: Chunk, last: bool) {
        let chunk = Arc::new(chunk);
        let mut state = self.lock();
        state.to_hash.push_back(Arc::clone(&chunk));
        if self.wants_digest {
            state.to_digest.push_back(Arc::clone(&chunk));
        }
        state.to_write.push_back(chunk);
        state.complete = last;
        drop(state);
        self.changed.notify_all();
    }

    /// Takes a chunk that was hashed, and the plaintext's state if that had its turn.
    pub(super) fn hashed(&self, chunk: Arc<Chunk>, plaintext: Option<sha256::State>) {
        if plaintext.is_some() {
            self.lock().plaintext = plaintext;
        }
        self.put_back(chunk);
        self.changed.notify_all();
    }

    pub(super) fn written(
        &self,
        chunk: Arc<Chunk>,
        result: Result<(), PumpError>,
        progress: &Progress,
    ) {
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
    pub(super) fn fail(&self, error: PumpError) {
        let mut state = self.lock();
        state.error.get_or_insert(error);
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn has_not_failed(&self) -> Result<(), PumpError> {
        if self.lock().error.is_some() { Err(PumpError::Stopped) } else { Ok(()) }
    }

    /// The first error, or the plaintext's state at the end.
    pub(super) fn verdict(self) -> Result<Option<sha256::State>, PumpError> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.error.map_or(Ok(state.plaintext), Err)
    }

    /// If one thread panics, the other must not wait for it.
    pub(super) fn fail_on_panic(&self) -> impl Drop {
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
